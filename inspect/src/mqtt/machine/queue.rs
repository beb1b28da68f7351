//! The gateway's own packets: they never stand within a packet of which a part has gone on, but wait for its end.

use super::{Mqtt, overflow};
use crate::connection::machine::FeedEnd;
use crate::connection::{Sender, Sink, pass};
use crate::mqtt::packet::Header;

impl Mqtt {
    /// Sends what waited for the end of a packet of `from`.
    pub(super) fn give_queue(&mut self, from: Sender, out: &mut Sink<'_>) {
        let queue = self.take_queue(from);
        pass(from, &queue, out);
    }

    pub(super) fn take_queue(&mut self, from: Sender) -> Vec<u8> {
        std::mem::take(&mut self.half(from).queue)
    }

    /// Of a packet that is held, and for whose end answers wait: how many of `bytes` it still takes, if they end it.
    pub(super) fn answers_follow(&mut self, from: Sender, bytes: &[u8]) -> Option<usize> {
        let half = self.half(from);
        if half.queue.is_empty() || half.payload.is_some() {
            return None;
        }
        // A fixed header has 5 bytes at most.
        let held = &half.held.bytes;
        let beginning: Vec<u8> = held.iter().chain(bytes).take(5).copied().collect();
        let header = Header::decode(from, &beginning).ok()??;
        let lacking = (header.header_bytes + header.remaining).checked_sub(held.len())?;
        (lacking <= bytes.len()).then_some(lacking)
    }

    /// Sends a packet of the gateway's own to the receiver of what `side` sends: now, or after the packet of which a part has
    /// gone on.
    pub(super) fn tell(&mut self, side: Sender, packet: &[u8], out: &mut Sink<'_>) -> Result<(), FeedEnd> {
        let limit = self.terms.limits.queued_bytes_max;
        let half = self.half(side);
        if !half.is_within_passing() {
            pass(side, packet, out);
            return Ok(());
        }
        if half.queue.len() + packet.len() > limit {
            out(overflow(true));
            return Err(FeedEnd::Close { reset: true });
        }
        half.queue.extend_from_slice(packet);
        Ok(())
    }
}
