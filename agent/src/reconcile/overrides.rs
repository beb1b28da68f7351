//! Overrides of what is enforced, by people in front of the gateway: begun, kept through whatever release is in force or on trial, and
//! ended.
//!
//! An override is on the disk, with the code that it spends, before it is in the kernel: a disk that does not take it changes nothing.
//! At its end the disk hears of it first, too; one that takes nothing keeps no override from its end. An end stays on the disk until it
//! is in the kernel and in the trail. What the kernel holds is the plan in force with the effects of all that last, and nothing else.
//!
//! What people ask for is in `overrides/asked.rs`. Not here: how long one lasts ([`crate::overrides`]), and who may begin one
//! ([`penstock_policy::overrides::BreakGlass::permits`]).

mod asked;
pub(super) mod refusals;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::overrides::{Effect, overridden};
use penstock_policy::plan::Plan;
use penstock_policy::text::sentence;
use penstock_proto::event::AgentStep;
use penstock_proto::v1::Fault;

pub use self::asked::{NotOverridden, OverrideAsk, OverrideReply};
use self::refusals::Refusals;
use super::{Reconciler, Workplace};
use crate::audit::record;
use crate::kernel::Kernel;
use crate::overrides::{NOTED_EVERY, Numbers, ShownOverride, in_words, short, ticket_in_words};
use crate::policy_store::overrides::{
    self as stored, LastingOverride, OverrideEnd, OverridesRecord, StoredOverrides,
};
use crate::store::Records;
use crate::timepiece::Time;

/// What the reconciler keeps of overrides.
#[derive(Debug, Default)]
pub(super) struct Overriding {
    /// As the disk has it, or will have it.
    record: OverridesRecord,
    /// Whether it was read; why not: then none begins, and nothing is written over it.
    unknown: Option<Unknown>,
    /// The disk has another one still.
    is_due: bool,
    /// When the disk hears again how long they last, on the boot's clock.
    note_due: Duration,
    numbers: Numbers,
    refusals: Refusals,
    /// The effects that the kernel has.
    applied: Vec<Effect>,
    /// Why the kernel did not follow.
    fault: Option<Fault>,
}

/// Why the record is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unknown {
    /// It may be whole.
    Unread(String),
    /// It is lost.
    Damaged(String),
}

impl Overriding {
    /// What those that last change.
    fn effects(&self) -> Vec<Effect> {
        let lasting = self.record.lasting.iter().filter(|one| one.ended.is_none());
        lasting
            .flat_map(|one| one.asked.effects.iter().copied())
            .collect()
    }

    /// The kernel holds the plan in force as it is to be.
    pub(super) fn in_kernel(&mut self) {
        self.applied = self.effects();
    }

    /// The kernel holds no policy.
    pub(super) fn withdrawn(&mut self) {
        self.applied.clear();
    }

    /// When something is to be done, on the boot's clock.
    pub(super) fn due(&self, now: Time) -> Option<Duration> {
        let lasting = self.record.lasting.iter().filter(|one| one.ended.is_none());
        let end = lasting.map(|one| now.boot + one.left(now)).min()?;
        Some(end.min(self.note_due))
    }
}

impl<K: Kernel, W: Workplace> Reconciler<K, W> {
    /// `plan` with what people changed of it: what is to be in the kernel while it is in force.
    pub(super) fn as_overridden(&self, plan: &Arc<Plan>) -> Arc<Plan> {
        let effects = self.overriding.effects();
        if effects.is_empty() {
            return Arc::clone(plan);
        }
        Arc::new(overridden(plan, &effects))
    }

    /// Takes up what the disk has, before any plan is in the kernel.
    pub(super) fn take_up_overrides(&mut self, held: StoredOverrides) {
        let why = match held {
            StoredOverrides::Known(record) => {
                let now = self.keeping.timepiece.now();
                let boot = self.site.boot();
                self.overriding.unknown = None;
                self.overriding.record = record;
                let trust = self.trust.clone();
                let record = &mut self.overriding.record;
                // Of another plant or gateway: left over from before a new enrolment.
                record.lasting.retain(|one| {
                    let is_ours = |trust: &penstock_policy::release::Trust| {
                        (&trust.plant, &trust.gateway) == (&one.asked.plant, &one.asked.gateway)
                    };
                    trust.as_ref().is_none_or(is_ours)
                });
                for lasting in &mut record.lasting {
                    lasting.resume(&boot, now);
                }
                self.overriding.is_due = !record.lasting.is_empty();
                // An agent that ended at once has perhaps not recorded its beginning.
                for lasting in self
                    .overriding
                    .record
                    .lasting
                    .iter()
                    .filter(|one| one.ended.is_none())
                {
                    self.note_began(lasting, "began before the agent was started");
                }
                for lasting in &mut self.overriding.record.lasting {
                    // By the time alone: which release is in force is not known yet.
                    lasting.ended = lasting.ended.take().or_else(|| lasting.is_over(None, now));
                }
                return;
            }
            StoredOverrides::Unread(why) => Unknown::Unread(why),
            StoredOverrides::Damaged(why) => Unknown::Damaged(why),
        };
        if self.overriding.unknown.as_ref() != Some(&why) {
            let (Unknown::Unread(words) | Unknown::Damaged(words)) = &why;
            let message = format!("the record of overrides cannot be used: {words}");
            tracing::warn!("{message}");
            self.audit
                .note(record::agent(AgentStep::StoredPolicyUnusable, &message));
        }
        self.overriding.unknown = Some(why);
    }

    /// Looks again for what could not be read; what is lost gives way to a record in which all codes of the policy in force count as used.
    pub(super) async fn take_up_overrides_again(&mut self) {
        match &self.overriding.unknown {
            None => {}
            Some(Unknown::Unread(_)) => {
                let held = self.workplace.on_records(stored::load).await;
                let held = held.filter(|held| !matches!(held, StoredOverrides::Unread(_)));
                if let Some(held) = held {
                    self.take_up_overrides(held);
                }
            }
            Some(Unknown::Damaged(_)) => {
                let known = [&self.fallback, &self.effective, &self.desired];
                let codes = known
                    .into_iter()
                    .flatten()
                    .filter_map(|policy| policy.plan.break_glass.as_ref());
                let spent: BTreeSet<_> = codes
                    .flat_map(|permitting| permitting.codes.iter().copied())
                    .collect();
                if self.fallback.is_none() {
                    return;
                }
                let record = OverridesRecord {
                    lasting: Vec::new(),
                    spent,
                };
                if self.write_overrides(record).await {
                    self.overriding.unknown = None;
                }
            }
        }
    }

    /// Brings what the kernel and the disk have to what lasts now.
    pub(super) async fn keep_overrides(&mut self) {
        self.note_unrecorded_refusals();
        if self.overriding.unknown.is_some() {
            return;
        }
        let now = self.keeping.timepiece.now();
        let in_force = self.fallback.as_ref().map(|policy| Arc::clone(&policy.plan));
        let mut is_over = false;
        for lasting in self
            .overriding
            .record
            .lasting
            .iter_mut()
            .filter(|one| one.ended.is_none())
        {
            lasting.ended = lasting.is_over(in_force.as_deref(), now);
            is_over |= lasting.ended.is_some();
        }
        let is_note_due = !self.overriding.effects().is_empty() && now.boot >= self.overriding.note_due;
        if is_over || is_note_due || self.overriding.is_due {
            self.note_overrides().await;
        }
        self.bring_about_overrides().await;
        self.forget_ended();
    }

    /// Writes what is so now; a disk that does not take it is tried again.
    async fn note_overrides(&mut self) {
        let now = self.keeping.timepiece.now();
        for lasting in &mut self.overriding.record.lasting {
            lasting.note(now);
        }
        self.overriding.note_due = now.boot + NOTED_EVERY;
        let record = self.overriding.record.clone();
        self.overriding.is_due = !self.write_overrides(record).await;
    }

    /// Whether the disk has this record now.
    async fn write_overrides(&mut self, record: OverridesRecord) -> bool {
        let written = record.clone();
        let write = move |store: &mut dyn Records| stored::save(store, &written);
        match self.workplace.on_records(write).await {
            Some(Ok(())) => {
                self.overriding.record = record;
                self.overriding.is_due = false;
                true
            }
            Some(Err(error)) => {
                tracing::warn!(error = %sentence(&error), "the record of overrides is not written");
                false
            }
            None => false,
        }
    }

    /// Has the kernel hold the policy in force with what lasts.
    async fn bring_about_overrides(&mut self) {
        let effects = self.overriding.effects();
        let Some(effective) = self.effective.clone().filter(|_| !self.in_doubt) else {
            // Whatever is in the kernel next is with what lasts then.
            return;
        };
        if self.overriding.applied == effects {
            self.overriding.fault = None;
            return;
        }
        let same =
            overridden(&effective.plan, &self.overriding.applied) == overridden(&effective.plan, &effects);
        if same {
            self.overriding.applied = effects;
            return;
        }
        let plan = self.as_applied_now(&effective.plan);
        match self
            .kernel
            .apply(Arc::clone(&plan), effective.mark.revision)
            .await
        {
            Ok(_) => {
                self.overriding.applied = effects;
                self.overriding.fault = None;
                self.shadow_again();
                self.grants_in_force(plan.open.clone()).await;
            }
            Err(error) => {
                let message = format!(
                    "the kernel does not hold what overrides make of the policy in force; it is tried again: {}",
                    error.message
                );
                let fault = Fault::new(AgentStep::OverrideFailed.word(), record::bounded(&message));
                if self.overriding.fault.as_ref() != Some(&fault) {
                    self.audit
                        .note(record::agent(AgentStep::OverrideFailed, &fault.message));
                }
                self.overriding.fault = Some(fault);
                if error.in_doubt {
                    self.kernel_failed(&error, effective.mark.revision.0);
                }
            }
        }
    }

    /// What has ended, and the kernel no longer has, is in the trail, and then forgotten.
    fn forget_ended(&mut self) {
        let is_gone = self.effective.is_none() || self.overriding.applied == self.overriding.effects();
        if !is_gone || self.in_doubt {
            return;
        }
        let lasting = std::mem::take(&mut self.overriding.record.lasting);
        let (ended, lasting): (Vec<_>, Vec<_>) = lasting.into_iter().partition(|one| one.ended.is_some());
        self.overriding.record.lasting = lasting;
        for one in &ended {
            let OverrideEnd { code, why } = one.ended.clone().unwrap_or_else(|| OverrideEnd {
                code: String::new(),
                why: String::new(),
            });
            let message = format!(
                "{} {code}: {why}; it was so: {}",
                short(one.asked.number),
                in_words(&one.asked.effects)
            );
            tracing::info!("override ended: {message}");
            self.audit.note(record::agent(AgentStep::OverrideEnded, &message));
        }
        // The disk forgets it at the next step: an agent that ends before the trail has it records it again.
        self.overriding.is_due |= !ended.is_empty();
    }

    fn note_began(&self, lasting: &LastingOverride, verb: &str) {
        let asked = &lasting.asked;
        let message = format!(
            "{} {verb}: {}; for {} s; permitted by {}, begun by {}; why: {}{}",
            short(asked.number),
            in_words(&asked.effects),
            asked.seconds,
            lasting.authority(),
            lasting.by,
            asked.reason,
            ticket_in_words(asked.ticket.as_deref()),
        );
        tracing::warn!("override {message}");
        self.audit.note(record::agent(AgentStep::OverrideBegan, &message));
    }

    /// Those that last, for whoever looks.
    pub(super) fn shown_overrides(&self) -> Vec<ShownOverride> {
        let applied = self.effective.is_some()
            && !self.in_doubt
            && self.overriding.applied == self.overriding.effects();
        let lasting = self.overriding.record.lasting.iter();
        lasting
            .filter(|one| one.ended.is_none())
            .map(|one| ShownOverride::of(one, applied))
            .collect()
    }

    /// What health shows of them.
    pub(super) fn override_faults(&self, shown: &[ShownOverride], faults: &mut Vec<Fault>) {
        let plan = self.effective.as_ref().map(|policy| &*policy.plan);
        faults.extend(shown.iter().map(|one| one.fault(plan)));
        faults.extend(self.overriding.fault.clone());
        if let Some(Unknown::Unread(why) | Unknown::Damaged(why)) = &self.overriding.unknown {
            let message = format!(
                "the record of overrides cannot be used, so that none is in force and none begins: {why}"
            );
            faults.push(Fault::new(
                AgentStep::StoredPolicyUnusable.word(),
                record::bounded(&message),
            ));
        }
    }
}
