//! SUBSCRIBEs that go on without the filters that no rule permits.
//!
//! MQTT answers each filter of a SUBSCRIBE by itself, so each is judged by itself. What is refused is taken out on the way to the
//! broker. [`Splits`] keeps its place until the broker's SUBACK comes; there its refusal is put in, so that the client gets one
//! code for each filter that it sent, in its order. Nothing else of either packet changes.
//!
//! A client that uses a packet identifier again before it was answered gets the broker's answers in the order of its requests; one of
//! which every filter is refused is answered here, at once.

use crate::mqtt::packet::{Version, kind};
use crate::mqtt::refusal;
use crate::mqtt::subscribe::Filters;
use crate::mqtt::wire::put_variable;

/// What is answered for a filter of which the broker's SUBACK says nothing, in either version: "failure".
const UNSPECIFIED: u8 = 0x80;

/// SUBSCRIBEs that wait for the broker's answer, oldest first.
#[derive(Debug, Default)]
pub(super) struct Splits {
    /// Packet identifier, and for each filter whether it was taken out.
    entries: Vec<(u16, Box<[bool]>)>,
    filters: usize,
}

impl Splits {
    /// Whether one with so many filters more would be within `limit`.
    pub(super) fn fits(&self, filters: usize, limit: usize) -> bool {
        self.filters.saturating_add(filters) <= limit
    }

    pub(super) fn add(&mut self, identifier: u16, refused: &[bool]) {
        self.filters += refused.len();
        self.entries.push((identifier, refused.into()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the next SUBACK of this identifier answers one of them.
    pub(super) fn awaits(&self, identifier: u16) -> bool {
        self.entries.iter().any(|(of, _)| *of == identifier)
    }

    /// Takes out the one that a SUBACK of this identifier answers.
    pub(super) fn take(&mut self, identifier: u16) -> Option<Box<[bool]>> {
        let at = self.entries.iter().position(|(of, _)| *of == identifier)?;
        let (_, refused) = self.entries.remove(at);
        self.filters -= refused.len();
        Some(refused)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &[bool])> {
        self.entries
            .iter()
            .map(|(identifier, refused)| (*identifier, &**refused))
    }

    /// What they take of memory, bytes.
    pub(super) fn memory(&self) -> usize {
        self.filters + self.entries.capacity() * size_of::<(u16, Box<[bool]>)>()
    }
}

/// The SUBSCRIBE without what is refused of it.
pub(super) fn without(filters: Filters<'_>, refused: &[bool]) -> Vec<u8> {
    let kept = filters.iter().zip(refused).filter(|(_, refused)| !**refused);
    let bytes = kept.flat_map(|(wanted, _)| wanted.bytes).copied();
    packet(
        kind::SUBSCRIBE << 4 | 2,
        filters.head.iter().copied().chain(bytes),
    )
}

/// The broker's SUBACK, with the refusals of what it was not asked for.
pub(super) fn answered(version: Version, head: &[u8], codes: &[u8], refused: &[bool]) -> Vec<u8> {
    let mut given = codes.iter().copied();
    let mut merged: Vec<u8> = refused
        .iter()
        .map(|refused| match refused {
            true => refusal::not_subscribed(version),
            false => given.next().unwrap_or(UNSPECIFIED),
        })
        .collect();
    merged.extend(given);
    packet(kind::SUBACK << 4, head.iter().copied().chain(merged))
}

fn packet(first: u8, body: impl Iterator<Item = u8>) -> Vec<u8> {
    let body: Vec<u8> = body.collect();
    let mut packet = vec![first];
    put_variable(&mut packet, body.len());
    packet.extend(body);
    packet
}
