//! What a rollout hears of its gateways: each fact concerns one gateway, and may be lost or come twice.

use serde::{Deserialize, Serialize};

/// The time, and what holds for the whole plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970, as this machine believes; it may jump.
    pub wall_ms: u64,
    /// The line is stopped: nothing activates anywhere.
    pub frozen: bool,
}

/// What happened; gateways by their place in the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// A session of it opened, in which it got no order yet.
    Hello {
        /// Who.
        gateway: u32,
        /// Its agent keeps the last order on its disk, and goes on by it until it gets another.
        keeps_order: bool,
        /// How it stands to the release.
        standing: Standing,
    },
    /// It reported, in a session that stands.
    Report {
        /// Who.
        gateway: u32,
        /// The number of the order that it obeys; 0: it got none in this session.
        order: u64,
        /// How it stands to the release.
        standing: Standing,
    },
    /// Its session ended.
    Gone {
        /// Who.
        gateway: u32,
    },
    /// Something happened that stops a rollout at the first.
    Hard {
        /// To whom.
        gateway: u32,
        /// What.
        event: HardEvent,
    },
    /// Something happened that counts as a failure.
    Soft {
        /// To whom.
        gateway: u32,
    },
}

/// How a gateway stands to the release of this rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// Not heard of since the coordinator started.
    #[default]
    Unheard,
    /// It has none of it.
    Behind,
    /// It verified and stored it.
    Staged,
    /// It judges live traffic by it beside the policy in force.
    Shadow {
        /// Enforcing it would cut a flow that must not stop.
        cuts_must_flow: bool,
        /// For how long it has judged when it said so, milliseconds.
        judged_ms: u64,
    },
    /// Its software knows no trials and no shadow: it is offered the release when it may activate it, and has it at once.
    WithoutTrials,
    /// It may activate it and does not.
    Held {
        /// Why.
        reason: HoldReason,
        /// Until when, milliseconds since 1970, if it knows.
        until_ms: Option<u64>,
    },
    /// It enforces it, unconfirmed.
    Trial {
        /// Its must-flows flow and this session was opened under the new rules: it can be confirmed.
        confirmable: bool,
    },
    /// It enforces it, confirmed; also if it does not know trials.
    Confirmed,
    /// It enforced it and went back; it refuses it until a person clears that.
    Reverted(RevertReason),
    /// It refuses it.
    Refused,
    /// It tries another release, or may begin to at any time.
    OtherTrial,
}

/// Why a gateway that may activate does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HoldReason {
    /// Its window is closed.
    Window,
    /// The process does not say that it is safe.
    Interlock,
    /// A person holds it.
    Person,
    /// Its clock is not to be trusted.
    Clock,
    /// Too many releases that it reverted are not cleared.
    NotCleared,
    /// The time zone of its windows is not known to it.
    Zone,
    /// No session stands in which it was ordered to, and its trial could be confirmed.
    NoSession,
}

/// Why a gateway went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevertReason {
    /// Nobody confirmed in time.
    Timer,
    /// It restarted.
    Reboot,
    /// More was denied than shadow foretold.
    Denials,
    /// A person on site.
    Person,
    /// This rollout asked for it.
    Ordered,
    /// Something that stops the rollout.
    Hard(HardEvent),
}

/// What stops a rollout at the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HardEvent {
    /// A flow that must not stop stopped.
    MustFlowLost,
    /// The gateway could not be reached under the new rules.
    ManagementLost,
    /// The agent crashed.
    Crash,
}

impl HardEvent {
    /// In words, after the name of the gateway.
    pub fn words(self) -> &'static str {
        match self {
            Self::MustFlowLost => "lost a flow that must not stop",
            Self::ManagementLost => "lost its management under the new rules",
            Self::Crash => "crashed",
        }
    }
}

impl HoldReason {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Window => "its window to open",
            Self::Interlock => "the process to report that it is safe to change",
            Self::Person => "the person on site who holds it",
            Self::Clock => "a clock that it can trust",
            Self::NotCleared => "a person on site who clears releases that it reverted",
            Self::Zone => "the time zone of its windows, which its software does not know",
            Self::NoSession => "its order in a session that stands, in which its trial can be confirmed",
        }
    }
}
