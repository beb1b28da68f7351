//! How much of a disk a coordinator takes, and what becomes of approved releases.

use serde::Deserialize;

use crate::rollout::run::AfterApproval;

/// Section `storage`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageFile {
    /// Free space that only what must go on may use, bytes.
    pub reserve_bytes: u64,
    /// How much one gateway's trail may grow in a day, bytes; eight days' worth at once.
    pub trail_bytes_per_day: u64,
    /// How long trails are kept, days; 0: for ever.
    pub trail_days: u32,
}

impl Default for StorageFile {
    fn default() -> Self {
        Self {
            reserve_bytes: 1 << 30,
            trail_bytes_per_day: 256 << 20,
            trail_days: 0,
        }
    }
}

/// Section `rollouts`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutsFile {
    /// What becomes of a release when it is approved: `wait`, `default-plan` or `at-once`.
    pub after_approval: AfterApproval,
}
