//! Reading a shelf: block after block from a place on, across segments, with what is missing between them.
//!
//! Owns the place where reading goes on, so that an upload does not begin at a segment's beginning each time. A block that cannot be
//! read shows by the totals of the next one that can, of the next segment's beginning, or of the accounts.

use super::{Shelf, identity};
use crate::audit::accounts::LogAccount;
use crate::audit::layout::{Position, Record, StoredBlock, Totals};
use crate::durable::FileError;
use crate::log::frame::HEADER_BYTES;
use crate::log::{Disk, Scan, Step};

/// Blocks that should be in a log and cannot be read.
#[derive(Debug, Clone, Copy)]
pub(in crate::audit) struct Gap {
    pub(in crate::audit) severity: u8,
    pub(in crate::audit) from: Totals,
    pub(in crate::audit) to: Totals,
    /// All of them lie before this place.
    pub(in crate::audit) until: Position,
}

/// Where reading goes on.
#[derive(Debug)]
pub(super) struct Cursor<F> {
    pub(super) number: u64,
    file: F,
    scan: Scan,
    /// What the log had taken before the next block.
    expected: Totals,
    /// The next block's place is at least this.
    after: Position,
    /// As before the last block that was given out.
    back: (u64, Totals, Position),
}

impl<D: Disk> Shelf<D> {
    /// Reading goes on with the first block that does not lie before `from`, or earlier ones.
    pub(in crate::audit) fn seek(&mut self, from: Position, account: &LogAccount) -> Result<(), FileError> {
        let live = |place: usize| self.ends(place, account).0.sum.blocks > account.first.sum.blocks;
        let first = (0..self.starts.len()).find(|place| live(*place));
        let begins = |place: &usize| self.starts.get(*place).is_some_and(|(_, start)| start.at <= from);
        let place = (0..self.starts.len()).rev().find(begins).max(first);
        let Some((number, start)) = place.and_then(|place| self.starts.get(place)).copied() else {
            self.cursor = None;
            return Ok(());
        };
        if let Some(cursor) = &self.cursor
            && cursor.after <= from
            && cursor.number >= number
        {
            return Ok(());
        }
        let (expected, after) = if place == first {
            (account.first, Position::default())
        } else {
            (start.before, start.at)
        };
        self.cursor = self.begin_at(number, expected, after)?;
        Ok(())
    }

    fn begin_at(
        &self,
        number: u64,
        expected: Totals,
        after: Position,
    ) -> Result<Option<Cursor<D::File>>, FileError> {
        let Some(segment) = self.segments.iter().find(|segment| segment.number == number) else {
            return Ok(None);
        };
        let offset = HEADER_BYTES as u64;
        Ok(Some(Cursor {
            number,
            file: self.segments.reading(segment)?,
            scan: Scan::within(number, identity(self.severity), offset, segment.bytes),
            expected,
            after,
            back: (offset, expected, after),
        }))
    }

    /// The next block; what is missing before it goes to `gaps`. `None`: there is none now.
    pub(in crate::audit) fn next(
        &mut self,
        account: &LogAccount,
        gaps: &mut Vec<Gap>,
    ) -> Result<Option<StoredBlock>, FileError> {
        let severity = self.severity;
        let mut missing = |from: Totals, to: Totals, until: Position| {
            if from.sum.blocks < to.sum.blocks {
                gaps.push(Gap {
                    severity,
                    from,
                    to,
                    until,
                });
            }
        };
        loop {
            let Some(mut cursor) = self.cursor.take() else {
                missing(account.first, account.end, account.end_at);
                return Ok(None);
            };
            let place = self
                .starts
                .iter()
                .position(|(number, _)| *number == cursor.number);
            let segment = self
                .segments
                .iter()
                .find(|segment| segment.number == cursor.number);
            let (Some(place), Some(segment)) = (place, segment) else {
                return Ok(None);
            };
            let (end, end_at) = self.ends(place, account);
            cursor.scan.limit_to(segment.bytes);
            if cursor.expected.sum.blocks < account.first.sum.blocks {
                cursor.expected = account.first;
            }
            loop {
                let offset = cursor.scan.offset();
                match cursor
                    .scan
                    .step(&cursor.file)
                    .map_err(|error| segment.unread(error))?
                {
                    Step::Record(body) => {
                        let Some(Record::Block(block)) = Record::from_bytes(&body) else {
                            continue;
                        };
                        let number = block.before.sum.blocks;
                        if number >= end.sum.blocks || number < cursor.expected.sum.blocks {
                            continue;
                        }
                        missing(cursor.expected, block.before, block.at);
                        cursor.back = (offset, cursor.expected, cursor.after);
                        cursor.expected = block.after();
                        cursor.after = block.at.after();
                        self.cursor = Some(cursor);
                        return Ok(Some(block));
                    }
                    Step::Damaged => {}
                    Step::End { .. } => break,
                }
            }
            missing(cursor.expected, end, end_at);
            let Some((number, _)) = self.starts.get(place.saturating_add(1)).copied() else {
                self.cursor = Some(cursor);
                return Ok(None);
            };
            let (expected, after) = if cursor.expected.sum.blocks < end.sum.blocks {
                (end, end_at)
            } else {
                (cursor.expected, cursor.after)
            };
            self.cursor = self.begin_at(number, expected, after)?;
        }
    }

    /// The last block that was given out comes again.
    pub(in crate::audit) fn unread(&mut self) {
        if let Some(cursor) = &mut self.cursor {
            let (offset, expected, after) = cursor.back;
            cursor.scan.go_to(offset);
            cursor.expected = expected;
            cursor.after = after;
        }
    }

    /// Reading begins from nothing.
    pub(in crate::audit) fn forget(&mut self) {
        self.cursor = None;
    }

    /// Nothing of what was read is held.
    pub(in crate::audit) fn rest(&mut self) {
        if let Some(cursor) = &mut self.cursor {
            let offset = cursor.scan.offset();
            cursor.scan.go_to(offset);
        }
    }
}
