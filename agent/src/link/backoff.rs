//! When to try again: a pure machine over the outcomes of attempts, without clock and without randomness of its own.
//!
//! The wait doubles from [`WAIT_MIN`] to [`WAIT_MAX`] and is drawn from its upper half, so that a fleet that lost
//! its coordinator does not come back in step. A session that lived for [`HEALTHY_AFTER`] clears the count.

use std::time::Duration;

/// The first wait, at most.
pub const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest wait.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// A session that lived this long was a good one.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(20);

/// The state between attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// An attempt ended after `lived`. How long to wait; `random` is any number.
    pub fn ended(&mut self, lived: Duration, random: u64) -> Duration {
        if lived >= HEALTHY_AFTER {
            self.failures = 0;
        }
        let ceiling = ceiling(WAIT_MIN, WAIT_MAX, self.failures);
        self.failures = self.failures.saturating_add(1);
        let half = ceiling / 2;
        half + jitter(half, random)
    }

    /// The peer asks to be left alone for `wait`: at least that long.
    pub fn at_least(wait: Duration, asked: Option<Duration>) -> Duration {
        wait.max(asked.unwrap_or_default().min(WAIT_MAX.saturating_mul(10)))
    }
}

/// The longest wait after so many failures: doubled from `first` on, at most `longest`.
pub fn ceiling(first: Duration, longest: Duration, failures: u32) -> Duration {
    first.saturating_mul(1 << failures.min(16)).min(longest)
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
    }
}
