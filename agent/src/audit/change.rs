//! Blocks become a change of the spool that is real only when it is committed.

use penstock_proto::audit::seal::BlocksSince;
use penstock_proto::audit::{Head, block_digest};

use super::accounts::{Accounts, BySeverity};
use super::layout::{BlockFacts, Position, START_BYTES, StoredBlock, cost_of};
use super::shelf::{HeldSegment, Plan, Shelf};
use crate::log::Disk;

/// What an operation builds up; nothing is real until it is committed.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) accounts: Accounts,
    /// What all segments take when it is done, in bytes.
    pub(super) bytes: u64,
    pub(super) plans: BySeverity<Plan>,
    /// The blocks that it puts at the head and that want to be sealed: their severities and digests.
    pub(super) pushed: Vec<(u8, [u8; 32])>,
}

impl Change {
    /// Puts a block of this body at the head of the chain.
    pub(super) fn push<D: Disk>(&mut self, shelf: &Shelf<D>, facts: BlockFacts, body: Vec<u8>) {
        let head = self.accounts.head;
        let at = self.accounts.next();
        self.accounts.head = Head {
            epoch: head.epoch,
            next_sequence: head.next_sequence.saturating_add(1),
            digest: block_digest(&head.digest, at.epoch, at.sequence, &body),
        };
        if !facts.is_of_seals() {
            self.pushed.push((facts.severity, self.accounts.head.digest));
        }
        self.keep(shelf, at, facts, head.digest, body);
    }

    /// Adds the blocks that it puts at the head to those that no seal names yet.
    pub(super) fn add_to(&self, since: &mut BlocksSince) {
        for (severity, digest) in &self.pushed {
            since.take(usize::from(*severity), digest);
        }
    }

    /// Puts a block that is part of the chain behind the others of its severity.
    pub(super) fn keep<D: Disk>(
        &mut self,
        shelf: &Shelf<D>,
        at: Position,
        facts: BlockFacts,
        previous: [u8; 32],
        body: Vec<u8>,
    ) {
        let account = self.accounts.logs.of_mut(facts.severity);
        let block = StoredBlock {
            at,
            before: account.end,
            facts,
            previous,
            body,
        };
        account.end = block.after();
        account.end_at = at.after();
        let bytes = self.plans.of_mut(facts.severity).put(shelf, &block);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Gives up a segment that was there before.
    pub(super) fn drop_segment(&mut self, severity: u8, held: &HeldSegment) {
        let account = self.accounts.logs.of_mut(severity);
        account.first = held.end;
        self.accounts
            .forget_written_off(severity, held.start.before.sum.blocks, held.end.sum.blocks);
        self.bytes = self.bytes.saturating_sub(held.bytes);
        let plan = self.plans.of_mut(severity);
        if held.is_newest {
            if std::mem::take(&mut plan.continues) {
                // What was to go into it begins one of its own.
                self.bytes = self.bytes.saturating_add(START_BYTES);
            }
            plan.begins = true;
        }
    }
}

impl Plan {
    /// Plans a block; says what it takes.
    fn put<D: Disk>(&mut self, shelf: &Shelf<D>, block: &StoredBlock) -> u64 {
        let bytes = cost_of(block.body.len());
        let fill = match self.fill {
            Some(fill) => Some(fill),
            None if self.begins => None,
            None => shelf.fill(block.at.epoch).inspect(|_| self.continues = true),
        };
        let is_first = self.fill.is_none();
        let newest = self.runs.last().map(|(start, _)| start.at.epoch);
        let is_other_epoch = newest.is_some_and(|epoch| epoch != block.at.epoch);
        let (fill, begun) = match fill.filter(|fill| !shelf.is_full(*fill) && !is_other_epoch) {
            Some(fill) => (fill, 0),
            None => (START_BYTES, START_BYTES),
        };
        if begun > 0 || is_first {
            self.runs.push((block.start(), Vec::new()));
        }
        if let Some((_, records)) = self.runs.last_mut() {
            records.push(block.to_bytes());
        }
        self.fill = Some(fill.saturating_add(bytes));
        bytes.saturating_add(begun)
    }
}
