//! Whose keys no longer count, as this gateway knows it: the list that it keeps, how a longer one is taken, and what health says of
//! both (DESIGN §6; IEC 62443-3-3 SR 1.5, SR 1.9).
//!
//! ```text
//! session, or a file that somebody brings ─▶ verified by the plant's roots ─▶ record "withdrawn" ─▶ WithdrawnView
//!                                                                                                    ├▶ the next TLS handshake
//!                                                                                                    └▶ connections that stand
//! ```
//!
//! A list takes away and never gives: what is put together of several is as long as each. It is on the disk before it counts; on a
//! disk that takes nothing it counts all the same, and is written as soon as that works. A list that cannot be read is asked for
//! whole in the next session: until then a withdrawn key counts, which is a fault that health shows, since to refuse every device
//! instead would stop the process.
//!
//! Nothing here is about flows in the plain: a list ends TLS that ends at this gateway, and nothing else. [`own`] is about this
//! gateway's own key, `carried` about the list that comes with a release, and about giving the list back to a coordinator that lost it.

mod carried;
mod faults;
pub mod own;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_policy::text::sentence;
use penstock_proto::event::AgentStep;
use penstock_proto::peer::{Epoch, Subject};
use penstock_proto::refusal::ReceivedRefusal;
use penstock_proto::tls::data_path::PlantTrust;
use penstock_proto::v1::{Fault, Twin, WithdrawnList};
use penstock_proto::withdrawn::{ListError, SignedHeld, SignedList, SnapshotError, Withdrawn, WithdrawnView};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio_util::sync::CancellationToken;

use self::faults::faults_of;
use crate::audit::{Audit, record};
use crate::identity::Identity;
use crate::store::{Records, Store, StoreError, read_copy};
use crate::ticket::twin_in_words;

const RECORD: &str = "withdrawn";
/// Beside it: the authority's signature over how far that goes.
const PROOF: &str = "withdrawn-proof";
/// The most subjects that a list may name here: more than one message can hold, and than a plant has.
pub const SUBJECTS_MAX: usize = 100_000;
/// How many subjects one event names.
const NAMED_MAX: usize = 16;
/// How long until a list that could not be written is written again.
const AGAIN: Duration = Duration::from_secs(30);

/// Why a list is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// There is no root to judge it by.
    #[error("this gateway is not enrolled, so it cannot tell whose list it is")]
    NotEnrolled,
    /// It is not one of this plant, or builds upon another.
    #[error(transparent)]
    List(#[from] ListError),
    /// Not the one that the release names.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Whoever stole that key could withdraw everybody's.
    #[error("the list of withdrawn keys is signed by an issuing key that was withdrawn itself")]
    Issuer,
    /// More than is kept.
    #[error("with this list {0} subjects would be named, and at most {SUBJECTS_MAX} are kept")]
    TooMany(usize),
    /// Only where no agent runs: it is not on the disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An internal error in a blocking part.
    #[error("internal error while the list of withdrawn keys was taken")]
    Agent,
}

/// What is known, with a list put to it; and whose earlier lives are over only now.
///
/// # Errors
/// It is not signed for this plant by one of its roots, builds upon another list, or would name too many.
pub fn put_together(
    known: &Withdrawn,
    list: &SignedList,
    trust: PlantTrust<'_>,
) -> Result<(Withdrawn, Vec<Subject>), NotTaken> {
    let issuing = list
        .issuing
        .as_ref()
        .map(|der| CertificateDer::from(der.as_slice()));
    if issuing.is_some_and(|issuing| trust.withdrawn.ends_issuer(&[issuing])) {
        return Err(NotTaken::Issuer);
    }
    let list = list.verify(trust.plant, trust.roots)?;
    let mut together = known.clone();
    let news = together.take(&list)?;
    if together.len() > SUBJECTS_MAX {
        return Err(NotTaken::TooMany(together.len()));
    }
    Ok((together, news))
}

/// What a list brought, in words.
pub fn in_words(list: &Withdrawn, news: &[Subject]) -> String {
    if news.is_empty() {
        return "the list of withdrawn keys says nothing new".to_owned();
    }
    let named = news.iter().take(NAMED_MAX).map(|subject| {
        let from = list.from(subject).unwrap_or_default();
        format!("{subject} (only life {from} and later ones count)")
    });
    let more = match news.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!("{}{more}", named.collect::<Vec<_>>().join(", "))
}

/// From which life on each coordinator counts that a list names.
pub type Coordinators = Vec<(Subject, Epoch)>;

/// Those of this list.
pub fn coordinators_of(list: &Withdrawn) -> Coordinators {
    let coordinators = list
        .entries()
        .filter(|(subject, _)| matches!(subject, Subject::Coordinator(_)));
    coordinators
        .map(|(subject, from)| (subject.clone(), from))
        .collect()
}

/// The list on the disk; `None`: there is none.
///
/// # Errors
/// There is something, and it cannot be read: in words.
pub fn load(store: &mut dyn Records) -> Result<Option<Withdrawn>, String> {
    match store.load(RECORD) {
        Some(bytes) => parse(&bytes).map(Some),
        None => match store.unusable(RECORD) {
            Some(why) => Err(why.to_owned()),
            None => Ok(None),
        },
    }
}

/// The same from its copy in a file, while an agent holds the database.
///
/// # Errors
/// As [`load`].
pub fn peek(state_folder: &Path) -> Result<Option<Withdrawn>, String> {
    let copy = read_copy(state_folder, RECORD);
    match (copy.found, copy.fault) {
        (Some((_, bytes)), _) => parse(&bytes).map(Some),
        (None, Some(why)) => Err(why),
        (None, None) => Ok(None),
    }
}

fn parse(bytes: &[u8]) -> Result<Withdrawn, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("the record `{RECORD}` is damaged: {error}"))
}

/// Stores the list, durable when this returns well.
///
/// # Errors
/// It is not stored.
pub fn save(store: &mut dyn Records, list: &Withdrawn) -> Result<(), StoreError> {
    // Names and numbers: nothing that JSON cannot say.
    store.save(RECORD, &serde_json::to_vec(list).unwrap_or_default())
}

/// What is not as it should be.
#[derive(Debug, Default)]
struct State {
    /// Why what was on the disk is not known.
    unread: Option<String>,
    /// Why the list is in memory alone.
    unkept: Option<String>,
    /// Why the last one that a coordinator sent was refused.
    refused: Option<String>,
    /// All of it is to be asked for: what came builds upon what is not here.
    gap: bool,
    /// Up to which number a release's approvers know of withdrawn keys, where that is further than what is known here; and in words.
    lacks: Option<(u64, String)>,
    /// By which this gateway shows how far the list goes, as it came last.
    proof: Option<SignedHeld>,
    /// By the list, this gateway's own certificate is of a life that is over.
    over: Option<String>,
    /// What the coordinator said of this gateway when it refused it.
    turned_away: Option<Fault>,
    /// What the last answer to a renewal brought of roots that are not held.
    strange_roots: Option<String>,
    /// The coordinator says that two machines use this gateway's key.
    twin: Option<String>,
}

/// Keeps the list.
#[derive(Debug)]
pub struct WithdrawnKeeper {
    store: Arc<Mutex<Store>>,
    audit: Audit,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    list: watch::Sender<Arc<Withdrawn>>,
    state: Mutex<State>,
    faults: watch::Sender<Vec<Fault>>,
    /// One list is taken at a time.
    taking: AsyncMutex<()>,
    again: Duration,
}

/// The list as it was on the disk when the agent started, before anything else is known.
#[derive(Debug)]
pub struct StoredList {
    list: watch::Sender<Arc<Withdrawn>>,
    unread: Option<String>,
    proof: Option<SignedHeld>,
    /// How long until what could not be written is written again.
    again: Duration,
}

/// None: nothing was withdrawn.
impl Default for StoredList {
    fn default() -> Self {
        Self {
            list: watch::channel(Arc::default()).0,
            unread: None,
            proof: None,
            again: AGAIN,
        }
    }
}

impl StoredList {
    /// Reads it.
    pub fn read(store: &mut dyn Records) -> Self {
        let (list, unread) = match load(store) {
            Ok(found) => (found.unwrap_or_default(), None),
            Err(why) => (Withdrawn::default(), Some(why)),
        };
        Self {
            list: watch::channel(Arc::new(list)).0,
            unread,
            // One that is lost, or damaged, is asked for again.
            proof: store
                .load(PROOF)
                .and_then(|bytes| serde_json::from_slice(&bytes).ok()),
            again: AGAIN,
        }
    }

    /// What counts from now on.
    pub fn view(&self) -> WithdrawnView {
        self.list.subscribe().into()
    }

    /// Keeps it from now on, for the gateway that this is, and becomes.
    pub fn keep(
        self,
        store: Arc<Mutex<Store>>,
        audit: Audit,
        identity: watch::Receiver<Option<Arc<Identity>>>,
    ) -> Arc<WithdrawnKeeper> {
        let keeper = WithdrawnKeeper {
            store,
            audit,
            identity,
            list: self.list,
            state: Mutex::default(),
            faults: watch::channel(Vec::new()).0,
            taking: AsyncMutex::default(),
            again: self.again,
        };
        keeper.change(|state| (state.unread, state.proof) = (self.unread, self.proof));
        Arc::new(keeper)
    }
}

impl WithdrawnKeeper {
    /// What counts from now on.
    pub fn view(&self) -> WithdrawnView {
        self.list.subscribe().into()
    }

    /// What a person should know.
    pub fn faults(&self) -> watch::Receiver<Vec<Fault>> {
        self.faults.subscribe()
    }

    /// Takes what a coordinator sent. One that is refused is a fault until a good one comes, and changes nothing; whether all of it
    /// has to be asked for.
    pub async fn bring(&self, list: WithdrawnList) -> bool {
        let list = SignedList::from(list);
        match self.take(list, "by the coordinator").await {
            Ok(_) => false,
            Err(why) => {
                let gap = matches!(why, NotTaken::List(ListError::Gap { .. }));
                self.change(|state| {
                    state.gap |= gap;
                    state.refused = Some(sentence(&why));
                });
                gap
            }
        }
    }

    /// Takes a list, wherever it comes from (`how`, for the trail); what is so then, in words.
    ///
    /// # Errors
    /// It is not one of this plant, or builds upon another: nothing is changed.
    pub async fn take(&self, list: SignedList, how: &str) -> Result<String, NotTaken> {
        let identity = self.identity.borrow().clone().ok_or(NotTaken::NotEnrolled)?;
        let held = list.held.clone();
        let put = move |known: &Withdrawn| {
            let (together, news) = put_together(known, &list, identity.plant_trust())?;
            let trust = identity.plant_trust();
            let proof = held.filter(|held| {
                let proved = held.verify(trust.plant, trust.roots);
                proved.is_ok_and(|proved| proved == together.held())
            });
            Ok((together, news, proof))
        };
        self.put(how, put).await
    }

    /// Puts something to the list, durable before it counts; what is so then, in words.
    async fn put(
        &self,
        how: &str,
        put: impl FnOnce(&Withdrawn) -> Result<(Withdrawn, Vec<Subject>, Option<SignedHeld>), NotTaken>
        + Send
        + 'static,
    ) -> Result<String, NotTaken> {
        let _one = self.taking.lock().await;
        let known = self.list.borrow().clone();
        let (together, news, proof, stored) = {
            let (store, known) = (self.store.clone(), known.clone());
            let is_on_disk = {
                let state = self.lock();
                state.unread.is_none() && state.unkept.is_none()
            };
            let is_proved = self.lock().proof.clone();
            let taken = tokio::task::spawn_blocking(move || {
                let (together, news, proof) = put(&known)?;
                // A signed list can be sent again and again by whoever saw it: what is on the disk already is not written again.
                let stored = match is_on_disk && together == *known {
                    true => Ok(()),
                    false => save(&mut *locked(&store), &together).map_err(|error| sentence(&error)),
                };
                if proof.is_some() && proof != is_proved {
                    carried::save_proof(&mut *locked(&store), proof.as_ref());
                }
                Ok::<_, NotTaken>((together, news, proof, stored))
            });
            taken.await.map_err(|_| NotTaken::Agent)??
        };
        let words = in_words(&together, &news);
        let number = together.held().number;
        self.change(|state| {
            (state.gap, state.refused) = (false, None);
            state.lacks.take_if(|(lacking, _)| *lacking <= number);
            state.proof = proof.or_else(|| state.proof.take());
            state.unkept = stored.err();
            if state.unkept.is_none() {
                state.unread = None;
            }
        });
        if together != *known {
            self.list.send_replace(Arc::new(together));
        }
        if !news.is_empty() {
            tracing::warn!("keys no longer count, {how}: {words}");
            self.audit.note(record::agent(
                AgentStep::KeysWithdrawn,
                &format!("{how}: {words}"),
            ));
        }
        Ok(words)
    }

    /// The coordinator refuses this gateway.
    pub fn turned_away(&self, refusal: &ReceivedRefusal) {
        if let Some(fault) = own::refusal_fault(refusal) {
            self.change(|state| state.turned_away = Some(fault));
        }
    }

    /// It no longer does.
    pub fn welcomed(&self) {
        self.change(|state| state.turned_away = None);
    }

    /// The coordinator says that two machines use this gateway's key, or that one does.
    pub fn two_users(&self, twin: Option<&Twin>) {
        self.change(|state| state.twin = twin.map(twin_in_words));
    }

    /// The last answer to a renewal brought these roots, in words, or none that is not held.
    pub fn brought_roots(&self, strange: Option<String>) {
        self.change(|state| state.strange_roots = strange);
    }

    /// Looks after the list until `stop` is cancelled: writes again what could not be written, and holds this gateway's own certificate
    /// against it.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut view = self.view();
        let mut identity = self.identity.clone();
        let mut identity_lives = true;
        loop {
            let current = identity.borrow_and_update().clone();
            let over = current.and_then(|identity| own::over_by(&identity, &view.now()));
            self.change(|state| state.over = over);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = identity.changed(), if identity_lives => identity_lives = changed.is_ok(),
                _ = view.grown() => {}
                () = tokio::time::sleep(self.again) => self.write_again().await,
            }
        }
    }

    async fn write_again(&self) {
        if self.lock().unkept.is_none() {
            return;
        }
        let _one = self.taking.lock().await;
        let (store, list) = (self.store.clone(), self.list.borrow().clone());
        let stored = tokio::task::spawn_blocking(move || save(&mut *locked(&store), &list)).await;
        if let Ok(stored) = stored {
            let unkept = stored.err().map(|error| sentence(&error));
            self.change(|state| state.unkept = unkept);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is so, and shows what is wrong from now on; a fault is an event when it begins, and when it changes.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let faults = faults_of(&state);
        self.faults.send_if_modified(|shown| {
            if *shown == faults {
                return false;
            }
            for fault in faults.iter().filter(|fault| !shown.contains(fault)) {
                tracing::warn!(code = fault.code, "{}", fault.message);
                self.audit.note(record::agent(&fault.code, &fault.message));
            }
            shown.clone_from(&faults);
            true
        });
    }
}

fn locked(store: &Mutex<Store>) -> std::sync::MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
