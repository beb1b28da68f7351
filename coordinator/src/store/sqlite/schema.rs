//! The tables, and how a store made by older software becomes today's.
//!
//! `application_id` marks the file as ours, `user_version` counts the migrations that it has seen. Migrations are
//! only ever added; each runs once, in one transaction.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::codes::failed;
use crate::store::StoreError;
use crate::store::fault::{EngineError, FaultCause};

/// "PnSt".
const APPLICATION_ID: i64 = 0x506e_5374;

/// How long one waits for a lock that another process holds for a moment (a backup, a checkpoint).
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE state (
        key      TEXT PRIMARY KEY,
        revision INTEGER NOT NULL,
        value    BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE counter (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL);
    INSERT INTO counter VALUES (1, 0);
    CREATE TABLE blob (digest BLOB PRIMARY KEY, content BLOB NOT NULL);
    CREATE TABLE source (
        id            INTEGER PRIMARY KEY,
        name          TEXT NOT NULL UNIQUE,
        epoch         INTEGER NOT NULL,
        next_sequence INTEGER NOT NULL,
        digest        BLOB NOT NULL
    );
    -- One row per block. The columns after `digest` are what queries skip whole blocks by.
    CREATE TABLE block (
        id          INTEGER PRIMARY KEY,
        source      INTEGER NOT NULL REFERENCES source (id),
        epoch       INTEGER NOT NULL,
        sequence    INTEGER NOT NULL,
        previous    BLOB NOT NULL,
        digest      BLOB NOT NULL,
        received_ms INTEGER NOT NULL,
        first_ms    INTEGER NOT NULL,
        last_ms     INTEGER NOT NULL,
        kinds       INTEGER NOT NULL,
        decisions   INTEGER NOT NULL,
        severity    INTEGER NOT NULL,
        body        BLOB NOT NULL
    );
    CREATE UNIQUE INDEX block_position ON block (source, epoch, sequence);
",
    // What a trail holds, counted since stores have this column.
    "ALTER TABLE source ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;",
    // The tree over all blocks since then: complete subtrees, which stay when blocks go, and each block's leaf.
    "
    CREATE TABLE node (
        level    INTEGER NOT NULL,
        position INTEGER NOT NULL,
        hash     BLOB NOT NULL,
        PRIMARY KEY (level, position)
    ) WITHOUT ROWID;
    ALTER TABLE block ADD COLUMN leaf INTEGER;
",
    // Where a copy stands in the log that it follows: behind the message of this number, whose entry has this digest. A store that
    // stands alone has no row.
    "
    CREATE TABLE replica (
        one    INTEGER PRIMARY KEY CHECK (one = 1),
        number INTEGER NOT NULL,
        digest BLOB NOT NULL
    );
",
];

/// What [`prepare`] can say before a path is known.
pub(super) enum SchemaError {
    Sqlite(rusqlite::Error),
    Newer { found: i64, known: i64 },
    NotAStore,
}

impl SchemaError {
    pub(super) fn at(self, path: &Path) -> StoreError {
        let path_owned = path.to_owned();
        match self {
            Self::Sqlite(error) => failed(path, &error),
            Self::Newer { found, known } => StoreError::Newer {
                path: path_owned,
                found,
                known,
            },
            Self::NotAStore => StoreError::Engine(EngineError {
                path: path_owned,
                cause: FaultCause::NotAStore,
                words: "another application's database".to_owned(),
            }),
        }
    }
}

impl From<rusqlite::Error> for SchemaError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Sets the connection up for writing and applies what migrations are missing.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), SchemaError> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let id: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if id != APPLICATION_ID && tables > 0 {
        return Err(SchemaError::NotAStore);
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > known {
        return Err(SchemaError::Newer { found, known });
    }
    let done = usize::try_from(found).unwrap_or(0);
    for (migration, number) in MIGRATIONS.iter().zip(1_i64..).skip(done) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}
