//! The list of lives that are over, as the coordinator keeps it: a record that is written together with the one that it follows
//! from, and lists signed for gateways by what they hold, once for all that hold the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use penstock_policy::ids::GatewayId;
use penstock_proto::peer::{Epoch, Subject};
use penstock_proto::withdrawn::{Held, SignedList, Withdrawn};
use tokio::sync::watch;

use super::written_at;
use crate::ca::Authority;
use crate::store::{Change, Expect, RecordChange, Silent, Store, StoreError};

/// The record.
const KEY: &str = "withdrawn/list";
/// And the number below which no life begins: a gateway knew of withdrawals that this coordinator lost.
const FLOOR: &str = "withdrawn/floor";
/// Signed lists that are kept, by what they follow: gateways hold what they were sent last, all of them about the same.
const SIGNED_MAX: usize = 64;
/// A gateway is not believed to hold a list that goes further than this beyond ours: numbers are for all, and have an end.
const AHEAD_MAX: u64 = 1 << 32;

/// The list that counts.
#[derive(Debug)]
pub struct PublishedList {
    withdrawn: Withdrawn,
    /// How far it goes.
    pub held: Held,
}

impl PublishedList {
    fn of(withdrawn: Withdrawn) -> Arc<Self> {
        let held = withdrawn.held();
        Arc::new(Self { withdrawn, held })
    }
}

/// What a signed list follows.
type Follows = (u64, [u8; 32]);

pub(super) struct Lists {
    authority: Arc<Authority>,
    /// At which revision the record is. Held by whoever writes it.
    stored: tokio::sync::Mutex<Expect>,
    published: watch::Sender<Arc<PublishedList>>,
    signed: Mutex<HashMap<Follows, Option<Arc<SignedList>>>>,
    behind: watch::Sender<Option<String>>,
    floor: AtomicU32,
}

impl Lists {
    pub(super) async fn open(store: &Store, authority: Arc<Authority>) -> Result<Self, StoreError> {
        let (withdrawn, expect) = read(store).await?;
        let floor = store.get_json::<Epoch>(FLOOR).await?;
        Ok(Self {
            authority,
            stored: tokio::sync::Mutex::new(expect),
            published: watch::Sender::new(PublishedList::of(withdrawn)),
            signed: Mutex::default(),
            behind: watch::Sender::new(None),
            floor: AtomicU32::new(floor.map_or(0, |(floor, _)| floor.0)),
        })
    }

    pub(super) fn published(&self) -> watch::Receiver<Arc<PublishedList>> {
        self.published.subscribe()
    }

    /// No life begins with a lower number.
    pub(super) fn floor(&self) -> Epoch {
        Epoch(self.floor.load(Ordering::SeqCst))
    }

    pub(super) fn behind(&self) -> watch::Receiver<Option<String>> {
        self.behind.subscribe()
    }

    /// Writes a change with what the list says by it.
    pub(super) async fn withdraw(
        &self,
        store: &Store,
        change: Change,
        subject: &Subject,
        from: Epoch,
    ) -> Result<Vec<RecordChange>, StoreError> {
        let mut stored = self.stored.lock().await;
        let mut list = self.published.borrow().withdrawn.clone();
        if !list.withdraw(subject, from) {
            return store.apply(change).await;
        }
        let change = change.json(KEY, *stored, &list)?;
        self.write(store, change, list, &mut stored).await
    }

    async fn write(
        &self,
        store: &Store,
        change: Change,
        list: Withdrawn,
        stored: &mut Expect,
    ) -> Result<Vec<RecordChange>, StoreError> {
        match store.apply(change).await {
            Ok(written) => {
                *stored = Expect::Revision(written_at(&written, KEY));
                self.publish(list);
                Ok(written)
            }
            Err(error) => {
                if matches!(error, StoreError::Conflict { .. }) {
                    let (list, expect) = read(store).await?;
                    *stored = expect;
                    self.publish(list);
                }
                Err(error)
            }
        }
    }

    fn publish(&self, list: Withdrawn) {
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        signed.clear();
        // Within the lock: nothing is signed of the list before and kept for this one.
        self.published.send_replace(PublishedList::of(list));
    }

    pub(super) fn lacking(&self, held: Held, now_ms: u64) -> Option<Arc<SignedList>> {
        let follows = (held.number, held.digest.0);
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = signed.get(&follows) {
            return made.clone();
        }
        let list = self.published.borrow().clone();
        let made = list
            .withdrawn
            .since(held, self.authority.plant(), now_ms)
            .and_then(|list| match self.authority.sign_list(&list) {
                Ok(signed) => Some(Arc::new(signed)),
                Err(error) => {
                    tracing::error!(error = %crate::chain(&error), "the list of withdrawn keys cannot be signed");
                    None
                }
            });
        if signed.len() >= SIGNED_MAX {
            signed.clear();
        }
        signed.insert(follows, made.clone());
        made
    }

    /// What is to be noted of a gateway that holds more than we do; `None`: it does not.
    /// Then no life begins below what `beyond` says.
    pub(super) async fn heard(
        &self,
        store: &Store,
        gateway: &GatewayId,
        held: Held,
        beyond: impl FnOnce() -> Epoch,
    ) -> Option<String> {
        if held.number <= self.number() {
            return None;
        }
        let mut stored = self.stored.lock().await;
        let number = self.number();
        if held.number <= number {
            return None;
        }
        let words = format!(
            "it holds a list of withdrawn keys with number {}, and this coordinator's was {number}: was it restored from a backup? \
             Withdraw again whatever was withdrawn since then",
            held.number
        );
        self.behind
            .send_replace(Some(format!("gateway {gateway}: {words}")));
        if held.number - number > AHEAD_MAX {
            return Some(words);
        }
        // At once: a life that begins meanwhile must not be one of those that are over.
        let floor = self.floor().max(beyond());
        self.floor.store(floor.0, Ordering::SeqCst);
        let written = self.go_past(store, held.number, floor, &mut stored).await;
        if let Err(error) = written {
            tracing::warn!(error = %crate::chain(&error), "the list of withdrawn keys keeps its number, which gateways are past");
        }
        Some(words)
    }

    async fn go_past(
        &self,
        store: &Store,
        number: u64,
        floor: Epoch,
        stored: &mut Expect,
    ) -> Result<(), StoreError> {
        let mut list = self.published.borrow().withdrawn.clone();
        list.go_past(number);
        let held = store.get(FLOOR).await?;
        let expect = held.map_or(Expect::Absent, |held| Expect::Revision(held.revision));
        let change = Change::silent(Silent::Observed)
            .json(FLOOR, expect, &floor)?
            .json(KEY, *stored, &list)?;
        self.write(store, change, list, stored).await.map(|_| ())
    }

    fn number(&self) -> u64 {
        self.published.borrow().held.number
    }
}

async fn read(store: &Store) -> Result<(Withdrawn, Expect), StoreError> {
    Ok(match store.get_json::<Withdrawn>(KEY).await? {
        Some((list, revision)) => (list, Expect::Revision(revision)),
        None => (Withdrawn::default(), Expect::Absent),
    })
}
