//! Denials of the last minute, and how many more a release may bring, by what its shadow foretold. Pure, and bounded.

use std::collections::VecDeque;
use std::time::Duration;

/// What is counted is counted over so long.
const SPAN: Duration = Duration::from_secs(60);
/// Readings that are kept at most: one a second, and some more.
const READINGS_MAX: usize = 64;
/// How many more than foretold are allowed in a minute: this, ...
const MARGIN: u64 = 60;
/// ... and this part of what was foretold.
const MARGIN_PART: u64 = 2;

/// How many came within the last minute, by a counter that only grows.
#[derive(Debug, Default)]
pub(super) struct LastMinute {
    readings: VecDeque<(Duration, u64)>,
}

impl LastMinute {
    /// The counter stands at `count`.
    pub(super) fn see(&mut self, at: Duration, count: u64) {
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
    pub(super) fn count(&self) -> u64 {
        let ends = self.readings.front().zip(self.readings.back());
        ends.map_or(0, |((_, first), (_, last))| last.saturating_sub(*first))
    }

    /// Whether a whole minute was seen.
    fn is_whole(&self) -> bool {
        let ends = self.readings.front().zip(self.readings.back());
        ends.is_some_and(|((first, _), (last, _))| last.saturating_sub(*first) >= SPAN)
    }
}

/// What a shadow foretold.
#[derive(Debug, Default)]
pub(super) struct Foretold {
    /// Which shadow.
    since_ms: u64,
    would: LastMinute,
    /// The most in any minute; `None`: it was not there for one yet.
    most: Option<u64>,
}

impl Foretold {
    /// The shadow that is there since `since_ms` would have denied so many by now.
    pub(super) fn see(&mut self, at: Duration, since_ms: u64, would: u64) {
        if self.since_ms != since_ms {
            *self = Self {
                since_ms,
                ..Self::default()
            };
        }
        self.would.see(at, would);
        if self.would.is_whole() {
            self.most = self.most.max(Some(self.would.count()));
        }
    }

    /// How many more than before may be denied in a minute; `None`: any, since nothing was foretold.
    pub(super) fn bound(&self) -> Option<u64> {
        let most = self.most?;
        Some(most.saturating_add(most / MARGIN_PART).saturating_add(MARGIN))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_a_minute_of_shadow_nothing_is_bounded_and_then_its_worst_minute_and_a_margin_is() {
        let mut foretold = Foretold::default();
        assert_eq!(foretold.bound(), None);
        for second in 0..60 {
            foretold.see(SECOND * second, 1, u64::from(second) * 2);
            assert_eq!(foretold.bound(), None, "{second}");
        }
        foretold.see(SECOND * 60, 1, 120);
        assert_eq!(foretold.bound(), Some(120 + 60 + MARGIN));
        for second in 61..300 {
            foretold.see(SECOND * second, 1, 120);
        }
        assert_eq!(
            foretold.bound(),
            Some(120 + 60 + MARGIN),
            "a quiet minute is not its worst"
        );
        foretold.see(SECOND * 300, 2, 0);
        assert_eq!(foretold.bound(), None, "another shadow");
    }

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
