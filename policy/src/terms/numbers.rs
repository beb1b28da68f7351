//! Ranges of numbers inside protocols.

use serde::{Deserialize, Serialize};

/// A range of numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberRange {
    /// First.
    pub first: u32,
    /// Last, not below `first`.
    pub last: u32,
}

impl NumberRange {
    /// The same numbers in as few ranges as possible, in order: equal sets are equal lists.
    pub fn merged(mut ranges: Vec<Self>) -> Vec<Self> {
        ranges.sort();
        let mut merged: Vec<Self> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        merged
    }

    /// The least range that holds both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }
}
