//! Reads the kernel's log and reports verdicts: the loops around `logged`.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::enforce::counters::Counters;
use crate::enforce::logged::nflog;
use crate::enforce::nft::netlink::Hearer;
use crate::enforce::table::Table;
use crate::enforce::table::standby::Lull;
use crate::observed::LossCause;

/// How often due events are handed on.
const TICK: Duration = Duration::from_millis(100);
/// Pause before the log group is tried again, at most.
const AGAIN: Duration = Duration::from_secs(5);
/// Room for one datagram.
const BUFFER_BYTES: usize = 128 * 1024;

/// Reports for as long as the agent runs. Enforcement does not depend on it.
pub(in crate::enforce) async fn run(table: Arc<Table>) {
    tokio::join!(hear(&table), hand_on(&table));
}

/// Reports how many verdicts the kernel logged while no agent listened.
async fn count_unheard(table: &Table) {
    if !table.verdicts.keeps_account() {
        return;
    }
    if let Ok(logged) = table.logged().await {
        table.verdicts.report_unheard(logged);
    }
}

/// Takes in what the kernel logs.
async fn hear(table: &Table) {
    loop {
        let error = match nflog::listen(table.settings.log_group) {
            Ok(socket) => {
                // What is logged from here on waits in the socket.
                count_unheard(table).await;
                table.verdicts.account_taken();
                table.verdicts.set_hearing(true);
                listen(table, &socket).await
            }
            Err(error) => error,
        };
        table.verdicts.account_taken();
        table.verdicts.set_hearing(false);
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
                table.verdicts.record(datagram);
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
        table.verdicts.report_lost(lost, LossCause::KernelOverrun);
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
        table.verdicts.report_due();
        table.verdicts.keep_owed_account();
        if counted.elapsed() >= table.settings.count {
            let after = std::mem::replace(&mut counted, Instant::now()).elapsed();
            // Before the totals: what comes between the two is not taken for reported.
            let left_out = table.left_out().await;
            if let Ok(counters) = table.counters().await {
                untold = Some(report_untold(table, untold, &counters));
                if let Ok(left_out) = left_out {
                    table.verdicts.left_out_reported(left_out);
                }
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
            if !table.verdicts.hears() {
                count_unheard(table).await;
            }
            table.verdicts.keep_account();
        }
    }
}

/// Reports how many verdicts the log's limit left out since the last time: at first, since an agent before reported them.
fn report_untold(table: &Table, before: Option<u64>, counters: &Counters) -> u64 {
    let now = counters.untold_packets;
    let before = before.unwrap_or_else(|| table.verdicts.left_out_before(now));
    let packets = now.saturating_sub(before);
    table.verdicts.report_lost(packets, LossCause::RateLimit);
    now
}
