//! A rollout as it rests in the store: one letter a gateway. Who is in which wave is worked out again from plan and fleet; what was
//! heard of gateways is heard again.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_policy::ids::{Digest, Revision};
use serde::{Deserialize, Serialize};

use super::super::seats::{Mark, Seat, Strike};
use super::clock::Clock;
use super::{Rollout, Stage, Stop};
use penstock_policy::rollout::{Fleet, RolloutPlan, assign};

/// A rollout as recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    revision: Revision,
    plan: RolloutPlan,
    /// Of the fleet that the letters are for.
    fleet: Digest,
    stage: Stage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop: Option<Stop>,
    emergency: bool,
    clock: Clock,
    accepted_failures: u32,
    accepts_shadow: bool,
    orders: u64,
    /// In the fleet's order.
    marks: String,
    /// What was reported of gateways since they activated; `true`: something that stops a rollout.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    strikes: BTreeMap<u32, bool>,
}

impl Record {
    /// The release.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The number of the last order.
    pub fn orders(&self) -> u64 {
        self.orders
    }

    /// Whether both say the same of everything but the time and the number of the last order.
    pub fn is_but_for_time(&self, other: &Self) -> bool {
        let timeless = (self.stage, &self.stop, &self.marks, &self.strikes);
        timeless == (other.stage, &other.stop, &other.marks, &other.strikes)
            && self.accepted_failures == other.accepted_failures
            && self.accepts_shadow == other.accepts_shadow
            && self.emergency == other.emergency
            && self.plan == other.plan
            && (self.revision, self.fleet) == (other.revision, other.fleet)
    }

    /// How much of its own time passed since the other, milliseconds.
    pub fn own_ms_since(&self, other: &Self) -> u64 {
        self.clock.own_ms.saturating_sub(other.clock.own_ms)
    }

    /// Whose marks are others than in `before`, by place.
    pub fn changes<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = (u32, Mark)> + 'a {
        let pairs = self.marks.bytes().zip(before.marks.bytes());
        let changed = (0_u32..).zip(pairs).filter(|(_, (now, before))| now != before);
        changed.filter_map(|(at, (now, _))| Some((at, Mark::of(char::from(now))?)))
    }

    /// How far it is with one gateway.
    pub fn mark(&self, gateway: u32) -> Option<Mark> {
        let letter = self.marks.as_bytes().get(gateway as usize)?;
        Mark::of(char::from(*letter))
    }

    /// How many of each.
    pub fn counts(&self) -> BTreeMap<Mark, u32> {
        let mut counts = BTreeMap::new();
        for mark in self.marks.chars().filter_map(Mark::of) {
            *counts.entry(mark).or_default() += 1;
        }
        counts
    }

    /// The plan.
    pub fn plan(&self) -> &RolloutPlan {
        &self.plan
    }
}

/// Why a record is not a rollout over a fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// It is about other gateways.
    #[error("the rollout of release {} was recorded for other gateways than the release has", .0.0)]
    Fleet(Revision),
    /// Letters that stand for nothing.
    #[error("the rollout of release {} is damaged: what it holds of its gateways cannot be read", .0.0)]
    Marks(Revision),
}

pub(super) fn seats(plan: &RolloutPlan, fleet: &Fleet, own_ms: u64) -> Vec<Seat> {
    let waves = assign(plan, fleet);
    // A gateway that no wave chooses comes with those that were absent.
    let none = u16::try_from(plan.waves.len()).unwrap_or(u16::MAX);
    let seat = |wave: Option<u16>| {
        let mark = if wave.is_some() {
            Mark::Waiting
        } else {
            Mark::Absent
        };
        Seat::new(wave.unwrap_or(none), mark, own_ms)
    };
    waves.into_iter().map(seat).collect()
}

impl Rollout {
    /// What is stored of it.
    pub fn record(&self) -> Record {
        let strikes = (0..)
            .zip(&self.seats)
            .filter(|(_, seat)| seat.strike > Strike::None);
        Record {
            revision: self.revision,
            plan: self.plan.clone(),
            fleet: self.fleet_digest,
            stage: self.stage,
            stop: self.stop.clone(),
            emergency: self.is_emergency,
            clock: self.clock,
            accepted_failures: self.accepted_failures,
            accepts_shadow: self.accepts_shadow,
            orders: self.orders,
            marks: self.seats.iter().map(|seat| seat.mark.letter()).collect(),
            strikes: strikes
                .map(|(at, seat)| (at, seat.strike == Strike::Hard))
                .collect(),
        }
    }

    /// A rollout as it was stored, after a restart: nobody is connected, and nothing opens before somebody is.
    ///
    /// # Errors
    /// The record is damaged, or about other gateways.
    pub fn restore(record: Record, fleet: Arc<Fleet>, is_frozen: bool) -> Result<Self, RestoreError> {
        let revision = record.revision;
        if record.fleet != fleet.digest() {
            return Err(RestoreError::Fleet(revision));
        }
        let own_ms = record.clock.own_ms;
        let mut seats = seats(&record.plan, &fleet, own_ms);
        let marks: Option<Vec<Mark>> = record.marks.chars().map(Mark::of).collect();
        let marks = marks
            .filter(|marks| marks.len() == seats.len())
            .ok_or(RestoreError::Marks(revision))?;
        let orders = record.orders + 1;
        for (seat, mark) in seats.iter_mut().zip(marks) {
            seat.mark = mark;
            seat.withdrawn_by = orders;
        }
        for (at, is_hard) in &record.strikes {
            let seat = seats.get_mut(*at as usize).ok_or(RestoreError::Marks(revision))?;
            seat.strike = if *is_hard { Strike::Hard } else { Strike::Soft };
        }
        let mut rollout = Self {
            revision,
            order: fleet.draw(record.plan.seed),
            fleet_digest: record.fleet,
            plan: record.plan,
            fleet,
            seats,
            stage: record.stage,
            stop: record.stop,
            is_frozen,
            is_emergency: record.emergency,
            clock: record.clock,
            accepted_failures: record.accepted_failures,
            accepts_shadow: record.accepts_shadow,
            orders,
            is_retargeted: false,
            due: None,
        };
        rollout.due = rollout.next_due();
        Ok(rollout)
    }
}
