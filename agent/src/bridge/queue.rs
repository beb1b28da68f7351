//! A bridge's messages on disk, from the moment they are acknowledged to one broker until the other has them.
//!
//! A log ([`crate::log`]) of records ([`layout`](super::layout)). Synchronous; [`keeper`](super::keeper) runs it on blocking threads.
//!
//! Invariants:
//! - [`Queue::commit`] returns after its records are durable, or leaves the queue as it was;
//! - each segment begins with a snapshot, so that the oldest can go without loss of state;
//! - what cannot be read whole is never given out: it is skipped, and counted by the gap in the sequence;
//! - segments never exceed [`QueueLimits::bytes_max`] by more than [`RESERVE_BYTES`], which only state may use, and receipts no more than half of.

use std::collections::VecDeque;
use std::path::Path;

use super::layout::{self, Message, QueueId, QueueRecord, Snapshot};
use crate::durable::FileError;
use crate::log::frame::HEADER_BYTES;
use crate::log::{Disk, RealDisk, Scan, Segment, Segments, Step};

mod left;

pub use left::{Undelivered, undelivered};

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
pub const RESERVE_BYTES: u64 = 1024 * 1024;

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

/// Which sequences stand in a segment.
#[derive(Debug)]
struct Span {
    number: u64,
    /// The first that may.
    first: u64,
    /// The first that may not.
    end: u64,
}

#[derive(Debug)]
struct Cursor<F> {
    segment: u64,
    file: F,
    offset: u64,
    /// The sequence that is looked for next.
    seq: u64,
}

/// The queue. Dropping it loses nothing that `commit` returned for.
#[derive(Debug)]
pub struct Queue<D: Disk = RealDisk> {
    identity: QueueId,
    limits: QueueLimits,
    log: Segments<D>,
    /// Of the log's segments, in their order.
    spans: VecDeque<Span>,
    state: Snapshot,
    cursor: Option<Cursor<D::File>>,
}

/// What a queue's segments say together, while they are read at opening.
struct Recovering {
    state: Snapshot,
    spans: VecDeque<Span>,
    gaps: Vec<(u64, u64)>,
    damaged: bool,
}

impl Queue {
    /// Opens or creates the queue in `folder`, which belongs to it alone.
    ///
    /// # Errors
    /// The disk cannot be read or written; nothing that may be whole was removed.
    pub fn open(
        folder: &Path,
        identity: QueueId,
        limits: QueueLimits,
    ) -> Result<(Self, Recovery), QueueError> {
        Self::open_on(RealDisk, folder, identity, limits)
    }
}

impl<D: Disk> Queue<D> {
    /// The same on any disk.
    fn open_on(
        disk: D,
        folder: &Path,
        identity: QueueId,
        limits: QueueLimits,
    ) -> Result<(Self, Recovery), QueueError> {
        let (log, there) = Segments::open(disk, folder, identity)?;
        let mut held = Recovering {
            state: Snapshot {
                next: 1,
                finished: 1,
                ..Snapshot::default()
            },
            spans: VecDeque::new(),
            gaps: Vec::new(),
            damaged: there.headless > 0,
        };
        for segment in log.iter() {
            held.read(&log.reading(segment)?, segment, identity)?;
        }
        let (found, finished) = held.judge(there.foreign);
        let mut queue = Self {
            identity,
            limits,
            log,
            spans: held.spans,
            state: held.state,
            cursor: None,
        };
        queue.finish(finished);
        Ok((queue, found))
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
                wanted += message.cost();
            }
            state.apply(record);
        }
        if wanted > 0 {
            self.require_room(wanted)?;
        }
        self.require_segment()?;
        let bodies: Vec<_> = records.iter().map(layout::encode).collect();
        self.log.append(&bodies)?;
        self.state = state;
        if let Some(newest) = self.spans.back_mut() {
            newest.end = self.state.next;
        }
        Ok(())
    }

    /// Begins a new segment where none takes records or the newest is full.
    fn require_segment(&mut self) -> Result<(), QueueError> {
        if self
            .log
            .takes_records_below(SEGMENT_BYTES.min(self.limits.bytes_max / 8))
        {
            return Ok(());
        }
        let snapshot = layout::encode(&QueueRecord::Snapshot(self.state.clone()));
        let number = self.log.begin(&[snapshot])?;
        self.spans.push_back(Span {
            number,
            first: self.state.next,
            end: self.state.next,
        });
        // What the segment before it held may all be done.
        self.finish(self.state.finished);
        Ok(())
    }

    fn require_room(&self, wanted: u64) -> Result<(), QueueError> {
        let held = self.log.bytes();
        if held.saturating_add(wanted) > self.limits.bytes_max {
            return Err(QueueError::Full {
                bytes: held,
                bytes_max: self.limits.bytes_max,
            });
        }
        let free_bytes = self.log.free_bytes()?;
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
        while let Some(oldest) = self.spans.front()
            && self.spans.len() > 1
            && oldest.end <= self.state.finished
        {
            if let Err(error) = self.log.remove(oldest.number) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a delivered segment was not removed; it is tried again"
                );
                return;
            }
            self.spans.pop_front();
        }
    }

    /// Messages from `from` on, in order, of together about `bytes_max` (at least one); damaged ones are left out, which
    /// the sequence shows.
    pub(crate) fn read(&mut self, from: u64, bytes_max: u64) -> Result<Vec<Message>, QueueError> {
        let mut messages = Vec::new();
        let mut cost = 0;
        let mut from = from.max(self.state.finished);
        while from < self.state.next && cost < bytes_max {
            let mut both = self.spans.iter().zip(self.log.iter());
            let Some((span, segment)) = both.find(|(span, _)| from < span.end) else {
                break;
            };
            let (number, end) = (span.number, span.end);
            let cursor = match self.cursor.take() {
                Some(cursor) if cursor.segment == number && cursor.seq <= from => cursor,
                _ => Cursor {
                    segment: number,
                    file: self.log.reading(segment)?,
                    offset: HEADER_BYTES as u64,
                    seq: span.first,
                },
            };
            let mut scan = Scan::within(number, self.identity, cursor.offset, segment.bytes);
            let mut seq = cursor.seq;
            let mut exhausted = false;
            while cost < bytes_max {
                match scan.step(&cursor.file).map_err(|error| segment.unread(error))? {
                    Step::Record(body) => {
                        if let Some(QueueRecord::Message(message)) = layout::decode(&body)
                            && message.seq < end
                        {
                            seq = message.seq.saturating_add(1);
                            if message.seq >= from {
                                from = seq;
                                cost += message.cost();
                                messages.push(message);
                            }
                        }
                    }
                    Step::Damaged => {}
                    Step::End { .. } => {
                        exhausted = true;
                        break;
                    }
                }
            }
            let offset = scan.offset();
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

    /// Whether the room that only state may use is used up.
    pub fn is_spent(&self) -> bool {
        self.bytes() > self.limits.bytes_max.saturating_add(RESERVE_BYTES / 2)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// When the oldest message came that is not done.
    pub fn oldest_ms(&mut self) -> Option<u64> {
        let kept = self.cursor.take();
        let oldest = self.read(self.state.finished, 1).ok();
        self.cursor = kept;
        oldest?.first().map(|message| message.time_ms)
    }
}

impl Recovering {
    /// Reads one more segment.
    fn read<F: crate::log::DiskFile>(
        &mut self,
        file: &F,
        segment: &Segment,
        identity: QueueId,
    ) -> Result<(), FileError> {
        let mut expected = self.state.next;
        let mut first = None;
        let mut scan = Scan::new(segment.number, identity);
        loop {
            let record = match scan.step(file).map_err(|error| segment.unread(error))? {
                Step::Record(body) => layout::decode(&body),
                Step::Damaged => None,
                Step::End { rest } => {
                    self.damaged |= rest > 0;
                    break;
                }
            };
            match record {
                None => self.damaged = true,
                Some(QueueRecord::Snapshot(snapshot)) => {
                    if snapshot.next > expected {
                        self.gaps.push((expected, snapshot.next));
                    }
                    // What an older segment has from here on was never acknowledged.
                    for older in &mut self.spans {
                        older.end = older.end.min(snapshot.next);
                    }
                    expected = snapshot.next;
                    first = Some(snapshot.next);
                    self.state = snapshot;
                }
                Some(QueueRecord::Message(message)) => {
                    if message.seq > expected {
                        self.gaps.push((expected, message.seq));
                    }
                    first.get_or_insert(message.seq);
                    self.state.apply(&QueueRecord::Message(message));
                    expected = self.state.next;
                }
                Some(other) => self.state.apply(&other),
            }
        }
        self.spans.push_back(Span {
            number: segment.number,
            first: first.unwrap_or(expected),
            end: self.state.next,
        });
        Ok(())
    }

    /// What is to be said of it all, and below which sequence all is done.
    fn judge(&mut self, foreign: usize) -> (Recovery, u64) {
        let (finished, next) = (self.state.finished, self.state.next.max(self.state.finished));
        self.state.next = next;
        if self.damaged {
            // A wrong memory of identifiers could swallow a message; none can only repeat one.
            self.state.unreleased.clear();
            self.state.received.clear();
        }
        let missing = |(from, to): &(u64, u64)| (*to).min(next).saturating_sub((*from).max(finished));
        let found = Recovery {
            lost: self.gaps.iter().map(missing).sum(),
            damaged: self.damaged,
            foreign,
        };
        (found, finished)
    }
}

#[cfg(test)]
mod tests;
