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

/// Requests that one entry is asked with at most.
const REQUESTS_MAX: u64 = 1 << 20;
/// The same of all entries.
const ALL_REQUESTS_MAX: u64 = 1 << 24;

/// How much of what was gathered can still be asked.
#[derive(Debug)]
struct Asking {
    requests_left: u64,
    unasked: u64,
}

impl Asking {
    /// Whether it may be asked with so many requests.
    fn take(&mut self, requests: u64) -> bool {
        let left = self.requests_left.checked_sub(requests);
        let Some(left) = left.filter(|_| requests <= REQUESTS_MAX) else {
            self.unasked += 1;
            return false;
        };
        self.requests_left = left;
        true
    }
}

impl Learned {
    /// Leaves out what `plans` permit, at all times or by any grant, and what crosses no gateway.
    pub fn leave_out(&mut self, plans: &Plans) {
        let (mut permitted, mut by_grant) = (0, 0);
        let mut asking = Asking {
            requests_left: ALL_REQUESTS_MAX,
            unasked: 0,
        };
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
                    let left = talk.leave_out(&rules, &mut asking);
                    permitted += left;
                    left == 0 || talk.has_operations()
                }
            }
        });
        self.permitted_already += permitted;
        self.by_grant += by_grant;
        self.unasked += asking.unasked;
    }
}

impl Talk {
    /// Leaves out the operations that `rules` permit; how many they were.
    fn leave_out(&mut self, rules: &Rules, asking: &mut Asking) -> u64 {
        let mut permitted = 0;
        let inspector = protocols::of(rules.protocol());
        self.operations.retain(|key, seen| {
            let allowed = asking.take(seen.requests())
                && inspector.is_some_and(|inspector| inspector.permits(rules, key, seen));
            permitted += if allowed { seen.seen.count } else { 0 };
            !allowed
        });
        permitted
    }
}
