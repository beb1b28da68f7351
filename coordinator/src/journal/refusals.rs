//! How many refusals are written down: what somebody is refused costs a durable write, so that whoever asks often enough
//! could fill the disk with it. Bounded for each source (an address, an operator, a gateway) and for all together; what is
//! left out is counted, and the next one that is written says how many.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Within this time,
const WINDOW_MS: u64 = 60_000;
/// so many refusals of one source are written,
pub(super) const PER_SOURCE: u32 = 30;
/// and so many of all sources.
pub(super) const IN_ALL: u32 = 200;
/// Sources kept apart at once; beyond that the limit of all holds.
const SOURCES_MAX: usize = 4096;

/// Refusals in the window that began at `since_ms`.
#[derive(Debug, Default, Clone, Copy)]
struct Bucket {
    since_ms: u64,
    written: u32,
    omitted: u64,
}

#[derive(Debug, Default)]
struct RefusalCounts {
    all: Bucket,
    by_source: HashMap<String, Bucket>,
}

/// Refusals so far.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<RefusalCounts>);

impl Bucket {
    /// Also of a clock that was set back: a window never lasts longer than it says.
    fn is_over(&self, now_ms: u64) -> bool {
        now_ms.abs_diff(self.since_ms) >= WINDOW_MS
    }

    fn turn(&mut self, now_ms: u64) {
        if self.is_over(now_ms) {
            (self.since_ms, self.written) = (now_ms, 0);
        }
    }
}

impl Refusals {
    /// Whether a refusal of `source` is to be written, and then how many were left out before it.
    pub(super) fn write(&self, source: &str, now_ms: u64) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let RefusalCounts { all, by_source } = &mut *state;
        all.turn(now_ms);
        if by_source.len() >= SOURCES_MAX && !by_source.contains_key(source) {
            // Those with nothing left to report make room.
            by_source.retain(|_, bucket| !bucket.is_over(now_ms) || bucket.omitted > 0);
        }
        let own = if by_source.len() < SOURCES_MAX || by_source.contains_key(source) {
            let own = by_source.entry(source.to_owned()).or_default();
            own.turn(now_ms);
            Some(own)
        } else {
            None
        };
        let full = all.written >= IN_ALL || own.as_ref().is_some_and(|own| own.written >= PER_SOURCE);
        let omitted = match own {
            Some(own) if full => {
                own.omitted += 1;
                return None;
            }
            Some(own) => {
                own.written += 1;
                std::mem::take(&mut own.omitted)
            }
            None if full => {
                all.omitted += 1;
                return None;
            }
            None => std::mem::take(&mut all.omitted),
        };
        all.written += 1;
        Some(omitted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_that_is_refused_all_the_time_costs_a_bounded_number_of_writes_and_hides_nobody_else() {
        let refusals = Refusals::default();
        let written = (0..100_000)
            .filter(|_| refusals.write("10.0.0.1", 5).is_some())
            .count();
        assert_eq!(written, PER_SOURCE as usize);
        assert_eq!(refusals.write("bob", 6), Some(0));
        // Nothing is lost silently: the next one says how many.
        assert_eq!(
            refusals.write("10.0.0.1", 5 + WINDOW_MS),
            Some(100_000 - u64::from(PER_SOURCE))
        );
        assert_eq!(refusals.write("10.0.0.1", 6 + WINDOW_MS), Some(0));
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nobody_for_longer_than_a_window() {
        let (refusals, late_ms, early_ms) = (Refusals::default(), 1 << 40, 1_000_000_000);
        for _ in 0..=PER_SOURCE {
            refusals.write("10.0.0.1", late_ms);
        }
        assert_eq!(refusals.write("10.0.0.1", early_ms), Some(1));
        assert_eq!(refusals.write("bob", early_ms), Some(0));
    }

    #[test]
    fn many_sources_cost_no_more_together_and_no_more_memory() {
        let refusals = Refusals::default();
        let written = (0..100_000)
            .filter(|n| refusals.write(&n.to_string(), 5).is_some())
            .count();
        assert_eq!(written, IN_ALL as usize);
        let state = refusals.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(state.by_source.len() <= SOURCES_MAX);
        assert_eq!(
            state.all.omitted + state.by_source.values().map(|own| own.omitted).sum::<u64>(),
            100_000 - u64::from(IN_ALL)
        );
    }
}
