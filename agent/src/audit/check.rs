//! The gateway's own trail, read and verified where it lies: nothing is written, also while an agent writes it.
//!
//! What the accounts say is read first, and then the blocks that they tell of; so a block that comes meanwhile is none that is missing. What an agent
//! sheds meanwhile would look so: then it is read again.

use std::fmt;
use std::path::Path;

use penstock_proto::audit::Head;
use penstock_proto::audit::chain::{Place, SealTrust};
use penstock_proto::audit::verify::{TrailReport, TrailVerifier};
use penstock_proto::v1::AuditBlock;

use super::accounts::{Accounts, BySeverity};
use super::layout::{Position, Totals};
use super::opening::{adopt, ledger_in, shelves_in};
use super::reading::ReadRange;
use super::spool::{Spool, SpoolError, SpoolLimits};
use crate::log::{Disk, ReadOnlyDisk};

/// Bytes that are read at once.
const PAGE_BYTES: usize = 1024 * 1024;
/// How often it is read again because an agent sheds meanwhile.
const ATTEMPTS: usize = 5;

/// What was found of the trail on this disk.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// What the blocks prove.
    pub trail: TrailReport,
    /// Places that cannot be read.
    pub damaged: u64,
    /// Missing blocks that the agent has counted, and not reported in the trail yet.
    pub owed: u64,
    /// The accounts cannot be read: which of the blocks count is not known.
    pub is_without_accounts: bool,
}

impl CheckReport {
    /// Missing blocks that nothing accounts for.
    pub fn unexplained(&self) -> u64 {
        self.trail.unexplained().saturating_sub(self.owed)
    }

    /// Whether it is as the agent left it.
    pub fn is_whole(&self) -> bool {
        let is_altered = self.trail.findings.iter().any(|found| found.is_alarm()) || self.trail.further > 0;
        !is_altered && self.damaged == 0 && self.unexplained() == 0 && !self.is_without_accounts
    }

    /// What the agent would do about it by itself; this changes nothing.
    pub fn plan(&self) -> Vec<&'static str> {
        let mut plan = Vec::new();
        if self.is_without_accounts {
            plan.push("At its next start the agent takes up the blocks that it finds, begins a new epoch, and reports what is missing as lost.");
        }
        if self.damaged > 0 {
            plan.push("The agent leaves damaged blocks out, and reports them as lost, when it reads them for the coordinator.");
        }
        if self.owed > 0 {
            plan.push("The agent reports the blocks that it counted as lost with its next commit.");
        }
        if self.unexplained() > 0 || self.trail.findings.iter().any(|found| found.is_alarm()) {
            plan.push(
                "Blocks that were altered or taken out cannot be made good here: keep a copy of the state folder as evidence, and compare it with what the \
                 coordinator has.",
            );
        }
        plan
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.trail)?;
        if self.owed > 0 {
            writeln!(
                f,
                "The agent has counted {} missing blocks that no loss record in the trail reports yet.",
                self.owed
            )?;
        }
        if self.damaged > 0 {
            writeln!(f, "WRONG: {} places of the log cannot be read.", self.damaged)?;
        }
        if self.is_without_accounts {
            writeln!(
                f,
                "WRONG: the accounts of the log cannot be read, so that it is not known which of its blocks count."
            )?;
        }
        Ok(())
    }
}

/// Reads and verifies the trail in `folder`; `witnessed`: what the coordinator witnessed of it.
///
/// # Errors
/// The disk cannot be read, or an agent sheds faster than this can read.
pub fn check(
    folder: &Path,
    limits: SpoolLimits,
    trust: SealTrust<'_>,
    witnessed: Option<Head>,
) -> Result<CheckReport, SpoolError> {
    let mut attempts = 1;
    loop {
        let read = read(folder, limits, trust.clone(), witnessed);
        let is_last = attempts >= ATTEMPTS;
        match read {
            Ok((report, firsts)) if is_last || firsts_now(folder)?.is_none_or(|now| now == firsts) => {
                return Ok(report);
            }
            Err(error) if is_last => return Err(error),
            Ok(_) | Err(_) => attempts += 1,
        }
    }
}

/// What each log had taken before the first block that it still has.
type Firsts = [Totals; 5];

fn firsts_of(accounts: &Accounts) -> Firsts {
    let BySeverity(logs) = &accounts.logs;
    logs.map(|log| log.first)
}

fn firsts_now(folder: &Path) -> Result<Option<Firsts>, SpoolError> {
    let (accounts, _) = ledger_in(&ReadOnlyDisk, folder)?.read()?;
    Ok(accounts.as_ref().map(firsts_of))
}

fn read(
    folder: &Path,
    limits: SpoolLimits,
    trust: SealTrust<'_>,
    witnessed: Option<Head>,
) -> Result<(CheckReport, Firsts), SpoolError> {
    let ledger = ledger_in(&ReadOnlyDisk, folder)?;
    let (accounts, is_torn) = ledger.read()?;
    let shelves = shelves_in(&ReadOnlyDisk, folder, &limits)?;
    let mut report = CheckReport {
        is_without_accounts: accounts.is_none() && !shelves.0.iter().all(super::shelf::Shelf::is_empty),
        ..CheckReport::default()
    };
    let mut accounts = accounts.unwrap_or_else(|| Accounts::begin(1));
    adopt(&mut accounts, &shelves, is_torn)?;
    report.owed = accounts.untold.iter().map(|loss| loss.blocks).sum();
    let firsts = firsts_of(&accounts);
    let delivered = Place {
        epoch: accounts.acked.epoch,
        sequence: accounts.acked.sequence,
    };
    let mut verifier = TrailVerifier::new(trust);
    if let Some(head) = witnessed {
        verifier = verifier.with_witness(head);
    }
    let mut spool = Spool::of(folder, limits, shelves, ledger, accounts);
    let mut from = Position::default();
    loop {
        let (blocks, damaged) = spool.look(&page(from))?;
        report.damaged = report.damaged.saturating_add(damaged);
        let Some(last) = blocks.last() else { break };
        from = last.at.after();
        for block in blocks {
            let block = AuditBlock {
                epoch: block.at.epoch,
                sequence: block.at.sequence,
                previous_digest: block.previous.to_vec().into(),
                body: block.body.into(),
            };
            verifier.take(&block, Some(delivered));
        }
    }
    report.trail = verifier.report();
    Ok((report, firsts))
}

fn page(from: Position) -> ReadRange {
    ReadRange {
        from,
        until: Position {
            epoch: u64::MAX,
            sequence: u64::MAX,
        },
        is_hidden_too: false,
        count_max: usize::MAX,
        bytes_max: PAGE_BYTES,
    }
}

impl<D: Disk> Spool<D> {
    /// Blocks, and how many places among them cannot be read; nothing is counted or written.
    fn look(&mut self, wanted: &ReadRange) -> Result<(Vec<super::layout::StoredBlock>, u64), SpoolError> {
        let (blocks, gaps) = self.merge(wanted)?;
        for shelf in &mut self.shelves.0 {
            shelf.rest();
        }
        Ok((blocks, gaps.len() as u64))
    }
}
