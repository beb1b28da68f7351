//! A trail that was sealed and goes on without seals: how long, until that is reported.

/// Blocks without a seal, until that is reported: as a source seals, there are no more than about half of these.
pub const UNSEALED_MAX: u64 = 2_048;
/// The same in time, by the source's clock: it seals within 10 seconds.
pub const UNSEALED_MS_MAX: u64 = 600_000;
/// No more than this counts of the time between two blocks: a clock that was set shows no time that passed.
const BETWEEN_MS_MAX: u64 = 60_000;

/// What stands behind the newest seal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnsealedRun {
    blocks: u64,
    last_ms: Option<u64>,
    ms: u64,
    is_reported: bool,
}

impl UnsealedRun {
    /// Takes the next block, which has no seal that counts, and whose newest event is of this time; answers once it is too long, with the number of its
    /// blocks.
    pub fn take(&mut self, last_ms: u64) -> Option<u64> {
        self.blocks = self.blocks.saturating_add(1);
        let passed = self.last_ms.map_or(0, |before| last_ms.saturating_sub(before));
        self.ms = self.ms.saturating_add(passed.min(BETWEEN_MS_MAX));
        self.last_ms = Some(last_ms.max(self.last_ms.unwrap_or(0)));
        let is_long = self.blocks > UNSEALED_MAX || self.ms > UNSEALED_MS_MAX;
        (is_long && !std::mem::replace(&mut self.is_reported, is_long)).then_some(self.blocks)
    }

    /// What was answered last was not reported: the next block answers again.
    pub fn not_reported(&mut self) {
        self.is_reported = false;
    }

    /// A seal that counts.
    pub fn sealed(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_long_is_said_once_by_blocks_or_by_time_and_a_clock_that_is_set_shows_none() {
        let mut run = UnsealedRun::default();
        let said: Vec<u64> = (0..3 * UNSEALED_MAX).filter_map(|_| run.take(5)).collect();
        assert_eq!(said, [UNSEALED_MAX + 1]);
        run.not_reported();
        assert_eq!(run.take(5), Some(3 * UNSEALED_MAX + 1));
        run.sealed();
        assert_eq!(run.take(0), None);
        assert_eq!(run.take(1_790_000_000_000), None, "the clock was set");
        assert_eq!(run.take(3), None, "and back");
        assert_eq!(run.take(1_790_000_000_000), None);
        run.sealed();
        let each_half_minute = (0..30_u64).filter_map(|n| run.take(n * 30_000));
        assert_eq!(each_half_minute.collect::<Vec<_>>(), [22]);
    }
}
