//! The coordinator's own trail is sealed as gateways seal theirs (`penstock_proto::audit::seal`): by keys that sign once, for which its identity key
//! vouches. So whoever takes its machine later cannot rewrite what operators did before.
//!
//! A seal is made where the head is known, in the transaction that puts it there ([`AtHead`]); behind it the key's file is replaced. That file is beside
//! the store and in no backup. So a store that was set back does not fit its keys any more, and that shows before anything else is written: its trail
//! goes on in a new epoch, with an event that says so, by new keys.
//!
//! What cannot be sealed is a fault, and nothing waits for it. Not here: what the seals prove (`penstock_proto::audit::verify`).

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_policy::ids::PlantId;
use penstock_policy::text;
use penstock_proto::audit::Head;
use penstock_proto::audit::chain::UNSEALED_MAX;
use penstock_proto::audit::key_file::KeyFile;
use penstock_proto::audit::seal::{NamedBlocks, SealText, signer_name, word};
use penstock_proto::audit::vouching::Vouching;
use penstock_proto::tls::server::ServerCredentials;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{SealEvent, TrailEvent};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::journal::{Journal, own_body};
use crate::store::{AtHead, HeadMade, Store, StoreError};

/// The keys of the next seal, in the data folder.
const KEYS: &str = "seal.keys";
/// What precedes the coordinator's name in the key of the record of its seals.
const PREFIX: &str = "own-seals/";

/// How often at most a trail is sealed that grows.
const EVERY: Duration = Duration::from_secs(10);
/// How soon after an event, where there was no seal for so long.
const LOOK: Duration = Duration::from_secs(1);
/// Blocks that no seal covers, of which no more wait: half of what would be taken for a trail that is not sealed any more.
const BLOCKS_MAX: u64 = UNSEALED_MAX / 2;
/// How long it is waited for a key that does not sign, and for a trail that does not grow.
const AGAIN: Duration = Duration::from_secs(60);

/// What the store knows of the seals in it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealRecord {
    /// The number of the next seal, once the key of the last one is erased.
    next: u64,
}

/// Seals the coordinator's own trail.
#[derive(Debug)]
pub(crate) struct OwnSeals {
    store: Store,
    journal: Journal,
    record: String,
    /// The name that the seals have.
    name: String,
    keys: KeyFile,
    /// Whether store and keys are known to belong together.
    is_settled: bool,
    /// The head behind the newest seal, and behind words for it.
    sealed: Option<Head>,
    newest: Option<SealText>,
    sealed_at: Option<Instant>,
    vouching: Vouching,
    vouched_at: Instant,
    /// When the identity key did not sign.
    unvouched_at: Option<Instant>,
    fault: watch::Sender<Option<String>>,
}

/// Why a store does not belong to keys that go on with seal `kept`, which are not there or damaged (`None`); `None`: it does.
fn foreign(record: Option<&SealRecord>, kept: Option<u64>) -> Option<&'static str> {
    let next = record.map_or(0, |record| record.next);
    match kept {
        None if next == 0 => None,
        None => Some("its seal keys are not on this machine, or damaged"),
        // Behind the newest seal, the machine may have stopped before its key was erased.
        Some(kept) if kept == next || kept.checked_add(1) == Some(next) => None,
        Some(kept) if kept > next => Some("it is older than its seal keys"),
        Some(_) => Some("its seal keys are older than the store"),
    }
}

impl OwnSeals {
    /// Of the trail in `store`, with the keys in the folder `data`.
    pub(crate) fn new(store: Store, journal: Journal, plant: &PlantId, data: &Path) -> Self {
        Self {
            record: format!("{PREFIX}{}", journal.source()),
            name: signer_name(plant.as_str(), journal.source()),
            keys: KeyFile::at(data.join(KEYS)),
            store,
            journal,
            is_settled: false,
            sealed: None,
            newest: None,
            sealed_at: None,
            vouching: Vouching::default(),
            vouched_at: Instant::now(),
            unvouched_at: None,
            fault: watch::channel(None).0,
        }
    }

    /// Why the trail is not sealed as it should be.
    pub(crate) fn fault(&self) -> watch::Receiver<Option<String>> {
        self.fault.subscribe()
    }

    /// Looks whether store and keys belong together; if not, a new epoch begins, with new keys. To be asked before anything is written to the
    /// trail; what fails is a fault, and tried again.
    pub(crate) async fn settle(&mut self) {
        if !self.is_settled {
            let settled = self.looked().await;
            self.is_settled = settled.is_ok();
            self.say(settled.err());
        }
    }

    async fn looked(&mut self) -> Result<(), String> {
        let words = |error: StoreError| text::sentence(&error);
        let held = self.store.get(&self.record).await.map_err(words)?;
        let kept = self.keys.number().map_err(|error| text::sentence(&error))?;
        let record = held.map(|held| serde_json::from_slice(&held.value));
        let foreign = match &record {
            Some(Err(_)) => Some("what it says of its seals cannot be read"),
            Some(Ok(record)) => foreign(Some(record), kept),
            None => foreign(None, kept),
        };
        let Some(why) = foreign else { return Ok(()) };
        // The keys first: where they cannot be replaced nothing is written, however often that is tried.
        self.keys.begin_again().map_err(|error| text::sentence(&error))?;
        self.put(false, true, Some(0), move |head| {
            Kind::Trail(TrailEvent {
                step: "epoch".to_owned(),
                epoch: head.epoch,
                sequence: head.next_sequence,
                message: format!(
                    "the coordinator's store is not the one that it left, as after it was restored from a backup: {why}. Its own trail ended at {}/{} here, \
                     and goes on in a new epoch; what it may have held beyond is not here",
                    head.epoch, head.next_sequence
                ),
                ..TrailEvent::default()
            })
        })
        .await
        .map(drop)
        .map_err(words)
    }

    /// Seals until `stop` is cancelled, and then what is left.
    pub(crate) async fn follow(mut self, credentials: Arc<ServerCredentials>, stop: CancellationToken) {
        let mut appended = self.store.appended();
        loop {
            appended.borrow_and_update();
            self.settle().await;
            let is_due = self.sealed_at.is_none_or(|at| at.elapsed() >= EVERY) || self.is_long().await;
            let is_sealed = !is_due || self.seal().await;
            self.vouch(&credentials).await;
            let rest = async {
                tokio::time::sleep(LOOK).await;
                if is_due && is_sealed {
                    let _ = tokio::time::timeout(AGAIN, appended.changed()).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = rest => {}
            }
        }
        self.seal().await;
    }

    /// Whether there are too many blocks behind the newest seal to wait any longer.
    async fn is_long(&self) -> bool {
        let head = self.store.head(self.journal.source()).await.ok().flatten();
        head.zip(self.sealed).is_some_and(|(head, sealed)| {
            head.epoch != sealed.epoch
                || head.next_sequence.saturating_sub(sealed.next_sequence) >= BLOCKS_MAX
        })
    }

    /// Seals what no seal covers; whether nothing is left.
    pub(crate) async fn seal(&mut self) -> bool {
        if !self.is_settled {
            return false;
        }
        match self.store.head(self.journal.source()).await {
            Ok(head) if head == self.sealed => return true,
            Ok(_) => {}
            // The store's own health says so.
            Err(_) => return false,
        }
        let sealed = self.sealed_now().await;
        let is_sealed = sealed.is_ok();
        self.say(sealed.err().flatten());
        is_sealed
    }

    /// `None`: the disk is short, and this waits.
    async fn sealed_now(&mut self) -> Result<(), Option<String>> {
        let keys = self.keys.keys().map_err(|error| Some(text::sentence(&error)))?;
        let next = keys.number().saturating_add(1);
        let (name, now_ms) = (self.name.clone(), clock::now_ms());
        let made = Arc::<Mutex<Option<SealText>>>::default();
        let told = made.clone();
        let put = self.put(true, false, Some(next), move |head| {
            // Nothing of it is ever shed: the chain proves all that stands before.
            let blocks = NamedBlocks {
                since: head.next_sequence,
                classes: Vec::new(),
            };
            let (text, event) = keys.seal(&name, *head, blocks, now_ms);
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
            Kind::Seal(event)
        });
        let (_, behind) = put.await.map_err(deferred)?;
        (self.sealed, self.sealed_at) = (Some(behind), Some(Instant::now()));
        self.newest = made.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Where that fails, the next seal is by the same key, which a verifier takes.
        self.keys.advance().map_err(|error| Some(text::sentence(&error)))
    }

    /// Puts the identity key's word for the newest seal into the trail, when it is due.
    pub(crate) async fn vouch(&mut self, credentials: &ServerCredentials) {
        let held = credentials.held();
        let Some(text) = self.newest.clone() else { return };
        let is_due = self
            .vouching
            .is_due(&text, held.chain(), self.vouched_at.elapsed());
        if !is_due || self.unvouched_at.is_some_and(|at| at.elapsed() < AGAIN) {
            return;
        }
        self.unvouched_at = Some(Instant::now());
        let (signed, name, asked) = (text.to_string(), self.name.clone(), held.clone());
        // Elsewhere than where the coordinator serves: a key may take its time.
        let word =
            tokio::task::spawn_blocking(move || word(&signed, &name, asked.key(), asked.chain())).await;
        let word: SealEvent = match word {
            Ok(Ok(word)) => word,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the coordinator's key does not vouch for its own trail now; it is asked again");
                return;
            }
            Err(_) => return,
        };
        let put = self.put(true, false, None, move |_| Kind::Seal(word.clone()));
        match put.await {
            Ok((before, behind)) => {
                if self.sealed == Some(before) {
                    self.sealed = Some(behind);
                }
                (self.vouched_at, self.unvouched_at) = (Instant::now(), None);
                self.vouching.vouched(text, held.chain());
            }
            Err(error) => self.say(deferred(error)),
        }
    }

    /// Puts what is made of the head behind it; the heads before and behind it.
    async fn put(
        &self,
        deferrable: bool,
        new_epoch: bool,
        next: Option<u64>,
        make: impl Fn(&Head) -> Kind + Send + 'static,
    ) -> Result<(Head, Head), StoreError> {
        let before = Arc::<Mutex<Option<Head>>>::default();
        let told = before.clone();
        let source = self.journal.source().to_owned();
        let made = AtHead::new(source, self.record.clone(), deferrable, move |head| {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(*head);
            HeadMade {
                own: own_body(make(head)),
                new_epoch,
                // What is written here has no value that JSON lacks.
                record: next.and_then(|next| serde_json::to_vec(&SealRecord { next }).ok()),
            }
        });
        let behind = self.store.append_at_head(made).await?;
        let before = before.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok((before.unwrap_or(behind), behind))
    }

    fn say(&self, fault: Option<String>) {
        self.fault.send_if_modified(|said| {
            let is_news = *said != fault;
            *said = fault;
            is_news
        });
    }
}

/// An error in words; `None`: it waits, since the disk is short, and health says so.
fn deferred(error: StoreError) -> Option<String> {
    (!matches!(error, StoreError::Reserved { .. })).then(|| text::sentence(&error))
}

#[cfg(test)]
mod tests;
