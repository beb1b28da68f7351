//! What the data plane observed, as it leaves for the trail: verdicts of packets, operations inside connections, drift,
//! and what could not be reported one by one.
//!
//! Both halves, the kernel's events and the inspector, speak of it, so it stands below both and knows neither's insides.

mod event;
pub mod outbox;
pub mod sides;

pub(crate) use event::fault_of;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use penstock_policy::ids::{FlowId, Revision, ZoneId};
use penstock_policy::protocol::Protocol;
use penstock_policy::terms::{NumberRange, Proof};
use penstock_policy::verdict::Decision;

/// How long after its first use something is reported first (default); what goes on is reported at doubling distance.
pub const REPORT_AFTER: Duration = Duration::from_secs(1);

/// Something that the data plane saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// Packets with one verdict.
    Verdict(VerdictSeen),
    /// Operations inside an inspected connection, or what happened to it.
    Operation(Box<OperationSeen>),
    /// The kernel's rules were changed by somebody else.
    Drift {
        /// Found, repaired, or not repaired.
        step: DriftStep,
        /// What differs, in words.
        message: String,
        /// The process that did it (`nft[1234]`), if the kernel told.
        process: Option<String>,
    },
    /// Something that a person should know of the gateway began, ended, or was found when it was over.
    Condition(Box<ConditionSeen>),
    /// How the rules stood when this agent began.
    Start {
        /// One of a few fixed words.
        step: &'static str,
        /// In words.
        message: String,
        /// Whether it is worth a second look.
        unusual: bool,
    },
    /// Packets whose verdict was carried out but could not be told one by one.
    Lost {
        /// How many; at least so many where the kernel does not count.
        packets: u64,
        /// Where they were lost.
        cause: LossCause,
    },
}

/// A condition that health shows, as the trail has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionSeen {
    /// Began, ended, or found.
    pub step: ConditionStep,
    /// What it is and whom it concerns.
    pub condition: Condition,
    /// From when, milliseconds since 1970; 0: not known.
    pub first_ms: u64,
    /// Until when, milliseconds since 1970; 0: it is not over.
    pub last_ms: u64,
}

/// What one client did on one server, aggregated over an interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationSeen {
    /// What it is about.
    pub subject: Subject,
    /// What was decided, of an operation.
    pub decision: Option<Decision>,
    /// The operation by name, or a sentence.
    pub text: String,
    /// Of a refused operation: the least and the greatest value that it was to write.
    pub values: Option<NumberRange>,
    /// Why, in words.
    pub reason: String,
    /// What the gateway checked of who the client and the server are.
    pub proofs: [Proof; 2],
    /// The flow that decided, or came closest.
    pub flow: Option<NamedFlow>,
    /// What is spoken on the connection, where the policy says.
    pub protocol: Option<Protocol>,
    /// The revision in force.
    pub revision: Revision,
    /// Who opened the connection.
    pub client: IpAddr,
    /// What the plan calls it.
    pub client_name: String,
    /// The role in its certificate; empty: it has none, and the flow asks for one.
    pub role: Option<String>,
    /// To whom.
    pub server: SocketAddr,
    /// What the plan calls it.
    pub server_name: String,
    /// How often.
    pub count: u64,
    /// When first, milliseconds since 1970.
    pub first_ms: u64,
    /// When last.
    pub last_ms: u64,
}

/// A flow as events name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFlow {
    /// The kernel's number.
    pub id: FlowId,
    /// `conduit/flow`.
    pub name: String,
}

/// What an [`OperationSeen`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An operation, and what was decided.
    Operation,
    /// Something about the stream that is not an operation.
    Note,
    /// The opening or the end of a connection.
    Session,
}

/// A step of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionStep {
    /// It is so from now on.
    Began,
    /// It is over.
    Ended,
    /// It was so, and is over.
    Found,
}

/// Something that keeps the gateway from doing its part, or kept it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Stable code.
    pub code: &'static str,
    /// What it is about, within its code: an interface, a flow; empty: the gateway.
    pub subject: String,
    /// A sentence.
    pub message: String,
    /// Whether it stops a must-flow or opens the gateway.
    pub alarm: bool,
    /// The zones concerned; none: all at the gateway.
    pub zones: BTreeSet<ZoneId>,
    /// The flows concerned (`conduit/flow`), must-flows first, as many as are named.
    pub flows: Vec<String>,
    /// Further flows.
    pub further_flows: u32,
}

impl Condition {
    /// One that concerns all zones and flows at the gateway.
    pub(crate) fn of_gateway(code: &'static str, message: String, alarm: bool) -> Self {
        Self {
            code,
            subject: String::new(),
            message,
            alarm,
            zones: BTreeSet::new(),
            flows: Vec::new(),
            further_flows: 0,
        }
    }
}

/// A step of a drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriftStep {
    /// The kernel differs from the plan.
    Found,
    /// It is equal again.
    Repaired,
    /// It could not be made equal.
    RepairFailed,
}

/// Where verdicts were lost to the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossCause {
    /// The kernel's own limit of log messages: counted exactly.
    RateLimit,
    /// The log socket overran: counted by the numbers of the messages that came, at least one where none has come since.
    KernelOverrun,
    /// No agent listened to the kernel's log.
    NobodyListened,
    /// More different tuples than are followed at once.
    TableFull,
    /// The agent did not take events as fast as they came.
    ReceiverSlow,
}

/// Packets or connections with one verdict, aggregated over an interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictSeen {
    /// What the kernel did.
    pub decision: Decision,
    /// The flow that let it through.
    pub flow_id: Option<FlowId>,
    /// That flow's `conduit/flow`, if the plan in force still has it.
    pub flow: Option<String>,
    /// The revision in force.
    pub revision: Revision,
    /// Interface (port of a bridge) on the side of the connection's opener; empty if unknown.
    pub ingress: String,
    /// The other side's; empty for packets to the gateway itself.
    pub egress: String,
    /// Who opened the connection, or sent the packet.
    pub source: Option<IpAddr>,
    /// To whom.
    pub destination: Option<IpAddr>,
    /// IP protocol number; 0 of what is not IP.
    pub protocol: u8,
    /// Destination port; 0 where the protocol has none.
    pub port: u16,
    /// How many packets (connections, of allowed ones).
    pub count: u64,
    /// When the first was read, milliseconds since 1970.
    pub first_ms: u64,
    /// When the last was read, milliseconds since 1970.
    pub last_ms: u64,
    /// Why, in words.
    pub reason: String,
    /// What the gateway checked of who the source and the destination are; of what has no address nothing.
    pub proofs: [Option<Proof>; 2],
}
