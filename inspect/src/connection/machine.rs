//! What a connection asks of the machine that reads its protocol. One is in each protocol's folder; the list is
//! [`crate::protocols`].
//!
//! A machine follows one connection: bytes in, what becomes of them out, by the rules and terms that it is given. What only some
//! protocols know (something that outlives a connection, an order of ending, answers that are completed) has a default
//! for all others.

use std::fmt::Debug;
use std::time::Duration;

use serde_json::value::RawValue;

use super::memory::Recollection;
use super::{ConnectionLimits, Deviation, Mode, Sender, Sink};
use crate::judge::{OnRefusal, Rules};

/// What a machine needs to know of the flow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) mode: Mode,
    pub(crate) on_refusal: OnRefusal,
    pub(crate) limits: ConnectionLimits,
}

/// How a machine ends a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FeedEnd {
    /// The stream cannot be followed.
    Lost(Deviation),
    /// The connection ends.
    Close { reset: bool },
}

/// Where reading begins again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// A packet of this side.
    Packet,
    /// The packet that opens a connection: everything is known from here on.
    Connection,
}

/// One connection in one protocol.
pub(crate) trait Machine: Debug + Send + Sync {
    /// Takes bytes of `from`, of which `rest` is left when it ends. Observing, it takes no more than is owed ([`Self::owes`]), if
    /// anything is. Rules of another protocol permit nothing.
    fn feed(
        &mut self,
        rules: &Rules,
        from: Sender,
        now: Duration,
        rest: &mut &[u8],
        out: &mut Sink<'_>,
    ) -> Option<FeedEnd>;

    /// From the next packet on, other terms hold. Whether the connection cannot stand under them.
    fn set_terms(&mut self, terms: Terms) -> bool;

    /// Other rules hold, or other terms: what it has and what is in flight is judged again. Rules of another protocol
    /// permit nothing.
    fn rejudge(&mut self, rules: &Rules);

    /// Bytes kept of packets that are not whole yet, both directions.
    fn held_bytes(&self) -> usize;

    /// What it takes of memory for what peers sent, bytes.
    fn held_memory(&self) -> usize;

    /// Whether a packet of that side is passing and not yet whole.
    fn within_packet(&self, from: Sender) -> bool;

    /// Sends on what is held of `from`, but for what is owed.
    fn let_go(&mut self, from: Sender, out: &mut Sink<'_>);

    /// What is held of `from` has gone on.
    fn mark_passed(&mut self, from: Sender);

    /// Forgets what is held of `from`: how many bytes it was.
    fn forget_held(&mut self, from: Sender) -> usize;

    /// Bytes of `from` are missing: what it sends next is the beginning of a packet.
    fn skip_to_boundary(&mut self, from: Sender);

    /// Whether `bytes`, in a stream that was lost or is met midway, begin with a packet that reads strictly: then it is read from
    /// there on.
    fn begins(&mut self, rules: &Rules, from: Sender, bytes: &[u8]) -> Option<Beginning>;

    /// All that another process needs to go on from here.
    fn freeze(&self, now: Duration) -> serde_json::Result<Box<RawValue>>;

    /// A connection that has stood for a while: nothing of what passed before is known.
    fn met_midway(&mut self) {}

    /// What is known beyond the connection counts, too, and what it learns is known there.
    fn remember(&mut self, _known: &Recollection) {}

    /// `from` sends no more; unless the connection is closed, what follows from that goes to `out`.
    fn ended(&mut self, _from: Sender, _is_closed: bool, _out: &mut Sink<'_>) {}

    /// Observing: whether what `from` sends is still to be completed for what was refused while it was enforced.
    fn owes(&self, _from: Sender) -> bool {
        false
    }

    /// Gives up what is owed, and sends on what was held for it: what comes next is taken as it is.
    fn give_up_owed(&mut self, _out: &mut Sink<'_>) {}

    /// Observing: ends what began to be refused while it was enforced, and gives the bytes behind it.
    fn finish_refused<'b>(&mut self, _from: Sender, bytes: &'b [u8], _out: &mut Sink<'_>) -> &'b [u8] {
        bytes
    }

    /// Observing: answers of the gateway's own that wait for the end of a packet of `from`, if it is among `bytes`: behind how many
    /// of them they go.
    fn answers_within(&mut self, _from: Sender, _bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
        None
    }

    /// Ends the connection if the rules in force no longer permit what its client has.
    fn review(&mut self, _out: &mut Sink<'_>) -> Option<FeedEnd> {
        None
    }

    /// Ends the connection: nothing of it is permitted any more.
    fn revoke(&mut self, _out: &mut Sink<'_>) -> FeedEnd {
        RESET
    }

    /// Ends the connection, and leaves to the server only what the rules in force permit.
    fn leave(&mut self, _out: &mut Sink<'_>) -> FeedEnd {
        RESET
    }

    /// Ends a connection that was not followed from its beginning; `is_read`: its client's packets are read.
    fn leave_unfollowed(&mut self, _is_read: bool, _out: &mut Sink<'_>) -> FeedEnd {
        RESET
    }

    /// Whether peers are to be taken leave of before the connection ends.
    fn takes_leave(&self) -> bool {
        false
    }
}

const RESET: FeedEnd = FeedEnd::Close { reset: true };
