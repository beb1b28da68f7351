//! Where the inspector speaks to servers in the plain, behind its clients' TLS: at another port than the one that clients connect to, so
//! that no rule of the plan has it. Pure.
//!
//! Conduits that a grant opens are among them at all times: what is permitted there is the inspector's alone, which knows the grants.

use std::collections::BTreeMap;

use penstock_policy::plan::{Plan, Rule};
use penstock_policy::terms::Transport;

use super::block::{Address, Span};
use super::spans::merged;

/// Who is spoken for, by server and port; in order, merged where they touch, as interval sets want them.
pub(in crate::enforce) type Legs<A> = BTreeMap<(A, u16), Vec<Span<A>>>;

/// Those of a plan.
pub(in crate::enforce) fn legs<A: Address>(plan: &Plan) -> Legs<A> {
    let mut legs: Legs<A> = BTreeMap::new();
    for (rule, port) in plan
        .rules
        .iter()
        .filter_map(|rule| Some((rule, elsewhere(rule)?)))
    {
        let clients = rule.sources.iter().filter_map(|end| A::span(end.network));
        let clients: Vec<Span<A>> = clients.collect();
        // TLS ends before servers that the flow names, each by its addresses.
        let servers = rule.destinations.iter().filter_map(|end| A::span(end.network));
        for server in servers.filter(|server| server.is_one()) {
            legs.entry((server.first, port)).or_default().extend(&clients);
        }
    }
    legs.retain(|_, clients| !clients.is_empty());
    for clients in legs.values_mut() {
        *clients = merged(std::mem::take(clients));
    }
    legs
}

/// The port of a rule's server in the plain, if clients do not connect to it themselves.
fn elsewhere(rule: &Rule) -> Option<u16> {
    let port = rule.plain_port()?;
    let same = match &rule.transport {
        Transport::Tcp(ports) => ports.iter().any(|range| range.contains(port)),
        Transport::Udp(_) | Transport::IcmpEcho => false,
    };
    (!same).then_some(port)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::net::{Ipv4Addr, Ipv6Addr};

    use penstock_policy::plan::Endpoint;
    use penstock_policy::terms::{PortRange, Tls};

    use super::*;

    /// Sources, destinations, the port that clients connect to, and the server's in the plain.
    type Written<'a> = (&'a [&'a str], &'a [&'a str], u16, Option<u16>);

    fn plan(rules: &[Written<'_>]) -> Plan {
        let stored = include_bytes!("../../../../policy/fixtures/plan-format-1.json");
        let mut plan = Plan::from_bytes(stored).unwrap();
        let one = plan.rules[0].clone();
        let ends = |networks: &[&str]| {
            let end = |network: &&str| Endpoint {
                name: "end".into(),
                network: network.parse().unwrap(),
            };
            networks.iter().map(end).collect()
        };
        let rule = |(sources, destinations, port, plain_port): &Written<'_>| Rule {
            sources: ends(sources),
            destinations: ends(destinations),
            transport: Transport::Tcp(vec![PortRange::single(*port)]),
            tls: Some(
                Tls {
                    plain_port: *plain_port,
                    ..Tls::default()
                }
                .into(),
            ),
            ..one.clone()
        };
        plan.rules = rules.iter().map(rule).collect();
        plan
    }

    #[test]
    fn a_leg_is_opened_to_the_plain_port_alone_for_the_flow_s_clients_merged_and_by_family() {
        let plan = plan(&[
            (&["10.1.0.0/24"], &["10.2.0.9/32", "fd00::9/128"], 802, Some(502)),
            (&["10.1.0.7/32", "10.1.1.0/24"], &["10.2.0.9/32"], 803, Some(502)),
            (&["10.1.0.7/32"], &["10.2.0.9/32"], 10102, Some(102)),
            // Clients connect to the same port, TLS goes on, or no server is named.
            (&["10.1.0.7/32"], &["10.2.0.9/32"], 4840, Some(4840)),
            (&["10.1.0.7/32"], &["10.2.0.9/32"], 8883, None),
            (&["10.1.0.7/32"], &["10.2.0.0/24"], 99, Some(100)),
        ]);
        let shown: Vec<String> = legs::<Ipv4Addr>(&plan)
            .iter()
            .map(|((server, port), clients)| {
                format!(
                    "{server}:{port} {}",
                    clients
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(" ")
                )
            })
            .collect();
        assert_eq!(
            shown,
            ["10.2.0.9:102 10.1.0.7", "10.2.0.9:502 10.1.0.0-10.1.1.255"]
        );
        assert!(legs::<Ipv6Addr>(&plan).is_empty());
    }
}
