//! The verdicts that wait to be reported: what was heard of the kernel's log, the policy that it is explained by, and the account
//! of how much of it was reported.
//!
//! Not here: who reads the log, and when what is due is handed on (`watch/verdicts`); when the policy changes (`table`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use super::account::Account;
use super::events::{Aggregate, Aggregator};
use super::explain::PolicyInForce;
use super::nflog;
use crate::enforce::EnforceSettings;
use crate::enforce::nft::readback::RulesetReader;
use crate::observed::outbox::Outbox;
use crate::observed::sides::Refusals;
use crate::observed::{LossCause, Observation};

/// How long a change of the rules waits for the account: policy does not hang on the log.
const ACCOUNT_PATIENCE: Duration = Duration::from_secs(2);

/// What waits to be reported.
#[derive(Debug)]
pub(in crate::enforce) struct VerdictReports {
    outbox: Arc<Outbox>,
    current: RwLock<Option<Arc<PolicyInForce>>>,
    aggregator: Mutex<Aggregator>,
    /// How many of the kernel's log messages were reported.
    account: Option<Mutex<Account>>,
    /// Whether the kernel's log is heard.
    hears: AtomicBool,
    /// What an agent before left unheard was counted, or cannot be.
    counted: watch::Sender<bool>,
}

impl VerdictReports {
    /// Nothing is heard yet.
    pub(in crate::enforce) fn new(settings: &EnforceSettings, outbox: Arc<Outbox>) -> Self {
        let account = settings.account_path.as_deref();
        Self {
            outbox,
            current: RwLock::default(),
            aggregator: Mutex::new(Aggregator::new(settings.report_after)),
            account: account.map(Account::read).map(Mutex::new),
            hears: AtomicBool::new(false),
            counted: watch::channel(false).0,
        }
    }

    /// The policy in force.
    pub(in crate::enforce) fn current(&self) -> Option<Arc<PolicyInForce>> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// From now on this policy is in force. What was heard before, due or not, is explained by the one before.
    pub(in crate::enforce) fn follow(&self, policy: PolicyInForce) {
        let batch = lock(&self.aggregator).all();
        self.report(batch);
        self.outbox.sides.follow(&policy.plan);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(policy));
    }

    /// No policy is in force from now on. What was heard before is explained by the one before.
    pub(in crate::enforce) fn follow_none(&self) {
        let batch = lock(&self.aggregator).all();
        self.report(batch);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the kernel's log is heard.
    pub(in crate::enforce) fn hears(&self) -> bool {
        self.hears.load(Relaxed)
    }

    /// The kernel's log is heard from now on, or no longer.
    pub(in crate::enforce) fn set_hearing(&self, hears: bool) {
        self.hears.store(hears, Relaxed);
    }

    /// What an agent before left unheard was counted, or cannot be.
    pub(in crate::enforce) fn account_taken(&self) {
        self.counted.send_replace(true);
    }

    /// Waits, not for long, until what an agent before left unheard is counted: tables that take the place of its tables count from 0.
    pub(in crate::enforce) async fn wait_for_account(&self) {
        if self.keeps_account() {
            let mut counted = self.counted.subscribe();
            let taken = counted.wait_for(|counted| *counted);
            let _ = tokio::time::timeout(ACCOUNT_PATIENCE, taken).await;
        }
    }

    /// What was refused on each side since this agent began, by the side's interface.
    pub(in crate::enforce) fn refusals(&self) -> BTreeMap<String, Refusals> {
        self.outbox.sides.counted()
    }

    /// Takes in a datagram of the kernel's log.
    pub(in crate::enforce) fn record(&self, datagram: &[u8]) {
        let (now, clock) = (Instant::now(), SystemTime::now());
        let current = self.current();
        let mut aggregator = lock(&self.aggregator);
        for packet in nflog::packets(datagram) {
            aggregator.record(packet.settled(&current), now, clock);
        }
    }

    /// Reports that verdicts are missing from the trail.
    pub(in crate::enforce) fn report_lost(&self, packets: u64, cause: LossCause) {
        if packets > 0 {
            self.outbox.put(Observation::Lost { packets, cause });
        }
    }

    /// Whether an account is kept of how much was reported.
    pub(in crate::enforce) fn keeps_account(&self) -> bool {
        self.account.is_some()
    }

    /// Reports how many of `logged` messages nobody heard.
    pub(in crate::enforce) fn report_unheard(&self, logged: u64) {
        if let Some(account) = &self.account {
            let packets = lock(account).unheard(logged);
            self.report_lost(packets, LossCause::NobodyListened);
        }
    }

    /// Of `left_out` packets that the kernel's log has left out, how many an agent before this one reported.
    pub(in crate::enforce) fn left_out_before(&self, left_out: u64) -> u64 {
        let account = self.account.as_ref();
        account.map_or(0, |account| lock(account).left_out_before(left_out))
    }

    /// So many packets that the log of the standing tables left out are reported.
    pub(in crate::enforce) fn left_out_reported(&self, left_out: u64) {
        if let Some(account) = &self.account {
            lock(account).left_out_reported(left_out);
        }
    }

    /// Keeps how many messages the kernel has logged up to now, but for those that are not durable in the trail. What is logged
    /// while its log is not heard stays to be reported.
    pub(in crate::enforce) fn keep_account(&self) {
        let Some(account) = &self.account else { return };
        let mut account = lock(account);
        if self.hears() {
            match RulesetReader::open().and_then(|reader| reader.logged()) {
                Ok(logged) => account.heard(logged),
                Err(error) => {
                    tracing::debug!(%error, "the kernel's counters cannot be read");
                    return;
                }
            }
        }
        let counted = lock(&self.aggregator).pending();
        account.keep((counted + self.outbox.pending(), self.outbox.pending_left_out()));
    }

    /// The same as soon as the report of what nobody had heard is durable.
    pub(in crate::enforce) fn keep_owed_account(&self) {
        let is_owed = self
            .account
            .as_ref()
            .is_some_and(|account| lock(account).is_owed());
        if is_owed && self.outbox.pending() == 0 {
            self.keep_account();
        }
    }

    /// Hands on what is due.
    pub(in crate::enforce) fn report_due(&self) {
        let (batch, overflow) = {
            let mut aggregator = lock(&self.aggregator);
            (aggregator.due(Instant::now()), aggregator.take_overflow())
        };
        self.report_lost(overflow, LossCause::TableFull);
        self.report(batch);
        self.outbox.flush();
    }

    fn report(&self, batch: Vec<Aggregate>) {
        let Some(current) = self.current() else {
            // Of rules that an agent before left: there is no plan yet to explain them by.
            let packets = batch.iter().map(|aggregate| aggregate.count).sum();
            self.report_lost(packets, LossCause::NobodyListened);
            return;
        };
        for event in current.events(batch, nflog::interface_name) {
            self.outbox.put(Observation::Verdict(event));
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn new_tables_wait_until_what_was_logged_before_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let settings = EnforceSettings {
            account_path: Some(folder.path().join("logged")),
            ..EnforceSettings::default()
        };
        let sink = tokio::sync::mpsc::channel(8).0;
        let reports = VerdictReports::new(&settings, Arc::new(Outbox::new(sink)));
        let mut waiting = std::pin::pin!(reports.wait_for_account());
        let early = tokio::time::timeout(Duration::from_millis(10), &mut waiting).await;
        assert!(early.is_err());
        reports.account_taken();
        let begun = Instant::now();
        waiting.await;
        reports.wait_for_account().await;
        assert!(begun.elapsed() < ACCOUNT_PATIENCE);
    }
}
