//! What the writer of a copy and those who ask it know of each other.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::store::sqlite::lock;

/// What the writer of a copy and those who ask it know of each other.
#[derive(Debug, Default)]
pub(in crate::store::sqlite) struct Standing {
    /// The record without whose revision nothing is written.
    fence: Mutex<Option<(String, u64)>>,
    /// Since when the copy takes nothing, whatever the log says.
    failing: Mutex<Option<Instant>>,
}

impl Standing {
    pub(in crate::store::sqlite) fn fence(&self, key: &str, revision: u64) {
        *lock(&self.fence) = Some((key.to_owned(), revision));
    }

    pub(super) fn fenced(&self) -> Option<(String, u64)> {
        lock(&self.fence).clone()
    }

    /// For how long the copy has taken nothing.
    pub(in crate::store::sqlite) fn failing_for(&self) -> Option<Duration> {
        lock(&self.failing).map(|since| since.elapsed())
    }

    pub(super) fn takes(&self, does: bool) {
        let mut failing = lock(&self.failing);
        *failing = match does {
            true => None,
            false => Some(failing.unwrap_or_else(Instant::now)),
        };
    }
}
