//! The engine: one SQLite database beside the coordinator, nothing to install; where the store is replicated, one of its copies (`replica`).
//!
//! One thread writes; what waits is committed together (`synchronous=FULL`; of a copy, once it stands in the log), so that an answer means "durable". Reads have
//! connections of their own and see what was committed before they began. All queues are bounded, and who may write while the
//! disk gets short stands in `room`. A disk that is full, damaged or busy is a named error, and what was committed stays.
//!
//! This folder alone knows SQLite.

mod codes;
mod command;
mod disk;
mod ledger;
mod lookup;
pub(super) mod moved;
mod places;
mod removal;
pub(super) mod replica;
mod scan;
mod schema;
mod state;
mod terms;
mod trail;
mod tree;
mod waiting;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use penstock_policy::ids::Digest;
use penstock_policy::merkle::Hash;
use penstock_policy::merkle::growing::TreeState;
use penstock_proto::audit::Head;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{broadcast, oneshot, watch};

use self::codes::{cause_of, failed};
use self::command::Command;
use self::ledger::Ledger;
use self::lookup::LookupError;
use self::replica::{Replica, Standing};
use self::writer::{Worker, Writer};
use super::fault::FaultCause;
use super::log::Log;
use super::room::DiskReserve;
use super::state::{Change, Order, RecordChange, State, StateRecord};
use super::terms::{Segment, TermIndex, Unindexed};
use super::trail::{
    Append, AtHead, BlockFilter, Cursor, Expired, NewBlock, Note, OwnBody, Page, PurgeReport, Removed,
    StoredBlock, Trail,
};
use super::tree::{BlockInTree, TrailTree};
use super::{Engine, Pending, StoreError};

/// Read connections kept open.
const READERS_MAX: usize = 4;
/// Changes that a watcher may fall behind before it has to list again.
const CHANGES_MAX: usize = 1024;

/// An open database. The last clone to go stops the writer, and waits until it has closed the file.
#[derive(Clone, Debug)]
pub(super) struct Sqlite {
    inner: Arc<Inner>,
    standing: Arc<Standing>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    room: DiskReserve,
    writer: Writer,
    readers: Mutex<Vec<Connection>>,
    scans: scan::ScanRoom,
    index: terms::Index,
    changes: broadcast::Sender<RecordChange>,
    appended: watch::Receiver<Cursor>,
}

impl Sqlite {
    /// Opens the database at `path`, makes it if it is not there, and brings its schema up to date.
    pub(super) fn open(path: &Path, room: DiskReserve) -> Result<Self, StoreError> {
        Self::start(prepared(path)?, path, disk::fitted(room, path))
    }

    /// On a connection that is set up for writing.
    fn start(connection: Connection, path: &Path, room: DiskReserve) -> Result<Self, StoreError> {
        let place = replica::place(&connection).map_err(|error| failed(path, &error))?;
        if place.is_some() {
            return Err(StoreError::IsCopy {
                path: path.to_owned(),
            });
        }
        Self::with(Ledger::alone(connection), path, room, Writer::start)
    }

    /// Opens the copy at `path` of a replicated store, makes it if it is not there, and lets it follow the log that `connect` opens
    /// behind the message of the number that it is given; it has all that stood there when this answers. `name`: the coordinator's.
    pub(super) async fn follow<F>(
        path: &Path,
        room: DiskReserve,
        name: &str,
        connect: impl FnOnce(u64) -> F,
    ) -> Result<Self, StoreError>
    where
        F: Future<Output = Result<Box<dyn Log>, StoreError>>,
    {
        let connection = prepared(path)?;
        let place = replica::prepare(&connection, path)?;
        let log = connect(place.number).await?;
        let (caught_up, done) = oneshot::channel();
        let (name, standing) = (name.to_owned(), Arc::<Standing>::default());
        let follows = standing.clone();
        let store = Self::with(
            Ledger::noting(connection),
            path,
            disk::fitted(room, path),
            |worker| {
                let replica = Replica::new(worker, log, name, place, follows);
                Writer::running(|commands| replica.run(commands, caught_up))
            },
        )?;
        done.await.map_err(|_| StoreError::Stopped)??;
        Ok(Self { standing, ..store })
    }

    fn with(
        ledger: Ledger,
        path: &Path,
        room: DiskReserve,
        start: impl FnOnce(Worker) -> Result<Writer, StoreError>,
    ) -> Result<Self, StoreError> {
        let (changes, _) = broadcast::channel(CHANGES_MAX);
        let last_block = trail::last_block(&ledger).map_err(|e| failed(path, &e))?;
        let (last, appended) = watch::channel(places::cursor(last_block));
        let worker = Worker::new(ledger, path.to_owned(), room, changes.clone(), last);
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                room,
                writer: start(worker)?,
                readers: Mutex::new(Vec::new()),
                scans: scan::ScanRoom::default(),
                index: terms::Index::beside(path),
                changes,
                appended,
            }),
            standing: Arc::default(),
        })
    }

    async fn write<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.inner.writer.send(make(reply)).await?;
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
            let outcome = read(&connection).map_err(|e| failed(&inner.path, &e));
            let mut readers = lock(&inner.readers);
            if outcome.is_ok() && readers.len() < READERS_MAX {
                readers.push(connection);
            }
            outcome
        })
        .await
        .map_err(|_| StoreError::Stopped)?
    }
}

impl State for Sqlite {
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Option<StateRecord>> {
        let key = key.to_owned();
        Box::pin(self.read(move |connection| state::get(connection, &key)))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        order: Order,
        limit: usize,
    ) -> Pending<'a, Vec<(String, StateRecord)>> {
        let prefix = prefix.to_owned();
        Box::pin(self.read(move |connection| state::list(connection, &prefix, order, limit)))
    }

    fn apply(&self, change: Change) -> Pending<'_, Vec<RecordChange>> {
        Box::pin(self.write(move |reply| Command::Change { change, reply }))
    }

    fn watch(&self) -> broadcast::Receiver<RecordChange> {
        self.inner.changes.subscribe()
    }

    fn put_blobs(&self, blobs: Vec<Vec<u8>>) -> Pending<'_, ()> {
        Box::pin(self.write(move |reply| Command::Blobs { blobs, reply }))
    }

    fn blob(&self, digest: Digest) -> Pending<'_, Option<Vec<u8>>> {
        Box::pin(self.read(move |connection| state::blob(connection, &digest)))
    }

    fn blob_digests(&self) -> Pending<'_, Vec<Digest>> {
        Box::pin(self.read(state::blob_digests))
    }

    fn drop_blobs(&self, digests: Vec<Digest>) -> Pending<'_, ()> {
        Box::pin(self.write(move |reply| Command::DropBlobs { digests, reply }))
    }
}

impl Trail for Sqlite {
    fn append<'a>(
        &'a self,
        source: &'a str,
        blocks: Vec<NewBlock>,
        note: Option<Note<[Append]>>,
    ) -> Pending<'a, Vec<Append>> {
        let source = source.to_owned();
        Box::pin(self.write(move |reply| Command::Append {
            source,
            blocks,
            note,
            reply,
        }))
    }

    fn append_own<'a>(&'a self, source: &'a str, own: OwnBody) -> Pending<'a, Head> {
        let source = source.to_owned();
        Box::pin(self.write(move |reply| Command::AppendOwn { source, own, reply }))
    }

    fn append_at_head(&self, made: AtHead) -> Pending<'_, Head> {
        Box::pin(self.write(move |reply| Command::AppendAtHead { made, reply }))
    }

    fn head<'a>(&'a self, source: &'a str) -> Pending<'a, Option<Head>> {
        let source = source.to_owned();
        Box::pin(self.read(move |connection| trail::head(connection, &source)))
    }

    fn page(&self, filter: BlockFilter, after: Option<Cursor>, limit: usize) -> Pending<'_, Page> {
        Box::pin(async move {
            let after = after.as_ref().map(places::number).transpose()?;
            let inner = Arc::clone(&self.inner);
            self.scan(move |store| {
                let found = inner
                    .index
                    .read(|index| lookup::page(store, index, &filter, after, limit));
                match found {
                    Some(Ok(page)) => Ok(page),
                    Some(Err(LookupError::Store(error))) => Err(error),
                    Some(Err(LookupError::Index(error))) => {
                        inner.index.failed(&error);
                        trail::page(store, &filter, after, limit)
                    }
                    None => trail::page(store, &filter, after, limit),
                }
            })
            .await
        })
    }

    fn block_before(&self, place: Cursor) -> Pending<'_, Option<StoredBlock>> {
        Box::pin(async move {
            let number = places::number(&place)?;
            let found = self.read(move |connection| trail::all_between(connection, number, number));
            Ok(found.await?.pop().map(|(_, block)| block))
        })
    }

    fn removed_behind(&self, after: Cursor) -> Pending<'_, Option<Removed>> {
        Box::pin(async move {
            let after = places::number(&after)?;
            self.read(move |connection| trail::removed_behind(connection, after))
                .await
        })
    }

    fn beginning(&self) -> Pending<'_, Cursor> {
        Box::pin(self.read(trail::beginning))
    }

    fn appended(&self) -> watch::Receiver<Cursor> {
        self.inner.appended.clone()
    }

    fn drop_expired(
        &self,
        expired: Expired,
        limit: u32,
        note: Option<Note<PurgeReport>>,
    ) -> Pending<'_, PurgeReport> {
        Box::pin(self.write(move |reply| Command::DropExpired {
            expired,
            limit,
            note,
            reply,
        }))
    }

    fn rewind<'a>(
        &'a self,
        source: &'a str,
        epoch_max: u64,
        note: Option<Note<(Head, Head)>>,
    ) -> Pending<'a, Option<(Head, Head)>> {
        let source = source.to_owned();
        Box::pin(self.write(move |reply| Command::Rewind {
            source,
            epoch_max,
            note,
            reply,
        }))
    }
}

impl TrailTree for Sqlite {
    fn tree(&self) -> Pending<'_, TreeState> {
        Box::pin(self.read(|connection| Ok(tree::state(connection, None)?.unwrap_or_else(TreeState::empty))))
    }

    fn tree_at(&self, size: u64) -> Pending<'_, Option<TreeState>> {
        Box::pin(self.read(move |connection| tree::state(connection, Some(size))))
    }

    fn inclusion(&self, index: u64, size: u64) -> Pending<'_, Option<Vec<Hash>>> {
        Box::pin(self.read(move |connection| tree::inclusion(connection, index, size)))
    }

    fn consistency(&self, earlier: u64, size: u64) -> Pending<'_, Option<Vec<Hash>>> {
        Box::pin(self.read(move |connection| tree::consistency(connection, earlier, size)))
    }

    fn block_at<'a>(
        &'a self,
        source: &'a str,
        epoch: u64,
        sequence: u64,
    ) -> Pending<'a, Option<BlockInTree>> {
        let source = source.to_owned();
        Box::pin(self.read(move |connection| tree::block_at(connection, &source, epoch, sequence)))
    }
}

impl Sqlite {
    /// Runs `work` with the store and its index, off the async threads.
    async fn on_index<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &terms::Index) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let path = self.inner.index.path().to_owned();
        let done = self.read(move |store| Ok(work(store, &inner.index)));
        done.await?.map_err(|error| failed(&path, &error))
    }
}

impl TermIndex for Sqlite {
    fn open_index<'a>(&'a self, form: &'a str) -> Pending<'a, ()> {
        let form = form.to_owned();
        Box::pin(self.on_index(move |store, index| index.open(store, &form)))
    }

    fn unindexed(&self, blocks_max: usize) -> Pending<'_, Option<Unindexed>> {
        Box::pin(self.on_index(move |store, index| {
            let covered = index.write(|index| terms::covered(index))?;
            covered.map_or(Ok(None), |covered| terms::unindexed(store, covered, blocks_max))
        }))
    }

    fn index(&self, segment: Segment) -> Pending<'_, ()> {
        Box::pin(self.on_index(move |_, index| index.write(|index| terms::add(index, &segment)).map(drop)))
    }

    fn prune_index(&self) -> Pending<'_, ()> {
        Box::pin(self.on_index(|store, index| {
            let oldest = terms::oldest(store)?;
            index.write(|index| terms::prune(index, oldest)).map(drop)
        }))
    }
}

impl Engine for Sqlite {
    fn free_bytes(&self) -> Pending<'_, u64> {
        let path = self.inner.path.clone();
        Box::pin(self.read(move |connection| disk::free_bytes(connection, &path)))
    }

    fn reserve_bytes(&self) -> u64 {
        self.inner.room.reserve_bytes
    }

    fn fence(&self, key: &str, revision: u64) {
        self.standing.fence(key, revision);
    }

    fn failing_for(&self) -> Option<Duration> {
        self.standing.failing_for()
    }

    fn lost(&self) -> Option<StoreError> {
        self.standing.lost()
    }

    fn damaged(&self, what: String) -> StoreError {
        StoreError::Corrupt {
            path: self.inner.path.clone(),
            what,
        }
    }
}

/// Copies the database at `from` to the new file `to`; also while a coordinator is running on it.
pub(super) fn backup(from: &Path, to: &Path) -> Result<(), StoreError> {
    let connection = open_reader(from)?;
    let copied = connection.execute("VACUUM INTO ?1", [to.to_string_lossy()]);
    copied.map(|_| ()).map_err(|error| {
        // Room, permission and the like are wanting where something is written; what is read is the store itself.
        let reads = matches!(
            cause_of(&error),
            FaultCause::Damaged | FaultCause::NotAStore | FaultCause::Busy
        ) || error
            .sqlite_error()
            .is_some_and(|code| code.extended_code == rusqlite::ffi::SQLITE_IOERR_READ);
        failed(if reads { from } else { to }, &error)
    })
}

/// A connection for writing, with today's schema.
fn prepared(path: &Path) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(path).map_err(|e| failed(path, &e))?;
    schema::prepare(&mut connection).map_err(|e| e.at(path))?;
    Ok(connection)
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
    open().map_err(|e| failed(path, &e))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests;
