//! A bridge's messages on disk, from the moment they are acknowledged to one broker until the other has them.
//!
//! A folder of append-only segments ([`layout`](super::layout)). Plain files rather than a database: messages go in at
//! one end and out at the other, the order is the file's own, and one sync makes a whole batch durable. Synchronous;
//! [`keeper`](super::keeper) runs it on blocking threads.
//!
//! Invariants:
//! - [`Queue::commit`] returns after its records are durable, or leaves the queue as it was;
//! - a segment that failed to take a write is never written again, and one that was there at opening neither;
//! - each segment begins with a snapshot, so that the oldest can go without loss of state;
//! - what cannot be read whole is never given out: it is skipped, and counted by the gap in the sequence;
//! - segments never exceed [`QueueLimits::bytes_max`] by more than [`RESERVE_BYTES`], which only state may use.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::layout::{self, HEADER_BYTES, Message, QueueId, QueueRecord, Snapshot};
use crate::durable::{self, FileError};

mod scan;

pub use scan::undelivered;
use scan::{Scan, Step, numbered};

/// How large a queue may become.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// Quota of messages on disk, bytes.
    pub bytes_max: u64,
    /// No message is taken while the file system has less than this free, bytes.
    pub free_bytes_min: u64,
}

/// A segment is closed at this size: small enough to give room back early, large enough to cost nothing.
const SEGMENT_BYTES: u64 = 1024 * 1024;
/// What state (never messages) may take beyond the quota.
pub const RESERVE_BYTES: u64 = 256 * 1024;

/// Why the queue did not do it; it is as before.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The quota is reached.
    #[error("the queue holds {bytes} bytes, its quota is {bytes_max}")]
    Full {
        /// Held.
        bytes: u64,
        /// The quota.
        bytes_max: u64,
    },
    /// The file system is too full to take messages safely.
    #[error(
        "the queue's file system has {free_bytes} bytes free, less than the {free_bytes_min} kept in reserve"
    )]
    NoRoom {
        /// Free now.
        free_bytes: u64,
        /// Wanted.
        free_bytes_min: u64,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What was found when the queue was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Messages that had been acknowledged and cannot be read any more.
    pub lost: u64,
    /// Something could not be read: state about packet identifiers was given up, too.
    pub damaged: bool,
    /// Segments of another bridge that had this number; they were removed.
    pub foreign: usize,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    number: u64,
    /// The first sequence that may stand in it.
    first: u64,
    /// The first sequence that may not.
    end: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Cursor {
    segment: u64,
    file: File,
    offset: u64,
    /// The sequence that is looked for next.
    seq: u64,
}

/// The queue. Dropping it loses nothing that `commit` returned for.
#[derive(Debug)]
pub struct Queue {
    folder: PathBuf,
    identity: QueueId,
    limits: QueueLimits,
    segments: VecDeque<Segment>,
    /// The newest segment, while it takes records.
    active: Option<File>,
    state: Snapshot,
    bytes: u64,
    cursor: Option<Cursor>,
    last_number: u64,
}

pub(super) fn failed<'a>(
    verb: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> FileError + 'a {
    move |source| FileError {
        verb,
        path: path.to_owned(),
        source,
    }
}

impl Queue {
    /// Opens or creates the queue in `folder`, which belongs to it alone.
    pub(crate) fn open(
        folder: &Path,
        identity: QueueId,
        limits: QueueLimits,
    ) -> Result<(Self, Recovery), QueueError> {
        durable::create_folder(folder)?;
        let mut queue = Self {
            folder: folder.to_owned(),
            identity,
            limits,
            segments: VecDeque::new(),
            active: None,
            state: Snapshot {
                next: 1,
                finished: 1,
                ..Snapshot::default()
            },
            bytes: 0,
            cursor: None,
            last_number: 0,
        };
        let mut found = Recovery::default();
        let mut gaps = Vec::new();
        for (number, path) in numbered(folder)? {
            queue.last_number = queue.last_number.max(number);
            queue.recover(number, path, &mut found, &mut gaps)?;
        }
        let (finished, next) = (queue.state.finished, queue.state.next.max(queue.state.finished));
        queue.state.next = next;
        found.lost = gaps
            .into_iter()
            .map(|(from, to): (u64, u64)| to.min(next).saturating_sub(from.max(finished)))
            .sum();
        if found.damaged {
            // A wrong memory of identifiers could swallow a message; none can only repeat one.
            queue.state.unreleased.clear();
            queue.state.received.clear();
        }
        queue.finish(finished);
        Ok((queue, found))
    }

    fn recover(
        &mut self,
        number: u64,
        path: PathBuf,
        found: &mut Recovery,
        gaps: &mut Vec<(u64, u64)>,
    ) -> Result<(), QueueError> {
        let file = File::open(&path).map_err(failed("open", &path))?;
        let bytes = file.metadata().map_err(failed("look at", &path))?.len();
        let mut head = vec![0; HEADER_BYTES];
        let headed = match file.read_exact_at(&mut head, 0) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => false,
            // The disk, not the file: what it holds may be whole, and is not removed.
            Err(error) => return Err(failed("read", &path)(error).into()),
        };
        match layout::read_header(&head) {
            Some((identity, stated)) if headed && identity == self.identity && stated == number => {}
            Some((identity, _)) if headed && identity != self.identity => {
                found.foreign += 1;
                return std::fs::remove_file(&path)
                    .map_err(failed("remove", &path))
                    .map_err(Into::into);
            }
            _ => {
                // Made and not yet written, or damaged from its first byte on.
                found.damaged |= bytes > 0;
                return std::fs::remove_file(&path)
                    .map_err(failed("remove", &path))
                    .map_err(Into::into);
            }
        }
        let mut expected = self.state.next;
        let mut first = None;
        let mut scan = Scan::new(&file, number, &self.identity);
        loop {
            let record = match scan.next().map_err(failed("read", &path))? {
                Step::Record(record) => record,
                Step::Damaged => {
                    found.damaged = true;
                    continue;
                }
                Step::End { rest } => {
                    found.damaged |= rest > 0;
                    break;
                }
            };
            match record {
                QueueRecord::Snapshot(snapshot) => {
                    if snapshot.next > expected {
                        gaps.push((expected, snapshot.next));
                    }
                    // What an older segment has from here on was never acknowledged.
                    for older in &mut self.segments {
                        older.end = older.end.min(snapshot.next);
                    }
                    expected = snapshot.next;
                    first = Some(snapshot.next);
                    self.state = snapshot;
                }
                QueueRecord::Message(message) => {
                    if message.seq > expected {
                        gaps.push((expected, message.seq));
                    }
                    expected = message.seq.saturating_add(1);
                    if message.origin != 0 {
                        self.state.unreleased.insert(message.origin);
                    }
                    first.get_or_insert(message.seq);
                    self.state.next = expected;
                }
                other => apply(&mut self.state, &other),
            }
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.segments.push_back(Segment {
            path,
            number,
            first: first.unwrap_or(expected),
            end: self.state.next,
            bytes,
        });
        Ok(())
    }

    /// Writes these records, durable when this returns. Messages get their sequence here, in order.
    pub(crate) fn commit(&mut self, records: &mut [QueueRecord]) -> Result<(), QueueError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut state = self.state.clone();
        let mut wanted = 0;
        for record in records.iter_mut() {
            if let QueueRecord::Message(message) = record {
                message.seq = state.next;
                state.next = state.next.saturating_add(1);
                wanted += message.cost();
                if message.origin != 0 {
                    state.unreleased.insert(message.origin);
                }
            }
            apply(&mut state, record);
        }
        if wanted > 0 {
            self.require_room(wanted)?;
        }
        let number = self.active_segment()?;
        let base = self.segments.back().map_or(0, |segment| segment.bytes);
        let mut out = Vec::with_capacity(usize::try_from(wanted).unwrap_or(0) + records.len() * 32);
        for record in records.iter() {
            layout::put(&mut out, &self.identity, number, base, record);
        }
        self.write(&out, base)?;
        self.state = state;
        let next = self.state.next;
        if let Some(segment) = self.segments.back_mut() {
            segment.end = next;
        }
        Ok(())
    }

    /// Appends bytes to the active segment and syncs them. If that fails the segment is given up for writing.
    fn write(&mut self, bytes: &[u8], at: u64) -> Result<(), QueueError> {
        let (Some(file), Some(segment)) = (&self.active, self.segments.back_mut()) else {
            return Ok(());
        };
        let written = file.write_all_at(bytes, at).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // Half a record, or one that the disk may or may not keep, is cut off again; the next segment's snapshot
            // says that it does not count, should even that fail.
            let _ = file.set_len(at);
            let error = failed("write", &segment.path)(error);
            self.active = None;
            return Err(error.into());
        }
        let added = bytes.len() as u64;
        segment.bytes = segment.bytes.saturating_add(added);
        self.bytes = self.bytes.saturating_add(added);
        Ok(())
    }

    /// The number of the segment that takes records; a new one where there is none or it is full.
    fn active_segment(&mut self) -> Result<u64, QueueError> {
        let limit = SEGMENT_BYTES.min(self.limits.bytes_max / 8);
        if let (Some(_), Some(segment)) = (&self.active, self.segments.back())
            && segment.bytes < limit
        {
            return Ok(segment.number);
        }
        self.active = None;
        let number = self.last_number.saturating_add(1);
        let path = self.folder.join(format!("{number:016x}.seg"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("create", &path))?;
        self.last_number = number;
        let mut out = layout::header(&self.identity, number);
        layout::put(
            &mut out,
            &self.identity,
            number,
            0,
            &QueueRecord::Snapshot(self.state.clone()),
        );
        let begun = file
            .write_all_at(&out, 0)
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(&self.folder)?.sync_all());
        if let Err(error) = begun {
            let _ = std::fs::remove_file(&path);
            return Err(failed("write", &path)(error).into());
        }
        let bytes = out.len() as u64;
        self.bytes = self.bytes.saturating_add(bytes);
        self.segments.push_back(Segment {
            path,
            number,
            first: self.state.next,
            end: self.state.next,
            bytes,
        });
        self.active = Some(file);
        // What the segment before it held may all be done.
        self.finish(self.state.finished);
        Ok(number)
    }

    fn require_room(&self, wanted: u64) -> Result<(), QueueError> {
        let bytes = self.bytes.saturating_add(wanted);
        if bytes > self.limits.bytes_max {
            return Err(QueueError::Full {
                bytes: self.bytes,
                bytes_max: self.limits.bytes_max,
            });
        }
        let free = rustix::fs::statvfs(&self.folder)
            .map_err(|error| failed("ask for the free space of", &self.folder)(error.into()))?;
        let free_bytes = free.f_bavail.saturating_mul(free.f_frsize);
        if free_bytes < self.limits.free_bytes_min.saturating_add(wanted) {
            return Err(QueueError::NoRoom {
                free_bytes,
                free_bytes_min: self.limits.free_bytes_min,
            });
        }
        Ok(())
    }

    /// Everything below `seq` is done: its segments go. The position itself is recorded by a [`QueueRecord::Finished`].
    pub fn finish(&mut self, seq: u64) {
        let seq = seq.min(self.state.next);
        self.state.finished = self.state.finished.max(seq);
        self.state.received.retain(|received| *received >= seq);
        // The newest stays: it has the state.
        while let Some(oldest) = self.segments.front()
            && self.segments.len() > 1
            && oldest.end <= self.state.finished
        {
            if let Err(error) = std::fs::remove_file(&oldest.path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %oldest.path.display(), %error, "a delivered segment was not removed; it is tried again");
                return;
            }
            self.bytes = self.bytes.saturating_sub(oldest.bytes);
            self.segments.pop_front();
        }
    }

    /// Messages from `from` on, in order, of together about `bytes_max` (at least one); damaged ones are left out, which
    /// the sequence shows.
    pub(crate) fn read(&mut self, from: u64, bytes_max: u64) -> Result<Vec<Message>, QueueError> {
        let mut messages = Vec::new();
        let mut cost = 0;
        let mut from = from.max(self.state.finished);
        while from < self.state.next && cost < bytes_max {
            let Some(index) = self.segments.iter().position(|segment| from < segment.end) else {
                break;
            };
            let Some(segment) = self.segments.get(index) else {
                break;
            };
            let (number, end, limit) = (segment.number, segment.end, segment.bytes);
            let cursor = match self.cursor.take() {
                Some(cursor) if cursor.segment == number && cursor.seq <= from => cursor,
                _ => Cursor {
                    segment: number,
                    file: File::open(&segment.path).map_err(failed("open", &segment.path))?,
                    offset: HEADER_BYTES as u64,
                    seq: segment.first,
                },
            };
            let mut scan = Scan::new(&cursor.file, number, &self.identity);
            scan.offset = cursor.offset;
            scan.limit = limit;
            let mut seq = cursor.seq;
            let mut exhausted = false;
            while cost < bytes_max {
                match scan.next().map_err(failed("read", &segment.path))? {
                    Step::Record(QueueRecord::Message(message)) if message.seq < end => {
                        seq = message.seq.saturating_add(1);
                        if message.seq >= from {
                            from = seq;
                            cost += message.cost();
                            messages.push(message);
                        }
                    }
                    Step::Record(_) | Step::Damaged => {}
                    Step::End { .. } => {
                        exhausted = true;
                        break;
                    }
                }
            }
            let offset = scan.offset;
            if exhausted && from < end {
                // The rest of this segment cannot be read.
                from = end;
            }
            self.cursor = Some(Cursor {
                offset,
                seq,
                ..cursor
            });
        }
        Ok(messages)
    }

    /// The position and accounts.
    pub fn state(&self) -> &Snapshot {
        &self.state
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the oldest message came that is not done.
    pub fn oldest_ms(&mut self) -> Option<u64> {
        let kept = self.cursor.take();
        let oldest = self.read(self.state.finished, 1).ok();
        self.cursor = kept;
        oldest?.first().map(|message| message.time_ms)
    }
}

fn apply(state: &mut Snapshot, record: &QueueRecord) {
    match record {
        QueueRecord::Released(identifier) => {
            state.unreleased.remove(identifier);
        }
        QueueRecord::Received(seq) => {
            state.received.insert(*seq);
        }
        QueueRecord::Finished(seq) => {
            state.finished = state.finished.max(*seq);
            state.received.retain(|received| received >= seq);
        }
        QueueRecord::SenderForgot => state.unreleased.clear(),
        QueueRecord::ReceiverForgot => state.received.clear(),
        QueueRecord::Message(_) | QueueRecord::Snapshot(_) => {}
    }
}

#[cfg(test)]
mod tests;
