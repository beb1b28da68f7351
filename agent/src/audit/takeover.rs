//! The trail that an agent before this one kept in a database, `spool/`, is taken over into the log.
//!
//! The blocks go as they are, at their places in the chain, and then the accounts; only when those are durable is the database moved
//! out of the way. Up to then it can be done again: what an attempt before left counts for nothing without accounts. A database that
//! was written after the log was, by an agent that was put back, goes on where the log ends.
//!
//! Where the disk or the quota has no room for all, what is not delivered goes first, the gravest of it before the others; what has no
//! room is lost, and reported. A disk that is below its reserve is waited for, as by every append. A database whose own bytes are wrong is set aside as `spool.damaged`, with what could be read before
//! kept; a disk that is full, read-only or reports errors is waited for.

mod earlier;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use penstock_policy::text;
use penstock_proto::audit::block_digest;

use self::earlier::{BLOCKS, EarlierBlock, META_KEY, Meta, indexed_facts, read_block_key};
use super::accounts::{Accounts, SEVERITIES};
use super::change::Change;
use super::layout::{Cause, Loss, Position, START_BYTES, cost_of};
use super::opening::{EpochReason, SpoolFiles, adopt, find};
use super::spool::{Spool, SpoolError, SpoolLimits};
use crate::database;
use crate::durable::FileError;
use crate::log::{Disk as _, RealDisk};

/// The database's page cache, in bytes: it is read once, in order.
const CACHE_BYTES: u64 = 1024 * 1024;
const SEGMENT_BYTES: usize = 256 * 1024;
/// So much is copied between two syncs, in bytes.
const COPY_BYTES: u64 = 1024 * 1024;

impl Spool {
    /// Opens or creates the spool in `folder`, which must exist. `epoch_min` is the lowest number for a first epoch. What an agent
    /// before this one left in a database is taken over first.
    ///
    /// # Errors
    /// The disk cannot be read or written, or the database of before cannot. Damage is not an error: the trail goes on in a
    /// new epoch, which is returned.
    pub fn open(
        folder: &Path,
        limits: SpoolLimits,
        epoch_min: u64,
    ) -> Result<(Self, Option<EpochReason>), SpoolError> {
        let damaged = take_over(folder, limits)?;
        let (spool, begun) = Self::open_on(&RealDisk, folder, limits, epoch_min)?;
        let begun = match (damaged, begun) {
            (Some(why), Some(EpochReason::Lost(what))) => Some(EpochReason::Lost(format!("{what} ({why})"))),
            (Some(why), _) => Some(EpochReason::Lost(why)),
            (None, begun) => begun,
        };
        Ok((spool, begun))
    }
}

/// Takes the trail over, if there is one; says why, if not all of it.
fn take_over(folder: &Path, limits: SpoolLimits) -> Result<Option<String>, SpoolError> {
    let (place, taken) = (folder.join("spool"), folder.join("spool.taken"));
    if taken.exists() {
        remove(&taken);
    }
    if !place.join("db").exists() {
        return Ok(None);
    }
    tracing::info!("the audit trail of an earlier agent is taken over");
    let damage = match catch_unwind(AssertUnwindSafe(|| copy(&place, folder, limits))) {
        Ok(Ok(())) => {
            rename(&place, &taken, folder)?;
            remove(&taken);
            return Ok(None);
        }
        Ok(Err(SpoolError::Earlier(error))) if database::is_damage(&error) => text::sentence(&error),
        Ok(Err(error)) => return Err(error),
        Err(_) => "internal error in the database (a panic)".to_owned(),
    };
    if let Some(why) = database::obstacle(&place) {
        tracing::warn!("the audit spool of an earlier agent cannot be opened, and is not set aside: {why}");
        let error = io::Error::other(why);
        return Err(SpoolError::Earlier(database::Error::Io(error)));
    }
    let aside = folder.join("spool.damaged");
    if aside.exists() {
        std::fs::remove_dir_all(&aside).map_err(failed("remove", &aside))?;
    }
    rename(&place, &aside, folder)?;
    Ok(Some(format!(
        "the old database was set aside as spool.damaged: {damage}"
    )))
}

fn failed<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError {
        verb,
        path: path.to_owned(),
        source,
    }
}

fn rename(from: &Path, to: &Path, folder: &Path) -> Result<(), FileError> {
    std::fs::rename(from, to)
        .and_then(|()| RealDisk.sync_folder(folder))
        .map_err(failed("rename", from))
}

fn remove(taken: &Path) {
    if let Err(error) = std::fs::remove_dir_all(taken) {
        tracing::warn!(%error, "the database of an earlier agent was taken over, and could not be removed yet");
    }
}

/// A takeover under way.
struct Takeover {
    spool: Spool,
    change: Change,
    meta: Option<Meta>,
    /// The disk or the quota may not have room for all.
    is_short: bool,
    /// What is copied and not written yet, in bytes.
    waiting: u64,
    last: Option<(Position, [u8; 32])>,
}

fn copy(place: &Path, folder: &Path, limits: SpoolLimits) -> Result<(), SpoolError> {
    let db = database::open(place, CACHE_BYTES, SEGMENT_BYTES).map_err(SpoolError::Earlier)?;
    let tree = db.open_tree("trail").map_err(SpoolError::Earlier)?;
    let meta = tree.get(META_KEY).map_err(SpoolError::Earlier)?;
    let meta = meta.and_then(|bytes| Meta::from_bytes(&bytes));
    let SpoolFiles {
        shelves,
        ledger,
        accounts,
        is_torn,
    } = find(&RealDisk, folder, &limits)?;
    let accounts = match accounts {
        Some(mut accounts) => {
            adopt(&mut accounts, &shelves, is_torn)?;
            accounts
        }
        None => Accounts::begin(0),
    };
    let mut spool = Spool::of(folder, limits, shelves, ledger, accounts);
    spool.tidy()?;
    // Else all of it would be lost for want of room, and the database, which has it, removed.
    spool.require_free_space()?;
    let change = spool.change();
    let bytes = meta.as_ref().map_or(u64::MAX, |meta| meta.bytes);
    let mut takeover = Takeover {
        is_short: spool.ledger.free_bytes()? < bytes.saturating_add(limits.free_bytes_min)
            || limits.bytes_max < bytes.saturating_add(change.bytes),
        change,
        spool,
        meta,
        waiting: 0,
        last: None,
    };
    if takeover.is_short {
        for severity in SEVERITIES {
            takeover.copy_blocks(&tree, Some(severity))?;
        }
    } else {
        takeover.copy_blocks(&tree, None)?;
    }
    takeover.finish()
}

impl Takeover {
    /// Copies the blocks of one severity, or all.
    fn copy_blocks(&mut self, tree: &database::Tree, only: Option<u8>) -> Result<(), SpoolError> {
        let from = self.spool.next();
        for entry in tree.range(BLOCKS.0..BLOCKS.1) {
            let (key, value) = entry.map_err(SpoolError::Earlier)?;
            let Some(at) = read_block_key(&key).filter(|at| *at >= from) else {
                continue;
            };
            let is_first_pass = only.is_none_or(|severity| SEVERITIES.first() == Some(&severity));
            match EarlierBlock::from_bytes(at, &value) {
                Some(block) if only.is_none_or(|severity| severity == block.facts.severity) => {
                    self.copy_block(at, block)?;
                }
                None if is_first_pass && self.is_owed(at) => {
                    let unknown = Loss {
                        events: 1,
                        blocks: 1,
                        ..Loss::default()
                    };
                    let facts = indexed_facts(tree, at);
                    let loss = facts.map_or(unknown, |facts| facts.loss());
                    let events = facts.map_or(1, |facts| facts.events);
                    self.change.accounts.lose(Cause::SpoolLost, &loss, events);
                }
                // Of another pass, or delivered.
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the coordinator does not have a block.
    fn is_owed(&self, at: Position) -> bool {
        self.meta.as_ref().is_none_or(|meta| {
            let is_moving = meta.moving_from.is_some_and(|from| at >= from);
            at >= meta.acked || is_moving
        })
    }

    fn copy_block(&mut self, at: Position, block: EarlierBlock) -> Result<(), SpoolError> {
        let EarlierBlock {
            facts,
            previous,
            body,
        } = block;
        let digest = block_digest(&previous, at.epoch, at.sequence, &body);
        self.last = self.last.max(Some((at, digest)));
        let bytes = cost_of(body.len()).saturating_add(START_BYTES);
        if self.is_short {
            if !self.is_owed(at) {
                return Ok(());
            }
            let has_room = self.spool.require_free_space().is_ok()
                && self.spool.make_room(&mut self.change, facts.severity, bytes)?;
            if !has_room {
                let accounts = &mut self.change.accounts;
                accounts.lose(Cause::SpoolFull, &facts.loss(), facts.events);
                return Ok(());
            }
        }
        let shelf = self.spool.shelves.of(facts.severity);
        self.change.keep(shelf, at, facts, previous, body);
        self.waiting = self.waiting.saturating_add(bytes);
        if self.waiting >= COPY_BYTES {
            self.write_waiting()?;
        }
        Ok(())
    }

    fn write_waiting(&mut self) -> Result<(), SpoolError> {
        let Change { accounts, plans, .. } = &mut self.change;
        self.spool.write_blocks(accounts, plans)?;
        self.waiting = 0;
        Ok(())
    }

    /// Makes it real; without accounts that fit the blocks, the opening that follows finds them and begins a new epoch.
    fn finish(mut self) -> Result<(), SpoolError> {
        self.write_waiting()?;
        let next = |head: &penstock_proto::audit::Head| Position {
            epoch: head.epoch,
            sequence: head.next_sequence,
        };
        let fits = |meta: &Meta| {
            self.last.is_none_or(|(at, digest)| {
                at.after() < next(&meta.head)
                    || (at.after() == next(&meta.head) && digest == meta.head.digest)
            })
        };
        let Some(meta) = self.meta.as_ref().filter(|meta| fits(meta)) else {
            return Ok(());
        };
        let accounts = &mut self.change.accounts;
        let before = accounts.next();
        if next(&meta.head) <= before {
            return Ok(());
        }
        // The coordinator followed an agent that was put back: what it did not have of the log then gets no place there any more.
        let stranded = (accounts.acked < before && before < meta.acked).then_some(accounts.acked);
        if let Some(from) = stranded.into_iter().chain(meta.moving_from).min() {
            accounts.fork_from(from, meta.head.epoch);
        }
        accounts.head = meta.head;
        accounts.acked = accounts.acked.max(meta.acked);
        accounts.lost_events = accounts.lost_events.saturating_add(meta.lost_events);
        for (slot, loss) in accounts.untold.iter_mut().zip(&meta.untold) {
            slot.add(loss);
        }
        self.spool.ledger.write(accounts)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
