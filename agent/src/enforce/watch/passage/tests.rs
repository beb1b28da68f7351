#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use penstock_policy::plan::Plan;

use super::*;

fn plan() -> Plan {
    Plan::from_bytes(include_bytes!(
        "../../../../../policy/fixtures/plan-format-1.json"
    ))
    .unwrap()
}

/// An address that goes while a grant opens a conduit, or a way that then leads astray, would otherwise never have been there.
#[test]
fn a_grant_that_opens_or_ends_makes_nothing_forgotten_of_addresses_and_ways() {
    let plan = plan();
    let mut seen = WatchedPlan::default();
    seen.take_up(&Arc::new(plan.clone()));
    let crossing = seen.scope.crossings.first().unwrap().clone();
    let ends = (crossing.from.1, crossing.to.1);
    let address = crossing.from.1;
    seen.worked.insert(ends);
    seen.addresses
        .insert(crossing.from.0.clone(), BTreeSet::from([address]));
    let open = BTreeSet::from(["remote".parse().unwrap()]);
    seen.take_up(&Arc::new(plan.opening(open)));
    assert!(seen.worked.contains(&ends));
    assert_eq!(seen.addresses[&crossing.from.0], BTreeSet::from([address]));
    // Of what no flow crosses any more nothing is kept.
    let mut without = plan.clone();
    without.rules.clear();
    seen.take_up(&Arc::new(without));
    assert!(seen.worked.is_empty() && !seen.addresses.is_empty());
    let mut other = plan;
    other.interfaces[0].networks.clear();
    seen.take_up(&Arc::new(other));
    assert!(seen.addresses.is_empty());
}
