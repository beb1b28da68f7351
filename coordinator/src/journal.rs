//! The coordinator's own trail: what operators did or tried, and what the coordinator itself saw go wrong.
//!
//! It is a chain like any gateway's (source `coordinator/<id>`), stored and searched by the same means. An action
//! is recorded *before* its answer goes out; if it cannot be recorded, the answer is an error (IEC 62443-3-3
//! SR 2.8, SR 2.10). What somebody is refused again and again is counted instead of written each time (`refusals`).

mod refusals;

use std::sync::Arc;

use bytes::Bytes;
use penstock_policy::ids::CoordinatorId;
use penstock_proto::v1::{
    AuditBlockBody, AuditEvent, DriftEvent, OperatorEvent, Severity, audit_event::Kind,
};
use prost::Message as _;

use self::refusals::Refusals;
use crate::clock;
use crate::query;
use crate::store::{Store, StoreError};

/// Longest text in one of our own events, bytes.
const TEXT_BYTES_MAX: usize = 2048;

/// Writes to the coordinator's own chain.
#[derive(Clone, Debug)]
pub struct Journal {
    store: Store,
    source: String,
    refusals: Arc<Refusals>,
}

impl Journal {
    /// The journal of a coordinator.
    pub fn new(store: Store, coordinator: &CoordinatorId) -> Self {
        Self {
            store,
            source: format!("coordinator/{coordinator}"),
            refusals: Arc::default(),
        }
    }

    /// What an operator did (`allowed`) or was refused, and why.
    pub async fn operator(
        &self,
        operator: &str,
        role: &str,
        action: &str,
        target: &str,
        outcome: Result<&str, &str>,
    ) -> Result<(), StoreError> {
        let (allowed, message) = match outcome {
            Ok(message) => (true, message.to_owned()),
            Err(message) => {
                // Who asks to be enrolled can call themselves as they like.
                let source = if action == "enrol" { target } else { operator };
                match self.refusals.write(source, clock::now_ms()) {
                    Some(0) => (false, message.to_owned()),
                    Some(omitted) => (
                        false,
                        format!("{message} (and {omitted} more refusals before this one, not written)"),
                    ),
                    None => {
                        metrics::counter!("penstock_refusals_unwritten_total").increment(1);
                        return Ok(());
                    }
                }
            }
        };
        let event = OperatorEvent {
            operator: bounded(operator),
            role: role.to_owned(),
            action: action.to_owned(),
            target: bounded(target),
            allowed,
            message: bounded(&message),
        };
        let severity = if allowed {
            Severity::Notice
        } else {
            Severity::Warning
        };
        self.write(severity, Kind::Operator(event)).await
    }

    /// A gateway's trail that does not fit what is stored.
    pub async fn trail_fault(&self, gateway: &str, message: &str) -> Result<(), StoreError> {
        let event = DriftEvent {
            step: "trail-fault".to_owned(),
            message: bounded(&format!("{gateway}: {message}")),
            process: String::new(),
        };
        self.write(Severity::Alarm, Kind::Drift(event)).await
    }

    async fn write(&self, severity: Severity, kind: Kind) -> Result<(), StoreError> {
        let now_ms = clock::now_ms();
        let body = AuditBlockBody {
            events: vec![AuditEvent {
                time_ms: now_ms,
                severity: severity.into(),
                revision: 0,
                kind: Some(kind),
            }],
        };
        let summary = query::summarize(&body);
        self.store
            .append_own(&self.source, Bytes::from(body.encode_to_vec()), summary, now_ms)
            .await
            .map(|_| ())
    }
}

fn bounded(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
