//! IP packets that were sent in fragments, put together again (RFC 791 3.2, RFC 8200 4.5).
//!
//! Readers disagree about fragments that overlap, which is an old way past inspection. So a packet whose fragments
//! contradict one another is refused whole, with those still to come (RFC 5722); only a fragment that comes again, byte
//! for byte, is let by. What is missing after [`PATIENCE`], or when there is no more room, is given up. Nothing is lost in
//! silence: each fragment that brought nothing is counted with its reason.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use super::envelope::Envelope;
use super::file::Frame;
use super::link::{self, Packet, SkipReason, Transport};

/// How long the fragments of a packet are waited for (RFC 8200 4.5).
const PATIENCE: Duration = Duration::from_secs(60);
/// Packets that wait for fragments at a time.
const WAITING_MAX: usize = 1024;
/// Bytes of all their fragments, with what each costs to keep.
const HELD_BYTES_MAX: usize = 4 << 20;
const PIECE_COST_BYTES: usize = 64;
/// The longest payload of an IP packet.
const PAYLOAD_BYTES_MAX: usize = 65_535;
/// Raw IP, as what is whole again is read.
const RAW_IP: u16 = 101;

/// A part of an IP packet's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Who sent it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// What the fragments of a packet have in common.
    pub identification: u32,
    /// The protocol of the payload's first header; of IPv6, what the first fragment says counts.
    pub protocol: u8,
    /// Its place in the payload, bytes.
    pub offset: usize,
    /// It is not the last.
    pub more: bool,
    /// Its bytes; `None` if the capture has not all of them.
    pub bytes: Option<Vec<u8>>,
    /// The tags and labels that it came in.
    pub envelope: Envelope,
}

/// What tells the packets apart: IPv4 goes by the protocol too.
type Key = (IpAddr, IpAddr, u32, Option<u8>, Envelope);

#[derive(Debug)]
struct PartialPacket {
    /// Its place in [`Fragments::order`].
    number: u64,
    begun: Duration,
    /// By their place; none overlap.
    pieces: BTreeMap<usize, Vec<u8>>,
    protocol: u8,
    length: Option<usize>,
    /// Fragments so far.
    count: u64,
    refused: bool,
}

/// Fragments that wait for others.
#[derive(Debug, Default)]
pub struct Fragments {
    waiting: HashMap<Key, PartialPacket>,
    /// The same in the order they began, by their number.
    order: BTreeMap<u64, Key>,
    begun: u64,
    held_bytes: usize,
    without_effect: BTreeMap<SkipReason, u64>,
    /// The last packet that became whole.
    whole: Vec<u8>,
}

impl Fragments {
    /// What `frame` carries, or the packet whose last missing fragment it brings. `None`: it is a fragment, which waits
    /// for others or is counted.
    ///
    /// # Errors
    /// Why a packet is left aside.
    pub fn transport<'a>(&'a mut self, frame: &Frame<'a>) -> Result<Option<Transport<'a>>, SkipReason> {
        let fragment = match link::packet(frame)? {
            Packet::Whole(transport) => return Ok(Some(transport)),
            Packet::Fragment(fragment) => fragment,
        };
        let envelope = fragment.envelope;
        let Some(whole) = self.add(frame.at, fragment) else {
            return Ok(None);
        };
        self.whole = whole;
        let again = Frame {
            link_type: RAW_IP,
            bytes: &self.whole,
            wire_bytes: self.whole.len(),
            ..*frame
        };
        match link::packet(&again)? {
            Packet::Fragment(_) => Err(SkipReason::Fragment),
            // Fragments of one packet go one way.
            Packet::Whole(Transport::Udp(_)) if link::to_group(frame) => Err(SkipReason::Group),
            Packet::Whole(mut transport) => {
                match &mut transport {
                    Transport::Tcp(segment) => segment.envelope = envelope,
                    Transport::Udp(datagram) => datagram.envelope = envelope,
                }
                Ok(Some(transport))
            }
        }
    }

    /// Bytes held of fragments that wait, with what each costs to keep.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The fragments that brought nothing: those that still wait do so in vain.
    pub fn finish(mut self) -> BTreeMap<SkipReason, u64> {
        while self.give_up_first() {}
        self.without_effect
    }

    /// Takes a fragment; the whole packet, if nothing of it is missing any more.
    fn add(&mut self, at: Duration, fragment: Fragment) -> Option<Vec<u8>> {
        while self
            .first()
            .is_some_and(|first| at.saturating_sub(first.begun) > PATIENCE)
        {
            self.give_up_first();
        }
        let ends = (fragment.source, fragment.destination);
        let key = (
            ends.0,
            ends.1,
            fragment.identification,
            ends.0.is_ipv4().then_some(fragment.protocol),
            fragment.envelope,
        );
        let waiting = self.waiting.entry(key).or_insert_with(|| {
            self.begun += 1;
            self.order.insert(self.begun, key);
            PartialPacket {
                number: self.begun,
                begun: at,
                pieces: BTreeMap::new(),
                protocol: fragment.protocol,
                length: None,
                count: 0,
                refused: false,
            }
        });
        waiting.count += 1;
        let held_before = waiting.held_bytes();
        if !waiting.refused && !waiting.take(fragment) {
            waiting.refused = true;
            waiting.pieces.clear();
        }
        self.held_bytes = (self.held_bytes + waiting.held_bytes()).saturating_sub(held_before);
        if waiting.is_whole() {
            let waiting = self.remove(&key)?;
            let count = waiting.count;
            let packet = waiting.packet(ends.0, ends.1);
            if packet.is_none() {
                *self
                    .without_effect
                    .entry(SkipReason::FragmentsContradict)
                    .or_default() += count;
            }
            return packet;
        }
        while self.waiting.len() > WAITING_MAX || self.held_bytes > HELD_BYTES_MAX {
            if !self.give_up_first() {
                break;
            }
        }
        None
    }

    /// The packet that began first.
    fn first(&self) -> Option<&PartialPacket> {
        self.waiting.get(self.order.first_key_value()?.1)
    }

    fn remove(&mut self, key: &Key) -> Option<PartialPacket> {
        let waiting = self.waiting.remove(key)?;
        self.order.remove(&waiting.number);
        self.held_bytes = self.held_bytes.saturating_sub(waiting.held_bytes());
        Some(waiting)
    }

    /// Gives up the packet that began first; whether there was one.
    fn give_up_first(&mut self) -> bool {
        let first = self.order.first_key_value().map(|(_, key)| *key);
        let Some(waiting) = first.and_then(|key| self.remove(&key)) else {
            return false;
        };
        let reason = if waiting.refused {
            SkipReason::FragmentsContradict
        } else {
            SkipReason::FragmentsMissing
        };
        *self.without_effect.entry(reason).or_default() += waiting.count;
        true
    }
}

impl PartialPacket {
    fn held_bytes(&self) -> usize {
        self.pieces
            .values()
            .map(|piece| piece.len() + PIECE_COST_BYTES)
            .sum()
    }

    /// Takes a fragment; `false` if it contradicts those before, or itself.
    fn take(&mut self, fragment: Fragment) -> bool {
        // It was there, but what it said is not known: the others wait in vain.
        let Some(bytes) = fragment.bytes else { return true };
        let (first, end) = (fragment.offset, fragment.offset + bytes.len());
        let aligned = !fragment.more || bytes.len().is_multiple_of(8);
        if end > PAYLOAD_BYTES_MAX || bytes.is_empty() || !aligned {
            return false;
        }
        let last_end = self
            .pieces
            .last_key_value()
            .map_or(0, |(at, piece)| at + piece.len());
        match self.length {
            Some(length) if end > length || (!fragment.more && end != length) => return false,
            None if !fragment.more && last_end > end => return false,
            _ => {}
        }
        let was_last = self.length == Some(end);
        if self.pieces.get(&first) == Some(&bytes) && fragment.more != was_last {
            return true;
        }
        let before = self.pieces.range(..end).next_back();
        if before.is_some_and(|(at, piece)| at + piece.len() > first) {
            return false;
        }
        if first == 0 {
            self.protocol = fragment.protocol;
        }
        if !fragment.more {
            self.length = Some(end);
        }
        self.pieces.insert(first, bytes);
        true
    }

    fn is_whole(&self) -> bool {
        // They do not overlap, so as many bytes as the packet has are all of it.
        let bytes: usize = self.pieces.values().map(Vec::len).sum();
        self.length == Some(bytes)
    }

    /// The packet as it was before, with the fewest headers that say what it is; `None` if it is longer than any can be.
    fn packet(self, source: IpAddr, destination: IpAddr) -> Option<Vec<u8>> {
        let payload = self.pieces.into_values().flatten();
        let length = self.length?;
        let mut packet = Vec::with_capacity(40 + length);
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total = u16::try_from(20 + length).ok()?;
                packet.extend([0x45, 0]);
                packet.extend(total.to_be_bytes());
                packet.extend([0, 0, 0, 0, 64, self.protocol, 0, 0]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                packet.extend([0x60, 0, 0, 0]);
                packet.extend(u16::try_from(length).ok()?.to_be_bytes());
                packet.extend([self.protocol, 64]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
            }
            _ => return None,
        }
        packet.extend(payload);
        Some(packet)
    }
}
