//! Where a copy stands in its log, and what an entry of the log does to it.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use crate::store::StoreError;
use crate::store::log::entry::Effect;
use crate::store::sqlite::codes::failed;
use crate::store::sqlite::ledger::Ledger;
use crate::store::sqlite::state::unsigned;
use crate::store::sqlite::{removal, state, trail};

/// Where a copy stands in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::sqlite) struct Place {
    /// Behind the message of this number.
    pub(in crate::store::sqlite) number: u64,
    /// The digest of the last entry; before the first one: zeros.
    pub(in crate::store::sqlite) digest: [u8; 32],
}

/// Where the copy stands; `None`: the store stands alone.
pub(in crate::store::sqlite) fn place(connection: &Connection) -> rusqlite::Result<Option<Place>> {
    connection
        .prepare_cached("SELECT number, digest FROM replica")?
        .query_row([], |row| {
            Ok(Place {
                number: unsigned(row, 0)?,
                digest: row.get(1)?,
            })
        })
        .optional()
}

/// Makes a copy of an empty store, and sets the connection up for following. What is committed here is in the log already, so the disk
/// is not waited for.
pub(in crate::store::sqlite) fn prepare(connection: &Connection, path: &Path) -> Result<Place, StoreError> {
    let prepared = || {
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        if let Some(place) = place(connection)? {
            return Ok(Some(place));
        }
        let unused = is_unused(connection)?;
        let beginning = Place {
            number: 0,
            digest: [0; 32],
        };
        if unused {
            connection.execute("INSERT INTO replica VALUES (1, 0, ?1)", [beginning.digest])?;
        }
        Ok(unused.then_some(beginning))
    };
    let place = prepared().map_err(|error| failed(path, &error))?;
    place.ok_or_else(|| StoreError::StandsAlone {
        path: path.to_owned(),
    })
}

/// Whether nothing was ever written there, not even by others.
pub(in crate::store::sqlite) fn is_unused(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT revision = 0 AND NOT EXISTS (SELECT 1 FROM source) AND NOT EXISTS (SELECT 1 FROM blob) \
         AND NOT EXISTS (SELECT 1 FROM replica WHERE number > 0) FROM counter",
        [],
        |row| row.get(0),
    )
}

/// Moves the copy from one place to the next; whether it was there. If not, another program writes to its file.
pub(super) fn move_place(connection: &Connection, from: Place, to: Place) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("UPDATE replica SET number = ?1, digest = ?2 WHERE number = ?3 AND digest = ?4")?
        .execute((
            to.number.cast_signed(),
            to.digest,
            from.number.cast_signed(),
            from.digest,
        ))
        .map(|moved| moved == 1)
}

/// Does what another coordinator did; whether it led to the same.
pub(super) fn apply(ledger: &Ledger, effect: &Effect) -> rusqlite::Result<bool> {
    Ok(match effect {
        Effect::Record { key, value, revision } => state::put(ledger, key, value.as_deref())? == *revision,
        Effect::Blob(content) => {
            state::put_blob(ledger, content)?;
            true
        }
        Effect::BlobGone(digest) => {
            state::drop_blob(ledger, digest)?;
            true
        }
        Effect::Block { source, new, number } => trail::store_decided(ledger, source, new)? == Some(*number),
        Effect::Head { source, head } => {
            trail::set_head(ledger, source, *head)?;
            true
        }
        Effect::BlocksGone { last } => {
            removal::drop_until(ledger, *last)?;
            true
        }
    })
}
