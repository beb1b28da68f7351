//! A store that stands alone becomes a copy of a replicated one, and the other way round; and what it holds, so that both can be compared.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::codes::failed;
use super::{backup, prepared, replica, tree};
use crate::store::StoreError;
use crate::store::contents::Contents;

/// Copies the store that stands alone at `from` to the new file `to`, as what a log begins from whose first entry names `id`.
pub(in crate::store) fn base(from: &Path, to: &Path, id: [u8; 32]) -> Result<(), StoreError> {
    backup(from, to)?;
    follow_from(to, id)
}

/// Makes a copy of the store at `path`, before the first entry of a log that names `id`.
pub(in crate::store) fn follow_from(path: &Path, id: [u8; 32]) -> Result<(), StoreError> {
    let connection = prepared(path)?;
    connection
        .execute("INSERT INTO replica VALUES (1, 0, ?1)", [id])
        .map_err(|error| failed(path, &error))?;
    Ok(())
}

/// Makes the copy at `path` a store that stands alone.
pub(in crate::store) fn stand_alone(path: &Path) -> Result<(), StoreError> {
    let connection = prepared(path)?;
    connection
        .execute("DELETE FROM replica", [])
        .map_err(|error| failed(path, &error))?;
    Ok(())
}

/// Whether there is no store at `path`, or one in which nothing was ever written.
pub(in crate::store) fn is_unused(path: &Path) -> Result<bool, StoreError> {
    if !path.exists() {
        return Ok(true);
    }
    let connection = prepared(path)?;
    replica::is_unused(&connection).map_err(|error| failed(path, &error))
}

/// What the store at `path` holds.
pub(in crate::store) fn contents(path: &Path) -> Result<Contents, StoreError> {
    let read = || {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let count = |table: &str| -> rusqlite::Result<u64> {
            let sql = format!("SELECT count(*) FROM {table}");
            connection.query_row(&sql, [], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
        };
        Ok(Contents {
            records: count("state")?,
            blobs: count("blob")?,
            trails: count("source")?,
            blocks: count("block")?,
            tree: tree::state(&connection, None)?
                .unwrap_or_else(penstock_policy::merkle::growing::TreeState::empty),
        })
    };
    read().map_err(|error| failed(path, &error))
}
