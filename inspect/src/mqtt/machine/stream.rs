//! Packets off a stream: what is whole is judged, what is not waits, and a publication's payload passes without being held.

use super::{Fate, Mqtt, Payload};
use crate::connection::machine::{FeedEnd, Machine};
use crate::connection::{Mode, Sender, Sink, half_through, pass};
use crate::mqtt::Publish;
use crate::mqtt::deviation::MqttDeviation;
use crate::mqtt::judge::MqttRules;
use crate::mqtt::packet::{Header, Packet, kind};
use crate::mqtt::wire::MqttError;

/// A publication's head, or any other packet whole, with its length in bytes.
pub(super) enum ParsedPacket<'a> {
    Head(Publish<'a>, usize, usize),
    Whole(Packet<'a>, usize),
}

impl Mqtt {
    /// Takes bytes, as [`Machine::feed`] says.
    pub(super) fn take(
        &mut self,
        rules: &MqttRules,
        from: Sender,
        rest: &mut &[u8],
        out: &mut Sink<'_>,
    ) -> Option<FeedEnd> {
        let only_owed = self.terms.mode == Mode::Observe && self.owes(from);
        loop {
            self.payload(from, rest, out);
            if rest.is_empty() || only_owed && !self.owes(from) {
                return self.parts_at_the_end(out);
            }
            // Here, where all that was held of a packet is in its place: whoever takes leave has to know.
            if let Some(ending) = self.end_if_taken(out) {
                return Some(ending);
            }
            let mut held = std::mem::take(&mut self.half(from).held);
            let before = held.len();
            let result = if before == 0 {
                self.step(rules, from, (*rest, 0), out)
            } else {
                // As much as can be needed: a fixed header, and what of a packet is held at most.
                let room = self.terms.limits.control_bytes_max + 5;
                let take = room.saturating_sub(before).min(rest.len());
                held.bytes.extend_from_slice(rest.get(..take).unwrap_or_default());
                self.step(rules, from, (&held.bytes, held.passed()), out)
            };
            match result {
                Ok(0) if before == 0 => {
                    self.half(from).held.bytes.extend_from_slice(rest);
                    return None;
                }
                Ok(0) => {
                    self.half(from).held = held;
                    return None;
                }
                Ok(used) => {
                    held.clear();
                    self.half(from).held = held;
                    *rest = rest.get(used.saturating_sub(before)..).unwrap_or_default();
                }
                Err(ending) => {
                    held.truncate(before);
                    self.half(from).held = held;
                    return Some(ending);
                }
            }
        }
    }

    /// Lets the payload of a judged publication pass, or fall.
    pub(super) fn payload(&mut self, from: Sender, rest: &mut &[u8], out: &mut Sink<'_>) {
        let half = self.half(from);
        let Some(payload) = &mut half.payload else { return };
        let count = payload.remaining.min(rest.len());
        let (now, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        if payload.forward {
            pass(from, now, out);
        }
        payload.remaining -= count;
        *rest = after;
        if payload.remaining == 0 {
            half.payload = None;
            half.passing = None;
            self.give_queue(from, out);
        }
    }

    /// Handles the packet at the beginning of `view`, of which some has gone on already; the number of its bytes that were
    /// there, 0 for too few.
    fn step(
        &mut self,
        rules: &MqttRules,
        from: Sender,
        (view, passed): (&[u8], usize),
        out: &mut Sink<'_>,
    ) -> Result<usize, FeedEnd> {
        let lost = |error: MqttError| FeedEnd::Lost(MqttDeviation::Packet(error).into());
        let Some(parsed) = self.parse(from, view).map_err(lost)? else {
            return Ok(0);
        };
        let (used, fate) = match parsed {
            ParsedPacket::Head(publish, head_bytes, payload_bytes) => {
                let more = view.len() < head_bytes + payload_bytes;
                let (fate, refused) = self.publish(rules, from, &publish, more, out);
                self.half(from).payload = (payload_bytes > 0).then_some(Payload {
                    remaining: payload_bytes,
                    forward: matches!(fate, Fate::Forward),
                    refused,
                });
                (head_bytes, fate)
            }
            ParsedPacket::Whole(packet, used) => {
                self.advance(from, &packet);
                (used, self.packet(rules, &packet, (from, passed > 0), out))
            }
        };
        match fate {
            Fate::Forward => {
                pass(from, view.get(passed..used).unwrap_or_default(), out);
                if self.half(from).payload.is_none() {
                    self.give_queue(from, out);
                }
                Ok(used)
            }
            Fate::Withhold | Fate::Instead(_) if passed > 0 => {
                out(half_through());
                Err(FeedEnd::Close { reset: true })
            }
            Fate::Instead(packet) => {
                pass(from, &packet, out);
                Ok(used)
            }
            Fate::Withhold => Ok(used),
            Fate::End(ending) => Err(ending),
        }
    }

    pub(super) fn parse<'a>(
        &self,
        from: Sender,
        view: &'a [u8],
    ) -> Result<Option<ParsedPacket<'a>>, MqttError> {
        let limits = self.terms.limits;
        let Some(header) = Header::decode(from, view)? else {
            return Ok(None);
        };
        self.in_order(from, header.kind)?;
        let too_large = |limit| MqttError::TooLarge {
            bytes: header.remaining,
            limit,
        };
        if header.remaining > limits.packet_bytes_max {
            return Err(too_large(limits.packet_bytes_max));
        }
        let body = view.get(header.header_bytes..).unwrap_or_default();
        if header.kind == kind::PUBLISH {
            let head = Publish::decode(
                self.version,
                from,
                header.flags,
                body,
                header.remaining,
                limits.control_bytes_max,
            )?;
            let whole = self.goes_on_whole(from, &header);
            if whole && body.len() < header.remaining {
                return Ok(None);
            }
            return Ok(head.map(|publish| {
                let passes = if whole {
                    header.remaining
                } else {
                    publish.head_bytes
                };
                ParsedPacket::Head(publish, header.header_bytes + passes, header.remaining - passes)
            }));
        }
        if header.remaining > limits.control_bytes_max {
            return Err(too_large(limits.control_bytes_max));
        }
        let Some(body) = body.get(..header.remaining) else {
            return Ok(None);
        };
        let packet = Packet::decode(self.version, from, header, body)?;
        Ok(Some(ParsedPacket::Whole(
            packet,
            header.header_bytes + header.remaining,
        )))
    }
}
