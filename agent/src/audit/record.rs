//! What happened, as the events that stand in the trail: one constructor for each kind the agent writes itself.
//!
//! Texts are cut at [`TEXT_BYTES_MAX`], since some of them come from a peer or from the kernel.

use penstock_proto::v1::{
    AgentEvent, AuditEvent, DriftEvent, Fault, FaultEvent, LossEvent, PolicyEvent, Severity,
    audit_event::Kind,
};

use penstock_policy::text;
use penstock_proto::event::AgentStep;

use super::layout::{Cause, Loss};

/// The longest text in an event, in bytes.
pub const TEXT_BYTES_MAX: usize = 2048;

/// An event at `time_ms` under policy `revision`.
pub fn event(time_ms: u64, severity: Severity, revision: u64, kind: Kind) -> AuditEvent {
    AuditEvent {
        time_ms,
        severity: severity.into(),
        revision,
        kind: Some(kind),
    }
}

/// A step of a policy that went as it should.
pub fn policy(step: &str, revision: u64, plan_digest: [u8; 32], message: &str) -> Kind {
    Kind::Policy(PolicyEvent {
        step: step.to_owned(),
        revision,
        plan_digest: plan_digest.to_vec().into(),
        code: String::new(),
        message: bounded(message),
    })
}

/// A policy that was refused, with the stable code.
pub fn refused(revision: u64, code: &str, message: &str) -> Kind {
    Kind::Policy(PolicyEvent {
        step: "refused".to_owned(),
        revision,
        plan_digest: Vec::new().into(),
        code: code.to_owned(),
        message: bounded(message),
    })
}

/// A step of drift: `found`, `repaired` or `repair-failed`.
pub fn drift(step: &str, message: &str, process: &str) -> Kind {
    Kind::Drift(DriftEvent {
        step: step.to_owned(),
        message: bounded(message),
        process: bounded(process),
    })
}

/// Something that happened to the agent itself; which steps there are, [`AgentStep`](penstock_proto::event::AgentStep) says.
pub fn agent(step: impl AsRef<str>, message: &str) -> Kind {
    Kind::Agent(AgentEvent {
        step: step.as_ref().to_owned(),
        message: bounded(message),
        ..AgentEvent::default()
    })
}

/// A head of the coordinator's trails that came: as it should be (`seen`), or not; with the note that the coordinator signed.
pub fn trails(step: AgentStep, message: &str, note: &[u8]) -> Kind {
    Kind::Agent(AgentEvent {
        step: step.word().to_owned(),
        message: bounded(message),
        trails_head: note.to_vec().into(),
    })
}

/// A fault that began, ended, or was found when it was over (`step`), from `first_ms` until `last_ms`; 0: not known.
pub fn fault(step: &str, fault: &Fault, first_ms: u64, last_ms: u64) -> Kind {
    Kind::Fault(FaultEvent {
        step: step.to_owned(),
        code: fault.code.clone(),
        message: bounded(&fault.message),
        first_ms,
        last_ms,
        zones: fault.zones.clone(),
        flows: fault.flows.clone(),
        further_flows: fault.further_flows,
    })
}

/// Events that never reached the trail, for a cause outside the spool.
pub fn lost(cause: &str, events: u64, first_ms: u64, last_ms: u64) -> Kind {
    Kind::Loss(LossEvent {
        events,
        first_ms,
        last_ms,
        cause: cause.to_owned(),
        blocks: 0,
    })
}

/// The spool's own loss record. It is an alarm, so that it is the last to be shed itself.
pub(crate) fn loss(time_ms: u64, cause: Cause, loss: &Loss) -> AuditEvent {
    event(
        time_ms,
        Severity::Alarm,
        0,
        Kind::Loss(LossEvent {
            events: loss.events,
            first_ms: loss.first_ms,
            last_ms: loss.last_ms,
            cause: cause.as_str().to_owned(),
            blocks: loss.blocks,
        }),
    )
}

/// `text`, cut at a character's boundary below [`TEXT_BYTES_MAX`].
pub fn bounded(text: &str) -> String {
    text::bounded(text, TEXT_BYTES_MAX).to_owned()
}
