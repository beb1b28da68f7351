//! The real kernel behind [`crate::kernel::Kernel`]: `enforce` on one side, the reconciler on the other. What happens there goes
//! straight to the trail (`observed`); the reconciler sees how things stand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::{ConduitId, Revision};
use penstock_policy::plan::{Capability, Plan};
use penstock_policy::text;
use penstock_proto::v1::{Fault, KernelCounters};
use penstock_proto::withdrawn::Withdrawn;
use tokio::sync::watch;

use crate::enforce::{DriftState, EnforceError, Enforcer};
use crate::identity::Identity;
use crate::kernel::{FlowRhythm, Holds, Kernel, KernelError, LeftState, ShadowReport};
use crate::observed::sides::Refusals;
use crate::observed::{DriftStep, fault_of};
use crate::service_manager::ServiceManager;

impl Kernel for Enforcer {
    fn capabilities(&self) -> BTreeSet<Capability> {
        Self::capabilities(self)
    }

    async fn check(&self, plan: Arc<Plan>) -> Result<(), KernelError> {
        Self::check(self, plan)
            .await
            .map_err(|error| not_in_force(&error, false))
    }

    async fn apply(&self, plan: Arc<Plan>, revision: Revision) -> Result<Vec<String>, KernelError> {
        let applied = match Self::apply(self, plan, revision).await {
            Ok(applied) => applied,
            Err(error) => return Err(not_in_force(&error, self.is_in_doubt().await)),
        };
        tracing::info!(
            %revision, change = ?applied.change, elements = applied.elements, took = ?applied.took,
            "the kernel holds the plan"
        );
        Ok(applied
            .findings
            .into_iter()
            .filter(|finding| !Self::is_looked_at(finding.code))
            .map(|finding| format!("{}: {}", finding.code, finding.message))
            .collect())
    }

    async fn shadow(&self, next: Option<(Arc<Plan>, Revision)>) -> Result<(), KernelError> {
        Self::shadow(self, next).await.map_err(|error| refused(&error))
    }

    async fn shadowed(&self) -> Option<ShadowReport> {
        Self::shadowed(self).await
    }

    async fn ground(&self, plan: Arc<Plan>) -> Result<String, KernelError> {
        Self::ground(self, plan).await.map_err(|error| refused(&error))
    }

    async fn withdraw(&self, ground: &str) -> Result<(), KernelError> {
        match Self::withdraw(self, ground).await {
            Ok(()) => Ok(()),
            Err(error) => Err(KernelError {
                in_doubt: self.is_in_doubt().await,
                ..refused(&error)
            }),
        }
    }

    fn foretell(&self, left: BTreeMap<ConduitId, Duration>) {
        Self::foretell(self, left);
    }

    async fn hold_open(&self, left: BTreeMap<ConduitId, Duration>) -> Result<(), KernelError> {
        Self::hold_open(self, left).await.map_err(|error| refused(&error))
    }

    async fn keep_head(&self, head: String) -> Result<bool, KernelError> {
        Self::keep_head(self, &head)
            .await
            .map_err(|error| refused(&error))
    }

    async fn kept_head(&self) -> Option<String> {
        let kept = Self::kept_head(self).await;
        kept.unwrap_or_else(|error| {
            tracing::warn!(error = %text::sentence(&error), "the kernel was not asked for the head of the audit trail");
            None
        })
    }

    async fn verify(&self) -> Result<Holds, KernelError> {
        Ok(match Self::verify(self).await.map_err(|error| refused(&error))? {
            DriftState::None | DriftState::NoPlan | DriftState::Repaired(_) => Holds::AsApplied,
            DriftState::Present(message) => Holds::Drifted(message),
        })
    }

    fn drift(&self) -> watch::Receiver<Option<DriftStep>> {
        Self::drift(self)
    }

    fn faults(&self) -> Vec<Fault> {
        let inspector = self.inspector_fault().map(|message| Fault {
            code: "inspector-failed".to_owned(),
            message: message.to_owned(),
            ..Fault::default()
        });
        let shortage = self.inspector_shortage().map(|message| Fault {
            code: "inspector-full".to_owned(),
            message,
            ..Fault::default()
        });
        let identity = self.identity_fault().map(|fault| Fault {
            code: fault.code.to_owned(),
            message: fault.message,
            ..Fault::default()
        });
        let standing = self.stood_open().into_iter().chain(self.differs());
        let standing = standing.map(|finding| Fault::new(finding.code, finding.message));
        let missing = self.missing_management();
        let missing = missing.map(|finding| Fault::new(finding.code, finding.message));
        let conditions = self
            .conditions()
            .into_iter()
            .map(|condition| fault_of(&condition));
        let foretold = self.foretold().map(|message| Fault {
            code: "not-ready-to-enforce".to_owned(),
            message,
            ..Fault::default()
        });
        inspector
            .into_iter()
            .chain(standing)
            .chain(conditions)
            .chain(shortage)
            .chain(identity)
            .chain(missing)
            .chain(foretold)
            .collect()
    }

    fn carries(&self) -> bool {
        Self::carries(self)
    }

    async fn leave(&self) -> LeftState {
        match Self::leave(self).await {
            Ok(DriftState::NoPlan) => LeftState::Nothing,
            Ok(DriftState::None) => LeftState::Policy,
            Ok(DriftState::Repaired(message)) => LeftState::Repaired(message),
            Ok(DriftState::Present(message)) => LeftState::Differing(message),
            Err(error) => LeftState::Unknown(refused(&error).message),
        }
    }

    fn identify(&self, identity: Option<Arc<Identity>>) {
        Self::identify(self, identity);
    }

    async fn heed(&self, withdrawn: Arc<Withdrawn>) {
        Self::heed(self, withdrawn).await;
    }

    async fn hand_over(&self, manager: &ServiceManager) {
        Self::hand_over(self, manager).await;
    }

    fn refusals(&self) -> BTreeMap<String, Refusals> {
        Self::refusals(self)
    }

    fn must_flows(&self) -> Vec<FlowRhythm> {
        Self::must_flows(self)
    }

    async fn counters(&self) -> Result<KernelCounters, KernelError> {
        let counters = Self::counters(self).await.map_err(|error| refused(&error))?;
        Ok(KernelCounters {
            allowed_packets: counters.allowed_packets,
            denied_packets: counters
                .denied_packets
                .saturating_add(counters.input_denied_packets)
                .saturating_add(counters.uninspected_packets)
                .saturating_add(counters.stray_packets),
            would_deny_packets: counters.would_deny_packets,
            allowed_bytes: counters.allowed_bytes,
            inspected_connections: counters.inspected_connections,
            denied_operations: counters.denied_operations,
            would_deny_operations: counters.would_deny_operations,
        })
    }
}

/// Why a plan is not in force, and what is instead.
fn not_in_force(error: &EnforceError, in_doubt: bool) -> KernelError {
    let KernelError { code, message, .. } = refused(error);
    let rules = if in_doubt {
        "it is not known yet whether the kernel holds the previous rules or the new ones"
    } else {
        "the previous rules stay in force"
    };
    KernelError {
        code,
        message: format!("{message}; {rules}"),
        in_doubt,
    }
}

fn refused(error: &EnforceError) -> KernelError {
    let message = text::sentence(error);
    KernelError {
        code: match error {
            EnforceError::Lower(_) | EnforceError::Operations(_) => "plan-not-enforceable",
            EnforceError::Structure(_) => "interfaces-not-guardable",
            EnforceError::NoBridgeFilter | EnforceError::BridgeParameter(_) => "bridge-not-filtered",
            EnforceError::Routing(_) | EnforceError::NoInterception { .. } => "inspector-not-reachable",
            EnforceError::Base(_) | EnforceError::Ground(_) => "not-withdrawn",
            EnforceError::Kernel(_)
            | EnforceError::ReadBack(_)
            | EnforceError::Interrupted(_)
            | EnforceError::Socket(_) => "kernel-failed",
        },
        message,
        in_doubt: false,
    }
}
