//! The index by terms: a database of its own beside the store, which can be lost.
//!
//! Only blocks that are committed in the store go into it, one segment in one transaction, so that after a loss of power it holds
//! less than the store and never something else. At its opening it is held against the store: after a restore from a backup the same numbers
//! belong to other blocks, and it is made again, as when its bytes are wrong. Where it cannot be opened or read, searches look at every block.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::codes::cause_of;
use super::{lock, schema, trail};
use crate::store::fault::FaultCause;
use crate::store::terms::{
    Members, SEGMENT_BLOCKS_MAX, SEGMENT_BYTES, Segment, SegmentBounds, Term, Unindexed,
};

/// Read connections kept open.
const READERS_MAX: usize = 2;
/// Segments whose ends are held against the store's blocks.
const ENDS_COMPARED: i64 = 64;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS form (one INTEGER PRIMARY KEY CHECK (one = 1), form TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS segment (
        id             INTEGER PRIMARY KEY,
        first          INTEGER NOT NULL,
        last           INTEGER NOT NULL,
        first_ms       INTEGER NOT NULL,
        last_ms        INTEGER NOT NULL,
        first_received INTEGER NOT NULL,
        last_received  INTEGER NOT NULL,
        digest         BLOB NOT NULL
    );
    CREATE UNIQUE INDEX IF NOT EXISTS segment_first ON segment (first);
    CREATE UNIQUE INDEX IF NOT EXISTS segment_last ON segment (last);
    -- Its terms, four bytes each, by which it is removed.
    CREATE TABLE IF NOT EXISTS content (segment INTEGER PRIMARY KEY, terms BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS posting (
        term    INTEGER NOT NULL,
        segment INTEGER NOT NULL,
        blocks  BLOB NOT NULL,
        PRIMARY KEY (term, segment)
    ) WITHOUT ROWID;
";

/// The index beside a store.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    writer: Mutex<Option<Connection>>,
    readers: Mutex<Readers>,
    /// It is open and was held against the store.
    ready: AtomicBool,
}

#[derive(Debug, Default)]
struct Readers {
    kept: Vec<Connection>,
    /// Raised when the index is given up: what was opened before reads a file that is no more.
    generation: u64,
    /// It has to be rebuilt.
    damaged: bool,
}

impl Index {
    /// That of the store at `path`; not open yet.
    pub(super) fn beside(path: &Path) -> Self {
        Self {
            path: path.with_extension("search.db"),
            writer: Mutex::default(),
            readers: Mutex::default(),
            ready: AtomicBool::new(false),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it, or makes it anew.
    pub(super) fn open(&self, store: &Connection, form: &str) -> rusqlite::Result<()> {
        let mut writer = lock(&self.writer);
        if writer.is_some() {
            return Ok(());
        }
        if lock(&self.readers).damaged {
            self.remove();
        }
        let held = prepared(&self.path, form).and_then(|index| {
            let fits = fits(&index, store)?;
            Ok(fits.then_some(index))
        });
        let index = match held {
            Ok(Some(index)) => index,
            made_anew => {
                if let Err(error) = made_anew {
                    tracing::warn!(%error, "the index of the trails cannot be used and is made again");
                }
                self.remove();
                prepared(&self.path, form)?
            }
        };
        *writer = Some(index);
        lock(&self.readers).damaged = false;
        self.ready.store(true, Ordering::Release);
        Ok(())
    }

    fn remove(&self) {
        for end in ["", "-wal", "-shm"] {
            let mut file = self.path.clone().into_os_string();
            file.push(end);
            // What is not there need not be removed; what cannot be shows when it is opened.
            let _ = std::fs::remove_file(file);
        }
    }

    /// Runs `read` on the index; `None`: there is none to read.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Connection) -> T) -> Option<T> {
        if !self.ready.load(Ordering::Acquire) {
            return None;
        }
        let (pooled, generation) = {
            let mut readers = lock(&self.readers);
            (readers.kept.pop(), readers.generation)
        };
        let connection = match pooled.map_or_else(|| open_reader(&self.path), Ok) {
            Ok(connection) => connection,
            Err(error) => {
                self.failed(&error);
                return None;
            }
        };
        let outcome = read(&connection);
        let mut readers = lock(&self.readers);
        if readers.generation == generation && readers.kept.len() < READERS_MAX {
            readers.kept.push(connection);
        }
        Some(outcome)
    }

    /// It could not be read, and the search goes on without it. Where its bytes are wrong, it is given up and made again.
    pub(super) fn failed(&self, error: &rusqlite::Error) {
        tracing::warn!(%error, path = %self.path.display(), "the index of the trails cannot be read: the search looks at every block");
        if !matches!(
            cause_of(error),
            FaultCause::Damaged | FaultCause::NotAStore | FaultCause::Internal
        ) {
            return;
        }
        self.ready.store(false, Ordering::Release);
        let mut writer = lock(&self.writer);
        *writer = None;
        let mut readers = lock(&self.readers);
        readers.kept.clear();
        readers.generation += 1;
        readers.damaged = true;
    }

    /// Runs `write` on its writing connection, if it is open.
    pub(super) fn write<T>(
        &self,
        write: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        lock(&self.writer).as_mut().map(write).transpose()
    }
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(schema::BUSY_TIMEOUT)?;
    Ok(connection)
}

/// A connection for writing to an index of this form.
fn prepared(path: &Path, form: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(schema::BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // After a loss of power it is whole and may lack the last segments, which are made again.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    connection.execute_batch(TABLES)?;
    let held: Option<String> = connection
        .query_row("SELECT form FROM form", [], |row| row.get(0))
        .optional()?;
    match held {
        Some(held) if held != form => Err(rusqlite::Error::QueryReturnedNoRows),
        Some(_) => Ok(connection),
        None => {
            connection.execute("INSERT INTO form VALUES (1, ?1)", [form])?;
            Ok(connection)
        }
    }
}

/// Whether the index is of this store: the blocks at the ends of its newest segments are the ones that it was made of, or
/// retention removed them.
fn fits(index: &Connection, store: &Connection) -> rusqlite::Result<bool> {
    let (oldest, newest): (i64, i64) = store.query_row(
        "SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM block",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let mut ends = index.prepare("SELECT last, digest FROM segment ORDER BY id DESC LIMIT ?1")?;
    let ends = ends.query_map([ENDS_COMPARED], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?))
    })?;
    for end in ends {
        let (last, digest) = end?;
        let held: Option<[u8; 32]> = store
            .prepare_cached("SELECT digest FROM block WHERE id = ?1")?
            .query_row([last], |row| row.get(0))
            .optional()?;
        let same = match held {
            Some(held) => held == digest,
            None => last < oldest && last <= newest,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The number of the last block that it covers; 0: it covers none.
pub(super) fn covered(index: &Connection) -> rusqlite::Result<i64> {
    index
        .prepare_cached("SELECT coalesce(max(last), 0) FROM segment")?
        .query_row([], |row| row.get(0))
}

/// The blocks of the next segment, behind the one of number `covered`.
pub(super) fn unindexed(
    store: &Connection,
    covered: i64,
    blocks_max: usize,
) -> rusqlite::Result<Option<Unindexed>> {
    let oldest: Option<i64> = store
        .prepare_cached("SELECT id FROM block WHERE id > ?1 ORDER BY id LIMIT 1")?
        .query_row([covered], |row| row.get(0))
        .optional()?;
    let Some(first) = oldest else {
        return Ok(None);
    };
    let end = first.saturating_add(i64::try_from(blocks_max.min(SEGMENT_BLOCKS_MAX)).unwrap_or(i64::MAX));
    let mut lengths =
        store.prepare_cached("SELECT id, length(body) FROM block WHERE id >= ?1 AND id < ?2 ORDER BY id")?;
    let mut rows = lengths.query((first, end))?;
    let (mut last, mut bytes) = (None, 0_u64);
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        bytes = bytes.saturating_add(u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0));
        if bytes >= SEGMENT_BYTES || id + 1 == end {
            last = Some(id);
            break;
        }
    }
    drop(rows);
    let Some(last) = last else {
        return Ok(None);
    };
    let bounds = store
        .prepare_cached(
            "SELECT min(first_ms), max(last_ms), min(received_ms), max(received_ms), \
             (SELECT digest FROM block WHERE id = ?2) FROM block WHERE id >= ?1 AND id <= ?2",
        )?
        .query_row((first, last), |row| {
            Ok(SegmentBounds {
                blocks: (first, last),
                source_ms: (row.get(0)?, row.get(1)?),
                received_ms: (row.get(2)?, row.get(3)?),
                digest: row.get(4)?,
            })
        })?;
    let blocks = trail::all_between(store, first, last)?;
    let place = |id: i64| usize::try_from(id - first).unwrap_or(usize::MAX);
    let blocks = blocks.into_iter().map(|(id, block)| (place(id), block)).collect();
    Ok(Some(Unindexed { blocks, bounds }))
}

/// The number of the oldest block; 0: there is none.
pub(super) fn oldest(store: &Connection) -> rusqlite::Result<i64> {
    store.query_row("SELECT coalesce(min(id), 0) FROM block", [], |row| row.get(0))
}

/// Adds a segment behind what is covered.
pub(super) fn add(index: &mut Connection, segment: &Segment) -> rusqlite::Result<()> {
    let transaction = index.transaction()?;
    let bounds = segment.bounds;
    if covered(&transaction)? >= bounds.blocks.0 {
        return Ok(());
    }
    let id: i64 = transaction
        .prepare_cached(
            "INSERT INTO segment (first, last, first_ms, last_ms, first_received, last_received, digest) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING id",
        )?
        .query_row(
            (
                bounds.blocks.0,
                bounds.blocks.1,
                bounds.source_ms.0,
                bounds.source_ms.1,
                bounds.received_ms.0,
                bounds.received_ms.1,
                bounds.digest,
            ),
            |row| row.get(0),
        )?;
    let mut postings: Vec<(Term, &Members)> = segment
        .postings
        .iter()
        .map(|(term, members)| (*term, members))
        .collect();
    // In the order of the table, so that each of its pages is touched once.
    postings.sort_unstable_by_key(|(term, _)| *term);
    {
        let mut insert =
            transaction.prepare_cached("INSERT INTO posting (term, segment, blocks) VALUES (?1, ?2, ?3)")?;
        for (term, members) in &postings {
            insert.execute((*term, id, members.encode(*term)))?;
        }
    }
    let terms: Vec<u8> = postings.iter().flat_map(|(term, _)| term.to_le_bytes()).collect();
    transaction
        .prepare_cached("INSERT INTO content (segment, terms) VALUES (?1, ?2)")?
        .execute((id, terms))?;
    transaction.commit()
}

/// Removes segments of which the store has no block any more; the newest stays, since it says how far the index goes.
pub(super) fn prune(index: &mut Connection, oldest: i64) -> rusqlite::Result<()> {
    loop {
        let transaction = index.transaction()?;
        let gone: Option<(i64, Vec<u8>)> = transaction
            .prepare_cached(
                "SELECT s.id, c.terms FROM segment s JOIN content c ON c.segment = s.id WHERE s.last < ?1 \
                 AND s.id < (SELECT max(id) FROM segment) ORDER BY s.id LIMIT 1",
            )?
            .query_row([oldest], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((id, terms)) = gone else {
            return Ok(());
        };
        {
            let mut delete =
                transaction.prepare_cached("DELETE FROM posting WHERE term = ?1 AND segment = ?2")?;
            for term in terms.chunks(4) {
                delete.execute((term.try_into().map_or(0, Term::from_le_bytes), id))?;
            }
        }
        transaction
            .prepare_cached("DELETE FROM content WHERE segment = ?1")?
            .execute([id])?;
        transaction
            .prepare_cached("DELETE FROM segment WHERE id = ?1")?
            .execute([id])?;
        transaction.commit()?;
    }
}
