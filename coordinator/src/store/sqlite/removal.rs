//! What retention removes: the statements behind `Trail::drop_expired`.
//!
//! Blocks go from the oldest on, as the times at which they came say; where a clock was wrong, by the next one that says a likely time.

use std::cell::Cell;

use rusqlite::{Connection, OptionalExtension};

use super::ledger::Ledger;
use super::state::{self, unsigned};
use super::trail::append_note;
use crate::store::log::entry::Effect;
use crate::store::trail::{Expired, Note, PurgeReport, REMOVED, bytes_with};

/// A block with a likely time, behind blocks with unlikely ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct LikelyBlock {
    expired: Expired,
    number: i64,
    came_ms: u64,
}

/// The one that was found last, from one step of a removal to the next: however long the row of unlikely ones before it, it is
/// looked for once.
pub(super) type LastLikely = Cell<Option<LikelyBlock>>;

/// Removes at most `limit` of the oldest blocks, while they are `expired`. The heads stay, so that each chain goes on, and the
/// first block that is left names the digest of the last one that is gone.
pub(super) fn drop_expired(
    ledger: &Ledger,
    expired: Expired,
    limit: u32,
    last: &LastLikely,
) -> rusqlite::Result<PurgeReport> {
    let oldest: Vec<(i64, i64, u64, u64)> = ledger
        .prepare_cached(
            "SELECT id, source, received_ms, length(body) FROM block WHERE id < (SELECT max(id) FROM block) \
             ORDER BY id LIMIT ?1",
        )?
        .query_map([limit], |row| {
            Ok((row.get(0)?, row.get(1)?, unsigned(row, 2)?, unsigned(row, 3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut dropped = PurgeReport::default();
    let mut last_gone = None;
    // When the next block with a likely time came; `None`: there is none. Looked for once in a row of unlikely ones.
    let mut next_likely: Option<Option<u64>> = None;
    for (id, source, received_ms, bytes) in oldest {
        let came_ms = if received_ms <= expired.unlikely_after_ms {
            next_likely = None;
            Some(received_ms)
        } else if let Some(found) = next_likely {
            found
        } else {
            *next_likely.insert(next_likely_ms(ledger, id, expired, last)?)
        };
        if came_ms.is_none_or(|came_ms| came_ms >= expired.before_ms) {
            break;
        }
        dropped.bytes = dropped
            .bytes
            .saturating_add(drop_block(ledger, id, source, bytes)?);
        dropped.blocks += 1;
        last_gone = Some(id.cast_unsigned());
    }
    if let Some(last) = last_gone {
        ledger.note(|| Effect::BlocksGone { last });
    }
    Ok(dropped)
}

/// Removes a block with a body of so many bytes; answers with what it took.
fn drop_block(ledger: &Ledger, id: i64, source: i64, body_bytes: u64) -> rusqlite::Result<u64> {
    let bytes = bytes_with(body_bytes);
    ledger
        .prepare_cached("DELETE FROM block WHERE id = ?1")?
        .execute([id])?;
    ledger
        .prepare_cached("UPDATE source SET bytes = max(0, bytes - ?2) WHERE id = ?1")?
        .execute((source, bytes.cast_signed()))?;
    Ok(bytes)
}

/// Removes all blocks up to and with the one of number `last`, as another coordinator decided.
pub(super) fn drop_until(ledger: &Ledger, last: u64) -> rusqlite::Result<()> {
    let gone: Vec<(i64, i64, u64)> = ledger
        .prepare_cached("SELECT id, source, length(body) FROM block WHERE id <= ?1 ORDER BY id")?
        .query_map([last.cast_signed()], |row| {
            Ok((row.get(0)?, row.get(1)?, unsigned(row, 2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (id, source, body_bytes) in gone {
        drop_block(ledger, id, source, body_bytes)?;
    }
    ledger.note(|| Effect::BlocksGone { last });
    Ok(())
}

/// Counts what a step removed, and notes all of it behind the last step.
pub(super) fn note_removed(
    ledger: &Ledger,
    dropped: PurgeReport,
    limit: u32,
    note: &Note<PurgeReport>,
) -> rusqlite::Result<()> {
    let held = state::get(ledger, REMOVED)?;
    let (noted, left) = dropped.counted(held.as_ref().map(|held| held.value.as_slice()), limit);
    if let Some(all) = noted {
        append_note(ledger, Some(note), &all)?;
    }
    if held.is_some() || left.is_some() {
        state::put(ledger, REMOVED, left.as_deref())?;
    }
    Ok(())
}

/// When the next block behind the one of number `after` came that says a likely time.
fn next_likely_ms(
    connection: &Connection,
    after: i64,
    expired: Expired,
    last: &LastLikely,
) -> rusqlite::Result<Option<u64>> {
    let known = last.get();
    if let Some(known) = known.filter(|known| known.expired == expired && known.number > after) {
        return Ok(Some(known.came_ms));
    }
    let stored = |ms: u64| ms.min(i64::MAX.cast_unsigned()).cast_signed();
    let (from, until) = (
        stored(expired.unlikely_before_ms),
        stored(expired.unlikely_after_ms),
    );
    let found = connection
        .prepare_cached(
            "SELECT id, received_ms FROM block WHERE id > ?1 AND received_ms BETWEEN ?2 AND ?3 ORDER BY id LIMIT 1",
        )?
        .query_row([after, from, until], |row| {
            Ok(LikelyBlock {
                expired,
                number: row.get(0)?,
                came_ms: unsigned(row, 1)?,
            })
        })
        .optional()?;
    last.set(found);
    Ok(found.map(|found| found.came_ms))
}
