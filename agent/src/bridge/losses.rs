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
/// More causes than this are not read.
const CAUSES_MAX: usize = 64;

/// Reported where [`read`] fails.
pub const LOSSES_UNKNOWN: &str =
    "how many messages an agent before lost or refused, and had not reported, is not known";

/// How many messages were lost or refused for one cause, and when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossSum {
    /// How many.
    pub count: u64,
    /// When the first came, milliseconds since 1970.
    pub first_ms: u64,
    /// When the last came.
    pub last_ms: u64,
}

/// By cause, as in a loss record.
pub type LossSums = BTreeMap<String, LossSum>;

impl LossSum {
    /// The sum of both.
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

/// What stands in the folder of a queue.
///
/// # Errors
/// It cannot be read, or is damaged: how much it was is not known.
pub fn read(folder: &Path) -> Result<LossSums, String> {
    let Some(bytes) = durable::read(&folder.join(FILE), FILE_BYTES_MAX).map_err(|error| sentence(&error))?
    else {
        return Ok(LossSums::new());
    };
    let sums: LossSums = serde_json::from_slice(&bytes).map_err(|_| format!("`{FILE}` is damaged"))?;
    Ok(sums.into_iter().take(CAUSES_MAX).collect())
}

/// Where they are kept.
#[derive(Debug)]
pub struct LossFile {
    path: PathBuf,
    /// What the file says, once it was written.
    written: Option<LossSums>,
    /// The disk did not take it the last time, which is logged once.
    failing: bool,
}

impl LossFile {
    /// That in the folder of a queue.
    pub fn new(folder: &Path) -> Self {
        Self {
            path: folder.join(FILE),
            written: None,
            failing: false,
        }
    }

    /// These are durable when this returns; if the disk takes nothing they are only in memory, and the next call tries again.
    pub fn write(&mut self, sums: LossSums) {
        if self.written.as_ref() == Some(&sums) {
            return;
        }
        let text = serde_json::to_vec(&sums).unwrap_or_default();
        match durable::replace(&self.path, &text, 0o600) {
            Ok(()) => {
                self.written = Some(sums);
                self.failing = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(error = %sentence(&error), "a bridge's losses were not recorded on disk");
                }
            }
        }
    }
}
