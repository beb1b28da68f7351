//! A coordinator that was restored from a backup learns back from its gateways whose keys were withdrawn since: each holds the list, with the
//! authority's signature over how far it goes, and gives it when it is asked for.
//!
//! ```text
//! hello: held ─ not known here ─▶ welcome asks ─▶ WithdrawnProof ─ proved ─▶ merge ─▶ list + records + event: one change ─▶ connections end
//! ```
//!
//! What was withdrawn after the backup is over again with that, at every gateway and here. Until a gateway comes that knows of it, it
//! is not: nothing here does. What no list says (who was suspended, which tokens were used) stays lost.

use penstock_policy::ids::GatewayId;
use penstock_proto::peer::{Epoch, Subject};
use penstock_proto::v1;
use penstock_proto::withdrawn::{Held, SignedHeld, Withdrawn};
use tokio::sync::watch;

use super::{Cut, Decision, Shared, SubjectRecord, Subjects, key_of, written_at};
use crate::clock;
use crate::store::{Change, StoreError};

/// How many subjects one event names.
const NAMED_MAX: usize = 16;
/// How often it is tried again where somebody else changed a record meanwhile.
const ATTEMPTS: usize = 4;

impl Subjects {
    /// Whether a gateway that holds this list is to be asked for it.
    pub(crate) fn asks(&self, gateway: &GatewayId, held: Held) -> bool {
        self.0.lists.asks(gateway, held)
    }

    /// How far the list goes, signed; `None`: the authority does not sign.
    pub(crate) async fn signed_held(&self) -> Option<SignedHeld> {
        self.0.lists.signed_held().await
    }

    /// Why a person should look through what is recorded: this coordinator was restored from an older backup.
    pub(crate) fn restored(&self) -> watch::Receiver<Option<String>> {
        self.0.lists.restored()
    }

    /// Says so from now on.
    pub(crate) fn note_restored(&self, words: &str) {
        self.0.lists.note_restored(words);
    }

    /// Writes down that a gateway gave something back (`restored`), or that what it gave is refused (`refused`).
    ///
    /// # Errors
    /// The store does not take it.
    pub(crate) async fn note(&self, step: &str, subject: &Subject, words: &str) -> Result<(), StoreError> {
        self.0.journal.peer_noted(step, subject, words).await
    }

    /// Takes the list that a gateway gives, if it proves that it is one of this plant. What is not taken is noted.
    pub(crate) async fn learn(&self, gateway: &GatewayId, proof: &v1::WithdrawnProof) {
        let words = match self.0.lists.proved(proof) {
            Ok((held, theirs)) => {
                let shared = self.0.clone();
                let gateway = gateway.clone();
                // To its end, whatever becomes of the session.
                let learnt = tokio::spawn(async move { shared.learn(&gateway, held, &theirs).await });
                match learnt.await.unwrap_or(Err(StoreError::Stopped)) {
                    Ok(()) => return,
                    Err(error) => crate::chain(&error),
                }
            }
            Err(why) => crate::chain(&why),
        };
        let words = format!("the list of withdrawn keys that it gave is not taken: {words}");
        tracing::warn!(%gateway, "{words}");
        let subject = Subject::Gateway(gateway.clone());
        if let Err(error) = self.0.journal.peer_noted("ahead", &subject, &words).await {
            tracing::warn!(%gateway, error = %crate::chain(&error), "cannot write down that a gateway knows more");
        }
    }
}

impl Shared {
    async fn learn(&self, gateway: &GatewayId, held: Held, theirs: &Withdrawn) -> Result<(), StoreError> {
        let mut last = StoreError::Stopped;
        for _ in 0..ATTEMPTS {
            match self.try_learn(gateway, held, theirs).await {
                Err(error @ StoreError::Conflict { .. }) => last = error,
                done => return done,
            }
        }
        Err(last)
    }

    async fn try_learn(&self, gateway: &GatewayId, held: Held, theirs: &Withdrawn) -> Result<(), StoreError> {
        let reason =
            format!("by the list of withdrawn keys of gateway {gateway}; this coordinator had lost it");
        let decision = Decision {
            at_ms: clock::now_ms(),
            by: "",
            reason: &reason,
        };
        let mut records = Vec::new();
        let mut words = None;
        let merged = self.lists.merge(&self.store, (held, theirs), |news| {
            let said = in_words(news, held.number);
            let subject = Subject::Gateway(gateway.clone());
            let event = self.journal.identity_event("restored", &subject, None, &said);
            words = Some(said);
            let mut change = Change::noted(event);
            for (subject, from) in news {
                let (before, expect) = self.looked_at(subject);
                if let Some(record) = SubjectRecord::learnt(before.as_deref(), *from, decision) {
                    change = change.json(&key_of(subject), expect, &record)?;
                    records.push((subject.clone(), record));
                }
            }
            Ok(change)
        });
        let written = match merged.await {
            Ok(written) => written,
            Err(error) => {
                if matches!(error, StoreError::Conflict { .. }) {
                    self.read_again(records.into_iter().map(|(subject, _)| subject))
                        .await?;
                }
                return Err(error);
            }
        };
        for (subject, record) in records {
            let at = written_at(&written, &key_of(&subject));
            self.index(subject.clone(), record, at);
            self.end_connections(subject, Cut::Now);
        }
        if let Some(words) = words {
            tracing::error!(%gateway, "{words}");
            self.lists.note_restored(&format!("gateway {gateway}: {words}"));
        }
        Ok(())
    }

    async fn read_again(&self, subjects: impl Iterator<Item = Subject>) -> Result<(), StoreError> {
        for subject in subjects {
            match self.store.get_json(&key_of(&subject)).await? {
                Some((record, revision)) => self.index(subject, record, revision),
                None => self.forget(&subject),
            }
        }
        Ok(())
    }
}

fn in_words(news: &[(Subject, Epoch)], number: u64) -> String {
    let named = news
        .iter()
        .take(NAMED_MAX)
        .map(|(subject, from)| format!("{subject} (only life {from} and later ones count)"));
    let more = match news.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!(
        "this coordinator was restored from a backup that is older than list {number} of withdrawn keys, and learnt back from the gateway: {}{more}. Who was suspended since the backup, and which \
         tokens were used, is not known: look through `penstock gateways`, `penstock operators` and the tokens that wait",
        named.collect::<Vec<_>>().join(", ")
    )
}
