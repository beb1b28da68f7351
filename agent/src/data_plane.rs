//! The real kernel behind [`crate::kernel::Kernel`]: `enforce` on one side, the reconciler and the trail on the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::{ConduitId, Revision};
use penstock_policy::plan::{Capability, Plan};
use penstock_policy::text;
use penstock_policy::verdict::Decision;
use penstock_proto::fault::ZONES_MAX;
use penstock_proto::v1::LearnedRange;
use penstock_proto::v1::{
    self, AuditEvent, Fault, KernelCounters, OperationEvent, Severity, VerdictEvent, audit_event::Kind,
};
use tokio::sync::mpsc;

use crate::audit::record;
use crate::clock;
use crate::enforce::{DriftState, EnforceError, Enforcer};
use crate::identity::Identity;
use crate::kernel::{Holds, Kernel, KernelDriftStep, KernelError, KernelNotice, LeftState};
use crate::observed::{
    Condition, ConditionSeen, ConditionStep, DriftStep, LossCause, Observation, OperationSeen, Subject,
    VerdictSeen,
};
use crate::service_manager::ServiceManager;

/// Observations that may wait on their way to the reconciler.
pub const OBSERVED_MAX: usize = 1024;

impl Kernel for Enforcer {
    fn capabilities(&self) -> BTreeSet<Capability> {
        Self::capabilities(self)
    }

    async fn check(&self, plan: Arc<Plan>) -> Result<(), KernelError> {
        Self::check(self, plan).await.map_err(|error| refused(&error))
    }

    async fn apply(&self, plan: Arc<Plan>, revision: Revision) -> Result<Vec<String>, KernelError> {
        let applied = Self::apply(self, plan, revision)
            .await
            .map_err(|error| refused(&error))?;
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

    async fn hold_open(&self, left: BTreeMap<ConduitId, Duration>) -> Result<(), KernelError> {
        Self::hold_open(self, left).await.map_err(|error| refused(&error))
    }

    async fn verify(&self) -> Result<Holds, KernelError> {
        Ok(match Self::verify(self).await.map_err(|error| refused(&error))? {
            DriftState::None | DriftState::NoPlan | DriftState::Repaired(_) => Holds::AsApplied,
            DriftState::Present(message) => Holds::Drifted(message),
        })
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
        let conditions = self.conditions().into_iter().map(fault_of);
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

    async fn hand_over(&self, manager: &ServiceManager) {
        Self::hand_over(self, manager).await;
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

fn refused(error: &EnforceError) -> KernelError {
    let message = text::sentence(error);
    KernelError {
        code: match error {
            EnforceError::Lower(_) | EnforceError::Operations(_) => "plan-not-enforceable",
            EnforceError::Structure(_) => "interfaces-not-guardable",
            EnforceError::NoBridgeFilter | EnforceError::BridgeParameter(_) => "bridge-not-filtered",
            EnforceError::Routing(_) | EnforceError::NoInterception { .. } => "inspector-not-reachable",
            EnforceError::Kernel(_)
            | EnforceError::ReadBack(_)
            | EnforceError::Interrupted(_)
            | EnforceError::Socket(_) => "kernel-failed",
        },
        message,
    }
}

/// Hands on what the data plane saw, as events for the trail. Ends with its sender.
pub async fn tell(mut observed: mpsc::Receiver<Observation>, seen: mpsc::Sender<KernelNotice>) {
    while let Some(observed) = observed.recv().await {
        let what = match observed {
            Observation::Verdict(verdict) => KernelNotice::Event(Box::new(verdict_event(verdict))),
            Observation::Operation(seen) => KernelNotice::Event(Box::new(operation_event(*seen))),
            Observation::Drift {
                step,
                message,
                process,
            } => KernelNotice::Drift {
                step: match step {
                    DriftStep::Found => KernelDriftStep::Found,
                    DriftStep::Repaired => KernelDriftStep::Repaired,
                    DriftStep::RepairFailed => KernelDriftStep::RepairFailed,
                },
                message,
                process: process.unwrap_or_default(),
            },
            Observation::Condition(seen) => condition_event(*seen),
            Observation::Start {
                step,
                message,
                unusual,
            } => {
                let severity = if unusual { Severity::Notice } else { Severity::Info };
                KernelNotice::Record(severity, Box::new(record::agent(step, &message)))
            }
            Observation::Lost { packets, cause } => KernelNotice::Lost {
                events: packets,
                cause: match cause {
                    LossCause::RateLimit => "kernel-rate-limit",
                    LossCause::KernelOverrun => "kernel-overrun",
                    LossCause::NobodyListened => "agent-away",
                    LossCause::TableFull => "aggregation-full",
                    LossCause::ReceiverSlow => "queue-full",
                },
            },
        };
        if seen.send(what).await.is_err() {
            return;
        }
    }
}

/// A condition as a fault that health shows.
fn fault_of(condition: Condition) -> Fault {
    let mut zones: Vec<String> = condition.zones.iter().map(ToString::to_string).collect();
    if zones.len() > ZONES_MAX {
        zones.clear();
    }
    Fault {
        code: condition.code.to_owned(),
        message: record::bounded(&condition.message),
        zones,
        flows: condition.flows,
        further_flows: condition.further_flows,
    }
}

fn condition_event(seen: ConditionSeen) -> KernelNotice {
    let alarm = seen.condition.alarm;
    let (step, severity) = match seen.step {
        ConditionStep::Began if alarm => ("began", Severity::Alarm),
        ConditionStep::Began => ("began", Severity::Warning),
        ConditionStep::Ended => ("ended", Severity::Notice),
        ConditionStep::Found if alarm => ("found", Severity::Alarm),
        ConditionStep::Found => ("found", Severity::Warning),
    };
    let kind = record::fault(step, &fault_of(seen.condition), seen.first_ms, seen.last_ms);
    KernelNotice::Record(severity, Box::new(kind))
}

fn operation_event(seen: OperationSeen) -> AuditEvent {
    let (decision, severity) = match (seen.subject, seen.decision) {
        (_, Some(Decision::Deny)) => (v1::Decision::Deny, Severity::Warning),
        (_, Some(Decision::WouldDeny)) => (v1::Decision::WouldDeny, Severity::Notice),
        (_, Some(Decision::Allow | Decision::NotGuarded)) => (v1::Decision::Allow, Severity::Info),
        (Subject::Session, None) => (v1::Decision::Unspecified, Severity::Info),
        (Subject::Note | Subject::Operation, None) => (v1::Decision::Unspecified, Severity::Notice),
    };
    let (flow_id, flow) = seen
        .flow
        .map_or((0, String::new()), |flow| (flow.id.0, flow.name));
    let protocol = seen.protocol.map_or("", |protocol| protocol.vocabulary().word);
    let event = OperationEvent {
        subject: match seen.subject {
            Subject::Operation => "operation",
            Subject::Note => "note",
            Subject::Session => "session",
        }
        .to_owned(),
        decision: decision.into(),
        operation: record::bounded(&seen.text),
        reason: record::bounded(&seen.reason),
        flow_id,
        flow,
        protocol: protocol.to_owned(),
        client: seen.client.to_string(),
        client_name: seen.client_name,
        server: seen.server.ip().to_string(),
        server_name: seen.server_name,
        port: u32::from(seen.server.port()),
        count: seen.count,
        first_ms: seen.first_ms,
        last_ms: seen.last_ms,
        values: seen.values.map(LearnedRange::from),
    };
    record::event(seen.last_ms, severity, seen.revision.0, Kind::Operation(event))
}

fn verdict_event(seen: VerdictSeen) -> AuditEvent {
    let (decision, severity) = match seen.decision {
        Decision::Allow | Decision::NotGuarded => (v1::Decision::Allow, Severity::Info),
        Decision::Deny => (v1::Decision::Deny, Severity::Warning),
        Decision::WouldDeny => (v1::Decision::WouldDeny, Severity::Notice),
    };
    let address = |address: Option<std::net::IpAddr>| address.map_or_else(String::new, |a| a.to_string());
    let event = VerdictEvent {
        decision: decision.into(),
        flow_id: seen.flow_id.map_or(0, |id| id.0),
        flow: seen.flow.unwrap_or_default(),
        ingress: record::bounded(&seen.ingress),
        egress: record::bounded(&seen.egress),
        source: address(seen.source),
        destination: address(seen.destination),
        protocol: u32::from(seen.protocol),
        port: u32::from(seen.port),
        count: seen.count,
        first_ms: seen.first_ms,
        last_ms: seen.last_ms,
        reason: record::bounded(&seen.reason),
    };
    let time_ms = if seen.last_ms == 0 {
        clock::now_ms()
    } else {
        seen.last_ms
    };
    record::event(time_ms, severity, seen.revision.0, Kind::Verdict(event))
}
