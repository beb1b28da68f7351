//! Where a packet begins, in a stream that was lost or is met midway: at the next segment whose first bytes read
//! strictly as a packet. Segments are where senders begin packets, so that is where the search looks.
//!
//! Only what observes seeks. The place is a guess, a good one, on which nothing is ever enforced.

use penstock_policy::protocol::Protocol;
use penstock_policy::protocol::modbus_tcp::MODBUS_TCP;

use super::{ConnectionLimits, Sender, Version};
use crate::modbus::{Request, frame};
use crate::mqtt::packet::{Header, Packet, kind};
use crate::mqtt::{Connect, Publish};

/// Bytes skipped so far of each side whose next packet is looked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seeking([Option<u64>; 2]);

fn place(from: Sender) -> usize {
    match from {
        Sender::Client => 0,
        Sender::Server => 1,
    }
}

impl Seeking {
    /// How many bytes of a side were skipped, if its next packet is looked for.
    pub(super) fn of(&self, from: Sender) -> Option<u64> {
        self.0.get(place(from)).copied().flatten()
    }

    pub(super) fn begin(&mut self, from: Sender) {
        if let Some(side) = self.0.get_mut(place(from)) {
            side.get_or_insert(0);
        }
    }

    pub(super) fn skip(&mut self, from: Sender, bytes: usize) {
        if let Some(Some(skipped)) = self.0.get_mut(place(from)) {
            *skipped = skipped.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
    }

    /// A side's packet was found, or is looked for no more.
    pub(super) fn end(&mut self, from: Sender) -> Option<u64> {
        self.0.get_mut(place(from)).and_then(Option::take)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    Modbus,
    Mqtt(Version),
    /// The packet that opens a connection: everything is known from here on.
    MqttConnect,
}

/// Whether `bytes` begin with a packet that reads strictly.
pub(super) fn begins_packet(protocol: Protocol, from: Sender, bytes: &[u8]) -> Option<Begins> {
    match protocol {
        _ if protocol == MODBUS_TCP => {
            let frame = frame::next(bytes).ok()??;
            let code = *frame.pdu.first()?;
            let fits = match from {
                Sender::Client => Request::decode(frame.unit, frame.pdu).is_ok(),
                Sender::Server => code & 0x7f != 0 && (code < 0x80 || frame.pdu.len() == 2),
            };
            fits.then_some(Begins::Modbus)
        }
        _ => {
            let header = Header::decode(from, bytes).ok()??;
            let limit = ConnectionLimits::default().control_bytes_max;
            let body = bytes.get(header.header_bytes..)?;
            if header.kind == kind::CONNECT {
                return Connect::decode(body.get(..header.remaining)?)
                    .ok()
                    .map(|_| Begins::MqttConnect);
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
                .map(Begins::Mqtt)
        }
    }
}
