//! What the coordinator keeps, behind small interfaces (DESIGN §9):
//!
//! - **state** ([`state::State`]): versioned records and blobs, with compare-and-set and watches;
//! - **trail** ([`trail::Trail`]): blocks of audit, exactly once, read page by page;
//! - **tree** ([`tree::TrailTree`]): what proves that a block is there, and that nothing was taken away.
//!
//! An engine implements all of them. `sqlite` is the one there is, alone or as one of several copies that follow a `log`, which NATS servers carry (`jetstream`);
//! `conformance` holds each against the same properties.
//! [`Store`] is what the coordinator's modules use: it adds what is the same on every engine, bounds of size, JSON, and
//! blobs that are held against their digests.
//!
//! Not here: what the records mean (each module has its own).

mod contents;
mod error;
mod fault;
mod jetstream;
mod log;
pub mod moved;
mod replicated;
mod room;
mod sqlite;
pub mod state;
pub mod terms;
pub mod trail;
pub mod tree;

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::Digest;
use penstock_policy::merkle::Hash;
use penstock_policy::merkle::growing::TreeState;
use penstock_proto::audit::Head;
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch};

pub use self::error::StoreError;
pub use self::fault::{EngineError, FaultCause};
pub use self::jetstream::{NatsSettings, Pulses, PulsesHeard};
pub use self::room::DiskReserve;
use self::sqlite::Sqlite;
use self::state::Order;
pub use self::state::{Change, Expect, RecordChange, Silent, StateRecord};
use self::terms::{Segment, Unindexed};
pub use self::trail::{
    Append, AtHead, BlockFilter, BlockSummary, Clock, Cursor, Expired, Followed, HeadMade, NewBlock, Note,
    OwnBody, OwnEvent, Page, PurgeReport, Removed, StoredBlock, block_bytes,
};
pub use self::tree::BlockInTree;

/// Largest state record, bytes; larger things are blobs.
pub const RECORD_BYTES_MAX: usize = 4 << 20;
/// Largest blob, bytes.
pub const BLOB_BYTES_MAX: usize = 128 << 20;

/// What an engine answers when it is done.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What keeps the state and the trails.
trait Engine:
    state::State + trail::Trail + tree::TrailTree + terms::TermIndex + std::fmt::Debug + Send + Sync
{
    /// What it may still take, bytes.
    fn free_bytes(&self) -> Pending<'_, u64>;

    /// What of that is kept for what must go on, bytes.
    fn reserve_bytes(&self) -> u64;

    /// From now on no write is made but while this record has this revision.
    fn fence(&self, _key: &str, _revision: u64) {}

    /// For how long this copy of a replicated store has taken nothing, whatever the others do.
    fn failing_for(&self) -> Option<Duration> {
        None
    }

    /// Why this copy of a replicated store takes nothing any more until it is opened again.
    fn lost(&self) -> Option<StoreError> {
        None
    }

    /// What it keeps is not what it was given.
    fn damaged(&self, what: String) -> StoreError;
}

/// An open store. Cheap to clone; the last clone to go stops its engine, and waits until that has closed its files.
#[derive(Clone, Debug)]
pub struct Store {
    engine: Arc<dyn Engine>,
    /// `None`: it stands alone.
    replication: Option<replicated::Replication>,
}

impl Store {
    /// Opens the store at `path`, makes it if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// The file cannot be opened or made, is not a store or damaged, or was written by newer software, or no thread
    /// can be started for writing.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, DiskReserve::default())
    }

    /// The same, with what is kept of its disk for what must go on.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(path: &Path, room: DiskReserve) -> Result<Self, StoreError> {
        Ok(Self::on(Sqlite::open(path, room)?))
    }

    fn on(engine: impl Engine + 'static) -> Self {
        Self {
            engine: Arc::new(engine),
            replication: None,
        }
    }

    /// A record by its key.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<StateRecord>, StoreError> {
        self.engine.get(key).await
    }

    /// All records whose key begins with `prefix`, by key.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, StateRecord)>, StoreError> {
        self.engine.list(prefix, Order::First, usize::MAX).await
    }

    /// The last records of a prefix by key, the last one first.
    pub(crate) async fn list_last(
        &self,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<(String, StateRecord)>, StoreError> {
        self.engine.list(prefix, Order::Last, limit).await
    }

    /// Writes a change: its records and its event, or nothing of it.
    ///
    /// # Errors
    /// A record is not what the change expects, a value is larger than a record may be, or the database cannot be written.
    pub(crate) async fn apply(&self, change: Change) -> Result<Vec<RecordChange>, StoreError> {
        let large = change.writes.iter().find_map(|(key, write)| {
            let bytes = write.value.as_ref()?.len();
            (bytes > RECORD_BYTES_MAX).then(|| (key.clone(), bytes))
        });
        if let Some((what, bytes)) = large {
            return Err(StoreError::TooLarge {
                what,
                bytes,
                bytes_max: RECORD_BYTES_MAX,
            });
        }
        self.engine.apply(change).await
    }

    /// Writes one record without an event, if what is there is what `expect` says; answers with its new revision. For tests and
    /// tools: whatever the coordinator itself does is a [`Change`].
    ///
    /// # Errors
    /// What is there is not what `expect` says, the value is larger than a record may be, or the database cannot be
    /// written.
    pub async fn put_if(&self, key: &str, expect: Expect, value: Vec<u8>) -> Result<u64, StoreError> {
        let change = Change::silent(Silent::Prepared).write(key, expect, Some(value));
        self.apply(change).await.map(|written| newest(&written))
    }

    /// Removes a record without an event if it still has `revision`, as [`Store::put_if`].
    ///
    /// # Errors
    /// The record has another revision by now, or the database cannot be written.
    pub async fn delete_if(&self, key: &str, revision: u64) -> Result<u64, StoreError> {
        let change = Change::silent(Silent::Prepared).write(key, Expect::Revision(revision), None);
        self.apply(change).await.map(|written| newest(&written))
    }

    /// Changes from now on. A watcher that lags too far behind learns that it does, and lists again.
    pub fn watch(&self) -> broadcast::Receiver<RecordChange> {
        self.engine.watch()
    }

    /// A record as JSON of `T`, with its revision.
    pub(crate) async fn get_json<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<(T, u64)>, StoreError> {
        self.get(key)
            .await?
            .map(|record| Ok((self.decode(key, &record.value)?, record.revision)))
            .transpose()
    }

    /// All records of a prefix as JSON of `T`; the key without the prefix, the value, its revision.
    pub(crate) async fn list_json<T: DeserializeOwned>(
        &self,
        prefix: &str,
    ) -> Result<Vec<(String, T, u64)>, StoreError> {
        self.list(prefix)
            .await?
            .into_iter()
            .map(|(key, record)| {
                let value = self.decode(&key, &record.value)?;
                let name = key.strip_prefix(prefix).unwrap_or(&key).to_owned();
                Ok((name, value, record.revision))
            })
            .collect()
    }

    /// Reads a record's value as JSON of `T`.
    ///
    /// # Errors
    /// The bytes are not JSON of `T`: newer software may have written them.
    pub fn decode<T: DeserializeOwned>(&self, key: &str, bytes: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(bytes).map_err(|source| StoreError::Record {
            key: key.to_owned(),
            source,
        })
    }

    /// Stores large immutable things by their digest; what is there already is left alone.
    ///
    /// # Errors
    /// One of them is larger than a blob may be, or the database cannot be written.
    pub async fn put_blobs(&self, blobs: Vec<Vec<u8>>) -> Result<(), StoreError> {
        if let Some(large) = blobs.iter().find(|blob| blob.len() > BLOB_BYTES_MAX) {
            return Err(StoreError::TooLarge {
                what: "a blob".to_owned(),
                bytes: large.len(),
                bytes_max: BLOB_BYTES_MAX,
            });
        }
        self.engine.put_blobs(blobs).await
    }

    /// A blob by its digest; its bytes are held against the digest.
    ///
    /// # Errors
    /// The database cannot be read, or the bytes do not have their digest.
    pub async fn blob(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        match self.engine.blob(digest).await? {
            Some(bytes) if Digest::of(&bytes) != digest => Err(self
                .engine
                .damaged(format!("the blob {digest} does not have its digest"))),
            other => Ok(other),
        }
    }

    /// Digests of all blobs.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn blob_digests(&self) -> Result<Vec<Digest>, StoreError> {
        self.engine.blob_digests().await
    }

    /// Removes blobs that nothing refers to any more.
    pub(crate) async fn drop_blobs(&self, digests: Vec<Digest>) -> Result<(), StoreError> {
        self.engine.drop_blobs(digests).await
    }

    /// Appends blocks of one source in order; durable when this returns. One outcome per block; none is stored behind one that is
    /// refused.
    ///
    /// # Errors
    /// The database cannot be written, or the disk has no room left for this source. What the chain refuses is not an
    /// error but an outcome.
    pub async fn append(&self, source: &str, blocks: Vec<NewBlock>) -> Result<Vec<Append>, StoreError> {
        self.engine.append(source, blocks, None).await
    }

    /// The same, with what `note` makes of it in the coordinator's own trail.
    pub(crate) async fn append_noted(
        &self,
        source: &str,
        blocks: Vec<NewBlock>,
        note: Note<[Append]>,
    ) -> Result<Vec<Append>, StoreError> {
        self.engine.append(source, blocks, Some(note)).await
    }

    /// Appends a body to the coordinator's own chain, at its head; durable when this returns. What the coordinator does is a
    /// [`Change`] or can be left out.
    #[cfg(test)]
    pub(crate) async fn append_own(
        &self,
        source: &str,
        body: bytes::Bytes,
        summary: BlockSummary,
        received_ms: u64,
    ) -> Result<Head, StoreError> {
        let own = OwnBody {
            body,
            summary,
            received_ms,
            deferrable: false,
        };
        self.engine.append_own(source, own).await
    }

    /// The same for what can be left out when the disk is short.
    pub(crate) async fn append_own_deferrable(
        &self,
        source: &str,
        body: bytes::Bytes,
        summary: BlockSummary,
        received_ms: u64,
    ) -> Result<Head, StoreError> {
        let own = OwnBody {
            body,
            summary,
            received_ms,
            deferrable: true,
        };
        self.engine.append_own(source, own).await
    }

    /// Appends to the coordinator's own chain what is made of its head, nothing between the two; durable when this returns with the new head.
    pub(crate) async fn append_at_head(&self, made: AtHead) -> Result<Head, StoreError> {
        self.engine.append_at_head(made).await
    }

    /// Removes the oldest blocks of all trails that are `expired`, at most `limit` of them; each chain goes on, and the first
    /// block that is left names the digest of the last one that is gone. The newest block of all stays. The first step that
    /// removes fewer than `limit` writes what `note` makes of all that was removed since the last time that it did.
    pub(crate) async fn drop_expired(
        &self,
        expired: Expired,
        limit: u32,
        note: Option<Note<PurgeReport>>,
    ) -> Result<PurgeReport, StoreError> {
        self.engine.drop_expired(expired, limit, note).await
    }

    /// Takes the head of a trail back to its last block of at most `epoch_max`, if it is beyond, with what `note` makes of it in
    /// the coordinator's own trail; answers with both heads.
    pub(crate) async fn rewind(
        &self,
        source: &str,
        epoch_max: u64,
        note: Option<Note<(Head, Head)>>,
    ) -> Result<Option<(Head, Head)>, StoreError> {
        self.engine.rewind(source, epoch_max, note).await
    }

    /// Where the trail of a source stands.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn head(&self, source: &str) -> Result<Option<Head>, StoreError> {
        self.engine.head(source).await
    }

    /// The first page of stored blocks that may hold what `filter` asks for, at most `limit` of them.
    ///
    /// # Errors
    /// The database cannot be read, or the look over it took longer than it may.
    pub async fn blocks(&self, filter: BlockFilter, limit: usize) -> Result<Vec<StoredBlock>, StoreError> {
        Ok(self.page(filter, None, limit).await?.blocks)
    }

    /// The page of them that begins where another one in the same order ended.
    ///
    /// # Errors
    /// As [`Store::blocks`].
    pub async fn page(
        &self,
        filter: BlockFilter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.engine.page(filter, after, limit).await
    }

    /// The block that a place stands behind; `None`: there is none, or it was removed.
    pub(crate) async fn block_before(&self, place: Cursor) -> Result<Option<StoredBlock>, StoreError> {
        self.engine.block_before(place).await
    }

    /// Opens the index by terms, whose terms are made by the rules `form`.
    pub(crate) async fn open_index(&self, form: &str) -> Result<(), StoreError> {
        self.engine.open_index(form).await
    }

    /// The blocks of the next segment of the index, at most `blocks_max`; `None`: there are not enough for one yet.
    pub(crate) async fn unindexed(&self, blocks_max: usize) -> Result<Option<Unindexed>, StoreError> {
        self.engine.unindexed(blocks_max).await
    }

    /// Adds a segment to the index.
    pub(crate) async fn index(&self, segment: Segment) -> Result<(), StoreError> {
        self.engine.index(segment).await
    }

    /// Removes from the index what retention removed from the trails.
    pub(crate) async fn prune_index(&self) -> Result<(), StoreError> {
        self.engine.prune_index().await
    }

    /// What was removed directly behind a place; `None`: nothing.
    pub(crate) async fn removed_behind(&self, after: Cursor) -> Result<Option<Removed>, StoreError> {
        self.engine.removed_behind(after).await
    }

    /// Before the oldest block that is stored.
    pub(crate) async fn beginning(&self) -> Result<Cursor, StoreError> {
        self.engine.beginning().await
    }

    /// Behind the newest durable block, and behind each newer one.
    pub fn appended(&self) -> watch::Receiver<Cursor> {
        self.engine.appended()
    }

    /// How far the tree over all trails goes.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn tree(&self) -> Result<TreeState, StoreError> {
        self.engine.tree().await
    }

    /// The first `size` leaves of it; `None`: it has not so many.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn tree_at(&self, size: u64) -> Result<Option<TreeState>, StoreError> {
        self.engine.tree_at(size).await
    }

    /// The path from leaf `index` to the root of the first `size` leaves; `None`: it is not among them.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn inclusion(&self, index: u64, size: u64) -> Result<Option<Vec<Hash>>, StoreError> {
        self.engine.inclusion(index, size).await
    }

    /// The proof that the first `size` leaves begin with the first `earlier`; `None`: there are not so many.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn consistency(&self, earlier: u64, size: u64) -> Result<Option<Vec<Hash>>, StoreError> {
        self.engine.consistency(earlier, size).await
    }

    /// A stored block by its place in the chain of its source; `None`: it is not there, or not any more.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn block_at(
        &self,
        source: &str,
        epoch: u64,
        sequence: u64,
    ) -> Result<Option<BlockInTree>, StoreError> {
        self.engine.block_at(source, epoch, sequence).await
    }

    /// What the store may still take, bytes: on its disk, and in what was removed from it.
    pub(crate) async fn free_bytes(&self) -> Result<u64, StoreError> {
        self.engine.free_bytes().await
    }

    /// What of it is kept for what must go on.
    pub fn reserve_bytes(&self) -> u64 {
        self.engine.reserve_bytes()
    }
}

/// The revision of the record that was written last.
fn newest(written: &[RecordChange]) -> u64 {
    written.last().map_or(0, |change| change.revision)
}

/// Copies the store at `from` to the new file `to`; also while a coordinator is running on it.
pub(crate) fn backup_file(from: &Path, to: &Path) -> Result<(), StoreError> {
    sqlite::backup(from, to)
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
pub(crate) mod memory;
