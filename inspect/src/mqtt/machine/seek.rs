//! Where a packet begins, in a stream that was lost or is met midway, and of which version it is.

use crate::connection::{ConnectionLimits, Sender};
use crate::mqtt::packet::{Header, Packet, Version, kind};
use crate::mqtt::{Connect, Publish};

/// What a stream begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// The packet that opens a connection.
    Connect,
    /// Another, that reads in this version.
    Packet(Version),
}

/// Whether `bytes` begin with a packet that reads strictly.
pub(super) fn begins_packet(from: Sender, bytes: &[u8]) -> Option<Begins> {
    let header = Header::decode(from, bytes).ok()??;
    let limit = ConnectionLimits::default().control_bytes_max;
    let body = bytes.get(header.header_bytes..)?;
    if header.kind == kind::CONNECT {
        return Connect::decode(body.get(..header.remaining)?)
            .ok()
            .map(|_| Begins::Connect);
    }
    let reads = |version: &Version| {
        if header.kind == kind::PUBLISH {
            let head = Publish::decode(*version, from, header.flags, body, header.remaining, limit);
            return matches!(head, Ok(Some(_)));
        }
        body.get(..header.remaining)
            .is_some_and(|body| Packet::decode(*version, from, header, body).is_ok())
    };
    // Topics and filters stand at the same place in both versions, so a wrong guess misleads nobody for long.
    [Version::V311, Version::V5]
        .into_iter()
        .find(reads)
        .map(Begins::Packet)
}
