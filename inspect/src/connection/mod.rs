//! One inspected connection, sans-IO: bytes of either side in, what to do out.
//!
//! ```text
//! feed(Client, now, bytes) ─▶ ToServer(exact bytes) · ToClient(a refusal) · Judged · Noted · Close
//! ```
//!
//! - What comes out as [`Output::ToServer`] or [`Output::ToClient`] from the other side is byte for byte what came
//!   in and was judged; nothing is rewritten. Only whole requests are forwarded (of an MQTT publication: only after
//!   its head was judged).
//! - How the bytes are cut changes neither verdicts nor forwarded bytes.
//! - Memory: what is not whole yet (a Modbus ADU: 1,029 bytes; an MQTT packet that is judged as a whole, or a
//!   publication's head: [`Limits::control_bytes_max`]), requests in flight, aliases. All bounded.
//! - [`Mode::Observe`] forwards everything and says what it would have refused; where it cannot follow the
//!   stream any more it passes the rest on, and says that.

mod frozen;
mod modbus;
mod mqtt;

use std::sync::Arc;
use std::time::Duration;

use penstock_policy::model::Protocol;

use crate::judge::refusal::OnRefusal;
use crate::judge::{Rules, Verdict};
use crate::modbus::frame::FrameError;
use crate::modbus::response::ResponseError;
use crate::mqtt::wire::MqttError;
use crate::operation::Operation;
use crate::{modbus as modbus_protocol, mqtt as mqtt_protocol};

pub use self::frozen::ThawError;
pub use crate::mqtt::packet::{Sender, Version};

/// Whether refusals are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Enforce,
    /// Everything passes, and what would have been refused is told.
    Observe,
}

/// Bounds of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Modbus requests in flight.
    pub transactions: modbus_protocol::transactions::Limits,
    /// MQTT topic aliases, each direction.
    pub aliases: mqtt_protocol::alias::Limits,
    /// The largest MQTT packet, bytes of its remaining length. Payloads stream through and take no memory.
    pub packet_bytes_max: usize,
    /// The largest MQTT packet that is judged as a whole (all but PUBLISH), and the largest head of a PUBLISH.
    pub control_bytes_max: usize,
    /// Answers of the gateway's own that wait for the end of a packet that is passing by.
    pub queued_bytes_max: usize,
    /// MQTT 3.1.1 publications at QoS 2 whose refusal is not yet completed.
    pub refused_publications_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transactions: modbus_protocol::transactions::Limits::default(),
            aliases: mqtt_protocol::alias::Limits::default(),
            packet_bytes_max: 16 * 1024 * 1024,
            control_bytes_max: 64 * 1024,
            queued_bytes_max: 16 * 1024,
            refused_publications_max: 1024,
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
    /// Something that is no operation.
    Noted(Note),
    /// End both sides; nothing follows.
    Close {
        /// By a reset, not in order.
        reset: bool,
    },
}

/// Something worth an event that is no operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// A Modbus stream that cannot be followed.
    #[error("{0}")]
    Frame(FrameError),
    /// An answer that does not fit its request; the client got an exception instead.
    #[error("{0}")]
    Response(ResponseError),
    /// An answer to nothing that was asked; withheld.
    #[error("an answer to transaction {transaction} of unit {unit}, which nobody asked")]
    Unasked {
        /// Transaction identifier.
        transaction: u16,
        /// Unit identifier.
        unit: u8,
    },
    /// An MQTT packet that is wrong.
    #[error("{0}")]
    Packet(MqttError),
    /// More refusals wait to be told than the limit.
    #[error("the peer does not take what it is told; too much waits for it")]
    Overflow,
    /// The policy no longer lets this client be connected.
    #[error("the policy no longer permits this client to be connected")]
    Revoked,
    /// Observing: from here on the stream passes without being understood.
    #[error("from here on the stream is not understood, and passes as it is")]
    Unfollowed,
}

/// Takes outputs as they arise.
pub type Sink<'s> = dyn FnMut(Output<'_>) + 's;

/// One inspected connection.
#[derive(Debug)]
pub struct Connection {
    rules: Arc<Rules>,
    stage: Stage,
    machine: Machine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Following,
    /// Observing a stream that was lost.
    Passing,
    Closed,
}

#[derive(Debug)]
enum Machine {
    Modbus(modbus::Modbus),
    Mqtt(Box<mqtt::Mqtt>),
}

/// What the machines need to know of the flow.
#[derive(Debug, Clone, Copy)]
struct Terms {
    mode: Mode,
    on_refusal: OnRefusal,
    limits: Limits,
}

/// How a machine ends a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The stream cannot be followed: what was held passes (observe), or the connection ends (enforce).
    Lost(Note),
    /// The connection ends.
    Close { reset: bool },
}

impl Connection {
    /// A connection that begins now, judged by `rules`.
    pub fn new(rules: Arc<Rules>, mode: Mode, on_refusal: OnRefusal, limits: Limits) -> Self {
        let terms = Terms {
            mode,
            on_refusal,
            limits,
        };
        let machine = match rules.protocol() {
            Protocol::ModbusTcp => Machine::Modbus(modbus::Modbus::new(terms)),
            Protocol::Mqtt => Machine::Mqtt(Box::new(mqtt::Mqtt::new(terms))),
        };
        Self {
            rules,
            stage: Stage::Following,
            machine,
        }
    }

    /// An MQTT connection that has stood for a while: no CONNECT will come, the version is given. For recorded
    /// traffic and handed-over connections.
    pub fn resumed(mut self, version: Version) -> Self {
        if let (Machine::Mqtt(machine), Rules::Mqtt(rules)) = (&mut self.machine, &*self.rules) {
            machine.resume(version);
            machine.rejudge(rules);
        }
        self
    }

    /// Bytes of `from` are missing (recorded traffic): what was held of it is forgotten, the next bytes begin a packet.
    pub fn skip_to_boundary(&mut self, from: Sender) {
        match &mut self.machine {
            Machine::Modbus(machine) => drop(machine.release(from)),
            Machine::Mqtt(machine) => machine.skip_to_boundary(from),
        }
    }

    /// From the next operation on, other rules hold. Rules for another protocol end the connection.
    pub fn set_rules(&mut self, rules: Arc<Rules>) {
        if rules.protocol() != self.rules.protocol() {
            self.stage = Stage::Closed;
        }
        if let (Machine::Mqtt(machine), Rules::Mqtt(rules)) = (&mut self.machine, &*rules) {
            machine.rejudge(rules);
        }
        self.rules = rules;
    }

    /// From the next packet on, refusals are carried out so. What observed and could no longer follow the stream is
    /// closed when it is to enforce.
    pub fn set_terms(&mut self, mode: Mode, on_refusal: OnRefusal) {
        let terms = match &mut self.machine {
            Machine::Modbus(machine) => machine.terms_mut(),
            Machine::Mqtt(machine) => machine.terms_mut(),
        };
        (terms.mode, terms.on_refusal) = (mode, on_refusal);
        if let (Machine::Mqtt(machine), Rules::Mqtt(rules)) = (&mut self.machine, &*self.rules) {
            machine.rejudge(rules);
        }
        if self.stage == Stage::Passing && mode == Mode::Enforce {
            self.stage = Stage::Closed;
        }
    }

    /// `from` sends no more. Observing, what was held of a packet that will never be whole passes on.
    pub fn end(&mut self, from: Sender, out: &mut Sink<'_>) {
        if self.stage == Stage::Following && self.observes() {
            let held = match &mut self.machine {
                Machine::Modbus(machine) => machine.release(from),
                Machine::Mqtt(machine) => machine.release(from),
            };
            pass(from, &held, out);
        }
    }

    /// Takes bytes that `from` sent, `now` after any fixed moment; tells `out` what follows from them.
    pub fn feed(&mut self, from: Sender, now: Duration, bytes: &[u8], out: &mut Sink<'_>) {
        match self.stage {
            Stage::Closed => return,
            Stage::Passing => return pass(from, bytes, out),
            Stage::Following => {}
        }
        let ending = match (&mut self.machine, &*self.rules) {
            (Machine::Modbus(machine), Rules::Modbus(rules)) => machine.feed(rules, from, now, bytes, out),
            (Machine::Mqtt(machine), Rules::Mqtt(rules)) => machine.feed(rules, from, bytes, out),
            // `set_rules` closes before this can be.
            _ => Some((Ending::Close { reset: true }, bytes)),
        };
        let Some((ending, rest)) = ending else { return };
        self.stage = Stage::Closed;
        match ending {
            Ending::Close { reset } => out(Output::Close { reset }),
            Ending::Lost(note) => {
                out(Output::Noted(note));
                if self.observes() {
                    out(Output::Noted(Note::Unfollowed));
                    self.stage = Stage::Passing;
                    self.release(from, out);
                    pass(from, rest, out);
                } else {
                    out(Output::Close { reset: false });
                }
            }
        }
    }

    /// Whether nothing more will pass.
    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// Bytes held of packets that are not whole yet, both directions.
    pub fn held_bytes(&self) -> usize {
        match &self.machine {
            Machine::Modbus(machine) => machine.held_bytes(),
            Machine::Mqtt(machine) => machine.held_bytes(),
        }
    }

    /// A packet of that side is passing and not yet whole: bytes of it were held, or forwarded in part.
    pub fn within_packet(&self, from: Sender) -> bool {
        match &self.machine {
            Machine::Modbus(machine) => machine.within_packet(from),
            Machine::Mqtt(machine) => machine.within_packet(from),
        }
    }

    fn observes(&self) -> bool {
        let terms = match &self.machine {
            Machine::Modbus(machine) => machine.terms(),
            Machine::Mqtt(machine) => machine.terms(),
        };
        terms.mode == Mode::Observe
    }

    /// Lets go of what both sides sent and was held; the side that was lost first.
    fn release(&mut self, lost: Sender, out: &mut Sink<'_>) {
        for side in [lost, lost.other()] {
            let held = match &mut self.machine {
                Machine::Modbus(machine) => machine.release(side),
                Machine::Mqtt(machine) => machine.release(side),
            };
            pass(side, &held, out);
        }
    }
}

fn pass(from: Sender, bytes: &[u8], out: &mut Sink<'_>) {
    if bytes.is_empty() {
        return;
    }
    out(match from {
        Sender::Client => Output::ToServer(bytes),
        Sender::Server => Output::ToClient(bytes),
    });
}
