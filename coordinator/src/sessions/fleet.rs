//! All gateways that are known, in memory, and which session of each counts: the newest.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use penstock_policy::ids::GatewayId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::facts::{GatewayFacts, News};
use crate::enrolment::GatewayRecord;

#[derive(Debug, Default)]
struct GatewayEntry {
    facts: GatewayFacts,
    /// The session that stands, by number, and what ends it.
    session: Option<(u64, CancellationToken)>,
}

/// All gateways that are known.
#[derive(Debug, Default)]
pub struct Fleet {
    entries: Mutex<BTreeMap<GatewayId, GatewayEntry>>,
    sessions_so_far: std::sync::atomic::AtomicU64,
    changed: Notify,
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

    /// A session begins, by a certificate that expires then; one that stood before is ended. Answers with its number, and
    /// with what is cancelled when another takes its place.
    pub fn begin(&self, gateway: &GatewayId, certificate_expires_ms: u64) -> (u64, CancellationToken) {
        let token = CancellationToken::new();
        let mut entries = self.lock();
        let number = self
            .sessions_so_far
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let entry = entries.entry(gateway.clone()).or_default();
        entry.facts.certificate_expires_ms = certificate_expires_ms;
        let before = entry.session.replace((number, token.clone()));
        drop(entries);
        if let Some((_, before)) = before {
            before.cancel();
        }
        (number, token)
    }

    /// A session ends. If it was the one that stood, the gateway is no longer connected.
    pub fn end(&self, gateway: &GatewayId, number: u64) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(gateway) else {
            return false;
        };
        if entry.session.as_ref().is_none_or(|(stands, _)| *stands != number) {
            return false;
        }
        entry.session = None;
        entry.facts.connected = false;
        entry.facts.offered = None;
        drop(entries);
        self.changed.notify_one();
        true
    }

    /// Takes over what the standing session of a gateway learned; what an older session says no longer counts.
    pub fn learn(&self, gateway: &GatewayId, number: u64, news: &News, now_ms: u64) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(gateway) else {
            return;
        };
        if entry.session.as_ref().is_none_or(|(stands, _)| *stands != number) {
            return;
        }
        if matches!(news, News::Seen) {
            entry.facts.learn(news, now_ms);
            return;
        }
        let before = entry.facts.clone();
        entry.facts.learn(news, now_ms);
        let same = before.same_judgement(&entry.facts);
        drop(entries);
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

    /// What is known of one gateway.
    pub fn facts(&self, gateway: &GatewayId) -> Option<GatewayFacts> {
        self.lock().get(gateway).map(|entry| entry.facts.clone())
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

    /// Waits for a change that may change a judgement.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}
