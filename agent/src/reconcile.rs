//! Brings what the kernel holds to what the approvers signed, and keeps it there.
//!
//! ```text
//! offered ─▶ verified ─▶ checked (would the kernel take it?) ─▶ staged (durable) ─▶ effective (in the kernel: now
//!    │          │            │                                    the floor and the approvers that are believed move)
//!    └──────────┴────────────┴──▶ refused: stable code in the trail and in PolicyState; the last good policy stays
//! ```
//!
//! Level-triggered: [`Reconciler::run`] looks at desired against effective on start, on each offer, on each drift and
//! every [`TICK`]; an attempt that failed is made again. On start the stored policy is put in force before anything
//! else, with no coordinator needed (DESIGN, promises 1, 4 and 5; IEC 62443-3-3 SR 7.4, SR 3.4).
//!
//! Here stands what may move desired or effective; what becomes of an offer before that is in `reconcile/accept.rs`,
//! and what the store says at start in `reconcile/startup.rs`.
//! Not here: how the kernel is programmed ([`crate::kernel`]) and how offers arrive ([`crate::link`]).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use penstock_policy::ids::Digest;
use penstock_policy::plan::Plan;
use penstock_policy::release::Trust;
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1::{Drift, Fault, PolicyOffer, PolicyState, Refusal, Severity, TrustedRelease};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::audit::{Audit, record};
use crate::kernel::{Holds, Kernel, KernelDriftStep, KernelError, KernelNotice};
use crate::policy_store::{RecordFault, StoredPolicy};
use crate::store::Store;
use crate::timepiece::Timepiece;

mod accept;
mod grants;
mod startup;

use self::grants::Keeping;

/// How often desired and effective are compared when nothing happens.
pub const TICK: Duration = Duration::from_secs(10);

/// The store, shared by those who keep something in it. Locked only on blocking threads.
pub type SharedStore = Arc<Mutex<Store>>;

/// The newest offer; an older one that was not yet looked at is overtaken.
pub type OfferSlot = watch::Sender<Option<Arc<PolicyOffer>>>;

/// What others may know of the policy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyView {
    /// Effective, staged, refused.
    pub state: PolicyState,
    /// Whether the kernel's table was changed by somebody else.
    pub drift: Drift,
    /// What a person should know.
    pub faults: Vec<Fault>,
    /// The servers whose TLS ends here by the policy in force.
    pub tls_ends: ServerNames,
    /// What is in force.
    pub plan: Option<Arc<Plan>>,
}

/// The one task that changes policy.
pub struct Reconciler<K> {
    kernel: Arc<K>,
    store: SharedStore,
    audit: Audit,
    view: watch::Sender<PolicyView>,
    trust: Option<Trust>,
    /// What should be in the kernel.
    desired: Option<StoredPolicy>,
    /// What is in the kernel, put there by this process.
    effective: Option<StoredPolicy>,
    /// What was in force when the process began, should the newer one fail.
    fallback: Option<StoredPolicy>,
    /// What took effect and is not noted on the disk yet, with what is believed since.
    unnoted: Option<(Digest, Trust)>,
    /// The offer that was refused last: it is not told or recorded again.
    refused: Option<(Digest, Refusal)>,
    /// A good offer that failed for this machine's own reasons (disk, kernel): judged again at each look.
    waiting: Option<Arc<PolicyOffer>>,
    drift: Drift,
    /// Conduits that grants of remote access open.
    keeping: Keeping,
    kernel_fault: Option<Fault>,
    /// What a person should know about the policy in force.
    findings: Vec<Fault>,
    store_faults: Vec<Fault>,
    /// Records of the policy that there are and that cannot be used.
    unusable: Vec<RecordFault>,
    /// What is believed cannot be read: no offer is taken meanwhile, since an older release could pass for a newer one.
    floor_unknown: bool,
}

impl<K: Kernel> Reconciler<K> {
    /// `first_trust` is what the gateway was enrolled with; `None` while it is not enrolled.
    pub fn new(
        kernel: Arc<K>,
        store: SharedStore,
        audit: Audit,
        first_trust: Option<Trust>,
    ) -> (Self, watch::Receiver<PolicyView>) {
        let (view, seen) = watch::channel(PolicyView {
            drift: Drift::None,
            ..PolicyView::default()
        });
        let reconciler = Self {
            kernel,
            store,
            audit,
            view,
            trust: first_trust,
            desired: None,
            effective: None,
            fallback: None,
            unnoted: None,
            refused: None,
            waiting: None,
            drift: Drift::None,
            keeping: Keeping::new(Timepiece::Kernel),
            kernel_fault: None,
            findings: Vec::new(),
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

    /// Runs until `stop` is cancelled; `nudge` asks for a look now. The kernel keeps what it has.
    pub async fn run(
        mut self,
        (slot, mut offers): (OfferSlot, watch::Receiver<Option<Arc<PolicyOffer>>>),
        mut seen: mpsc::Receiver<KernelNotice>,
        nudge: Arc<Notify>,
        stop: CancellationToken,
    ) {
        let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen_open = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    while let Ok(event) = seen.try_recv() {
                        self.observe(event).await;
                    }
                    return;
                }
                changed = offers.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let offered = offers.borrow_and_update().clone();
                    if let Some(offered) = offered {
                        self.consider(Arc::clone(&offered)).await;
                        // It is as large as its plan, and was read; a newer one may have come meanwhile.
                        slot.send_if_modified(|held| {
                            drop(held.take_if(|held| Arc::ptr_eq(held, &offered)));
                            false
                        });
                    }
                    self.give_back().await;
                }
                event = seen.recv(), if seen_open => match event {
                    Some(event) => self.observe(event).await,
                    None => seen_open = false,
                },
                () = self.keeping.due() => self.keep_grants().await,
                () = nudge.notified() => self.look_closely().await,
                _ = tick.tick() => self.look().await,
            }
            self.publish();
        }
    }

    /// Puts the desired policy in force, if it is not.
    async fn bring_about(&mut self, why: &str) {
        let Some(desired) = self.desired.clone() else {
            return;
        };
        if self.is_effective(&desired) {
            return;
        }
        let plan = self.as_of_now(&desired.plan);
        match self.kernel.apply(plan.clone(), desired.mark.revision).await {
            Ok(findings) => {
                self.took_effect(desired, why, &findings).await;
                self.grants_in_force(plan.open.clone()).await;
            }
            Err(error) => {
                self.kernel_failed(&error, desired.mark.revision.0);
                // At start nothing is in the kernel yet: then the policy before is better than none.
                if let (None, Some(fallback)) = (&self.effective, self.fallback.clone())
                    && fallback.statement != desired.statement
                    && let plan = self.as_of_now(&fallback.plan)
                    && let Ok(findings) = self.kernel.apply(plan.clone(), fallback.mark.revision).await
                {
                    let why = "the newer policy could not be put in force";
                    self.took_effect(fallback, why, &findings).await;
                    self.grants_in_force(plan.open.clone()).await;
                }
            }
        }
    }

    async fn took_effect(&mut self, policy: StoredPolicy, why: &str, findings: &[String]) {
        let statement = policy.statement;
        if self.is_desired(&policy) {
            self.kernel_fault = None;
        }
        self.audit.set_revision(policy.mark.revision.0);
        self.audit.record(
            Severity::Notice,
            record::policy("effective", policy.mark.revision.0, policy.mark.plan.0, why),
        );
        for finding in findings {
            self.audit
                .record(Severity::Warning, record::agent("policy-finding", finding));
        }
        // Which interfaces the machine has changes under a plan: health asks it afresh, the trail has what was so now.
        for fault in self.kernel.faults() {
            if !fault.code.ends_with("-missing") {
                continue;
            }
            let words = format!("{}: {}", fault.code, fault.message);
            self.audit
                .record(Severity::Warning, record::agent("policy-finding", &words));
        }
        self.findings = findings
            .iter()
            .map(|finding| Fault {
                code: "policy-finding".to_owned(),
                message: finding.clone(),
                ..Fault::default()
            })
            .collect();
        tracing::info!(revision = %policy.mark.revision, "policy in force");
        let noted = self.fallback.as_ref().map(|fallback| fallback.statement) == Some(statement);
        // The floor never sinks, here or on disk: what was in force before may be put back where a newer policy fails.
        let believed = match self.trust.take() {
            Some(held) if held.floor > policy.trust.floor => held,
            _ => policy.trust.clone(),
        };
        self.trust = Some(believed.clone());
        self.fallback = Some(policy.clone());
        self.effective = Some(policy);
        self.drift = Drift::None;
        // The others learn it before the disk does.
        self.publish();
        if !noted {
            self.note_effective(statement, believed).await;
        }
        self.give_back().await;
    }

    async fn observe(&mut self, seen: KernelNotice) {
        match seen {
            KernelNotice::Event(event) => self.audit.record_event(*event),
            KernelNotice::Record(severity, kind) => self.audit.record(severity, *kind),
            KernelNotice::Lost { events, cause } => {
                let now = crate::clock::now_ms();
                self.audit
                    .record(Severity::Alarm, record::lost(cause, events, now, now));
            }
            KernelNotice::Drift {
                step,
                message,
                process,
            } => {
                let (severity, word, drift) = match step {
                    KernelDriftStep::Found => (Severity::Alarm, "found", Drift::Present),
                    KernelDriftStep::Repaired => (Severity::Notice, "repaired", Drift::Repaired),
                    KernelDriftStep::RepairFailed => (Severity::Alarm, "repair-failed", Drift::Present),
                };
                self.audit
                    .record(severity, record::drift(word, &message, &process));
                self.drift = drift;
            }
        }
    }

    /// The periodic look: retries what failed. The data plane watches for drift by itself.
    async fn look(&mut self) {
        self.refresh_store_faults().await;
        self.take_up_what_is_readable_again().await;
        let _ = self.note_what_is_due().await;
        self.try_waiting().await;
        self.bring_about("").await;
    }

    /// The look that a person asks for: compares the kernel with what was applied, too.
    async fn look_closely(&mut self) {
        self.look().await;
        match self.kernel.verify().await {
            Ok(Holds::AsApplied) if self.drift == Drift::Present => self.drift = Drift::Repaired,
            Ok(Holds::AsApplied) => {}
            Ok(Holds::Drifted(_)) => self.drift = Drift::Present,
            Err(error) => {
                let revision = self.effective.as_ref().map_or(0, |policy| policy.mark.revision.0);
                self.kernel_failed(&error, revision);
            }
        }
    }

    fn kernel_failed(&mut self, error: &KernelError, revision: u64) {
        let fault = Fault {
            code: error.code.to_owned(),
            message: record::bounded(&error.message),
            ..Fault::default()
        };
        // The same failure every ten seconds is one event.
        if self.kernel_fault.as_ref() != Some(&fault) {
            tracing::warn!(code = error.code, revision, "{}", error.message);
            self.audit.record(
                Severity::Alarm,
                record::agent("kernel-failed", &format!("r{revision}: {}", error.message)),
            );
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

    fn publish(&self) {
        let staged = self
            .desired
            .as_ref()
            .filter(|desired| !self.is_effective(desired))
            .map(|policy| policy.mark.into());
        let state = PolicyState {
            effective: self.effective.as_ref().map(|policy| policy.mark.into()),
            staged,
            refused: self.refused.as_ref().map(|(_, refusal)| refusal.clone()),
            trusted: self.trust.as_ref().and_then(|trust| {
                Some(TrustedRelease {
                    revision: trust.floor.0,
                    statement_digest: trust.current?.0.to_vec().into(),
                })
            }),
        };
        let mut faults = self.store_faults.clone();
        faults.extend(self.unusable_faults());
        faults.extend(self.kernel_fault.clone());
        faults.extend(self.findings.iter().cloned());
        self.grant_faults(&mut faults);
        let tls_ends = match self
            .effective
            .as_ref()
            .map(|policy| ServerNames::of_plan(&policy.plan))
        {
            Some(Ok(names)) => names,
            Some(Err(error)) => {
                faults.push(Fault {
                    code: "tls-names".to_owned(),
                    message: record::bounded(&error.to_string()),
                    ..Fault::default()
                });
                ServerNames::default()
            }
            None => ServerNames::default(),
        };
        let view = PolicyView {
            state,
            drift: self.drift,
            faults,
            tls_ends,
            plan: self.effective.as_ref().map(|policy| policy.plan.clone()),
        };
        self.view.send_if_modified(|current| {
            let changed = *current != view;
            *current = view;
            changed
        });
    }

    async fn refresh_store_faults(&mut self) {
        let mended = |store: &mut Store| {
            store.mend();
            store.faults()
        };
        if let Some(faults) = self.with_store(mended).await {
            self.store_faults = faults;
        }
    }

    /// After a change of policy; see [`crate::allocator`].
    async fn give_back(&self) {
        let _ = tokio::task::spawn_blocking(crate::allocator::give_back).await;
    }
}
