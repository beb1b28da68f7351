//! Random plants, plans and connections for tests (feature `arbitrary`).
//!
//! Plants are valid by construction: small, but with everything that makes a difference — IPv4 and IPv6, TCP,
//! UDP and echo, assets inside and outside their zone's networks, ports and networks that overlap, flows in both
//! directions of a conduit, several gateways, routed and bridged, zones behind zones, observe and enforce mixed,
//! flows limited to operations, by their clients' roles too, TLS that ends at the gateway, bridges between brokers, conduits that only grants of remote
//! access open, people and codes that may override gateways.
//! Connections are drawn near the edges of a plan's rules, where mistakes live: the address before a network, the
//! port after a range, the right tuple on the wrong interface.
//!
//! A strategy first draws a *recipe* of small numbers and then builds from it, so that a failing case shrinks
//! to few zones and few flows, and stays valid on the way.

mod connection;
mod flow;
mod operations;
mod plant;

use std::sync::Arc;

use proptest::prelude::*;

pub use self::connection::{DICE, UNGUARDED, connection_near};
use crate::compile::compile_all;
use crate::model::Plant;
use crate::plan::Plan;
use crate::verdict::Connection;

/// A valid plant of 2–6 zones and 1–3 gateways.
pub fn plants() -> impl Strategy<Value = Plant> {
    plant::recipes().prop_map(|recipe| plant::build(&recipe))
}

/// A plan of one gateway of such a plant.
pub fn plans() -> impl Strategy<Value = Plan> {
    (plants(), any::<prop::sample::Index>()).prop_filter_map(
        "the plant compiles and has a gateway",
        |(plant, index)| {
            let plans: Vec<Plan> = compile_all(&plant).ok()?.into_values().collect();
            plans.get(index.index(plans.len().max(1))).cloned()
        },
    )
}

/// A connection near the rules of `plan`, both ends of one address family.
pub fn connections(plan: &Plan) -> impl Strategy<Value = Connection> + use<> {
    let plan = Arc::new(plan.clone());
    any::<[u32; DICE]>().prop_map(move |dice| connection_near(&plan, &dice))
}

/// The moment at which some grants of random plants begin, some end, and some last: milliseconds since 1970.
pub const GRANTED_MS: u64 = 1_796_112_000_000;

/// A plan, as of [`GRANTED_MS`], with this many connections near its rules.
pub fn plans_with_connections(count: usize) -> impl Strategy<Value = (Plan, Vec<Connection>)> {
    (plans(), prop::collection::vec(any::<[u32; DICE]>(), count)).prop_map(|(plan, dice)| {
        let plan = plan.at(Some(GRANTED_MS));
        let connections = dice.iter().map(|dice| connection_near(&plan, dice)).collect();
        (plan, connections)
    })
}
