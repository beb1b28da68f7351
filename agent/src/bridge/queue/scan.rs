//! Walking over a queue's segments: which there are, and what stands in them, record by record.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::super::layout::{self, HEADER_BYTES, QueueId, QueueRecord, ReadOutcome};
use super::{QueueError, failed};

/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;

/// The segments of a folder in order of their numbers.
pub(super) fn numbered(folder: &Path) -> Result<BTreeMap<u64, PathBuf>, QueueError> {
    let entries = std::fs::read_dir(folder).map_err(failed("list", folder))?;
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(failed("list", folder))?.path();
        let number = path
            .file_stem()
            .and_then(|stem| u64::from_str_radix(stem.to_str()?, 16).ok());
        if let (Some(number), Some("seg")) = (number, path.extension().and_then(|e| e.to_str())) {
            found.insert(number, path);
        }
    }
    Ok(found)
}

/// What stands next.
pub(super) enum Step {
    Record(QueueRecord),
    Damaged,
    /// Nothing more can be read; so many bytes are left over.
    End {
        rest: u64,
    },
}

/// Walks over a segment's records with one bounded buffer.
pub(super) struct Scan<'a> {
    file: &'a File,
    number: u64,
    identity: &'a QueueId,
    pub(super) offset: u64,
    pub(super) limit: u64,
    held: Vec<u8>,
    /// Where in `held` the record at `offset` begins.
    at: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(file: &'a File, number: u64, identity: &'a QueueId) -> Self {
        Self {
            file,
            number,
            identity,
            offset: HEADER_BYTES as u64,
            limit: u64::MAX,
            held: Vec::new(),
            at: 0,
        }
    }

    pub(super) fn next(&mut self) -> std::io::Result<Step> {
        loop {
            let bytes = self.held.get(self.at..).unwrap_or_default();
            match layout::read(self.identity, self.number, self.offset, bytes) {
                ReadOutcome::Whole(record, length) => {
                    self.advance(length);
                    return Ok(Step::Record(record));
                }
                ReadOutcome::Damaged(length) if length == usize::MAX => {
                    return Ok(Step::End { rest: 1 });
                }
                ReadOutcome::Damaged(length) => {
                    self.advance(length);
                    return Ok(Step::Damaged);
                }
                ReadOutcome::Needs(length) => {
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
    fn fill(&mut self, length: usize) -> std::io::Result<usize> {
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
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.held.truncate(had + got);
        Ok(had + got)
    }
}

/// How many messages a folder holds for a bridge that nobody may deliver any more, and when they came.
pub fn undelivered(folder: &Path) -> Option<(u64, u64, u64)> {
    let mut seen = BTreeSet::new();
    let (mut first_ms, mut last_ms) = (u64::MAX, 0);
    let mut finished = 0;
    for (number, path) in numbered(folder).ok()? {
        let file = File::open(&path).ok()?;
        let mut head = vec![0; HEADER_BYTES];
        file.read_exact_at(&mut head, 0).ok()?;
        let (identity, _) = layout::read_header(&head)?;
        let mut scan = Scan::new(&file, number, &identity);
        loop {
            match scan.next().ok()? {
                Step::Record(QueueRecord::Message(message)) => {
                    seen.insert(message.seq);
                    first_ms = first_ms.min(message.time_ms);
                    last_ms = last_ms.max(message.time_ms);
                }
                Step::Record(QueueRecord::Finished(seq)) => finished = finished.max(seq),
                Step::Record(QueueRecord::Snapshot(snapshot)) => finished = finished.max(snapshot.finished),
                Step::Record(_) | Step::Damaged => {}
                Step::End { .. } => break,
            }
        }
    }
    let count = seen.range(finished..).count() as u64;
    (count > 0).then_some((count, first_ms, last_ms))
}
