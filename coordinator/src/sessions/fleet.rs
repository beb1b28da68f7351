//! All gateways that are known, in memory, and which session of each counts: the newest. Here `rollout` learns which gateways it
//! has to look at, each once however often it changed, and from here each session gets what its gateway should have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use penstock_policy::ids::GatewayId;
use penstock_proto::audit::chain::SealFault;
use penstock_proto::v1;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::facts::{GatewayFacts, News};
use super::wanted::Directive;
use crate::enrolment::GatewayRecord;
use crate::tickets::Twin;

#[derive(Debug, Default)]
struct GatewayEntry {
    facts: GatewayFacts,
    /// The session that stands.
    session: Option<StandingSession>,
}

#[derive(Debug)]
struct StandingSession {
    number: u64,
    /// Cancelled when another takes its place.
    replaced: CancellationToken,
    directive: watch::Sender<Directive>,
}

/// A session that begins.
#[derive(Debug)]
pub struct BegunSession {
    /// Its number; none is used twice.
    pub number: u64,
    /// Cancelled when another takes its place.
    pub replaced: CancellationToken,
    /// What its gateway should have.
    pub directives: watch::Receiver<Directive>,
}

/// All gateways that are known.
#[derive(Debug, Default)]
pub struct Fleet {
    entries: Mutex<BTreeMap<GatewayId, GatewayEntry>>,
    sessions_so_far: std::sync::atomic::AtomicU64,
    changed: Notify,
    /// Gateways that stand otherwise than they did when they were looked at last.
    moved: Mutex<BTreeSet<GatewayId>>,
    has_moved: Notify,
}

impl Fleet {
    /// What is remembered from before a restart.
    pub fn remembered(records: Vec<(GatewayId, GatewayRecord)>) -> Self {
        let entries = records
            .into_iter()
            .map(|(gateway, record)| {
                let facts = GatewayFacts {
                    enrolled_ms: record.enrolled_ms,
                    certificate_expires_ms: record.certificate_expires_ms,
                    last_seen_ms: record.last_seen_ms,
                    ..GatewayFacts::default()
                };
                let entry = GatewayEntry { facts, session: None };
                (gateway, entry)
            })
            .collect();
        Self {
            entries: Mutex::new(entries),
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GatewayId, GatewayEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session begins with a hello, by a certificate that expires then; one that stood before is ended.
    pub fn begin(
        &self,
        gateway: &GatewayId,
        certificate_expires_ms: u64,
        hello: Box<v1::Hello>,
        now_ms: u64,
    ) -> BegunSession {
        let replaced = CancellationToken::new();
        let (directive, directives) = watch::channel(Directive::default());
        let mut entries = self.lock();
        let number = self
            .sessions_so_far
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let entry = entries.entry(gateway.clone()).or_default();
        entry.facts.certificate_expires_ms = certificate_expires_ms;
        let before = entry.session.replace(StandingSession {
            number,
            replaced: replaced.clone(),
            directive,
        });
        // In one step: nobody sees the new session with what the old one said.
        entry.facts.learn(&News::Hello(hello), now_ms);
        drop(entries);
        if let Some(before) = before {
            before.replaced.cancel();
        }
        self.moved(gateway);
        self.changed.notify_one();
        BegunSession {
            number,
            replaced,
            directives,
        }
    }

    /// A session ends. If it was the one that stood, the gateway is no longer connected.
    pub fn end(&self, gateway: &GatewayId, number: u64) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(gateway) else {
            return false;
        };
        if entry
            .session
            .as_ref()
            .is_none_or(|stands| stands.number != number)
        {
            return false;
        }
        entry.session = None;
        entry.facts.connected = false;
        entry.facts.offered = None;
        drop(entries);
        self.moved(gateway);
        self.changed.notify_one();
        true
    }

    /// Takes over what the standing session of a gateway learned; what an older session says no longer counts.
    pub fn learn(&self, gateway: &GatewayId, number: u64, news: &News, now_ms: u64) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(gateway) else {
            return;
        };
        if entry
            .session
            .as_ref()
            .is_none_or(|stands| stands.number != number)
        {
            return;
        }
        if matches!(news, News::Seen) {
            entry.facts.learn(news, now_ms);
            return;
        }
        let before = entry.facts.clone();
        entry.facts.learn(news, now_ms);
        let same = before.same_judgement(&entry.facts);
        // A trial is looked at whenever it is reported: what was said about it may not have arrived.
        let has_moved = !before.same_standing(&entry.facts) || entry.facts.is_on_trial();
        drop(entries);
        if has_moved {
            self.moved(gateway);
        }
        if !same {
            self.changed.notify_one();
        }
    }

    /// A gateway enrolled.
    pub fn enrolled(&self, gateway: &GatewayId, enrolled_ms: u64, certificate_expires_ms: u64) {
        let mut entries = self.lock();
        let facts = &mut entries.entry(gateway.clone()).or_default().facts;
        facts.enrolled_ms = enrolled_ms;
        facts.certificate_expires_ms = certificate_expires_ms;
    }

    /// Whether the key of a gateway has two users, however that became known.
    pub fn twin(&self, gateway: &GatewayId, twin: Option<Twin>) {
        let mut entries = self.lock();
        let facts = &mut entries.entry(gateway.clone()).or_default().facts;
        if facts.twin != twin {
            facts.twin = twin;
            drop(entries);
            self.changed.notify_one();
        }
    }

    /// What does not fit among the seals of a gateway's trail, however that became known.
    pub fn unproved(&self, gateway: &GatewayId, fault: Option<SealFault>) {
        let mut entries = self.lock();
        let facts = &mut entries.entry(gateway.clone()).or_default().facts;
        if facts.seal_fault != fault {
            facts.seal_fault = fault;
            drop(entries);
            self.changed.notify_one();
        }
    }

    /// A person acknowledged this fault of a gateway's seals. Another one counts on.
    pub(crate) fn acknowledged(&self, gateway: &GatewayId, fault: &SealFault) {
        let is_it = self.look_at(gateway, |facts| facts.seal_fault.as_ref() == Some(fault));
        if is_it == Some(true) {
            self.unproved(gateway, None);
        }
    }

    /// What is known of one gateway.
    pub fn facts(&self, gateway: &GatewayId) -> Option<GatewayFacts> {
        self.lock().get(gateway).map(|entry| entry.facts.clone())
    }

    /// Looks at one without copying it.
    pub fn look_at<T>(&self, gateway: &GatewayId, look: impl FnOnce(&GatewayFacts) -> T) -> Option<T> {
        self.lock().get(gateway).map(|entry| look(&entry.facts))
    }

    /// What is known of all.
    pub fn all(&self) -> Vec<(GatewayId, GatewayFacts)> {
        self.lock()
            .iter()
            .map(|(gateway, entry)| (gateway.clone(), entry.facts.clone()))
            .collect()
    }

    /// Looks at all without copying them.
    pub fn inspect(&self, mut look: impl FnMut(&GatewayId, &GatewayFacts)) {
        for (gateway, entry) in self.lock().iter() {
            look(gateway, &entry.facts);
        }
    }

    fn moved(&self, gateway: &GatewayId) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.insert(gateway.clone());
        drop(moved);
        self.has_moved.notify_one();
    }

    /// Whoever waits for that looks again at once.
    pub fn look_again(&self) {
        self.has_moved.notify_one();
    }

    /// Waits until a gateway stands otherwise.
    pub async fn has_moved(&self) {
        self.has_moved.notified().await;
    }

    /// Looks at those that stand otherwise since the last time, with the number of the session that stands, without copying them.
    pub fn take_moved(&self, mut look: impl FnMut(&GatewayId, Option<u64>, &GatewayFacts)) {
        let moved = std::mem::take(&mut *self.moved.lock().unwrap_or_else(PoisonError::into_inner));
        let entries = self.lock();
        for gateway in &moved {
            if let Some(entry) = entries.get(gateway) {
                let number = entry.session.as_ref().map(|session| session.number);
                look(gateway, number, &entry.facts);
            }
        }
    }

    /// Looks at those that are connected, with the numbers of their sessions, without copying them.
    pub fn inspect_connected(&self, mut look: impl FnMut(&GatewayId, u64, &GatewayFacts)) {
        for (gateway, entry) in self.lock().iter() {
            if let Some(session) = &entry.session {
                look(gateway, session.number, &entry.facts);
            }
        }
    }

    /// Gives the session of a gateway, if one stands, what the gateway should have.
    pub fn direct(&self, gateway: &GatewayId, change: impl FnOnce(&mut Directive, &GatewayFacts)) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(gateway) else {
            return;
        };
        let Some(session) = &entry.session else {
            return;
        };
        session.directive.send_if_modified(|directive| {
            let mut changed = directive.clone();
            change(&mut changed, &entry.facts);
            let is_other = !changed.says_the_same(directive);
            if is_other {
                *directive = changed;
            }
            is_other
        });
        let directive = session.directive.borrow();
        let should_have = directive
            .target
            .as_ref()
            .map(|(wanted, _)| (wanted.mark, wanted.is_active()));
        drop(directive);
        if entry.facts.should_have != should_have {
            entry.facts.should_have = should_have;
            drop(entries);
            self.changed.notify_one();
        }
    }

    /// Waits for a change that may change a judgement.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}
