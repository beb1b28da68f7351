//! The staged release in its shadow: live traffic is judged by it beside the policy in force, where its order says so.
//!
//! It is there while the release is staged: from an order that says so until the release is in force, another one takes its place, or
//! a later order withdraws it. A release that may be in force and is held keeps the shadow that it had.
//!
//! Not here: how packets and operations are judged by it ([`crate::kernel`]).

use std::time::Duration;

use penstock_policy::ids::Digest;
use penstock_proto::event::AgentStep;
use penstock_proto::v1::Fault;

use super::{Reconciler, TICK, Workplace};
use crate::audit::record;
use crate::kernel::{Kernel, ShadowReport};
use crate::policy_store::StoredPolicy;
use crate::policy_store::journal::Upto;

/// The first look at what it came to; the next ones come at twice the age, until those at each [`TICK`] take over. A short shadow is
/// seen before it is over, and a long one costs no more reports.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// What the reconciler keeps of it.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    /// Whose the kernel was asked for last; `None`: it was not asked by this process, and has perhaps one of an agent before.
    asked: Option<Option<Digest>>,
    /// When it began and when the next look is due, on the boot's clock; `None`: with the next tick.
    due: Option<(Duration, Duration)>,
    /// What it came to at the last look.
    report: Option<ShadowReport>,
    /// Why the kernel did not follow.
    fault: Option<Fault>,
    /// What it is compared with is another one: it begins again.
    again: bool,
}

impl<K: Kernel, W: Workplace> Reconciler<K, W> {
    /// Has the kernel judge live traffic by the staged release, or by none. `looks`: reads what came of it, too, and tries again what
    /// failed.
    pub(super) async fn keep_shadow(&mut self, looks: bool) {
        let wanted = self
            .desired
            .as_ref()
            .filter(|desired| self.is_to_be_shadowed(desired))
            .cloned();
        let statement = wanted.as_ref().map(|policy| policy.statement);
        let tries_again = looks && self.shadow.fault.is_some();
        let again = std::mem::take(&mut self.shadow.again) && statement.is_some();
        if self.shadow.asked != Some(statement) || tries_again || again {
            self.shadow.asked = Some(statement);
            self.shadow.report = None;
            let now = self.keeping.timepiece.now().boot;
            self.shadow.due = statement.map(|_| (now, now + FIRST_LOOK));
            // Grants open it as they do now: one that begins or ends later is not followed.
            let next = wanted.as_ref();
            let next = next.map(|policy| (self.as_of_now(&policy.plan), policy.mark.revision));
            let done = self.kernel.shadow(next).await;
            let fault = done.err().map(|error| Fault {
                code: error.code.to_owned(),
                message: record::bounded(&format!(
                    "live traffic is not judged by the staged release: {}",
                    error.message
                )),
                ..Fault::default()
            });
            match (&fault, &wanted) {
                // The same failure every ten seconds is one event.
                (Some(fault), _) if self.shadow.fault.as_ref() != Some(fault) => {
                    let event = record::agent(AgentStep::KernelFailed, &fault.message);
                    self.audit.note(event);
                }
                (None, Some(policy)) => {
                    let (revision, plan) = (policy.mark.revision.0, policy.mark.plan.0);
                    let event = record::policy("shadow", revision, plan, &policy.order.why);
                    self.audit.note(event);
                }
                _ => {}
            }
            self.shadow.fault = fault;
        }
        let now = self.keeping.timepiece.now().boot;
        let is_early = self.shadow.due.take_if(|(_, due)| *due <= now);
        if let Some((began, _)) = is_early {
            let next = now + (now.saturating_sub(began));
            self.shadow.due = (next < began + TICK).then_some((began, next));
        }
        if (looks || is_early.is_some()) && self.is_shadowed() {
            self.shadow.report = self.kernel.shadowed().await;
        }
    }

    /// When to look at it again, on the boot's clock; `None`: with the next tick.
    pub(super) fn shadow_due(&self) -> Option<Duration> {
        self.shadow.due.map(|(_, due)| due)
    }

    /// Overrides changed what both are.
    pub(super) fn shadow_again(&mut self) {
        self.shadow.again = true;
    }

    fn is_to_be_shadowed(&self, desired: &StoredPolicy) -> bool {
        let has_shadow = self.shadow.asked == Some(Some(desired.statement));
        match desired.order.upto {
            _ if self.is_effective(desired) || self.is_on_trial(desired.statement) => false,
            Upto::Staged => false,
            Upto::Shadow => true,
            Upto::Active => has_shadow,
        }
    }

    /// Whether the kernel judges by the staged release beside the policy in force.
    pub(super) fn is_shadowed(&self) -> bool {
        matches!(self.shadow.asked, Some(Some(_))) && self.shadow.fault.is_none()
    }

    /// What came of the shadow of this release, as of the last look.
    pub(super) fn shadow_report(&self, statement: Digest) -> Option<&ShadowReport> {
        let is_its = self.shadow.asked == Some(Some(statement));
        self.shadow.report.as_ref().filter(|_| is_its)
    }

    /// What health shows of it.
    pub(super) fn shadow_fault(&self) -> Option<Fault> {
        self.shadow.fault.clone()
    }
}
