//! A store that stands alone becomes a copy of a replicated one, and the other way round; and what it holds, so that both can be compared.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::codes::failed;
use super::{backup, disk, prepared, replica, tree};
use crate::store::StoreError;
use crate::store::contents::Contents;
use crate::store::room::DiskReserve;

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

/// The message of the log behind which the copy at `path` stands; `None`: it stands alone.
pub(in crate::store) fn number(path: &Path) -> Result<Option<u64>, StoreError> {
    let place = replica::place(&prepared(path)?);
    let place = place.map_err(|error| failed(path, &error))?;
    Ok(place.map(|place| place.number))
}

/// How long the file at `path` is, bytes.
pub(in crate::store) fn bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

/// Copies the copy at `from`, which somebody may have open, to the new file `to` beside it, where the disk has the room; the number behind which it
/// stands.
pub(in crate::store) fn copied(from: &Path, to: &Path, room: DiskReserve) -> Result<Option<u64>, StoreError> {
    remove(to);
    let room = disk::fitted(room, from);
    let free_bytes = disk::free_beside(from);
    if free_bytes.saturating_sub(room.reserve_bytes) < bytes(from) {
        return Err(StoreError::Reserved {
            path: to.to_owned(),
            free_bytes,
            kept_bytes: room.reserve_bytes,
        });
    }
    backup(from, to)?;
    number(to)
}

/// Removes what an end in the midst of it left of a file that is a database only for a while.
pub(in crate::store) fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
}

/// Puts the copy at `newer` into the place of the one at `path`, which nobody may have open and which it continues; that one stays beside it, and where
/// is the answer.
pub(in crate::store) fn replace(path: &Path, newer: &Path) -> Result<PathBuf, StoreError> {
    let tree = |file: &Path, size: Option<u64>| {
        let connection = prepared(file)?;
        tree::state(&connection, size).map_err(|error| failed(file, &error))
    };
    let held = tree(path, None)?;
    if tree(newer, held.as_ref().map(|held| held.size))? != held {
        return Err(StoreError::LogLost {
            path: path.to_owned(),
            what: "it no longer has what follows this copy, and the copy beside it does not begin with the same trails".to_owned(),
        });
    }
    // Whoever closes it last takes its journal along; one that stayed behind would be read into the newer one.
    for file in [path, newer] {
        if PathBuf::from(format!("{}-wal", file.display())).exists() {
            return Err(StoreError::Unusable {
                words: format!("somebody else has {} open", file.display()),
            });
        }
    }
    let number = number(path)?.unwrap_or_default();
    let before = path.with_extension(format!("replaced-{number}"));
    if before.exists() {
        return Err(StoreError::Unusable {
            words: format!(
                "a newer copy would take the place of this one, which would stay beside it as {}: move away what has that name",
                before.display()
            ),
        });
    }
    std::fs::rename(path, &before)
        .and_then(|()| std::fs::rename(newer, path))
        .map(|()| before)
        .map_err(|error| StoreError::Unusable {
            words: format!("{} cannot be replaced by a newer copy: {error}", path.display()),
        })
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
