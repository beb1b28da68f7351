//! What the writer of a copy and those who ask it know of each other.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::store::StoreError;
use crate::store::sqlite::lock;

/// What the writer of a copy and those who ask it know of each other.
#[derive(Debug, Default)]
pub(in crate::store::sqlite) struct Standing {
    /// The record without whose revision nothing is written.
    fence: Mutex<Option<(String, u64)>>,
    /// Since when the copy takes nothing, whatever the log says.
    failing: Mutex<Option<Instant>>,
    /// Why it takes nothing any more until it is opened again.
    lost: Mutex<Option<StoreError>>,
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

    /// Why the copy takes nothing any more until it is opened again.
    pub(in crate::store::sqlite) fn lost(&self) -> Option<StoreError> {
        lock(&self.lost).as_ref().map(StoreError::again)
    }

    pub(super) fn lose(&self, lost: &StoreError) {
        *lock(&self.lost) = Some(lost.again());
        self.takes(false);
    }

    pub(super) fn takes(&self, does: bool) {
        let mut failing = lock(&self.failing);
        *failing = match does {
            true => None,
            false => Some(failing.unwrap_or_else(Instant::now)),
        };
    }
}
