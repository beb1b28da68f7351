//! How the zones at this gateway are, for whoever is shown that here: panels ([`crate::panel`]) and the SCADA ([`crate::scada`]). It
//! needs no coordinator.
//!
//! The words are those of the coordinator's health of zones, as far as one gateway can know: it sees its own boundary alone, and the
//! newest of its own facts, so that nothing is `stale` here. A panel sees that by the [`heartbeat`](GatewayHealth::heartbeat), which
//! only goes on while facts are gathered.

mod judge;
mod keeper;

use std::time::Duration;

use penstock_policy::ids::ZoneId;

pub use self::keeper::ZoneKeeper;

/// How a zone is, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ZoneState {
    /// All is well, and undeclared traffic is refused.
    Enforcing,
    /// All is well, and undeclared traffic is only recorded.
    Observing,
    /// It is enforced, but not as it should be: a fault, a release on trial, or one that was refused or reverted.
    Degraded,
    /// The kernel does not hold a policy for it.
    Unprotected,
}

impl ZoneState {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Enforcing,
        Self::Observing,
        Self::Degraded,
        Self::Unprotected,
    ];

    /// Its word, as the coordinator has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforcing => "enforcing",
            Self::Observing => "observing",
            Self::Degraded => "degraded",
            Self::Unprotected => "unprotected",
        }
    }
}

/// What becomes of undeclared traffic on the side of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ZoneMode {
    /// It is recorded.
    Observe,
    /// It is refused.
    Enforce,
    /// Of several zones on one side, some observe: the plan tells them apart by address alone.
    Mixed,
}

impl ZoneMode {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
            Self::Mixed => "mixed",
        }
    }
}

/// One zone at this gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneHealth {
    /// Its name.
    pub zone: ZoneId,
    /// How it is.
    pub state: ZoneState,
    /// When that changed last, on the boot's clock.
    pub since: Duration,
    /// The same, milliseconds since 1970.
    pub since_ms: u64,
    /// Observe or enforce.
    pub mode: ZoneMode,
    /// Packets and operations of its side that were refused in the last minute.
    pub denied: u64,
    /// Those that passed in the last minute, and would not where both zones enforce.
    pub would_deny: u64,
    /// Flows that must flow and fell silent.
    pub silent: usize,
    /// Faults that concern it, those among them.
    pub faults: usize,
}

/// Something that is wrong, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownFault {
    /// Stable code.
    pub code: String,
    /// A sentence.
    pub message: String,
    /// The zones concerned; none: all at the gateway.
    pub zones: Vec<String>,
}

/// This gateway and its zones, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayHealth {
    /// Counts the times that facts were gathered, about one a second.
    pub heartbeat: u64,
    /// The moment, on the boot's clock.
    pub now: Duration,
    /// The same, milliseconds since 1970.
    pub now_ms: u64,
    /// The plant; empty: this gateway is not enrolled.
    pub plant: String,
    /// Its name.
    pub gateway: String,
    /// How its worst zone is.
    pub state: ZoneState,
    /// The revision in force.
    pub revision: Option<u64>,
    /// The release that is on trial.
    pub trial: Option<u64>,
    /// The kernel's rules were changed by somebody else, and still differ.
    pub drift: bool,
    /// Overrides that last.
    pub overrides: usize,
    /// A person holds this gateway.
    pub hold: bool,
    /// Since when its session with the coordinator stands, on the boot's clock; `None`: there is none.
    pub session: Option<Duration>,
    /// Packets and operations that were refused at this gateway in the last minute, those to itself among them.
    pub denied: u64,
    /// Flows that must flow, as far as they are followed.
    pub must_flows: usize,
    /// Those of them that fell silent.
    pub silent: usize,
    /// Each zone, by its name.
    pub zones: Vec<ZoneHealth>,
    /// What is wrong.
    pub faults: Vec<ShownFault>,
}
