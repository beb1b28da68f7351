//! What somebody asks of a gateway's policy: a trial confirmed or reverted, the gateway held as it is, a reverted release cleared.
//!
//! Who may ask is judged where it comes in: the session (remote) or the local socket (a person). Each is in the trail with its name.

use penstock_policy::ids::Digest;
use tokio::sync::oneshot;

use super::trial::{Confirmer, RevertReason};
use super::{Reconciler, Workplace};
use crate::audit::record;
use crate::kernel::Kernel;
use crate::policy_store;
use crate::policy_store::journal::{Journal, Order, PersonHold, Upto};
use crate::store::Records;

/// Something that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The release of this statement, which is on trial, stays.
    Confirm {
        /// Which.
        statement: Digest,
        /// By whom.
        by: Confirmer,
    },
    /// The release of this statement, which is on trial, goes.
    Revert {
        /// Which.
        statement: Digest,
        /// Who asks, and why.
        by: String,
        /// It is the coordinator.
        ordered: bool,
    },
    /// No release begins until the hold is released. A trial that runs goes on.
    Hold {
        /// Who asks.
        by: String,
        /// Why.
        why: String,
    },
    /// It is.
    ReleaseHold {
        /// Who asks.
        by: String,
    },
    /// The release of this statement, which was reverted, may come again.
    Clear {
        /// Which.
        statement: Digest,
        /// Who asks.
        by: String,
    },
}

/// Where the answer goes.
pub type Reply = oneshot::Sender<Result<(), CommandRefused>>;

/// Why nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefused {
    /// There is no trial.
    #[error("no release is on trial here")]
    NoTrial,
    /// It stays already.
    #[error("this release is in force for good already")]
    InForce,
    /// Another release is on trial.
    #[error("another release is on trial here")]
    OtherRelease,
    /// The trial was just found to be over.
    #[error("the trial is over: the release was reverted")]
    Over,
    /// The session was opened before the new rules were in force.
    #[error(
        "the session is older than the rules on trial, so that it does not show that they let it pass: connect again"
    )]
    OldSession,
    /// Who is far away confirms what has been shown, not what may be.
    #[error("not all of the flows that must flow, and did before, have flowed under the rules on trial yet")]
    NotFlowing,
    /// The disk does not take it.
    #[error("nothing was changed: the gateway's disk did not take it")]
    NotStored,
    /// A reverted release is not forgotten before the kernel is rid of it.
    #[error("the kernel has not yet given this release up: see the faults in health")]
    StillInKernel,
    /// The agent ends.
    #[error("nothing was changed: the agent is stopping")]
    Stopping,
    /// Nothing to release or clear.
    #[error("there is no such hold, and no such reverted release")]
    NothingThere,
}

impl<K: Kernel, W: Workplace> Reconciler<K, W> {
    pub(super) async fn obey(&mut self, command: Command, reply: Option<Reply>) {
        let done = self.command(command).await;
        // Who hears that it was done sees that it is so.
        self.publish();
        // Who asked may be gone.
        let _ = reply.map(|reply| reply.send(done));
    }

    /// Does it.
    ///
    /// # Errors
    /// Nothing was done, and why.
    pub async fn command(&mut self, command: Command) -> Result<(), CommandRefused> {
        match command {
            Command::Confirm { statement, by } => self.confirm(statement, by).await,
            Command::Revert {
                statement,
                by,
                ordered,
            } => {
                self.is_that_trial(statement)?;
                let why = RevertReason::Asked { by, ordered };
                self.revert(why.clone()).await;
                self.bring_about(&format!("the trial was reverted: {why}")).await;
                Ok(())
            }
            Command::Hold { by, why } => {
                let since_ms = self.keeping.timepiece.now().wall_ms;
                let hold = Some(PersonHold {
                    by: record::bounded(&by),
                    why: record::bounded(&why),
                    since_ms,
                });
                let journal = Journal {
                    hold,
                    ..self.journal.clone()
                };
                self.change_journal(journal).await?;
                self.note_command("hold", &format!("{by}: {why}"));
                self.bring_about("").await;
                Ok(())
            }
            Command::ReleaseHold { by } => {
                self.journal.hold.as_ref().ok_or(CommandRefused::NothingThere)?;
                let journal = Journal {
                    hold: None,
                    ..self.journal.clone()
                };
                self.change_journal(journal).await?;
                self.note_command("hold-released", &by);
                self.bring_about("").await;
                Ok(())
            }
            Command::Clear { statement, by } => {
                if !self.journal.is_reverted(statement) {
                    return Err(CommandRefused::NothingThere);
                }
                if self
                    .effective
                    .as_ref()
                    .is_some_and(|effective| effective.statement == statement)
                {
                    return Err(CommandRefused::StillInKernel);
                }
                // It may come again, and does not come by itself: the order that it had is over.
                let over = Order {
                    upto: Upto::Staged,
                    ..Order::default()
                };
                let reorder = move |store: &mut dyn Records| policy_store::reorder(store, statement, &over);
                match self.workplace.on_records(reorder).await {
                    Some(Ok(())) => {}
                    Some(Err(_)) | None => return Err(CommandRefused::NotStored),
                }
                let mut journal = self.journal.clone();
                let mut cleared = journal
                    .reverted
                    .extract_if(.., |reverted| reverted.statement == statement);
                let revision = cleared.next().map(|cleared| cleared.revision).unwrap_or_default();
                drop(cleared);
                self.change_journal(journal).await?;
                self.refused = None;
                self.note_command("cleared", &format!("{revision} by {by}"));
                self.take_up_cleared(statement).await;
                Ok(())
            }
        }
    }

    /// What was cleared is staged again, as the next agent would find it: where it is still stored, and nothing newer took its place.
    async fn take_up_cleared(&mut self, statement: Digest) {
        let held = self.workplace.on_records(policy_store::load).await;
        let newest = self.desired.as_ref().map(|desired| desired.mark.revision);
        let staged = held.and_then(|held| held.staged);
        let cleared =
            staged.filter(|staged| staged.statement == statement && Some(staged.mark.revision) > newest);
        if self.trial.is_none() && cleared.is_some() {
            (self.desired, self.order_is_due) = (cleared, false);
            self.bring_about("").await;
        }
    }

    async fn confirm(&mut self, statement: Digest, by: Confirmer) -> Result<(), CommandRefused> {
        let is_settled = self.trial.is_none() && self.is_noted(statement);
        if is_settled && self.effective.as_ref().map(|policy| policy.statement) == Some(statement) {
            return Err(CommandRefused::InForce);
        }
        self.is_that_trial(statement)?;
        // What is over is not confirmed, whoever comes first.
        self.look_at_change().await;
        let trial = self.trial.as_ref().ok_or(CommandRefused::Over)?;
        if !trial.is_confirmed_by(&by) {
            return Err(CommandRefused::OldSession);
        }
        // A person on site sees the process; whoever is far away sees what this gateway reports.
        if matches!(by, Confirmer::Remote { .. }) && !trial.flows(&self.site.facts()) {
            return Err(CommandRefused::NotFlowing);
        }
        self.stays(&by).await
    }

    /// What is on trial is in force for good from now on.
    pub(super) async fn stays(&mut self, by: &Confirmer) -> Result<(), CommandRefused> {
        let policy = self.effective.clone().ok_or(CommandRefused::NoTrial)?;
        let mut journal = Journal {
            trial: None,
            confirmed: Some(policy.statement),
            ..self.journal.clone()
        };
        journal.forget_below(policy.mark.revision);
        self.change_journal(journal).await?;
        (self.trial, self.change_due) = (None, None);
        let believed = self.believe(&policy);
        let statement = policy.statement;
        let who = match by {
            Confirmer::Remote { .. } => "the coordinator",
            Confirmer::Person(person) => person,
            Confirmer::SelfTest => "the gateway's own test",
        };
        self.note_command("confirmed", &format!("by {who}"));
        self.publish();
        self.note_effective(statement, believed).await;
        self.try_waiting().await;
        Ok(())
    }

    fn is_that_trial(&self, statement: Digest) -> Result<(), CommandRefused> {
        match &self.trial {
            None => Err(CommandRefused::NoTrial),
            Some(trial) if trial.statement != statement => Err(CommandRefused::OtherRelease),
            Some(_) => Ok(()),
        }
    }

    async fn change_journal(&mut self, journal: Journal) -> Result<(), CommandRefused> {
        let is_written = self.write_journal(journal).await;
        is_written.then_some(()).ok_or(CommandRefused::NotStored)
    }

    fn note_command(&self, step: &str, message: &str) {
        let mark = self.effective.as_ref().map(|effective| effective.mark);
        let (revision, plan) = mark.map_or((0, [0; 32]), |mark| (mark.revision.0, mark.plan.0));
        self.audit.note(record::policy(step, revision, plan, message));
    }
}
