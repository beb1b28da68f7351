//! Packets in fragments: whole again in any order, and never where two readers could disagree.

use std::collections::BTreeMap;
use std::time::Duration;

use penstock_inspect::capture::{Fragments, Frame, SkipReason, Transport, link};
use proptest::prelude::*;

/// One fragment of a payload: where, more to come, bytes.
type Part = (usize, bool, Vec<u8>);

fn frame(at_s: u64, bytes: &[u8]) -> Frame<'_> {
    Frame {
        number: 1,
        link_type: 101,
        at: Duration::from_secs(at_s),
        bytes,
        wire_bytes: bytes.len(),
    }
}

/// A TCP segment with this payload.
fn tcp(payload: &[u8]) -> Vec<u8> {
    let head = [
        0xc0, 0, 1, 0xf6, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0,
    ];
    [&head[..], payload].concat()
}

/// The packet whole.
fn whole(ipv6: bool, payload: &[u8]) -> Vec<u8> {
    packet(ipv6, 0, None, payload)
}

/// A packet with this part of its payload.
fn packet(ipv6: bool, identification: u16, part: Option<(usize, bool)>, payload: &[u8]) -> Vec<u8> {
    let length = |more: usize| u16::try_from(payload.len() + more).unwrap().to_be_bytes();
    let place = |(offset, more): (usize, bool), shift: u32, bit: u16| {
        let units = u16::try_from(offset / 8).unwrap() << shift;
        (units | if more { bit } else { 0 }).to_be_bytes()
    };
    if ipv6 {
        let fragment = part.map(|part| {
            [
                &[6, 0][..],
                &place(part, 3, 1),
                &[0, 0],
                &identification.to_be_bytes(),
            ]
            .concat()
        });
        let next = if fragment.is_some() { 44 } else { 6 };
        let fragment = fragment.unwrap_or_default();
        let head = [&[0x60, 0, 0, 0][..], &length(fragment.len()), &[next, 64]].concat();
        [&head[..], &[0xfd; 16], &[0xfc; 16], &fragment, payload].concat()
    } else {
        let place = part.map_or([0, 0], |part| place(part, 0, 0x2000));
        let head = [
            &[0x45, 0][..],
            &length(20),
            &identification.to_be_bytes(),
            &place,
            &[64, 6, 0, 0],
        ]
        .concat();
        [&head[..], &[10, 0, 0, 1, 10, 0, 0, 2], payload].concat()
    }
}

/// The payload in parts of so many times eight bytes.
fn parts(payload: &[u8], lengths: &[usize]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = 0;
    for length in lengths.iter().cycle() {
        let end = (at + length * 8).min(payload.len());
        parts.push((at, end < payload.len(), payload[at..end].to_vec()));
        at = end;
        if at == payload.len() {
            break;
        }
    }
    parts
}

/// What comes out: the payloads of segments, and what is counted.
fn join(ipv6: bool, parts: &[Part]) -> (Vec<Vec<u8>>, BTreeMap<SkipReason, u64>) {
    let mut fragments = Fragments::default();
    let mut segments = Vec::new();
    for (offset, more, bytes) in parts {
        let packet = packet(ipv6, 7, Some((*offset, *more)), bytes);
        if let Some(Transport::Tcp(segment)) = fragments.transport(&frame(0, &packet)).unwrap() {
            let expected = whole(ipv6, &tcp(segment.payload));
            assert_eq!(
                segment,
                link::segment(&frame(0, &expected)).unwrap(),
                "headers too"
            );
            segments.push(segment.payload.to_vec());
        }
    }
    (segments, fragments.finish())
}

fn cut() -> impl Strategy<Value = (Vec<u8>, Vec<Part>)> {
    (
        prop::collection::vec(any::<u8>(), 5..300),
        prop::collection::vec(1_usize..5, 1..6),
    )
        .prop_map(|(payload, lengths)| {
            let parts = parts(&tcp(&payload), &lengths);
            (payload, parts)
        })
        .prop_filter("in one piece it is no fragment", |(_, parts)| parts.len() > 1)
}

proptest! {
    #[test]
    fn fragments_in_any_order_and_some_twice_are_the_packet_that_they_were(
        ipv6: bool, (payload, parts) in cut(), order in any::<prop::sample::Index>(), again in any::<prop::sample::Index>(),
        seed: u64,
    ) {
        let mut shuffled = parts.clone();
        // Doubled ones come before the packet is whole: afterwards they begin another.
        let last = order.index(parts.len());
        let ending = shuffled.remove(last);
        shuffled.push(shuffled[again.index(shuffled.len())].clone());
        shuffled.sort_by_key(|(at, ..)| (*at as u64 + 1).wrapping_mul(seed | 1));
        shuffled.push(ending);
        let (segments, counted) = join(ipv6, &shuffled);
        prop_assert_eq!(segments, vec![payload]);
        prop_assert!(counted.is_empty(), "{:?}", counted);
    }

    #[test]
    fn fragments_that_contradict_one_another_bring_nothing_whatever_follows(
        ipv6: bool, (_, parts) in cut(), which in any::<prop::sample::Index>(), kind in 0..5,
    ) {
        let total = parts.iter().map(|(_, _, bytes)| bytes.len()).sum::<usize>();
        let (at, more, bytes) = parts[which.index(parts.len() - 1)].clone();
        let mut changed = bytes.clone();
        changed[0] ^= 1;
        let contradiction: Part = match kind {
            // Other bytes at the same place; the same place and more; a part of it from its middle on.
            0 => (at, more, changed),
            1 => (at, more, [&bytes[..], &[0; 8]].concat()),
            2 => (at, more, bytes[..bytes.len() - 4].to_vec()),
            // Another end, before or behind the true one; the first as the last would be a whole packet.
            3 if at > 0 => (at, false, bytes),
            _ => (total.div_ceil(8) * 8, false, vec![0; 8]),
        };
        // It comes before the last missing one.
        let mut all = parts;
        let ending = all.pop().unwrap();
        all.push(contradiction);
        all.push(ending);
        all.extend(all.clone());
        let count = all.len() as u64;
        let (segments, counted) = join(ipv6, &all);
        prop_assert!(segments.is_empty(), "{:?}", segments);
        prop_assert_eq!(counted, BTreeMap::from([(SkipReason::FragmentsContradict, count)]));
    }
}

#[test]
fn what_is_missing_or_cut_by_the_capture_is_given_up_and_counted() {
    let payload = tcp(&[1; 40]);
    let [first, second]: [Part; 2] = parts(&payload, &[4]).try_into().unwrap();
    for ipv6 in [false, true] {
        let of = |(offset, more, bytes): &Part| packet(ipv6, 7, Some((*offset, *more)), bytes);
        let (first, second) = (of(&first), of(&second));
        // The second comes too late.
        let mut fragments = Fragments::default();
        assert_eq!(fragments.transport(&frame(0, &first)), Ok(None));
        assert_eq!(fragments.transport(&frame(61, &second)), Ok(None));
        let missing = |count| BTreeMap::from([(SkipReason::FragmentsMissing, count)]);
        assert_eq!(fragments.finish(), missing(2));
        // Its end is not in the capture.
        let mut fragments = Fragments::default();
        assert_eq!(fragments.transport(&frame(0, &first)), Ok(None));
        assert_eq!(
            fragments.transport(&frame(0, &second[..second.len() - 1])),
            Ok(None)
        );
        assert_eq!(fragments.finish(), missing(2));
    }
}

#[test]
fn fragments_that_would_be_a_longer_packet_than_there_can_be_are_counted() {
    // With its header, an IPv4 packet has 65,535 bytes at most.
    let parts = [(0, true, vec![0; 65_512]), (65_512, false, vec![0; 8])];
    let (segments, counted) = join(false, &parts);
    assert!(segments.is_empty());
    assert_eq!(counted, BTreeMap::from([(SkipReason::FragmentsContradict, 2)]));
}

#[test]
fn packets_that_became_whole_leave_nothing_behind() {
    let parts = parts(&tcp(&[1; 40]), &[4]);
    let mut fragments = Fragments::default();
    // One waits from the beginning to the end, and the recording's clock stands.
    let waits = packet(true, 0, Some((0, true)), &parts[0].2);
    assert_eq!(fragments.transport(&frame(0, &waits)), Ok(None));
    let mut sizes = Vec::new();
    for identification in 1..=1_000 {
        for (offset, more, bytes) in &parts {
            let packet = packet(true, identification, Some((*offset, *more)), bytes);
            fragments.transport(&frame(0, &packet)).unwrap();
        }
        // All that it holds, the counters' digits aside.
        sizes.push(format!("{fragments:?}").len() / 64);
    }
    assert_eq!(sizes.first(), sizes.last());
}

#[test]
fn fragments_that_never_become_whole_take_no_more_than_their_room() {
    let part = vec![0; 8 * 1024];
    let mut fragments = Fragments::default();
    let held_max = 4 * 1024 * 1024;
    for identification in 0..5_000 {
        let packet = packet(false, identification, Some((0, true)), &part);
        assert_eq!(fragments.transport(&frame(0, &packet)), Ok(None));
        assert!(fragments.held_bytes() <= held_max);
    }
    assert!(
        fragments.held_bytes() > held_max / 2,
        "they are held as long as there is room"
    );
    // The oldest made room; the newest can still become whole.
    let end = packet(false, 4_999, Some((part.len(), false)), &tcp(b"end"));
    assert!(
        fragments.transport(&frame(0, &end)).is_err(),
        "whole, and no TCP: zeroes"
    );
    assert_eq!(
        fragments.transport(&frame(0, &packet(false, 0, Some((part.len(), false)), &[0]))),
        Ok(None)
    );
    assert_eq!(
        fragments.finish(),
        BTreeMap::from([(SkipReason::FragmentsMissing, 5_000)])
    );
}
