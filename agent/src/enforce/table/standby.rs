//! A gateway through which nothing flows, as a standby does: its rules stay as new.
//!
//! A gateway that takes another's place knows none of the connections that come to it. TCP proves its direction at every
//! packet; of UDP a server may be heard first, which only new tables let through ([`STARTING_S`]). A standby's tables are
//! as old as the active one's; so for as long as nothing passes, that time is begun again and again, and what comes at
//! a failover meets rules that know that they know nothing. Traffic that comes ends it after [`STARTING_S`].

use std::time::Duration;

use super::{Table, blocking};
use crate::enforce::EnforceError;
use crate::enforce::counters::Counters;
use crate::enforce::nft::batch::ElementBatch;
use crate::enforce::nft::names::STARTING_S;

/// How often a gateway without traffic begins that time again (default): often enough that one missed look leaves it open.
pub(in crate::enforce) const LULL: Duration = Duration::from_secs(STARTING_S as u64 / 3);

/// Whether anything passes a gateway.
#[derive(Debug)]
pub(in crate::enforce) struct Lull {
    /// Nothing has to pass for so long.
    every: Duration,
    passed: Option<u64>,
    /// For how long nothing has passed since the time was begun again.
    still: Duration,
}

impl Lull {
    /// Nothing was looked at yet.
    pub(in crate::enforce) fn new(every: Duration) -> Self {
        Self {
            every,
            passed: None,
            still: Duration::ZERO,
        }
    }

    /// What was counted `after` the last look; `true` if the rules should count as new again.
    pub(in crate::enforce) fn look(&mut self, counters: &Counters, after: Duration) -> bool {
        let passed = counters
            .allowed_packets
            .saturating_add(counters.intercepted_packets)
            .saturating_add(counters.unattended_packets)
            .saturating_add(counters.would_deny_packets);
        let is_still = self.passed.replace(passed) == Some(passed);
        self.still = if is_still {
            self.still.saturating_add(after)
        } else {
            Duration::ZERO
        };
        let is_due = self.still >= self.every;
        if is_due {
            self.still = Duration::ZERO;
        }
        is_due
    }
}

impl Table {
    /// Lets servers speak first for [`STARTING_S`] from now on, as after the tables were made.
    ///
    /// # Errors
    /// The kernel rejected the change, or could not be read. The rules are as before.
    pub(in crate::enforce) async fn start_again(&self) -> Result<(), EnforceError> {
        let mut state = self.state.lock().await;
        if state.loaded.is_none() || state.differs {
            return Ok(());
        }
        let before = state.seen;
        blocking(|reader| reader.change(&ElementBatch::start_again())).await?;
        self.after_own(&mut state, before).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_count_as_new_again_only_where_nothing_passed_for_a_while() {
        let mut lull = Lull::new(LULL);
        let tick = Duration::from_secs(10);
        let mut looks = |packets: &[u64]| -> Vec<bool> {
            packets
                .iter()
                .map(|&allowed_packets| {
                    let counters = Counters {
                        allowed_packets,
                        ..Counters::default()
                    };
                    lull.look(&counters, tick)
                })
                .collect()
        };
        assert_eq!(looks(&[7, 7, 7, 7, 7]), [false, false, true, false, true]);
        assert_eq!(
            looks(&[8, 9, 9, 10, 10, 10]),
            [false, false, false, false, false, true]
        );
    }
}
