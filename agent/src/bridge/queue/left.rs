//! What a queue's folder still holds for a bridge that is gone: counted before it is removed.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::layout::{self, QueueRecord};
use crate::log::{Disk as _, RealDisk, Scan, Step, numbered, read_header};

/// How many messages a folder holds for a bridge that nobody may deliver any more, and when they came.
pub fn undelivered(folder: &Path) -> Option<(u64, u64, u64)> {
    let mut seen = BTreeSet::new();
    let (mut first_ms, mut last_ms) = (u64::MAX, 0);
    let mut finished = 0;
    for (number, path) in numbered(&RealDisk, folder).ok()? {
        let file = RealDisk.open(&path).ok()?;
        let (identity, _) = read_header(&file).ok()??;
        let mut scan = Scan::new(&file, number, identity);
        loop {
            let body = match scan.step().ok()? {
                Step::Record(body) => body,
                Step::Damaged => continue,
                Step::End { .. } => break,
            };
            match layout::decode(&body) {
                Some(QueueRecord::Message(message)) => {
                    seen.insert(message.seq);
                    first_ms = first_ms.min(message.time_ms);
                    last_ms = last_ms.max(message.time_ms);
                }
                Some(QueueRecord::Finished(seq)) => finished = finished.max(seq),
                Some(QueueRecord::Snapshot(snapshot)) => finished = finished.max(snapshot.finished),
                _ => {}
            }
        }
    }
    let count = seen.range(finished..).count() as u64;
    (count > 0).then_some((count, first_ms, last_ms))
}
