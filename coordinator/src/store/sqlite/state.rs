//! Versioned records and blobs: the statements behind `State`.

use penstock_policy::ids::Digest;
use rusqlite::{Connection, OptionalExtension};

use super::ledger::Ledger;
use crate::store::StoreError;
use crate::store::log::entry::Effect;
use crate::store::state::{Change, Expect, Order, RecordChange, StateRecord};

pub(super) fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

pub(super) fn get(connection: &Connection, key: &str) -> rusqlite::Result<Option<StateRecord>> {
    connection
        .prepare_cached("SELECT revision, value FROM state WHERE key = ?1")?
        .query_row([key], |row| {
            Ok(StateRecord {
                revision: unsigned(row, 0)?,
                value: row.get(1)?,
            })
        })
        .optional()
}

/// Records of a prefix by key: the first ones ascending, or the last ones descending.
pub(super) fn list(
    connection: &Connection,
    prefix: &str,
    order: Order,
    limit: usize,
) -> rusqlite::Result<Vec<(String, StateRecord)>> {
    // Keys are ASCII, so everything with the prefix sorts before the prefix followed by DEL.
    let end = format!("{prefix}\u{7f}");
    let order = match order {
        Order::First => "ASC",
        Order::Last => "DESC",
    };
    let sql = format!(
        "SELECT key, revision, value FROM state WHERE key >= ?1 AND key < ?2 ORDER BY key {order} LIMIT ?3"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection
        .prepare_cached(&sql)?
        .query_map((prefix, &end, limit), |row| {
            Ok((
                row.get(0)?,
                StateRecord {
                    revision: unsigned(row, 1)?,
                    value: row.get(2)?,
                },
            ))
        })?
        .collect()
}

/// The records of a change, all or none of them. `Ok(Err(_))`: one of them is not what was expected.
pub(super) fn apply(
    ledger: &Ledger,
    change: &Change,
) -> rusqlite::Result<Result<Vec<RecordChange>, StoreError>> {
    for (key, write) in &change.writes {
        let found = ledger
            .prepare_cached("SELECT revision FROM state WHERE key = ?1")?
            .query_row([key], |row| unsigned(row, 0))
            .optional()?;
        let expected = match write.expect {
            Expect::Absent => None,
            Expect::Revision(revision) => Some(revision),
        };
        if found != expected {
            let key = key.clone();
            return Ok(Err(StoreError::Conflict { key, found }));
        }
    }
    let mut written = Vec::with_capacity(change.writes.len());
    for (key, write) in &change.writes {
        written.push(RecordChange {
            key: key.clone(),
            revision: put(ledger, key, write.value.as_deref())?,
        });
    }
    Ok(Ok(written))
}

/// Writes a record, or removes it, whatever is there.
pub(super) fn put(ledger: &Ledger, key: &str, value: Option<&[u8]>) -> rusqlite::Result<u64> {
    let revision: i64 = ledger
        .prepare_cached("UPDATE counter SET revision = revision + 1 RETURNING revision")?
        .query_row([], |row| row.get(0))?;
    match value {
        Some(value) => ledger
            .prepare_cached("INSERT OR REPLACE INTO state (key, revision, value) VALUES (?1, ?2, ?3)")?
            .execute((key, revision, value))?,
        None => ledger
            .prepare_cached("DELETE FROM state WHERE key = ?1")?
            .execute([key])?,
    };
    let revision = revision.cast_unsigned();
    ledger.note(|| Effect::Record {
        key: key.to_owned(),
        value: value.map(<[u8]>::to_vec),
        revision,
    });
    Ok(revision)
}

pub(super) fn put_blob(ledger: &Ledger, content: &[u8]) -> rusqlite::Result<()> {
    let stored = ledger
        .prepare_cached("INSERT OR IGNORE INTO blob (digest, content) VALUES (?1, ?2)")?
        .execute((Digest::of(content).0, content))?;
    if stored > 0 {
        ledger.note(|| Effect::Blob(content.to_vec()));
    }
    Ok(())
}

pub(super) fn blob(connection: &Connection, digest: &Digest) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT content FROM blob WHERE digest = ?1")?
        .query_row([digest.0], |row| row.get(0))
        .optional()
}

/// Digests of all blobs.
pub(super) fn blob_digests(connection: &Connection) -> rusqlite::Result<Vec<Digest>> {
    connection
        .prepare_cached("SELECT digest FROM blob")?
        .query_map([], |row| row.get(0).map(Digest))?
        .collect()
}

pub(super) fn drop_blob(ledger: &Ledger, digest: &Digest) -> rusqlite::Result<()> {
    let gone = ledger
        .prepare_cached("DELETE FROM blob WHERE digest = ?1")?
        .execute([digest.0])?;
    if gone > 0 {
        ledger.note(|| Effect::BlobGone(*digest));
    }
    Ok(())
}
