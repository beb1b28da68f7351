//! Follows one *recorded* connection: the same machine that judges live traffic, observing, and put back on its
//! feet where the recording has holes.
//!
//! A live gateway sees every byte. A recording may begin midway or lack segments; then the next segment that begins a
//! packet is waited for, and what was skipped is told.

use std::sync::Arc;
use std::time::Duration;

use crate::connection::{Connection, ConnectionLimits, Deviation, Effect, Mode, Output, Sender};
use crate::judge::{OnRefusal, Rules, Verdict};
use crate::operation::Operation;

/// What following tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamFinding<'a> {
    /// An operation and what the rules say of it.
    Judged {
        /// What was asked.
        operation: &'a Operation<'a>,
        /// The answer.
        verdict: Verdict,
    },
    /// The device refused an operation by itself.
    Exception {
        /// What was asked, as its protocol calls it.
        asked: &'a str,
        /// The refusal, likewise: "exception 2".
        refusal: &'a str,
    },
    /// The device has answered an operation.
    Answered {
        /// How many operations were judged after it: 0 for the latest.
        behind: u64,
        /// It refused it.
        refused: bool,
    },
    /// What a gateway that enforces would not let pass, although it is no operation.
    Deviation {
        /// What.
        what: Deviation,
        /// What it would make of it.
        effect: Effect,
    },
    /// Bytes were skipped to find the beginning of a packet again.
    Resynchronised {
        /// Whose.
        from: Sender,
        /// How many.
        skipped_bytes: u64,
    },
    /// Nothing could be found until the end.
    NeverFollowed {
        /// Whose.
        from: Sender,
        /// How many bytes passed unread.
        skipped_bytes: u64,
    },
}

/// Takes findings as they arise.
pub type Sink<'s> = dyn FnMut(StreamFinding<'_>) + 's;

/// One recorded connection.
#[derive(Debug)]
pub struct Follower {
    rules: Arc<Rules>,
    connection: Connection,
}

impl Follower {
    /// A connection judged by `rules`; `midway` if its opening is not in the recording.
    pub fn new(rules: Arc<Rules>, midway: bool) -> Self {
        Self::within(ConnectionLimits::default(), rules, midway)
    }

    /// The same, within other bounds.
    pub fn within(limits: ConnectionLimits, rules: Arc<Rules>, midway: bool) -> Self {
        let connection = Connection::new(Arc::clone(&rules), Mode::Observe, OnRefusal::Answer, limits);
        Self {
            rules,
            connection: match midway {
                true => connection.met_midway(),
                false => connection,
            },
        }
    }

    /// What is refused would be refused so: whether it ends the connection says what becomes of the rest of its packet.
    #[must_use]
    pub fn refusing(mut self, on_refusal: OnRefusal) -> Self {
        self.connection.set_terms(Mode::Observe, on_refusal, &mut |_| {});
        self
    }

    /// Bytes held of packets that are not whole yet.
    pub fn held_bytes(&self) -> usize {
        self.connection.held_bytes()
    }

    /// The rules that judge it.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The next bytes of a side.
    pub fn data(&mut self, from: Sender, at: Duration, bytes: &[u8], out: &mut Sink<'_>) {
        self.connection
            .feed(from, at, bytes, &mut |output| found(output, out));
    }

    /// Bytes of a side are missing.
    pub fn gap(&mut self, from: Sender) {
        self.connection.skip_to_boundary(from);
    }

    /// Nothing more comes: the connection has ended, or only its recording.
    pub fn finish(&mut self, ended: bool, out: &mut Sink<'_>) {
        for from in [Sender::Client, Sender::Server] {
            if ended {
                self.connection.end(from, &mut |output| found(output, out));
            }
            let skipped = self.connection.unread_bytes(from);
            if let Some(skipped_bytes) = skipped.filter(|bytes| *bytes > 0) {
                out(StreamFinding::NeverFollowed { from, skipped_bytes });
            }
        }
    }
}

fn found(output: Output<'_>, out: &mut Sink<'_>) {
    out(match output {
        Output::Judged {
            operation, verdict, ..
        } => StreamFinding::Judged { operation, verdict },
        Output::Exception { asked, refusal } => StreamFinding::Exception { asked, refusal },
        Output::Answered { behind, refused } => StreamFinding::Answered { behind, refused },
        Output::Deviation { what, effect, .. } => StreamFinding::Deviation { what, effect },
        Output::Resynchronised { from, skipped_bytes } => {
            StreamFinding::Resynchronised { from, skipped_bytes }
        }
        Output::ToServer(_) | Output::ToClient(_) | Output::Close { .. } => return,
    });
}
