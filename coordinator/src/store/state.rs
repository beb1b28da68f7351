//! What the coordinator knows, as versioned records: the interface that an engine implements.
//!
//! Each write names the revision that it replaces; a stale one is refused, and of several at once exactly one wins. A change
//! of state is always *one* record, so that it happens whole or not at all. An answer means that it is durable, and whoever
//! has one reads what they wrote, or something newer. Revisions rise over the whole store and are never used twice.
//!
//! Beside the records there are blobs: what is large and never changes (documents, plans), by its digest.
//!
//! Not here: what the records mean (each module has its own), and the bounds and forms that all engines share (`Store`).

use penstock_policy::ids::Digest;
use tokio::sync::broadcast;

use super::Pending;

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

    /// Writes a record, or removes it (no `value`), if what is there is what `expect` says; answers with the revision of the
    /// change, else with `StoreError::Conflict`.
    fn put_if<'a>(&'a self, key: &'a str, expect: Expect, value: Option<Vec<u8>>) -> Pending<'a, u64>;

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
