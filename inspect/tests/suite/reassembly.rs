//! TCP streams put in order: whatever the network does to the segments, the bytes come out as they were sent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use penstock_inspect::capture::direction::NoDeclarations;
use penstock_inspect::capture::reassembly::{Piece, ReassemblyLimits, Stream};
use penstock_inspect::capture::{Envelope, Flows, Segment, flows};
use proptest::prelude::*;

fn run(segments: &[(u32, Vec<u8>)], limits: ReassemblyLimits) -> (Vec<u8>, u64, usize, usize) {
    let mut stream = Stream::new(limits);
    let (mut data, mut gaps, mut conflicts, mut held) = (Vec::new(), 0, 0, 0);
    let mut take = |piece: Piece<'_>| match piece {
        Piece::Data(bytes) => data.extend_from_slice(bytes),
        Piece::Gap(bytes) => gaps += bytes,
        Piece::Conflict(bytes) => conflicts += bytes,
    };
    for (sequence, payload) in segments {
        stream.segment(*sequence, payload, &mut take);
        held = held.max(stream.held_bytes());
    }
    stream.finish(&mut take);
    (data, gaps, conflicts, held)
}

proptest! {
    #[test]
    fn doubled_overlapping_and_shuffled_segments_give_the_stream_once(
        origin in any::<u32>(), sent in prop::collection::vec(any::<u8>(), 2..400),
        extra in prop::collection::vec((any::<prop::sample::Index>(), 2_usize..50), 0..20), order in any::<u64>()
    ) {
        // The first segment comes first (a stream begins where it is first seen); all else in any order, doubled.
        let mut pieces: Vec<(usize, usize)> = (0..sent.len()).step_by(7).map(|at| (at, 7)).collect();
        pieces.extend(extra.iter().map(|(at, length)| (at.index(sent.len()), *length)));
        let mut state = order | 1;
        for at in (2..pieces.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            pieces.swap(at, 1 + usize::try_from(state >> 33).unwrap() % at);
        }
        let segments: Vec<(u32, Vec<u8>)> = pieces.iter().map(|(at, length)| {
            let end = (at + length).min(sent.len());
            (origin.wrapping_add(u32::try_from(*at).unwrap()), sent[*at..end].to_vec())
        }).collect();
        let (data, gaps, conflicts, _) = run(&segments, ReassemblyLimits::default());
        prop_assert_eq!((data, gaps, conflicts), (sent, 0, 0));
    }

    #[test]
    fn any_segments_at_all_stay_within_the_bounds(segments in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 0..200)), 0..60)) {
        let limits = ReassemblyLimits { waiting_bytes_max: 1000, remembered_bytes_max: 500 };
        let (_, _, _, held) = run(&segments, limits);
        prop_assert!(held <= 1000 + 750 + 200, "held {}", held);
    }
}

#[test]
fn a_retransmission_with_other_content_is_told_and_the_first_content_stands() {
    let segments = [
        (10, b"abcdef".to_vec()),
        (12, b"XdY".to_vec()),
        (20, b"later".to_vec()),
        (21, b"AT".to_vec()),
    ];
    let (data, gaps, conflicts, _) = run(&segments, ReassemblyLimits::default());
    assert_eq!((data.as_slice(), gaps, conflicts), (&b"abcdeflater"[..], 4, 4));
}

#[test]
fn what_the_peer_acknowledged_but_the_capture_lacks_is_a_gap_at_once() {
    let mut stream = Stream::new(ReassemblyLimits::default());
    let mut pieces = Vec::new();
    let mut take = |piece: Piece<'_>| pieces.push(format!("{piece:?}"));
    stream.segment(u32::MAX - 1, b"ab", &mut take);
    stream.segment(5, b"cd", &mut take);
    stream.acknowledged(7, &mut take);
    assert_eq!(pieces, ["Data([97, 98])", "Gap(5)", "Data([99, 100])"]);
}

#[test]
fn segments_for_which_there_is_no_room_cost_no_more_than_those_that_are_followed() {
    const MANY: u32 = 20_000;
    for silent_after in [None, Some(Duration::from_secs(60))] {
        let limits = flows::FlowLimits {
            flows_max: MANY as usize,
            silent_after,
            ..flows::FlowLimits::default()
        };
        let mut flows = Flows::new(limits);
        let server: SocketAddr = "10.2.0.9:502".parse().unwrap();
        let mut take = |clients: std::ops::Range<u32>, at: u64| {
            let began = Instant::now();
            for client in clients {
                let segment = Segment {
                    source: SocketAddr::new(std::net::Ipv4Addr::from(0x0a01_0000 + client).into(), 40_000),
                    destination: server,
                    sequence: 0,
                    acknowledged: None,
                    syn: true,
                    fin: false,
                    rst: false,
                    payload: b"",
                    missing_bytes: 0,
                    envelope: Envelope::default(),
                };
                flows.segment(
                    Duration::from_secs(at),
                    &segment,
                    &NoDeclarations,
                    &mut |_, _, _, _| {},
                );
            }
            began.elapsed()
        };
        let followed = take(0..MANY, 5);
        let left_out = take(MANY..2 * MANY, 6);
        assert_eq!(flows.left_out(), u64::from(MANY));
        // Each of them going through all that are followed would take hundreds of times as long.
        assert!(left_out < followed * 10, "{left_out:?}, {followed:?}");
    }
}

#[test]
fn single_bytes_behind_a_hole_cost_no_more_than_others_and_come_out_once() {
    const MANY: u32 = 200_000;
    let mut stream = Stream::new(ReassemblyLimits::default());
    let mut out: Vec<u8> = Vec::new();
    let mut take = |piece: Piece<'_>| match piece {
        Piece::Data(bytes) => out.extend_from_slice(bytes),
        other => panic!("{other:?}"),
    };
    stream.begin(0);
    let began = Instant::now();
    // The first byte comes last.
    for at in 1..MANY {
        stream.segment(at, &[at.to_be_bytes()[3]], &mut take);
    }
    stream.segment(0, &[0], &mut take);
    assert_eq!(out.len(), MANY as usize);
    assert!(
        out.iter()
            .zip(0_u32..)
            .all(|(byte, at)| *byte == at.to_be_bytes()[3])
    );
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

proptest! {
    /// Pieces of one text in any order, overlapping as they like.
    #[test]
    fn overlapping_pieces_behind_a_hole_come_out_as_the_text_they_are_of(
        pieces in prop::collection::vec((1..200_u32, 1..40_u32), 0..60)
    ) {
        let text: Vec<u8> = (0..240_u32).map(|at| (at * 7 % 251) as u8).collect();
        let mut stream = Stream::new(ReassemblyLimits::default());
        let mut out: Vec<u8> = Vec::new();
        let mut gaps = 0;
        let mut take = |piece: Piece<'_>| match piece {
            Piece::Data(bytes) => out.extend_from_slice(bytes),
            Piece::Gap(bytes) => {
                gaps += bytes;
                out.extend(vec![0xff; usize::try_from(bytes).unwrap()]);
            }
            Piece::Conflict(bytes) => panic!("{bytes} bytes differ"),
        };
        stream.begin(0);
        let mut had = vec![false; text.len()];
        for (from, length) in &pieces {
            let (from, to) = (*from as usize, (*from + *length) as usize);
            stream.segment(u32::try_from(from).unwrap(), &text[from..to], &mut take);
            had[from..to].fill(true);
        }
        stream.finish(&mut take);
        let end = had.iter().rposition(|had| *had).map_or(0, |last| last + 1);
        let expected: Vec<u8> = (0..end).map(|at| if had[at] { text[at] } else { 0xff }).collect();
        prop_assert_eq!(&out, &expected);
        prop_assert_eq!(gaps, had[..end].iter().filter(|had| !**had).count() as u64);
    }
}
