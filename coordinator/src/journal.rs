//! The coordinator's own trail: what operators did or tried, which certificates were issued or refused, and what does not
//! fit in the trails of gateways.
//!
//! It is a chain like any gateway's (source `coordinator/<id>`), stored and searched by the same means. What changes the
//! coordinator's state is recorded in the same transaction ([`Deed::event`], [`Journal::identity_event`]): neither is there without
//! the other. What changes no state is recorded before its answer goes out. If it cannot be recorded, it is not done, and the answer is an
//! error (IEC 62443-3-3 SR 2.8, SR 2.10). What somebody is refused again and again is counted instead of written each time (`refusals`).

mod refusals;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use penstock_policy::ids::CoordinatorId;
use penstock_policy::text;
use penstock_proto::event::COORDINATOR_PREFIX;
use penstock_proto::peer::Subject;
use penstock_proto::tls::crowd::source_of;
use penstock_proto::v1::{
    AlarmEvent, AuditBlockBody, AuditEvent, IdentityEvent, OperatorEvent, TrailEvent, audit_event::Kind,
};
use prost::Message as _;

use self::refusals::Refusals;
use crate::clock;
use crate::store::{Note, OwnBody, OwnEvent, Store, StoreError};
use crate::summary::summarize;

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
    /// Of those with a certificate, by their names.
    peers: Arc<Refusals>,
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
            peers: Arc::default(),
            trails: Arc::default(),
        }
    }

    /// The source of the coordinator's own trail.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// What this operator does or tries.
    pub(crate) fn deed<'a>(&'a self, operator: &'a str, role: &'a str, action: &'a str) -> Deed<'a> {
        Deed {
            journal: self,
            operator,
            role,
            action,
        }
    }

    /// A certificate that is issued to `subject`, for the change that remembers it.
    pub(crate) fn identity_event(
        &self,
        step: &str,
        subject: &Subject,
        address: Option<IpAddr>,
        message: &str,
    ) -> OwnEvent {
        let event = IdentityEvent {
            step: step.to_owned(),
            subject: subject.to_string(),
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            message: bounded(message),
        };
        OwnEvent::new(self.source.clone(), own_body(Kind::Identity(event)))
    }

    /// An account of the identity provider that is linked with nobody, for the change that remembers it.
    pub(crate) fn account_event(
        &self,
        step: &str,
        account: &str,
        address: IpAddr,
        message: &str,
    ) -> OwnEvent {
        let event = IdentityEvent {
            step: step.to_owned(),
            subject: format!("account/{account}"),
            address: address.to_string(),
            message: bounded(message),
        };
        OwnEvent::new(self.source.clone(), own_body(Kind::Identity(event)))
    }

    /// What the coordinator itself does by a rollout's plan, for the change that remembers it.
    pub(crate) fn own_event(&self, action: &str, target: &str, message: &str) -> OwnEvent {
        self.deed(&self.source, "", action).event(target, message)
    }

    /// A step of an alarm, for the change that remembers it.
    pub(crate) fn alarm_event(&self, event: AlarmEvent) -> OwnEvent {
        let event = AlarmEvent {
            message: bounded(&event.message),
            by: bounded(&event.by),
            reason: bounded(&event.reason),
            ..event
        };
        OwnEvent::new(self.source.clone(), own_body(Kind::Alarm(event)))
    }

    /// Somebody without a certificate who was refused: whoever they say they are, their address is what is counted.
    pub(crate) async fn stranger_refused(
        &self,
        name: &str,
        address: IpAddr,
        message: &str,
    ) -> Result<(), StoreError> {
        let source = source_of(address).to_string();
        let message = counted(&self.strangers, &source, message);
        self.refused(name, address, message).await
    }

    /// Somebody with a certificate who was refused. What strangers try, also from the same address, hides nothing of it.
    pub(crate) async fn peer_refused(
        &self,
        subject: &Subject,
        address: IpAddr,
        message: &str,
    ) -> Result<(), StoreError> {
        let subject = subject.to_string();
        let message = counted(&self.peers, &subject, message);
        self.refused(&subject, address, message).await
    }

    /// What somebody with a certificate said of who counts; counted as refusals are.
    pub(crate) async fn peer_noted(
        &self,
        step: &str,
        subject: &Subject,
        message: &str,
    ) -> Result<(), StoreError> {
        let subject = subject.to_string();
        let message = counted(&self.peers, &subject, message);
        self.note(step, &subject, String::new(), message).await
    }

    /// An operator who signs in; how often that is written is bounded by whoever asks.
    pub(crate) async fn signed_in(
        &self,
        subject: &Subject,
        address: IpAddr,
        message: String,
    ) -> Result<(), StoreError> {
        let (subject, address) = (subject.to_string(), address.to_string());
        self.note("signed-in", &subject, address, Some(message)).await
    }

    async fn refused(
        &self,
        subject: &str,
        address: IpAddr,
        message: Option<String>,
    ) -> Result<(), StoreError> {
        self.note("refused", subject, address.to_string(), message).await
    }

    async fn note(
        &self,
        step: &str,
        subject: &str,
        address: String,
        message: Option<String>,
    ) -> Result<(), StoreError> {
        let Some(message) = message else {
            return Ok(());
        };
        let event = IdentityEvent {
            step: step.to_owned(),
            subject: bounded(subject),
            address,
            message: bounded(&message),
        };
        self.deferrable(Kind::Identity(event)).await
    }

    /// What was found about a gateway's trail. A gateway about which the same is to be said again and again is counted, as
    /// whoever is refused.
    ///
    /// # Errors
    /// The store does not take it. What is only counted, or left out because the disk is short, is not an error.
    pub async fn trail(&self, event: TrailEvent) -> Result<(), StoreError> {
        let Some(event) = counted_alarm(&self.trails, event) else {
            return Ok(());
        };
        // Health says it, too.
        self.deferrable(Kind::Trail(event)).await
    }

    /// What is counted when the disk is short, as what is refused again and again.
    async fn deferrable(&self, kind: Kind) -> Result<(), StoreError> {
        let own = own_body(kind);
        let written = self
            .store
            .append_own_deferrable(&self.source, own.body, own.summary, own.received_ms);
        match written.await {
            Err(StoreError::Reserved { .. }) => {
                metrics::counter!("penstock_refusals_unwritten_total").increment(1);
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }

    /// As [`Journal::trail`], alarms that are written with the change of a gateway's trail in which they are found.
    pub(crate) fn alarms_with<T: ?Sized>(
        &self,
        find: impl Fn(&T) -> Vec<TrailEvent> + Send + 'static,
    ) -> Note<T> {
        let trails = self.trails.clone();
        Note::new(self.source.clone(), move |outcome| {
            let found = find(outcome).into_iter();
            let counted = found.filter_map(|event| counted_alarm(&trails, event));
            counted.map(|event| own_body(Kind::Trail(event))).collect()
        })
    }

    /// What is found about a gateway's trail, as bodies for a change of it; counted as [`Journal::trail`] does.
    pub(crate) fn bodies_of(&self, found: impl Iterator<Item = TrailEvent>) -> Vec<OwnBody> {
        let counted = found.filter_map(|event| counted_alarm(&self.trails, event));
        counted.map(|event| own_body(Kind::Trail(event))).collect()
    }

    /// What the coordinator itself does to trails: written with it, each time, also when the disk is short.
    pub(crate) fn change_with<T: ?Sized>(&self, tell: impl Fn(&T) -> TrailEvent + Send + 'static) -> Note<T> {
        Note::new(self.source.clone(), move |outcome| {
            let event = tell(outcome);
            let event = TrailEvent {
                message: bounded(&event.message),
                ..event
            };
            vec![own_body(Kind::Trail(event))]
        })
    }
}

/// What an operator does or tries, as the trail names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deed<'a> {
    journal: &'a Journal,
    operator: &'a str,
    role: &'a str,
    action: &'a str,
}

impl Deed<'_> {
    /// The same by another word.
    pub(crate) fn named<'a>(&'a self, action: &'a str) -> Deed<'a> {
        Deed { action, ..*self }
    }

    /// Who.
    pub(crate) fn operator(&self) -> &str {
        self.operator
    }

    /// That it is done to `target`, for the change that does it.
    pub(crate) fn event(&self, target: &str, message: &str) -> OwnEvent {
        let kind = self.kind(target, true, message);
        OwnEvent::new(self.journal.source.clone(), own_body(kind))
    }

    /// The same for each of several, with what is said of it; there are few enough to be one block.
    pub(crate) fn events(&self, targets: &[(String, String)]) -> OwnEvent {
        let kinds = targets
            .iter()
            .map(|(target, message)| self.kind(target, true, message));
        OwnEvent::new(self.journal.source.clone(), own_bodies(kinds.collect()))
    }

    /// Writes down that it was refused, and why.
    ///
    /// # Errors
    /// The store does not take it. A refusal that is only counted, or left out because the disk is short, is not an
    /// error.
    pub(crate) async fn refused(&self, target: &str, message: &str) -> Result<(), StoreError> {
        match counted(&self.journal.refusals, self.operator, message) {
            Some(message) => {
                let kind = self.kind(target, false, &message);
                self.journal.deferrable(kind).await
            }
            None => Ok(()),
        }
    }

    fn kind(&self, target: &str, allowed: bool, message: &str) -> Kind {
        Kind::Operator(OperatorEvent {
            operator: bounded(self.operator),
            role: self.role.to_owned(),
            action: self.action.to_owned(),
            target: bounded(target),
            allowed,
            message: bounded(message),
        })
    }
}

/// One event as a body of the coordinator's own trail, which is written also when the disk is short.
pub(crate) fn own_body(kind: Kind) -> OwnBody {
    own_bodies(vec![kind])
}

fn own_bodies(kinds: Vec<Kind>) -> OwnBody {
    let received_ms = clock::now_ms();
    let events = kinds.into_iter().map(|kind| AuditEvent {
        time_ms: received_ms,
        severity: kind.described().severity().into(),
        revision: 0,
        kind: Some(kind),
    });
    let body = AuditBlockBody {
        events: events.collect(),
    };
    OwnBody {
        summary: summarize(&body),
        body: Bytes::from(body.encode_to_vec()),
        received_ms,
        deferrable: false,
    }
}

/// What was found about a gateway's trail; `None`: it is counted, and not written.
fn counted_alarm(trails: &Refusals, event: TrailEvent) -> Option<TrailEvent> {
    let source = format!("{} {}", event.step, event.source);
    let message = counted(trails, &source, &event.message)?;
    Some(TrailEvent {
        message: bounded(&message),
        ..event
    })
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
    text::bounded(text, TEXT_BYTES_MAX).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use penstock_policy::ids::GatewayId;

    use super::*;
    use crate::store::{Append, BlockFilter};

    #[tokio::test]
    async fn strangers_hide_no_refusal_of_a_known_peer_and_no_flood_hides_what_was_done_to_trails() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s.db")).unwrap();
        let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
        let written = async || store.blocks(BlockFilter::default(), 10_000).await.unwrap().len();
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        for stranger in 0..=255 {
            for _ in 0..2 {
                let refused = journal.stranger_refused("gw", address(stranger), "wrong token");
                refused.await.unwrap();
            }
        }
        let before = written().await;
        let peer = Subject::Gateway(GatewayId::new("gw").unwrap());
        journal
            .peer_refused(&peer, address(1), "renews too often")
            .await
            .unwrap();
        assert_eq!(written().await, before + 1);
        let alarm = |step: &str, source: String| TrailEvent {
            step: step.to_owned(),
            source,
            ..TrailEvent::default()
        };
        for gateway in 0..1000 {
            let refused = journal.trail(alarm("refused", gateway.to_string()));
            refused.await.unwrap();
        }
        let before = written().await;
        for _ in 0..30 {
            let expired = journal.change_with(move |_: &[Append]| alarm("expired", String::new()));
            store.append_noted("gw", Vec::new(), expired).await.unwrap();
        }
        assert_eq!(written().await, before + 30);
    }
}
