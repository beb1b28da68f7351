//! What of a bridge's losses and refusals is not durable in the trail yet, in a file of its own: an agent that is killed
//! meanwhile reports them when it starts again. What ends between the trail's sync and this file's is reported twice, not never.
//!
//! A file and not a record of the queue: it takes no more room however often it is written, and a full queue can lose for days.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use penstock_policy::text::sentence;
use serde::{Deserialize, Serialize};

use crate::durable;

/// Beside the queue's segments.
const FILE: &str = "losses";
/// There are a handful of causes.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// What is read of them.
const CAUSES_MAX: usize = 64;

/// How many of one cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossSum {
    /// So many.
    pub count: u64,
    /// When the first came, milliseconds since 1970.
    pub first_ms: u64,
    /// When the last came.
    pub last_ms: u64,
}

/// By cause, as in a loss record.
pub type LossSums = BTreeMap<String, LossSum>;

impl LossSum {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        if self.count == 0 || other.count == 0 {
            return if self.count == 0 { other } else { self };
        }
        Self {
            count: self.count.saturating_add(other.count),
            first_ms: self.first_ms.min(other.first_ms),
            last_ms: self.last_ms.max(other.last_ms),
        }
    }
}

/// Of the queue in `folder`.
pub fn read(folder: &Path) -> LossSums {
    let read = durable::read(&folder.join(FILE), FILE_BYTES_MAX);
    let sums = match read {
        Ok(bytes) => serde_json::from_slice::<LossSums>(&bytes.unwrap_or_default()).unwrap_or_default(),
        Err(error) => {
            tracing::warn!(error = %sentence(&error), "what a bridge had not reported of its losses cannot be read");
            LossSums::new()
        }
    };
    sums.into_iter().take(CAUSES_MAX).collect()
}

/// Where they are kept.
#[derive(Debug)]
pub struct LossFile {
    path: PathBuf,
    written: LossSums,
}

impl LossFile {
    /// Of the queue in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self {
            path: folder.join(FILE),
            written: read(folder),
        }
    }

    /// These are durable when this returns; where the disk takes nothing they are only in memory, and tried again.
    pub fn write(&mut self, sums: LossSums) {
        if self.written == sums {
            return;
        }
        let text = serde_json::to_vec(&sums).unwrap_or_default();
        match durable::replace(&self.path, &text, 0o600) {
            Ok(()) => self.written = sums,
            Err(error) => {
                tracing::warn!(error = %sentence(&error), "a bridge's losses were not recorded on disk")
            }
        }
    }
}
