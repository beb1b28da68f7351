//! What others may know of the policy: put together from all that the reconciler holds, whenever something changed.

use std::sync::Arc;

use penstock_policy::plan::Plan;
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1::{Drift, Fault, PolicyState, TrustedRelease};

use super::trial::Hold;
use super::{Reconciler, Standing, Workplace};
use crate::kernel::Kernel;
use crate::overrides::ShownOverride;
use crate::policy_store::journal::{PersonHold, RevertedRelease};

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
    /// How far the newest release is.
    pub standing: Standing,
    /// The release that `standing` is about is staged because its order goes no further.
    pub waits_for_order: bool,
    /// A person holds this gateway.
    pub hold: Option<PersonHold>,
    /// Releases that are refused until a person clears them.
    pub reverted: Vec<RevertedRelease>,
    /// The trial that runs confirms itself at its end.
    pub confirms_itself: bool,
    /// Overrides that last.
    pub overrides: Vec<ShownOverride>,
}

impl<K: Kernel, W: Workplace> Reconciler<K, W> {
    pub(super) fn publish(&self) {
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
            standing: None,
        };
        let mut faults = self.store_faults.clone();
        faults.extend(self.unusable_faults());
        faults.extend(self.kernel_fault.iter().map(|(_, fault)| fault.clone()));
        faults.extend(self.shadow_fault());
        faults.extend(self.findings.iter().cloned());
        self.grant_faults(&mut faults);
        let overrides = self.shown_overrides();
        self.override_faults(&overrides, &mut faults);
        let view = PolicyView {
            state,
            drift: self.drift,
            faults,
            tls_ends: self.tls_ends.clone(),
            plan: self.effective.as_ref().map(|policy| policy.plan.clone()),
            standing: self.standing(),
            waits_for_order: self.held == Some(Hold::Order),
            hold: self.journal.hold.clone(),
            reverted: self.journal.reverted.clone(),
            confirms_itself: self.trial.as_ref().is_some_and(|trial| trial.record.islanded),
            overrides,
        };
        self.view.send_if_modified(|current| {
            let changed = *current != view;
            *current = view;
            changed
        });
    }
}
