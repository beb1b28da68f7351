//! The audit trail on the gateway's disk, until the coordinator has it and as long as there is room after that.
//!
//! ```text
//! trail/4 … trail/0   a log of blocks for each severity: what goes first when room is short goes whole
//! trail/accounts      a log of accounts: what of the others counts
//! spool.mark          how far the trail had come, apart from it
//! ```
//!
//! Owns these. Synchronous and single-threaded: [`writer`](super::writer) runs it, batches events into it, and contains what may
//! become of it.
//!
//! Invariants:
//! - [`Spool::append`] returns after the blocks are durable, and after them the accounts that make them count, all or none;
//! - blocks form one chain per epoch (`penstock_proto::audit`); a block holds events of one severity, and seals are kept as the gravest;
//! - segments never take more than [`SpoolLimits::bytes_max`], but for the moment between a commit and the removal of what it gave
//!   up; acknowledged blocks go first, then the least severe, among those the oldest ([`shed`](super::shed)); each loss is reported by a
//!   later loss record;
//! - opening reads how each segment begins and the newest accounts, however much is stored;
//! - what cannot be read is counted and reported, and hides nothing of what can;
//! - a spool that is behind its mark was rolled back or damaged: it begins a new epoch and says so.
//!
//! Not here: when it is sealed and with which keys ([`sealer`](super::sealer)), and the upload.

use std::path::{Path, PathBuf};

use penstock_policy::text;
use penstock_proto::audit::Head;
use penstock_proto::audit::seal::{BlocksSince, SealText};
use penstock_proto::v1::{AuditEvent, Severity, SpoolState, audit_event::Kind};

use super::accounts::{Accounts, BySeverity, SEVERITIES};
use super::change::Change;
use super::layout::{BlockFacts, Cause, Loss, Position, Totals, cost_of};
use super::ledger::Ledger;
use super::sealer::SealOrder;
use super::shelf::{HeldSegment, Plan, Shelf};
use super::waiting::{WaitingEvent, cut};
use super::{mark, record};
use crate::database;
use crate::durable::FileError;
use crate::log::{Disk, RealDisk};

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

/// A block's body is cut at this size: what a damaged place on the disk takes with it.
pub const BLOCK_BYTES: usize = 16 * 1024;

/// How far the mark may lag behind the trail.
const MARK_INTERVAL_MS: u64 = 5_000;
/// How often at most a loss record is written while events are being lost.
const LOSS_INTERVAL_MS: u64 = 1_000;

/// Why the spool could not do it. The trail on disk is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A file of the spool cannot be read or written now.
    #[error("the audit spool cannot use its files")]
    File(#[from] FileError),
    /// The database that an agent before this one kept the trail in cannot be read, and the trail in it not be taken over.
    #[error("the audit spool that an earlier agent left cannot be read")]
    Earlier(#[source] database::Error),
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
    /// The coordinator acknowledges an epoch that no trail of this gateway can have reached.
    #[error(
        "the coordinator claims audit epoch {0}, far beyond this gateway's own, and the upload of the trail waits: somebody else \
         wrote under this gateway's name, or the coordinator is of a version that does not say where the trail went on"
    )]
    AbsurdEpoch(u64),
}

/// What an append put into the trail.
#[derive(Debug)]
pub struct Appended {
    /// Blocks that want to be sealed.
    pub blocks: u64,
    /// What the seal behind them says, if there is one.
    pub seal: Option<SealText>,
}

/// The spool. Dropping it without [`Spool::close`] loses nothing that `append` returned for.
#[derive(Debug)]
pub struct Spool<D: Disk = RealDisk> {
    pub(super) folder: PathBuf,
    pub(super) limits: SpoolLimits,
    pub(super) shelves: BySeverity<Shelf<D>>,
    pub(super) accounts: Accounts,
    pub(super) ledger: Ledger<D>,
    /// Blocks that no seal names yet, as far as they were written since this was opened.
    pub(super) since: BlocksSince,
    pub(super) marked: Position,
    marked_ms: u64,
    /// Why the mark says nothing now: it could not be read at opening, or not be written since.
    pub(super) mark_fault: Option<String>,
    told_ms: u64,
}

impl<D: Disk> Spool<D> {
    pub(super) fn of(
        folder: &Path,
        limits: SpoolLimits,
        shelves: BySeverity<Shelf<D>>,
        ledger: Ledger<D>,
        accounts: Accounts,
    ) -> Self {
        let since = BlocksSince::new(accounts.head.next_sequence);
        Self {
            folder: folder.to_owned(),
            limits,
            shelves,
            accounts,
            ledger,
            since,
            marked: Position::default(),
            marked_ms: 0,
            mark_fault: None,
            told_ms: 0,
        }
    }

    /// Appends events, durable when this returns. Sheds what it must; a loss is never an error here.
    ///
    /// # Errors
    /// The file system is too full to write safely, or the disk refused. None of these events is then in the
    /// trail.
    pub fn append(&mut self, events: Vec<AuditEvent>, now_ms: u64) -> Result<(), SpoolError> {
        let events = events.into_iter().map(WaitingEvent::from).collect();
        self.append_sealed(events, now_ms, None).map(drop)
    }

    /// The same, and seals the trail with them, if so ordered, in the same commit.
    ///
    /// # Errors
    /// As [`Spool::append`].
    pub fn append_sealed(
        &mut self,
        events: Vec<WaitingEvent>,
        now_ms: u64,
        order: Option<SealOrder<'_>>,
    ) -> Result<Appended, SpoolError> {
        self.require_free_space()?;
        let mut change = self.change();
        let mut all = self.losses_to_tell(now_ms);
        let mut told = !all.is_empty();
        all.extend(events);
        // Severe events first, so that they find room before the others ask for it. The sort is stable: the loss
        // records, which are alarms, lie together in the first block.
        all.sort_by_key(|event| std::cmp::Reverse(event.kept_as()));
        let mut tells = told;
        for (facts, body) in cut(all, self.limits.block_bytes) {
            // The spool's own loss records stay owed; others' are lost with the block and have to be counted.
            let has_room = self.put(&mut change, facts, body, !tells)?;
            told &= has_room || !tells;
            tells = false;
        }
        if told {
            // What this very change shed is reported next time.
            let before = &self.accounts.untold;
            for (slot, before) in change.accounts.untold.iter_mut().zip(before) {
                *slot = Loss {
                    events: slot.events.saturating_sub(before.events),
                    blocks: slot.blocks.saturating_sub(before.blocks),
                    ..*slot
                };
            }
        }
        let blocks = change.pushed.len() as u64;
        let seal = match order {
            Some(order) => self.seal(&mut change, &order, now_ms)?,
            None => None,
        };
        self.commit(change)?;
        if let Some(seal) = &seal {
            self.since = BlocksSince::new(seal.head.next_sequence);
        }
        if told {
            self.told_ms = now_ms;
        }
        self.keep_mark(now_ms, false);
        Ok(Appended { blocks, seal })
    }

    /// Puts a seal of all before it at the head, if there is room.
    fn seal(
        &self,
        change: &mut Change,
        order: &SealOrder<'_>,
        now_ms: u64,
    ) -> Result<Option<SealText>, SpoolError> {
        let mut since = self.since.clone();
        change.add_to(&mut since);
        let (text, seal) = order
            .keys
            .seal(order.name, change.accounts.head, since.named(), now_ms);
        let event = record::event(now_ms, Severity::Info, 0, Kind::Seal(seal));
        let mut blocks = cut(vec![event.into()], self.limits.block_bytes).into_iter();
        let Some((facts, body)) = blocks.next() else {
            return Ok(None);
        };
        Ok(self.put(change, facts, body, false)?.then_some(text))
    }

    /// Puts a block at the head if there is room, or can be made; else it is lost, and with it, if so asked, what its loss records
    /// account for.
    pub(super) fn put(
        &self,
        change: &mut Change,
        facts: BlockFacts,
        body: Vec<u8>,
        with_carried: bool,
    ) -> Result<bool, SpoolError> {
        let bytes = cost_of(body.len()).saturating_add(super::layout::START_BYTES);
        if self.make_room(change, facts.severity, bytes)? {
            change.push(self.shelves.of(facts.severity), facts, body);
            return Ok(true);
        }
        let carried = if with_carried { facts.carried_events } else { 0 };
        let loss = Loss {
            events: facts.events.saturating_add(carried),
            blocks: 0,
            first_ms: facts.first_ms,
            last_ms: facts.last_ms,
        };
        change.accounts.lose(Cause::SpoolFull, &loss, facts.events);
        Ok(false)
    }

    /// Whether losses wait to be reported, and may be now.
    pub fn owes_loss_record(&self, now_ms: u64) -> bool {
        self.accounts.untold.iter().any(|loss| !loss.is_none())
            && now_ms.abs_diff(self.told_ms) >= LOSS_INTERVAL_MS
    }

    /// Accounts for `events` lost before they came here; reported by the next append.
    pub fn count_lost(&mut self, cause: Cause, events: u64, first_ms: u64, last_ms: u64) {
        let loss = Loss {
            events,
            blocks: 0,
            first_ms,
            last_ms,
        };
        self.accounts.lose(cause, &loss, events);
    }

    /// Everything before `to` is durable at the coordinator. A position that was never written is ignored.
    pub fn acknowledge(&mut self, to: Position) {
        if to <= self.next() && to > self.accounts.acked {
            self.accounts.acked = to;
        }
    }

    /// The position that the next block will have.
    pub fn next(&self) -> Position {
        self.accounts.next()
    }

    /// The head of the chain.
    pub fn head(&self) -> Head {
        self.accounts.head
    }

    /// The facts for Hello and health.
    pub fn state(&self) -> SpoolState {
        let head = &self.accounts.head;
        let firsts = SEVERITIES.into_iter().filter_map(|severity| {
            let account = self.accounts.logs.of(severity);
            self.shelves.of(severity).first_of(head.epoch, account)
        });
        let first = firsts.min().map(|at| at.max(self.accounts.floor));
        SpoolState {
            epoch: head.epoch,
            first_sequence: first.map_or(head.next_sequence, |at| at.sequence),
            next_sequence: head.next_sequence,
            bytes: self.bytes(),
            bytes_max: self.limits.bytes_max,
            lost_events: self.accounts.lost_events,
        }
    }

    /// What the blocks take on disk.
    fn bytes(&self) -> u64 {
        self.shelves.0.iter().map(Shelf::bytes).sum()
    }

    /// Writes the mark and the accounts, for a clean stop.
    ///
    /// # Errors
    /// The disk did not take the accounts. What was durable before still is.
    pub fn close(mut self) -> Result<(), SpoolError> {
        let change = self.change();
        self.commit(change)?;
        self.keep_mark(0, true);
        Ok(())
    }

    pub(super) fn front(&self, severity: u8, first: &Totals) -> Option<HeldSegment> {
        let account = self.accounts.logs.of(severity);
        self.shelves.of(severity).front(first, account)
    }

    pub(super) fn change(&self) -> Change {
        Change {
            accounts: self.accounts.clone(),
            bytes: self.bytes(),
            plans: BySeverity::default(),
            pushed: Vec::new(),
        }
    }

    /// Makes a change real: its blocks first, then the accounts. What it gave up goes after that.
    pub(super) fn commit(&mut self, change: Change) -> Result<(), SpoolError> {
        let mut since = self.since.clone();
        if change.accounts.head.epoch != self.accounts.head.epoch {
            since = BlocksSince::new(0);
        }
        change.add_to(&mut since);
        let Change {
            mut accounts,
            mut plans,
            ..
        } = change;
        let written = self.write(&mut accounts, &mut plans);
        if let Err(error) = written {
            for shelf in &mut self.shelves.0 {
                shelf.abandon();
            }
            return Err(error.into());
        }
        (self.accounts, self.since) = (accounts, since);
        for severity in SEVERITIES {
            let account = self.accounts.logs.of(severity);
            self.shelves.of_mut(severity).sweep(account);
        }
        Ok(())
    }

    fn write(&mut self, accounts: &mut Accounts, plans: &mut BySeverity<Plan>) -> Result<(), FileError> {
        self.write_blocks(accounts, plans)?;
        self.ledger.write(accounts)
    }

    /// Writes what is planned, durable when this returns; it counts when the accounts are.
    pub(super) fn write_blocks(
        &mut self,
        accounts: &mut Accounts,
        plans: &mut BySeverity<Plan>,
    ) -> Result<(), FileError> {
        for severity in SEVERITIES {
            let plan = std::mem::take(plans.of_mut(severity));
            if !plan.runs.is_empty() {
                let shelf = self.shelves.of_mut(severity);
                shelf.write(plan)?;
                let account = accounts.logs.of_mut(severity);
                (account.segment, account.bytes) = shelf.newest();
            }
        }
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

    fn losses_to_tell(&self, now_ms: u64) -> Vec<WaitingEvent> {
        if !self.owes_loss_record(now_ms) {
            return Vec::new();
        }
        self.accounts
            .untold
            .iter()
            .zip(Cause::ALL)
            .filter(|(loss, _)| !loss.is_none())
            .map(|(loss, cause)| record::loss(now_ms, cause, loss).into())
            .collect()
    }

    pub(super) fn require_free_space(&self) -> Result<(), SpoolError> {
        let free_bytes = self.ledger.free_bytes()?;
        if free_bytes < self.limits.free_bytes_min {
            return Err(SpoolError::NoRoom {
                free_bytes,
                free_bytes_min: self.limits.free_bytes_min,
            });
        }
        Ok(())
    }
}

pub(super) fn mark_failed(error: &FileError) -> String {
    format!(
        "a loss of the audit spool would not be noticed now: {}",
        text::sentence(error)
    )
}
