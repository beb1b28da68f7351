//! What a plan in its shadow is judged by: its conduits as they would be open, and the flows in force that it keeps. Pure.

use std::collections::BTreeSet;

use ipnet::IpNet;
use penstock_policy::ids::FlowId;
use penstock_policy::plan::{Endpoint, Plan, Rule};
use penstock_policy::terms::{PortRange, Transport};

use super::structure::Structure;

/// `next` with the conduits open that grants open now, as far as is known, and those that hang on grants in force, too: whatever
/// passes there is granted at that moment.
pub(in crate::enforce) fn opened(next: &Plan, in_force: Option<&Plan>) -> Plan {
    let granted = next.grants.keys();
    let granted = granted.filter(|conduit| in_force.is_some_and(|plan| plan.grants.contains_key(*conduit)));
    next.opening(next.open.iter().chain(granted).cloned().collect())
}

/// The flows in force whose packets the next plan permits, all of them: it has the same flow, unread, between the same places.
pub(in crate::enforce) fn kept(
    (in_force, old): (&Plan, &Structure),
    (next, new): (&Plan, &Structure),
) -> BTreeSet<FlowId> {
    let same_places = old.mode == new.mode
        && old.guarded == new.guarded
        && old.same_zone == new.same_zone
        && (&old.sides4, &old.sides6) == (&new.sides4, &new.sides6)
        && (&old.routers4, &old.routers6) == (&new.routers4, &new.routers6);
    if !same_places {
        return BTreeSet::new();
    }
    let unread = next.open_rules().filter(|rule| !rule.is_carried());
    let permitted: BTreeSet<Reach> = unread.map(Reach::of).collect();
    let rules = in_force.rules.iter();
    let rules = rules.filter(|rule| permitted.contains(&Reach::of(rule)));
    rules.map(|rule| rule.id).collect()
}

/// Who reaches what: all that the kernel asks of a flow.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Reach {
    sources: BTreeSet<IpNet>,
    destinations: BTreeSet<IpNet>,
    carrier: u8,
    ports: BTreeSet<PortRange>,
}

impl Reach {
    fn of(rule: &Rule) -> Self {
        let networks = |ends: &[Endpoint]| ends.iter().map(|end| end.network.trunc()).collect();
        let (carrier, ports) = match &rule.transport {
            Transport::Tcp(ports) => (0, ports.as_slice()),
            Transport::Udp(ports) => (1, ports.as_slice()),
            Transport::IcmpEcho => (2, [].as_slice()),
        };
        Self {
            sources: networks(&rule.sources),
            destinations: networks(&rule.destinations),
            carrier,
            ports: ports.iter().copied().collect(),
        }
    }
}
