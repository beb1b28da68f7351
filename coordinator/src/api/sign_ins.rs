//! When an operator's call is a sign-in: the first from an address after [`QUIET_MS`] without one (IEC 62443-3-3 SR 1.13, SR 2.8).
//!
//! Each command of `penstock` is a connection of its own, so that each connection would be too much, and one event for ever too
//! little. Bounded in the trail for each operator, however many addresses they have: what is left out is counted, and said by the next one. In memory
//! only: after a restart everybody signs in again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::allowance::{Allowance, Share};

/// Calls from the same address with no longer pauses belong to one sign-in.
const QUIET_MS: u64 = 15 * 60_000;
/// Sign-ins of one operator that are written.
const WRITTEN: Share = Share {
    at_once: 60,
    per_day: 240,
};
/// Operators and addresses that are kept apart.
const KEPT_MAX: usize = 4096;

/// Who was here lately.
#[derive(Debug)]
pub(super) struct SignIns {
    written: Allowance,
    state: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The last call, milliseconds since 1970.
    last: HashMap<(String, IpAddr), u64>,
    /// Sign-ins that were not written, of each operator.
    omitted: HashMap<String, u64>,
}

impl SignIns {
    pub(super) fn new() -> Self {
        Self {
            written: Allowance::new(WRITTEN),
            state: Mutex::default(),
        }
    }

    /// Whether a call is a sign-in that is to be written, and then how many before it were not.
    pub(super) fn call(&self, operator: &str, address: IpAddr, now_ms: u64) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { last, omitted } = &mut *state;
        let key = (operator.to_owned(), address);
        // Also of a clock that was set.
        let is_quiet = |at_ms: u64| now_ms.abs_diff(at_ms) >= QUIET_MS;
        if last.get(&key).is_some_and(|at_ms| !is_quiet(*at_ms)) {
            last.insert(key, now_ms);
            return None;
        }
        if last.len() >= KEPT_MAX {
            last.retain(|_, at_ms| !is_quiet(*at_ms));
        }
        if last.len() < KEPT_MAX {
            last.insert(key, now_ms);
        }
        if self.written.take(operator, 1, now_ms).is_err() {
            if omitted.len() < KEPT_MAX || omitted.contains_key(operator) {
                *omitted.entry(operator.to_owned()).or_default() += 1;
            }
            return None;
        }
        Some(omitted.remove(operator).unwrap_or(0))
    }

    /// It could not be written: the next call is one again.
    pub(super) fn unwritten(&self, operator: &str, address: IpAddr) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last.remove(&(operator.to_owned(), address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(number).into()
    }

    #[test]
    fn calls_without_a_long_pause_are_one_sign_in_for_each_address() {
        let sign_ins = SignIns::new();
        let (here, there) = (address(1), address(2));
        assert_eq!(sign_ins.call("anna", here, NOW_MS), Some(0));
        for number in 1..100 {
            // For longer than the pause, and never with one.
            assert_eq!(sign_ins.call("anna", here, NOW_MS + number * 60_000), None);
        }
        let now_ms = NOW_MS + 100 * 60_000;
        assert_eq!(sign_ins.call("anna", there, now_ms), Some(0));
        assert_eq!(sign_ins.call("bob", here, now_ms), Some(0));
        assert_eq!(sign_ins.call("anna", here, now_ms + QUIET_MS), Some(0));
        // A clock that was set back silences nobody.
        assert_eq!(sign_ins.call("anna", here, NOW_MS), Some(0));
        sign_ins.unwritten("anna", here);
        assert_eq!(sign_ins.call("anna", here, NOW_MS), Some(0));
    }

    #[test]
    fn one_operator_with_ever_new_addresses_costs_a_bounded_number_of_events_and_bounded_memory() {
        let sign_ins = SignIns::new();
        let written = (0..100_000)
            .filter(|number| sign_ins.call("anna", address(*number), NOW_MS).is_some())
            .count();
        assert_eq!(written as u64, WRITTEN.at_once);
        assert_eq!(
            sign_ins.call("bob", address(1), NOW_MS),
            Some(0),
            "others are not concerned"
        );
        let tomorrow_ms = NOW_MS + 86_400_000;
        let omitted = 100_000 - WRITTEN.at_once;
        assert_eq!(sign_ins.call("anna", address(1), tomorrow_ms), Some(omitted));
        let state = sign_ins.state.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(state.last.len() <= KEPT_MAX && state.omitted.len() <= KEPT_MAX);
    }
}
