#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use penstock_policy::ids::{ConduitId, FlowName};
use penstock_policy::plan::{Endpoint, Management, PLAN_FORMAT};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::{GatewayMode, OnAgentLoss, OnDrift, PortRange};
use penstock_policy::verdict::{Carried, Connection, Permissions, permitted};
use proptest::prelude::*;

use ipnet::IpNet;

use super::*;
use crate::enforce::EnforceError;
use crate::enforce::nft::maps::maps_of;
use crate::enforce::table::ready::PreparedPlan;

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

/// What the rules do with a connection's packets, by the maps that they are looked up in.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Nowhere,
    Forward(FlowId),
    Inspector { without: Option<FlowId> },
}

/// The oracle's way: who permits it, and whether all who do so name operations.
fn way(plan: &Plan, source: IpAddr, destination: IpAddr, carrier: Carrier, port: u16) -> Way {
    let Some(flow) = oracle(plan, source, destination, carrier, port) else {
        return Way::Nowhere;
    };
    let connection = Connection {
        ingress: String::new(),
        egress: String::new(),
        source,
        destination,
        transport: match carrier {
            Carrier::Tcp => Carried::Tcp(port),
            Carrier::Udp => Carried::Udp(port),
            Carrier::Echo => Carried::IcmpEcho,
        },
    };
    match permitted(plan, &connection) {
        Permissions::Nothing => Way::Nowhere,
        Permissions::Anything => Way::Forward(flow),
        Permissions::InsideTls(_) => Way::Inspector { without: None },
        Permissions::Only(rules) => Way::Inspector {
            without: rules
                .iter()
                .all(|(rule, _)| rule.on_agent_loss == OnAgentLoss::Pass)
                .then_some(flow),
        },
    }
}

fn look_up<A: Address>(
    placed: &BTreeMap<Block<A>, Disposition>,
    source: A,
    destination: A,
    carrier: Carrier,
    port: u16,
) -> Way {
    let tuple = Block {
        source: Span::one(source),
        destination: Span::one(destination),
        carrier,
        ports: Span::one(port),
    };
    let ranges: Vec<_> = placed
        .iter()
        .filter(|(b, _)| !b.is_exact() && b.overlaps(&tuple))
        .collect();
    assert!(ranges.len() <= 1, "two ranges hold {tuple:?}: {ranges:?}");
    let entry = |wanted: &str| {
        let held = |block: &Block<A>, placed: &Disposition| {
            maps_of(block, placed.course).iter().any(|map| map.name == wanted)
        };
        placed
            .iter()
            .find(|(block, placed)| held(block, placed) && block.overlaps(&tuple))
            .map(|(_, placed)| placed.flow)
    };
    let (exact, ranges) = match carrier {
        Carrier::Echo => ("echo", "echo_ranges"),
        Carrier::Tcp | Carrier::Udp => ("exact", "ranges"),
    };
    let inspected = entry("inspected").is_some();
    if inspected || (entry("inspected_ranges").is_some() && entry("spared").is_none()) {
        let without = entry("unattended").or(entry("unattended_ranges").filter(|_| !inspected));
        // Without an inspector it is looked up as everything else, and must not be found there before.
        assert_eq!((entry(exact), entry(ranges)), (None, None), "{tuple:?}");
        return Way::Inspector { without };
    }
    entry(exact).or(entry(ranges)).map_or(Way::Nowhere, Way::Forward)
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
    let loss = prop_oneof![Just(OnAgentLoss::Block), Just(OnAgentLoss::Pass)];
    let limits = proptest::option::of(loss);
    proptest::collection::vec((ends(), ends(), transport(), limits), 0..10).prop_map(|rules| Plan {
        format: PLAN_FORMAT.into(),
        plant: "p".parse().unwrap(),
        gateway: "g".parse().unwrap(),
        mode: GatewayMode::Routed,
        requires: BTreeSet::new(),
        on_drift: OnDrift::Repair,
        interfaces: vec![],
        management: None,
        bridges: Vec::new(),
        grants: std::collections::BTreeMap::new(),
        windows: None,
        interlock: None,
        break_glass: None,
        tunnels: None,
        bound: std::collections::BTreeMap::new(),
        unproven: Vec::new(),
        frames: Vec::new(),
        open: std::collections::BTreeSet::new(),
        excepted: std::collections::BTreeMap::new(),
        rules: (1..)
            .zip(rules)
            .map(|(number, (sources, destinations, transport, limits))| Rule {
                id: FlowId(number),
                conduit: ConduitId::new("c").unwrap(),
                flow: FlowName::new(format!("f{number}")).unwrap(),
                sources,
                destinations,
                // Only TCP is inspected.
                operations: limits
                    .filter(|_| matches!(transport, Transport::Tcp(_)))
                    .map(|_| Operations::from(Vec::<MqttOperation>::new()).into()),
                transport,
                must_flow: false,
                on_refusal: penstock_policy::terms::OnRefusal::default(),
                roles: None,
                answers: penstock_policy::terms::Answers::Strict,
                tls: None,
                on_agent_loss: limits.unwrap_or(OnAgentLoss::Block),
            })
            .collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]
    #[test]
    fn elements_give_every_connection_the_rule_and_the_way_that_the_plan_gives_it(plan in plan()) {
        let elements = lower(&plan).unwrap();
        for (carrier, ports) in [(Carrier::Tcp, 0..12), (Carrier::Udp, 0..12), (Carrier::Echo, 0..1)] {
            for port in ports {
                for source in 0..16_u8 {
                    for destination in 0..16_u8 {
                        let (s, d) = (Ipv4Addr::new(10, 0, 0, source), Ipv4Addr::new(10, 0, 0, destination));
                        prop_assert_eq!(
                            look_up(&elements.v4, s, d, carrier, port),
                            way(&plan, s.into(), d.into(), carrier, port)
                        );
                        let v6 = |host: u8| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into());
                        prop_assert_eq!(
                            look_up(&elements.v6, v6(source), v6(destination), carrier, port),
                            way(&plan, v6(source).into(), v6(destination).into(), carrier, port)
                        );
                    }
                }
            }
        }
    }
}

/// A random plan whose rules stand open, hang on a grant that opens them, or on one that does not.
fn granted_plan() -> impl Strategy<Value = Plan> {
    let kinds = proptest::collection::vec(0_u8..3, 10);
    (plan(), kinds).prop_map(|(mut plan, kinds)| {
        for (rule, kind) in plan.rules.iter_mut().zip(kinds) {
            rule.conduit = ConduitId::new(format!("c{kind}")).unwrap();
        }
        for closed in ["c1", "c2"] {
            plan.grants.insert(closed.parse().unwrap(), Vec::new());
        }
        plan.open.insert("c1".parse().unwrap());
        plan
    })
}

/// The plan with just those of its rules.
fn only(plan: &Plan, wanted: impl Fn(&Rule) -> bool) -> Plan {
    let mut plan = plan.clone();
    plan.rules.retain(wanted);
    plan.open.clear();
    plan.grants.clear();
    plan
}

/// The way without the number of the flow.
fn course(way: &Way) -> Option<Course> {
    match way {
        Way::Nowhere => None,
        Way::Forward(_) => Some(Course::Forward),
        Way::Inspector { without: None } => Some(Course::Inspect),
        Way::Inspector { without: Some(_) } => Some(Course::InspectOrForward),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]
    /// What stands open has its own numbers, so that no end of a grant takes it away; what only a grant permits, or lets pass
    /// otherwise than what stands open does, has the number of one that hangs on a grant, so that it ends with it.
    #[test]
    fn a_grant_takes_nothing_over_from_what_stands_open_and_leaves_nothing_behind(plan in granted_plan()) {
        let elements = lower(&plan).unwrap();
        let stands = |rule: &Rule| rule.conduit.as_str() == "c0";
        let opened = |rule: &Rule| rule.conduit.as_str() == "c1";
        let (standing, all) = (only(&plan, stands), only(&plan, |rule| stands(rule) || opened(rule)));
        for (carrier, ports) in [(Carrier::Tcp, 0..12), (Carrier::Udp, 0..12), (Carrier::Echo, 0..1)] {
            for port in ports {
                for source in 0..16_u8 {
                    for destination in 0..16_u8 {
                        let (s, d) = (Ipv4Addr::new(10, 0, 0, source), Ipv4Addr::new(10, 0, 0, destination));
                        let found = look_up(&elements.v4, s, d, carrier, port);
                        let way = |plan| way(plan, s.into(), d.into(), carrier, port);
                        let (with, without) = (way(&all), way(&standing));
                        prop_assert_eq!(course(&found), course(&with));
                        if course(&with) == course(&without) {
                            prop_assert_eq!(&found, &without);
                            continue;
                        }
                        let least = |rule: &Rule| opened(rule) && Some(Course::of(rule)) == course(&with);
                        let flow = match &found {
                            Way::Forward(flow) | Way::Inspector { without: Some(flow) } => *flow,
                            Way::Nowhere | Way::Inspector { without: None } => continue,
                        };
                        let expected = oracle(&only(&plan, least), s.into(), d.into(), carrier, port);
                        prop_assert_eq!(Some(flow), expected);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_plan_whose_products_grow_without_bound_is_refused_with_the_flow_named_before_all_else() {
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
        on_refusal: penstock_policy::terms::OnRefusal::default(),
        roles: None,
        answers: penstock_policy::terms::Answers::Strict,
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
        // Whoever computes the rules first complains of this.
        management: Some(Management {
            interface: "no name".to_owned(),
            peers: vec![],
        }),
        rules: vec![rule],
        bridges: Vec::new(),
        grants: std::collections::BTreeMap::new(),
        windows: None,
        interlock: None,
        break_glass: None,
        tunnels: None,
        bound: std::collections::BTreeMap::new(),
        unproven: Vec::new(),
        frames: Vec::new(),
        open: std::collections::BTreeSet::new(),
        excepted: std::collections::BTreeMap::new(),
    };
    let error = PreparedPlan::of(Arc::new(plan), None, BTreeMap::new())
        .await
        .unwrap_err();
    let expected = LowerError::TooMany {
        flow: "wide/all".into(),
    };
    assert!(
        matches!(&error, EnforceError::Lower(found) if *found == expected),
        "{error:?}"
    );
}
