//! The limit of wrong enrolment attempts, per address and in all. In memory only, and bounded.
//!
//! A wrong attempt costs a token from a bucket that refills with time. An IPv6 address counts as its /64, since
//! whoever has one address there has all. The limit of all together stops those who were wrong before; it never keeps out
//! somebody who has made no mistake yet, or strangers could lock a plant's own people out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::crowd::source_of;

/// How many wrong attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptsLimits {
    /// From one address within [`AttemptsLimits::window_ms`].
    pub per_address: u32,
    /// From all addresses together within that time.
    pub in_all: u32,
    /// The time in which a bucket refills, milliseconds.
    pub window_ms: u64,
}

impl Default for AttemptsLimits {
    fn default() -> Self {
        Self {
            per_address: 10,
            in_all: 200,
            window_ms: 60_000,
        }
    }
}

/// Addresses remembered at once.
const ADDRESSES_MAX: usize = 4096;

/// Wrong attempts so far.
#[derive(Debug)]
pub struct Attempts {
    limits: AttemptsLimits,
    state: Mutex<AttemptCounts>,
}

#[derive(Debug, Default)]
struct AttemptCounts {
    all: Bucket,
    by_address: HashMap<IpAddr, Bucket>,
}

/// Wrong attempts in the window that began at `since_ms`.
#[derive(Debug, Default, Clone, Copy)]
struct Bucket {
    since_ms: u64,
    failed: u32,
}

impl Bucket {
    fn count(&self, now_ms: u64, window_ms: u64) -> u32 {
        // In either direction: a clock that was set back locks nobody out for longer.
        if now_ms.abs_diff(self.since_ms) >= window_ms {
            0
        } else {
            self.failed
        }
    }

    fn add(&mut self, now_ms: u64, window_ms: u64) {
        let failed = self.count(now_ms, window_ms);
        if failed == 0 {
            self.since_ms = now_ms;
        }
        self.failed = failed.saturating_add(1);
    }
}

impl Attempts {
    /// None so far.
    pub fn new(limits: AttemptsLimits) -> Self {
        Self {
            limits,
            state: Mutex::new(AttemptCounts::default()),
        }
    }

    /// Whether somebody at `address` may try now.
    pub(crate) fn admit(&self, address: IpAddr, now_ms: u64) -> Result<(), Refusal> {
        let window_ms = self.limits.window_ms;
        let state = self.lock();
        let here = state
            .by_address
            .get(&source_of(address))
            .map_or(0, |bucket| bucket.count(now_ms, window_ms));
        let crowded = state.all.count(now_ms, window_ms) >= self.limits.in_all;
        if here >= self.limits.per_address || (crowded && here > 0) {
            return Err(Refusal::new(
                Reason::TooManyAttempts,
                "too many wrong enrolment attempts; wait a minute",
            )
            .retry_after(Duration::from_millis(window_ms)));
        }
        Ok(())
    }

    /// Counts a wrong attempt.
    pub fn failed(&self, address: IpAddr, now_ms: u64) {
        let window_ms = self.limits.window_ms;
        let mut state = self.lock();
        state.all.add(now_ms, window_ms);
        let group = source_of(address);
        if state.by_address.len() >= ADDRESSES_MAX && !state.by_address.contains_key(&group) {
            state
                .by_address
                .retain(|_, bucket| bucket.count(now_ms, window_ms) > 0);
            if state.by_address.len() >= ADDRESSES_MAX {
                return;
            }
        }
        state.by_address.entry(group).or_default().add(now_ms, window_ms);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, AttemptCounts> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_address_is_stopped_others_go_on_and_time_heals() {
        let attempts = Attempts::new(AttemptsLimits {
            per_address: 3,
            in_all: 100,
            window_ms: 1000,
        });
        let (bad, neighbour, good): (IpAddr, IpAddr, IpAddr) = (
            "2001:db8::1".parse().unwrap(),
            "2001:db8::ffff".parse().unwrap(),
            "10.0.0.1".parse().unwrap(),
        );
        for _ in 0..3 {
            attempts.admit(bad, 5000).unwrap();
            attempts.failed(bad, 5000);
        }
        assert_eq!(
            attempts.admit(bad, 5999).unwrap_err().reason,
            Reason::TooManyAttempts
        );
        attempts.admit(neighbour, 5999).unwrap_err();
        attempts.admit(good, 5999).unwrap();
        attempts.admit(bad, 6000).unwrap();
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out_for_longer_than_the_window() {
        let attempts = Attempts::new(AttemptsLimits::default());
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        for _ in 0..AttemptsLimits::default().per_address {
            attempts.failed(address, 1 << 40);
        }
        attempts.admit(address, 1 << 40).unwrap_err();
        attempts.admit(address, 1_000_000_000).unwrap();
    }

    #[test]
    fn many_addresses_do_not_grow_the_memory_are_stopped_together_and_keep_nobody_else_out() {
        let attempts = Attempts::new(AttemptsLimits {
            per_address: 3,
            in_all: 10_000,
            window_ms: 1000,
        });
        for n in 0..10_000u32 {
            attempts.failed(IpAddr::V4(n.into()), 1);
        }
        assert!(attempts.lock().by_address.len() <= ADDRESSES_MAX);
        let remembered: Vec<IpAddr> = attempts.lock().by_address.keys().copied().take(5).collect();
        for wrong_once in remembered {
            attempts.admit(wrong_once, 1).unwrap_err();
        }
        // The one with the right token, at an address of their own.
        attempts.admit(IpAddr::V4(20_000.into()), 1).unwrap();
    }
}
