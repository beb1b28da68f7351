//! One rollout, decided: facts and the time go in; what each gateway should have, what is to be confirmed or brought back, and when
//! to look again come out.
//!
//! ```text
//! draft ▶ simulated ▶ approved ▶ scheduled ▶ staging ▶ shadowing ▶ wave 1 … n ▶ converging ▶ completed (with exceptions)
//!                                                                  opening ▶ soaking ▶ gate
//! before the first activation: cancelled;  after it: rolling back ▶ rolled back;  at any time: superseded
//! over any stage: paused, halted;  over all rollouts: frozen
//! ```
//!
//! Time within is the rollout's own: it goes on by what passed between two steps, at most [`LOOK_MS`] and a little, so that a clock
//! that jumps forward ends no soak, one that jumps back stops none for long, and a time in which the coordinator heard
//! nothing counts for nothing. Invariants: nothing is opened while frozen, paused or halted; a hard event halts before anything
//! is opened in the same step; of a pair, one is opened only while the other cannot be unconfirmed; an opened gateway that is
//! withdrawn counts as opened until it says that it knows. A gateway keeps the last order on its disk, and may begin by it when nobody
//! reaches it: that a session ended, or another one opened, takes nothing back that was ordered.

mod asked;
mod clock;
mod look;
mod record;
mod steer;
mod take;
mod waits;

use std::sync::Arc;

use penstock_policy::ids::{Digest, GatewayId, Revision};
use serde::{Deserialize, Serialize};

use self::clock::{Clock, LOOK_MS};
use self::look::Census;
use super::facts::{Fact, HardEvent, Now};
use super::seats::{Mark, Seat, Strike};
use penstock_policy::rollout::{Fleet, RolloutPlan, Span, Wave};

pub use self::record::{Record, RestoreError};
pub use self::steer::{Command, SteerError};
pub use self::waits::{Wait, WaitReason};

/// What a rollout is started with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The release.
    pub revision: Revision,
    /// How.
    pub plan: RolloutPlan,
    /// To whom.
    pub fleet: Arc<Fleet>,
    /// Those that may be in the trial of an earlier release and are not heard of.
    pub in_earlier_trial: Vec<GatewayId>,
}

/// How far it is; paused and halted lie over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Stage {
    /// Written.
    Draft,
    /// Judged against recorded flows.
    Simulated,
    /// Its release is approved.
    Approved,
    /// Started, and waits for its time.
    Scheduled,
    /// Gateways verify and store it.
    Staging {
        /// When that began, by the rollout's own clock.
        since: u64,
    },
    /// Gateways judge live traffic by it.
    Shadowing {
        /// Until when, by the rollout's own clock.
        until: u64,
    },
    /// A wave activates.
    Opening {
        /// Which, from 0.
        wave: u16,
        /// When it began, by the rollout's own clock.
        since: u64,
        /// A person let it pass without those that are left.
        passed: bool,
    },
    /// A wave is looked at before the next.
    Soaking {
        /// Which, from 0.
        wave: u16,
        /// Until when, by the rollout's own clock.
        until: u64,
    },
    /// Those that were absent come.
    Converging,
    /// All enforce it.
    Completed,
    /// All that can enforce it; whoever comes back still gets it.
    CompletedWithExceptions,
    /// Trials are brought back.
    RollingBack,
    /// No trial of it runs.
    RolledBack,
    /// Ended before anything activated.
    Cancelled,
    /// A newer release took over.
    Superseded {
        /// Which.
        by: Revision,
    },
}

/// Why it stopped by itself or by a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum HaltReason {
    /// Something that stops a rollout at the first.
    Hard {
        /// To whom.
        gateway: GatewayId,
        /// What.
        event: HardEvent,
    },
    /// More failures than chance explains.
    Rate {
        /// So many failed.
        failed: u32,
        /// Of so many that activated.
        activated: u32,
    },
    /// Shadow shows that a flow would be cut that must not stop.
    Shadow {
        /// Where.
        gateway: GatewayId,
    },
    /// A person.
    Person {
        /// Their words.
        why: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Stop {
    Paused { why: String },
    Halted(HaltReason),
}

/// How far a gateway may go with the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Upto {
    /// This rollout asks nothing of it.
    None,
    /// Verify and store.
    Staged,
    /// Judge live traffic by it.
    Shadow,
    /// Enforce it, as its window, interlock and people allow.
    Active,
}

/// What one gateway should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Of which release.
    pub revision: Revision,
    /// How far.
    pub upto: Upto,
    /// The number of this order, which the gateway repeats in what it reports while it obeys it.
    pub order: u64,
    /// Length of its trial, seconds.
    pub trial_seconds: u64,
    /// Its wave, from 0.
    pub wave: u16,
}

/// What is to be done, once the step is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The target of one changed: its session reads it.
    Retarget(u32),
    /// The targets of all changed.
    RetargetAll,
    /// Its trial is good.
    Confirm(u32),
    /// Its trial is to end.
    Revert(u32),
    /// For the journal.
    Note(Note),
}

/// What the journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// It went on to this stage.
    Reached(Stage),
    /// It halted.
    Halted(HaltReason),
    /// A gateway enforces the release without having been allowed to.
    Unexpected(u32),
}

/// One rollout.
#[derive(Debug, Clone)]
pub struct Rollout {
    revision: Revision,
    plan: RolloutPlan,
    fleet: Arc<Fleet>,
    fleet_digest: Digest,
    /// In the fleet's order.
    seats: Vec<Seat>,
    /// In which gateways are opened.
    order: Vec<u32>,
    stage: Stage,
    stop: Option<Stop>,
    is_frozen: bool,
    is_emergency: bool,
    clock: Clock,
    /// So many failures a person went on with.
    accepted_failures: u32,
    /// A person went on although shadow shows that a flow would be cut.
    accepts_shadow: bool,
    /// The number of the last order.
    orders: u64,
    /// A target changed in this step.
    is_retargeted: bool,
    /// When to look again, by the rollout's own clock.
    due: Option<u64>,
}

impl Rollout {
    /// A draft. What is wrong with its plan is [`problems`](super::problems)'s.
    pub fn new(setup: Setup, now: Now) -> Self {
        let Setup {
            revision,
            plan,
            fleet,
            in_earlier_trial,
        } = setup;
        let mut seats = record::seats(&plan, &fleet, 0);
        for at in in_earlier_trial.iter().filter_map(|id| fleet.find(id)) {
            if let Some(seat) = seats.get_mut(at as usize) {
                seat.set(Mark::Unknown, 0);
                // Only an order of this rollout takes the place of what it was ordered before.
                seat.withdrawn_by = 1;
            }
        }
        Self {
            revision,
            order: fleet.draw(plan.seed),
            fleet_digest: fleet.digest(),
            plan,
            fleet,
            seats,
            stage: Stage::Draft,
            stop: None,
            is_frozen: now.frozen,
            is_emergency: false,
            clock: Clock {
                wall_ms: now.wall_ms,
                own_ms: 0,
            },
            accepted_failures: 0,
            accepts_shadow: false,
            orders: 1,
            is_retargeted: false,
            due: None,
        }
    }

    /// A release that was in force before there were rollouts, or that was carried to all at once: whoever has it is confirmed, and
    /// whoever comes without it gets it.
    pub fn adopted(setup: Setup, now: Now) -> Self {
        let mut adopted = Self::new(setup, now);
        // Elsewhere it is in force already, and whoever comes has no policy at all.
        adopted.plan.shadow = Span::seconds(0);
        adopted.stage = Stage::CompletedWithExceptions;
        for seat in &mut adopted.seats {
            seat.set(Mark::Absent, 0);
        }
        adopted
    }

    /// Takes in what happened, and says what is to be done.
    pub fn step(&mut self, now: Now, facts: impl IntoIterator<Item = Fact>) -> Vec<Action> {
        let was_stopped = self.is_stopped();
        let mut actions = Vec::new();
        self.clock.advance(now.wall_ms);
        self.is_frozen = now.frozen;
        // All of them before anything is opened: a hard event halts first.
        for fact in facts {
            self.take(fact, &mut actions);
        }
        self.look(&mut actions);
        self.finish(was_stopped, &mut actions);
        actions
    }

    /// When to step again, if nothing happens before; milliseconds since 1970.
    pub fn deadline(&self) -> Option<u64> {
        let start = (self.stage == Stage::Scheduled).then(|| self.plan.start_ms.unwrap_or_default());
        let start = start.filter(|_| !self.is_stopped());
        let start_in = start.map(|start| start.saturating_sub(self.clock.wall_ms));
        let due_in = self.due.map(|due| due.saturating_sub(self.clock.own_ms));
        let wait = [start_in, due_in].into_iter().flatten().min()?;
        Some(self.clock.wall_ms.saturating_add(wait.min(LOOK_MS)))
    }

    /// What a gateway should have.
    pub fn target(&self, gateway: u32) -> Option<Target> {
        let seat = self.seats.get(gateway as usize)?;
        Some(Target {
            revision: self.revision,
            upto: self.upto(seat),
            order: self.orders,
            trial_seconds: self.plan.trial.as_seconds(),
            wave: seat.wave,
        })
    }

    fn upto(&self, seat: &Seat) -> Upto {
        match self.stage {
            Stage::Draft | Stage::Simulated | Stage::Approved | Stage::Scheduled => return Upto::None,
            Stage::RollingBack | Stage::RolledBack | Stage::Cancelled | Stage::Superseded { .. } => {
                return Upto::None;
            }
            Stage::Staging { .. } => return Upto::Staged,
            _ => {}
        }
        let may_activate = match seat.mark {
            Mark::Opened => !self.is_stopped(),
            Mark::Trial => true,
            mark => mark.is_confirmed(),
        };
        match may_activate {
            true => Upto::Active,
            false if self.shadows() => Upto::Shadow,
            false => Upto::Staged,
        }
    }

    fn shadows(&self) -> bool {
        self.plan.shadow.as_ms() > 0 && !self.is_emergency
    }

    /// Nothing is opened.
    pub fn is_stopped(&self) -> bool {
        self.is_frozen || self.stop.is_some()
    }

    /// How far it is with a gateway.
    pub fn mark(&self, gateway: u32) -> Option<Mark> {
        Some(self.seats.get(gateway as usize)?.mark)
    }

    /// Those that may be in its trial: a rollout that supersedes this one is [set up](Setup::in_earlier_trial) with them.
    pub fn may_be_unconfirmed(&self) -> Vec<GatewayId> {
        let seats = self.fleet.members().iter().zip(&self.seats);
        let unconfirmed = seats.filter(|(_, seat)| seat.mark.may_be_unconfirmed());
        unconfirmed.map(|(member, _)| member.id.clone()).collect()
    }

    /// It does nothing more but look after gateways that come back late.
    pub fn is_over(&self) -> bool {
        let terminal = matches!(
            self.stage,
            Stage::Completed
                | Stage::CompletedWithExceptions
                | Stage::RolledBack
                | Stage::Cancelled
                | Stage::Superseded { .. }
        );
        terminal && !self.seats.iter().any(|seat| seat.mark.is_in_flight())
    }

    fn wave(&self, number: u16) -> Option<&Wave> {
        self.plan.waves.get(usize::from(number))
    }

    /// Whether trials are ended rather than confirmed.
    fn brings_back(&self) -> bool {
        matches!(
            self.stage,
            Stage::RollingBack | Stage::RolledBack | Stage::Cancelled
        )
    }

    /// Confirmed at once if its gateway can be; not while halted, so that what is under suspicion comes back by itself.
    fn judge_trial(&self, gateway: u32, confirmable: bool, actions: &mut Vec<Action>) {
        if self.brings_back() {
            actions.push(Action::Revert(gateway));
        } else if confirmable && self.halted().is_none() {
            actions.push(Action::Confirm(gateway));
        }
    }

    fn reach(&mut self, stage: Stage, actions: &mut Vec<Action>) {
        let before = self.stage;
        self.stage = stage;
        actions.push(Action::Note(Note::Reached(stage)));
        // From wave to wave nothing changes for a gateway but by being opened.
        let is_wave = |stage| {
            matches!(
                stage,
                Stage::Opening { .. } | Stage::Soaking { .. } | Stage::Converging
            )
        };
        let is_end = |stage| matches!(stage, Stage::Completed | Stage::CompletedWithExceptions);
        if !(is_wave(before) || is_end(before)) || !(is_wave(stage) || is_end(stage)) {
            self.is_retargeted = true;
            actions.push(Action::RetargetAll);
        }
    }

    fn halt(&mut self, reason: HaltReason, actions: &mut Vec<Action>) {
        let ends = matches!(self.stage, Stage::Superseded { .. }) || self.brings_back();
        if !ends && self.halted().is_none() {
            actions.push(Action::Note(Note::Halted(reason.clone())));
            self.stop = Some(Stop::Halted(reason));
        }
    }

    fn set(&mut self, gateway: u32, mark: Mark) {
        let own_ms = self.clock.own_ms;
        if let Some(seat) = self.seats.get_mut(gateway as usize) {
            seat.set(mark, own_ms);
            // What was reported of an earlier activation is no failure of the next.
            if mark == Mark::Opened {
                seat.strike = Strike::None;
            }
        }
    }

    /// A gateway's target changed.
    fn retarget(&mut self, gateway: u32, actions: &mut Vec<Action>) {
        self.is_retargeted = true;
        actions.push(Action::Retarget(gateway));
    }

    /// What may be activating may no longer; it counts as opened until the gateway repeats the number of the order that says so.
    fn withdraw(&mut self, gateway: u32, mark: Mark, actions: &mut Vec<Action>) {
        let withdrawn_by = self.orders + 1;
        self.set(gateway, mark);
        if let Some(seat) = self.seats.get_mut(gateway as usize) {
            seat.withdrawn_by = withdrawn_by;
        }
        self.retarget(gateway, actions);
    }

    fn finish(&mut self, was_stopped: bool, actions: &mut Vec<Action>) {
        if was_stopped != self.is_stopped() {
            let opened: Vec<u32> = self.marked(|mark| mark == Mark::Opened);
            for gateway in opened {
                self.retarget(gateway, actions);
            }
        }
        if std::mem::take(&mut self.is_retargeted) {
            self.orders += 1;
        }
        self.due = self.next_due();
    }

    fn marked(&self, is: impl Fn(Mark) -> bool) -> Vec<u32> {
        (0..)
            .zip(&self.seats)
            .filter(|(_, seat)| is(seat.mark))
            .map(|(at, _)| at)
            .collect()
    }
}
