//! The alarms of the control room: what needs a timely response of a person on shift, with a known cause, consequence and action
//! (ISA-18.2, IEC 62682). All else is health, or an event in the trail.
//!
//! ```text
//! health, facts of gateways, rollouts ─▶ conditions ─┐
//! trails ─▶ sightings (what happened, for an hour) ──┴▶ machine ─▶ desk ─▶ store and trail ─▶ watchers, `scada`
//!                                   acknowledged, shelved … ─▶┘
//! ```
//!
//! There is at most one alarm for each place (a zone, or the plant) and cause, and seven causes ([`Cause`]). A condition has to stand for
//! a while before it is raised, and to be away for a while before it is over, so that nothing chatters. What is not known changes
//! nothing: no alarm ends for want of evidence. Each step is one transaction with its event in the coordinator's trail, so that
//! an acknowledgement survives a restart.
//!
//! Nothing here changes what a gateway enforces, and nothing that is enforced waits for it.

pub(crate) mod common_causes;
pub(crate) mod conditions;
pub(crate) mod desk;
pub(crate) mod load;
pub(crate) mod machine;
pub(crate) mod sightings;
pub(crate) mod view;

use std::fmt;
use std::time::Duration;

use penstock_policy::ids::ZoneId;
use penstock_policy::model::Consequence;
use serde::{Deserialize, Serialize};

/// What the place of an alarm of the whole plant is called in topics and keys. No zone can have the name.
pub(crate) const PLANT: &str = "_plant";

/// Why there is an alarm: the seven that were rationalised, in the order of their urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A flow that must not stop is silent for longer than its own rhythm allows, or cannot cross its gateway.
    MustFlow,
    /// It is certain that a boundary of the zone is open.
    Unprotected,
    /// Somebody wanted to write or to program where they may not.
    RefusedWrite,
    /// Somebody changed a gateway's rules, and they could not be put back.
    Drift,
    /// A gate halted a rollout.
    Rollout,
    /// A gateway's audit trail has two ends, or a gap that no loss record accounts for.
    Trail,
    /// Nothing is known of a gateway for longer than its site may be dark.
    Stale,
}

/// How urgent an alarm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // Their names say it.
pub enum Priority {
    High,
    Medium,
    Low,
}

impl Priority {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::MustFlow,
        Self::Unprotected,
        Self::RefusedWrite,
        Self::Drift,
        Self::Rollout,
        Self::Trail,
        Self::Stale,
    ];

    /// Its word, in topics, keys and the trail.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MustFlow => "must-flow",
            Self::Unprotected => "unprotected",
            Self::RefusedWrite => "refused-write",
            Self::Drift => "drift",
            Self::Rollout => "rollout",
            Self::Trail => "trail",
            Self::Stale => "stale",
        }
    }

    /// The cause of this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == word)
    }

    /// How urgent it is in a zone whose compromise can lead to that.
    pub fn priority(self, consequence: Option<Consequence>) -> Priority {
        match self {
            Self::RefusedWrite => Priority::High,
            Self::MustFlow | Self::Unprotected => match consequence {
                Some(Consequence::Safety | Consequence::Environment) => Priority::High,
                // What nobody declared is no reason to take it lightly.
                Some(Consequence::Production) | None => Priority::Medium,
                Some(Consequence::Business | Consequence::None) => Priority::Low,
            },
            Self::Drift | Self::Rollout | Self::Trail => Priority::Medium,
            Self::Stale => Priority::Low,
        }
    }

    /// What comes of it if nobody does anything.
    pub fn consequence(self) -> &'static str {
        match self {
            Self::MustFlow => "A controller may act on old values, or not at all.",
            Self::Unprotected => "Anybody beside the zone may reach what is in it.",
            Self::RefusedWrite => {
                "Somebody who may not is trying to change the process; the next attempt may come by another way."
            }
            Self::Drift => "The gateway may let pass what the policy forbids, or stop what it permits.",
            Self::Rollout => "Gateways enforce different releases until somebody decides.",
            Self::Trail => "The audit trail no longer proves what happened.",
            Self::Stale => "The gateway most likely enforces on, but nobody would see that it does not.",
        }
    }

    /// What to do.
    pub fn action(self) -> &'static str {
        match self {
            Self::MustFlow => "Call the control engineer; check the process by its own HMI.",
            Self::Unprotected => {
                "Find out whether the gateway is gone or bypassed; keep people off the zone's network."
            }
            Self::RefusedWrite => "Find out who is connected at that address, and call OT security.",
            Self::Drift => "Call OT security; stop work on the network.",
            Self::Rollout => "Confirm that the process is well; start no further release.",
            Self::Trail => "Call OT security; keep the gateway and its disk as they are.",
            Self::Stale => "Look at the link to the site.",
        }
    }

    /// Within which time somebody should respond.
    pub fn respond_within(self) -> Duration {
        let minutes = match self {
            Self::MustFlow | Self::Unprotected => 10,
            Self::RefusedWrite => 15,
            Self::Drift | Self::Rollout => 30,
            Self::Trail => 60,
            Self::Stale => 240,
        };
        Duration::from_secs(minutes * 60)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Of what an alarm is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlarmKey {
    /// The zone; `None`: the whole plant.
    pub zone: Option<ZoneId>,
    /// Why.
    pub cause: Cause,
}

impl AlarmKey {
    /// Of a zone.
    pub fn of_zone(zone: &ZoneId, cause: Cause) -> Self {
        let zone = Some(zone.clone());
        Self { zone, cause }
    }

    /// Of the whole plant.
    pub fn of_plant(cause: Cause) -> Self {
        Self { zone: None, cause }
    }

    /// The place as topics and keys name it.
    pub fn place(&self) -> &str {
        self.zone.as_ref().map_or(PLANT, ZoneId::as_str)
    }

    /// Of a place and a cause as topics and keys name them.
    pub fn of_words(place: &str, cause: &str) -> Option<Self> {
        let cause = Cause::of_word(cause)?;
        match place {
            PLANT | "" => Some(Self::of_plant(cause)),
            zone => Some(Self::of_zone(&ZoneId::new(zone).ok()?, cause)),
        }
    }
}

impl fmt::Display for AlarmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.place(), self.cause)
    }
}
