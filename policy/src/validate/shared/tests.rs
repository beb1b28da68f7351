#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::protocol::Operations;
use crate::terms::{PortRange, Tls};
use crate::waterworks::{id, messages, publish, with_brokers};

/// One flow: gateways (two bits), port, sources, destinations, and what it says of TLS (0: nothing).
type Recipe = (u8, bool, Vec<(u8, u8)>, Vec<(u8, u8)>, u8);

/// Four addresses and the networks around them.
fn network((address, length): (u8, u8)) -> IpNet {
    let address = IpAddr::from([10, 0, 0, address % 4]);
    IpNet::new(address, 30 + length % 3).unwrap().trunc()
}

fn flow((gateways, port, sources, destinations, terms): &Recipe) -> (BTreeSet<GatewayId>, Flow) {
    let zone = |ends: &[(u8, u8)]| {
        vec![FlowEnd::Zone(
            id("zone"),
            ends.iter().copied().map(network).collect(),
        )]
    };
    let mut flow = messages(&with_brokers(messages));
    flow.sources = zone(sources);
    flow.service.transport = Transport::Tcp(vec![PortRange::single(8883 + u16::from(*port))]);
    flow.operations = Some(Operations::from(vec![publish("a")]));
    if *terms == 0 {
        flow.destinations = zone(destinations);
    } else {
        let hosts = destinations
            .iter()
            .map(|(address, _)| IpAddr::from([10, 0, 0, address % 4]));
        flow.destinations = vec![FlowEnd::Asset(id("broker"), hosts.collect())];
        flow.tls = Some(Tls {
            server_authorities: None,
            server_name: (*terms > 1).then(|| format!("broker-{terms}")),
            plain_port: None,
        });
    }
    let via = (0..2)
        .filter(|bit| gateways & (1 << bit) != 0)
        .map(|bit| id(&format!("gw-{bit}")));
    (via.collect(), flow)
}

fn recipes() -> impl Strategy<Value = Vec<Recipe>> {
    let ends = || prop::collection::vec((0_u8..4, 0_u8..3), 1..4);
    prop::collection::vec((1_u8..4, any::<bool>(), ends(), ends(), 0_u8..4), 1..8)
}

/// Whether some client can open a connection that belongs to both and whose TLS they see differently: by trying all.
fn share_and_disagree(one: &InspectedFlow<'_>, other: &InspectedFlow<'_>) -> bool {
    let holds = |ends: &[FlowEnd], last: u8| {
        let address = IpAddr::from([10, 0, 0, last]);
        ends.iter()
            .flat_map(FlowEnd::networks)
            .any(|network| network.contains(&address))
    };
    let both = |last: u8, ends: fn(&Flow) -> &Vec<FlowEnd>| {
        holds(ends(one.flow), last) && holds(ends(other.flow), last)
    };
    one.flow.tls != other.flow.tls
        && one.flow.service.transport == other.flow.service.transport
        && !one.via.is_disjoint(other.via)
        && (0..4).any(|client| both(client, |flow| &flow.sources))
        && (0..4).any(|server| both(server, |flow| &flow.destinations))
}

proptest! {
    #[test]
    fn flows_are_said_to_disagree_on_tls_exactly_where_a_connection_would_be_reset(recipes in recipes()) {
        let made: Vec<_> = recipes.iter().map(flow).collect();
        let flows: Vec<InspectedFlow<'_>> = made.iter().map(|(via, flow)| InspectedFlow { via, flow }).collect();
        let said = disagreeing(&flows);
        for (earlier, later) in &said {
            prop_assert!(earlier < later);
            prop_assert!(share_and_disagree(&flows[*earlier], &flows[*later]));
        }
        let named: BTreeSet<usize> = said.iter().flat_map(|(one, other)| [*one, *other]).collect();
        for one in 0..flows.len() {
            for other in 0..one {
                if share_and_disagree(&flows[one], &flows[other]) {
                    prop_assert!(named.contains(&one) || named.contains(&other), "{} and {}", other, one);
                }
            }
        }
    }
}
