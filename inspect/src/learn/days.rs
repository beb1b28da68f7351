//! On which days something was seen, by UTC.

use std::collections::BTreeSet;
use std::time::Duration;

/// Days that are remembered.
const DAYS_MAX: usize = 1024;
const DAY_SECONDS: u64 = 86_400;

/// Days since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Days {
    days: BTreeSet<u64>,
    /// The one that was added last: mostly it is the next one's, too.
    last: Option<u64>,
}

impl Days {
    /// Adds that of a time since 1970.
    pub fn add(&mut self, at: Duration) {
        let day = at.as_secs() / DAY_SECONDS;
        if self.last != Some(day) {
            self.last = Some(day);
            self.insert(day);
        }
    }

    /// Adds those of others.
    pub fn join(&mut self, more: &Self) {
        more.days.iter().for_each(|day| self.insert(*day));
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.days.len()
    }

    fn insert(&mut self, day: u64) {
        if self.days.len() < DAYS_MAX {
            self.days.insert(day);
        }
    }
}
