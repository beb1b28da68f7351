//! What was observed, as the event that stands in the trail. Pure, but for the time of what happens now.

use std::net::IpAddr;

use penstock_policy::terms::Proof;
use penstock_policy::verdict::Decision;
use penstock_proto::event::Described as _;
use penstock_proto::fault::ZONES_MAX;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{self, AuditEvent, Fault, LearnedRange, OperationEvent, Severity, VerdictEvent};

use super::outbox::Sink;
use super::{
    Condition, ConditionSeen, ConditionStep, DriftStep, LossCause, Observation, OperationSeen, Subject,
    VerdictSeen,
};
use crate::audit::{Audit, record};
use crate::clock;

impl Sink for Audit {
    fn offer(&self, observed: &Observation) -> Option<u64> {
        self.offer_event(|| self.event_of(observed))
    }

    fn settled(&self) -> u64 {
        self.settled()
    }
}

impl Audit {
    fn event_of(&self, observed: &Observation) -> AuditEvent {
        match observed {
            Observation::Verdict(seen) => verdict_event(seen),
            Observation::Operation(seen) => operation_event(seen),
            Observation::Drift {
                step,
                message,
                process,
            } => {
                let process = process.as_deref().unwrap_or_default();
                self.now(record::drift(drift_word(*step), message, process))
            }
            Observation::Condition(seen) => self.condition_event(seen),
            Observation::Start {
                step,
                message,
                unusual,
            } => {
                let least = if *unusual {
                    Severity::Notice
                } else {
                    Severity::Info
                };
                self.now_at_least(least, record::agent(step, message))
            }
            Observation::Lost { packets, cause } => {
                let now = clock::now_ms();
                self.now(record::lost(loss_word(*cause), *packets, now, now))
            }
        }
    }

    fn condition_event(&self, seen: &ConditionSeen) -> AuditEvent {
        let (step, lasts) = match seen.step {
            ConditionStep::Began => ("began", true),
            ConditionStep::Ended => ("ended", false),
            ConditionStep::Found => ("found", true),
        };
        let least = if seen.condition.alarm && lasts {
            Severity::Alarm
        } else {
            Severity::Info
        };
        let fault = fault_of(&seen.condition);
        self.now_at_least(least, record::fault(step, &fault, seen.first_ms, seen.last_ms))
    }
}

fn drift_word(step: DriftStep) -> &'static str {
    match step {
        DriftStep::Found => "found",
        DriftStep::Repaired => "repaired",
        DriftStep::RepairFailed => "repair-failed",
    }
}

fn loss_word(cause: LossCause) -> &'static str {
    match cause {
        LossCause::RateLimit => "kernel-rate-limit",
        LossCause::KernelOverrun => "kernel-overrun",
        LossCause::NobodyListened => "agent-away",
        LossCause::TableFull => "aggregation-full",
        LossCause::ReceiverSlow => "queue-full",
    }
}

fn decision(decision: Decision) -> v1::Decision {
    match decision {
        Decision::Allow | Decision::NotGuarded => v1::Decision::Allow,
        Decision::Deny => v1::Decision::Deny,
        Decision::WouldDeny => v1::Decision::WouldDeny,
    }
}

/// A condition as a fault that health shows.
pub(crate) fn fault_of(condition: &Condition) -> Fault {
    let concerned = condition.zones.iter().take(ZONES_MAX + 1);
    let mut zones: Vec<String> = concerned.map(ToString::to_string).collect();
    if zones.len() > ZONES_MAX {
        zones.clear();
    }
    Fault {
        code: condition.code.to_owned(),
        message: record::bounded(&condition.message),
        zones,
        flows: condition.flows.clone(),
        further_flows: condition.further_flows,
    }
}

fn operation_event(seen: &OperationSeen) -> AuditEvent {
    let subject = match seen.subject {
        Subject::Operation => "operation",
        Subject::Note => "note",
        Subject::Session => "session",
    };
    let decision = seen.decision.map_or(v1::Decision::Unspecified, decision);
    let flow = seen.flow.as_ref();
    let event = OperationEvent {
        subject: subject.to_owned(),
        decision: decision.into(),
        operation: record::bounded(&seen.text),
        reason: record::bounded(&seen.reason),
        flow_id: flow.map_or(0, |flow| flow.id.0),
        flow: flow.map_or_else(String::new, |flow| flow.name.clone()),
        protocol: seen
            .protocol
            .map_or("", |protocol| protocol.vocabulary().word)
            .to_owned(),
        client: seen.client.to_string(),
        client_name: seen.client_name.clone(),
        server: seen.server.ip().to_string(),
        server_name: seen.server_name.clone(),
        port: u32::from(seen.server.port()),
        count: seen.count,
        first_ms: seen.first_ms,
        last_ms: seen.last_ms,
        values: seen.values.map(LearnedRange::from),
        role: seen.role.clone(),
        client_proof: v1::Proof::from(seen.proofs[0]).into(),
        server_proof: v1::Proof::from(seen.proofs[1]).into(),
    };
    let severity = event.severity();
    record::event(seen.last_ms, severity, seen.revision.0, Kind::Operation(event))
}

fn proof(proof: Option<Proof>) -> v1::Proof {
    proof.map_or(v1::Proof::Unspecified, v1::Proof::from)
}

fn verdict_event(seen: &VerdictSeen) -> AuditEvent {
    let address = |address: Option<IpAddr>| address.map_or_else(String::new, |a| a.to_string());
    let event = VerdictEvent {
        decision: decision(seen.decision).into(),
        flow_id: seen.flow_id.map_or(0, |id| id.0),
        flow: seen.flow.clone().unwrap_or_default(),
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
        source_proof: proof(seen.proofs[0]).into(),
        destination_proof: proof(seen.proofs[1]).into(),
    };
    let time_ms = match seen.last_ms {
        0 => clock::now_ms(),
        last_ms => last_ms,
    };
    let severity = event.severity();
    record::event(time_ms, severity, seen.revision.0, Kind::Verdict(event))
}
