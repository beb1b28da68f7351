#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::IpAddr;

use penstock_policy::ids::{ConduitId, FlowName};
use penstock_policy::model::{GatewayMode, OnAgentLoss, OnDrift};
use penstock_policy::plan::{Endpoint, PLAN_FORMAT, PortRange};
use proptest::prelude::*;

use ipnet::IpNet;

use super::*;

/// The rule that the plan's own order of precedence gives a connection, found the slow way.
fn oracle(plan: &Plan, source: IpAddr, destination: IpAddr, carrier: Carrier, port: u16) -> Option<FlowId> {
    let matches = |rule: &&Rule, exactly: bool| {
        let hit = |ends: &[Endpoint], address: IpAddr| {
            ends.iter().any(|e| {
                e.network.contains(&address)
                    && (!exactly || e.network.prefix_len() == e.network.max_prefix_len())
            })
        };
        let ports = match (&rule.transport, carrier) {
            (Transport::Tcp(list), Carrier::Tcp) | (Transport::Udp(list), Carrier::Udp) => list
                .iter()
                .any(|r| r.contains(port) && (!exactly || r.first == r.last)),
            (Transport::IcmpEcho, Carrier::Echo) => true,
            _ => false,
        };
        ports && hit(&rule.sources, source) && hit(&rule.destinations, destination)
    };
    let rules = || plan.rules.iter();
    rules()
        .find(|r| matches(r, true))
        .or_else(|| rules().find(|r| matches(r, false)))
        .map(|r| r.id)
}

fn look_up<A: Address>(
    map: &BTreeMap<Block<A>, FlowId>,
    source: A,
    destination: A,
    carrier: Carrier,
    port: u16,
) -> Option<FlowId> {
    let tuple = Block {
        source: Span::one(source),
        destination: Span::one(destination),
        carrier,
        ports: Span::one(port),
    };
    let ranges: Vec<_> = map
        .iter()
        .filter(|(b, _)| !b.is_exact() && b.overlaps(&tuple))
        .collect();
    assert!(ranges.len() <= 1, "two ranges hold {tuple:?}: {ranges:?}");
    map.get(&tuple).or(ranges.first().map(|(_, id)| *id)).copied()
}

// A tiny world, so that everything overlaps everything: 16 addresses, 8 ports.
fn network(v6: bool) -> impl Strategy<Value = IpNet> {
    (0_u8..16, 0_u8..=4).prop_map(move |(host, wide)| {
        let text = if v6 {
            format!("fd00::{host:x}/{}", 128 - wide)
        } else {
            format!("10.0.0.{host}/{}", 32 - wide)
        };
        text.parse::<IpNet>().unwrap()
    })
}

fn ends() -> impl Strategy<Value = Vec<Endpoint>> {
    proptest::collection::vec(prop_oneof![3 => network(false), 1 => network(true)], 1..4).prop_map(
        |networks| {
            networks
                .into_iter()
                .map(|network| Endpoint {
                    name: "end".into(),
                    network,
                })
                .collect()
        },
    )
}

fn transport() -> impl Strategy<Value = Transport> {
    let ports = proptest::collection::vec((0_u16..8, 0_u16..4), 1..3).prop_map(|list| {
        list.into_iter()
            .map(|(first, more)| PortRange {
                first,
                last: first + more,
            })
            .collect::<Vec<_>>()
    });
    prop_oneof![
        ports.clone().prop_map(Transport::Tcp),
        ports.prop_map(Transport::Udp),
        Just(Transport::IcmpEcho)
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    proptest::collection::vec((ends(), ends(), transport()), 0..10).prop_map(|rules| Plan {
        format: PLAN_FORMAT.into(),
        plant: "p".parse().unwrap(),
        gateway: "g".parse().unwrap(),
        mode: GatewayMode::Routed,
        requires: BTreeSet::new(),
        on_drift: OnDrift::Repair,
        interfaces: vec![],
        management: None,
        bridges: Vec::new(),
        rules: (1..)
            .zip(rules)
            .map(|(number, (sources, destinations, transport))| Rule {
                id: FlowId(number),
                conduit: ConduitId::new("c").unwrap(),
                flow: FlowName::new(format!("f{number}")).unwrap(),
                sources,
                destinations,
                transport,
                must_flow: false,
                on_refusal: penstock_policy::model::OnRefusal::default(),
                tls: None,
                on_agent_loss: OnAgentLoss::Block,
                operations: None,
            })
            .collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn elements_give_every_connection_the_rule_that_the_plan_gives_it(plan in plan()) {
        let elements = lower(&plan).unwrap();
        for (carrier, ports) in [(Carrier::Tcp, 0..12), (Carrier::Udp, 0..12), (Carrier::Echo, 0..1)] {
            for port in ports {
                for source in 0..16_u8 {
                    for destination in 0..16_u8 {
                        let (s, d) = (Ipv4Addr::new(10, 0, 0, source), Ipv4Addr::new(10, 0, 0, destination));
                        prop_assert_eq!(
                            look_up(&elements.v4, s, d, carrier, port),
                            oracle(&plan, s.into(), d.into(), carrier, port)
                        );
                        let v6 = |host: u8| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into());
                        prop_assert_eq!(
                            look_up(&elements.v6, v6(source), v6(destination), carrier, port),
                            oracle(&plan, v6(source).into(), v6(destination).into(), carrier, port)
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_plan_whose_products_grow_without_bound_is_refused_with_the_flow_named() {
    let hosts = |third: u8| -> Vec<Endpoint> {
        (0..750_u32)
            .map(|n| Endpoint {
                name: "h".into(),
                network: IpNet::from(IpAddr::from(Ipv4Addr::from_bits(
                    0x0a00_0000 + (u32::from(third) << 16) + n,
                ))),
            })
            .collect()
    };
    let rule = Rule {
        id: FlowId(1),
        conduit: ConduitId::new("wide").unwrap(),
        flow: FlowName::new("all").unwrap(),
        sources: hosts(1),
        destinations: hosts(2),
        transport: Transport::Tcp(vec![PortRange::single(502)]),
        must_flow: false,
        on_refusal: penstock_policy::model::OnRefusal::default(),
        tls: None,
        on_agent_loss: OnAgentLoss::Block,
        operations: None,
    };
    let plan = Plan {
        format: PLAN_FORMAT.into(),
        plant: "p".parse().unwrap(),
        gateway: "g".parse().unwrap(),
        mode: GatewayMode::Routed,
        requires: BTreeSet::new(),
        on_drift: OnDrift::Repair,
        interfaces: vec![],
        management: None,
        rules: vec![rule],
        bridges: Vec::new(),
    };
    assert_eq!(
        lower(&plan),
        Err(LowerError::TooMany {
            flow: "wide/all".into()
        })
    );
}
