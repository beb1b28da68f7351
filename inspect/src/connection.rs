//! One inspected connection, sans-IO: bytes of either side in, what to do out.
//!
//! ```text
//! feed(Client, now, bytes) ─▶ ToServer(exact bytes) · ToClient(a refusal) · Judged · Deviation · Close
//! ```
//!
//! - Enforcing, what comes out as [`Output::ToServer`] or [`Output::ToClient`] from the other side is byte for byte what
//!   came in and was judged; nothing is rewritten, but for what is taken out of an MQTT
//!   SUBSCRIBE and put into its answer (`mqtt::machine`). Only whole requests are forwarded (of an MQTT publication: only after
//!   its head was judged). How the bytes are cut changes neither verdicts nor forwarded bytes.
//! - Observing ([`Mode::Observe`]), the first output of a feed is all of its bytes, whatever they are; the rest only tells.
//!   Nothing is held back, answered, or ended. What enforcing would have refused is judged so, and what else it would
//!   have changed is an [`Output::Deviation`]. Where the stream cannot be followed, that is told once, and reading goes on
//!   where a packet seems to begin (`seek`).
//! - What changes when the terms do ([`Connection::set_terms`]): observing lets go of what was held. Enforcing judges the
//!   packet that is on its way when it is whole, and withholds the rest of it: one that is refused is never completed,
//!   and since its beginning cannot be taken back, the connection ends by a reset. A stream that was lost while
//!   observing ends at once.
//! - Memory: what is not whole yet (a Modbus ADU: 1,029 bytes; an MQTT packet that is judged as a whole, or a
//!   publication's head: [`ConnectionLimits::control_bytes_max`]), requests in flight, aliases. All bounded.

pub(crate) mod buffer;
mod deviation;
pub(crate) mod frozen;
mod leave;
mod observing;
mod seek;

use penstock_policy::protocol::modbus_tcp::MODBUS_TCP;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::protocol::Protocol;

use crate::judge::{OnRefusal, Rules, Verdict};
use crate::modbus::machine::Modbus;
use crate::modbus::transactions::TransactionLimits;
use crate::mqtt::alias::AliasLimits;
use crate::mqtt::machine::Mqtt;
use crate::operation::Operation;

pub use self::deviation::{Deviation, Effect};
pub use self::frozen::ThawError;
use self::seek::Seeking;
pub use crate::mqtt::machine::{Revocation, Sessions};
pub use crate::mqtt::packet::{Sender, Version};

/// Whether refusals are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Enforce,
    /// Everything passes at once, and what enforcing would have changed is told.
    Observe,
}

/// Bounds of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Modbus requests in flight.
    pub transactions: TransactionLimits,
    /// MQTT topic aliases, each direction.
    pub aliases: AliasLimits,
    /// The largest MQTT packet, bytes of its remaining length. Payloads stream through and take no memory.
    pub packet_bytes_max: usize,
    /// The largest MQTT packet that is judged as a whole (all but PUBLISH), and the largest head of a PUBLISH.
    pub control_bytes_max: usize,
    /// Answers of the gateway's own that wait for the end of a packet that is passing by.
    pub queued_bytes_max: usize,
    /// MQTT 3.1.1 publications at QoS 2 whose refusal is not yet completed.
    pub refused_publications_max: usize,
    /// Filters of SUBSCRIBEs that went on without the refused ones, and that the broker has not answered.
    pub pending_filters_max: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            transactions: TransactionLimits::default(),
            aliases: AliasLimits::default(),
            packet_bytes_max: 16 * 1024 * 1024,
            control_bytes_max: 64 * 1024,
            queued_bytes_max: 16 * 1024,
            refused_publications_max: 1024,
            pending_filters_max: 16 * 1024,
        }
    }
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
        operation: Operation<'a>,
        /// What the rules say.
        verdict: Verdict,
        /// Whether its bytes went on.
        forwarded: bool,
    },
    /// The server answered an operation with an exception (Modbus).
    Exception {
        /// Function code of the request.
        code: u8,
        /// The device's exception code.
        exception: u8,
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
    is_closed: bool,
    /// Observing, the stream could not be followed at some place, and that was told.
    is_lost: bool,
    /// Where packets begin was a guess, at least once.
    is_guessed: bool,
    seeking: Seeking,
    /// What the server sent and was held when reading was lost: it goes on first.
    unsent: Vec<u8>,
    /// What is known of MQTT sessions beyond a connection, to which broker it leads, and from which client's address.
    sessions: Option<(Arc<Sessions>, SocketAddr, IpAddr)>,
    /// An MQTT connection whose version has to be found out.
    version_unknown: bool,
    machine: Machine,
}

#[derive(Debug)]
enum Machine {
    Modbus(Box<Modbus>),
    Mqtt(Box<Mqtt>),
}

/// What the machines need to know of the flow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) mode: Mode,
    pub(crate) on_refusal: OnRefusal,
    pub(crate) limits: ConnectionLimits,
}

/// How a machine ends a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FeedEnd {
    /// The stream cannot be followed.
    Lost(Deviation),
    /// The connection ends.
    Close { reset: bool },
}

impl Machine {
    fn new(protocol: Protocol, terms: Terms) -> Self {
        if protocol == MODBUS_TCP {
            Self::Modbus(Box::new(Modbus::new(terms)))
        } else {
            Self::Mqtt(Box::new(Mqtt::new(terms)))
        }
    }

    fn terms(&self) -> Terms {
        match self {
            Self::Modbus(machine) => machine.terms(),
            Self::Mqtt(machine) => machine.terms(),
        }
    }

    fn let_go(&mut self, from: Sender, out: &mut Sink<'_>) {
        match self {
            Self::Modbus(machine) => machine.let_go(from, out),
            Self::Mqtt(machine) => machine.let_go(from, out),
        }
    }

    fn skip_to_boundary(&mut self, from: Sender) {
        match self {
            Self::Modbus(machine) => machine.skip_to_boundary(from),
            Self::Mqtt(machine) => machine.skip_to_boundary(from),
        }
    }
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
            is_closed: false,
            is_lost: false,
            is_guessed: false,
            seeking: Seeking::default(),
            unsent: Vec::new(),
            sessions: None,
            version_unknown: false,
            machine: Machine::new(rules.protocol(), terms),
            rules,
        }
    }

    /// An MQTT connection that has stood for a while: no CONNECT will come, the version is given.
    pub fn resumed(mut self, version: Version) -> Self {
        self.resume(version);
        self
    }

    /// What its client publishes at QoS 2 is known beyond the connection, so that what it releases by another one is judged by what
    /// it was.
    #[must_use]
    pub fn remembering(mut self, sessions: &Arc<Sessions>, broker: SocketAddr, client: IpAddr) -> Self {
        self.sessions = Some((Arc::clone(sessions), broker, client));
        self.remember();
        self
    }

    fn remember(&mut self) {
        if let (Machine::Mqtt(machine), Some((sessions, broker, client))) =
            (&mut self.machine, &self.sessions)
        {
            machine.remember(sessions, *broker, *client);
        }
    }

    /// Nothing is known of the connection any more.
    fn begin_anew(&mut self) {
        self.machine = Machine::new(self.rules.protocol(), self.machine.terms());
        self.remember();
    }

    fn resume(&mut self, version: Version) {
        if let (Machine::Mqtt(machine), Rules::Mqtt(rules)) = (&mut self.machine, &*self.rules) {
            machine.resume(version);
            machine.rejudge(rules);
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
            self.lose();
        } else if is_another {
            self.is_closed = true;
        } else {
            self.rejudge();
        }
    }

    fn rejudge(&mut self) {
        match (&mut self.machine, &*self.rules) {
            (Machine::Modbus(machine), Rules::Modbus(rules)) => machine.rejudge(rules),
            (Machine::Mqtt(machine), Rules::Mqtt(rules)) => machine.rejudge(rules),
            _ => {}
        }
    }

    /// From the next packet on, refusals are carried out so; `out` gets what is held no longer. What observed and
    /// could not follow the stream is closed when it is to enforce ([`Self::leave_closed`]).
    pub fn set_terms(&mut self, mode: Mode, on_refusal: OnRefusal, out: &mut Sink<'_>) {
        let unfit = match &mut self.machine {
            Machine::Modbus(machine) => machine.set_terms(mode, on_refusal),
            Machine::Mqtt(machine) => machine.set_terms(mode, on_refusal),
        };
        if let (Machine::Mqtt(machine), Rules::Mqtt(rules)) = (&mut self.machine, &*self.rules) {
            machine.rejudge(rules);
        }
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
        if let Machine::Mqtt(machine) = &mut self.machine {
            if machine.owes(from) {
                machine.forget_owed();
            }
            if !self.is_closed {
                machine.vanished(out);
            }
        }
        self.settle(out);
        let held = match &mut self.machine {
            Machine::Modbus(machine) => machine.forget_held(from),
            Machine::Mqtt(machine) => machine.forget_held(from),
        };
        if held > 0 && !self.is_closed {
            out(Output::Deviation {
                what: Deviation::CutShort,
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
        match self.read(from, now, &mut { bytes }, out) {
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

    /// Reads `bytes`; of MQTT, what of them was not looked at is left.
    fn read(
        &mut self,
        from: Sender,
        now: Duration,
        bytes: &mut &[u8],
        out: &mut Sink<'_>,
    ) -> Option<FeedEnd> {
        match (&mut self.machine, &*self.rules) {
            (Machine::Modbus(machine), Rules::Modbus(rules)) => machine.feed(rules, from, now, bytes, out),
            (Machine::Mqtt(machine), Rules::Mqtt(rules)) => machine.feed(rules, from, bytes, out),
            // `set_rules` does not let this come to be.
            _ => Some(FeedEnd::Close { reset: true }),
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
        self.machine.terms().mode == Mode::Observe
    }

    /// Whether it was not followed from its beginning to here without a guess: enforcing would end it.
    pub fn is_guessed(&self) -> bool {
        self.is_guessed
    }

    /// Bytes kept of packets that are not whole yet, both directions.
    pub fn held_bytes(&self) -> usize {
        match &self.machine {
            Machine::Modbus(machine) => machine.held_bytes(),
            Machine::Mqtt(machine) => machine.held_bytes(),
        }
    }

    /// What it takes of memory for what peers sent, bytes: packets that are not whole with the room kept for them, answers that
    /// wait, aliases, refused publications, what was subscribed and not released, who connected. (What every connection has alike is not in it.)
    pub fn held_memory(&self) -> usize {
        match &self.machine {
            Machine::Modbus(machine) => machine.held_memory(),
            Machine::Mqtt(machine) => machine.held_memory(),
        }
    }

    /// A packet of that side is passing and not yet whole: bytes of it were held, or forwarded in part.
    pub fn within_packet(&self, from: Sender) -> bool {
        match &self.machine {
            Machine::Modbus(machine) => machine.within_packet(from),
            Machine::Mqtt(machine) => machine.within_packet(from),
        }
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
        what: Deviation::HalfThrough,
        effect: Effect::Ended,
        done: true,
    }
}
