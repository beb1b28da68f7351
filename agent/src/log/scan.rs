//! Walking over the records of one segment, with one bounded buffer.

use std::io;

use super::disk::DiskFile;
use super::frame::{self, FrameOutcome, HEADER_BYTES, LogId};

/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;

/// So much is hashed at most to find a whole record behind a damaged one: what others wrote into a body may look like many.
const SEARCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What stands next.
#[derive(Debug)]
pub enum Step {
    /// A body, as it was written.
    Record(Vec<u8>),
    /// One that is not what was written.
    Damaged,
    /// Nothing more can be read; so many bytes are left over.
    End {
        /// Bytes that are no record.
        rest: u64,
    },
}

/// A walk; the file is its owner's.
#[derive(Debug)]
pub struct Scan {
    number: u64,
    identity: LogId,
    offset: u64,
    limit: u64,
    held: Vec<u8>,
    /// Where in `held` the record at `offset` begins.
    at: usize,
}

impl Scan {
    /// From the first record of this segment on.
    pub fn new(number: u64, identity: LogId) -> Self {
        Self::within(number, identity, HEADER_BYTES as u64, u64::MAX)
    }

    /// From the record at `offset` on, as if the file ended at `limit`.
    pub fn within(number: u64, identity: LogId, offset: u64, limit: u64) -> Self {
        Self {
            number,
            identity,
            offset,
            limit,
            held: Vec::new(),
            at: 0,
        }
    }

    /// Where the next record begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes on at the record at `offset`, holding nothing of what was read.
    pub fn go_to(&mut self, offset: u64) {
        self.offset = offset;
        self.held = Vec::new();
        self.at = 0;
    }

    /// From now on the file counts as ending at `limit`.
    pub fn limit_to(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// The next record, or what is in its place: bytes up to the next one that is whole, whatever the damaged one says of its length.
    ///
    /// # Errors
    /// The file cannot be read now, which says nothing about what it holds.
    pub fn step<F: DiskFile>(&mut self, file: &F) -> io::Result<Step> {
        loop {
            let bytes = self.held.get(self.at..).unwrap_or_default();
            match frame::read(&self.identity, self.number, self.offset, bytes) {
                FrameOutcome::Whole(body, length) => {
                    let body = body.to_vec();
                    self.advance(length);
                    return Ok(Step::Record(body));
                }
                FrameOutcome::Damaged(length) => {
                    let rest = self.fill_all(file)?;
                    let next = self.next_whole(length).unwrap_or(rest);
                    self.advance(next);
                    return Ok(Step::Damaged);
                }
                FrameOutcome::Needs(length) => {
                    let had = bytes.len();
                    if self.fill(file, length)? > had {
                        continue;
                    }
                    // It was not written to its end, or its length is not what was written.
                    let Some(next) = self.next_whole(usize::MAX) else {
                        return Ok(Step::End { rest: had as u64 });
                    };
                    self.advance(next);
                    return Ok(Step::Damaged);
                }
            }
        }
    }

    /// Where the next whole record begins in what is held: where the damaged one says that it ends, or else wherever there is one.
    fn next_whole(&self, length: usize) -> Option<usize> {
        let bytes = self.held.get(self.at..).unwrap_or_default();
        if length == bytes.len() {
            return Some(length);
        }
        let mut hashed = 0_usize;
        for place in std::iter::once(length).chain(1..bytes.len()) {
            let Some(rest) = bytes.get(place..) else { continue };
            let offset = self.offset.saturating_add(place as u64);
            match frame::read(&self.identity, self.number, offset, rest) {
                FrameOutcome::Whole(..) => return Some(place),
                FrameOutcome::Damaged(length) if length < usize::MAX => {
                    hashed = hashed.saturating_add(length);
                }
                _ => {}
            }
            if hashed > SEARCH_BYTES_MAX {
                return None;
            }
        }
        None
    }

    fn advance(&mut self, length: usize) {
        self.at += length;
        self.offset = self.offset.saturating_add(length as u64);
    }

    /// Reads all that is left, for what is damaged; gives what is held.
    fn fill_all<F: DiskFile>(&mut self, file: &F) -> io::Result<usize> {
        let end = file.length()?.min(self.limit);
        let left = usize::try_from(end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        self.fill(file, left)
    }

    /// Reads on until at least `length` bytes of the record are held, if the file has them; gives what is held.
    fn fill<F: DiskFile>(&mut self, file: &F, length: usize) -> io::Result<usize> {
        self.held.drain(..self.at.min(self.held.len()));
        self.at = 0;
        let had = self.held.len();
        let from = self.offset.saturating_add(had as u64);
        let room = usize::try_from(self.limit.saturating_sub(from)).unwrap_or(usize::MAX);
        let wanted = length.max(READ_BYTES).saturating_sub(had).min(room);
        self.held.resize(had + wanted, 0);
        let mut got = 0;
        while had + got < length.min(had + wanted) {
            let part = self.held.get_mut(had + got..).unwrap_or_default();
            match file.read_at(part, from.saturating_add(got as u64)) {
                Ok(0) => break,
                Ok(count) => got += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.held.truncate(had + got);
        Ok(had + got)
    }
}
