//! When to try again: a pure machine over the outcomes of attempts, without clock and without randomness of its own.
//!
//! The wait doubles from the first to the longest and is drawn from its upper half, so that those who lost the same peer or the
//! same disk do not come back in step. Agents and coordinators wait by nothing else.

use std::time::Duration;

/// The first wait for a connection, at most.
pub const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest wait for a connection.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// A connection that lived this long was a good one.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(20);

/// The state between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Default for Backoff {
    /// Between attempts to connect.
    fn default() -> Self {
        Self::between(WAIT_MIN, WAIT_MAX)
    }
}

impl Backoff {
    /// The first wait is at most `first`, and none is longer than `longest`.
    pub const fn between(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// An attempt failed. How long to wait; `random` is any number.
    #[must_use]
    pub fn failed(&mut self, random: u64) -> Duration {
        // Doubled as often as it failed; 2^16 seconds are more than anybody waits.
        let doubled = self.first.saturating_mul(1 << self.failures.min(16));
        let half = doubled.min(self.longest) / 2;
        self.failures = self.failures.saturating_add(1);
        half + jitter(half, random)
    }

    /// An attempt did what it should: the next failure is the first.
    pub fn worked(&mut self) {
        self.failures = 0;
    }

    /// A connection, or an attempt at one, ended after `lived`. How long to wait; `random` is any number.
    #[must_use]
    pub fn ended(&mut self, lived: Duration, random: u64) -> Duration {
        if lived >= HEALTHY_AFTER {
            self.worked();
        }
        self.failed(random)
    }

    /// Failures since the last attempt that worked.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The peer asks to be left alone for `asked`: at least that long, within reason.
    pub fn at_least(wait: Duration, asked: Option<Duration>) -> Duration {
        wait.max(asked.unwrap_or_default().min(WAIT_MAX.saturating_mul(10)))
    }
}

/// Between nothing and `span`, by a random number.
pub fn jitter(span: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random % nanos.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_wait_is_bounded_and_no_attempt_follows_at_once(
            outcomes in proptest::collection::vec((0u64..60, any::<u64>()), 1..60),
        ) {
            let mut backoff = Backoff::default();
            for (lived, random) in outcomes {
                let wait = backoff.ended(Duration::from_secs(lived), random);
                prop_assert!(wait >= WAIT_MIN / 2 && wait <= WAIT_MAX, "{wait:?}");
            }
        }

        #[test]
        fn failures_in_a_row_never_shorten_the_ceiling(random in any::<u64>()) {
            let mut backoff = Backoff::default();
            let mut floor = Duration::ZERO;
            for _ in 0..20 {
                // The lower half of a later wait begins no earlier than the lower half of the one before.
                let wait = backoff.ended(Duration::ZERO, 0);
                prop_assert!(wait >= floor);
                floor = wait;
            }
            prop_assert_eq!(floor, WAIT_MAX / 2);
            prop_assert!(backoff.ended(HEALTHY_AFTER, random) <= WAIT_MIN);
        }

        #[test]
        fn between_any_two_bounds_the_wait_doubles_and_begins_again_after_what_worked(
            first in 1u64..100_000, times in 1u32..1000, randoms in proptest::collection::vec(any::<u64>(), 1..60),
        ) {
            let first = Duration::from_millis(first);
            let longest = first * times;
            let mut backoff = Backoff::between(first, longest);
            let mut ceiling = first;
            for random in randoms {
                let wait = backoff.failed(random);
                prop_assert!(wait >= ceiling / 2 && wait <= ceiling, "{wait:?} of {ceiling:?}");
                ceiling = (ceiling * 2).min(longest);
            }
            prop_assert!(backoff.failures() > 0);
            backoff.worked();
            prop_assert_eq!(backoff.failures(), 0);
            prop_assert!(backoff.failed(u64::MAX) <= first);
        }
    }
}
