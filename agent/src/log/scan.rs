//! Walking over the records of one segment, with one bounded buffer.

use std::io;

use super::disk::DiskFile;
use super::frame::{self, FrameOutcome, HEADER_BYTES, LogId};

/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;

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

/// A walk.
#[derive(Debug)]
pub struct Scan<'a, F> {
    file: &'a F,
    number: u64,
    identity: LogId,
    offset: u64,
    limit: u64,
    held: Vec<u8>,
    /// Where in `held` the record at `offset` begins.
    at: usize,
}

impl<'a, F: DiskFile> Scan<'a, F> {
    /// From the first record on.
    pub fn new(file: &'a F, number: u64, identity: LogId) -> Self {
        Self::within(file, number, identity, HEADER_BYTES as u64, u64::MAX)
    }

    /// From the record at `offset` on, as if the file ended at `limit`.
    pub fn within(file: &'a F, number: u64, identity: LogId, offset: u64, limit: u64) -> Self {
        Self {
            file,
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

    /// The next record, or what is in its place.
    ///
    /// # Errors
    /// The file cannot be read now, which says nothing about what it holds.
    pub fn step(&mut self) -> io::Result<Step> {
        loop {
            let bytes = self.held.get(self.at..).unwrap_or_default();
            match frame::read(&self.identity, self.number, self.offset, bytes) {
                FrameOutcome::Whole(body, length) => {
                    let body = body.to_vec();
                    self.advance(length);
                    return Ok(Step::Record(body));
                }
                FrameOutcome::Damaged(length) if length == usize::MAX => return Ok(Step::End { rest: 1 }),
                FrameOutcome::Damaged(length) => {
                    self.advance(length);
                    return Ok(Step::Damaged);
                }
                FrameOutcome::Needs(length) => {
                    let had = bytes.len();
                    if self.fill(length)? == had {
                        return Ok(Step::End { rest: had as u64 });
                    }
                }
            }
        }
    }

    fn advance(&mut self, length: usize) {
        self.at += length;
        self.offset = self.offset.saturating_add(length as u64);
    }

    /// Reads on until at least `length` bytes of the record are held, if the file has them; gives what is held.
    fn fill(&mut self, length: usize) -> io::Result<usize> {
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
            match self.file.read_at(part, from.saturating_add(got as u64)) {
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
