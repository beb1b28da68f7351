//! Two users of one key are noticed: a thief's copy beside its gateway, or a gateway that was set back to an earlier state
//! (DESIGN §6; IEC 62443-3-3 SR 1.5, SR 1.8).
//!
//! ```text
//! welcome(ticket n+1) ─▶ on the gateway's disk ─▶ ticket held ─▶ recorded: n+1     one small write for each session
//! hello(n+1) ─▶ the same user          hello(n), or none, or one that nobody gave ─▶ two users: an alarm, and no renewal
//! ```
//!
//! Whoever copied the key has the ticket of that moment. As soon as one of both has held a later one, the other no longer has the last one. Of which is
//! the real one nothing is known, so neither is refused: sessions stand and policy is offered. Both are shown the alarm, health and
//! the trail have it, and the certificate is renewed for neither, until an admin revokes the key, or says that there is one user
//! (`resume`): a machine that was restored from a copy. Then the next one that comes counts, and if there is another, the alarm is back.
//!
//! A gateway alone never raises it. What it is given and does not store, or stores and cannot say, leaves it with the ticket that is
//! recorded, or a later one of ours: tickets carry a number, and are sealed with a key that is kept in the store beside the records
//! ([`ticket`]). So a coordinator that was restored from a backup, or whose disk took no record, takes a later ticket up without a word.
//! The price: for as long as it knows less than the gateways, of two users the one that is further is not noticed before the other comes
//! back. Nothing is written where nothing is given: two sessions that break off before `ticket held` are the same user.
//!
//! The rules hold for the store's record, so that all coordinators of a store see the same. A store that takes nothing stops no session.

mod record;
mod ticket;

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::hmac;
use bytes::Bytes;
use penstock_policy::ids::{Digest, GatewayId};
use penstock_proto::peer::{Certified, Subject};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use self::record::{Meaning, Shown, TicketRecord};
pub use self::record::{Mismatch, Origin, Twin};
use self::ticket::{SEALING_BYTES, Ticket};
use crate::clock;
use crate::journal::Journal;
use crate::store::{Change, Expect, Silent, Store, StoreError};
use crate::subjects::Subjects;

/// Prefix of the records.
const PREFIX: &str = "ticket/";
/// What seals tickets.
const SEALING: &str = "ticket-sealing";

/// All tickets. Clones share them.
#[derive(Debug, Clone)]
pub struct Tickets(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    journal: Journal,
    /// Made when the first ticket is given.
    sealing: OnceCell<hmac::Key>,
}

/// Who says hello, or that they hold a ticket.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The gateway.
    pub gateway: GatewayId,
    /// By this key.
    pub key: Digest,
    /// From there.
    pub address: IpAddr,
}

/// What a gateway hears of tickets in its welcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Greeting {
    /// The store was asked, and answered.
    pub is_known: bool,
    /// The next ticket; empty: it keeps what it has.
    pub ticket: Bytes,
    /// Its key has two users.
    pub twin: Option<Twin>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealingRecord {
    key: [u8; SEALING_BYTES],
}

fn key_of(gateway: &GatewayId) -> String {
    format!("{PREFIX}{gateway}")
}

impl Tickets {
    /// On this store.
    pub fn new(store: Store, journal: Journal) -> Self {
        Self(Arc::new(Shared {
            store,
            journal,
            sealing: OnceCell::new(),
        }))
    }

    /// What a gateway is to hear that shows this in its hello; `None`: its software knows no tickets.
    pub(crate) async fn greet(&self, holder: &Holder, shown: Option<&Bytes>) -> Greeting {
        match self.try_greet(holder, shown).await {
            Ok(greeting) => greeting,
            Err(error) => {
                let gateway = &holder.gateway;
                tracing::warn!(%gateway, error = %crate::chain(&error), "the gateway gets no new ticket; its session stands");
                Greeting::default()
            }
        }
    }

    async fn try_greet(&self, holder: &Holder, shown: Option<&Bytes>) -> Result<Greeting, StoreError> {
        let sealing = self.sealing().await?;
        let read = match shown.filter(|shown| !shown.is_empty()) {
            None => Shown::Nothing,
            Some(shown) => Ticket::read(sealing, holder.key, shown).map_or(Shown::Unknown, Shown::Ticket),
        };
        loop {
            let (record, expect) = self.recorded(&holder.gateway).await?;
            let found = record::meaning(record.as_ref(), holder.key, read, holder.origin());
            let next = match found {
                Meaning::Known(twin) => return Ok(Greeting::of_two(twin)),
                Meaning::Found(record) => {
                    let twin = record.twin.clone();
                    let written = self.found(holder, expect, &record).await;
                    match (written, twin) {
                        (Err(StoreError::Conflict { .. }), _) | (_, None) => continue,
                        (Ok(()), Some(twin)) => return Ok(Greeting::of_two(twin)),
                        (Err(error), Some(twin)) => {
                            // It is said, and found again at the next hello.
                            tracing::error!(gateway = %holder.gateway, error = %crate::chain(&error), "that the gateway has two users cannot be recorded");
                            return Ok(Greeting::of_two(twin));
                        }
                    }
                }
                Meaning::Same { next, record: None } => next,
                Meaning::Same {
                    next,
                    record: Some(record),
                } => match self.observed(&holder.gateway, expect, &record).await {
                    Err(StoreError::Conflict { .. }) => continue,
                    written => written.map(|()| next)?,
                },
            };
            let Some(random) = shown.and_then(|_| getrandom::u64().ok()) else {
                return Ok(Greeting::new());
            };
            let ticket = Ticket { number: next, random };
            return Ok(Greeting {
                ticket: Bytes::copy_from_slice(&ticket.sealed(sealing, holder.key)),
                ..Greeting::new()
            });
        }
    }

    /// A gateway says that it holds this ticket.
    pub(crate) async fn held(&self, holder: &Holder, shown: &Bytes) {
        if let Err(error) = self.try_held(holder, shown).await {
            let gateway = &holder.gateway;
            tracing::warn!(%gateway, error = %crate::chain(&error), "cannot record which ticket the gateway holds; it is seen at its next hello");
        }
    }

    async fn try_held(&self, holder: &Holder, shown: &Bytes) -> Result<(), StoreError> {
        let Some(ticket) = Ticket::read(self.sealing().await?, holder.key, shown) else {
            return Ok(());
        };
        loop {
            let (record, expect) = self.recorded(&holder.gateway).await?;
            let Some(record) = record::held(record.as_ref(), holder.key, ticket, holder.origin()) else {
                return Ok(());
            };
            match self.observed(&holder.gateway, expect, &record).await {
                Err(StoreError::Conflict { .. }) => {}
                written => return written,
            }
        }
    }

    /// Whether the certificate of this peer may be renewed.
    ///
    /// # Errors
    /// Its key has two users, or the store fails.
    pub(crate) async fn may_renew(&self, certified: &Certified) -> Result<(), Refusal> {
        let Subject::Gateway(gateway) = &certified.identity.subject else {
            return Ok(());
        };
        let (record, _) = self.recorded(gateway).await?;
        let of_key = record.filter(|record| record.key == certified.key);
        match of_key.and_then(|record| record.twin) {
            None => Ok(()),
            Some(twin) => Err(Refusal::new(
                Reason::TwoUsers,
                format!(
                    "the certificate of gateway {gateway} is not renewed, since its key has two users: {}; ask an admin: \
                     `penstock gateways revoke` ends both, `penstock gateways resume` says that there is one",
                    twin.words()
                ),
            )
            .fact("subject", &certified.identity.subject)),
        }
    }

    /// Adds to a change that this gateway has one user. `None`: nobody doubts it.
    pub(crate) async fn lift(
        &self,
        change: Change,
        gateway: &GatewayId,
        key: Option<Digest>,
    ) -> Result<Option<Change>, StoreError> {
        let (record, expect) = self.recorded(gateway).await?;
        let Some(record) = record.filter(|record| Some(record.key) == key) else {
            return Ok(None);
        };
        let lifted = record::lifted(&record);
        let lifted = lifted.map(|lifted| change.json(&key_of(gateway), expect, &lifted));
        lifted.transpose()
    }

    /// Adds to a change that a gateway's key is over: nothing is recorded of its tickets any more.
    pub(crate) async fn forget(&self, change: Change, gateway: &GatewayId) -> Result<Change, StoreError> {
        let key = key_of(gateway);
        Ok(match self.0.store.get(&key).await? {
            Some(found) => change.removed(&key, found.revision),
            None => change,
        })
    }

    /// The gateways whose key has two users.
    ///
    /// # Errors
    /// The store cannot be read, or holds records that this software does not know.
    pub async fn twins(&self, subjects: &Subjects) -> Result<Vec<(GatewayId, Twin)>, StoreError> {
        let records = self.0.store.list_json::<TicketRecord>(PREFIX).await?;
        let twins = records.into_iter().filter_map(|(name, record, _)| {
            let gateway = GatewayId::new(name).ok()?;
            let recorded = subjects.record(&Subject::Gateway(gateway.clone()));
            let counts = recorded.is_none_or(|recorded| recorded.key == Some(record.key));
            Some((gateway, record.twin.filter(|_| counts)?))
        });
        Ok(twins.collect())
    }

    async fn found(&self, holder: &Holder, expect: Expect, record: &TicketRecord) -> Result<(), StoreError> {
        let subject = Subject::Gateway(holder.gateway.clone());
        let words = record.twin.as_ref().map(|twin| {
            format!(
                "{}; its certificate is not renewed until an admin revokes its key or resumes it",
                twin.words()
            )
        });
        let event = self.0.journal.identity_event(
            "two-users",
            &subject,
            Some(holder.address),
            &words.unwrap_or_default(),
        );
        let change = Change::noted(event).json(&key_of(&holder.gateway), expect, record)?;
        self.0.store.apply(change).await?;
        tracing::error!(%subject, address = %holder.address, "two machines use the key of one gateway");
        Ok(())
    }

    async fn observed(
        &self,
        gateway: &GatewayId,
        expect: Expect,
        record: &TicketRecord,
    ) -> Result<(), StoreError> {
        let change = Change::silent(Silent::Observed).json(&key_of(gateway), expect, record)?;
        self.0.store.apply(change).await.map(|_| ())
    }

    async fn recorded(&self, gateway: &GatewayId) -> Result<(Option<TicketRecord>, Expect), StoreError> {
        Ok(match self.0.store.get_json(&key_of(gateway)).await? {
            Some((record, revision)) => (Some(record), Expect::Revision(revision)),
            None => (None, Expect::Absent),
        })
    }

    /// What seals, from the store; made where there is none.
    async fn sealing(&self) -> Result<&hmac::Key, StoreError> {
        let made = || async {
            loop {
                if let Some((found, _)) = self.0.store.get_json::<SealingRecord>(SEALING).await? {
                    return Ok(hmac::Key::new(hmac::HMAC_SHA256, &found.key));
                }
                let mut key = [0; SEALING_BYTES];
                if getrandom::fill(&mut key).is_err() {
                    return Err(StoreError::Stopped);
                }
                let change = Change::silent(Silent::Derived);
                let change = change.json(SEALING, Expect::Absent, &SealingRecord { key })?;
                match self.0.store.apply(change).await {
                    // It is there now, ours or another coordinator's.
                    Ok(_) | Err(StoreError::Conflict { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        };
        self.0.sealing.get_or_try_init(made).await
    }
}

impl Holder {
    fn origin(&self) -> Origin {
        Origin {
            address: self.address.to_string(),
            at_ms: clock::now_ms(),
        }
    }
}

impl Greeting {
    fn new() -> Self {
        Self {
            is_known: true,
            ..Self::default()
        }
    }

    fn of_two(twin: Twin) -> Self {
        Self {
            twin: Some(twin),
            ..Self::new()
        }
    }

    /// For the wire.
    pub(crate) fn to_wire(&self) -> (Bytes, Option<v1::Twin>) {
        (self.ticket.clone(), self.twin.as_ref().map(Into::into))
    }
}

#[cfg(test)]
mod tests;
