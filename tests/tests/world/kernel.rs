//! A gateway's kernel: one table, changed whole or not at all, which outlives the agent and not the machine. It refuses plans for a
//! while, at the check or only when it has to hold them. What grants open it ends by itself, when it was told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use penstock_agent::kernel::{Holds, Kernel, KernelError};
use penstock_policy::ids::{ConduitId, FlowId, Revision};
use penstock_policy::plan::{Capability, Plan, Rule};
use penstock_proto::v1::KernelCounters;

use super::life::Life;
use super::plant;

/// What happened to a kernel, for the checkers.
#[derive(Debug, Clone)]
pub(crate) enum KernelChange {
    /// It holds this plan, which it was given under this revision, from now on.
    Holds(Arc<Plan>, u64),
    /// It holds this plan, and whoever asked for it does not know.
    HoldsUnknown(Arc<Plan>, u64),
    /// It holds no policy, as before the first.
    Withdrawn,
    /// It was asked to hold this revision, and could not.
    Refused(u64),
    /// The machine was started again, and no rules but those of the boot stand.
    Booted,
    /// An agent started.
    Started,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) table: Option<(Arc<Plan>, u64)>,
    pub(crate) changes: Vec<KernelChange>,
    /// Until when it lets flows pass that hang on grants. A change of the plan leaves it as it is, or empty where all is replaced.
    granted: BTreeMap<FlowId, Duration>,
    /// Refuses to check and to apply.
    pub(crate) fails_until: Duration,
    /// Takes the check, and refuses to apply.
    pub(crate) fails_late_until: Duration,
    /// What it refuses late, it perhaps took: nobody knows.
    pub(crate) doubts: bool,
    /// Refuses this revision for a while.
    pub(crate) rejects: (u64, Duration),
    /// From its next agent's start on it refuses the newest that it held.
    pub(crate) rejects_next: bool,
}

impl Table {
    /// Whether it takes any plan.
    pub(crate) fn works(&self, now: Duration) -> bool {
        !self.refuses(now)
    }

    /// Until when the conduit of grants passes, if nobody changes anything.
    pub(crate) fn passes_until(&self) -> Option<Duration> {
        let (plan, _) = self.table.as_ref()?;
        let is_open = plan.open.contains(&plant::granted_conduit());
        is_open
            .then(|| self.granted.get(&plant::GRANTED_FLOW).copied())
            .flatten()
    }

    /// Whether what fails now may have come to its end all the same.
    fn is_doubtful(&self, now: Duration) -> bool {
        self.doubts && now >= self.fails_until.max(self.rejects.1) && now < self.fails_late_until
    }

    /// Whether it takes changes of what it holds at all.
    pub(crate) fn refuses(&self, now: Duration) -> bool {
        now < self.fails_until.max(self.fails_late_until).max(self.rejects.1)
    }

    /// An agent starts; what it may reject, it does so until then.
    pub(crate) fn start(&mut self, rejects_until: Duration) {
        if std::mem::take(&mut self.rejects_next) {
            let held = self.changes.iter().filter_map(|change| match change {
                KernelChange::Holds(_, revision) | KernelChange::HoldsUnknown(_, revision) => Some(*revision),
                _ => None,
            });
            self.rejects = (held.max().unwrap_or_default(), rejects_until);
        }
        self.changes.push(KernelChange::Started);
    }

    pub(crate) fn boot(&mut self) {
        self.table = None;
        self.granted.clear();
        self.changes.push(KernelChange::Booted);
    }
}

/// The kernel as one agent has it.
#[derive(Clone)]
pub(crate) struct Reached {
    pub(crate) kernel: Arc<Mutex<Table>>,
    pub(crate) life: Life,
}

fn answer(fails: bool) -> Result<(), KernelError> {
    match fails {
        true => Err(KernelError {
            code: "kernel-failed",
            message: "no memory".to_owned(),
            in_doubt: false,
        }),
        false => Ok(()),
    }
}

impl Kernel for Reached {
    fn capabilities(&self) -> BTreeSet<Capability> {
        [Capability::KERNEL, Capability::REMOTE_ACCESS]
            .map(|name| Capability(name.to_owned()))
            .into()
    }

    async fn check(&self, _: Arc<Plan>) -> Result<(), KernelError> {
        self.life.at_a_seam().await;
        let fails = self.life.now() < self.kernel.lock().unwrap().fails_until;
        answer(fails)
    }

    async fn apply(&self, plan: Arc<Plan>, revision: Revision) -> Result<Vec<String>, KernelError> {
        self.life.at_a_seam().await;
        let result = {
            let mut kernel = self.kernel.lock().unwrap();
            let now = self.life.now();
            let rejects = kernel.rejects.0 == revision.0 && now < kernel.rejects.1;
            let fails = rejects || now < kernel.fails_until.max(kernel.fails_late_until);
            let in_doubt = fails && kernel.is_doubtful(now);
            // One half of what is in doubt was taken.
            let is_taken = in_doubt && kernel.changes.len().is_multiple_of(2);
            if fails {
                kernel.changes.push(KernelChange::Refused(revision.0));
            }
            if !fails || is_taken {
                kernel.table = Some((plan.clone(), revision.0));
                let flows: BTreeSet<_> = plan.rules.iter().map(|rule| rule.id).collect();
                let all_replaced = self.life.once_in(4);
                kernel
                    .granted
                    .retain(|flow, _| !all_replaced && flows.contains(flow));
                kernel.changes.push(match in_doubt {
                    true => KernelChange::HoldsUnknown(plan, revision.0),
                    false => KernelChange::Holds(plan, revision.0),
                });
            }
            answer(fails).map_err(|error| KernelError { in_doubt, ..error })
        };
        self.life.at_a_seam().await;
        result.map(|()| Vec::new())
    }

    async fn withdraw(&self, _: &str) -> Result<(), KernelError> {
        self.life.at_a_seam().await;
        let result = {
            let mut kernel = self.kernel.lock().unwrap();
            let now = self.life.now();
            let fails = now < kernel.fails_until.max(kernel.fails_late_until);
            let in_doubt = fails && kernel.is_doubtful(now);
            if !fails || in_doubt {
                kernel.table = None;
                kernel.granted.clear();
                kernel.changes.push(KernelChange::Withdrawn);
            }
            answer(fails).map_err(|error| KernelError { in_doubt, ..error })
        };
        self.life.at_a_seam().await;
        result
    }

    async fn hold_open(&self, left: BTreeMap<ConduitId, Duration>) -> Result<(), KernelError> {
        self.life.at_a_seam().await;
        let result = {
            let mut kernel = self.kernel.lock().unwrap();
            let now = self.life.now();
            let fails = now < kernel.fails_until.max(kernel.fails_late_until);
            if !fails && let Some((plan, _)) = &kernel.table {
                let ends = |rule: &Rule| Some((rule.id, now + *left.get(&rule.conduit)?));
                kernel.granted = plan.rules.iter().filter_map(ends).collect();
            }
            answer(fails)
        };
        self.life.at_a_seam().await;
        result
    }

    async fn verify(&self) -> Result<Holds, KernelError> {
        self.life.at_a_seam().await;
        Ok(Holds::AsApplied)
    }

    async fn counters(&self) -> Result<KernelCounters, KernelError> {
        Ok(KernelCounters::default())
    }
}
