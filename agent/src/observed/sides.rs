//! How much was refused of what came from, or went to, each side of the gateway: counted as it is observed, whether or not the trail has
//! room for it.
//!
//! For what is shown of zones ([`crate::zones`]). What the kernel's log leaves out is in no side's count; the totals of the kernel's own
//! counters have it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};

use ipnet::IpNet;
use penstock_policy::plan::Plan;
use penstock_policy::verdict::Decision;

use super::Observation;

/// What was refused since the agent began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Packets and operations that did not pass.
    pub denied: u64,
    /// Those that passed, and would not where both zones enforce.
    pub would_deny: u64,
}

/// A side of the plan in force: its networks, and what was counted there.
#[derive(Debug, Default)]
struct Side {
    networks: Vec<IpNet>,
    refusals: Refusals,
}

/// The counts of all sides. There are as many as the plan guards interfaces, and no more.
#[derive(Debug, Default)]
pub(crate) struct SideCounts(RwLock<BTreeMap<String, Side>>);

impl SideCounts {
    /// From now on the sides are those of `plan`. One that was there before goes on counting.
    pub(crate) fn follow(&self, plan: &Plan) {
        let mut sides = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *sides);
        for interface in &plan.interfaces {
            let known = before.remove(&interface.name).unwrap_or_default();
            let side = Side {
                networks: interface.networks.clone(),
                refusals: known.refusals,
            };
            sides.insert(interface.name.clone(), side);
        }
    }

    /// Takes in what was observed.
    pub(crate) fn count(&self, observed: &Observation) {
        match observed {
            Observation::Verdict(seen) => {
                let ends = [(&seen.ingress, seen.source), (&seen.egress, seen.destination)];
                let ends = ends.map(|(interface, address)| (interface.as_str(), address));
                self.add(seen.decision, seen.count, ends);
            }
            Observation::Operation(seen) => {
                let Some(decision) = seen.decision else { return };
                let ends = [seen.client, seen.server.ip()].map(|address| ("", Some(address)));
                self.add(decision, seen.count, ends);
            }
            Observation::Drift { .. }
            | Observation::Condition(_)
            | Observation::Start { .. }
            | Observation::Lost { .. } => {}
        }
    }

    /// Each side's counts, by its interface.
    pub(crate) fn counted(&self) -> BTreeMap<String, Refusals> {
        let sides = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let counted = sides.iter().map(|(name, side)| (name.clone(), side.refusals));
        counted.collect()
    }

    /// Counts it once for each side that has one of the ends: by the interface where that is known, else by the address.
    fn add(&self, decision: Decision, count: u64, ends: [(&str, Option<IpAddr>); 2]) {
        let (denied, would_deny) = match decision {
            Decision::Deny => (count, 0),
            Decision::WouldDeny => (0, count),
            Decision::Allow | Decision::NotGuarded => return,
        };
        let mut sides = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (name, side) in sides.iter_mut() {
            let is_there = ends.iter().any(|(interface, address)| {
                if interface.is_empty() {
                    address.is_some_and(|address| side.networks.iter().any(|net| net.contains(&address)))
                } else {
                    interface == name
                }
            });
            if is_there {
                let refusals = &mut side.refusals;
                refusals.denied = refusals.denied.saturating_add(denied);
                refusals.would_deny = refusals.would_deny.saturating_add(would_deny);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use penstock_policy::ids::Revision;

    use super::*;
    use crate::observed::VerdictSeen;

    fn plan() -> Plan {
        let side = |name: &str, network: &str| {
            serde_json::json!({
                "name": name, "zone": name, "behind": [], "networks": [network], "observing": "nothing",
                "routers": [], "hardware": []
            })
        };
        let plan = serde_json::json!({
            "format": "penstock-plan/2", "plant": "p", "gateway": "g", "mode": "routed", "requires": [],
            "on_drift": "repair", "interfaces": [side("cell", "10.2.0.0/24"), side("office", "10.1.0.0/24")],
            "management": null, "rules": [], "bridges": []
        });
        Plan::from_bytes(plan.to_string().as_bytes()).unwrap()
    }

    fn verdict(decision: Decision, [ingress, egress]: [&str; 2]) -> Observation {
        Observation::Verdict(VerdictSeen {
            decision,
            flow_id: None,
            flow: None,
            revision: Revision(1),
            ingress: ingress.to_owned(),
            egress: egress.to_owned(),
            source: "10.1.0.66".parse().ok(),
            destination: "10.2.0.7".parse().ok(),
            protocol: 6,
            port: 22,
            count: 3,
            first_ms: 1,
            last_ms: 2,
            reason: String::new(),
            proofs: [None; 2],
        })
    }

    #[test]
    fn what_is_refused_counts_for_both_of_its_sides_by_interface_or_else_by_address() {
        let counts = SideCounts::default();
        counts.follow(&plan());
        counts.count(&verdict(Decision::Deny, ["office", "cell"]));
        counts.count(&verdict(Decision::WouldDeny, ["", ""]));
        counts.count(&verdict(Decision::Allow, ["office", "cell"]));
        // By an interface that the plan does not name, though the address is the cell's.
        counts.count(&verdict(Decision::Deny, ["office", "elsewhere"]));
        let expected = |denied, would_deny| Refusals { denied, would_deny };
        let counted = [("cell", expected(3, 3)), ("office", expected(6, 3))];
        let counted = BTreeMap::from(counted.map(|(name, refusals)| (name.to_owned(), refusals)));
        assert_eq!(counts.counted(), counted);
        counts.follow(&plan());
        assert_eq!(counts.counted(), counted, "another policy counts on");
    }
}
