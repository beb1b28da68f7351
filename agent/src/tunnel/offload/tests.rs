//! What is put together is divided again as it was, by checksums that another implementation computes.

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;

/// A segment of a stream, as etherparse writes it.
fn segment(v6: bool, port: u16, sequence: u32, payload: &[u8], push: bool) -> Vec<u8> {
    let ip = if v6 {
        PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 64)
    } else {
        PacketBuilder::ipv4([10, 1, 0, 10], [10, 2, 0, 10], 64)
    };
    let tcp = ip.tcp(port, 5201, sequence, 1_000).ack(7);
    let tcp = if push { tcp.psh() } else { tcp };
    let tcp = tcp.options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]).unwrap();
    let mut packet = Vec::new();
    tcp.write(&mut packet, payload).unwrap();
    packet
}

/// All frames that these packets become.
fn frames(packets: &[Vec<u8>]) -> Vec<(Vec<u8>, usize)> {
    let (mut joined, mut frames) = (Joined::default(), Vec::new());
    let mut send = |frame: &[u8], count: usize| frames.push((frame.to_vec(), count));
    for packet in packets {
        joined.take(packet, &mut send);
    }
    joined.flush(&mut send);
    frames
}

fn divided(mut frame: Vec<u8>) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    divide(&mut frame, |packet| packets.push(packet.to_vec())).unwrap();
    packets
}

/// Its number is free where it must not be divided.
fn without_number(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

fn assert_right(packet: &[u8]) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
        panic!("{packet:?}");
    };
    let computed = match sliced.net.as_ref().unwrap() {
        etherparse::NetSlice::Ipv4(ip) => {
            assert_eq!(
                ip.header().header_checksum(),
                ip.header().to_header().calc_header_checksum()
            );
            tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
        }
        etherparse::NetSlice::Ipv6(ip) => {
            tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
        }
        _ => panic!("{packet:?}"),
    };
    assert_eq!(computed.unwrap(), tcp.checksum());
}

proptest! {
    #[test]
    fn whatever_is_put_together_is_divided_into_the_packets_that_it_was(
        v6 in any::<bool>(),
        start in any::<u32>(),
        parts in prop::collection::vec((1..1_300_usize, any::<bool>(), 0..8_u8, 0..3_u16), 1..80),
    ) {
        let mut next = [start; 3];
        let packets: Vec<Vec<u8>> = parts
            .into_iter()
            .map(|(length, push, kind, port)| {
                // Most are full; some come late or twice, or are damaged.
                let length = if kind < 5 { 1_300 } else { length };
                let sequence = next[usize::from(port)];
                if kind != 6 {
                    next[usize::from(port)] = sequence.wrapping_add(u32::try_from(length).unwrap());
                }
                let payload: Vec<u8> = (0..length).map(|at| (at % 251) as u8 ^ sequence as u8).collect();
                let mut packet = segment(v6, port, sequence, &payload, push && kind > 3);
                if kind == 7 {
                    *packet.last_mut().unwrap() ^= 1;
                }
                packet
            })
            .collect();
        let frames = frames(&packets);
        prop_assert_eq!(frames.iter().map(|(_, count)| count).sum::<usize>(), packets.len());
        let mut came = Vec::new();
        for (frame, count) in frames {
            prop_assert!(frame.len() <= FRAME_BYTES_MAX);
            let own = divided(frame);
            prop_assert_eq!(own.len(), count);
            if count > 1 {
                own.iter().for_each(|packet| assert_right(packet));
            }
            came.extend(own.into_iter().map(without_number));
        }
        let sent: Vec<_> = packets.into_iter().map(without_number).collect();
        prop_assert_eq!(came, sent);
    }

    #[test]
    fn whatever_stands_in_a_frame_gives_no_more_payload_than_was_there(
        mut frame in prop::collection::vec(any::<u8>(), 0..3_000),
        kind in prop::sample::select(vec![0_u8, TCP4, TCP6, TCP4 | MARKED]),
    ) {
        if let Some(place) = frame.get_mut(1) {
            *place = kind;
        }
        let length = frame.len();
        let mut bytes = 0;
        divide(&mut frame, |packet| bytes += Shape::of(packet).map_or(packet.len(), |shape| packet.len() - shape.head));
        prop_assert!(bytes <= length);
    }
}

#[test]
fn a_stream_that_is_in_order_is_one_frame_and_the_first_short_packet_is_its_last() {
    let full = |at: u32| segment(false, 1, at * 1_000, &[3; 1_000], false);
    let packets = vec![
        full(0),
        full(1),
        full(2),
        segment(false, 1, 3_000, &[3; 10], true),
        segment(false, 1, 3_010, &[3; 10], true),
    ];
    let counts: Vec<usize> = frames(&packets).into_iter().map(|(_, count)| count).collect();
    assert_eq!(counts, [4, 1]);
}

#[test]
fn a_packet_whose_checksum_is_wrong_stays_alone_and_as_it_came() {
    let mut damaged = segment(false, 1, 1_000, &[3; 1_000], false);
    damaged[200] ^= 4;
    let packets = vec![
        segment(false, 1, 0, &[3; 1_000], false),
        damaged.clone(),
        segment(false, 1, 2_000, &[3; 1_000], false),
    ];
    let frames = frames(&packets);
    assert_eq!(frames.len(), 3);
    assert_eq!(frames[1].0[HEAD_BYTES..], damaged);
}

#[test]
fn a_checksum_that_the_kernel_left_open_is_computed() {
    let whole = segment(false, 9, 5, b"hello", true);
    let mut frame = vec![NEEDS_CHECKSUM, 0, 0, 0, 0, 0];
    frame.extend_from_slice(&20_u16.to_ne_bytes());
    frame.extend_from_slice(&16_u16.to_ne_bytes());
    let mut open = whole.clone();
    let shape = Shape::of(&open).unwrap();
    let beside = fold(shape.pseudo(&open, open.len() - 20).unwrap());
    put_word(&mut open, 36, beside).unwrap();
    frame.extend_from_slice(&open);
    assert_eq!(divided(frame), [whole]);
}
