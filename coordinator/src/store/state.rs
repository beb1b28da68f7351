//! What the coordinator knows, as versioned records: the interface that an engine implements.
//!
//! Each write names the revision that it replaces; a stale one is refused, and of several at once exactly one wins. What belongs
//! together is one [`Change`]: its few records and the event that the coordinator's own trail has of it are there together or
//! not at all, whatever fails and whenever the program ends. An answer means that it is durable, and whoever
//! has one reads what they wrote, or something newer. Revisions rise over the whole store and are never used twice.
//!
//! Beside the records there are blobs: what is large and never changes (documents, plans), by its digest.
//!
//! Not here: what the records mean (each module has its own), and the bounds and forms that all engines share (`Store`).

use std::collections::BTreeMap;

use penstock_policy::ids::Digest;
use serde::Serialize;
use tokio::sync::broadcast;

use super::trail::OwnEvent;
use super::{Pending, StoreError};

/// A stored value and the revision at which it was written. Revisions rise over the whole store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRecord {
    /// When it was written, counted in writes.
    pub revision: u64,
    /// The value.
    pub value: Vec<u8>,
}

/// What a write expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No record of that key.
    Absent,
    /// The record that was read at this revision.
    Revision(u64),
}

/// A record was written or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordChange {
    /// Which.
    pub key: String,
    /// Its new revision.
    pub revision: u64,
}

/// What becomes of one record.
#[derive(Debug, Clone)]
pub(super) struct RecordWrite {
    pub(super) expect: Expect,
    /// `None`: it is removed.
    pub(super) value: Option<Vec<u8>>,
}

/// Why a change of state has no event in the coordinator's own trail. There is no way to write without an event or one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silent {
    /// Nobody did anything: the coordinator remembers when a gateway was last connected, how much time has passed, or that
    /// the store takes a write.
    Observed,
    /// It follows from another record, and what happened has its event there: what older software left unfinished.
    Derived,
    /// A test or a tool prepares a store.
    Prepared,
}

/// What is written together: records by their keys, and the event that says so.
#[derive(Debug, Clone)]
pub struct Change {
    pub(super) writes: BTreeMap<String, RecordWrite>,
    pub(super) event: Option<OwnEvent>,
}

impl Change {
    /// What somebody did, with its event.
    pub(crate) fn noted(event: OwnEvent) -> Self {
        Self {
            writes: BTreeMap::new(),
            event: Some(event),
        }
    }

    /// What has no event, and why not.
    pub(crate) fn silent(_why: Silent) -> Self {
        Self {
            writes: BTreeMap::new(),
            event: None,
        }
    }

    /// Writes a record, or removes it (no `value`), if what is there is what `expect` says.
    pub(super) fn write(mut self, key: &str, expect: Expect, value: Option<Vec<u8>>) -> Self {
        self.writes.insert(key.to_owned(), RecordWrite { expect, value });
        self
    }

    /// Removes a record, if it is still the one of this revision.
    pub(crate) fn removed(self, key: &str, revision: u64) -> Self {
        self.write(key, Expect::Revision(revision), None)
    }

    /// Writes a record as JSON.
    pub(crate) fn json<T: Serialize>(self, key: &str, expect: Expect, value: &T) -> Result<Self, StoreError> {
        let value = serde_json::to_vec(value).map_err(|source| StoreError::Record {
            key: key.to_owned(),
            source,
        })?;
        Ok(self.write(key, expect, Some(value)))
    }
}

/// From which end records are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By key.
    First,
    /// By key, the last one first.
    Last,
}

/// Versioned records and blobs.
pub trait State {
    /// A record by its key.
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Option<StateRecord>>;

    /// At most `limit` records whose key begins with `prefix`. Keys are ASCII, and sorted by their bytes.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        order: Order,
        limit: usize,
    ) -> Pending<'a, Vec<(String, StateRecord)>>;

    /// Writes all records of a change and appends its event to the trail of the coordinator that it names, if each record that
    /// is there is what the change expects; answers with the new revisions in the order of the keys. Else nothing is written, and the answer
    /// is `StoreError::Conflict` with the first record that is another. Events are in the trail in the order of the revisions.
    fn apply(&self, change: Change) -> Pending<'_, Vec<RecordChange>>;

    /// Changes from now on, in the order in which they were made. A watcher that lags too far behind learns that it does.
    fn watch(&self) -> broadcast::Receiver<RecordChange>;

    /// Stores blobs, all or none of them; what is there already is left alone.
    fn put_blobs(&self, blobs: Vec<Vec<u8>>) -> Pending<'_, ()>;

    /// What is stored under a digest; the caller holds it against the digest.
    fn blob(&self, digest: Digest) -> Pending<'_, Option<Vec<u8>>>;

    /// Digests of all blobs.
    fn blob_digests(&self) -> Pending<'_, Vec<Digest>>;

    /// Removes blobs.
    fn drop_blobs(&self, digests: Vec<Digest>) -> Pending<'_, ()>;
}
