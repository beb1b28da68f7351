//! The audit trail on the gateway's disk, until the coordinator has it and as long as there is room after that.
//!
//! Owns the sled database `spool/` and the [`mark`] beside it. Synchronous and single-threaded:
//! [`writer`](super::writer) runs it, batches events into it, and contains what the engine below may do.
//!
//! Invariants:
//! - [`Spool::append`] returns after the blocks, the head and the accounts are durable, in one atomic batch;
//! - blocks form one chain per epoch (`penstock_proto::audit`); a block holds events of one severity;
//! - the sum of all costs never exceeds [`SpoolLimits::bytes_max`]; acknowledged blocks go first, then the least
//!   severe, among those the oldest ([`shed`](super::shed)); each loss is told by a later loss record;
//! - opening reads a fixed number of records, however much is stored;
//! - a spool that is behind its mark was rolled back or damaged: it begins a new epoch and says so.
//!
//! Not here: signing of checkpoints, and the upload.

use std::path::{Path, PathBuf};

use penstock_policy::text;
use penstock_proto::audit::Head;
use penstock_proto::v1::{AuditBlock, AuditEvent, SpoolState};

use super::blocks::{SEVERITY_MAX, SpoolBatch, cut};
use super::layout::{
    BlockFacts, BlockRecord, Cause, Loss, META_KEY, Meta, Position, block_key, index_key, read_block_key,
    read_index,
};
use super::opening::{EpochReason, is_sound, judge_mark, rebuild};
use super::{mark, record};
use crate::database;

/// How large the spool may become, and how it cuts blocks.
#[derive(Debug, Clone, Copy)]
pub struct SpoolLimits {
    /// Hard quota for all blocks, in bytes.
    pub bytes_max: u64,
    /// A block is cut when its body reaches this size, in bytes.
    pub block_bytes: usize,
    /// Nothing is written while the file system has less than this free, in bytes.
    pub free_bytes_min: u64,
}

/// A block's body is cut at this size: sled rewrites a page per insert, and small pages cost least.
pub const BLOCK_BYTES: usize = 16 * 1024;

/// Sled's page cache, in bytes. The spool reads what it wrote once, in order; a cache would only hold memory.
const CACHE_BYTES: u64 = 1024 * 1024;
const SEGMENT_BYTES: usize = 256 * 1024;
/// How far the mark may lag behind the trail.
const MARK_INTERVAL_MS: u64 = 5_000;
/// How often at most a loss record is written while events are being lost.
const LOSS_INTERVAL_MS: u64 = 1_000;

/// Why the spool could not do it. The trail on disk is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The engine failed; it has to be reopened.
    #[error("the audit spool's database failed")]
    Engine(#[from] sled::Error),
    /// The file system is too full to write safely.
    #[error(
        "the audit spool's file system has {free_bytes} bytes free, less than the {free_bytes_min} kept in reserve: free some space"
    )]
    NoRoom {
        /// Free now.
        free_bytes: u64,
        /// Wanted.
        free_bytes_min: u64,
    },
    /// The file system could not be asked for its free space.
    #[error("cannot ask for the free space below {}", path.display())]
    FreeSpace {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The coordinator acknowledges an epoch that no trail of this gateway can have reached.
    #[error(
        "the coordinator claims audit epoch {0}, far beyond this gateway's own, and the upload of the trail waits: somebody else \
         wrote under this gateway's name, or the coordinator is of a version that does not say where the trail went on"
    )]
    AbsurdEpoch(u64),
}

/// The spool. Dropping it without [`Spool::close`] loses nothing that `append` returned for.
#[derive(Debug)]
pub struct Spool {
    pub(super) tree: sled::Tree,
    db: sled::Db,
    folder: PathBuf,
    pub(super) limits: SpoolLimits,
    pub(super) meta: Meta,
    marked: Position,
    marked_ms: u64,
    /// Why the mark says nothing now: it could not be read at opening, or not be written since.
    mark_fault: Option<String>,
    told_ms: u64,
}

impl Spool {
    /// Opens or creates the spool in `folder`, which must exist. `epoch_min` is the lowest number for a first epoch.
    ///
    /// # Errors
    /// The database or the mark beside it cannot be opened or read. Damage is not an error: the trail goes on in a
    /// new epoch, which is returned.
    pub fn open(
        folder: &Path,
        limits: SpoolLimits,
        epoch_min: u64,
    ) -> Result<(Self, Option<EpochReason>), SpoolError> {
        // A mark that cannot be read is worth as much as none: the trail goes on, and it is said that a loss would not be seen.
        let (marked, mark_fault) = match mark::read(folder) {
            Ok(marked) => (marked, None),
            Err(error) => (None, Some(mark_failed(&error))),
        };
        let db = database::open(&folder.join("spool"), CACHE_BYTES, SEGMENT_BYTES)?;
        let tree = db.open_tree("trail")?;
        let held = tree
            .get(META_KEY)?
            .and_then(|bytes| Meta::from_bytes(&bytes))
            .filter(|meta| is_sound(&tree, meta));
        let (meta, mut begun) = match held {
            Some(meta) => judge_mark(meta, marked),
            None => rebuild(&tree, marked, epoch_min)?,
        };
        if let (Some(EpochReason::First), Some(why)) = (&begun, &mark_fault) {
            begun = Some(EpochReason::Lost(format!(
                "there is no trail, and whether there was one is not known: {why}"
            )));
        }
        let spool = Self {
            tree,
            db,
            folder: folder.to_owned(),
            limits,
            meta,
            marked: marked.unwrap_or_default(),
            marked_ms: 0,
            mark_fault,
            told_ms: 0,
        };
        Ok((spool, begun))
    }

    /// Appends events, durable when this returns. Sheds what it must; a loss is never an error here.
    ///
    /// # Errors
    /// The file system is too full to write safely, or the database failed. None of these events is then in the
    /// trail.
    pub fn append(&mut self, events: Vec<AuditEvent>, now_ms: u64) -> Result<(), SpoolError> {
        self.require_free_space()?;
        let mut change = self.change();
        let mut all = self.losses_to_tell(now_ms);
        let mut told = !all.is_empty();
        all.extend(events);
        // Severe events first, so that they find room before the others ask for it. The sort is stable: the loss
        // records, which are alarms, lie together in the first block.
        all.sort_by_key(|event| std::cmp::Reverse(event.severity));
        let mut tells = told;
        for (facts, body) in cut(all, self.limits.block_bytes) {
            if self.make_room(&mut change, &facts)? {
                change.push(facts, body);
            } else {
                // The spool's own loss records stay owed; others' are lost with the block and have to be counted.
                let carried = if tells { 0 } else { facts.carried_events };
                told &= !tells;
                change.lose(
                    Cause::SpoolFull,
                    &Loss {
                        events: facts.events.saturating_add(carried),
                        blocks: 0,
                        first_ms: facts.first_ms,
                        last_ms: facts.last_ms,
                    },
                    facts.events,
                );
            }
            tells = false;
        }
        if told {
            // What this very change shed is told next time.
            for (slot, before) in change.meta.untold.iter_mut().zip(&self.meta.untold) {
                *slot = Loss {
                    events: slot.events.saturating_sub(before.events),
                    blocks: slot.blocks.saturating_sub(before.blocks),
                    ..*slot
                };
            }
        }
        self.commit(change)?;
        if told {
            self.told_ms = now_ms;
        }
        self.keep_mark(now_ms, false);
        Ok(())
    }

    /// Whether losses wait to be told, and may be now.
    pub fn owes_loss_record(&self, now_ms: u64) -> bool {
        self.meta.untold.iter().any(|loss| !loss.is_none())
            && now_ms.abs_diff(self.told_ms) >= LOSS_INTERVAL_MS
    }

    /// Accounts for `events` lost before they came here; told by the next append.
    pub fn count_lost(&mut self, cause: Cause, events: u64, first_ms: u64, last_ms: u64) {
        let mut change = self.change();
        change.lose(
            cause,
            &Loss {
                events,
                blocks: 0,
                first_ms,
                last_ms,
            },
            events,
        );
        self.meta = change.meta;
    }

    /// Up to `count_max` blocks of together at most `bytes_max` (but at least one), from `from` on in order.
    ///
    /// A block that the disk has damaged is dropped, counted, and told as a loss.
    ///
    /// # Errors
    /// The database failed, also while it wrote down that a damaged block is gone.
    pub fn read(
        &mut self,
        from: Position,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<AuditBlock>, SpoolError> {
        let mut blocks = Vec::new();
        let mut damaged = Vec::new();
        let mut bytes = 0;
        for entry in self.tree.range(block_key(from)..vec![b'c']) {
            let (key, value) = entry?;
            let Some(at) = read_block_key(&key) else {
                continue;
            };
            if self.is_moving(at) {
                continue;
            }
            let Some(record) = BlockRecord::from_bytes(at, &value) else {
                damaged.push(at);
                continue;
            };
            if !blocks.is_empty() && (blocks.len() >= count_max || bytes + record.body.len() > bytes_max) {
                break;
            }
            bytes += record.body.len();
            blocks.push(AuditBlock {
                epoch: at.epoch,
                sequence: at.sequence,
                previous_digest: record.previous.to_vec().into(),
                body: record.body.into(),
            });
        }
        if !damaged.is_empty() {
            self.drop_damaged(&damaged)?;
        }
        Ok(blocks)
    }

    /// Everything before `to` is durable at the coordinator. A position that was never written is ignored.
    pub fn acknowledge(&mut self, to: Position) {
        if to <= self.next() && to > self.meta.acked {
            self.meta.acked = to;
        }
    }

    /// The position that the next block will have.
    pub fn next(&self) -> Position {
        Position {
            epoch: self.meta.head.epoch,
            sequence: self.meta.head.next_sequence,
        }
    }

    /// The head of the chain.
    pub fn head(&self) -> Head {
        self.meta.head
    }

    /// The facts for Hello and health.
    pub fn state(&self) -> SpoolState {
        let first = self
            .tree
            .range(
                block_key(Position {
                    epoch: self.meta.head.epoch,
                    sequence: 0,
                })..vec![b'c'],
            )
            .next()
            .and_then(Result::ok)
            .and_then(|(key, _)| read_block_key(&key))
            .map_or(self.meta.head.next_sequence, |at| at.sequence);
        SpoolState {
            epoch: self.meta.head.epoch,
            first_sequence: first,
            next_sequence: self.meta.head.next_sequence,
            bytes: self.meta.bytes,
            bytes_max: self.limits.bytes_max,
            lost_events: self.meta.lost_events,
        }
    }

    /// What the database takes on disk, in bytes, which is more than the blocks in it.
    ///
    /// # Errors
    /// The database's files cannot be asked for their size.
    pub fn disk_bytes(&self) -> Result<u64, SpoolError> {
        Ok(self.db.size_on_disk()?)
    }

    /// Writes the mark and the accounts, for a clean stop.
    ///
    /// # Errors
    /// The database did not take the accounts. What was durable before still is.
    pub fn close(mut self) -> Result<(), SpoolError> {
        let change = self.change();
        self.commit(change)?;
        self.keep_mark(0, true);
        Ok(())
    }

    pub(super) fn change(&self) -> SpoolBatch {
        SpoolBatch {
            batch: sled::Batch::default(),
            meta: self.meta.clone(),
            acked_cursor: None,
            index_cursor: None,
        }
    }

    pub(super) fn commit(&mut self, mut change: SpoolBatch) -> Result<(), SpoolError> {
        change.batch.insert(META_KEY, change.meta.to_bytes());
        self.tree.apply_batch(change.batch)?;
        self.tree.flush()?;
        self.meta = change.meta;
        Ok(())
    }

    /// Writes the mark if it is due.
    pub(super) fn keep_mark(&mut self, now_ms: u64, due: bool) {
        let next = self.next();
        if next == self.marked || (!due && now_ms.abs_diff(self.marked_ms) < MARK_INTERVAL_MS) {
            return;
        }
        match mark::write(&self.folder, next) {
            Ok(()) => {
                self.marked = next;
                self.marked_ms = now_ms;
                self.mark_fault = None;
            }
            Err(error) => {
                let why = mark_failed(&error);
                // It is tried again with each commit.
                if self.mark_fault.as_ref() != Some(&why) {
                    tracing::warn!("{why}");
                }
                self.mark_fault = Some(why);
            }
        }
    }

    /// Why a spool that is rolled back would not be noticed now.
    pub fn mark_fault(&self) -> Option<&str> {
        self.mark_fault.as_deref()
    }

    fn losses_to_tell(&self, now_ms: u64) -> Vec<AuditEvent> {
        if !self.owes_loss_record(now_ms) {
            return Vec::new();
        }
        self.meta
            .untold
            .iter()
            .zip(Cause::ALL)
            .filter(|(loss, _)| !loss.is_none())
            .map(|(loss, cause)| record::loss(now_ms, cause, loss))
            .collect()
    }

    pub(super) fn require_free_space(&self) -> Result<(), SpoolError> {
        let free = rustix::fs::statvfs(&self.folder).map_err(|error| SpoolError::FreeSpace {
            path: self.folder.clone(),
            source: error.into(),
        })?;
        let free_bytes = free.f_bavail.saturating_mul(free.f_frsize);
        if free_bytes < self.limits.free_bytes_min {
            return Err(SpoolError::NoRoom {
                free_bytes,
                free_bytes_min: self.limits.free_bytes_min,
            });
        }
        Ok(())
    }

    fn drop_damaged(&mut self, damaged: &[Position]) -> Result<(), SpoolError> {
        let mut change = self.change();
        for at in damaged {
            self.write_off(&mut change, *at);
        }
        self.commit(change)
    }

    /// Removes a block whose record cannot be read, and accounts for what was in it.
    pub(super) fn write_off(&self, change: &mut SpoolBatch, at: Position) {
        let facts = self.facts_of(at);
        let loss = facts.map_or(
            Loss {
                events: 1,
                blocks: 1,
                ..Loss::default()
            },
            |facts| facts.loss(),
        );
        change.lose(Cause::SpoolLost, &loss, facts.map_or(1, |facts| facts.events));
        change.remove_damaged(at, facts.as_ref());
    }

    /// The facts of a block whose own record cannot be read, from its index entry.
    pub(super) fn facts_of(&self, at: Position) -> Option<BlockFacts> {
        (0..=SEVERITY_MAX).find_map(|severity| {
            let key = index_key(severity, at);
            let value = self.tree.get(&key).ok()??;
            read_index(&key, &value)
        })
    }
}

fn mark_failed(error: &crate::durable::FileError) -> String {
    format!(
        "a loss of the audit spool would not be noticed now: {}",
        text::sentence(error)
    )
}
