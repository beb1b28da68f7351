//! One inspected connection, sans-IO: bytes of either side in, what to do out.
//!
//! ```text
//! feed(Client, now, bytes) ─▶ ToServer(exact bytes) · ToClient(a refusal) · Judged · Deviation · Close
//! ```
//!
//! - Enforcing, what comes out as [`Output::ToServer`] or [`Output::ToClient`] from the other side is byte for byte what
//!   came in and was judged; nothing is rewritten, but for what is taken out of a request and put into its
//!   answer where the protocol answers each of its parts. Only whole requests are forwarded; a payload that no rule limits
//!   streams through after its head was judged. How the bytes are cut changes neither verdicts nor forwarded bytes.
//! - Observing ([`Mode::Observe`]), the first output of a feed is all of its bytes, whatever they are; the rest only tells.
//!   Nothing is held back, answered, or ended. What enforcing would have refused is judged so, and what else it would
//!   have changed is an [`Output::Deviation`]. Where the stream cannot be followed, that is told once, and reading goes on
//!   where a packet seems to begin (`seek`).
//! - What changes when the terms do ([`Connection::set_terms`]): observing lets go of what was held. Enforcing judges the
//!   packet that is on its way when it is whole, and withholds the rest of it: one that is refused is never completed,
//!   and since its beginning cannot be taken back, the connection ends by a reset. A stream that was lost while
//!   observing ends at once.
//! - Memory: what is not whole yet, requests in flight, short names. All bounded ([`ConnectionLimits`]).
//!
//! It knows no protocol: what bytes mean is the [`machine`]'s, one for each protocol ([`crate::protocols`]).

pub(crate) mod buffer;
mod deviation;
pub(crate) mod frozen;
mod leave;
mod limits;
pub(crate) mod machine;
pub(crate) mod memory;
mod observing;
mod seek;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::judge::{OnRefusal, Rules, Verdict};
use crate::operation::Operation;
pub use crate::sender::Sender;

pub use self::deviation::{Deviation, DeviationKind, Effect};
pub use self::frozen::ThawError;
pub use self::limits::{AliasLimits, ConnectionLimits, TransactionLimits};
use self::machine::{FeedEnd, Machine, Terms};
pub use self::memory::Memory;
use self::memory::Recollection;
use self::seek::Seeking;

/// Whether refusals are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Enforce,
    /// Everything passes at once, and what enforcing would have changed is told.
    Observe,
}

/// What to do, or what to know. In the order in which it has to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<'a> {
    /// Send these bytes to the server.
    ToServer(&'a [u8]),
    /// Send these bytes to the client.
    ToClient(&'a [u8]),
    /// An operation was judged; `forwarded` is false only if it was refused and that was carried out.
    Judged {
        /// What was asked.
        operation: &'a Operation<'a>,
        /// What the rules say.
        verdict: Verdict,
        /// Whether its bytes went on.
        forwarded: bool,
    },
    /// The server refused an operation by itself.
    Exception {
        /// What was asked, as its protocol calls it.
        asked: &'a str,
        /// The refusal, likewise: "exception 2".
        refusal: &'a str,
    },
    /// The server has answered an operation, which may have gone on or be refused by it.
    Answered {
        /// How many operations were judged after it: 0 for the latest.
        behind: u64,
        /// The server refused it.
        refused: bool,
    },
    /// The stream does what its protocol does not foresee.
    Deviation {
        /// What.
        what: Deviation,
        /// What enforcing makes of it.
        effect: Effect,
        /// Whether that was done; false only while observing.
        done: bool,
    },
    /// Observing: a packet was found again, from which on that side is read.
    Resynchronised {
        /// Whose.
        from: Sender,
        /// Bytes that passed unread.
        skipped_bytes: u64,
    },
    /// End both sides; nothing follows.
    Close {
        /// By a reset, not in order.
        reset: bool,
    },
}

/// Takes outputs as they arise.
pub type Sink<'s> = dyn FnMut(Output<'_>) + 's;

/// One inspected connection.
#[derive(Debug)]
pub struct Connection {
    rules: Arc<Rules>,
    terms: Terms,
    is_closed: bool,
    /// Observing, the stream could not be followed at some place, and that was told.
    is_lost: bool,
    /// Where packets begin was a guess, at least once.
    is_guessed: bool,
    seeking: Seeking,
    /// What the server sent and was held when reading was lost: it goes on first.
    unsent: Vec<u8>,
    /// What is known beyond the connection.
    known: Option<Recollection>,
    machine: Box<dyn Machine>,
}

impl Connection {
    /// A connection that begins now, judged by `rules`.
    pub fn new(rules: Arc<Rules>, mode: Mode, on_refusal: OnRefusal, limits: ConnectionLimits) -> Self {
        let terms = Terms {
            mode,
            on_refusal,
            limits,
        };
        Self {
            terms,
            is_closed: false,
            is_lost: false,
            is_guessed: false,
            seeking: Seeking::default(),
            unsent: Vec::new(),
            known: None,
            machine: rules.inspector().machine(terms),
            rules,
        }
    }

    /// What its client did that outlives a connection is known beyond this one, so that what it completes by another one is judged
    /// by what it was.
    #[must_use]
    pub fn remembering(mut self, memory: &Arc<Memory>, server: SocketAddr, client: IpAddr) -> Self {
        let known = Recollection {
            memory: Arc::clone(memory),
            server,
            client,
        };
        self.machine.remember(&known);
        self.known = Some(known);
        self
    }

    /// Nothing is known of the connection any more.
    fn begin_anew(&mut self) {
        self.machine = self.rules.inspector().machine(self.terms);
        if let Some(known) = &self.known {
            self.machine.remember(known);
        }
    }

    /// An observed connection that is met midway: each side is read from where a packet seems to begin.
    pub fn met_midway(mut self) -> Self {
        self.seek();
        self
    }

    /// Observing: bytes of `from` are missing (recorded traffic), and its next packet is looked for.
    pub fn skip_to_boundary(&mut self, from: Sender) {
        self.machine.skip_to_boundary(from);
        self.seeking.begin(from);
        self.is_guessed = true;
    }

    /// From the next operation on, other rules hold. Rules for another protocol end an enforced connection.
    pub fn set_rules(&mut self, rules: Arc<Rules>) {
        let is_another = rules.protocol() != self.rules.protocol();
        self.rules = rules;
        if is_another && self.observes() {
            return self.lose();
        }
        self.is_closed |= is_another;
        self.machine.rejudge(&self.rules);
    }

    /// From the next packet on, refusals are carried out so; `out` gets what is held no longer. What observed and
    /// could not follow the stream is closed when it is to enforce ([`Self::leave_closed`]).
    pub fn set_terms(&mut self, mode: Mode, on_refusal: OnRefusal, out: &mut Sink<'_>) {
        (self.terms.mode, self.terms.on_refusal) = (mode, on_refusal);
        let unfit = self.machine.set_terms(self.terms);
        self.machine.rejudge(&self.rules);
        self.is_closed |= mode == Mode::Enforce && (unfit || self.is_guessed);
        self.settle(out);
    }

    /// Observing, lets go of what was held while it was enforced.
    pub fn settle(&mut self, out: &mut Sink<'_>) {
        if self.observes() && !self.is_closed {
            pass(Sender::Server, &std::mem::take(&mut self.unsent), out);
            self.machine.let_go(Sender::Client, out);
            self.machine.let_go(Sender::Server, out);
        }
    }

    /// `from` sends no more. A packet that will never be whole goes no further than it has.
    pub fn end(&mut self, from: Sender, out: &mut Sink<'_>) {
        self.machine.ended(from, self.is_closed, out);
        self.settle(out);
        let held = self.machine.forget_held(from);
        if held > 0 && !self.is_closed {
            out(Output::Deviation {
                what: Deviation::CUT_SHORT,
                effect: Effect::Withheld,
                done: !self.observes(),
            });
        }
    }

    /// Takes bytes that `from` sent, `now` after any fixed moment; tells `out` what follows from them.
    pub fn feed(&mut self, from: Sender, now: Duration, bytes: &[u8], out: &mut Sink<'_>) {
        if self.is_closed {
            return;
        }
        if self.observes() {
            return self.observe(from, now, bytes, out);
        }
        match self.machine.feed(&self.rules, from, now, &mut { bytes }, out) {
            None => {}
            Some(FeedEnd::Close { reset }) => {
                self.is_closed = true;
                out(Output::Close { reset });
            }
            Some(FeedEnd::Lost(what)) => {
                self.is_closed = true;
                out(Output::Deviation {
                    what,
                    effect: Effect::Ended,
                    done: true,
                });
                out(Output::Close { reset: false });
            }
        }
    }

    /// Bytes of a side that have passed unread so far, if where its next packet begins is not known.
    pub fn unread_bytes(&self, from: Sender) -> Option<u64> {
        self.seeking.of(from)
    }

    /// Whether nothing more will pass.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether everything passes before it is read.
    pub fn observes(&self) -> bool {
        self.terms.mode == Mode::Observe
    }

    /// Whether it was not followed from its beginning to here without a guess: enforcing would end it.
    pub fn is_guessed(&self) -> bool {
        self.is_guessed
    }

    /// Bytes kept of packets that are not whole yet, both directions.
    pub fn held_bytes(&self) -> usize {
        self.machine.held_bytes()
    }

    /// What it takes of memory for what peers sent, bytes: packets that are not whole with the room kept for them, answers that
    /// wait, aliases, refused publications, what was subscribed and not released, who connected. (What every connection has alike is not in it.)
    pub fn held_memory(&self) -> usize {
        self.unsent.capacity() + self.machine.held_memory()
    }

    /// A packet of that side is passing and not yet whole: bytes of it were held, or forwarded in part.
    pub fn within_packet(&self, from: Sender) -> bool {
        self.machine.within_packet(from)
    }
}

pub(crate) fn pass(from: Sender, bytes: &[u8], out: &mut Sink<'_>) {
    if bytes.is_empty() {
        return;
    }
    out(match from {
        Sender::Client => Output::ToServer(bytes),
        Sender::Server => Output::ToClient(bytes),
    });
}

/// A packet is refused of which a part has gone on.
pub(crate) fn half_through<'a>() -> Output<'a> {
    Output::Deviation {
        what: Deviation::HALF_THROUGH,
        effect: Effect::Ended,
        done: true,
    }
}
