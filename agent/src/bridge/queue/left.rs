//! What a queue's folder still holds for a bridge that is gone: counted before it is removed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::super::layout::{self, QueueRecord};
use crate::log::{Disk as _, DiskFile, RealDisk, Scan, Step, numbered, read_header};

/// What nobody may deliver any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Undelivered {
    /// How many messages can be read, and when the first and the last of them came, milliseconds since 1970.
    pub known: Option<(u64, u64, u64)>,
    /// Something cannot be read: there may be more.
    pub damaged: bool,
}

/// What is read so far.
#[derive(Debug, Default)]
struct Reading {
    /// When each message came.
    came_ms: BTreeMap<u64, u64>,
    finished: u64,
    damaged: bool,
}

/// What a folder holds for a bridge that nobody may deliver any more. A segment that cannot be read hides nothing of the others.
pub fn undelivered(folder: &Path) -> Undelivered {
    let mut reading = Reading::default();
    let segments = numbered(&RealDisk, folder);
    reading.damaged = segments.is_err();
    for (number, path) in segments.unwrap_or_default() {
        let read = RealDisk
            .open(&path)
            .and_then(|file| reading.segment(number, &file));
        reading.damaged |= read.is_err();
    }
    let left = reading.came_ms.range(reading.finished..).map(|(_, ms)| *ms);
    let (first_ms, last_ms) = (left.clone().min(), left.clone().max());
    Undelivered {
        known: first_ms
            .zip(last_ms)
            .map(|(first_ms, last_ms)| (left.count() as u64, first_ms, last_ms)),
        damaged: reading.damaged,
    }
}

impl Reading {
    fn segment<F: DiskFile>(&mut self, number: u64, file: &F) -> io::Result<()> {
        let Some((identity, _)) = read_header(file)? else {
            // Made and not yet written, or damaged from its first byte on.
            self.damaged |= file.length()? > 0;
            return Ok(());
        };
        let mut scan = Scan::new(number, identity);
        loop {
            let record = match scan.step(file)? {
                Step::Record(body) => layout::decode(&body),
                Step::Damaged => None,
                Step::End { rest } => {
                    self.damaged |= rest > 0;
                    return Ok(());
                }
            };
            match record {
                None => self.damaged = true,
                Some(QueueRecord::Message(message)) => {
                    self.came_ms.insert(message.seq, message.time_ms);
                }
                Some(QueueRecord::Finished(seq)) => self.finished = self.finished.max(seq),
                Some(QueueRecord::Snapshot(snapshot)) => self.finished = self.finished.max(snapshot.finished),
                Some(_) => {}
            }
        }
    }
}
