//! Reads the kernel's log and tells verdicts: the loop around `nflog`, `events` and `explain`.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::counters::logged;
use super::events::Aggregate;
use super::nflog;
use crate::enforce::Counters;
use crate::enforce::nft::netlink::Hearer;
use crate::enforce::nft::readback::RulesetReader;
use crate::enforce::table::Table;
use crate::enforce::table::standby::Lull;
use crate::observed::{LossCause, Observation};

/// How often due events are handed on.
const TICK: Duration = Duration::from_millis(100);
/// Pause before the log group is tried again, at most.
const AGAIN: Duration = Duration::from_secs(5);
/// Room for one datagram.
const BUFFER_BYTES: usize = 128 * 1024;

/// Tells for as long as the agent runs. Enforcement does not depend on it.
pub(in crate::enforce) async fn run(table: Arc<Table>) {
    tokio::join!(hear(&table), hand_on(&table));
}

/// Reports how many verdicts the kernel logged while no agent listened.
async fn count_unheard(table: &Table) {
    let Some(account) = &table.account else { return };
    let Ok(logged) = table.logged().await else { return };
    let packets = lock(account).unheard(logged);
    if packets > 0 {
        table.outbox.put(Observation::Lost {
            packets,
            cause: LossCause::NobodyListened,
        });
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes in what the kernel logs.
async fn hear(table: &Table) {
    loop {
        let error = match nflog::listen(table.settings.log_group) {
            Ok(socket) => {
                // What is logged from here on waits in the socket.
                count_unheard(table).await;
                table.hears.store(true, Relaxed);
                listen(table, &socket).await
            }
            Err(error) => error,
        };
        table.hears.store(false, Relaxed);
        let group = table.settings.log_group;
        tracing::error!(%error, group, "the kernel's log cannot be read; enforcement goes on, verdicts are only counted");
        tokio::time::sleep(table.settings.count.min(AGAIN)).await;
    }
}

async fn listen(table: &Table, socket: &Hearer) -> io::Error {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut numbers = nflog::Numbers::default();
    let mut overran = false;
    loop {
        let lost = match tokio::time::timeout(table.settings.count, socket.receive(&mut buffer)).await {
            Ok(Ok(length)) => {
                let datagram = buffer.get(..length).unwrap_or_default();
                let (now, clock) = (Instant::now(), SystemTime::now());
                let current = table
                    .current
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                let mut aggregator = lock(&table.aggregator);
                for packet in nflog::packets(datagram) {
                    aggregator.record(packet.settled(&current), now, clock);
                }
                overran = false;
                numbers.lost(datagram)
            }
            Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
                // How many, the next message's number says.
                overran = true;
                0
            }
            Ok(Err(error)) => return error,
            Err(_) if std::mem::take(&mut overran) => numbers.report_ahead(),
            Err(_) => 0,
        };
        if lost > 0 {
            table.outbox.put(Observation::Lost {
                packets: lost,
                cause: LossCause::KernelOverrun,
            });
        }
    }
}

/// Hands on what is due.
async fn hand_on(table: &Table) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut untold = None;
    let mut lull = Lull::new(table.settings.lull);
    let mut counted = Instant::now();
    loop {
        tick.tick().await;
        table.tell_due();
        if counted.elapsed() >= table.settings.count {
            let after = std::mem::replace(&mut counted, Instant::now()).elapsed();
            if let Ok(counters) = table.counters().await {
                untold = Some(report_untold(table, untold, &counters));
                if lull.look(&counters, after)
                    && let Err(error) = table.start_again().await
                {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "nothing passes this gateway, and the time in which servers may speak first could not be renewed: \
                         after a failover to it, UDP passes from each client's first datagram on"
                    );
                }
            }
            if !table.hears.load(Relaxed) {
                count_unheard(table).await;
            }
            table.keep_account();
        }
    }
}

/// Reports how many verdicts the log's limit left out since the last time.
fn report_untold(table: &Table, before: Option<u64>, counters: &Counters) -> u64 {
    let now = counters.untold_packets;
    let packets = now.saturating_sub(before.unwrap_or(0));
    if packets > 0 {
        table.outbox.put(Observation::Lost {
            packets,
            cause: LossCause::RateLimit,
        });
    }
    now
}

impl Table {
    /// Keeps how many messages the kernel has logged up to now, but for those that are not durable in the trail. What is logged
    /// while its log is not heard stays to be reported.
    pub(in crate::enforce) fn keep_account(&self) {
        let Some(account) = &self.account else { return };
        let mut account = lock(account);
        if self.hears.load(Relaxed) {
            match RulesetReader::open().and_then(|reader| reader.counters()) {
                Ok(named) => account.heard(logged(&named)),
                Err(error) => {
                    tracing::debug!(%error, "the kernel's counters cannot be read");
                    return;
                }
            }
        }
        let counted = lock(&self.aggregator).pending();
        account.keep(counted + self.outbox.pending());
    }

    /// Hands on what is due.
    fn tell_due(&self) {
        let (batch, overflow) = {
            let mut aggregator = lock(&self.aggregator);
            (aggregator.due(Instant::now()), aggregator.take_overflow())
        };
        if overflow > 0 {
            self.outbox.put(Observation::Lost {
                packets: overflow,
                cause: LossCause::TableFull,
            });
        }
        self.tell(batch);
        self.outbox.flush();
    }

    /// Hands on everything, due or not: what follows is judged by another policy.
    pub(in crate::enforce) fn tell_all(&self) {
        let batch = lock(&self.aggregator).all();
        self.tell(batch);
    }

    fn tell(&self, batch: Vec<Aggregate>) {
        let current = self
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Some(current) = current else {
            // Of rules that an agent before left: there is no plan yet to explain them by.
            let packets = batch.iter().map(|aggregate| aggregate.count).sum();
            if packets > 0 {
                self.outbox.put(Observation::Lost {
                    packets,
                    cause: LossCause::NobodyListened,
                });
            }
            return;
        };
        for event in current.events(batch, nflog::interface_name) {
            self.outbox.put(Observation::Verdict(event));
        }
    }
}
