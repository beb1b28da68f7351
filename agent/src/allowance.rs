//! How many offers, orders, lists or heads may be looked at.

use std::time::{Duration, Instant};

/// So many at once, and one more after each span: each may cost a write to the disk and a line in the trail, and whoever sends them may
/// lie.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: u32,
    most: u32,
    each: Duration,
    /// When there is one more.
    pub(super) next: Instant,
}

impl Allowance {
    pub(crate) fn full((most, each): (u32, Duration), now: Instant) -> Self {
        Self {
            left: most,
            most,
            each,
            next: now,
        }
    }

    /// Whether one more may be obeyed now; then it is taken.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        while self.next <= now && self.left < self.most {
            self.left += 1;
            self.next += self.each;
        }
        if self.left == self.most {
            self.next = now + self.each;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}
