//! What one admin alone may not do, and how a second person confirms it (IEC 62443-3-3 SR 2.1, SR 2.1 RE 4).
//!
//! ```text
//! admin asks ─ permit ─▶ nobody else could confirm: done at once, "alone" in the trail
//!                     ├▶ a request waits ─ another person, another key: confirms │ rejects
//!                     └▶ the same asked again, once it is confirmed: done, and the request is gone
//! ```
//!
//! Three things make an identity of somebody's choice: a gateway's token (it carries the approvers whom the gateway will believe), a
//! device's certificate for another key than the one that counts, and a token for an admin or an approver. Nothing secret is kept while a
//! request waits: the token is made when its requester fetches it, for exactly what was confirmed.
//!
//! A second person is needed as soon as there is one: another admin or approver who has logged in, with another key. Whoever is
//! removed, revoked or suspended, whose certificate ends or who gets another role, is still counted for [`AFTERWARDS_MS`]: so nobody becomes
//! the only one by taking the others out. On the coordinator's own machine a token can be made at any time (`app::operator_token`).
//!
//! Not here: which role may ask or decide (`api/gate`), and how a token or a certificate is made (`enrolment`, `devices`).

mod record;

use std::sync::Arc;

use penstock_policy::ids::{Digest, OperatorId};
use penstock_policy::text;
use penstock_proto::peer::Subject;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::times::instant;
use tokio::sync::Mutex;

pub use self::record::{Decided, RequestRecord, Wanted};
use crate::journal::Deed;
use crate::operators::{self, ConfirmerRecord, OperatorRecord};
use crate::store::{Change, Expect, Store, StoreError};
use crate::subjects::{Standing, Subjects};

/// Prefix of the records.
pub const PREFIX: &str = "request/";
/// How long a request waits, and may be fetched, from when it was made.
pub const KEPT_MS: u64 = 7 * 86_400_000;
/// For how long somebody who can no longer confirm is counted as if they could.
pub const AFTERWARDS_MS: u64 = 30 * 86_400_000;
/// Most requests that are kept, of one operator and of all.
const KEPT_MAX: (usize, usize) = (500, 2_000);
/// Longest reason of a rejection, bytes.
const REASON_MAX: usize = 500;

/// Keeps requests, and decides whether one is needed.
#[derive(Debug, Clone)]
pub struct Requests {
    store: Store,
    subjects: Subjects,
    /// One is made at a time, so that the same asked twice at once is one.
    asking: Arc<Mutex<()>>,
}

/// Who asks or decides: a name and the key that it was proved with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Person<'a> {
    pub(crate) operator: &'a OperatorId,
    pub(crate) key: Digest,
}

/// A request with its name.
#[derive(Debug, Clone)]
pub(crate) struct NamedRequest {
    pub(crate) id: String,
    pub(crate) record: RequestRecord,
    revision: u64,
}

/// That something may be done, and by which request.
#[derive(Debug, Default)]
pub(crate) struct Permit {
    words: String,
    request: Option<(String, u64)>,
}

impl Permit {
    /// What needs nobody else.
    pub(crate) fn free() -> Self {
        Self::default()
    }

    /// Why it may be done, for the trail; empty: it needs nobody else.
    pub(crate) fn words(&self) -> &str {
        &self.words
    }

    /// Adds to the change that does it that its request is fetched.
    pub(crate) fn used(&self, change: Change) -> Change {
        match &self.request {
            Some((key, revision)) => change.removed(key, *revision),
            None => change,
        }
    }
}

/// What comes of asking.
#[derive(Debug)]
pub(crate) enum Asked {
    /// It may be done now.
    Permitted(Permit),
    /// A second person has to confirm it first.
    Waits(Box<NamedRequest>),
}

/// Who could confirm besides one person: now, and until when at the latest before.
#[derive(Debug, Default, PartialEq, Eq)]
struct Others {
    now: Vec<String>,
    before: Option<(String, u64)>,
}

impl Requests {
    /// By these records.
    pub fn new(store: Store, subjects: Subjects) -> Self {
        Self {
            store,
            subjects,
            asking: Arc::default(),
        }
    }

    /// Whether this person may do it now; else a request waits from then on. The same asked again is the same request.
    pub(crate) async fn permit(
        &self,
        person: Person<'_>,
        wanted: Wanted,
        deed: Deed<'_>,
        now_ms: u64,
    ) -> Result<Asked, Refusal> {
        let _one_at_a_time = self.asking.lock().await;
        let all = self.all().await?;
        let mut own = all
            .iter()
            .filter(|request| request.record.is_of(person) && !request.record.is_over(now_ms));
        let same = own.clone().find(|request| request.record.wanted == wanted);
        if let Some(NamedRequest { id, record, revision }) = same
            && let Some(Decided::Confirmed { by, .. }) = &record.decided
        {
            return Ok(Asked::Permitted(Permit {
                words: format!("confirmed by {by} (request {id})"),
                request: Some((key_of(id), *revision)),
            }));
        }
        let others = self.others(person, now_ms).await?;
        if others.now.is_empty() {
            return match others.before {
                None => Ok(Asked::Permitted(Permit {
                    words: "alone: nobody could confirm".to_owned(),
                    request: None,
                })),
                Some((name, until_ms)) => Err(nobody(&wanted, &name, until_ms)),
            };
        }
        if let Some(same) = same.filter(|same| same.record.decided.is_none()) {
            return Ok(Asked::Waits(Box::new(same.clone())));
        }
        wanted.can_be_judged()?;
        if own.nth(KEPT_MAX.0 - 1).is_some()
            || all.len() >= KEPT_MAX.1 && !all.iter().any(|one| one.record.is_over(now_ms))
        {
            return Err(Refusal::new(
                Reason::TooManyRequests,
                "too many requests wait for a second person already; have some of them decided first: `penstock requests`",
            ));
        }
        let request = self.ask(person, wanted, deed, &all, now_ms).await?;
        Ok(Asked::Waits(Box::new(request)))
    }

    async fn ask(
        &self,
        person: Person<'_>,
        wanted: Wanted,
        deed: Deed<'_>,
        all: &[NamedRequest],
        now_ms: u64,
    ) -> Result<NamedRequest, Refusal> {
        let mut drawn = [0; 4];
        getrandom::fill(&mut drawn)
            .map_err(|_| Refusal::new(Reason::Internal, "the system provides no random numbers"))?;
        let id: String = drawn.iter().map(|byte| format!("{byte:02x}")).collect();
        let record = RequestRecord {
            by: person.operator.clone(),
            key: person.key,
            asked_ms: now_ms,
            decided: None,
            wanted,
        };
        let event = deed.named("request").event(
            &record.wanted.target(),
            &format!("request {id} waits for a second person"),
        );
        let mut change = Change::noted(event).json(&key_of(&id), Expect::Absent, &record)?;
        // What is over makes room, a few at a time.
        for over in all.iter().filter(|one| one.record.is_over(now_ms)).take(16) {
            change = change.removed(&key_of(&over.id), over.revision);
        }
        let written = self.store.apply(change).await?;
        let key = key_of(&id);
        let revision = written.iter().find(|change| change.key == key);
        Ok(NamedRequest {
            revision: revision.map_or(0, |change| change.revision),
            id,
            record,
        })
    }

    /// What waits, was confirmed and not fetched, or was rejected; the oldest first.
    pub(crate) async fn list(&self, now_ms: u64) -> Result<Vec<NamedRequest>, StoreError> {
        let mut all = self.all().await?;
        all.retain(|request| !request.record.is_over(now_ms));
        all.sort_by_key(|request| request.record.asked_ms);
        Ok(all)
    }

    async fn all(&self) -> Result<Vec<NamedRequest>, StoreError> {
        let records = self.store.list_json::<RequestRecord>(PREFIX).await?;
        let named = records
            .into_iter()
            .map(|(id, record, revision)| NamedRequest { id, record, revision });
        Ok(named.collect())
    }

    /// Another person confirms a request.
    pub(crate) async fn confirm(
        &self,
        id: &str,
        person: Person<'_>,
        deed: Deed<'_>,
        now_ms: u64,
    ) -> Result<NamedRequest, Refusal> {
        let request = self.open(id, now_ms).await?;
        let asked_by = &request.record.by;
        if asked_by == person.operator || request.record.key == person.key {
            return Err(Refusal::new(
                Reason::SamePerson,
                format!(
                    "{asked_by} asked for this, so that another person, with another key, has to confirm it"
                ),
            ));
        }
        if let Some(decided) = &request.record.decided {
            return Err(decided_already(id, decided));
        }
        // Whoever asked may have been taken out since, and then it may not have been them.
        let subject = Subject::Operator(asked_by.clone());
        let role = operators::role_of(&self.store, asked_by).await?;
        if !self.subjects.is_current(&subject, request.record.key) || role != Some(operators::Role::Admin) {
            return Err(Refusal::new(
                Reason::IdentityWithdrawn,
                format!(
                    "{asked_by}, who asked for this, does not count as an admin with that key any longer: reject it, and have it asked for again"
                ),
            ));
        }
        let decided = Decided::Confirmed {
            by: person.operator.clone(),
            at_ms: now_ms,
        };
        let words = format!("request {id} of {asked_by}");
        self.decide(request, decided, deed, &words).await
    }

    /// Somebody rejects a request, or takes their own back.
    pub(crate) async fn reject(
        &self,
        id: &str,
        person: Person<'_>,
        reason: &str,
        deed: Deed<'_>,
        now_ms: u64,
    ) -> Result<NamedRequest, Refusal> {
        let reason = reason.trim();
        if reason.is_empty() || reason.len() > REASON_MAX {
            let what = format!("must be said, in at most {REASON_MAX} bytes: the trail keeps it");
            return Err(Refusal::new(Reason::BadRequest, format!("reject {what}")).field("reject", what));
        }
        let request = self.open(id, now_ms).await?;
        if let Some(decided @ Decided::Rejected { .. }) = &request.record.decided {
            return Err(decided_already(id, decided));
        }
        let decided = Decided::Rejected {
            by: person.operator.clone(),
            at_ms: now_ms,
            reason: text::bounded(reason, REASON_MAX).to_owned(),
        };
        let words = format!("request {id} of {}: {reason}", request.record.by);
        self.decide(request, decided, deed, &words).await
    }

    async fn open(&self, id: &str, now_ms: u64) -> Result<NamedRequest, Refusal> {
        let found = self.store.get_json::<RequestRecord>(&key_of(id)).await?;
        let open = found.filter(|(record, _)| !record.is_over(now_ms));
        let (record, revision) = open.ok_or_else(|| {
            Refusal::new(
                Reason::NotFound,
                format!("there is no request {id}: it was fetched, has ended, or never was; see `penstock requests`"),
            )
        })?;
        Ok(NamedRequest {
            id: id.to_owned(),
            record,
            revision,
        })
    }

    async fn decide(
        &self,
        mut request: NamedRequest,
        decided: Decided,
        deed: Deed<'_>,
        words: &str,
    ) -> Result<NamedRequest, Refusal> {
        request.record.decided = Some(decided);
        let key = key_of(&request.id);
        let change = Change::noted(deed.event(&request.record.wanted.target(), words));
        let change = change.json(&key, Expect::Revision(request.revision), &request.record)?;
        self.store.apply(change).await?;
        Ok(request)
    }

    /// Who could confirm a request now.
    pub(crate) async fn confirmers(
        &self,
        record: &RequestRecord,
        now_ms: u64,
    ) -> Result<Vec<String>, StoreError> {
        let person = Person {
            operator: &record.by,
            key: record.key,
        };
        Ok(self.others(person, now_ms).await?.now)
    }

    async fn others(&self, person: Person<'_>, now_ms: u64) -> Result<Others, StoreError> {
        let mut others = Others::default();
        let mut counts_until = |name: String, until_ms: u64| {
            let is_later = others
                .before
                .as_ref()
                .is_none_or(|(_, before)| *before < until_ms);
            if until_ms.saturating_add(AFTERWARDS_MS) > now_ms && is_later {
                others.before = Some((name, until_ms));
            }
        };
        let left = self
            .store
            .list_json::<ConfirmerRecord>(operators::CONFIRMERS)
            .await?;
        for (name, record, _) in left
            .into_iter()
            .filter(|(name, ..)| name != person.operator.as_str())
        {
            counts_until(name, record.until_ms);
        }
        let known = self.store.list_json::<OperatorRecord>(operators::PREFIX).await?;
        let confirming = known
            .into_iter()
            .filter(|(name, record, _)| name != person.operator.as_str() && record.role.confirms());
        for (name, record, _) in confirming {
            let Ok(operator) = OperatorId::new(name.as_str()) else {
                continue;
            };
            let subject = self.subjects.record(&Subject::Operator(operator));
            let is_active = subject
                .as_ref()
                .is_none_or(|subject| subject.standing == Standing::Active);
            let is_same_key = subject.is_some_and(|subject| subject.key == Some(person.key));
            if !is_active || is_same_key {
                continue;
            }
            match record.certificate_expires_ms {
                // Older software did not write it down.
                0 => others.now.push(name),
                until_ms if until_ms > now_ms => others.now.push(name),
                until_ms => counts_until(name, until_ms),
            }
        }
        Ok(others)
    }
}

fn key_of(id: &str) -> String {
    format!("{PREFIX}{id}")
}

fn decided_already(id: &str, decided: &Decided) -> Refusal {
    let (what, by, at_ms) = match decided {
        Decided::Confirmed { by, at_ms } => ("confirmed", by, at_ms),
        Decided::Rejected { by, at_ms, .. } => ("rejected", by, at_ms),
    };
    Refusal::new(
        Reason::Conflict,
        format!("request {id} was {what} by {by} at {} already", instant(*at_ms)),
    )
}

/// A second person is needed, and there is none any more.
fn nobody(wanted: &Wanted, name: &str, until_ms: u64) -> Refusal {
    Refusal::new(
        Reason::NobodyConfirms,
        format!(
            "{} needs a second person, and nobody can confirm it now: {name} could until {}, and for 30 days after that nobody does it alone; \
             let another admin or approver log in first, with a token that is made on the coordinator's own machine \
             (`penstock-coordinator token`)",
            wanted.target(),
            instant(until_ms)
        ),
    )
}

#[cfg(test)]
mod tests;
