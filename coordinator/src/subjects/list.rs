//! The list of lives that are over, as the coordinator keeps it: a record that is written together with the one that it follows
//! from, and lists signed for gateways by what they hold, once for all that hold the same.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use penstock_policy::ids::GatewayId;
use penstock_policy::text;
use penstock_proto::peer::{Epoch, Subject};
use penstock_proto::v1;
use penstock_proto::withdrawn::{Held, ListError, SignedHeld, SignedList, SnapshotError, Withdrawn};
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedMutexGuard, watch};

use super::written_at;
use crate::ca::{Authority, CaError};
use crate::store::{Change, Expect, RecordChange, Silent, Store, StoreError};

/// The record.
const KEY: &str = "withdrawn/list";
/// And the number below which no life begins: a gateway knew of withdrawals that this coordinator lost.
const FLOOR: &str = "withdrawn/floor";
/// Signed lists that are kept, by what they follow: gateways hold what they were sent last, all of them about the same.
const SIGNED_MAX: usize = 64;
/// Gateways that are asked for their lists within [`ASKED_WITHIN`], each once: after a restore many come back that hold the same.
const ASKED_MAX: usize = 16;
const ASKED_WITHIN: Duration = Duration::from_secs(10);
/// A gateway is not believed to hold a list that goes further than this beyond ours: numbers are for all, and have an end.
const AHEAD_MAX: u64 = 1 << 32;
/// The longest text of what was lost and learnt back.
const RESTORED_BYTES_MAX: usize = 4096;

/// The list that counts.
#[derive(Debug)]
pub struct PublishedList {
    withdrawn: Withdrawn,
    /// How far it goes.
    pub held: Held,
}

impl PublishedList {
    /// All of it, as [`Held::digest`] is the digest of.
    pub fn snapshot(&self) -> Vec<u8> {
        self.withdrawn.snapshot()
    }

    fn of(withdrawn: Withdrawn) -> Arc<Self> {
        let held = withdrawn.held();
        Arc::new(Self { withdrawn, held })
    }
}

/// Why what a gateway gives is not taken for the list that it holds.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotProved {
    /// From before proofs.
    #[error("it has no proof of it by the plant's authority")]
    Unsigned,
    /// Whoever stole that key could withdraw everybody's.
    #[error("its proof is signed by an issuing key that was withdrawn itself")]
    Issuer,
    /// Numbers have an end.
    #[error("its number {0} is beyond all that there can have been")]
    Beyond(u64),
    /// By somebody else, or of another plant.
    #[error(transparent)]
    Signature(#[from] ListError),
    /// Another list than the one that is signed.
    #[error(transparent)]
    List(#[from] SnapshotError),
}

/// What a signed list follows.
type Follows = (u64, [u8; 32]);

pub(super) struct Lists {
    authority: Arc<Authority>,
    /// At which revision the record is. Held by whoever writes it.
    stored: tokio::sync::Mutex<Expect>,
    published: watch::Sender<Arc<PublishedList>>,
    /// Held to look and to put down, never while something is signed.
    signed: Mutex<HashMap<Follows, Option<Arc<SignedList>>>>,
    /// Held by whoever signs: what all wait for is signed once, and of all that wait for a token one keeps a thread.
    signs: Arc<tokio::sync::Mutex<()>>,
    behind: watch::Sender<Option<String>>,
    /// The highest number that a gateway claimed and none has proved, if it is one to believe; 0: there is none. Written by whoever holds `stored`.
    claimed: AtomicU64,
    /// What was lost with an older backup, and learnt back; for as long as this coordinator runs.
    restored: watch::Sender<Option<String>>,
    floor: AtomicU32,
    asked: Mutex<Asked>,
}

/// Of whom lists are asked.
struct Asked {
    since: Instant,
    /// Since then; at most [`ASKED_MAX`].
    gateways: HashSet<GatewayId>,
    /// What lists said of which all is known here, though they are none that was held here.
    known: HashSet<Follows>,
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
            signs: Arc::default(),
            behind: watch::Sender::new(None),
            claimed: AtomicU64::new(0),
            restored: watch::Sender::new(None),
            asked: Mutex::new(Asked {
                since: Instant::now(),
                gateways: HashSet::new(),
                known: HashSet::new(),
            }),
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

    /// What whoever holds this lacks, signed. A token may take its time: nobody's thread waits meanwhile but one.
    pub(super) async fn lacking(&self, held: Held, now_ms: u64) -> Option<Arc<SignedList>> {
        if let Some(made) = self.known(held) {
            return made;
        }
        let signs = self.signs.clone().lock_owned().await;
        if let Some(made) = self.known(held) {
            return made;
        }
        let list = self.published.borrow().clone();
        let Some(lacking) = list.withdrawn.since(held, self.authority.plant(), now_ms) else {
            self.keep(held, &list, None);
            return None;
        };
        let whole = list.held;
        // A list, and how far whoever takes it holds it then, if nobody else gave them more.
        let signed = self.by_authority(signs, move |authority| {
            Ok(SignedList {
                held: Some(authority.sign_held(whole)?),
                ..authority.sign_list(&lacking)?
            })
        });
        let (signed, _signs) = signed.await;
        match signed {
            Ok(made) => {
                let made = Arc::new(made);
                self.keep(held, &list, Some(made.clone()));
                Some(made)
            }
            // Not kept: by a token that is back, it is signed.
            Err(error) => {
                tracing::error!(error = %crate::chain(&error), "the list of withdrawn keys cannot be signed");
                None
            }
        }
    }

    /// Whoever waits for a list looks again.
    pub(super) fn again(&self) {
        self.published.send_modify(|_| ());
    }

    /// What was signed of the list that counts.
    fn known(&self, held: Held) -> Option<Option<Arc<SignedList>>> {
        let signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        signed.get(&(held.number, held.digest.0)).cloned()
    }

    /// Keeps what was made of `list` for whoever else holds this, unless another list counts by now.
    fn keep(&self, held: Held, list: &Arc<PublishedList>, made: Option<Arc<SignedList>>) {
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if self.published.borrow().held != list.held {
            return;
        }
        if signed.len() >= SIGNED_MAX {
            signed.clear();
        }
        signed.insert((held.number, held.digest.0), made);
    }

    /// Signs; whoever comes meanwhile waits for `signs`, which comes back with what was signed, and is held to the end also where nobody waits for that
    /// any more.
    async fn by_authority<T: Send + 'static>(
        &self,
        signs: OwnedMutexGuard<()>,
        sign: impl FnOnce(&Authority) -> Result<T, CaError> + Send + 'static,
    ) -> (Result<T, CaError>, OwnedMutexGuard<()>) {
        if self.authority.token().is_none() {
            return (sign(&self.authority), signs);
        }
        let authority = self.authority.clone();
        let signed = tokio::task::spawn_blocking(move || (sign(&authority), signs));
        match signed.await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(signed) => signed,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(Err(_)) => std::future::pending().await,
        }
    }

    /// How far the list goes, signed; `None`: the authority does not sign.
    pub(super) async fn signed_held(&self) -> Option<SignedHeld> {
        let signs = self.signs.clone().lock_owned().await;
        let held = self.published.borrow().held;
        let signed = self.by_authority(signs, move |authority| authority.sign_held(held));
        signed.await.0.ok()
    }

    /// Why what is so may surprise whoever runs this coordinator: a backup was older than what gateways hold.
    pub(super) fn restored(&self) -> watch::Receiver<Option<String>> {
        self.restored.subscribe()
    }

    /// Says so from now on; what is beyond [`RESTORED_BYTES_MAX`] only the trail says.
    pub(super) fn note_restored(&self, words: &str) {
        self.restored.send_if_modified(|said| {
            let all = match said.as_deref() {
                Some(before) if before.contains(words) => return false,
                Some(before) => format!("{before}; {words}"),
                None => words.to_owned(),
            };
            let all = text::shortened(&all, RESTORED_BYTES_MAX);
            let is_new = said.as_deref() != Some(&*all);
            if is_new {
                *said = Some(all.into_owned());
            }
            is_new
        });
    }

    /// Whether a gateway that holds this is to be asked for its list: it may say what was lost here. One that comes again and again keeps no other from
    /// being asked.
    pub(super) fn asks(&self, gateway: &GatewayId, held: Held) -> bool {
        let list = self.published.borrow().clone();
        if held == list.held || list.withdrawn.knows(held) {
            return false;
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.known.contains(&(held.number, held.digest.0)) {
            return false;
        }
        if asked.since.elapsed() >= ASKED_WITHIN {
            asked.since = Instant::now();
            asked.gateways.clear();
        }
        asked.gateways.len() < ASKED_MAX && asked.gateways.insert(gateway.clone())
    }

    /// What a gateway proves that it holds.
    pub(super) fn proved(&self, proof: &v1::WithdrawnProof) -> Result<(Held, Withdrawn), NotProved> {
        let signed = Option::<SignedHeld>::from(proof).ok_or(NotProved::Unsigned)?;
        let issuing = signed
            .issuing
            .as_ref()
            .map(|der| CertificateDer::from(der.as_slice()));
        if issuing.is_some_and(|issuing| self.authority.withdrawn_issuers().ends_issuer(&[issuing])) {
            return Err(NotProved::Issuer);
        }
        let held = signed.verify(self.authority.plant(), &self.authority.roots())?;
        if held.number.saturating_sub(self.number()) > AHEAD_MAX {
            return Err(NotProved::Beyond(held.number));
        }
        Ok((held, Withdrawn::from_snapshot(&proof.list, held)?))
    }

    /// Puts what a gateway proved to the list, with what `change` makes of what is new in it; whose earlier lives are over only now.
    pub(super) async fn merge(
        &self,
        store: &Store,
        (held, theirs): (Held, &Withdrawn),
        change: impl FnOnce(&[(Subject, Epoch)]) -> Result<Change, StoreError>,
    ) -> Result<Vec<RecordChange>, StoreError> {
        let mut stored = self.stored.lock().await;
        let mut list = self.published.borrow().withdrawn.clone();
        let news = list.merge(theirs);
        let mut written = Vec::new();
        if !news.is_empty() {
            let news: Vec<_> = news
                .into_iter()
                .filter_map(|subject| Some((subject.clone(), list.from(&subject)?)))
                .collect();
            let change = change(&news)?.json(KEY, *stored, &list)?;
            written = self.write(store, change, list, &mut stored).await?;
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.known.len() >= SIGNED_MAX {
            asked.known.clear();
        }
        asked.known.insert((held.number, held.digest.0));
        // An older list says nothing of what a longer one may.
        if held.number >= self.claimed.load(Ordering::SeqCst) {
            self.claimed.store(0, Ordering::SeqCst);
            self.behind.send_replace(None);
        }
        Ok(written)
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
        let is_believed = held.number - number <= AHEAD_MAX;
        // What nobody can have stands in the way of no other warning, nor of its end.
        let claimed = if is_believed { held.number } else { 0 };
        if claimed >= self.claimed.fetch_max(claimed, Ordering::SeqCst) {
            self.behind
                .send_replace(Some(format!("gateway {gateway}: {words}")));
        }
        if !is_believed {
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
