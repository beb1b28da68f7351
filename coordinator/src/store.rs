//! What the coordinator keeps, behind two small interfaces (DESIGN §9), on SQLite:
//!
//! - **state**: versioned records: [`Store::get`], [`Store::put_if`], [`Store::delete_if`], [`Store::list`],
//!   [`Store::watch`]. Each write names the revision that it replaces; a stale write is refused. A change of
//!   state is always *one* record, so that it happens whole or not at all.
//! - **audit**: [`Store::append`], [`Store::append_own`], [`Store::head`], [`Store::blocks`]. Blocks, never
//!   single events; exactly once by (source, epoch, sequence); linked (see `penstock_proto::audit`).
//!
//! Beside them [`Store::put_blobs`] and [`Store::blob`] hold what is large and never changes (documents,
//! plans), by its digest.
//!
//! One thread writes; what waits is committed together (`synchronous=FULL`), so that an answer means "on disk".
//! All queues are bounded, and who may write while the disk gets short stands in `room`. A disk that is full, damaged or busy is a named error, and what was committed stays.
//!
//! Not here: what the records mean (each module has its own), and other engines (a later one replaces this file).

mod audit;
mod error;
mod fault;
mod room;
mod scan;
mod schema;
mod state;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use penstock_policy::ids::Digest;
use penstock_proto::audit::Head;
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub use self::audit::{
    Append, BlockFilter, BlockSummary, Clock, NewBlock, PurgeReport, StoredBlock, block_bytes,
};
pub use self::error::StoreError;
pub use self::fault::{EngineError, FaultCause};
pub use self::room::DiskReserve;
pub use self::state::{Expect, RecordChange, StateRecord};
use self::writer::Command;

/// Largest state record, bytes; larger things are blobs.
pub const RECORD_BYTES_MAX: usize = 4 << 20;
/// Largest blob, bytes.
pub const BLOB_BYTES_MAX: usize = 128 << 20;
/// Commands that may wait for the writer.
const QUEUE_MAX: usize = 1024;
/// Read connections kept open.
const READERS_MAX: usize = 4;
/// Changes that a watcher may fall behind before it has to list anew.
const CHANGES_MAX: usize = 1024;

/// An open store. Cheap to clone; the last clone to go stops the writer.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    room: DiskReserve,
    writer: mpsc::Sender<Command>,
    readers: Mutex<Vec<Connection>>,
    scans: scan::ScanRoom,
    changes: broadcast::Sender<RecordChange>,
    last_block: watch::Receiver<i64>,
}

impl Store {
    /// Opens the store at `path`, makes it if it is not there, and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, DiskReserve::default())
    }

    /// The same, with what is kept of its disk for what must go on.
    pub fn open_with(path: &Path, room: DiskReserve) -> Result<Self, StoreError> {
        let room = room.on_disk_of(path);
        let mut connection = Connection::open(path).map_err(|e| StoreError::from_sqlite(path, e))?;
        schema::prepare(&mut connection).map_err(|e| e.at(path))?;
        let (changes, _) = broadcast::channel(CHANGES_MAX);
        let (writer, commands) = mpsc::channel(QUEUE_MAX);
        let last_block = audit::last_block(&connection).map_err(|e| StoreError::from_sqlite(path, e))?;
        let (appended, last_block) = watch::channel(last_block);
        writer::spawn(
            connection,
            path.to_owned(),
            room,
            commands,
            changes.clone(),
            appended,
        )?;
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                room,
                writer,
                readers: Mutex::new(Vec::new()),
                scans: scan::ScanRoom::default(),
                changes,
                last_block,
            }),
        })
    }

    async fn write<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.inner
            .writer
            .send(make(reply))
            .await
            .map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// Runs `read` on a read connection, off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || {
            let pooled = lock(&inner.readers).pop();
            let connection = match pooled {
                Some(connection) => connection,
                None => open_reader(&inner.path)?,
            };
            let outcome = read(&connection).map_err(|e| StoreError::from_sqlite(&inner.path, e));
            let mut readers = lock(&inner.readers);
            if outcome.is_ok() && readers.len() < READERS_MAX {
                readers.push(connection);
            }
            outcome
        })
        .await
        .map_err(|_| StoreError::Stopped)?
    }

    /// A record by its key.
    pub async fn get(&self, key: &str) -> Result<Option<StateRecord>, StoreError> {
        let key = key.to_owned();
        self.read(move |connection| state::get(connection, &key)).await
    }

    /// All records whose key begins with `prefix`, by key.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, StateRecord)>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |connection| state::list(connection, &prefix, false, usize::MAX))
            .await
    }

    /// The last records of a prefix by key, the last one first.
    pub async fn list_last(
        &self,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<(String, StateRecord)>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |connection| state::list(connection, &prefix, true, limit))
            .await
    }

    /// Writes a record if what is there is what `expect` says; answers with its new revision.
    pub async fn put_if(&self, key: &str, expect: Expect, value: Vec<u8>) -> Result<u64, StoreError> {
        if value.len() > RECORD_BYTES_MAX {
            return Err(StoreError::TooLarge {
                what: key.to_owned(),
                bytes: value.len(),
                bytes_max: RECORD_BYTES_MAX,
            });
        }
        let key = key.to_owned();
        self.write(|reply| Command::Put {
            key,
            expect,
            value: Some(value),
            reply,
        })
        .await
    }

    /// Removes a record if it still has `revision`.
    pub async fn delete_if(&self, key: &str, revision: u64) -> Result<u64, StoreError> {
        let key = key.to_owned();
        self.write(|reply| Command::Put {
            key,
            expect: Expect::Revision(revision),
            value: None,
            reply,
        })
        .await
    }

    /// Changes from now on. Who lags too far behind is told, and lists anew.
    pub fn watch(&self) -> broadcast::Receiver<RecordChange> {
        self.inner.changes.subscribe()
    }

    /// A record as JSON of `T`, with its revision.
    pub async fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, u64)>, StoreError> {
        self.get(key)
            .await?
            .map(|record| Ok((self.decode(key, &record.value)?, record.revision)))
            .transpose()
    }

    /// All records of a prefix as JSON of `T`; the key without the prefix, the value, its revision.
    pub async fn list_json<T: DeserializeOwned>(
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

    /// Writes JSON, as [`Store::put_if`].
    pub async fn put_json<T: Serialize>(
        &self,
        key: &str,
        expect: Expect,
        value: &T,
    ) -> Result<u64, StoreError> {
        let bytes = serde_json::to_vec(value).map_err(|source| StoreError::Record {
            key: key.to_owned(),
            source,
        })?;
        self.put_if(key, expect, bytes).await
    }

    /// Reads a record's value as JSON of `T`.
    pub fn decode<T: DeserializeOwned>(&self, key: &str, bytes: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(bytes).map_err(|source| StoreError::Record {
            key: key.to_owned(),
            source,
        })
    }

    /// Stores large immutable things by their digest; what is there already is left alone.
    pub async fn put_blobs(&self, blobs: Vec<Vec<u8>>) -> Result<(), StoreError> {
        if let Some(large) = blobs.iter().find(|blob| blob.len() > BLOB_BYTES_MAX) {
            return Err(StoreError::TooLarge {
                what: "a blob".to_owned(),
                bytes: large.len(),
                bytes_max: BLOB_BYTES_MAX,
            });
        }
        self.write(|reply| Command::Blobs { blobs, reply }).await
    }

    /// A blob by its digest; its bytes are held against the digest.
    pub async fn blob(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let bytes = self
            .read(move |connection| state::blob(connection, &digest))
            .await?;
        match bytes {
            Some(bytes) if Digest::of(&bytes) != digest => Err(StoreError::Corrupt {
                path: self.inner.path.clone(),
                what: format!("the blob {digest} does not have its digest"),
            }),
            other => Ok(other),
        }
    }

    /// Digests of all blobs.
    pub async fn blob_digests(&self) -> Result<Vec<Digest>, StoreError> {
        self.read(state::blob_digests).await
    }

    /// Removes blobs that nothing refers to any more.
    pub async fn drop_blobs(&self, digests: Vec<Digest>) -> Result<(), StoreError> {
        self.write(|reply| Command::DropBlobs { digests, reply }).await
    }

    /// Appends blocks of one source in order; durable when this returns. One outcome per block.
    pub async fn append(&self, source: &str, blocks: Vec<NewBlock>) -> Result<Vec<Append>, StoreError> {
        let source = source.to_owned();
        self.write(|reply| Command::Append {
            source,
            blocks,
            reply,
        })
        .await
    }

    /// Appends a body to the coordinator's own chain, at its head; durable when this returns.
    pub async fn append_own(
        &self,
        source: &str,
        body: bytes::Bytes,
        summary: BlockSummary,
        received_ms: u64,
    ) -> Result<Head, StoreError> {
        let source = source.to_owned();
        self.write(|reply| Command::AppendOwn {
            source,
            body,
            summary,
            received_ms,
            deferrable: false,
            reply,
        })
        .await
    }

    /// The same for what can be left out when the disk is short.
    pub async fn append_own_deferrable(
        &self,
        source: &str,
        body: bytes::Bytes,
        summary: BlockSummary,
        received_ms: u64,
    ) -> Result<Head, StoreError> {
        let source = source.to_owned();
        self.write(|reply| Command::AppendOwn {
            source,
            body,
            summary,
            received_ms,
            deferrable: true,
            reply,
        })
        .await
    }

    /// Removes the oldest blocks of all trails that came before `before_ms`, at most `limit` of them; each chain goes on, and
    /// the first block that is left names the digest of the last one that is gone.
    pub async fn drop_before(&self, before_ms: u64, limit: u32) -> Result<PurgeReport, StoreError> {
        self.write(|reply| Command::DropBefore {
            before_ms,
            limit,
            reply,
        })
        .await
    }

    /// Takes the head of a trail back to its last block of at most `epoch_max`, if it is beyond; answers with both heads.
    pub async fn rewind(&self, source: &str, epoch_max: u64) -> Result<Option<(Head, Head)>, StoreError> {
        let source = source.to_owned();
        self.write(|reply| Command::Rewind {
            source,
            epoch_max,
            reply,
        })
        .await
    }

    /// Where the trail of a source stands.
    pub async fn head(&self, source: &str) -> Result<Option<Head>, StoreError> {
        let source = source.to_owned();
        self.read(move |connection| audit::head(connection, &source))
            .await
    }

    /// Stored blocks that may hold what `filter` asks for, at most `limit` of them.
    pub async fn blocks(&self, filter: BlockFilter, limit: usize) -> Result<Vec<StoredBlock>, StoreError> {
        self.scan(move |connection| audit::blocks(connection, &filter, limit))
            .await
    }

    /// The number of the newest durable block, and each newer one.
    pub fn appended(&self) -> watch::Receiver<i64> {
        self.inner.last_block.clone()
    }

    /// What the store may still take, bytes: on its disk, and in what was removed from it.
    pub async fn free_bytes(&self) -> Result<u64, StoreError> {
        let path = self.inner.path.clone();
        self.read(move |connection| room::free_bytes(connection, &path))
            .await
    }

    /// What of it is kept for what must go on.
    pub fn reserve_bytes(&self) -> u64 {
        self.inner.room.reserve_bytes
    }

    /// Copies the store, as it is at this moment, to a new file, while it is in use.
    pub async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let (from, target) = (self.inner.path.clone(), to.to_owned());
        self.read(move |connection| Ok(backup(connection, &from, &target)))
            .await?
    }
}

/// Copies the store at `from` to the new file `to`; also while a coordinator is running on it.
pub fn backup_file(from: &Path, to: &Path) -> Result<(), StoreError> {
    let connection = open_reader(from)?;
    backup(&connection, from, to)
}

fn backup(connection: &Connection, from: &Path, to: &Path) -> Result<(), StoreError> {
    let copied = connection.execute("VACUUM INTO ?1", [to.to_string_lossy()]);
    copied.map(|_| ()).map_err(|error| {
        // Room, permission and the like are wanting where something is written; what is read is the store itself.
        let reads = matches!(
            FaultCause::of(&error),
            FaultCause::Damaged | FaultCause::NotAStore | FaultCause::Busy
        ) || error
            .sqlite_error()
            .is_some_and(|code| code.extended_code == rusqlite::ffi::SQLITE_IOERR_READ);
        StoreError::from_sqlite(if reads { from } else { to }, error)
    })
}

fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.busy_timeout(schema::BUSY_TIMEOUT)?;
        Ok(connection)
    };
    open().map_err(|e| StoreError::from_sqlite(path, e))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
