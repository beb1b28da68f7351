//! How much is read of a side, and when: never more than one connection may take before others have their turn, and nothing
//! while a peer does not take what was read before.

use std::task::{Context, Poll};

use penstock_inspect::connection::Sender;

use super::super::seats::UNREAD_READ_BYTES;
use super::{ConnectionEnd, Inspection, READ_BYTES, Scratch, Session};

/// What a read left is taken by so many more at once; then other connections have their turn.
const ROUNDS_MAX: usize = 16;
/// Answers of the gateway's own that may wait for their receiver before it is no longer listened to.
const ANSWERS_BYTES_MAX: usize = 16 * 1024;

impl Session {
    /// Reads what a side sent, and handles it; whether there was anything.
    pub(super) fn read(
        &mut self,
        side: Sender,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Result<bool, ConnectionEnd> {
        if std::mem::take(self.left.of_mut(side)) {
            self.read_on(side, cx, scratch)?;
            return Ok(true);
        }
        let most = self.read_bytes();
        let room = scratch.read.get_mut(..most).unwrap_or_default();
        match self.peer(side).leg.poll_read(cx, room) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(ConnectionEnd::by(side, &error)),
            Poll::Ready(Ok(count)) => {
                self.take(side, count, cx, scratch)?;
                // What passes unjudged does so at once, whatever it is. That is on its way by now.
                if (1..most).contains(&count) && self.passes_at_once() {
                    self.read_on(side, cx, scratch)?;
                }
                Ok(true)
            }
        }
    }

    /// Whether a side that may be read has more bytes that no wake-up will announce.
    pub(super) fn has_left(&self) -> bool {
        let mut sides = [Sender::Client, Sender::Server].into_iter();
        sides.any(|side| *self.left.of(side) && self.may_read(side))
    }

    /// Takes what a read left of a side, or as much of it as one connection may take before others have their turn.
    fn read_on(
        &mut self,
        side: Sender,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), ConnectionEnd> {
        let most = self.read_bytes();
        for _ in 0..ROUNDS_MAX {
            let room = scratch.read.get_mut(..most).unwrap_or_default();
            if !self.may_read(side) {
                break;
            }
            let Some(read) = self.peer(side).leg.read_on(room) else {
                return Ok(());
            };
            let count = read.map_err(|error| ConnectionEnd::by(side, &error))?;
            self.take(side, count, cx, scratch)?;
        }
        *self.left.of_mut(side) = true;
        Ok(())
    }

    /// One read of this connection takes so much at most.
    fn read_bytes(&self) -> usize {
        match self.seat.is_observed() {
            true => UNREAD_READ_BYTES,
            false => READ_BYTES,
        }
    }

    pub(super) fn passes_at_once(&self) -> bool {
        match &self.inspection {
            Inspection::Passing => true,
            Inspection::Following(connection) => connection.observes(),
        }
    }

    /// What it holds of packets that are not whole, or that a peer does not take, and for TLS.
    pub(super) fn held_bytes(&self) -> usize {
        let of_packets = match &self.inspection {
            Inspection::Following(connection) => connection.held_memory(),
            Inspection::Passing => 0,
        };
        let legs = [&self.client, &self.server].map(|peer| peer.backlog.capacity() + peer.leg.held_bytes());
        let beside = self.beside.as_ref().map_or(0, |beside| beside.held_bytes());
        legs.into_iter()
            .fold(of_packets.saturating_add(beside), usize::saturating_add)
    }

    /// Nothing more is read of a side while what it sent before was not taken, or while it does not take its answers.
    pub(super) fn may_read(&self, side: Sender) -> bool {
        let (from, to) = match side {
            Sender::Client => (&self.client, &self.server),
            Sender::Server => (&self.server, &self.client),
        };
        !from.over && to.backlog.is_empty() && from.backlog.len() < ANSWERS_BYTES_MAX
    }
}
