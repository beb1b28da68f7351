//! How much of something came within the last minute, by a counter that only grows. Pure, and bounded.

use std::collections::VecDeque;
use std::time::Duration;

/// What is counted is counted over so long.
const SPAN: Duration = Duration::from_secs(60);
/// Readings that are kept at most: one a second, and some more.
const READINGS_MAX: usize = 64;

/// How many came within the last minute, by a counter that only grows.
#[derive(Debug, Default)]
pub(crate) struct LastMinute {
    readings: VecDeque<(Duration, u64)>,
}

impl LastMinute {
    /// The counter stands at `count`.
    pub(crate) fn see(&mut self, at: Duration, count: u64) {
        self.readings.push_back((at, count));
        // The oldest is the newest of those that are a whole minute old.
        while self.readings.len() > READINGS_MAX
            || self
                .readings
                .get(1)
                .is_some_and(|(second, _)| at.saturating_sub(*second) >= SPAN)
        {
            self.readings.pop_front();
        }
    }

    /// How many came in it, or since the first reading.
    pub(crate) fn count(&self) -> u64 {
        let ends = self.readings.front().zip(self.readings.back());
        ends.map_or(0, |((_, first), (_, last))| last.saturating_sub(*first))
    }

    /// Whether a whole minute was seen.
    pub(crate) fn is_whole(&self) -> bool {
        let ends = self.readings.front().zip(self.readings.back());
        ends.is_some_and(|((first, _), (last, _))| last.saturating_sub(*first) >= SPAN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    proptest! {
        #[test]
        fn the_last_minute_is_what_came_in_it(counts in prop::collection::vec(0_u64..100, 1..300)) {
            let mut minute = LastMinute::default();
            let mut total = 0;
            for (second, count) in (0..).zip(&counts) {
                total += count;
                minute.see(SECOND * second, total);
                let first = usize::try_from(second).unwrap_or_default().saturating_sub(60) + 1;
                let last = usize::try_from(second).unwrap_or_default();
                let expected: u64 = counts.get(first..=last).unwrap_or_default().iter().sum();
                prop_assert_eq!(minute.count(), expected);
                prop_assert!(minute.readings.len() <= READINGS_MAX);
            }
        }
    }
}
