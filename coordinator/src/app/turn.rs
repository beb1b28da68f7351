//! Which of several coordinators on one store acts: one at a time, and the others stand by.
//!
//! A record names the one whose turn it is. Who has it says so every [`PULSE`], in messages that nothing keeps; who has heard nothing for
//! [`SILENCE`], and can write the log, writes itself into the record and acts. From then on the one before writes nothing more, since each write
//! is decided behind the last entry of the log and holds the record against its own turn: also one that was paused for an hour, or cut off, and knows
//! nothing of it. It finds out when it looks, and ends.
//!
//! On a store that stands alone there is nobody else, and none of this happens.

use std::time::Duration;

use penstock_policy::ids::CoordinatorId;
use penstock_proto::v1::Fault;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{AppError, STORE_FILE};
use crate::clock;
use crate::config::Config;
use crate::health::cluster::Cluster;
use crate::journal::Journal;
use crate::store::state::{Change, Expect};
use crate::store::{RecordChange, Store, StoreError};

/// The record.
const KEY: &str = "coordinator/turn";
/// How often the one who acts says so.
const PULSE: Duration = Duration::from_secs(1);
/// After how much silence another one takes over; and after how long without the log the one who acts ends.
const SILENCE: Duration = Duration::from_secs(10);
/// What one says who stands by; no coordinator has such a name.
const STANDS_BY: &str = "(stands by)";
/// How long the servers may take to say that the log can be written: several times what a busy one needs, and less than makes a silence.
const REACH: Duration = Duration::from_secs(4);
/// How long one waits before the servers are asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// Whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    coordinator: CoordinatorId,
    since_ms: u64,
}

/// The turn of this coordinator.
#[derive(Debug)]
pub(super) struct OwnTurn {
    store: Store,
    name: CoordinatorId,
    revision: u64,
}

/// Opens the store: waits for the servers of a replicated one, however long they take.
pub(super) async fn open(config: &Config) -> Result<Store, AppError> {
    let path = config.data.join(STORE_FILE);
    let Some(servers) = &config.nats else {
        return Ok(Store::open_with(&path, config.room)?);
    };
    loop {
        let opened = Store::open_replicated(&path, config.room, config.name.as_str(), servers.clone()).await;
        match opened {
            Err(StoreError::Unreachable { words }) => {
                tracing::warn!(
                    words,
                    "the replicated store cannot be opened yet; it is tried again"
                );
                tokio::time::sleep(AGAIN).await;
            }
            opened => return Ok(opened?),
        }
    }
}

/// The store for one command while no coordinator runs here, and for what does not concern the one that may act elsewhere.
pub(super) async fn open_beside(config: &Config) -> Result<Store, AppError> {
    let path = config.data.join(STORE_FILE);
    Ok(match &config.nats {
        None => Store::open(&path)?,
        Some(servers) => {
            Store::open_replicated(&path, config.room, config.name.as_str(), servers.clone()).await?
        }
    })
}

/// The same for what the one that acts would have to know of: only while none acts elsewhere.
pub(super) async fn open_idle(config: &Config) -> Result<Store, AppError> {
    let store = open_beside(config).await?;
    if let (Some(pulses), Some((turn, _))) = (store.pulses(), store.get_json::<Turn>(KEY).await?) {
        let mut heard = pulses.listen().await?;
        if heard.hear(turn.coordinator.as_str(), PULSE * 3).await {
            return Err(AppError::OtherActs(turn.coordinator));
        }
    }
    Ok(store)
}

/// Waits until it is this coordinator's turn; `None`: the store stands alone, and it always is.
pub(super) async fn take(
    store: &Store,
    journal: &Journal,
    name: &CoordinatorId,
) -> Result<Option<OwnTurn>, AppError> {
    let Some(pulses) = store.pulses() else {
        return Ok(None);
    };
    let mut heard = pulses.listen().await?;
    // From before the first look on: an end in order is not missed.
    let mut changes = store.watch();
    let mut is_said = false;
    loop {
        let held = store.get_json::<Turn>(KEY).await?;
        let is_own = held.as_ref().is_some_and(|(turn, _)| turn.coordinator == *name);
        // What is left of it from before says nothing any more.
        if is_own && heard.hear(name.as_str(), PULSE * 3 / 2).await {
            return Err(AppError::SameName(name.clone()));
        }
        let other = held
            .as_ref()
            .filter(|_| !is_own)
            .map(|(turn, _)| &turn.coordinator);
        if let Some(lost) = store.lost() {
            // Started again, it begins from a newer copy, or says why not.
            return Err(lost.into());
        }
        if let Some(acts) = other {
            // Who could not take over does not say that it would.
            if store.failing_for().is_none() {
                pulses.send(STANDS_BY).await;
            }
            if !is_said {
                tracing::info!(%acts, "standing by");
                is_said = true;
            }
            let is_silent = tokio::select! {
                alive = heard.hear(acts.as_str(), SILENCE) => !alive,
                () = changed(&mut changes) => false,
            };
            if !is_silent || store.failing_for().is_some() || pulses.reach().await.is_err() {
                continue;
            }
            // Who cannot hear itself knows nothing of the silence of others.
            pulses.send(STANDS_BY).await;
            if !heard.hear(STANDS_BY, PULSE).await {
                tracing::error!(
                    "the servers carry no messages between coordinators (subject `STREAM.pulse`): nothing is known of {acts}, and its turn is not taken"
                );
                continue;
            }
        }
        let words = other.map_or_else(String::new, |acts| {
            format!("from {acts}, which was not heard of for {} s", SILENCE.as_secs())
        });
        let expect = held
            .as_ref()
            .map_or(Expect::Absent, |(_, revision)| Expect::Revision(*revision));
        let turn = Turn {
            coordinator: name.clone(),
            since_ms: clock::now_ms(),
        };
        let deed = journal.deed("local", "", "take-over");
        let change = Change::noted(deed.event(name.as_str(), &words)).json(KEY, expect, &turn)?;
        match store.apply(change).await {
            Ok(written) => {
                let revision = written
                    .iter()
                    .map(|change| change.revision)
                    .max()
                    .unwrap_or_default();
                store.fence(KEY, revision);
                return Ok(Some(OwnTurn {
                    store: store.clone(),
                    name: name.clone(),
                    revision,
                }));
            }
            Err(StoreError::Conflict { .. }) => {}
            Err(StoreError::Unsettled { words } | StoreError::Unreachable { words }) => {
                tracing::warn!(words, "the turn cannot be taken yet; it is tried again");
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until the record may have changed.
async fn changed(changes: &mut broadcast::Receiver<RecordChange>) {
    loop {
        match changes.recv().await {
            Ok(change) if change.key != KEY => {}
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            // Nothing changes any more.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl OwnTurn {
    /// Does what falls to the one that acts, until it does not any more: another one took over, or the log was out of reach for too long. Then
    /// `deposed` is cancelled. `faults`: what is wrong with what the store rests on.
    pub(super) async fn keep(self, deposed: CancellationToken, faults: watch::Sender<Vec<Fault>>) {
        let store = self.store.clone();
        let (fails, long) = watch::channel(None);
        tokio::select! {
            () = self.said(faults, long) => deposed.cancel(),
            () = store.keep_log_short(fails) => {}
        }
    }

    /// Says that this coordinator acts. `long`: why the log is not made shorter.
    async fn said(self, faults: watch::Sender<Vec<Fault>>, long: watch::Receiver<Option<String>>) {
        let Some(pulses) = self.store.pulses().cloned() else {
            return std::future::pending().await;
        };
        let mut reached = Instant::now();
        let mut cluster = Cluster::new(reached);
        // Who hears nobody is relieved by nobody, and goes on.
        let mut heard = pulses.listen().await.ok();
        let mut looked = tokio::time::interval(PULSE);
        looked.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looked.tick().await;
            match tokio::time::timeout(REACH, pulses.reach()).await {
                Ok(Ok(servers)) => {
                    reached = Instant::now();
                    cluster.servers(servers.count, &servers.away, reached);
                    pulses.send(self.name.as_str()).await;
                }
                _ if reached.elapsed() > SILENCE => {
                    tracing::error!(
                        "the replicated store was out of reach for {} s: this coordinator ends, so that gateways and people go to another one",
                        SILENCE.as_secs()
                    );
                    break;
                }
                _ => {}
            }
            let said = match &mut heard {
                Some(heard) => heard.so_far().await,
                None => Vec::new(),
            };
            if said.iter().any(|who| who == STANDS_BY) {
                cluster.stands_by(Instant::now());
            }
            let acts = said
                .iter()
                .find(|who| *who != STANDS_BY && *who != self.name.as_str());
            // One that was paused says so once, too; but who is relieved and does not follow the log learns it from nowhere else.
            if let Some(acts) = acts
                && self.store.failing_for().is_some()
            {
                tracing::error!(
                    %acts,
                    "another coordinator acts by now, and this one's copy of the store takes nothing: this one ends"
                );
                break;
            }
            let now = cluster.faults(long.borrow().as_deref(), Instant::now());
            faults.send_if_modified(|held| {
                let is_new = *held != now;
                *held = now;
                is_new
            });
            // Alone it goes on: people see in its health what is wrong.
            if cluster.is_relieved(SILENCE, Instant::now())
                && self.store.failing_for().is_some_and(|time| time > SILENCE)
            {
                tracing::error!(
                    "this coordinator's copy of the store took nothing for {} s: it ends, so that the one that stands by goes on",
                    SILENCE.as_secs()
                );
                break;
            }
            match self.store.get(KEY).await {
                Ok(Some(held)) if held.revision == self.revision => {}
                Ok(_) => {
                    tracing::error!("another coordinator acts by now: this one ends");
                    break;
                }
                // It shows elsewhere.
                Err(_) => {}
            }
        }
    }

    /// Gives the turn to whoever stands by.
    pub(super) async fn end(store: &Store, journal: &Journal, revision: u64, name: &CoordinatorId) {
        let deed = journal.deed("local", "", "hand-over");
        let change = Change::noted(deed.event(name.as_str(), "")).removed(KEY, revision);
        if let Err(error) = store.apply(change).await {
            tracing::warn!(error = %crate::chain(&error), "the turn was not handed over: another coordinator takes it after {} s", SILENCE.as_secs());
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }
}
