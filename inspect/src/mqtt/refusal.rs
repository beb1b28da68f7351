//! What a refusal looks like in MQTT: the packet that answers the refused one, so that no client hangs, and the leave that is taken of
//! both sides.

use crate::mqtt::packet::{Version, kind};
use crate::mqtt::wire::put_variable;

/// MQTT 5 reason "not authorised".
pub(crate) const NOT_AUTHORISED: u8 = 0x87;

/// MQTT 5 reason "packet identifier not found".
pub(crate) const IDENTIFIER_NOT_FOUND: u8 = 0x92;

/// CONNACK that refuses: "not authorised" (3.1.1: return code 5, section 3.2.2.3).
pub(crate) fn connack(version: Version) -> Vec<u8> {
    match version {
        Version::V311 => vec![0x20, 2, 0, 5],
        Version::V5 => vec![0x20, 3, 0, NOT_AUTHORISED, 0],
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP with a reason where the version has them.
pub(crate) fn acknowledgement(version: Version, which: u8, identifier: u16, reason: u8) -> Vec<u8> {
    let flags = if which == kind::PUBREL { 2 } else { 0 };
    let [high, low] = identifier.to_be_bytes();
    let first = which << 4 | flags;
    match (version, reason) {
        (Version::V311, _) | (Version::V5, 0) => vec![first, 2, high, low],
        (Version::V5, reason) => vec![first, 3, high, low, reason],
    }
}

/// What SUBACK says of a filter that no rule covers: "not authorised" (3.1.1: "failure", section 3.9.3).
pub(crate) fn not_subscribed(version: Version) -> u8 {
    match version {
        Version::V311 => 0x80,
        Version::V5 => NOT_AUTHORISED,
    }
}

/// SUBACK that refuses every filter of a list of so many.
pub(crate) fn suback(version: Version, identifier: u16, filters: usize) -> Vec<u8> {
    let mut body = identifier.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(std::iter::repeat_n(not_subscribed(version), filters));
    let mut packet = vec![kind::SUBACK << 4];
    put_variable(&mut packet, body.len());
    packet.extend(body);
    packet
}

/// The client's DISCONNECT, said in its place: its will is void, or left to be published (MQTT 3.1.1: by no DISCONNECT).
pub(crate) fn farewell(version: Version, with_will: bool) -> &'static [u8] {
    match (version, with_will) {
        (Version::V311, true) => &[],
        (_, false) => &[kind::DISCONNECT << 4, 0],
        (Version::V5, true) => &[kind::DISCONNECT << 4, 1, 4],
    }
}

/// DISCONNECT from the broker's side, which only MQTT 5 has.
pub(crate) fn disconnect(version: Version, reason: u8) -> Vec<u8> {
    match version {
        Version::V311 => Vec::new(),
        Version::V5 => vec![kind::DISCONNECT << 4, 2, reason, 0],
    }
}
