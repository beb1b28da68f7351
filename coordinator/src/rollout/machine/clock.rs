//! A rollout's own time, which a jump of the machine's clock hardly moves.

use serde::{Deserialize, Serialize};

/// The machine is stepped at least so often while it waits for time to pass, milliseconds.
pub(super) const LOOK_MS: u64 = 60_000;
/// How late a step may be until its time is not believed, milliseconds.
const LATE_MS: u64 = 5_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Clock {
    pub(super) wall_ms: u64,
    pub(super) own_ms: u64,
}

impl Clock {
    pub(super) fn advance(&mut self, wall_ms: u64) {
        let passed = wall_ms.saturating_sub(self.wall_ms);
        self.own_ms += passed.min(LOOK_MS + LATE_MS);
        self.wall_ms = wall_ms;
    }
}
