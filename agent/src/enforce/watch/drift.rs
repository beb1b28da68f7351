//! Watches the kernel for changes of our tables by others.
//!
//! The kernel multicasts every change of rules, and at the end of each transaction its generation number and the
//! process that made it. A transaction that touched a table of ours and is not our own is compared with the plan at
//! once. What the socket lost is made good by a comparison, as is, now and then, what no event told.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::enforce::nft::netlink::{Hearer, NETFILTER, NetlinkSocket, attributes, be32, messages, text};
use crate::enforce::nft::readback::is_ours;
use crate::enforce::nft::wire::{NEW_GENERATION, SUBSYSTEM};
use crate::enforce::table::Table;
use crate::enforce::watch::routes;

/// `NFNLGRP_NFTABLES`, as a bit.
const GROUP: u32 = 1 << 6;
/// Room for the changes of a large transaction.
const RECEIVE_BYTES: usize = 4 << 20;
/// Room for one datagram.
const BUFFER_BYTES: usize = 64 * 1024;
/// Distance of repairs if another program keeps changing our tables.
const BETWEEN: Duration = Duration::from_millis(50);

/// Opens the socket that hears the kernel's changes.
pub(in crate::enforce) fn subscribe() -> io::Result<Hearer> {
    NetlinkSocket::open(NETFILTER, GROUP, RECEIVE_BYTES)?.hear()
}

/// Hears changes for as long as the agent runs.
pub(in crate::enforce) async fn watch(table: Arc<Table>, socket: Hearer) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut hearing = Hearing::default();
    loop {
        match socket.receive(&mut buffer).await {
            Ok(length) => {
                if let Some(noticed) = hearing.datagram(buffer.get(..length).unwrap_or_default()) {
                    compare(&table, Some(noticed)).await;
                }
            }
            // Some were lost: our own large transactions may do that too, so nothing is said unless something differs.
            Err(_) => {
                hearing = Hearing::default();
                compare(&table, None).await;
                tokio::time::sleep(BETWEEN).await;
            }
        }
    }
}

/// What of a transaction was heard so far.
#[derive(Debug, Default)]
pub(in crate::enforce) struct Hearing {
    touched: bool,
}

impl Hearing {
    /// The last transaction in this datagram that touched our tables: its generation and process.
    pub(in crate::enforce) fn datagram(&mut self, datagram: &[u8]) -> Option<(u32, String)> {
        let mut noticed = None;
        for message in messages(datagram) {
            if message.kind & 0xff00 != SUBSYSTEM {
                continue;
            }
            if message.kind != NEW_GENERATION {
                self.touched |= is_ours(&message);
                continue;
            }
            let (mut generation, mut process, mut name) = (None, 0, String::new());
            for (kind, value) in attributes(message.payload) {
                match kind {
                    1 => generation = be32(value),
                    2 => process = be32(value).unwrap_or_default(),
                    3 => name = text(value),
                    _ => {}
                }
            }
            if std::mem::take(&mut self.touched) {
                noticed = generation
                    .map(|generation| (generation, format!("{name}[{process}]")))
                    .or(noticed);
            }
        }
        noticed
    }
}

/// Compares from time to time.
pub(in crate::enforce) async fn verify_now_and_then(table: Arc<Table>) {
    loop {
        tokio::time::sleep(table.settings.verify_interval).await;
        compare(&table, None).await;
    }
}

async fn compare(table: &Table, noticed: Option<(u32, String)>) {
    if noticed.is_none() {
        routes::mend(table).await;
    }
    match table.verify(noticed).await {
        Ok(crate::enforce::DriftState::Repaired(_)) => tokio::time::sleep(BETWEEN).await,
        Ok(_) => {}
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the kernel could not be compared with the plan"
            );
        }
    }
}
