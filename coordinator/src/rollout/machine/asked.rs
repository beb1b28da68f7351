//! What can be asked of a rollout without changing it.

use std::sync::Arc;

use penstock_policy::ids::Revision;
use penstock_policy::rollout::{Fleet, RolloutPlan};

use super::super::facts::Standing;
use super::super::seats::{Mark, Seat};
use super::{Census, HaltReason, Rollout, Stage, Stop};

impl Rollout {
    /// The release.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Why it is halted.
    pub fn halted(&self) -> Option<&HaltReason> {
        match &self.stop {
            Some(Stop::Halted(reason)) => Some(reason),
            _ => None,
        }
    }

    /// Whether a person paused it.
    pub fn is_paused(&self) -> bool {
        matches!(self.stop, Some(Stop::Paused { .. }))
    }

    /// Why a person paused it.
    pub fn paused(&self) -> Option<&str> {
        match &self.stop {
            Some(Stop::Paused { why }) => Some(why),
            _ => None,
        }
    }

    /// Whether it was signed as an emergency.
    pub fn is_emergency(&self) -> bool {
        self.is_emergency
    }

    /// How.
    pub fn plan(&self) -> &RolloutPlan {
        &self.plan
    }

    /// To whom.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// Whether what happens to a gateway is this rollout's doing: it is on trial, or looked at before the next wave.
    pub fn looks_at(&self, gateway: u32) -> bool {
        let seat = self.seats.get(gateway as usize);
        seat.is_some_and(|seat| {
            let in_wave = seat.mark.is_confirmed() && self.current_wave() == Some(seat.wave);
            seat.mark == Mark::Trial || in_wave
        })
    }

    /// Whether it counts as a failure.
    pub fn has_failed(&self, gateway: u32) -> bool {
        self.seats.get(gateway as usize).is_some_and(Seat::failed)
    }

    /// Whether a session of it is known of.
    pub fn is_connected(&self, gateway: u32) -> bool {
        self.seats
            .get(gateway as usize)
            .is_some_and(|seat| seat.is_connected)
    }

    /// How it was heard of last.
    pub fn stands(&self, gateway: u32) -> Standing {
        self.seats
            .get(gateway as usize)
            .map_or(Standing::Unheard, |seat| seat.heard)
    }

    /// How many of each.
    pub fn counts(&self) -> std::collections::BTreeMap<Mark, u32> {
        let mut counts = std::collections::BTreeMap::new();
        for seat in &self.seats {
            *counts.entry(seat.mark).or_default() += 1;
        }
        counts
    }

    /// Failures, and what they are counted against.
    pub fn failures(&self) -> (u32, u32) {
        let census = Census::of(self);
        (census.failed, census.activated)
    }
}

impl Stage {
    /// Stable word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Simulated => "simulated",
            Self::Approved => "approved",
            Self::Scheduled => "scheduled",
            Self::Staging { .. } => "staging",
            Self::Shadowing { .. } => "shadowing",
            Self::Opening { .. } => "opening",
            Self::Soaking { .. } => "soaking",
            Self::Converging => "converging",
            Self::Completed => "completed",
            Self::CompletedWithExceptions => "completed-with-exceptions",
            Self::RollingBack => "rolling-back",
            Self::RolledBack => "rolled-back",
            Self::Cancelled => "cancelled",
            Self::Superseded { .. } => "superseded",
        }
    }
}
