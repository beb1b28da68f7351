//! Blocks of audit trails: the statements behind `Trail`.
//!
//! Each block keeps its exact body and its digest, so that the chain can be verified again from what is stored,
//! and a summary by which a query skips it without decoding. A block's row id is its number in the order in which blocks
//! came; a cursor is the number of the block that it stands behind.

use bytes::Bytes;
use penstock_proto::audit::leaf::BlockLeaf;
use penstock_proto::audit::{ChainError, GENESIS, Head, block_digest};
use penstock_proto::v1::AuditBlock;
use rusqlite::{Connection, OptionalExtension};

use super::ledger::Ledger;
use super::places::cursor;
use super::state::{self, unsigned};
use super::tree;
use crate::store::log::entry::Effect;
use crate::store::trail::{
    Append, AtHead, BlockFilter, Clock, Cursor, HeadMade, NewBlock, Note, OwnBody, Page, Removed,
    StoredBlock, block_bytes,
};

/// The number of the newest block; 0: there is none.
pub(super) fn last_block(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT coalesce(max(id), 0) FROM block", [], |row| row.get(0))
}

/// The number of the oldest block behind the one of number `after`.
fn oldest_behind(connection: &Connection, after: i64) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT min(id) FROM block WHERE id > ?1")?
        .query_row([after], |row| row.get(0))
}

/// Numbers are given without a gap, so that one that is missing is that of a block that was removed.
pub(super) fn removed_behind(connection: &Connection, after: i64) -> rusqlite::Result<Option<Removed>> {
    let end = oldest_behind(connection, after)?.map_or(after, |oldest| oldest - 1);
    Ok(Removed::some((end - after).cast_unsigned(), cursor(end)))
}

/// Before the oldest block that is stored.
pub(super) fn beginning(connection: &Connection) -> rusqlite::Result<Cursor> {
    Ok(cursor(
        oldest_behind(connection, 0)?.map_or(0, |oldest| oldest - 1),
    ))
}

fn digest(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<[u8; 32]> {
    row.get(column)
}

/// A source's number and head.
pub(super) fn source(connection: &Connection, name: &str) -> rusqlite::Result<Option<(i64, Head)>> {
    connection
        .prepare_cached("SELECT id, epoch, next_sequence, digest FROM source WHERE name = ?1")?
        .query_row([name], |row| {
            let head = Head {
                epoch: unsigned(row, 1)?,
                next_sequence: unsigned(row, 2)?,
                digest: digest(row, 3)?,
            };
            Ok((row.get(0)?, head))
        })
        .optional()
}

pub(super) fn head(connection: &Connection, name: &str) -> rusqlite::Result<Option<Head>> {
    Ok(source(connection, name)?.map(|(_, head)| head))
}

/// What the trail of a source holds, bytes.
pub(super) fn held_bytes(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let held: Option<i64> = connection
        .prepare_cached("SELECT bytes FROM source WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(held.map_or(0, |held| u64::try_from(held).unwrap_or(0)))
}

/// Appends blocks in order. What stands behind a refused one is refused with it.
pub(super) fn append_all(ledger: &Ledger, name: &str, blocks: &[NewBlock]) -> rusqlite::Result<Vec<Append>> {
    let mut outcomes = Vec::with_capacity(blocks.len());
    for block in blocks {
        outcomes.push(match outcomes.last() {
            Some(refused @ Append::Refused(_)) => *refused,
            _ => append(ledger, name, block)?,
        });
    }
    Ok(outcomes)
}

/// Judges a block against the source's head, and stores it if it belongs there.
fn append(ledger: &Ledger, name: &str, new: &NewBlock) -> rusqlite::Result<Append> {
    let found = source(ledger, name)?;
    let head = found.as_ref().map(|(_, head)| *head);
    let accepted = match Head::accept(head.as_ref(), &new.block) {
        Ok(accepted) => accepted,
        Err(ChainError::Held { epoch, sequence }) => {
            let same = match &found {
                Some((id, _)) => same_as_stored(ledger, *id, &new.block)?,
                None => true,
            };
            return Ok(match (same, head) {
                (true, Some(head)) => Append::Held { head },
                _ => Append::Refused(ChainError::Forked { epoch, sequence }),
            });
        }
        Err(refused) => return Ok(Append::Refused(refused)),
    };
    let id = found.map(|(id, _)| id);
    if !store(ledger, name, id, new, accepted.head)? {
        return match id {
            Some(id) => taken(ledger, (id, name), &new.block, accepted.head),
            None => Ok(Append::Refused(forked(&new.block))),
        };
    }
    Ok(Append::Stored {
        head: accepted.head,
        missing: accepted.missing,
    })
}

/// The writer itself knows the head, so the coordinator's own events need no reservation of a sequence.
pub(super) fn append_own(ledger: &Ledger, source: &str, own: &OwnBody) -> rusqlite::Result<Head> {
    let head = head(ledger, source)?.unwrap_or_else(AtHead::beginning);
    append_own_at(ledger, source, head, own)
}

/// Appends what is made of the head of the coordinator's own chain, with its record.
pub(super) fn append_at_head(ledger: &Ledger, made: &AtHead) -> rusqlite::Result<Head> {
    let head = head(ledger, &made.source)?.unwrap_or_else(AtHead::beginning);
    let HeadMade {
        own,
        new_epoch,
        record,
    } = (made.make)(&head);
    if let Some(record) = record {
        state::put(ledger, &made.key, Some(&record))?;
    }
    let head = if new_epoch {
        AtHead::next_epoch(&head)
    } else {
        head
    };
    append_own_at(ledger, &made.source, head, &own)
}

fn append_own_at(ledger: &Ledger, source: &str, head: Head, own: &OwnBody) -> rusqlite::Result<Head> {
    let new = NewBlock {
        block: AuditBlock {
            epoch: head.epoch,
            sequence: head.next_sequence,
            previous_digest: Bytes::copy_from_slice(&head.digest),
            body: own.body.clone(),
        },
        summary: own.summary,
        received_ms: own.received_ms,
    };
    match append(ledger, source, &new)? {
        Append::Stored { head, .. } | Append::Held { head } => Ok(head),
        // Built on the head itself, a block can only be refused for its size, which the journal bounds.
        Append::Refused(_) => Err(rusqlite::Error::InvalidQuery),
    }
}

/// Appends what a note makes of this.
pub(super) fn append_note<T: ?Sized>(
    ledger: &Ledger,
    note: Option<&Note<T>>,
    outcome: &T,
) -> rusqlite::Result<()> {
    if let Some((source, bodies)) = note.map(|note| note.of(outcome)) {
        for own in &bodies {
            append_own(ledger, source, own)?;
        }
    }
    if let Some((note, (source, key))) = note.and_then(|note| Some((note, note.follows()?))) {
        let held = state::get(ledger, key)?;
        let followed = note.follow(outcome, held.as_ref().map(|held| held.value.as_slice()));
        if let Some(value) = followed.value {
            state::put(ledger, key, Some(&value))?;
        }
        for own in &followed.bodies {
            append_own(ledger, source, own)?;
        }
    }
    Ok(())
}

fn forked(block: &AuditBlock) -> ChainError {
    let (epoch, sequence) = (block.epoch, block.sequence);
    ChainError::Forked { epoch, sequence }
}

/// A block came to a place beyond the head that is taken, behind a trail that was taken back ([`rewind`]). The head goes to
/// what is stored there: behind the block, if it is the same one, else behind all of that epoch. So the source learns that
/// this epoch is not its own any more, and goes on in another one, instead of coming to the same place again and again.
fn taken(
    ledger: &Ledger,
    (id, name): (i64, &str),
    block: &AuditBlock,
    own: Head,
) -> rusqlite::Result<Append> {
    if same_as_stored(ledger, id, block)? {
        set_head(ledger, name, own)?;
        return Ok(Append::Held { head: own });
    }
    if let Some(last) = last_of(ledger, id, block.epoch)? {
        set_head(ledger, name, last)?;
    }
    Ok(Append::Refused(forked(block)))
}

/// Sets the head of a source, which is there, to another place.
pub(super) fn set_head(ledger: &Ledger, name: &str, head: Head) -> rusqlite::Result<()> {
    ledger
        .prepare_cached("UPDATE source SET epoch = ?2, next_sequence = ?3, digest = ?4 WHERE name = ?1")?
        .execute((
            name,
            head.epoch.cast_signed(),
            head.next_sequence.cast_signed(),
            head.digest,
        ))?;
    ledger.note(|| Effect::Head {
        source: name.to_owned(),
        head,
    });
    Ok(())
}

/// Where the stored trail ends, up to and with this epoch.
fn last_of(connection: &Connection, id: i64, epoch_max: u64) -> rusqlite::Result<Option<Head>> {
    connection
        .prepare_cached(
            "SELECT epoch, sequence, digest FROM block WHERE source = ?1 AND epoch BETWEEN 0 AND ?2 \
             ORDER BY epoch DESC, sequence DESC LIMIT 1",
        )?
        .query_row(
            (id, epoch_max.min(i64::MAX.cast_unsigned()).cast_signed()),
            |row| {
                Ok(Head {
                    epoch: unsigned(row, 0)?,
                    next_sequence: unsigned(row, 1)?.saturating_add(1),
                    digest: digest(row, 2)?,
                })
            },
        )
        .optional()
}

/// Whether the block that was accepted at this position is this one. A position that was never delivered (shed
/// by the source, then sent after all) holds nothing to contradict.
fn same_as_stored(connection: &Connection, source: i64, block: &AuditBlock) -> rusqlite::Result<bool> {
    let stored: Option<(Vec<u8>, Vec<u8>)> = connection
        .prepare_cached(
            "SELECT previous, body FROM block WHERE source = ?1 AND epoch = ?2 AND sequence = ?3",
        )?
        .query_row(
            (source, block.epoch.cast_signed(), block.sequence.cast_signed()),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    Ok(stored.is_none_or(|(previous, body)| block.previous_digest == previous && block.body == body))
}

/// Whether it was stored: behind a trail that was taken back ([`rewind`]) its place may be taken by what was written there.
fn store(ledger: &Ledger, name: &str, id: Option<i64>, new: &NewBlock, head: Head) -> rusqlite::Result<bool> {
    let position = (head.epoch.cast_signed(), head.next_sequence.cast_signed());
    let id = match id {
        Some(id) => id,
        None => ledger
            .prepare_cached(
                "INSERT INTO source (name, epoch, next_sequence, digest) VALUES (?1, ?2, ?3, ?4) RETURNING id",
            )?
            .query_row((name, position.0, position.1, head.digest), |row| row.get(0))?,
    };
    let leaf = tree::size(ledger)?;
    let stored = ledger
        .prepare_cached(
            "INSERT OR IGNORE INTO block (source, epoch, sequence, previous, digest, received_ms, first_ms, last_ms, kinds, \
             decisions, severity, body, leaf) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute((
            id,
            new.block.epoch.cast_signed(),
            new.block.sequence.cast_signed(),
            new.block.previous_digest.as_ref(),
            head.digest,
            new.received_ms.cast_signed(),
            new.summary.first_ms.cast_signed(),
            new.summary.last_ms.cast_signed(),
            new.summary.kinds,
            new.summary.decisions,
            new.summary.severity,
            new.block.body.as_ref(),
            leaf.cast_signed(),
        ))?;
    if stored == 0 {
        return Ok(false);
    }
    let number = ledger.last_insert_rowid().cast_unsigned();
    let place = (new.block.epoch, new.block.sequence);
    let block = BlockLeaf::new(name, place, head.digest, &new.block.body);
    tree::append(ledger, leaf, &block)?;
    let bytes = block_bytes(&new.block.body).cast_signed();
    ledger
        .prepare_cached(
            "UPDATE source SET epoch = ?2, next_sequence = ?3, digest = ?4, bytes = bytes + ?5 WHERE id = ?1",
        )?
        .execute((id, position.0, position.1, head.digest, bytes))?;
    ledger.note(|| Effect::Block {
        source: name.to_owned(),
        new: Box::new(new.clone()),
        number,
    });
    Ok(true)
}

/// Stores a block as another coordinator decided, and nothing else; answers with its number, if it was not there.
pub(super) fn store_decided(ledger: &Ledger, name: &str, new: &NewBlock) -> rusqlite::Result<Option<u64>> {
    let Ok(previous) = new.block.previous_digest.as_ref().try_into() else {
        return Ok(None);
    };
    let (epoch, sequence) = (new.block.epoch, new.block.sequence);
    let head = Head {
        epoch,
        next_sequence: sequence.saturating_add(1),
        digest: block_digest(previous, epoch, sequence, &new.block.body),
    };
    let id = source(ledger, name)?.map(|(id, _)| id);
    let stored = store(ledger, name, id, new, head)?;
    Ok(stored.then(|| ledger.last_insert_rowid().cast_unsigned()))
}

/// Takes the head of a source back to its last block of at most `epoch_max`, if it is beyond; answers with both. What lies
/// beyond stays stored and is found by searches.
pub(super) fn rewind(ledger: &Ledger, name: &str, epoch_max: u64) -> rusqlite::Result<Option<(Head, Head)>> {
    let Some((id, held)) = source(ledger, name)?.filter(|(_, held)| held.epoch > epoch_max) else {
        return Ok(None);
    };
    let lawful = last_of(ledger, id, epoch_max)?.unwrap_or(Head {
        epoch: 0,
        next_sequence: 0,
        digest: GENESIS,
    });
    set_head(ledger, name, lawful)?;
    Ok(Some((held, lawful)))
}

/// Blocks behind the one of number `after`, else from the beginning, as [`crate::store::trail::Trail::page`].
pub(super) fn page(
    connection: &Connection,
    filter: &BlockFilter,
    after: Option<i64>,
    limit: usize,
) -> rusqlite::Result<Page> {
    // Before the blocks are read: what is committed in between is looked at by the next page.
    let newest = last_block(connection)?;
    let numbers = if filter.newest_first {
        (0, after.unwrap_or(i64::MAX))
    } else {
        (after.unwrap_or(0), i64::MAX)
    };
    let found = between(connection, filter, numbers, limit)?;
    Ok(paged(found, filter, after, newest, limit))
}

/// What was found as a page; `newest`: the newest block before it was looked for.
pub(super) fn paged(
    found: Vec<(i64, StoredBlock)>,
    filter: &BlockFilter,
    after: Option<i64>,
    newest: i64,
    limit: usize,
) -> Page {
    let more = found.len() >= limit;
    let first = if filter.newest_first { i64::MAX } else { 0 };
    let last = found.last().map_or(after.unwrap_or(first), |(number, _)| *number);
    let end = match (more, filter.newest_first) {
        (true, _) => last,
        (false, true) => 0,
        (false, false) => last.max(newest),
    };
    Page {
        blocks: found.into_iter().map(|(_, block)| block).collect(),
        end: cursor(end),
        more,
    }
}

const COLUMNS: &str = "SELECT b.id, s.name, b.epoch, b.sequence, b.received_ms, b.body FROM block b JOIN source s ON s.id = b.source";

fn stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, StoredBlock)> {
    let number = row.get(0)?;
    let block = StoredBlock {
        source: row.get(1)?,
        epoch: unsigned(row, 2)?,
        sequence: unsigned(row, 3)?,
        received_ms: unsigned(row, 4)?,
        body: row.get::<_, Vec<u8>>(5)?.into(),
        end: cursor(number),
    };
    Ok((number, block))
}

/// Blocks between two numbers, both excluded, that the filter's summary lets through.
pub(super) fn between(
    connection: &Connection,
    filter: &BlockFilter,
    (low, high): (i64, i64),
    limit: usize,
) -> rusqlite::Result<Vec<(i64, StoredBlock)>> {
    let order = if filter.newest_first { "DESC" } else { "ASC" };
    let sql = format!(
        "{COLUMNS} WHERE b.id > ?1 AND b.id < ?11 AND (?2 IS NULL OR s.name = ?2) \
         AND ((?9 AND b.last_ms >= ?3 AND (?4 = 0 OR b.first_ms <= ?4)) \
         OR (?10 AND b.received_ms >= ?3 AND (?4 = 0 OR b.received_ms <= ?4))) AND (?5 = 0 OR b.kinds & ?5 <> 0) AND (?6 = 0 OR b.decisions & ?6 <> 0) AND b.severity >= ?7 \
         ORDER BY b.id {order} LIMIT ?8"
    );
    connection
        .prepare_cached(&sql)?
        .query_map(
            (
                low,
                &filter.source,
                filter.from_ms.min(i64::MAX.cast_unsigned()).cast_signed(),
                filter.until_ms.min(i64::MAX.cast_unsigned()).cast_signed(),
                filter.kinds,
                filter.decisions,
                filter.severity_min,
                i64::try_from(limit).unwrap_or(i64::MAX),
                filter.clock != Clock::Received,
                filter.clock != Clock::Source,
                high,
            ),
            stored,
        )?
        .collect()
}

/// All blocks from one number to another, both included.
pub(super) fn all_between(
    connection: &Connection,
    first: i64,
    last: i64,
) -> rusqlite::Result<Vec<(i64, StoredBlock)>> {
    connection
        .prepare_cached(&format!("{COLUMNS} WHERE b.id BETWEEN ?1 AND ?2 ORDER BY b.id"))?
        .query_map((first, last), stored)?
        .collect()
}
