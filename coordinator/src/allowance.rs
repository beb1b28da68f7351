//! How much each peer may cost over time: a share that it can use at once, and that comes back by the day.
//!
//! What is durable and asked for by somebody who is known (blocks of a trail, documents, entries in the coordinator's own
//! trail) is bounded by who they are, so that nobody fills the disk for others. In memory only: a restart gives each its
//! whole share back. The names are those of verified certificates, which only this plant's authority issues; of more than
//! [`NAMES_MAX`] that are short of their share at once, the others count as one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Names kept apart at once.
const NAMES_MAX: usize = 200_000;

const DAY_MS: u64 = 86_400_000;

/// What one peer may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// At once.
    pub at_once: u64,
    /// What comes back within a day.
    pub per_day: u64,
}

/// The shares of all peers in one thing.
///
/// ```
/// use penstock_coordinator::allowance::{Allowance, Share};
///
/// let hour_ms = 3_600_000;
/// let allowance = Allowance::new(Share { at_once: 2, per_day: 24 });
/// assert!(allowance.take("gw-1", 2, 0).is_ok());
/// assert!(allowance.take("gw-1", 1, 0).is_err());
/// assert!(allowance.take("gw-2", 1, 0).is_ok(), "each has its own share");
/// assert!(allowance.take("gw-1", 1, hour_ms).is_ok(), "one an hour comes back");
/// ```
#[derive(Debug)]
pub struct Allowance {
    share: Share,
    used: Mutex<HashMap<String, Usage>>,
}

/// What of a share was used and has not come back at `at_ms`.
#[derive(Debug, Clone, Copy)]
struct Usage {
    amount: u64,
    at_ms: u64,
}

impl Usage {
    fn at(self, now_ms: u64, share: Share) -> u64 {
        let back =
            u128::from(now_ms.saturating_sub(self.at_ms)) * u128::from(share.per_day) / u128::from(DAY_MS);
        self.amount
            .saturating_sub(u64::try_from(back).unwrap_or(u64::MAX))
    }
}

impl Allowance {
    /// Each has this share.
    pub fn new(share: Share) -> Self {
        Self {
            share,
            used: Mutex::default(),
        }
    }

    /// The share of each.
    pub fn share(&self) -> Share {
        self.share
    }

    /// Takes `amount` from the share of `who`.
    ///
    /// # Errors
    /// Nothing was taken, and after so long there is enough. What is more than a whole share is taken from a whole one.
    pub fn take(&self, who: &str, amount: u64, now_ms: u64) -> Result<(), Duration> {
        let share = self.share;
        let amount = amount.min(share.at_once);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= NAMES_MAX && !used.contains_key(who) {
            used.retain(|_, used| used.at(now_ms, share) > 0);
        }
        let who = if used.len() < NAMES_MAX || used.contains_key(who) {
            who
        } else {
            ""
        };
        let now = used.get_mut(who).map_or(0, |used| {
            // A clock that was set back: from here on the share comes back by the new time.
            used.at_ms = used.at_ms.min(now_ms);
            used.at(now_ms, share)
        });
        let after = now.saturating_add(amount);
        if after > share.at_once {
            let lacking =
                u128::from(after - share.at_once) * u128::from(DAY_MS) / u128::from(share.per_day.max(1));
            return Err(Duration::from_millis(
                u64::try_from(lacking).unwrap_or(u64::MAX).saturating_add(1),
            ));
        }
        let entry = Usage {
            amount: after,
            at_ms: now_ms,
        };
        used.insert(who.to_owned(), entry);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const SHARE: Share = Share {
        at_once: 100,
        per_day: 1000,
    };

    proptest! {
        #[test]
        fn nobody_gets_more_than_their_share_and_what_others_use_takes_nothing_from_it(
            steps in prop::collection::vec((0_u64..DAY_MS / 10, 0_u64..150), 1..60),
        ) {
            let allowance = Allowance::new(SHARE);
            let (mut now_ms, mut taken) = (5, 0_u64);
            let begun_ms = now_ms;
            for (wait_ms, amount) in steps {
                now_ms += wait_ms;
                match allowance.take("greedy", amount, now_ms) {
                    Ok(()) => taken += amount.min(SHARE.at_once),
                    Err(after) => {
                        let then_ms = now_ms + u64::try_from(after.as_millis()).unwrap();
                        prop_assert!(allowance.take("greedy", amount, then_ms).is_ok(), "it was told when");
                        (now_ms, taken) = (then_ms, taken + amount.min(SHARE.at_once));
                    }
                }
                let back = (now_ms - begun_ms) * SHARE.per_day / DAY_MS;
                prop_assert!(taken <= SHARE.at_once + back + 60, "{taken} in {} ms", now_ms - begun_ms);
            }
            prop_assert!(allowance.take("modest", SHARE.at_once, now_ms).is_ok());
        }

        #[test]
        fn a_clock_that_was_set_back_locks_nobody_out_for_longer_than_a_share_takes_to_come_back(
            late_ms in 2 * DAY_MS..u64::MAX / 2,
            back_ms in 0..DAY_MS,
        ) {
            let allowance = Allowance::new(SHARE);
            prop_assert!(allowance.take("gw", SHARE.at_once, late_ms).is_ok());
            let after = allowance.take("gw", SHARE.at_once, back_ms).unwrap_err();
            prop_assert!(after <= Duration::from_millis(DAY_MS * SHARE.at_once / SHARE.per_day + 1));
            let then_ms = back_ms + u64::try_from(after.as_millis()).unwrap();
            prop_assert!(allowance.take("gw", SHARE.at_once, then_ms).is_ok());
        }
    }
}
