//! Who counts: of each subject one record, which life of it is current, by which key, and whether it stands (DESIGN §6;
//! IEC 62443-3-3 SR 1.3, SR 1.5, SR 1.9).
//!
//! ```text
//! certificate ─ judge(record) ─▶ counts │ adopted, and recorded │ refused, with the reason
//! a decision ─ SubjectRecord::changed ─▶ record + event + list: one change ─▶ index ─▶ the connections of the subject end
//! ```
//!
//! A certificate says who somebody is and in which life; the record (`subject/<kind>/<name>`) says whether that is the life that
//! counts. What is recorded is held in memory too, so that a call is judged without the store. Nobody is locked out for lack of
//! a record: neither those who enrolled before there were records, nor those of a coordinator that was restored from a backup.
//!
//! **Nothing that was judged before outlives a change.** A call is served by a connection, and that has its place among the standing ones
//! before its first call is read. A change is durable first, then in memory, and then whatever stands ends. So a call is judged by
//! the new record, or its connection stands by then and is cut: whatever goes on of it within the coordinator came before the change.
//!
//! What a change does runs to its end, also if whoever asked for it hangs up: memory never falls behind the store.
//!
//! Not here: who may decide (`identities`), and what gateways do with the list (`list` only keeps and signs it).

mod list;
mod record;
mod restored;
mod step;
mod words;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use penstock_policy::ids::{Digest, GatewayId, PlantId, RoleName};
use penstock_proto::peer::{Certified, Epoch, PeerIdentity, Subject};
use penstock_proto::refusal::Refusal;
use penstock_proto::tls::server::Reception;
use penstock_proto::withdrawn::{Held, SignedList};
use tokio::sync::watch;

use self::list::Lists;
pub use self::list::PublishedList;
use self::record::UNSEEN_LIVES;
pub(crate) use self::record::in_role;
pub use self::record::{
    Decision, Judgement, KEYS_MAX, KeyRefused, NotCounting, Standing, StandingChange, SubjectRecord, judge,
};
use self::step::LookedAt;
pub(crate) use self::step::{Cut, Life, Step};
use self::words::{key_refused, not_counting, other_key};
use crate::ca::Authority;
use crate::clock;
use crate::journal::Journal;
use crate::store::{Change, Expect, RecordChange, Store, StoreError};

/// Prefix of the records.
pub const PREFIX: &str = "subject/";

/// All subjects. Clones share them.
#[derive(Clone)]
pub struct Subjects(Arc<Shared>);

struct Shared {
    store: Store,
    journal: Journal,
    plant: PlantId,
    index: RwLock<HashMap<Subject, Indexed>>,
    lists: Lists,
    /// One operator's key is given at a time.
    giving: tokio::sync::Mutex<()>,
    /// Where they connect; nobody has before one is there.
    receptions: RwLock<Vec<Arc<Reception>>>,
}

struct Indexed {
    record: Arc<SubjectRecord>,
    revision: u64,
}

impl fmt::Debug for Subjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subjects")
    }
}

fn key_of(subject: &Subject) -> String {
    format!("{PREFIX}{subject}")
}

impl Subjects {
    /// Reads what is recorded.
    ///
    /// # Errors
    /// The store cannot be read, or holds records that this software does not know.
    pub async fn open(store: Store, journal: Journal, authority: Arc<Authority>) -> Result<Self, StoreError> {
        let records = store.list_json::<SubjectRecord>(PREFIX).await?;
        let named = records.into_iter().filter_map(|(name, record, revision)| {
            let record = Arc::new(record);
            Some((name.parse().ok()?, Indexed { record, revision }))
        });
        Ok(Self(Arc::new(Shared {
            index: RwLock::new(named.collect()),
            plant: authority.plant().clone(),
            lists: Lists::open(&store, authority).await?,
            store,
            journal,
            giving: tokio::sync::Mutex::default(),
            receptions: RwLock::default(),
        })))
    }

    /// Who ends the connections of those whose record changes, too.
    pub fn connect_at(&self, reception: Arc<Reception>) {
        let mut receptions = self.0.receptions.write().unwrap_or_else(PoisonError::into_inner);
        receptions.push(reception);
    }

    /// What is recorded of a subject.
    pub fn record(&self, subject: &Subject) -> Option<Arc<SubjectRecord>> {
        self.0.indexed(subject).map(|(record, _)| record)
    }

    /// What is recorded of all of a kind.
    pub fn of_kind(&self, kind: &str) -> Vec<(Subject, Arc<SubjectRecord>)> {
        let index = self.0.index.read().unwrap_or_else(PoisonError::into_inner);
        let of_kind = index.iter().filter(|(subject, _)| subject.kind() == kind);
        of_kind
            .map(|(subject, indexed)| (subject.clone(), indexed.record.clone()))
            .collect()
    }

    /// How many of a kind stand so, by what is recorded.
    pub fn standings(&self, kind: &str) -> [(Standing, u64); 4] {
        let index = self.0.index.read().unwrap_or_else(PoisonError::into_inner);
        Standing::ALL.map(|standing| {
            let of_kind = index.iter().filter(|(subject, _)| subject.kind() == kind);
            let count = of_kind
                .filter(|(_, indexed)| indexed.record.standing == standing)
                .count();
            (standing, count as u64)
        })
    }

    /// That the key of a gateway does not count, since when, by whom and why, in words; `None`: it does, as far as is recorded.
    pub fn out_of_service(&self, gateway: &GatewayId) -> Option<String> {
        let record = self.record(&Subject::Gateway(gateway.clone()))?;
        words::out_of_service(&record)
    }

    /// Whether this certificate may be let in, or would be.
    ///
    /// # Errors
    /// It does not count.
    pub fn judge(&self, certified: &Certified) -> Result<Judgement, Refusal> {
        let subject = &certified.identity.subject;
        let record = self.record(subject);
        match judge(record.as_deref(), certified.epoch, certified.key) {
            Judgement::Refused(why) => Err(not_counting(subject, record.as_deref(), why)),
            judgement => Ok(judgement),
        }
    }

    /// Lets whoever holds this certificate in, if it counts. One of which nothing is recorded is, from then on; while the store takes
    /// nothing, it is let in all the same, and judged again the next time.
    ///
    /// # Errors
    /// It does not count, which the trail then says.
    pub(crate) async fn admit(&self, certified: &Certified, address: IpAddr) -> Result<(), Refusal> {
        let subject = &certified.identity.subject;
        loop {
            match self.judge(certified) {
                Ok(Judgement::Adopted) => {}
                Ok(_) => return Ok(()),
                Err(refusal) => {
                    metrics::counter!("penstock_denied_total", "reason" => refusal.reason.as_str())
                        .increment(1);
                    let written = self.0.journal.peer_refused(subject, address, &refusal.message);
                    written.await?;
                    return Err(refusal);
                }
            }
            match self.adopt(certified, address).await {
                Ok(()) => return Ok(()),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => {
                    tracing::warn!(%subject, error = %crate::chain(&error), "cannot record whose certificate counts; it is let in");
                    return Ok(());
                }
            }
        }
    }

    async fn adopt(&self, certified: &Certified, address: IpAddr) -> Result<(), StoreError> {
        let subject = &certified.identity.subject;
        let (before, expect) = self.0.looked_at(subject);
        let words = match &before {
            Some(record) if record.epoch < certified.epoch => format!(
                "life {}, key {}; recorded was life {}, so that this coordinator lost records",
                certified.epoch, certified.key, record.epoch
            ),
            _ => format!("life {}, key {}", certified.epoch, certified.key),
        };
        let decision = Decision {
            at_ms: clock::now_ms(),
            by: "",
            reason: "by its certificate, of which nothing was recorded",
        };
        let record = SubjectRecord {
            role: certified.role.clone(),
            ..SubjectRecord::adopted(before.as_deref(), certified.epoch, certified.key, decision)
        };
        let has_other = before.is_some_and(|record| record.key.is_some());
        let step = Step {
            subject: subject.clone(),
            expect,
            record,
            withdraws: None,
            cut: if has_other { Cut::Now } else { Cut::Nothing },
        };
        let event = self
            .0
            .journal
            .identity_event("adopted", subject, Some(address), &words);
        self.apply(Change::noted(event), Some(step)).await
    }

    /// The life of a subject for which a key gets a certificate. `is_again`: it was given one before by the same token; of that, nothing
    /// may be recorded yet.
    ///
    /// # Errors
    /// The key, or the subject, gets none.
    pub(crate) fn with_key(
        &self,
        subject: &Subject,
        key: Digest,
        decision: Decision<'_>,
        is_again: bool,
    ) -> Result<Life, Refusal> {
        let role = self.role(subject);
        self.with_key_in_role(subject, (key, role.as_ref()), decision, is_again)
    }

    /// The role that certificates give a device.
    pub(crate) fn role(&self, subject: &Subject) -> Option<RoleName> {
        self.record(subject)?.role.clone()
    }

    /// The same in a role, or in none.
    ///
    /// # Errors
    /// As [`Self::with_key`].
    pub(crate) fn with_key_in_role(
        &self,
        subject: &Subject,
        (key, role): (Digest, Option<&RoleName>),
        decision: Decision<'_>,
        is_again: bool,
    ) -> Result<Life, Refusal> {
        let looked_at = self.0.step_from(subject);
        let now = looked_at.record();
        let next = match now {
            None if is_again => Some(SubjectRecord {
                role: role.cloned(),
                ..SubjectRecord::adopted(None, Epoch::default(), key, decision)
            }),
            _ => SubjectRecord::with_key_in_role(now, key, role, decision)
                .map_err(|why| key_refused(subject, now, key, why))?,
        };
        if is_again && now.is_some() && next.is_some() {
            // Another took the place of the key that this token was for.
            return Err(not_counting(subject, now, NotCounting::Over));
        }
        Ok(looked_at.life(now, next))
    }

    /// The life in which whoever holds this certificate gets another one, for the same key. A thief who could renew it for a key of his own
    /// would push the real one out: a new key takes a token.
    ///
    /// # Errors
    /// The certificate does not count, or another key is asked for.
    pub(crate) fn renewed(&self, certified: &Certified, key: Digest, at_ms: u64) -> Result<Life, Refusal> {
        let subject = &certified.identity.subject;
        let looked_at = self.0.step_from(subject);
        let now = looked_at.record();
        let adopted = match judge(now, certified.epoch, certified.key) {
            Judgement::Counts => None,
            Judgement::Adopted => {
                let decision = Decision {
                    at_ms,
                    by: "",
                    reason: "by its certificate, of which nothing was recorded",
                };
                Some(SubjectRecord::adopted(
                    now,
                    certified.epoch,
                    certified.key,
                    decision,
                ))
            }
            Judgement::Refused(why) => return Err(not_counting(subject, now, why)),
        };
        if key != certified.key {
            return Err(other_key(subject));
        }
        Ok(looked_at.life(adopted.as_ref().or(now), adopted.clone()))
    }

    /// Another operator than this one who logs in, or did, with this key: one person with two names would have the duties of both.
    pub(crate) fn other_operator(&self, subject: &Subject, key: Digest) -> Option<Subject> {
        let index = self.0.index.read().unwrap_or_else(PoisonError::into_inner);
        let mut others = index
            .iter()
            .filter(|(other, _)| other.kind() == "operator" && *other != subject);
        let found = others.find(|(_, indexed)| {
            let record = &indexed.record;
            record.key == Some(key) || record.before == Some(key) || record.withdrawn.contains(&key)
        });
        found.map(|(other, _)| other.clone())
    }

    /// Holds others up who would give an operator a key, between looking whose it is and writing it down.
    pub(crate) async fn giving_keys(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.giving.lock().await
    }

    /// Whether this is the key that counts for a subject now.
    pub(crate) fn is_current(&self, subject: &Subject, key: Digest) -> bool {
        self.record(subject)
            .is_some_and(|record| record.standing == Standing::Active && record.key == Some(key))
    }

    /// What an admin decides of a subject; `None`: it does not fit how it stands.
    pub(crate) fn changed(
        &self,
        subject: &Subject,
        change: StandingChange,
        decision: Decision<'_>,
    ) -> Option<Step> {
        let looked_at = self.0.step_from(subject);
        let record = SubjectRecord::changed(looked_at.record(), change, decision)?;
        Some(looked_at.decided(change, record))
    }

    /// Writes a change with what becomes of a subject by it, and then lets that hold. After a conflict the record was read again.
    pub(crate) async fn apply(&self, change: Change, step: Option<Step>) -> Result<(), StoreError> {
        let Some(step) = step else {
            return self.0.store.apply(change).await.map(|_| ());
        };
        let shared = self.0.clone();
        // To its end, whoever waits for it.
        let done = tokio::spawn(async move { shared.apply(change, step).await });
        done.await.unwrap_or(Err(StoreError::Stopped))
    }

    /// Ends the connections of a subject whose key counts on: what they were let in by is judged again.
    pub(crate) fn end_sessions(&self, subject: &Subject) {
        self.0.end_connections(subject.clone(), Cut::Now);
    }

    /// What sessions hold against what their gateways hold.
    pub(crate) fn list(&self) -> watch::Receiver<Arc<PublishedList>> {
        self.0.lists.published()
    }

    /// What whoever holds `held` lacks of the list, signed; `None`: nothing. (With number 0: all of it.)
    pub(crate) async fn lacking(&self, held: Held) -> Option<Arc<SignedList>> {
        self.0.lists.lacking(held, clock::now_ms()).await
    }

    /// Whatever could not be signed for gateways can be now.
    pub(crate) fn list_again(&self) {
        self.0.lists.again();
    }

    /// A gateway says how far its list goes. If that is further than ours, what is said from now on has to go further still.
    pub(crate) async fn heard(&self, gateway: &GatewayId, held: Held) {
        let beyond = || self.0.beyond();
        let Some(words) = self.0.lists.heard(&self.0.store, gateway, held, beyond).await else {
            return;
        };
        let subject = Subject::Gateway(gateway.clone());
        let written = self.0.journal.peer_noted("ahead", &subject, &words).await;
        if let Err(error) = written {
            tracing::warn!(%gateway, error = %crate::chain(&error), "cannot write down that a gateway knows more");
        }
    }

    /// Why our list may lack something.
    pub(crate) fn behind(&self) -> watch::Receiver<Option<String>> {
        self.0.lists.behind()
    }
}

impl Shared {
    fn indexed(&self, subject: &Subject) -> Option<(Arc<SubjectRecord>, u64)> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let indexed = index.get(subject)?;
        Some((indexed.record.clone(), indexed.revision))
    }

    fn looked_at(&self, subject: &Subject) -> (Option<Arc<SubjectRecord>>, Expect) {
        match self.indexed(subject) {
            Some((record, revision)) => (Some(record), Expect::Revision(revision)),
            None => (None, Expect::Absent),
        }
    }

    fn step_from<'a>(&self, subject: &'a Subject) -> LookedAt<'a> {
        let (before, expect) = self.looked_at(subject);
        LookedAt::new(subject, before, expect, self.lists.floor())
    }

    /// A life that nobody began: what was lost with a backup lies before it.
    fn beyond(&self) -> Epoch {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let last = index.values().map(|indexed| indexed.record.epoch).max();
        Epoch(last.unwrap_or_default().0.saturating_add(UNSEEN_LIVES))
    }

    fn index(&self, subject: Subject, record: SubjectRecord, revision: u64) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if index.get(&subject).is_none_or(|held| held.revision < revision) {
            let record = Arc::new(record);
            index.insert(subject, Indexed { record, revision });
        }
    }

    fn forget(&self, subject: &Subject) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.remove(subject);
    }

    async fn apply(&self, change: Change, step: Step) -> Result<(), StoreError> {
        let key = key_of(&step.subject);
        let change = change.json(&key, step.expect, &step.record)?;
        let written = match step.withdraws {
            Some(from) => {
                self.lists
                    .withdraw(&self.store, change, &step.subject, from)
                    .await
            }
            None => self.store.apply(change).await,
        };
        let written = match written {
            Ok(written) => written,
            Err(error) => {
                if matches!(error, StoreError::Conflict { .. }) {
                    match self.store.get_json(&key).await? {
                        Some((record, revision)) => self.index(step.subject, record, revision),
                        None => self.forget(&step.subject),
                    }
                }
                return Err(error);
            }
        };
        self.index(step.subject.clone(), step.record, written_at(&written, &key));
        self.end_connections(step.subject, step.cut);
        Ok(())
    }

    fn end_connections(&self, subject: Subject, cut: Cut) {
        let peer = PeerIdentity {
            plant: self.plant.clone(),
            subject,
        };
        let receptions = self.receptions.read().unwrap_or_else(PoisonError::into_inner);
        let ends: Vec<_> = receptions
            .iter()
            .map(|reception| reception.standing(&peer))
            .collect();
        let end = move || ends.into_iter().map(|end| end()).sum();
        let ended = move |count: usize| {
            if count > 0 {
                tracing::info!(%peer, connections = count, "its connections ended, since an admin decided about its key");
            }
        };
        match cut {
            Cut::Nothing => {}
            Cut::Now => ended(end()),
        }
    }
}

/// The revision at which a record of a change was written.
fn written_at(written: &[RecordChange], key: &str) -> u64 {
    let of_key = written.iter().find(|written| written.key == key);
    of_key.map_or(0, |written| written.revision)
}

#[cfg(test)]
mod tests;
