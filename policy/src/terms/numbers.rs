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
