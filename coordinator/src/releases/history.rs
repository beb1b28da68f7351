//! What became current, one release after another: statement and signatures of each, so that whoever verified one of
//! them can follow to the newest with the approvers in force at each.
//!
//! Kept apart from the releases' records, which hold more than this and are read seldom. The newest link is the current
//! release. Held in memory whole: about 2 KB for each release.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use penstock_policy::ids::{ApproverId, Digest, Revision};
use penstock_policy::release::{CHAIN_BYTES_MAX, CHAIN_LINKS_MAX, Statement};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::{RecordedRelease, ReleaseRecord};
use crate::store::{Change, Expect, Silent, Store, StoreError};

/// Prefix of the records.
pub(super) const PREFIX: &str = "link/";

/// A link as recorded.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkRecord {
    statement: String,
    signatures: BTreeMap<ApproverId, String>,
}

/// A release that was or is current.
#[derive(Debug)]
struct CurrentLink {
    digest: Digest,
    replaces: Vec<Digest>,
    signed: v1::SignedRelease,
}

/// All releases that became current, the oldest first.
#[derive(Debug)]
pub struct History {
    links: Vec<CurrentLink>,
    /// The first link that names other approvers than its parent does: what a gateway fresh from enrolment may lack.
    first_change: usize,
}

fn key_of(revision: Revision) -> String {
    format!("{PREFIX}{:020}", revision.0)
}

/// The number of the newest link.
pub(super) async fn newest(store: &Store) -> Result<Option<Revision>, StoreError> {
    let last = store.list_last(PREFIX, 1).await?;
    Ok(last
        .first()
        .and_then(|(key, _)| key.strip_prefix(PREFIX)?.parse().ok())
        .map(Revision))
}

/// Adds to a change that a release has all signatures it needs: it is current from there on.
pub(super) fn add(change: Change, revision: Revision, record: &ReleaseRecord) -> Result<Change, StoreError> {
    let link = LinkRecord {
        statement: record.statement.clone(),
        signatures: record.signatures.clone(),
    };
    change.json(&key_of(revision), Expect::Absent, &link)
}

/// Makes the links that a store lacks which was made before there were any; also where that was interrupted.
pub(super) async fn complete(store: &Store) -> Result<(), StoreError> {
    let linked: BTreeSet<String> = store
        .list(PREFIX)
        .await?
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    for (number, record, _) in store.list_json::<ReleaseRecord>(super::PREFIX).await? {
        if let (Ok(number), Some(_)) = (number.parse().map(Revision), record.approved_ms)
            && !linked.contains(&key_of(number))
        {
            match store
                .apply(add(Change::silent(Silent::Derived), number, &record)?)
                .await
            {
                // Somebody else does the same.
                Ok(_) | Err(StoreError::Conflict { .. }) => {}
                Err(other) => return Err(other),
            }
        }
    }
    Ok(())
}

impl History {
    /// What is recorded, up to this release.
    pub(super) async fn read(store: &Store, until: Revision) -> Result<Self, Refusal> {
        let mut links = Vec::new();
        let mut approvers = None;
        let mut first_change = None;
        for (number, record, _) in store.list_json::<LinkRecord>(PREFIX).await? {
            if number.parse().is_ok_and(|number: u64| number > until.0) {
                break;
            }
            let statement = Statement::from_bytes(record.statement.as_bytes()).map_err(|error| {
                tracing::error!(number, error = %crate::chain(&error), "a release of the history cannot be read");
                Refusal::new(
                    Reason::Internal,
                    "a release of the history cannot be read by this software",
                )
            })?;
            if approvers.is_some_and(|before| before != statement.approvers) {
                first_change.get_or_insert(links.len());
            }
            approvers = Some(statement.approvers);
            links.push(CurrentLink {
                digest: Digest::of(record.statement.as_bytes()),
                replaces: statement.replaces,
                signed: super::signed(&record.statement, &record.signatures),
            });
        }
        Ok(Self {
            first_change: first_change.unwrap_or(links.len()),
            links,
        })
    }

    /// What lies between the release `held` and the newest, both excluded, within what a gateway follows.
    pub(super) fn between(&self, held: Option<Digest>) -> Range<usize> {
        let newest = self.links.len().saturating_sub(1);
        let from = match held {
            None => self.first_change,
            // Of a history that this store does not know, nothing leads here but a release that replaces it.
            Some(held) => self.after(held).unwrap_or(newest),
        };
        self.held(from, newest)
    }

    /// What lies before `recorded`, from `since` on; all of it if `since` is not of this history.
    pub(super) fn before(&self, recorded: &RecordedRelease, since: Option<Digest>) -> Vec<v1::SignedRelease> {
        let at = |digest: Digest| self.links.iter().rposition(|link| link.digest == digest);
        let until = match (at(recorded.digest), recorded.statement.parent) {
            (Some(own), _) => own,
            (None, Some(parent)) => at(parent).map_or(0, |parent| parent + 1),
            (None, None) => 0,
        };
        self.signed(since.and_then(|since| self.after(since)).unwrap_or(0), until)
    }

    /// Where to go on from a release: behind it, or at what replaces it.
    fn after(&self, held: Digest) -> Option<usize> {
        match self.links.iter().rposition(|link| link.digest == held) {
            Some(own) => Some(own + 1),
            None => self.links.iter().rposition(|link| link.replaces.contains(&held)),
        }
    }

    /// The links of a range, of more than one answer may hold the newest.
    fn signed(&self, from: usize, until: usize) -> Vec<v1::SignedRelease> {
        let held = self.held(from, until);
        let links = self.links.get(held).unwrap_or_default();
        links.iter().map(|link| link.signed.clone()).collect()
    }

    /// Which links of a range one answer holds.
    fn held(&self, from: usize, until: usize) -> Range<usize> {
        let mut room = CHAIN_BYTES_MAX;
        let links = self.links.get(from..until).unwrap_or_default();
        let newest = links.iter().rev().take(CHAIN_LINKS_MAX).map_while(|link| {
            room = room.checked_sub(link.signed.encoded_len())?;
            Some(())
        });
        until.saturating_sub(newest.count())..until
    }

    /// A link, for the wire.
    pub(super) fn link(&self, at: usize) -> Option<&v1::SignedRelease> {
        self.links.get(at).map(|link| &link.signed)
    }
}
