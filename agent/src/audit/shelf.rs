//! The blocks of one severity on disk: a log, in the order of the trail, whose oldest segments can go by themselves.
//!
//! Owns the segments, and what is known of how each begins. What of them counts, the
//! [`accounts`](super::accounts) say: blocks beyond them, and what a commit that failed left in the middle, are not there for a reader.
//!
//! Not here: which segments go ([`shed`](super::shed)), and the order across severities ([`spool`](super::spool)).

mod reading;

use std::collections::VecDeque;
use std::path::Path;

use self::reading::Cursor;
use super::accounts::LogAccount;
use super::layout::{Position, Record, START_BYTES, Start, Totals};
use crate::durable::FileError;
use crate::log::frame::HEADER_BYTES;
use crate::log::{Disk, LogId, Scan, Segments, Step};

pub(super) use reading::Gap;

/// So many small segments at a log's end become one when it is opened.
const SMALL_SEGMENTS_MAX: usize = 8;
/// What a small segment is: this part of a whole one.
const SMALL_PART: u64 = 8;

/// What binds the segments to their log.
fn identity(severity: u8) -> LogId {
    let mut identity = *b"penstock trail 0";
    if let Some(last) = identity.last_mut() {
        *last = last.saturating_add(severity);
    }
    identity
}

/// A segment that holds something.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldSegment {
    pub(super) number: u64,
    pub(super) start: Start,
    /// What the log had taken with its last block, and the place behind it.
    pub(super) end: Totals,
    pub(super) end_at: Position,
    pub(super) bytes: u64,
    /// It is the one that would take more.
    pub(super) is_newest: bool,
}

/// A whole block that the accounts do not know of.
#[derive(Debug)]
pub(super) struct UnaccountedBlock {
    pub(super) at: Position,
    pub(super) previous: [u8; 32],
    pub(super) digest: [u8; 32],
    /// What the log had taken with it.
    pub(super) end: Totals,
    /// Where it stands, and where it ends there.
    pub(super) segment: u64,
    pub(super) bytes: u64,
}

/// Records that wait to be written: into the newest segment if it goes on, and each further run into a new one.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What the segment holds that the next record goes to; `None`: nothing is planned yet.
    pub(super) fill: Option<u64>,
    pub(super) continues: bool,
    /// The newest segment was given up: it does not go on.
    pub(super) begins: bool,
    pub(super) runs: Vec<(Start, Vec<Vec<u8>>)>,
}

#[derive(Debug)]
pub(super) struct Shelf<D: Disk> {
    severity: u8,
    segments: Segments<D>,
    /// How the segments begin, in their order.
    starts: VecDeque<(u64, Start)>,
    cursor: Option<Cursor<D::File>>,
    segment_bytes: u64,
}

impl<D: Disk> Shelf<D> {
    /// Finds the segments in `folder`. Reads the beginning of each, and nothing more of those that are whole.
    pub(super) fn open(disk: D, folder: &Path, severity: u8, segment_bytes: u64) -> Result<Self, FileError> {
        let (segments, found) = Segments::open(disk, folder, identity(severity))?;
        if found.foreign > 0 {
            tracing::warn!(
                segments = found.foreign,
                "files of another log were removed from the audit spool"
            );
        }
        let mut shelf = Self {
            severity,
            segments,
            starts: VecDeque::new(),
            cursor: None,
            segment_bytes,
        };
        let numbers: Vec<_> = shelf.segments.iter().map(|segment| segment.number).collect();
        for number in numbers {
            match shelf.read_start(number)? {
                Some(start) => shelf.starts.push_back((number, start)),
                // Torn while it was made, or damaged throughout, which the next block's totals show.
                None => shelf.segments.remove(number)?,
            }
        }
        Ok(shelf)
    }

    fn read_start(&self, number: u64) -> Result<Option<Start>, FileError> {
        for limit in [START_BYTES, u64::MAX] {
            let mut found = None;
            self.scan(number, HEADER_BYTES as u64, limit, |record, _| {
                found = Some(match record {
                    Record::Start(start) => start,
                    Record::Block(block) => block.start(),
                });
                false
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Shows each whole record of a segment, and where it ends, until `goes_on` says no.
    fn scan(
        &self,
        number: u64,
        offset: u64,
        limit: u64,
        mut goes_on: impl FnMut(Record, u64) -> bool,
    ) -> Result<(), FileError> {
        let Some(segment) = self.segments.iter().find(|segment| segment.number == number) else {
            return Ok(());
        };
        let file = self.segments.reading(segment)?;
        let limit = limit.min(segment.bytes);
        let mut scan = Scan::within(number, identity(self.severity), offset, limit);
        loop {
            match scan.step(&file).map_err(|error| segment.unread(error))? {
                Step::Record(body) => {
                    if let Some(record) = Record::from_bytes(&body)
                        && !goes_on(record, scan.offset())
                    {
                        return Ok(());
                    }
                }
                Step::Damaged => {}
                Step::End { .. } => return Ok(()),
            }
        }
    }

    /// The bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.bytes()
    }

    /// Whether there is anything in it.
    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The newest segment, and where its records end.
    pub(super) fn newest(&self) -> (u64, u64) {
        let newest = self.segments.iter().last();
        newest.map_or((0, 0), |segment| (segment.number, segment.bytes))
    }

    /// What the newest segment holds, if it takes more records of this epoch.
    pub(super) fn fill(&self, epoch: u64) -> Option<u64> {
        let (_, start) = self.starts.back()?;
        let takes = start.at.epoch == epoch && self.segments.takes_records_below(self.segment_bytes);
        takes.then_some(self.newest().1)
    }

    /// Whether a segment that holds so many bytes is full.
    pub(super) fn is_full(&self, bytes: u64) -> bool {
        bytes >= self.segment_bytes
    }

    /// Where the oldest segment begins that holds something of this epoch.
    pub(super) fn first_of(&self, epoch: u64, account: &LogAccount) -> Option<Position> {
        let starts = self
            .starts
            .iter()
            .enumerate()
            .map(|(place, (_, start))| (place, start.at));
        let mut of_epoch = starts.filter(|(_, at)| at.epoch == epoch);
        of_epoch
            .find(|(place, _)| self.ends(*place, account).0.sum.blocks > account.first.sum.blocks)
            .map(|(_, at)| at)
    }

    /// What the log had taken at the end of a segment, and the place behind it: where a later one begins, which may be before what a
    /// commit that failed left in this one.
    fn ends(&self, place: usize, account: &LogAccount) -> (Totals, Position) {
        let later = self.starts.iter().skip(place.saturating_add(1));
        let begins = later.map(|(_, start)| (start.before, start.at));
        begins
            .filter(|(before, _)| before.sum.blocks < account.end.sum.blocks)
            .min_by_key(|(before, _)| before.sum.blocks)
            .unwrap_or((account.end, account.end_at))
    }

    /// The oldest segment that holds more than `first`, which was put into the log before.
    pub(super) fn front(&self, first: &Totals, account: &LogAccount) -> Option<HeldSegment> {
        self.starts
            .iter()
            .enumerate()
            .find_map(|(place, (number, start))| {
                let (end, end_at) = self.ends(place, account);
                let segment = self.segments.iter().find(|segment| segment.number == *number)?;
                (end.sum.blocks > first.sum.blocks && start.before.sum.blocks < end.sum.blocks).then_some(
                    HeldSegment {
                        number: *number,
                        start: *start,
                        end,
                        end_at,
                        bytes: segment.bytes,
                        is_newest: place.saturating_add(1) == self.starts.len(),
                    },
                )
            })
    }

    /// What the log had taken before the first block of a segment that does not lie before `from`, and that block's time.
    pub(super) fn before(&self, held: &HeldSegment, from: Position) -> Result<(Totals, u64), FileError> {
        if held.start.at >= from {
            return Ok((held.start.before, held.start.first_ms));
        }
        let mut found = (held.end, held.end.last_ms);
        if held.end_at > from {
            self.scan(
                held.number,
                HEADER_BYTES as u64,
                u64::MAX,
                |record, _| match record {
                    Record::Block(block)
                        if block.at >= from && block.before.sum.blocks < held.end.sum.blocks =>
                    {
                        found = (block.before, block.facts.first_ms);
                        false
                    }
                    _ => true,
                },
            )?;
        }
        Ok(found)
    }

    /// How many blocks the log had taken before this place, as far as it still has what stands there.
    pub(super) fn blocks_before(&self, at: Position, account: &LogAccount) -> Result<u64, FileError> {
        let mut first = account.first;
        while let Some(held) = self.front(&first, account) {
            if held.end_at > at {
                let (before, _) = self.before(&held, at)?;
                return Ok(before.sum.blocks.max(first.sum.blocks));
            }
            first = held.end;
        }
        Ok(first.sum.blocks)
    }

    /// Writes what is planned, durable when this returns.
    pub(super) fn write(&mut self, plan: Plan) -> Result<(), FileError> {
        for (place, (start, mut records)) in plan.runs.into_iter().enumerate() {
            if plan.continues && place == 0 {
                self.segments.append(&records)?;
            } else {
                records.insert(0, start.to_bytes());
                let number = self.segments.begin(&records)?;
                self.starts.push_back((number, start));
            }
        }
        Ok(())
    }

    /// What was written since the last commit belongs to none.
    pub(super) fn abandon(&mut self) {
        self.segments.seal();
    }

    /// Removes segments that hold nothing: dropped, written by a commit that failed, or put together since.
    pub(super) fn sweep(&mut self, account: &LogAccount) {
        let mut dead = Vec::new();
        let mut next = account.end.sum.blocks;
        for (number, start) in self.starts.iter().rev() {
            let before = start.before.sum.blocks;
            if next <= before.max(account.first.sum.blocks) {
                dead.push(*number);
            }
            next = next.min(before);
        }
        for number in dead {
            self.remove(number);
        }
    }

    /// Removes what lies behind the accounts: left by a commit, or by putting segments together, that did not come to its end.
    pub(super) fn forget_behind(&mut self, account: &LogAccount) -> Result<(), FileError> {
        while let Some((number, _)) = self.starts.back().filter(|(number, _)| *number > account.segment) {
            self.segments.remove(*number)?;
            self.starts.pop_back();
        }
        Ok(())
    }

    fn remove(&mut self, number: u64) {
        match self.segments.remove(number) {
            Ok(()) => {
                self.starts.retain(|(one, _)| *one != number);
                // Who read up to a commit that failed stands in what it left: reading goes on where that was put again.
                if self.cursor.as_ref().is_some_and(|cursor| cursor.number == number) {
                    self.forget();
                }
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a segment of the audit spool was not removed; it is tried again"
            ),
        }
    }

    /// Whole blocks behind the accounts, in order.
    pub(super) fn behind(&self, account: &LogAccount) -> Result<VecDeque<UnaccountedBlock>, FileError> {
        let mut behind: VecDeque<UnaccountedBlock> = VecDeque::new();
        let mut expected = account.end.sum.blocks;
        for (number, start) in &self.starts {
            let offset = if *number == account.segment {
                account.bytes
            } else {
                HEADER_BYTES as u64
            };
            if *number < account.segment {
                continue;
            }
            if *number > account.segment {
                // A segment that begins earlier and is not named was being put together.
                if start.before.sum.blocks < account.end.sum.blocks {
                    continue;
                }
                // What stands before and reaches beyond its beginning, a commit left that failed.
                let reaches = |block: &UnaccountedBlock| block.end.sum.blocks > start.before.sum.blocks;
                while behind.back().is_some_and(reaches) {
                    behind.pop_back();
                }
                expected = behind.back().map_or(account.end, |block| block.end).sum.blocks;
            }
            self.scan(
                *number,
                offset.max(HEADER_BYTES as u64),
                u64::MAX,
                |record, bytes| {
                    if let Record::Block(block) = record
                        && block.before.sum.blocks >= expected
                    {
                        expected = block.after().sum.blocks;
                        behind.push_back(UnaccountedBlock {
                            at: block.at,
                            previous: block.previous,
                            digest: block.digest(),
                            end: block.after(),
                            segment: *number,
                            bytes,
                        });
                    }
                    true
                },
            )?;
        }
        Ok(behind)
    }

    /// What the log holds by its own account; for accounts that are gone.
    pub(super) fn account(&self) -> Result<LogAccount, FileError> {
        let mut account = LogAccount::default();
        if let Some((_, first)) = self.starts.front() {
            account.first = first.before;
        }
        for (number, _) in self.starts.iter().rev() {
            let mut last = None;
            self.scan(*number, HEADER_BYTES as u64, u64::MAX, |record, end| {
                if let Record::Block(block) = record {
                    last = Some((block.after(), block.at.after(), end));
                }
                true
            })?;
            if let Some((end, end_at, bytes)) = last {
                return Ok(LogAccount {
                    end,
                    end_at,
                    segment: *number,
                    bytes,
                    ..account
                });
            }
        }
        account.end = account.first;
        Ok(account)
    }

    /// Puts small segments at the log's end together, as restarts leave them; says what the account is then. The old ones go with the
    /// next [`Self::sweep`].
    pub(super) fn put_together(&mut self, account: &LogAccount) -> Result<Option<LogAccount>, FileError> {
        // No more than a whole segment's: it is held in memory.
        let mut room = self.segment_bytes;
        let mut small = |number: u64| {
            let segment = self.segments.iter().find(|segment| segment.number == number);
            let small = segment.filter(|segment| segment.bytes <= self.segment_bytes / SMALL_PART);
            small
                .and_then(|segment| room.checked_sub(segment.bytes))
                .inspect(|left| room = *left)
                .is_some()
        };
        let Some((_, newest)) = self.starts.back() else {
            return Ok(None);
        };
        let epoch = newest.at.epoch;
        let alike = |one: &&(u64, Start)| one.1.at.epoch == epoch && small(one.0);
        let mut together: Vec<_> = self.starts.iter().rev().take_while(alike).copied().collect();
        together.reverse();
        let Some((_, start)) = together.first().filter(|_| together.len() >= SMALL_SEGMENTS_MAX) else {
            return Ok(None);
        };
        let mut expected = start.before.sum.blocks;
        let mut records = vec![start.to_bytes()];
        for (number, _) in &together {
            self.scan(*number, HEADER_BYTES as u64, u64::MAX, |record, _| {
                if let Record::Block(block) = record
                    && (expected..account.end.sum.blocks).contains(&block.before.sum.blocks)
                {
                    expected = block.after().sum.blocks;
                    records.push(block.to_bytes());
                }
                true
            })?;
        }
        let start = *start;
        let number = self.segments.begin(&records)?;
        self.segments.seal();
        self.starts.push_back((number, start));
        let (segment, bytes) = self.newest();
        Ok(Some(LogAccount {
            segment,
            bytes,
            ..*account
        }))
    }
}
