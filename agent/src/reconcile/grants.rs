//! Opens and closes the conduits that grants of remote access open, as `crate::grants` says, and reports it; and what a plan is in the
//! kernel: with its grants of now, and what people override of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::{ConduitId, Revision};
use penstock_policy::plan::Plan;
use penstock_proto::event::AgentStep;
use penstock_proto::fault::FLOWS_MAX;
use penstock_proto::v1::Fault;

use super::{Reconciler, Workplace};
use crate::audit::record;
use crate::grants::{Grants, GrantsReport, LOOK};
use crate::kernel::{Kernel, KernelError};
use crate::timepiece::Timepiece;

/// By how much what the kernel was told may differ from what is left, before it is told again.
const SLACK: Duration = Duration::from_millis(250);

/// Grants, and conduits that wait, in health at most: a report has room for faults, too.
const SHOWN_MAX: usize = 8;

/// What the reconciler keeps of grants.
#[derive(Debug)]
pub(super) struct Keeping {
    pub(super) timepiece: Timepiece,
    grants: Grants,
    /// What the last look came to.
    look: GrantsReport,
    /// The conduits that are open in the kernel.
    open: BTreeSet<ConduitId>,
    /// When they end, as the kernel was told, on the clock that nobody sets.
    ends: BTreeMap<ConduitId, Duration>,
    /// When to look again, on that clock.
    due: Option<Duration>,
    /// Why the kernel did not follow.
    fault: Option<Fault>,
}

impl Keeping {
    pub(super) fn new(timepiece: Timepiece) -> Self {
        Self {
            timepiece,
            grants: Grants::default(),
            look: GrantsReport::default(),
            open: BTreeSet::new(),
            ends: BTreeMap::new(),
            due: None,
            fault: None,
        }
    }
}

impl<K: Kernel, W: Workplace> Reconciler<K, W> {
    /// How long until it is time for [`super::Occasion::Due`]; `None`: nothing changes by itself.
    pub fn due(&self) -> Option<Duration> {
        let now = self.keeping.timepiece.now();
        let dues = [
            self.keeping.due,
            self.change_due,
            self.overriding.due(now),
            self.shadow_due(),
        ];
        Some(dues.into_iter().flatten().min()?.saturating_sub(now.boot))
    }

    /// `plan` as it would be in the kernel now.
    pub(super) fn as_of_now(&self, plan: &Arc<Plan>) -> Arc<Plan> {
        opening(&self.as_overridden(plan), &self.look_at(plan))
    }

    /// The same for the plan that the kernel is asked to hold next: it hears how long its grants last before its tables judge.
    pub(super) fn as_applied_now(&self, plan: &Arc<Plan>) -> Arc<Plan> {
        let look = self.look_at(plan);
        self.kernel.foretell(look.open.clone());
        opening(&self.as_overridden(plan), &look)
    }

    fn look_at(&self, plan: &Plan) -> GrantsReport {
        let now = self.keeping.timepiece.now();
        self.keeping.grants.clone().look(plan, now)
    }

    /// The kernel took the plan in force, with these of its conduits open.
    pub(super) async fn grants_in_force(&mut self, open: BTreeSet<ConduitId>) {
        self.keeping.open = open;
        self.keeping.ends.clear();
        self.keep_grants().await;
    }

    /// Looks at the clock: opens and closes what is due.
    pub(super) async fn keep_grants(&mut self) {
        let Some(effective) = self.effective.clone() else {
            self.keeping.due = None;
            return;
        };
        let now = self.keeping.timepiece.now();
        if self.in_doubt {
            // What the kernel holds is settled first, and recorded. Grants end meanwhile as the kernel was asked to end them.
            self.keeping.due = Some(now.boot + LOOK);
            return;
        }
        let before = self.keeping.grants.clone();
        let mut look = self.keeping.grants.look(&effective.plan, now);
        self.keeping.due = look.again.map(|again| now.boot + again);
        let news = std::mem::take(&mut look.news);
        let done = self
            .bring_about_grants(&effective.plan, effective.mark.revision, &look, now.boot)
            .await;
        if done.is_ok() {
            for news in news {
                tracing::info!(step = news.step.word(), "{}", news.message);
                self.audit.note(record::agent(news.step, &news.message));
            }
            self.keeping.look = look;
        } else {
            // Nothing of it is true yet, and it is tried again, also where nothing else would change any more.
            self.keeping.grants.undo(before);
            self.keeping.due = Some(self.keeping.timepiece.now().boot + LOOK);
        }
        let fault = done.err().map(|error| {
            let message = format!(
                "a conduit could not be opened or closed as its grant says: {}",
                error.message
            );
            Fault::new(AgentStep::RemoteAccessFailed.word(), record::bounded(&message))
        });
        // The same failure each second is one event.
        if let Some(fault) = fault
            .as_ref()
            .filter(|fault| self.keeping.fault.as_ref() != Some(fault))
        {
            self.audit
                .note(record::agent(AgentStep::RemoteAccessFailed, &fault.message));
        }
        self.keeping.fault = fault;
    }

    async fn bring_about_grants(
        &mut self,
        plan: &Arc<Plan>,
        revision: Revision,
        look: &GrantsReport,
        boot: Duration,
    ) -> Result<(), KernelError> {
        if !look.open.keys().eq(&self.keeping.open) {
            let plan = opening(&self.as_overridden(plan), look);
            self.kernel.foretell(look.open.clone());
            self.kernel.apply(Arc::clone(&plan), revision).await?;
            self.keeping.open.clone_from(&plan.open);
            self.overriding.in_kernel();
        }
        let ends: BTreeMap<ConduitId, Duration> = look
            .open
            .iter()
            .map(|(conduit, left)| (conduit.clone(), boot + *left))
            .collect();
        let is_told = |(conduit, end): (&ConduitId, &Duration)| {
            let told = self.keeping.ends.get(conduit);
            told.is_some_and(|told| told.abs_diff(*end) <= SLACK)
        };
        if ends.len() != self.keeping.ends.len() || !ends.iter().all(is_told) {
            // Opening may have taken long: what is left now is passed on, not what was left then.
            let now = self.keeping.timepiece.now().boot;
            let left = ends
                .iter()
                .map(|(conduit, end)| (conduit.clone(), end.saturating_sub(now)));
            self.kernel.hold_open(left.collect()).await?;
            self.keeping.ends = ends;
        }
        Ok(())
    }

    /// What health shows of grants.
    pub(super) fn grant_faults(&self, faults: &mut Vec<Fault>) {
        let Some(effective) = &self.effective else { return };
        let flows = |conduit: &ConduitId| {
            let rules = effective
                .plan
                .rules
                .iter()
                .filter(|rule| rule.conduit == *conduit);
            let names = rules.map(|rule| format!("{}/{}", rule.conduit, rule.flow));
            names.take(FLOWS_MAX).collect::<Vec<_>>()
        };
        faults.extend(self.keeping.fault.clone());
        for open in self.keeping.look.shown.iter().take(SHOWN_MAX) {
            faults.push(Fault {
                flows: flows(&open.conduit),
                ..Fault::new("remote-access", record::bounded(&open.message))
            });
        }
        let more = self.keeping.look.shown.len().saturating_sub(SHOWN_MAX);
        if more > 0 {
            let message = format!("{more} more grants of remote access have opened their conduits");
            faults.push(Fault::new("remote-access", message));
        }
        for conduit in self.keeping.look.waiting.iter().take(SHOWN_MAX) {
            let message = format!(
                "conduit {conduit} stays closed: this gateway's clock is not synchronised, so that no grant of remote access opens \
                 it; check the time service (NTP, PTP) of this machine. Other conduits do not need the clock"
            );
            faults.push(Fault {
                flows: flows(conduit),
                ..Fault::new("remote-access-clock", message)
            });
        }
    }
}

fn opening(plan: &Arc<Plan>, look: &GrantsReport) -> Arc<Plan> {
    if plan.grants.is_empty() {
        return Arc::clone(plan);
    }
    Arc::new(plan.opening(look.open.keys().cloned().collect()))
}
