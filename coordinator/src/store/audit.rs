//! Blocks of audit trails: the statements behind the *audit* interface.
//!
//! Each block keeps its exact body and its digest, so that the chain can be verified again from what is stored,
//! and a summary by which a query skips it without decoding.

use bytes::Bytes;
use penstock_proto::audit::{AcceptedBlock, ChainError, GENESIS, Head};
use penstock_proto::v1::AuditBlock;
use rusqlite::{Connection, OptionalExtension};

use super::state::unsigned;

/// What is in a block, coarsely.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockSummary {
    /// Time of its earliest event, milliseconds since 1970.
    pub first_ms: u64,
    /// Time of its latest event.
    pub last_ms: u64,
    /// One bit per kind of event (`query::kind_bit`).
    pub kinds: u32,
    /// One bit per decision.
    pub decisions: u32,
    /// Highest severity.
    pub severity: i32,
}

/// A block that was read and is ready to be stored.
#[derive(Debug, Clone)]
pub struct NewBlock {
    /// As it came.
    pub block: AuditBlock,
    /// What is in it.
    pub summary: BlockSummary,
    /// When it came, milliseconds since 1970.
    pub received_ms: u64,
}

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Append {
    /// Stored now. `missing`: sequences that the source never delivered before it.
    Stored {
        /// The head with it.
        head: Head,
        /// Sequences shed before it.
        missing: u64,
    },
    /// Was there already, the same.
    Held {
        /// The head, unchanged.
        head: Head,
    },
    /// Not stored: it contradicts the trail, or its form is wrong.
    Refused(ChainError),
}

/// Which clock a time is held against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Clock {
    /// The source's.
    #[default]
    Source,
    /// The coordinator's, when it received the block.
    Received,
    /// Either of them.
    Either,
}

/// Which blocks to read.
#[derive(Debug, Clone, Default)]
pub struct BlockFilter {
    /// Only this source.
    pub source: Option<String>,
    /// Only events not before this time.
    pub from_ms: u64,
    /// Only events not after this time; 0: no end.
    pub until_ms: u64,
    /// By which clock.
    pub clock: Clock,
    /// Only blocks with one of these kinds; 0: any.
    pub kinds: u32,
    /// Only blocks with one of these decisions; 0: any.
    pub decisions: u32,
    /// Only blocks that hold at least this severity.
    pub severity_min: i32,
    /// Only blocks after this number (oldest first) or before it (newest first); 0: from the end.
    pub beyond: i64,
    /// The newest first.
    pub newest_first: bool,
}

/// A block as it is stored.
#[derive(Debug, Clone)]
pub struct StoredBlock {
    /// Its number in order of arrival.
    pub id: i64,
    /// Whose it is.
    pub source: String,
    /// Chain number.
    pub epoch: u64,
    /// Position in the chain.
    pub sequence: u64,
    /// When it came, milliseconds since 1970.
    pub received_ms: u64,
    /// The encoded body.
    pub body: Bytes,
}

pub(super) fn last_block(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT coalesce(max(id), 0) FROM block", [], |row| row.get(0))
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

/// What a block takes beside its body, bytes.
const ROW_BYTES: u64 = 256;

/// What a block with this body takes, bytes.
pub fn block_bytes(body: &[u8]) -> u64 {
    (body.len() as u64).saturating_add(ROW_BYTES)
}

/// What the trail of a source holds, bytes.
pub(super) fn held_bytes(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let held: Option<i64> = connection
        .prepare_cached("SELECT bytes FROM source WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(held.map_or(0, |held| u64::try_from(held).unwrap_or(0)))
}

/// What retention ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PurgeReport {
    /// Blocks.
    pub blocks: u64,
    /// What they held, bytes.
    pub bytes: u64,
}

/// Removes at most `limit` of the oldest blocks, as long as they came before `before_ms`. The heads stay, so that each chain
/// goes on, and the first block that is left names the digest of the last one that is gone.
pub(super) fn drop_before(
    connection: &Connection,
    before_ms: u64,
    limit: u32,
) -> rusqlite::Result<PurgeReport> {
    let oldest: Vec<(i64, i64, u64, u64)> = connection
        .prepare_cached("SELECT id, source, received_ms, length(body) FROM block ORDER BY id LIMIT ?1")?
        .query_map([limit], |row| {
            Ok((row.get(0)?, row.get(1)?, unsigned(row, 2)?, unsigned(row, 3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut dropped = PurgeReport::default();
    for (id, source, _, bytes) in oldest.into_iter().take_while(|oldest| oldest.2 < before_ms) {
        let bytes = bytes.saturating_add(ROW_BYTES);
        connection
            .prepare_cached("DELETE FROM block WHERE id = ?1")?
            .execute([id])?;
        connection
            .prepare_cached("UPDATE source SET bytes = max(0, bytes - ?2) WHERE id = ?1")?
            .execute((source, bytes.cast_signed()))?;
        dropped.blocks += 1;
        dropped.bytes = dropped.bytes.saturating_add(bytes);
    }
    Ok(dropped)
}

/// Judges a block against the source's head, and stores it if it belongs there.
pub(super) fn append(connection: &Connection, name: &str, new: &NewBlock) -> rusqlite::Result<Append> {
    let found = source(connection, name)?;
    let head = found.as_ref().map(|(_, head)| *head);
    let accepted = match Head::accept(head.as_ref(), &new.block) {
        Ok(accepted) => accepted,
        Err(ChainError::Held { epoch, sequence }) => {
            let same = match &found {
                Some((id, _)) => same_as_stored(connection, *id, &new.block)?,
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
    if !store(connection, name, id, new, accepted)? {
        return match id {
            Some(id) => taken(connection, id, &new.block, accepted.head),
            None => Ok(Append::Refused(forked(&new.block))),
        };
    }
    Ok(Append::Stored {
        head: accepted.head,
        missing: accepted.missing,
    })
}

fn forked(block: &AuditBlock) -> ChainError {
    let (epoch, sequence) = (block.epoch, block.sequence);
    ChainError::Forked { epoch, sequence }
}

/// A block came to a place beyond the head that is taken, behind a trail that was taken back ([`rewind`]). The head goes to
/// what is stored there: behind the block, if it is the same one, else behind all of that epoch. So the source learns that
/// this epoch is not its own any more, and goes on in another one, instead of coming to the same place again and again.
fn taken(connection: &Connection, id: i64, block: &AuditBlock, own: Head) -> rusqlite::Result<Append> {
    if same_as_stored(connection, id, block)? {
        set_head(connection, id, own)?;
        return Ok(Append::Held { head: own });
    }
    if let Some(last) = last_of(connection, id, block.epoch)? {
        set_head(connection, id, last)?;
    }
    Ok(Append::Refused(forked(block)))
}

fn set_head(connection: &Connection, id: i64, head: Head) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE source SET epoch = ?2, next_sequence = ?3, digest = ?4 WHERE id = ?1")?
        .execute((
            id,
            head.epoch.cast_signed(),
            head.next_sequence.cast_signed(),
            head.digest,
        ))
        .map(|_| ())
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
fn store(
    connection: &Connection,
    name: &str,
    id: Option<i64>,
    new: &NewBlock,
    accepted: AcceptedBlock,
) -> rusqlite::Result<bool> {
    let head = accepted.head;
    let position = (head.epoch.cast_signed(), head.next_sequence.cast_signed());
    let id = match id {
        Some(id) => id,
        None => connection
            .prepare_cached(
                "INSERT INTO source (name, epoch, next_sequence, digest) VALUES (?1, ?2, ?3, ?4) RETURNING id",
            )?
            .query_row((name, position.0, position.1, head.digest), |row| row.get(0))?,
    };
    let stored = connection
        .prepare_cached(
            "INSERT OR IGNORE INTO block (source, epoch, sequence, previous, digest, received_ms, first_ms, last_ms, kinds, \
             decisions, severity, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
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
        ))?;
    if stored == 0 {
        return Ok(false);
    }
    let bytes = block_bytes(&new.block.body).cast_signed();
    connection
        .prepare_cached(
            "UPDATE source SET epoch = ?2, next_sequence = ?3, digest = ?4, bytes = bytes + ?5 WHERE id = ?1",
        )?
        .execute((id, position.0, position.1, head.digest, bytes))?;
    Ok(true)
}

/// Takes the head of a source back to its last block of at most `epoch_max`, if it is beyond; answers with both. What lies
/// beyond stays stored and is found by searches.
pub(super) fn rewind(
    connection: &Connection,
    name: &str,
    epoch_max: u64,
) -> rusqlite::Result<Option<(Head, Head)>> {
    let Some((id, held)) = source(connection, name)?.filter(|(_, held)| held.epoch > epoch_max) else {
        return Ok(None);
    };
    let lawful = last_of(connection, id, epoch_max)?.unwrap_or(Head {
        epoch: 0,
        next_sequence: 0,
        digest: GENESIS,
    });
    set_head(connection, id, lawful)?;
    Ok(Some((held, lawful)))
}

pub(super) fn blocks(
    connection: &Connection,
    filter: &BlockFilter,
    limit: usize,
) -> rusqlite::Result<Vec<StoredBlock>> {
    let (beyond, order) = match (filter.newest_first, filter.beyond) {
        (true, 0) => ("b.id > ?1", "DESC"),
        (true, _) => ("b.id < ?1", "DESC"),
        (false, _) => ("b.id > ?1", "ASC"),
    };
    let sql = format!(
        "SELECT b.id, s.name, b.epoch, b.sequence, b.received_ms, b.body FROM block b JOIN source s ON s.id = b.source \
         WHERE {beyond} AND (?2 IS NULL OR s.name = ?2) \
         AND ((?9 AND b.last_ms >= ?3 AND (?4 = 0 OR b.first_ms <= ?4)) \
         OR (?10 AND b.received_ms >= ?3 AND (?4 = 0 OR b.received_ms <= ?4))) AND (?5 = 0 OR b.kinds & ?5 <> 0) AND (?6 = 0 OR b.decisions & ?6 <> 0) AND b.severity >= ?7 \
         ORDER BY b.id {order} LIMIT ?8"
    );
    connection
        .prepare_cached(&sql)?
        .query_map(
            (
                filter.beyond,
                &filter.source,
                filter.from_ms.min(i64::MAX.cast_unsigned()).cast_signed(),
                filter.until_ms.min(i64::MAX.cast_unsigned()).cast_signed(),
                filter.kinds,
                filter.decisions,
                filter.severity_min,
                i64::try_from(limit).unwrap_or(i64::MAX),
                filter.clock != Clock::Received,
                filter.clock != Clock::Source,
            ),
            |row| {
                Ok(StoredBlock {
                    id: row.get(0)?,
                    source: row.get(1)?,
                    epoch: unsigned(row, 2)?,
                    sequence: unsigned(row, 3)?,
                    received_ms: unsigned(row, 4)?,
                    body: row.get::<_, Vec<u8>>(5)?.into(),
                })
            },
        )?
        .collect()
}
