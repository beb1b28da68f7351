//! Brings what the kernel holds to what the approvers signed, and keeps it there.
//!
//! ```text
//! offered ─▶ verified ─▶ checked (would the kernel take it?) ─▶ staged (durable) ─▶ armed ─┬─▶ in force (in the kernel: now the
//!    │          │            │                         (held? stays staged, with a shadow) │     floor and the approvers move)
//!    │          │            │                                                            └─▶ trial ─▶ confirmed: in force
//!    │          │            │                                                                 └─▶ reverted: the one before
//!    └──────────┴────────────┴──▶ refused: stable code in the trail and in PolicyState; the last good policy stays
//! ```
//!
//! Level-triggered: it looks at desired against effective on start, on each offer, on each drift and
//! every [`TICK`]; an attempt that failed is made again. On start the stored policy is put in force before anything
//! else, with no coordinator needed (DESIGN, promises 1, 4 and 5; IEC 62443-3-3 SR 7.4, SR 3.4).
//!
//! A machine: [`Reconciler::step`] takes an [`Occasion`], [`Reconciler::due`] says when the next one is due by itself. What it does
//! goes through three seams, [`Kernel`], [`Workplace`] (the disk) and [`Timepiece`], and nothing here knows tasks, threads or timers.
//! One thing is in hand at a time, so a step is written as it reads, in `async` over the seams, and may be dropped at any `await`:
//! that is what a crash does to it, and `tests/tests/world` does it at each of them. The shell is in `reconcile/run.rs`.
//!
//! Here stands what may move desired or effective; what becomes of an offer before that is in `reconcile/accept.rs`,
//! what holds a staged release and what ends a trial in `reconcile/activate.rs` (its judgement in `reconcile/trial.rs`),
//! and what the store says at start in `reconcile/startup.rs`.
//! Not here: how the kernel is programmed ([`crate::kernel`]) and how offers arrive ([`crate::link`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::{ConduitId, Digest};
use penstock_policy::plan::Plan;
use penstock_policy::release::Trust;
use penstock_proto::event::AgentStep;
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1::{Drift, Fault, PolicyOffer, Refusal};
use tokio::sync::watch;

use crate::audit::{Audit, record};
use crate::kernel::{Holds, Kernel, KernelError};
use crate::observed::DriftStep;
use crate::policy_store::journal::{Journal, Order, OrderNumber};
use crate::policy_store::{RecordFault, StoredPolicy};
use crate::store::Records;
use crate::timepiece::Timepiece;

mod accept;
mod activate;
mod commands;
mod grants;
pub mod learner;
mod orders;
pub mod overrides;
mod run;
mod shadow;
pub mod site;
mod standing;
mod startup;
pub mod trial;
mod view;
pub mod window;
mod workplace;

pub use self::commands::{Command, CommandRefused, Reply};
use self::grants::Keeping;
use self::learner::{Learner, Unlearned};
use self::overrides::{OverrideAsk, OverrideReply, Overriding};
pub use self::run::{Asked, Inbox, Inlet, TICK, inbox};
use self::shadow::Shadow;
use self::site::{Site, Unguarded};
pub use self::standing::{Standing, StandingState};
use self::trial::{Hold, RevertReason, Trial};
pub use self::view::PolicyView;
pub use self::workplace::{Handed, SharedStore, Workplace};

/// How long a release that the kernel checks well and does not take is left alone at most.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Why an older policy takes the place of a newer one, for the trail.
const NOT_TAKEN: &str = "the newer policy could not be put in force";

/// What makes the reconciler act.
#[derive(Debug)]
pub enum Occasion {
    /// The coordinator offers a release, which is to go so far.
    Offer(Arc<PolicyOffer>, Order),
    /// The coordinator orders how far the release of this statement goes, which the gateway has.
    Order(Digest, Order),
    /// Somebody who may asks for something.
    Command(Command, Option<Reply>),
    /// Somebody in front of the gateway asks for an override, or for its end.
    Override(OverrideAsk, Option<OverrideReply>),
    /// Somebody else changed the data plane's rules, which it took back, or could not.
    Drift(DriftStep),
    /// The time that [`Reconciler::due`] named has come.
    Due,
    /// A person asks for a look now.
    Nudge,
    /// [`TICK`] is over.
    Tick,
}

/// The one task that changes policy.
pub struct Reconciler<K, W> {
    kernel: Arc<K>,
    workplace: W,
    audit: Audit,
    view: watch::Sender<PolicyView>,
    trust: Option<Trust>,
    /// What should be in the kernel.
    desired: Option<StoredPolicy>,
    /// What is in the kernel, put there by this process.
    effective: Option<StoredPolicy>,
    /// What is in force for good: what was so when the process began, then what took effect and is on no trial.
    fallback: Option<StoredPolicy>,
    /// The journal as the disk has it, or will have it.
    journal: Journal,
    /// It was read, or there is none: before, nothing is written over it.
    journal_is_known: bool,
    /// The disk has another one still.
    journal_is_due: bool,
    /// The trial that runs.
    trial: Option<Trial>,
    /// What holds the staged release.
    held: Option<Hold>,
    /// The order that was taken up last, and whose release it is about.
    ordered: (OrderNumber, Option<Digest>),
    /// The disk has another order of the desired release.
    order_is_due: bool,
    /// When the trial, or what holds, is to be looked at, on the clock that nobody sets.
    change_due: Option<Duration>,
    /// The kernel holds perhaps something else than what is effective: a change of it did not come to its end.
    in_doubt: bool,
    /// A release that passed the kernel's check and was rejected all the same, how often, and when it is worth another attempt.
    rejected: Option<(Digest, u32, Duration)>,
    site: Arc<dyn Site>,
    learner: Arc<dyn Learner>,
    /// The disk's mark of what is in force is older than what is.
    mark_is_older: bool,
    /// What took effect and is not noted on the disk yet, with what is believed since.
    unnoted: Option<(Digest, Trust)>,
    /// The offer that was refused last: it is not told or recorded again.
    refused: Option<(Digest, Refusal)>,
    /// A good offer that failed for this machine's own reasons (disk, kernel): judged again at each look.
    waiting: Option<(Arc<PolicyOffer>, Order)>,
    drift: Drift,
    /// Conduits that grants of remote access open.
    keeping: Keeping,
    overriding: Overriding,
    shadow: Shadow,
    /// Which revision the kernel did not take last (0: no policy), and why.
    kernel_fault: Option<(u64, Fault)>,
    /// What a person should know about the policy in force.
    findings: Vec<Fault>,
    /// The servers whose TLS ends here by the policy in force.
    tls_ends: ServerNames,
    store_faults: Vec<Fault>,
    /// Records of the policy that there are and that cannot be used.
    unusable: Vec<RecordFault>,
    /// What is believed cannot be read: no offer is taken meanwhile, since an older release could pass for a newer one.
    floor_unknown: bool,
}

impl<K: Kernel, W: Workplace> Reconciler<K, W> {
    /// `first_trust` is what the gateway was enrolled with; `None` while it is not enrolled.
    pub fn new(
        kernel: Arc<K>,
        workplace: W,
        audit: Audit,
        first_trust: Option<Trust>,
    ) -> (Self, watch::Receiver<PolicyView>) {
        let (view, seen) = watch::channel(PolicyView {
            drift: Drift::None,
            ..PolicyView::default()
        });
        let reconciler = Self {
            kernel,
            workplace,
            audit,
            view,
            trust: first_trust,
            desired: None,
            effective: None,
            fallback: None,
            journal: Journal::default(),
            journal_is_known: false,
            journal_is_due: false,
            trial: None,
            held: None,
            ordered: (OrderNumber::default(), None),
            order_is_due: false,
            change_due: None,
            in_doubt: false,
            rejected: None,
            site: Arc::new(Unguarded),
            learner: Arc::new(Unlearned),
            mark_is_older: false,
            unnoted: None,
            refused: None,
            waiting: None,
            drift: Drift::None,
            keeping: Keeping::new(Timepiece::Kernel),
            overriding: Overriding::default(),
            shadow: Shadow::default(),
            kernel_fault: None,
            findings: Vec::new(),
            tls_ends: ServerNames::default(),
            store_faults: Vec::new(),
            unusable: Vec::new(),
            floor_unknown: false,
        };
        (reconciler, seen)
    }

    /// With another clock than the kernel's for what ends by the clock.
    #[must_use]
    pub fn with_timepiece(mut self, timepiece: Timepiece) -> Self {
        self.keeping.timepiece = timepiece;
        self
    }

    /// At a site that says when and whether it may change.
    #[must_use]
    pub fn with_site(mut self, site: Arc<dyn Site>) -> Self {
        self.site = site;
        self
    }

    /// Does what an occasion calls for, and shows what is so then. A step that is broken off anywhere (the agent ends) is taken up
    /// by [`Self::start`] of the next one.
    pub async fn step(&mut self, occasion: Occasion) {
        let looks = matches!(occasion, Occasion::Nudge | Occasion::Tick);
        match occasion {
            Occasion::Offer(offered, order) => self.consider((offered, order)).await,
            Occasion::Order(statement, order) => self.ordered((statement, order)).await,
            Occasion::Command(command, reply) => self.obey(command, reply).await,
            Occasion::Override(ask, reply) => self.override_asked(ask, reply).await,
            Occasion::Drift(step) => self.drifted(step),
            Occasion::Due => {
                self.keep_grants().await;
                self.look_at_change().await;
            }
            Occasion::Nudge => self.look_closely().await,
            Occasion::Tick => self.look().await,
        }
        self.keep_overrides().await;
        self.keep_shadow(looks).await;
        self.publish();
    }

    /// Puts the desired policy in force, if it is not and nothing holds it.
    async fn bring_about(&mut self, why: &str) {
        let Some(desired) = self.desired.clone() else {
            self.kernel_fault.take_if(|(revision, _)| *revision != 0);
            self.put_back(why).await;
            return;
        };
        if self.is_effective(&desired) && !self.in_doubt {
            self.held = None;
            return;
        }
        // What is waited for anyway comes first: the process is asked last.
        let pauses = self.is_pausing(desired.statement);
        let may_begin = !pauses && self.may_begin(&desired);
        let before = self.fallback.as_ref().map(|before| before.mark.revision.0);
        // What nobody asks of the kernel any more is no fault of it.
        self.kernel_fault.take_if(|(revision, _)| {
            let is_asked = (pauses || may_begin) && *revision == desired.mark.revision.0;
            !is_asked && Some(*revision) != before
        });
        if !may_begin {
            // While it rests after a rejection, that is why the one before takes its place.
            self.put_back(if pauses { NOT_TAKEN } else { why }).await;
            return;
        }
        let resumes = self.is_on_trial(desired.statement);
        let was_named = self.journal.names() == Some(desired.statement);
        let plan = self.as_applied_now(&desired.plan);
        match self.put_in_kernel(&desired, &plan).await {
            Some(Ok(findings)) => {
                self.took_effect((desired, plan.open.clone()), why, &findings)
                    .await;
                return;
            }
            Some(Err(error)) => {
                self.kernel_failed(&error, desired.mark.revision.0);
                if resumes {
                    let why = format!("it could not be put in force again: {}", error.message);
                    self.revert(RevertReason::Lost(why)).await;
                } else if !self.in_doubt && !was_named {
                    self.unbegin().await;
                }
            }
            None => {}
        }
        // At start nothing is in the kernel yet: then the policy before is better than none. And what the kernel perhaps holds of the
        // newer one goes again.
        if !self.is_noted(desired.statement) || resumes {
            self.put_back(NOT_TAKEN).await;
        }
        // The kernel holds something else than what it was asked for, and no longer perhaps that.
        if let Some(effective) = self.effective.clone()
            && !self.in_doubt
            && !self.journal.is_reverted(effective.statement)
        {
            self.unbegin().await;
            self.name_as_applying(&effective).await;
        }
    }

    /// Has the kernel hold `plan` of `policy`, whose name the disk has before; `None`: the disk did not take it, and the kernel was
    /// not asked.
    async fn put_in_kernel(
        &mut self,
        policy: &StoredPolicy,
        plan: &Arc<Plan>,
    ) -> Option<Result<Vec<String>, KernelError>> {
        // What failed before is tried without writing first: it may go on failing for weeks.
        if self.kernel_fault.is_some()
            && let Err(error) = self.kernel.check(plan.clone()).await
        {
            return Some(Err(error));
        }
        if !self.is_noted(policy.statement) && !self.name(policy).await {
            return None;
        }
        let applied = self.kernel.apply(plan.clone(), policy.mark.revision).await;
        match &applied {
            Err(error) if error.in_doubt => {}
            Err(_) => self.pause(policy.statement),
            Ok(_) => self.rejected = None,
        }
        Some(applied)
    }

    /// The next attempts come ever more rarely: each writes the journal before it, and once more after it.
    fn pause(&mut self, statement: Digest) {
        let before = self.rejected.filter(|(rejected, ..)| *rejected == statement);
        let times = before.map_or(0, |(_, times, _)| times);
        let until = self.keeping.timepiece.now().boot + (TICK * times).min(PAUSE_MAX);
        self.rejected = Some((statement, times.saturating_add(1), until));
    }

    fn is_pausing(&self, statement: Digest) -> bool {
        let boot = self.keeping.timepiece.now().boot;
        self.rejected
            .is_some_and(|(rejected, _, until)| rejected == statement && boot < until)
    }

    /// Whether the disk has this one as in force for good.
    fn is_noted(&self, statement: Digest) -> bool {
        let noted = self.fallback.as_ref();
        noted.is_some_and(|noted| noted.statement == statement)
    }

    /// The kernel holds `policy`, with these of its conduits open.
    async fn took_effect(
        &mut self,
        (policy, open): (StoredPolicy, BTreeSet<ConduitId>),
        why: &str,
        findings: &[String],
    ) {
        let statement = policy.statement;
        let is_desired = self.is_desired(&policy);
        self.kernel_fault
            .take_if(|(revision, _)| is_desired || *revision == policy.mark.revision.0);
        self.in_doubt = false;
        self.audit.set_revision(policy.mark.revision.0);
        let mark = policy.mark;
        self.audit
            .note(record::policy("effective", mark.revision.0, mark.plan.0, why));
        for finding in findings {
            self.audit.note(record::agent(AgentStep::PolicyFinding, finding));
        }
        // Which interfaces the machine has changes under a plan: health asks it afresh, the trail has what was so now.
        for fault in self.kernel.faults() {
            if !fault.code.ends_with("-missing") {
                continue;
            }
            let words = format!("{}: {}", fault.code, fault.message);
            self.audit.note(record::agent(AgentStep::PolicyFinding, &words));
        }
        self.findings = findings
            .iter()
            .map(|finding| Fault {
                code: "policy-finding".to_owned(),
                message: finding.clone(),
                ..Fault::default()
            })
            .collect();
        self.tls_ends = match ServerNames::of_plan(&policy.plan) {
            Ok(names) => names,
            Err(error) => {
                let message = record::bounded(&error.to_string());
                self.findings.push(Fault::new("tls-names", message));
                ServerNames::default()
            }
        };
        tracing::info!(revision = %policy.mark.revision, "policy in force");
        let noted = self.is_noted(statement) && !self.mark_is_older;
        // What is on trial is not believed yet.
        let believed = (!self.trial_in_kernel(statement)).then(|| self.believe(&policy));
        self.effective = Some(policy);
        self.overriding.in_kernel();
        self.drift = Drift::None;
        // The kernel still ends grants as the policy before had them: only then is this one in force for anybody.
        self.grants_in_force(open).await;
        // The others learn it before the disk does.
        self.publish();
        if let Some(believed) = believed.filter(|_| !noted) {
            self.note_effective(statement, believed).await;
        }
        // See `crate::allocator`.
        let _ = self.workplace.compute(crate::allocator::give_back).await;
    }

    /// The data plane found that somebody else changed its rules, and took it back, or could not.
    fn drifted(&mut self, step: DriftStep) {
        self.drift = match step {
            DriftStep::Found | DriftStep::RepairFailed => Drift::Present,
            DriftStep::Repaired => Drift::Repaired,
        };
    }

    /// The periodic look: retries what failed. The data plane watches for drift by itself.
    async fn look(&mut self) {
        self.refresh_store_faults().await;
        self.take_up_overrides_again().await;
        self.take_up_what_is_readable_again().await;
        let _ = self.note_what_is_due().await;
        self.note_journal().await;
        self.note_order().await;
        self.look_at_change().await;
        self.try_waiting().await;
        self.bring_about("").await;
    }

    /// The look that a person asks for: compares the kernel with what was applied, too.
    async fn look_closely(&mut self) {
        self.look().await;
        match self.kernel.verify().await {
            Ok(Holds::AsApplied) => {
                let revision = self.effective.as_ref().map(|policy| policy.mark.revision.0);
                self.kernel_fault.take_if(|(failed, _)| Some(*failed) == revision);
                if self.drift == Drift::Present {
                    self.drift = Drift::Repaired;
                }
            }
            Ok(Holds::Drifted(_)) => self.drift = Drift::Present,
            Err(error) => {
                let revision = self.effective.as_ref().map_or(0, |policy| policy.mark.revision.0);
                self.kernel_failed(&error, revision);
            }
        }
    }

    fn kernel_failed(&mut self, error: &KernelError, revision: u64) {
        self.in_doubt |= error.in_doubt;
        let fault = Fault {
            code: error.code.to_owned(),
            message: record::bounded(&error.message),
            ..Fault::default()
        };
        // The same failure every ten seconds is one event.
        let fault = (revision, fault);
        if self.kernel_fault.as_ref() != Some(&fault) {
            tracing::warn!(code = error.code, revision, "{}", error.message);
            let words = format!("r{revision}: {}", error.message);
            self.audit.note(record::agent(AgentStep::KernelFailed, &words));
        }
        self.kernel_fault = Some(fault);
    }

    fn is_effective(&self, policy: &StoredPolicy) -> bool {
        self.effective
            .as_ref()
            .is_some_and(|effective| effective.statement == policy.statement)
    }

    fn is_desired(&self, policy: &StoredPolicy) -> bool {
        self.desired
            .as_ref()
            .is_some_and(|desired| desired.statement == policy.statement)
    }

    async fn refresh_store_faults(&mut self) {
        let mended = |records: &mut dyn Records| {
            records.mend();
            records.faults()
        };
        if let Some(faults) = self.workplace.on_records(mended).await {
            self.store_faults = faults;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
