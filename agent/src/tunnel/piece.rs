//! Packets in datagrams, and back: whole, or in two halves where the path carries less. Pure.
//!
//! ```text
//! 0  packet                    a whole packet
//! 1  number (4 bytes)  bytes   its first half
//! 2  number (4 bytes)  bytes   its second half
//! ```
//!
//! Every QUIC path carries datagrams of more than half of [`MTU`], so two are enough. A half whose other half does not come is forgotten when its place
//! is needed: a lost half is a lost packet. Anything else than this is nobody's packet.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::MTU;

const WHOLE: u8 = 0;
const FIRST: u8 = 1;
const SECOND: u8 = 2;
/// Bytes in front of a half.
const HALF_HEAD: usize = 5;
/// Halves that wait for their others.
const WAITING_MAX: usize = 64;
const MTU_BYTES: usize = MTU as usize;

/// What waiting halves may hold, bytes.
pub(super) const HELD_BYTES_MAX: usize = WAITING_MAX * MTU_BYTES;

/// The datagrams of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packed {
    /// One.
    Whole(Bytes),
    /// Two.
    Halves(Bytes, Bytes),
    /// None: the path carries less than half of it.
    TooLarge,
}

/// Packs `packet` into datagrams of at most `room` bytes; `number` is another for each packet.
pub(super) fn pack(packet: &[u8], room: usize, number: u32) -> Packed {
    if packet.len() < room {
        let mut whole = BytesMut::with_capacity(packet.len() + 1);
        whole.put_u8(WHOLE);
        whole.put_slice(packet);
        return Packed::Whole(whole.freeze());
    }
    let (first, second) = packet.split_at(packet.len().div_ceil(2));
    if first.len() + HALF_HEAD > room {
        return Packed::TooLarge;
    }
    let half = |kind, bytes: &[u8]| {
        let mut half = BytesMut::with_capacity(bytes.len() + HALF_HEAD);
        half.put_u8(kind);
        half.put_u32(number);
        half.put_slice(bytes);
        half.freeze()
    };
    Packed::Halves(half(FIRST, first), half(SECOND, second))
}

/// A half that waits.
#[derive(Debug)]
struct Half {
    number: u32,
    kind: u8,
    bytes: Bytes,
}

/// Puts packets together from what comes.
#[derive(Debug)]
pub(super) struct Joiner(Vec<Option<Half>>);

impl Default for Joiner {
    fn default() -> Self {
        Self(std::iter::repeat_with(|| None).take(WAITING_MAX).collect())
    }
}

impl Joiner {
    /// The packet that is complete with this datagram.
    pub(super) fn take(&mut self, mut datagram: Bytes) -> Option<Bytes> {
        let kind = *datagram.first()?;
        if kind == WHOLE {
            let packet = datagram.split_off(1);
            return (packet.len() <= MTU_BYTES).then_some(packet);
        }
        let number = u32::from_be_bytes(*datagram.get(1..)?.first_chunk()?);
        let bytes = datagram.split_off(HALF_HEAD);
        if (kind != FIRST && kind != SECOND) || bytes.len() > MTU_BYTES {
            return None;
        }
        let place = usize::try_from(number).ok()?.checked_rem(WAITING_MAX)?;
        let place = self.0.get_mut(place)?;
        let half = Half { number, kind, bytes };
        match place.take() {
            Some(other) if other.number == number && other.kind != kind => {
                let (first, second) = if kind == FIRST {
                    (half, other)
                } else {
                    (other, half)
                };
                let whole = [first.bytes, second.bytes].concat();
                (whole.len() <= MTU_BYTES).then(|| whole.into())
            }
            _ => {
                *place = Some(half);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn datagrams(packet: &[u8], room: usize, number: u32) -> Vec<Bytes> {
        match pack(packet, room, number) {
            Packed::Whole(one) => vec![one],
            Packed::Halves(one, other) => vec![one, other],
            Packed::TooLarge => Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn every_packet_arrives_as_it_was_over_every_path_that_quic_has_in_any_order(
            packet in prop::collection::vec(any::<u8>(), 1..=MTU_BYTES),
            room in 1100_usize..1500,
            turned in any::<bool>(),
            number in any::<u32>(),
        ) {
            let mut sent = datagrams(&packet, room, number);
            prop_assert!(!sent.is_empty() && sent.iter().all(|datagram| datagram.len() <= room));
            if turned {
                sent.reverse();
            }
            let mut joiner = Joiner::default();
            let came: Vec<Bytes> = sent.into_iter().filter_map(|datagram| joiner.take(datagram)).collect();
            prop_assert_eq!(came, vec![Bytes::from(packet)]);
        }

        #[test]
        fn whatever_a_peer_sends_is_no_packet_larger_than_the_device_takes_and_holds_no_more_than_its_bound(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..200),
        ) {
            let mut joiner = Joiner::default();
            for datagram in sent {
                if let Some(packet) = joiner.take(datagram.into()) {
                    prop_assert!(packet.len() <= MTU_BYTES);
                }
            }
            let held: usize = joiner.0.iter().flatten().map(|half| half.bytes.len()).sum();
            prop_assert!(held <= HELD_BYTES_MAX);
        }
    }

    #[test]
    fn halves_of_different_packets_are_never_put_together() {
        let mut joiner = Joiner::default();
        let one = datagrams(&[1; 1400], 1200, 7);
        // The next packet with the same place.
        let other = datagrams(&[2; 1400], 1200, 7 + WAITING_MAX as u32);
        assert_eq!(joiner.take(one[0].clone()), None);
        assert_eq!(joiner.take(other[1].clone()), None);
        assert_eq!(joiner.take(one[1].clone()), None, "its first half had to go");
        assert_eq!(joiner.take(one[0].clone()).as_deref(), Some([1; 1400].as_slice()));
    }

    #[test]
    fn a_half_that_comes_twice_is_waited_for_once() {
        let mut joiner = Joiner::default();
        let sent = datagrams(&[3; 1400], 1200, 1);
        assert_eq!(joiner.take(sent[0].clone()), None);
        assert_eq!(joiner.take(sent[0].clone()), None);
        assert_eq!(
            joiner.take(sent[1].clone()).as_deref(),
            Some([3; 1400].as_slice())
        );
    }
}
