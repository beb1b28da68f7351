//! From a staged release to one that is in force: what holds it, the journal before each swap, and the end of its trial.
//!
//! Each end is in the journal before it is in the kernel, but for one case: a disk that takes nothing keeps no trial from its end.
//! Then the kernel is brought back first, and the disk hears of it as soon as it can.

use std::sync::Arc;

use penstock_policy::ids::Digest;
use penstock_policy::release::Trust;
use penstock_policy::text::sentence;

use super::trial::{Confirmer, Gate, RevertReason, Trial, TrialEnd};
use super::{Reconciler, Workplace};
use crate::audit::record;
use crate::kernel::Kernel;
use crate::policy_store::journal::{
    Journal, OrderNumber, PreviousPolicy, REVERTED_MAX, RevertedRelease, TrialRecord,
};
use crate::policy_store::{self, StoredPolicies, StoredPolicy};

impl<K: Kernel, W: Workplace> Reconciler<K, W> {
    pub(super) fn is_on_trial(&self, statement: Digest) -> bool {
        let trial = self.trial.as_ref();
        trial.is_some_and(|trial| trial.statement == statement)
    }

    /// Whether `desired` may be put in the kernel now; what holds it is kept for the view.
    pub(super) fn may_begin(&mut self, desired: &StoredPolicy) -> bool {
        let was_begun = self.journal.trial.is_none() && self.journal.names() == Some(desired.statement);
        if was_begun || self.is_noted(desired.statement) || self.is_on_trial(desired.statement) {
            self.held = None;
            return true;
        }
        if self.journal.is_reverted(desired.statement) {
            return false;
        }
        // A trial needs a way back: where there was a policy that cannot be read at the moment, none begins.
        if desired.order.trial_ms.is_some() && self.fallback.is_none() && self.has_believed() {
            self.held = None;
            return false;
        }
        let now = self.keeping.timepiece.now();
        // Who may change what is in force is what is in force; where nothing is, what comes.
        let plan = match &self.fallback {
            Some(policy) => &policy.plan,
            None => &desired.plan,
        };
        let plan = &self.as_overridden(plan);
        let gate = Gate {
            order: &desired.order,
            emergency: desired.emergency,
            journal: &self.journal,
            windows: self.site.windows(plan),
            has_confirmer: self.site.has_confirmer(self.order_of(desired.statement)),
        };
        let held = gate.judge(now, || self.site.interlock(plan)).err();
        if held.is_some() {
            let again = held.as_ref().and_then(|hold| hold.again(now));
            self.change_due = again.map(|again| now.boot + again);
        }
        if held != self.held
            && let Some(hold) = &held
        {
            tracing::info!(revision = %desired.mark.revision, "{hold}");
            let words = hold.to_string();
            let event = record::policy("held", desired.mark.revision.0, desired.mark.plan.0, &words);
            // The next opening of a window is not news, nor is another word of the same interlock.
            let same = self.held.as_ref().map(std::mem::discriminant) == Some(std::mem::discriminant(hold));
            if !same {
                self.audit.note(event);
            }
        }
        let is_free = held.is_none();
        self.held = held;
        is_free
    }

    /// The order about this release that was taken up last; none where the last one was about another.
    fn order_of(&self, statement: Digest) -> OrderNumber {
        let (number, about) = self.ordered;
        if about == Some(statement) {
            number
        } else {
            OrderNumber::default()
        }
    }

    /// Whether a policy was ever in force for good here, as far as it is known.
    fn has_believed(&self) -> bool {
        let believes = self.trust.as_ref().is_some_and(|trust| trust.current.is_some());
        believes || self.floor_unknown || self.unusable.iter().any(|fault| fault.unread)
    }

    /// Names `policy` in the journal as what the kernel may hold from now on, on trial where its order says so; whether the disk has it.
    pub(super) async fn name(&mut self, policy: &StoredPolicy) -> bool {
        let was_begun = self.journal.trial.is_none() && self.journal.names() == Some(policy.statement);
        if self.is_on_trial(policy.statement) {
            return true;
        }
        if was_begun || policy.order.trial_ms.is_none() {
            return self.name_as_applying(policy).await;
        }
        let before = self.fallback.as_ref().map(|fallback| fallback.statement);
        let (previous, ground) = match before {
            None => {
                let Some(ground) = self.ground_of(policy).await else {
                    return false;
                };
                (None, Some(ground))
            }
            Some(statement) => {
                let find =
                    move |store: &mut dyn crate::store::Records| policy_store::slot_of(store, statement);
                let slot = self.workplace.on_records(find).await.flatten();
                let previous = PreviousPolicy {
                    statement,
                    slot: slot.unwrap_or_default().to_owned(),
                };
                (Some(previous), None)
            }
        };
        let now = self.keeping.timepiece.now();
        let around = (self.site.boot(), &self.site.facts());
        let Some(mut trial) = Trial::begin(policy.statement, &policy.order, previous, around, now) else {
            return false;
        };
        trial.record.ground = ground;
        let journal = Journal {
            applying: Some(policy.trust.clone()),
            trial: Some(trial.record.clone()),
            ..self.journal.clone()
        };
        if !self.write_journal(journal).await {
            return false;
        }
        let words = format!("for {} s; {}", trial.left(now.boot).as_secs(), trial.record.why);
        self.audit.note(record::policy(
            "trial",
            policy.mark.revision.0,
            policy.mark.plan.0,
            &words,
        ));
        self.trial = Some(trial);
        true
    }

    /// What stands before the first policy; `None`: the kernel does not say.
    async fn ground_of(&mut self, policy: &StoredPolicy) -> Option<String> {
        // The rules of one that was reverted are perhaps still there.
        if self.journal.ground.is_some() {
            return self.journal.ground.clone();
        }
        match self.kernel.ground(Arc::clone(&policy.plan)).await {
            Ok(ground) => Some(ground),
            Err(error) => {
                self.kernel_failed(&error, policy.mark.revision.0);
                None
            }
        }
    }

    /// Names `policy` on the disk as the newest that the kernel may hold, on no trial; whether that is so now.
    pub(super) async fn name_as_applying(&mut self, policy: &StoredPolicy) -> bool {
        if self.is_on_trial(policy.statement) {
            return true;
        }
        let mut journal = Journal {
            applying: Some(policy.trust.clone()),
            trial: None,
            ..self.journal.clone()
        };
        if let Some(believed) = &self.trust {
            journal.forget_below(believed.floor);
        }
        self.write_journal(journal).await
    }

    /// Whether the disk has this journal now; if not, it stays as it was.
    pub(super) async fn write_journal(&mut self, journal: Journal) -> bool {
        let same = self.journal.names() == journal.names()
            && Journal {
                applying: None,
                ..self.journal.clone()
            } == Journal {
                applying: None,
                ..journal.clone()
            };
        if same && !self.journal_is_due {
            return true;
        }
        // What cannot be read yet may hold a trial, or what was reverted.
        if !self.journal_is_known {
            return false;
        }
        let written = journal.clone();
        let write = move |store: &mut dyn crate::store::Records| policy_store::set_journal(store, &written);
        match self.workplace.on_records(write).await {
            Some(Ok(written)) => {
                self.journal = journal;
                self.journal_is_due = false;
                self.usable_again(&written);
                true
            }
            Some(Err(error)) => {
                tracing::warn!(error = %sentence(&error), "the journal of changes is not written");
                false
            }
            None => false,
        }
    }

    /// This is so whether the disk takes it or not; it is tried again at each look.
    async fn journal_in_any_case(&mut self, journal: Journal) {
        self.journal = journal;
        self.journal_is_due = true;
        self.note_journal().await;
    }

    /// Writes what is due.
    pub(super) async fn note_journal(&mut self) {
        if self.journal_is_due {
            self.write_journal(self.journal.clone()).await;
        }
    }

    /// Takes the journal from what was read, once; whether it did.
    pub(super) fn adopts_journal(&mut self, held: &StoredPolicies) -> bool {
        let Some(journal) = held.journal.clone().filter(|_| !self.journal_is_known) else {
            return false;
        };
        self.journal = journal;
        self.journal_is_known = true;
        true
    }

    /// Goes on with the trial that the journal has, or ends it.
    pub(super) async fn take_up_trial(&mut self) {
        let Some((record, statement)) = self.journal.trial.clone().zip(self.journal.names()) else {
            return;
        };
        let is_stored = self
            .desired
            .as_ref()
            .is_some_and(|desired| desired.statement == statement);
        let now = self.keeping.timepiece.now();
        let resumed = Trial::resume(statement, record.clone(), &self.site.boot(), now);
        let lost = match () {
            () if self.effective.is_some() => Some("its record could not be read when the agent started"),
            () if !is_stored => Some("it cannot be read from the store"),
            () => None,
        };
        match (resumed, lost) {
            (Ok(trial), None) => {
                // How often it was taken up counts before the kernel is asked: whatever ends this agent.
                let journal = Journal {
                    trial: Some(trial.record.clone()),
                    ..self.journal.clone()
                };
                self.trial = Some(trial);
                self.journal_in_any_case(journal).await;
            }
            (Ok(_), Some(lost)) => {
                let why = RevertReason::Lost(lost.to_owned());
                self.take_back((statement, record), why).await;
            }
            (Err(why), _) => self.take_back((statement, record), why).await,
        }
    }

    /// The kernel has this one on trial, if it is.
    pub(super) fn trial_in_kernel(&mut self, statement: Digest) -> bool {
        let now = self.keeping.timepiece.now().boot;
        let Some(trial) = self.trial.as_mut().filter(|trial| trial.statement == statement) else {
            return false;
        };
        trial.swapped(now);
        self.change_due = Some(now + trial.again(now));
        true
    }

    /// What this gateway believes from now on, with `policy` in force for good.
    pub(super) fn believe(&mut self, policy: &StoredPolicy) -> Trust {
        // The floor never sinks, here or on disk: what was in force before may be put back where a newer policy fails.
        let believed = match self.trust.take() {
            Some(held) if held.floor > policy.trust.floor => held,
            _ => policy.trust.clone(),
        };
        self.trust = Some(believed.clone());
        self.fallback = Some(policy.clone());
        // From now on there is always one to go back to; the disk hears of it with the next change of the journal.
        self.journal.ground = None;
        believed
    }

    /// The look at a trial, and at what holds a staged release.
    pub(super) async fn look_at_change(&mut self) {
        let boot = self.keeping.timepiece.now().boot;
        let Some(trial) = &mut self.trial else {
            if self.change_due.take_if(|due| *due <= boot).is_some() {
                self.bring_about("").await;
            }
            return;
        };
        let Some(end) = trial.look(&self.site.facts(), boot) else {
            self.change_due = Some(boot + trial.again(boot));
            return;
        };
        let why = match end {
            TrialEnd::Reverted(why) => why,
            TrialEnd::Passed if self.stays(&Confirmer::SelfTest).await.is_ok() => return,
            // A disk that takes nothing keeps no trial from its end.
            TrialEnd::Passed => RevertReason::Timer,
        };
        self.revert(why.clone()).await;
        self.bring_about(&format!("the trial was reverted: {why}")).await;
    }

    /// The trial is over, and not confirmed: it is so in the journal, and what is desired is what was before.
    pub(super) async fn revert(&mut self, why: RevertReason) {
        if let Some(trial) = self.trial.take() {
            self.take_back((trial.statement, trial.record), why).await;
        }
    }

    async fn take_back(&mut self, (statement, trial): (Digest, TrialRecord), why: RevertReason) {
        (self.trial, self.held, self.change_due) = (None, None, None);
        let floor = self.journal.applying.as_ref().map(|applying| applying.floor);
        let revision = floor.unwrap_or_default();
        tracing::warn!(%revision, code = why.code(), "the trial is reverted: {why}");
        let plan = self
            .desired
            .as_ref()
            .filter(|desired| desired.statement == statement)
            .map_or([0; 32], |desired| desired.mark.plan.0);
        let words = format!("{}: {why}", why.code());
        self.audit
            .note(record::policy("reverted", revision.0, plan, &words));
        // What was staged after it, before an agent ended, stays desired.
        let later = self
            .desired
            .take()
            .filter(|desired| desired.statement != statement);
        self.desired = later.or_else(|| self.fallback.clone());
        // What was refused for it may come again.
        self.refused = None;
        let mut journal = self.journal.clone();
        journal.applying = match (&self.fallback, trial.previous) {
            (Some(before), _) => Some(before.trust.clone()),
            (None, None) => None,
            // It is stored and cannot be read: it is not as if there were none.
            (None, Some(_)) => self.trust.clone(),
        };
        journal.trial = None;
        journal.ground = trial.ground.filter(|_| self.fallback.is_none());
        if journal.reverted.len() >= REVERTED_MAX {
            journal.reverted.remove(0);
        }
        journal.reverted.push(RevertedRelease {
            statement,
            revision,
            code: why.code().to_owned(),
            why: record::bounded(&why.to_string()),
            ordered: matches!(why, RevertReason::Asked { ordered: true, .. }),
            at_ms: self.keeping.timepiece.now().wall_ms,
        });
        self.journal_in_any_case(journal).await;
    }

    /// The kernel surely did not take what was about to be in it: that never began. What is in force in its place is named elsewhere.
    pub(super) async fn unbegin(&mut self) {
        let had_trial = self.trial.take().is_some();
        let is_first = self.fallback.is_none() && self.journal.applying.is_some();
        if !had_trial && !is_first {
            return;
        }
        let applying = self.fallback.as_ref().map(|before| before.trust.clone());
        let journal = Journal {
            applying,
            trial: None,
            ..self.journal.clone()
        };
        self.journal_in_any_case(journal).await;
    }

    /// Where the kernel holds nothing by this process, what was reverted, or who knows what: what is in force for good, or no policy where there was none.
    pub(super) async fn put_back(&mut self, why: &str) {
        let stands = |effective: &StoredPolicy| !self.journal.is_reverted(effective.statement);
        if self.effective.as_ref().is_some_and(stands) && !self.in_doubt {
            return;
        }
        if let Some(before) = self.fallback.clone() {
            let plan = self.as_applied_now(&before.plan);
            match self.kernel.apply(plan.clone(), before.mark.revision).await {
                Ok(findings) => {
                    self.took_effect((before, plan.open.clone()), why, &findings)
                        .await
                }
                Err(error) => self.kernel_failed(&error, before.mark.revision.0),
            }
            return;
        }
        // While one perhaps begins, it is that one which decides.
        let is_over = self.trial.is_none() && !self.has_believed();
        let Some(ground) = self.journal.ground.clone().filter(|_| is_over) else {
            return;
        };
        match self.kernel.withdraw(&ground).await {
            Ok(()) => {
                (self.effective, self.kernel_fault, self.in_doubt) = (None, None, false);
                self.overriding.withdrawn();
                let journal = Journal {
                    ground: None,
                    ..self.journal.clone()
                };
                self.journal_in_any_case(journal).await;
                self.keep_grants().await;
            }
            Err(error) => self.kernel_failed(&error, 0),
        }
    }
}
