//! The tree over all blocks: the statements behind `TrailTree`. Each complete subtree is a row, written with the leaf that completes it.

use penstock_policy::merkle::Hash;
use penstock_policy::merkle::growing::{self, NodeAt, TreeState};
use penstock_proto::audit::leaf::BlockLeaf;
use rusqlite::{Connection, OptionalExtension};

use super::places;
use super::state::unsigned;
use crate::store::trail::StoredBlock;
use crate::store::tree::BlockInTree;

/// How many leaves there are.
pub(super) fn size(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT coalesce(max(position) + 1, 0) FROM node WHERE level = 0")?
        .query_row([], |row| unsigned(row, 0))
}

fn node(connection: &Connection, at: NodeAt) -> rusqlite::Result<Hash> {
    connection
        .prepare_cached("SELECT hash FROM node WHERE level = ?1 AND position = ?2")?
        .query_row((at.level, at.position.cast_signed()), |row| row.get(0))
}

/// Puts a block's leaf at `index`, the first that is free.
pub(super) fn append(connection: &Connection, index: u64, leaf: &BlockLeaf) -> rusqlite::Result<()> {
    let mut insert =
        connection.prepare_cached("INSERT INTO node (level, position, hash) VALUES (?1, ?2, ?3)")?;
    growing::append(
        index,
        leaf.hash(),
        |at| node(connection, at),
        |at, hash| {
            insert
                .execute((at.level, at.position.cast_signed(), hash))
                .map(|_| ())
        },
    )
}

/// The first `size` leaves, all of them without a size; `None`: there are not so many.
pub(super) fn state(connection: &Connection, wanted: Option<u64>) -> rusqlite::Result<Option<TreeState>> {
    let held = size(connection)?;
    let size = wanted.unwrap_or(held);
    if size > held {
        return Ok(None);
    }
    let root = growing::root(size, |at| node(connection, at))?;
    Ok(Some(TreeState { size, root }))
}

pub(super) fn inclusion(
    connection: &Connection,
    index: u64,
    wanted: u64,
) -> rusqlite::Result<Option<Vec<Hash>>> {
    if wanted > size(connection)? {
        return Ok(None);
    }
    growing::inclusion(index, wanted, |at| node(connection, at))
}

pub(super) fn consistency(
    connection: &Connection,
    earlier: u64,
    wanted: u64,
) -> rusqlite::Result<Option<Vec<Hash>>> {
    if wanted > size(connection)? {
        return Ok(None);
    }
    growing::consistency(earlier, wanted, |at| node(connection, at))
}

pub(super) fn block_at(
    connection: &Connection,
    source: &str,
    epoch: u64,
    sequence: u64,
) -> rusqlite::Result<Option<BlockInTree>> {
    let (Ok(stored_epoch), Ok(stored_sequence)) = (i64::try_from(epoch), i64::try_from(sequence)) else {
        return Ok(None);
    };
    connection
        .prepare_cached(
            "SELECT block.previous, block.received_ms, block.body, block.leaf, block.id FROM block JOIN source ON source.id = block.source \
             WHERE source.name = ?1 AND block.epoch = ?2 AND block.sequence = ?3",
        )?
        .query_row((source, stored_epoch, stored_sequence), |row| {
            let index: Option<i64> = row.get(3)?;
            Ok(BlockInTree {
                previous: row.get(0)?,
                index: index.and_then(|index| u64::try_from(index).ok()),
                block: StoredBlock {
                    end: places::cursor(row.get(4)?),
                    source: source.to_owned(),
                    epoch,
                    sequence,
                    received_ms: unsigned(row, 1)?,
                    body: row.get::<_, Vec<u8>>(2)?.into(),
                },
            })
        })
        .optional()
}
