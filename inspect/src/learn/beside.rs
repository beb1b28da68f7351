//! What was gathered by gateways, held against a plant: what it permits already is left out.
//!
//! A learner that sees each request asks the rules at once. Here requests are already joined to ranges, and a range
//! is left out only if one rule permits all of it, at each place with the values written there: rather something is
//! proposed again, and said to widen, than missing. That holds for what is too much to ask, too: whoever tells of thousands of
//! ranges to read and as many to write in one entry gets it proposed, and counted.

use penstock_policy::verdict::Carried;

use super::talk::{Learned, PortCarrier, Talk};
use super::{PlantAnswer, standing};
use crate::judge::Rules;
use crate::protocols;
use crate::replay::{Plans, When};

/// An entry with no more is asked whatever the others took: who gathered those does not decide about it.
const REQUESTS_ALWAYS: u64 = 16;
/// Requests that one entry is asked with at most.
const REQUESTS_MAX: u64 = 1 << 20;
/// The same of all entries.
const ALL_REQUESTS_MAX: u64 = 1 << 24;

/// How much can still be asked of what was gathered, by one or by many.
#[derive(Debug)]
pub struct Asking {
    requests_left: u64,
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            requests_left: ALL_REQUESTS_MAX,
        }
    }
}

impl Asking {
    /// Whether it may be asked with so many requests.
    fn take(&mut self, requests: u64) -> bool {
        if requests <= REQUESTS_ALWAYS {
            return true;
        }
        let left = self.requests_left.checked_sub(requests);
        let Some(left) = left.filter(|_| requests <= REQUESTS_MAX) else {
            return false;
        };
        self.requests_left = left;
        true
    }
}

impl Learned {
    /// Leaves out what `plans` permit, at all times or by any grant, and what crosses no gateway.
    pub fn leave_out(&mut self, plans: &Plans) {
        self.leave_out_within(plans, &mut Asking::default());
    }

    /// The same, where `asking` bounds what all of several take together.
    pub fn leave_out_within(&mut self, plans: &Plans, asking: &mut Asking) {
        let (mut permitted, mut by_grant, mut unasked) = (0, 0, 0);
        self.talks.retain(|ends, talk| {
            let transport = match ends.carrier {
                PortCarrier::Tcp => Carried::Tcp(ends.server.port()),
                PortCarrier::Udp => Carried::Udp(ends.server.port()),
            };
            let standing = |when| standing(plans.between(ends.client, ends.server.ip(), transport, when));
            let ever = standing(When::Ever);
            if plans.have_grants() && ever.passes() && !standing(When::Never).passes() {
                by_grant += talk.connections.count.max(1);
            }
            match ever {
                PlantAnswer::Uncrossed | PlantAnswer::Open => {
                    permitted += talk.connections.count.max(1);
                    false
                }
                PlantAnswer::Shut(_) => true,
                PlantAnswer::Inspected(rules) => {
                    let left = talk.leave_out(&rules, asking, &mut unasked);
                    permitted += left;
                    left == 0 || talk.has_operations()
                }
            }
        });
        self.permitted_already += permitted;
        self.by_grant += by_grant;
        self.unasked += unasked;
    }
}

impl Talk {
    /// Leaves out the operations that `rules` permit; how many they were.
    fn leave_out(&mut self, rules: &Rules, asking: &mut Asking, unasked: &mut u64) -> u64 {
        let mut permitted = 0;
        let inspector = protocols::of(rules.protocol());
        self.operations.retain(|key, seen| {
            let asked = asking.take(seen.requests());
            *unasked += u64::from(!asked);
            let allowed = asked && inspector.is_some_and(|inspector| inspector.permits(rules, key, seen));
            permitted += if allowed { seen.seen.count } else { 0 };
            !allowed
        });
        permitted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use penstock_policy::protocol::LimitSet;
    use penstock_policy::terms::NumberRange;

    use super::*;
    use crate::learn::EntrySeen;
    use crate::operation::SUB_FUNCTIONS;
    use crate::replay::Occurrences;

    #[test]
    fn whatever_others_took_an_entry_of_a_few_requests_is_asked() {
        let mut asking = Asking::default();
        assert!(!asking.take(REQUESTS_MAX + 1));
        while asking.take(REQUESTS_MAX) {}
        assert!(asking.take(REQUESTS_ALWAYS));
        assert!(!asking.take(REQUESTS_ALWAYS + 1));
    }

    #[test]
    fn ranges_of_sub_functions_count_for_each_of_their_codes() {
        let codes = (0..20).map(|first| NumberRange { first, last: 65_535 });
        let set = (SUB_FUNCTIONS, LimitSet::Numbers(codes.collect()));
        let seen = EntrySeen {
            seen: Occurrences::once(Duration::ZERO),
            sets: [set].into_iter().collect(),
        };
        assert!(!Asking::default().take(seen.requests()), "{}", seen.requests());
    }
}
