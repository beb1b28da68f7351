//! What people do to a rollout. Who, why and with which ticket is the journal's; here only whether it can be done now.

use penstock_policy::ids::{GatewayId, Revision};

use super::super::facts::{Now, Standing};
use super::super::seats::Mark;
use super::{Action, HaltReason, Rollout, Stage, Stop, Upto};

/// Longest reason that is kept, characters.
const WHY_CHARS_MAX: usize = 256;

/// What a person, or what stands for one, wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// It was judged against recorded flows.
    Simulated,
    /// The threshold of approvers was met.
    Approved {
        /// The emergency's threshold: no shadow, no soak, no waiting for the start.
        emergency: bool,
    },
    /// Begin, at the plan's time.
    Start,
    /// Open nothing more, for now. What is in trial may still be confirmed.
    Pause {
        /// In their words.
        why: String,
    },
    /// Go on after a pause or halt: what was seen so far is accepted.
    Resume,
    /// Open and confirm nothing more: trials come back by themselves unless it is resumed in time.
    Halt {
        /// In their words.
        why: String,
    },
    /// Bring back what is in trial, and open nothing more. What is confirmed goes back only by a signed release.
    Revert,
    /// End it, before anything activated.
    Cancel,
    /// A newer release takes over: trials are still confirmed, nothing more is opened.
    Supersede {
        /// Which.
        by: Revision,
    },
    /// Let the wave go on without those that are left of it, also if none of it activated.
    Pass,
    /// Let its wave go on without one.
    Skip {
        /// Which.
        gateway: GatewayId,
    },
    /// Wait no longer for those that are absent; whoever comes back still gets it.
    Complete,
}

/// Why it cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SteerError {
    /// Not at this stage.
    #[error("this rollout cannot be {what}: {why}")]
    NotNow {
        /// The command as a participle.
        what: &'static str,
        /// Because.
        why: &'static str,
    },
    /// There are gateways that enforce it.
    #[error(
        "this rollout cannot be cancelled: {0} gateways may enforce its release; `revert` brings back those in trial, and a signed \
         release those that are confirmed"
    )]
    Activated(usize),
    /// Not one of this release.
    #[error("gateway {0} is not in this release")]
    Unknown(GatewayId),
}

fn not_now(what: &'static str, why: &'static str) -> SteerError {
    SteerError::NotNow { what, why }
}

impl Rollout {
    /// Does what a person wants.
    ///
    /// # Errors
    /// It cannot be done at this stage; nothing changed.
    pub fn steer(&mut self, now: Now, command: Command) -> Result<Vec<Action>, SteerError> {
        let mut actions = Vec::new();
        let was_stopped = self.is_stopped();
        self.clock.advance(now.wall_ms);
        self.is_frozen = now.frozen;
        match command {
            Command::Simulated => self.go(Stage::Draft, Stage::Simulated, "simulated", &mut actions)?,
            Command::Approved { emergency } => {
                if self.stage == Stage::Draft && emergency {
                    self.stage = Stage::Simulated;
                }
                self.go(Stage::Simulated, Stage::Approved, "approved", &mut actions)?;
                self.is_emergency = emergency;
            }
            Command::Start => self.go(Stage::Approved, Stage::Scheduled, "started", &mut actions)?,
            Command::Pause { why } => {
                self.running("paused")?;
                // A halt says more.
                if self.halted().is_some() {
                    return Err(not_now("paused", "it is halted"));
                }
                self.stop = Some(Stop::Paused { why: bounded(&why) });
            }
            Command::Resume => self.resume(&mut actions)?,
            Command::Halt { why } => {
                self.running("halted")?;
                self.halt(HaltReason::Person { why: bounded(&why) }, &mut actions);
            }
            Command::Revert => self.revert(&mut actions)?,
            Command::Cancel => self.cancel(&mut actions)?,
            Command::Supersede { by } => self.supersede(by, &mut actions)?,
            Command::Pass => match &mut self.stage {
                Stage::Opening { passed, .. } => *passed = true,
                _ => return Err(not_now("passed on", "no wave of it is waiting")),
            },
            Command::Skip { gateway } => self.skip(&gateway, &mut actions)?,
            Command::Complete => match self.stage {
                Stage::Converging => self.reach(Stage::CompletedWithExceptions, &mut actions),
                _ => return Err(not_now("completed", "its waves are not over")),
            },
        }
        self.look(&mut actions);
        self.finish(was_stopped, &mut actions);
        Ok(actions)
    }

    fn go(
        &mut self,
        from: Stage,
        to: Stage,
        what: &'static str,
        actions: &mut Vec<Action>,
    ) -> Result<(), SteerError> {
        if self.stage != from {
            return Err(not_now(what, "that is not its next stage"));
        }
        self.reach(to, actions);
        Ok(())
    }

    fn running(&self, what: &'static str) -> Result<(), SteerError> {
        match self.stage {
            Stage::Completed
            | Stage::RollingBack
            | Stage::RolledBack
            | Stage::Cancelled
            | Stage::Superseded { .. } => Err(not_now(what, "it is over, or on its way back")),
            _ => Ok(()),
        }
    }

    fn resume(&mut self, actions: &mut Vec<Action>) -> Result<(), SteerError> {
        match self.stop.take() {
            None => return Err(not_now("resumed", "it is neither paused nor halted")),
            Some(Stop::Paused { .. }) => return Ok(()),
            Some(Stop::Halted(HaltReason::Shadow { .. })) => self.accepts_shadow = true,
            Some(Stop::Halted(_)) => {}
        }
        self.accepted_failures = self.failures().0;
        for gateway in self.marked(|mark| mark == Mark::Trial) {
            let seat = self.seats.get(gateway as usize);
            if seat
                .is_some_and(|seat| seat.heard == Standing::Trial { confirmable: true } && seat.is_connected)
            {
                self.judge_trial(gateway, true, actions);
            }
        }
        Ok(())
    }

    fn revert(&mut self, actions: &mut Vec<Action>) -> Result<(), SteerError> {
        self.running("rolled back")?;
        self.stop = None;
        self.close(actions);
        self.reach(Stage::RollingBack, actions);
        let trials = self.marked(|mark| mark == Mark::Trial);
        actions.extend(trials.into_iter().map(Action::Revert));
        Ok(())
    }

    fn cancel(&mut self, actions: &mut Vec<Action>) -> Result<(), SteerError> {
        self.running("cancelled")?;
        let activated = self.marked(|mark| mark.counts() || mark.is_back()).len();
        if activated > 0 {
            return Err(SteerError::Activated(activated));
        }
        self.stop = None;
        self.close(actions);
        self.reach(Stage::Cancelled, actions);
        Ok(())
    }

    fn supersede(&mut self, by: Revision, actions: &mut Vec<Action>) -> Result<(), SteerError> {
        let is_over = matches!(self.stage, Stage::Cancelled | Stage::Superseded { .. });
        // What is brought back is first brought back: its trials are not to be confirmed after all.
        if is_over || by <= self.revision || self.stage == Stage::RollingBack {
            return Err(not_now(
                "superseded",
                "it is over or on its way back, or that release is not newer",
            ));
        }
        if self.stage == Stage::RolledBack {
            return Ok(());
        }
        self.stop = None;
        self.close(actions);
        self.reach(Stage::Superseded { by }, actions);
        Ok(())
    }

    fn skip(&mut self, gateway: &GatewayId, actions: &mut Vec<Action>) -> Result<(), SteerError> {
        let at = self
            .fleet
            .find(gateway)
            .ok_or_else(|| SteerError::Unknown(gateway.clone()))?;
        match self.mark(at) {
            Some(Mark::Waiting) => self.set(at, Mark::Absent),
            Some(Mark::Opened) => self.withdraw(at, Mark::Withdrawing, actions),
            _ => {
                return Err(not_now(
                    "continued without it",
                    "nobody waits for that gateway to activate",
                ));
            }
        }
        Ok(())
    }

    /// Withdraws all that was opened and is not known to have activated.
    fn close(&mut self, actions: &mut Vec<Action>) {
        for gateway in self.marked(|mark| mark == Mark::Opened) {
            self.withdraw(gateway, Mark::Withdrawing, actions);
        }
    }

    /// Whether a gateway may activate now, by its target.
    pub fn is_open(&self, gateway: u32) -> bool {
        self.target(gateway)
            .is_some_and(|target| target.upto == Upto::Active)
    }
}

fn bounded(why: &str) -> String {
    why.chars().take(WHY_CHARS_MAX).collect()
}
