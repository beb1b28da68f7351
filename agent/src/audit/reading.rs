//! Reading the trail: the shelves' blocks in the order of the chain, and what is missing among them, counted once.

use penstock_proto::v1::AuditBlock;

use super::accounts::{BySeverity, SEVERITIES};
use super::layout::{Cause, Position, StoredBlock};
use super::shelf::Gap;
use super::spool::{Spool, SpoolError};
use crate::durable::FileError;
use crate::log::Disk;

/// Which blocks are read.
#[derive(Debug)]
pub(super) struct ReadRange {
    pub(super) from: Position,
    pub(super) until: Position,
    /// Also those that are moved, are about to move, or are given up.
    pub(super) is_hidden_too: bool,
    pub(super) count_max: usize,
    pub(super) bytes_max: usize,
}

impl<D: Disk> Spool<D> {
    /// Up to `count_max` blocks of together at most `bytes_max` (but at least one), from `from` on in order.
    ///
    /// A block that the disk has damaged is left out, counted, and reported as a loss.
    ///
    /// # Errors
    /// The disk cannot be read, or refused to take that a damaged block is counted.
    pub fn read(
        &mut self,
        from: Position,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<AuditBlock>, SpoolError> {
        let blocks = self.gather(&ReadRange {
            from,
            until: Position {
                epoch: u64::MAX,
                sequence: u64::MAX,
            },
            is_hidden_too: false,
            count_max,
            bytes_max,
        })?;
        let blocks = blocks.into_iter().map(|block| AuditBlock {
            epoch: block.at.epoch,
            sequence: block.at.sequence,
            previous_digest: block.previous.to_vec().into(),
            body: block.body.into(),
        });
        Ok(blocks.collect())
    }

    /// Reads blocks of all logs in the order of the trail, and counts what is missing between them.
    pub(super) fn gather(&mut self, wanted: &ReadRange) -> Result<Vec<StoredBlock>, SpoolError> {
        let gathered = self.merge(wanted);
        let counted = match &gathered {
            Ok((_, gaps)) => self.write_off(gaps),
            Err(_) => Ok(()),
        };
        for shelf in &mut self.shelves.0 {
            if gathered.is_err() || counted.is_err() {
                shelf.forget();
            }
            shelf.rest();
        }
        counted?;
        Ok(gathered?.0)
    }

    pub(super) fn merge(&mut self, wanted: &ReadRange) -> Result<(Vec<StoredBlock>, Vec<Gap>), FileError> {
        let (mut blocks, mut gaps, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
        let mut next = BySeverity::default();
        for severity in SEVERITIES {
            self.shelves
                .of_mut(severity)
                .seek(wanted.from, self.accounts.logs.of(severity))?;
            *next.of_mut(severity) = self.next_wanted(severity, wanted, &mut gaps)?;
        }
        loop {
            let places = SEVERITIES
                .into_iter()
                .filter_map(|severity| Some((next.of(severity).as_ref()?.at, severity)));
            let Some((_, severity)) = places.min() else { break };
            let Some(block) = next.of_mut(severity).take() else {
                break;
            };
            let is_full =
                blocks.len() >= wanted.count_max || bytes.saturating_add(block.body.len()) > wanted.bytes_max;
            if is_full && !blocks.is_empty() {
                *next.of_mut(severity) = Some(block);
                break;
            }
            bytes = bytes.saturating_add(block.body.len());
            blocks.push(block);
            *next.of_mut(severity) = self.next_wanted(severity, wanted, &mut gaps)?;
        }
        for severity in SEVERITIES {
            if next.of(severity).is_some() {
                self.shelves.of_mut(severity).unread();
            }
        }
        gaps.retain(|gap| gap.until > wanted.from && !self.accounts.is_given_up(gap.until));
        Ok((blocks, gaps))
    }

    fn next_wanted(
        &mut self,
        severity: u8,
        wanted: &ReadRange,
        gaps: &mut Vec<Gap>,
    ) -> Result<Option<StoredBlock>, FileError> {
        let shelf = self.shelves.of_mut(severity);
        while let Some(block) = shelf.next(self.accounts.logs.of(severity), gaps)? {
            if block.at >= wanted.until {
                shelf.unread();
                return Ok(None);
            }
            if block.at >= wanted.from && (wanted.is_hidden_too || !self.accounts.is_hidden(block.at)) {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// Accounts for blocks that are not there, each once.
    fn write_off(&mut self, gaps: &[Gap]) -> Result<(), SpoolError> {
        let mut change = self.change();
        let mut is_news = false;
        for Gap {
            severity, from, to, ..
        } in gaps
        {
            if let Some(sum) = change.accounts.write_off(*severity, from, to) {
                let loss = sum.loss(from.last_ms, to.last_ms);
                change.accounts.lose(Cause::SpoolLost, &loss, sum.events);
                is_news = true;
            }
        }
        if is_news { self.commit(change) } else { Ok(()) }
    }
}
