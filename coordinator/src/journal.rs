//! The coordinator's own trail: what operators did or tried, which certificates were issued or refused, and what does not
//! fit in the trails of gateways.
//!
//! It is a chain like any gateway's (source `coordinator/<id>`), stored and searched by the same means. An action
//! is recorded *before* its answer goes out; if it cannot be recorded, the answer is an error (IEC 62443-3-3
//! SR 2.8, SR 2.10). What somebody is refused again and again is counted instead of written each time (`refusals`).

mod refusals;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use penstock_policy::ids::CoordinatorId;
use penstock_proto::event::COORDINATOR_PREFIX;
use penstock_proto::peer::Subject;
use penstock_proto::tls::crowd::source_of;
use penstock_proto::v1::{
    AuditBlockBody, AuditEvent, IdentityEvent, OperatorEvent, Severity, TrailEvent, audit_event::Kind,
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
    /// Of those without a certificate; apart, so that they hide nothing that a known peer is refused.
    strangers: Arc<Refusals>,
    /// Of gateways' blocks; apart, so that what others are refused hides no alarm.
    trails: Arc<Refusals>,
}

impl Journal {
    /// The journal of a coordinator.
    pub fn new(store: Store, coordinator: &CoordinatorId) -> Self {
        Self {
            store,
            source: format!("{COORDINATOR_PREFIX}{coordinator}"),
            refusals: Arc::default(),
            strangers: Arc::default(),
            trails: Arc::default(),
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
            Err(message) => match counted(&self.refusals, operator, message) {
                Some(message) => (false, message),
                None => return Ok(()),
            },
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
        self.write(severity, Kind::Operator(event), allowed).await
    }

    /// A certificate that was issued to `subject`.
    pub async fn identity(
        &self,
        step: &str,
        subject: &Subject,
        address: Option<IpAddr>,
        message: &str,
    ) -> Result<(), StoreError> {
        let event = IdentityEvent {
            step: step.to_owned(),
            subject: subject.to_string(),
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            message: bounded(message),
        };
        self.write(Severity::Notice, Kind::Identity(event), true).await
    }

    /// Somebody who was refused for who they are or say to be.
    pub async fn identity_refused(
        &self,
        subject: &str,
        address: Option<IpAddr>,
        message: &str,
    ) -> Result<(), StoreError> {
        let source = address.map_or_else(|| subject.to_owned(), |address| source_of(address).to_string());
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        let Some(message) = counted(&self.strangers, &source, message) else {
            return Ok(());
        };
        let event = IdentityEvent {
            step: "refused".to_owned(),
            subject: bounded(subject),
            address,
            message: bounded(&message),
        };
        self.write(Severity::Warning, Kind::Identity(event), false).await
    }

    /// What was found about a gateway's trail. A gateway about which the same is to be said again and again is counted, as
    /// whoever is refused.
    pub async fn trail(&self, severity: Severity, event: TrailEvent) -> Result<(), StoreError> {
        let source = format!("{} {}", event.step, event.source);
        let Some(message) = counted(&self.trails, &source, &event.message) else {
            return Ok(());
        };
        let event = TrailEvent {
            message: bounded(&message),
            ..event
        };
        // Health says it, too.
        self.write(severity, Kind::Trail(event), false).await
    }

    /// `must`: also when the disk is short. What need not is then counted, as what is refused again and again.
    async fn write(&self, severity: Severity, kind: Kind, must: bool) -> Result<(), StoreError> {
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
        let body = Bytes::from(body.encode_to_vec());
        if must {
            self.store
                .append_own(&self.source, body, summary, now_ms)
                .await
                .map(|_| ())
        } else {
            match self
                .store
                .append_own_deferrable(&self.source, body, summary, now_ms)
                .await
            {
                Err(StoreError::Reserved { .. }) => {
                    metrics::counter!("penstock_refusals_unwritten_total").increment(1);
                    Ok(())
                }
                other => other.map(|_| ()),
            }
        }
    }
}

/// The words of a refusal of `source`; `None`: it is counted, and not written.
fn counted(refusals: &Refusals, source: &str, message: &str) -> Option<String> {
    match refusals.write(source, clock::now_ms()) {
        Some(0) => Some(message.to_owned()),
        Some(omitted) => Some(format!(
            "{message} (and {omitted} more refusals before this one, not written)"
        )),
        None => {
            metrics::counter!("penstock_refusals_unwritten_total").increment(1);
            None
        }
    }
}

fn bounded(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
