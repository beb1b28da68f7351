//! What opening finds: whether the accounts in the database can be trusted, and whether they are behind the mark.
//!
//! Accounts that are behind it, or gone, mean that the disk lost blocks or was rolled back: the trail goes on in a new
//! epoch, and the loss is told.

use penstock_proto::audit::{GENESIS, Head, block_digest};

use super::layout::{BlockRecord, Loss, Meta, Position, read_block_key};

/// Why a new epoch began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochReason {
    /// There was no trail before.
    First,
    /// What the mark or the coordinator knew of is not on this disk.
    Lost(String),
}

/// Whether the last stored block is the one that the accounts say was written last, or an older one.
pub(super) fn is_sound(tree: &sled::Tree, meta: &Meta) -> bool {
    let last = match tree.get_lt([b'c']) {
        Ok(Some((key, value))) => read_block_key(&key).map(|at| (at, value)),
        Ok(None) => None,
        Err(_) => return false,
    };
    let Some((at, value)) = last else {
        return true;
    };
    let next = Position {
        epoch: meta.head.epoch,
        sequence: meta.head.next_sequence,
    };
    if at.epoch == next.epoch && at.sequence.checked_add(1) == Some(next.sequence) {
        return BlockRecord::from_bytes(at, &value).is_some_and(|record| {
            block_digest(&record.previous, at.epoch, at.sequence, &record.body) == meta.head.digest
        });
    }
    at < next
}

fn begin(epoch: u64) -> Head {
    Head {
        epoch,
        next_sequence: 0,
        digest: GENESIS,
    }
}

/// Holds the accounts against the mark: a mark that knows more means that durable blocks are gone.
pub(super) fn judge_mark(mut meta: Meta, marked: Option<Position>) -> (Meta, Option<EpochReason>) {
    let next = Position {
        epoch: meta.head.epoch,
        sequence: meta.head.next_sequence,
    };
    let Some(marked) = marked.filter(|marked| *marked > next) else {
        return (meta, None);
    };
    let blocks = if marked.epoch == next.epoch {
        marked.sequence - next.sequence
    } else {
        0
    };
    let begun = EpochReason::Lost(format!(
        "the spool ends at {}/{}, but had been written up to {}/{}: it was damaged or rolled back",
        next.epoch, next.sequence, marked.epoch, marked.sequence
    ));
    lose_blocks(&mut meta, blocks);
    meta.head = begin(marked.epoch.saturating_add(1));
    (meta, Some(begun))
}

/// At least one event was in each lost block; how many more, nobody knows.
fn lose_blocks(meta: &mut Meta, blocks: u64) {
    if let Some(slot) = meta.untold.last_mut() {
        slot.add(&Loss {
            events: blocks,
            blocks,
            first_ms: 0,
            last_ms: 0,
        });
        meta.lost_events = meta.lost_events.saturating_add(blocks);
    }
}

/// Accounts for a spool that has none, or none that can be trusted: counts what is there and begins a new epoch.
pub(super) fn rebuild(
    tree: &sled::Tree,
    marked: Option<Position>,
    epoch_min: u64,
) -> sled::Result<(Meta, Option<EpochReason>)> {
    let mut bytes = 0_u64;
    let mut last = None;
    for entry in tree.range(vec![b'b']..vec![b'c']) {
        let (key, value) = entry?;
        if let Some(at) = read_block_key(&key) {
            last = Some(at);
            bytes = bytes.saturating_add(
                BlockRecord::from_bytes(at, &value).map_or(value.len() as u64, |record| record.facts.cost),
            );
        }
    }
    let known = last.max(marked);
    let epoch = known.map_or(epoch_min.max(1), |at| at.epoch.saturating_add(1).max(epoch_min));
    let mut meta = Meta {
        head: begin(epoch),
        bytes,
        acked: Position::default(),
        lost_events: 0,
        untold: [Loss::default(); 4],
        moving_from: None,
    };
    let begun = match (marked, known) {
        (None, None) => EpochReason::First,
        (Some(marked), _) if last.is_none_or(|last| last < marked) => {
            let held = last.map_or(0, |last| {
                if last.epoch == marked.epoch {
                    last.sequence.saturating_add(1)
                } else {
                    0
                }
            });
            lose_blocks(&mut meta, marked.sequence.saturating_sub(held));
            EpochReason::Lost(format!(
                "the spool had been written up to {}/{} and is gone: blocks that were not uploaded are lost",
                marked.epoch, marked.sequence
            ))
        }
        _ => EpochReason::Lost("the spool's accounts were damaged; its blocks are kept".to_owned()),
    };
    Ok((meta, Some(begun)))
}
