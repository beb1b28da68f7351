//! What opening finds: whether the accounts can be read, what follows them, and whether they are behind the mark.
//!
//! Accounts that are behind it, or gone, mean that the disk lost blocks or was rolled back: the trail goes on in a new
//! epoch, and the loss is reported. Blocks behind the accounts that go on with the chain count: they were written, by a commit that came to its
//! end without accounts that can be read, or to none. Others do not, and their places are given again.

use std::path::Path;

use penstock_proto::audit::Head;

use super::accounts::{Accounts, BySeverity, SEVERITIES};
use super::layout::{Cause, Loss, Position};
use super::ledger::Ledger;
use super::mark;
use super::shelf::{Shelf, UnaccountedBlock};
use super::spool::{Spool, SpoolError, SpoolLimits, mark_failed};
use crate::durable::FileError;
use crate::log::Disk;

const TRAIL: &str = "trail";
/// A segment's largest size.
const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// A quota has at least so many segments, so that one is little of it.
const SEGMENTS: u64 = 32;

/// Why a new epoch began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochReason {
    /// There was no trail before.
    First,
    /// What the mark or the coordinator knew of is not on this disk.
    Lost(String),
}

/// What is below a spool's folder, as it is found.
pub(super) struct SpoolFiles<D: Disk> {
    pub(super) shelves: BySeverity<Shelf<D>>,
    pub(super) ledger: Ledger<D>,
    pub(super) accounts: Option<Accounts>,
    /// Something that cannot be read stands behind the accounts: others that were torn, or are damaged.
    pub(super) is_torn: bool,
}

/// Finds the logs of the spool in `folder`.
pub(super) fn find<D: Disk + Clone>(
    disk: &D,
    folder: &Path,
    limits: &SpoolLimits,
) -> Result<SpoolFiles<D>, FileError> {
    let shelves = shelves_in(disk, folder, limits)?;
    let ledger = ledger_in(disk, folder)?;
    for folder in [folder.join(TRAIL).as_path(), folder] {
        disk.sync_folder(folder).map_err(|source| FileError {
            verb: "write",
            path: folder.to_owned(),
            source,
        })?;
    }
    let (accounts, is_torn) = ledger.read()?;
    Ok(SpoolFiles {
        shelves,
        ledger,
        accounts,
        is_torn,
    })
}

/// The logs of blocks in `folder`.
pub(super) fn shelves_in<D: Disk + Clone>(
    disk: &D,
    folder: &Path,
    limits: &SpoolLimits,
) -> Result<BySeverity<Shelf<D>>, FileError> {
    let trail = folder.join(TRAIL);
    let segment_bytes = SEGMENT_BYTES_MAX.min(limits.bytes_max / SEGMENTS);
    let open = |severity: u8| {
        let folder = trail.join(severity.to_string());
        Shelf::open(disk.clone(), &folder, severity, segment_bytes)
    };
    Ok(BySeverity([open(0)?, open(1)?, open(2)?, open(3)?, open(4)?]))
}

/// The log of the accounts in `folder`.
pub(super) fn ledger_in<D: Disk + Clone>(disk: &D, folder: &Path) -> Result<Ledger<D>, FileError> {
    Ledger::open(disk.clone(), &folder.join(TRAIL))
}

impl<D: Disk + Clone> Spool<D> {
    /// As [`Spool::open`], on any disk.
    pub(super) fn open_on(
        disk: &D,
        folder: &Path,
        limits: SpoolLimits,
        epoch_min: u64,
    ) -> Result<(Self, Option<EpochReason>), SpoolError> {
        // A mark that cannot be read is worth as much as none: the trail goes on, and it is said that a loss would not be seen.
        let (marked, mark_fault) = match mark::read(folder) {
            Ok(marked) => (marked, None),
            Err(error) => (None, Some(mark_failed(&error))),
        };
        let SpoolFiles {
            shelves,
            ledger,
            accounts,
            is_torn,
        } = find(disk, folder, &limits)?;
        let (accounts, mut begun) = match accounts {
            Some(mut accounts) => {
                adopt(&mut accounts, &shelves, is_torn)?;
                match judge_mark(accounts, marked) {
                    // The last attempt ended before there was anything in it.
                    (accounts, None) if marked.is_none() && accounts.is_untouched() => {
                        (accounts, Some(EpochReason::First))
                    }
                    judged => judged,
                }
            }
            None => rebuild(&shelves, marked, epoch_min)?,
        };
        if let (Some(EpochReason::First), Some(why)) = (&begun, &mark_fault) {
            begun = Some(EpochReason::Lost(format!(
                "there is no trail, and whether there was one is not known: {why}"
            )));
        }
        let mut spool = Self::of(folder, limits, shelves, ledger, accounts);
        // Without one it is written with the first commit.
        spool.marked = marked.unwrap_or_default();
        spool.mark_fault = mark_fault;
        spool.tidy()?;
        if begun == Some(EpochReason::First) {
            // So that blocks without accounts are always damage.
            let accounts = spool.accounts.clone();
            spool.ledger.write(&accounts)?;
        }
        Ok((spool, begun))
    }

    /// Removes what counts for nothing, and puts together what restarts left in pieces; a disk without room for that is no reason not
    /// to read what there is.
    pub(super) fn tidy(&mut self) -> Result<(), SpoolError> {
        let has_room = self.require_free_space().is_ok();
        let mut accounts = self.accounts.clone();
        for severity in SEVERITIES {
            let account = accounts.logs.of_mut(severity);
            let shelf = self.shelves.of_mut(severity);
            shelf.forget_behind(account)?;
            shelf.sweep(account);
            if has_room {
                *account = shelf.put_together(account)?.unwrap_or(*account);
            }
        }
        if accounts != self.accounts {
            self.ledger.write(&accounts)?;
            self.accounts = accounts;
            for severity in SEVERITIES {
                let account = self.accounts.logs.of(severity);
                self.shelves.of_mut(severity).sweep(account);
            }
        }
        Ok(())
    }
}

/// Takes up blocks behind the accounts that go on with the chain. Where the newest accounts cannot be read, those that stood between may
/// have been shed since, or be damaged: then it takes up all, and counts what is not there.
pub(super) fn adopt<D: Disk>(
    accounts: &mut Accounts,
    shelves: &BySeverity<Shelf<D>>,
    is_torn: bool,
) -> Result<(), FileError> {
    let mut behind = BySeverity::default();
    for severity in SEVERITIES {
        *behind.of_mut(severity) = shelves.of(severity).behind(accounts.logs.of(severity))?;
    }
    loop {
        let (next, digest) = (accounts.next(), accounts.head.digest);
        let follows = |block: &UnaccountedBlock| {
            (block.at == next && block.previous == digest) || (is_torn && block.at > next)
        };
        let fronts = SEVERITIES.into_iter().filter_map(|severity| {
            let block: &UnaccountedBlock = behind.of(severity).front()?;
            follows(block).then_some((block.at, severity))
        });
        let Some((at, severity)) = fronts.min() else {
            return Ok(());
        };
        let Some(block) = behind.of_mut(severity).pop_front() else {
            return Ok(());
        };
        if at.epoch == next.epoch {
            lose_blocks(accounts, at.sequence.saturating_sub(next.sequence));
        }
        accounts.head = Head {
            epoch: at.epoch,
            next_sequence: at.sequence.saturating_add(1),
            digest: block.digest,
        };
        let account = accounts.logs.of_mut(severity);
        account.end = block.end;
        account.end_at = at.after();
        (account.segment, account.bytes) = (block.segment, block.bytes);
    }
}

/// Holds the accounts against the mark: a mark that knows more means that durable blocks are gone.
fn judge_mark(mut accounts: Accounts, marked: Option<Position>) -> (Accounts, Option<EpochReason>) {
    let next = accounts.next();
    let Some(marked) = marked.filter(|marked| *marked > next) else {
        return (accounts, None);
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
    lose_blocks(&mut accounts, blocks);
    accounts.head = Accounts::begin(marked.epoch.saturating_add(1)).head;
    (accounts, Some(begun))
}

/// At least one event was in each lost block; how many more, nobody knows.
fn lose_blocks(accounts: &mut Accounts, blocks: u64) {
    let loss = Loss {
        events: blocks,
        blocks,
        first_ms: 0,
        last_ms: 0,
    };
    accounts.lose(Cause::SpoolLost, &loss, blocks);
}

/// Accounts for a spool that has none: takes what is there and begins a new epoch.
fn rebuild<D: Disk>(
    shelves: &BySeverity<Shelf<D>>,
    marked: Option<Position>,
    epoch_min: u64,
) -> Result<(Accounts, Option<EpochReason>), FileError> {
    let mut accounts = Accounts::begin(epoch_min.max(1));
    for severity in SEVERITIES {
        *accounts.logs.of_mut(severity) = shelves.of(severity).account()?;
    }
    let is_empty = shelves.0.iter().all(Shelf::is_empty);
    let last = accounts.logs.0.iter().map(|account| account.end_at).max();
    let last = last.filter(|_| !is_empty);
    let known = last.max(marked);
    if let Some(known) = known {
        accounts.head.epoch = known.epoch.saturating_add(1).max(epoch_min);
    }
    let begun = match (marked, known) {
        (None, None) => EpochReason::First,
        (Some(marked), _) if last.is_none_or(|last| last < marked) => {
            let held = last.filter(|last| last.epoch == marked.epoch);
            let held = held.map_or(0, |last| last.sequence);
            lose_blocks(&mut accounts, marked.sequence.saturating_sub(held));
            EpochReason::Lost(format!(
                "the spool had been written up to {}/{} and is gone: blocks that were not uploaded are lost",
                marked.epoch, marked.sequence
            ))
        }
        _ => EpochReason::Lost("the spool's accounts were damaged; its blocks are kept".to_owned()),
    };
    Ok((accounts, Some(begun)))
}
