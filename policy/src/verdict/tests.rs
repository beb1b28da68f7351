#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod naive;

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use self::naive::naive;
use super::*;
use crate::arbitrary::{GRANTED_MS, plans_with_connections, plants};
use crate::compile::{compile, compile_all};
use crate::ids::ZoneId;
use crate::model::Plant;
use crate::plan::{Endpoint, Observing, Plan};
use crate::terms::{Enforcement, OnAgentLoss, Transport};
use crate::waterworks::{gateway, id, waterworks};

fn connection(ingress: &str, source: &str, egress: &str, destination: &str, transport: &str) -> Connection {
    Connection {
        ingress: ingress.to_owned(),
        egress: egress.to_owned(),
        source: id(source),
        destination: id(destination),
        transport: id(transport),
    }
}

fn said(connection: &Connection) -> String {
    decide(&compile(&waterworks(), &gateway()).unwrap(), connection).to_string()
}

#[test]
fn verdicts_explain_themselves_in_words() {
    assert_eq!(
        said(&connection("eth2", "10.20.1.21", "eth3", "10.20.4.7", "tcp/502")),
        "allowed: flow control-room-to-pumps/polling permits it"
    );
    assert_eq!(
        said(&connection("eth2", "10.20.1.21", "eth3", "10.20.4.7", "tcp/503")),
        "denied: no flow permits it; the nearest is control-room-to-pumps/polling, but port 503 is not 502"
    );
    assert_eq!(
        said(&connection("eth1", "10.1.7.21", "eth3", "10.20.4.7", "tcp/502")),
        "denied: no flow permits it; the nearest is control-room-to-pumps/polling, \
         but source 10.1.7.21 is not hmi-1 (10.20.1.21) or historian (10.20.1.30)"
    );
    assert_eq!(
        said(&connection("eth1", "10.20.1.21", "eth3", "10.20.4.7", "tcp/502")),
        "denied: 10.20.1.21 is in no zone on the side of eth1: forged, or not declared"
    );
    assert_eq!(
        said(&connection("eth2", "10.20.1.99", "eth4", "10.20.9.4", "tcp/22")),
        "denied: no flow permits it, nor anything like it"
    );
    // A flow of another conduit that has only its service in common is of no use to anybody.
    assert_eq!(
        said(&connection("eth4", "10.20.9.4", "eth1", "10.1.7.21", "tcp/502")),
        "denied: no flow permits it, nor anything like it"
    );
    assert_eq!(
        said(&connection("eth0", "192.0.2.10", "eth3", "10.20.4.7", "tcp/502")),
        "denied: interface eth0 belongs to no zone of this plan: name it under the gateway's interfaces if traffic \
         should cross it"
    );
    assert_eq!(
        said(&connection("eth3", "10.20.4.7", "eth0", "192.0.2.10", "tcp/443")),
        "denied: interface eth0 belongs to no zone of this plan: name it under the gateway's interfaces if traffic \
         should cross it"
    );
    assert_eq!(
        said(&connection("eth0", "192.0.2.10", "eth9", "10.20.4.7", "tcp/502")),
        "not guarded: neither of its interfaces belongs to a zone of this plan"
    );
    assert_eq!(
        said(&connection("eth3", "10.20.4.7", "eth3", "10.20.4.8", "udp/1")),
        "allowed: both ends are in zone control"
    );
}

#[test]
fn a_pair_of_sides_only_observes_when_both_do() {
    let mut plant = waterworks();
    let office_to_safety = connection("eth1", "10.1.7.21", "eth4", "10.20.9.3", "tcp/502");
    for (office, safety, expected) in [
        (Enforcement::Observe, Enforcement::Observe, Decision::WouldDeny),
        (Enforcement::Observe, Enforcement::Enforce, Decision::Deny),
        (Enforcement::Enforce, Enforcement::Observe, Decision::Deny),
        (Enforcement::Enforce, Enforcement::Enforce, Decision::Deny),
    ] {
        plant.zones.get_mut(&id("office")).unwrap().enforcement = office;
        plant.zones.get_mut(&id("safety")).unwrap().enforcement = safety;
        let plan = compile(&plant, &gateway()).unwrap();
        assert_eq!(decide(&plan, &office_to_safety).decision, expected);
    }
}

/// The mode that the document gives an address on one side of a gateway: its zone's, of whatever is declared there; the
/// strictest of that side's zones if it is in none of them.
fn mode_by_zone(plant: &Plant, plan: &Plan, interface: &str, address: IpAddr) -> Option<Enforcement> {
    let interface = plant.gateways[&plan.gateway].interfaces.get(interface)?;
    let zones: Vec<&ZoneId> = std::iter::once(&interface.zone)
        .chain(&interface.behind)
        .collect();
    let has = |zone: &&&ZoneId| {
        let asset = plant
            .assets
            .values()
            .find(|asset| asset.addresses.contains(&address));
        asset.map_or_else(
            || {
                plant.zones[**zone]
                    .networks
                    .iter()
                    .any(|network| network.contains(&address))
            },
            |asset| asset.zone == ***zone,
        )
    };
    let holding = zones.iter().find(has).map(|zone| plant.zones[*zone].enforcement);
    holding.or_else(|| zones.iter().map(|zone| plant.zones[*zone].enforcement).max())
}

/// An office that observes lies behind the side of a control room that enforces, and the other way round.
#[test]
fn each_zone_of_a_side_keeps_its_own_mode() {
    let mut plant = waterworks();
    plant.zones.get_mut(&id("office")).unwrap().enforcement = Enforcement::Observe;
    plant.zones.get_mut(&id("safety")).unwrap().enforcement = Enforcement::Observe;
    let interfaces = &mut plant.gateways.get_mut(&gateway()).unwrap().interfaces;
    interfaces.remove("eth1");
    interfaces.get_mut("eth2").unwrap().behind = vec![id("office")];
    let plan = compile(&plant, &gateway()).unwrap();
    let judged = |source: &str, egress: &str, destination: &str| {
        decide(&plan, &connection("eth2", source, egress, destination, "udp/9")).decision
    };
    let (office, operations, stranger) = ("10.1.7.21", "10.20.1.21", "203.0.113.9");
    let (safety, control) = ("10.20.9.3", "10.20.4.7");
    assert_eq!(
        judged(office, "eth4", safety),
        Decision::WouldDeny,
        "both observe"
    );
    assert_eq!(
        judged(operations, "eth4", safety),
        Decision::Deny,
        "operations enforce"
    );
    assert_eq!(
        judged(office, "eth3", control),
        Decision::Deny,
        "control enforces"
    );
    assert_eq!(
        judged(stranger, "eth4", safety),
        Decision::Deny,
        "as the strictest zone of its side"
    );
    assert_eq!(
        judged(office, "eth4", stranger),
        Decision::WouldDeny,
        "all that is there observes"
    );
    assert_eq!(
        judged(office, "eth9", stranger),
        Decision::WouldDeny,
        "the guarded side decides"
    );
    assert_eq!(
        judged(operations, "eth9", stranger),
        Decision::Deny,
        "the guarded side decides"
    );
}

#[test]
fn flows_that_share_a_tuple_add_their_operations() {
    let plan = compile(&waterworks(), &gateway()).unwrap();
    let steering = connection("eth2", "10.20.1.21", "eth3", "10.20.4.7", "tcp/502");
    let Permissions::Only(listed) = permitted(&plan, &steering) else {
        unreachable!("both flows list operations");
    };
    let flows: Vec<&str> = listed.iter().map(|(rule, _)| rule.flow.as_str()).collect();
    assert_eq!(flows, ["polling", "setpoints"]);
    let polling = connection("eth2", "10.20.1.30", "eth3", "10.20.4.7", "tcp/502");
    assert!(matches!(permitted(&plan, &polling), Permissions::Only(listed) if listed.len() == 1));
    let other = connection("eth2", "10.20.1.31", "eth3", "10.20.4.7", "tcp/502");
    assert_eq!(permitted(&plan, &other), Permissions::Nothing);
}

#[test]
fn a_transport_reads_back_as_it_is_written() {
    for text in ["tcp/502", "udp/161", "icmp-echo", "ip/47"] {
        assert_eq!(text.parse::<Carried>().unwrap().to_string(), text);
    }
    for text in ["", "tcp", "tcp/", "tcp/70000", "sctp/1", "icmp", "any"] {
        assert!(text.parse::<Carried>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn the_verdict_equals_a_second_definition_by_exhaustion((plan, connections) in plans_with_connections(24)) {
        for connection in &connections {
            let verdict = decide(&plan, connection);
            let found = match &verdict.reason {
                Reason::Rule(name) => Ok(plan.rules.iter().position(|rule| rule.id == name.id).unwrap()),
                Reason::SameZone(_) => Err((verdict.decision, "same zone")),
                Reason::Misplaced { .. } => Err((verdict.decision, "misplaced")),
                Reason::NoRule { .. } => Err((verdict.decision, "no rule")),
                Reason::Closed { .. } => Err((verdict.decision, "closed")),
                Reason::Unproven { .. } => Err((verdict.decision, "unproven")),
                Reason::Unguarded { .. } => Err((verdict.decision, "unguarded")),
                Reason::Around => Err((verdict.decision, "around")),
                Reason::NotGuarded => Err((verdict.decision, "not guarded")),
            };
            prop_assert_eq!(found, naive(&plan, connection), "{}", connection);
        }
    }

    #[test]
    fn taking_a_rule_away_never_allows_more_and_takes_only_its_own(
        (plan, connections) in plans_with_connections(24), at in any::<prop::sample::Index>(),
    ) {
        if plan.rules.is_empty() {
            return Ok(());
        }
        let mut less = plan.clone();
        let gone = less.rules.remove(at.index(plan.rules.len()));
        for connection in &connections {
            let (before, after) = (decide(&plan, connection), decide(&less, connection));
            if after.decision == Decision::Allow {
                prop_assert_eq!(before.decision, Decision::Allow, "{}", connection);
            } else if before.decision == Decision::Allow {
                prop_assert_eq!(before.reason, Reason::Rule(RuleName::of(&gone)), "{}", connection);
            }
        }
    }

    #[test]
    fn a_plan_without_rules_allows_nothing_across_zones((plan, connections) in plans_with_connections(24)) {
        let mut empty = plan;
        empty.rules.clear();
        for connection in &connections {
            let verdict = decide(&empty, connection);
            prop_assert!(
                verdict.decision != Decision::Allow || matches!(verdict.reason, Reason::SameZone(_)),
                "{}", connection
            );
        }
    }

    #[test]
    fn no_plan_lets_anything_cross_between_a_guarded_interface_and_one_that_it_does_not_name(
        (plan, connections) in plans_with_connections(24),
    ) {
        for connection in &connections {
            let named = |name: &str| plan.interfaces.iter().find(|side| side.name == name);
            for guarded in [named(&connection.ingress), named(&connection.egress)].into_iter().flatten() {
                let (inwards, outwards) = (
                    Connection { ingress: "elsewhere".to_owned(), egress: guarded.name.clone(), ..connection.clone() },
                    Connection { ingress: guarded.name.clone(), egress: "elsewhere".to_owned(), ..connection.clone() },
                );
                for crossing in [inwards, outwards] {
                    let verdict = decide(&plan, &crossing);
                    let end = if crossing.ingress == guarded.name { crossing.source } else { crossing.destination };
                    let refused = match guarded.observing.mode(Some(end)) {
                        Enforcement::Observe => Decision::WouldDeny,
                        Enforcement::Enforce => Decision::Deny,
                    };
                    prop_assert_eq!(verdict.decision, refused, "{}", crossing);
                    let interface = "elsewhere".to_owned();
                    prop_assert_eq!(verdict.reason, Reason::Unguarded { interface }, "{}", crossing);
                }
            }
        }
    }

    #[test]
    fn no_address_of_one_side_crosses_to_another_by_interfaces_that_the_plan_does_not_name(
        (plan, connections) in plans_with_connections(24),
    ) {
        for connection in &connections {
            let around = Connection {
                ingress: "renamed0".to_owned(), egress: "renamed1".to_owned(), ..connection.clone()
            };
            let verdict = decide(&plan, &around);
            let crosses = matches!(
                decide(&plan, connection).reason,
                Reason::Rule(_) | Reason::NoRule { .. }
            );
            let together = plan
                .interfaces
                .iter()
                .any(|side| side.holds(around.source) && side.holds(around.destination));
            if crosses && !together {
                prop_assert_eq!(&verdict.reason, &Reason::Around, "{}", around);
            }
            prop_assert!(verdict.decision != Decision::Allow, "{}", around);
        }
    }

    #[test]
    fn nothing_is_denied_between_zones_that_observe_and_nothing_undeclared_passes_where_one_enforces(
        plant in plants(), dice in prop::collection::vec(any::<[u32; crate::arbitrary::DICE]>(), 24),
    ) {
        for plan in compile_all(&plant).unwrap().values() {
            for dice in &dice {
                let connection = crate::arbitrary::connection_near(plan, dice);
                let modes: Vec<Enforcement> = [
                    (&connection.ingress, connection.source),
                    (&connection.egress, connection.destination),
                ]
                .into_iter()
                .filter_map(|(interface, address)| mode_by_zone(&plant, plan, interface, address))
                .collect();
                let named = |name: &str| plan.interfaces.iter().any(|side| side.name == name);
                if !named(&connection.ingress) && !named(&connection.egress) {
                    // The ends' own sides decide; the definition by exhaustion says how.
                    continue;
                }
                let strictest = modes.iter().max();
                match decide(plan, &connection).decision {
                    Decision::Deny => prop_assert_eq!(strictest, Some(&Enforcement::Enforce), "{}", connection),
                    Decision::WouldDeny => prop_assert_eq!(strictest, Some(&Enforcement::Observe), "{}", connection),
                    Decision::NotGuarded => prop_assert_eq!(strictest, None, "{}", connection),
                    Decision::Allow => {}
                }
            }
        }
    }

    #[test]
    fn what_is_allowed_was_declared_in_the_plant_between_those_very_ends(
        plant in plants(), dice in prop::collection::vec(any::<[u32; crate::arbitrary::DICE]>(), 24),
    ) {
        for plan in compile_all(&plant).unwrap().values() {
            for dice in &dice {
                let connection = crate::arbitrary::connection_near(plan, dice);
                let Reason::Rule(name) = decide(plan, &connection).reason else { continue };
                let conduit = &plant.conduits[&name.conduit];
                prop_assert!(conduit.via.contains(&plan.gateway));
                let flow = &conduit.flows[&name.flow];
                let holds = |ends: &[crate::model::FlowEnd], address: IpAddr| ends.iter().any(|end| match end {
                    crate::model::FlowEnd::Asset(_, addresses) => addresses.contains(&address),
                    crate::model::FlowEnd::Zone(_, networks) => networks.iter().any(|net| net.contains(&address)),
                });
                prop_assert!(holds(&flow.sources, connection.source), "{}", connection);
                prop_assert!(holds(&flow.destinations, connection.destination), "{}", connection);
            }
        }
    }

    #[test]
    fn the_nearest_flow_shares_the_server_the_client_or_both_networks((plan, connections) in plans_with_connections(24)) {
        for connection in &connections {
            if let Reason::NoRule { nearest: Some(nearest) } = decide(&plan, connection).reason {
                let rule = plan.rules.iter().find(|rule| rule.id == nearest.rule.id).unwrap();
                let has = |ends: &[Endpoint], address| ends.iter().any(|end| end.network.contains(&address));
                let beside = |name: &str, address: IpAddr, ends: &[Endpoint]| {
                    let side = plan.interfaces.iter().find(|side| side.name == name).unwrap();
                    let network = side.networks.iter().find(|network| network.contains(&address)).unwrap();
                    ends.iter().any(|end| network.contains(&end.network))
                };
                let (source, destination) = (connection.source, connection.destination);
                let shares = has(&rule.sources, source)
                    || has(&rule.destinations, destination)
                    || beside(&connection.ingress, source, &rule.sources)
                        && beside(&connection.egress, destination, &rule.destinations);
                prop_assert!(shares, "{}", connection);
                // Whoever may do it is never further away than whoever may do something else between the same two.
                if for_others(&plan, connection).next().is_some() {
                    prop_assert!(has(&rule.destinations, destination) || has(&rule.sources, source));
                }
            }
        }
    }

    #[test]
    fn a_refusal_always_says_what_differs_from_the_nearest((plan, connections) in plans_with_connections(24)) {
        for connection in &connections {
            if let Reason::NoRule { nearest: Some(nearest) } = decide(&plan, connection).reason {
                prop_assert!(!nearest.differs.is_empty(), "{}", connection);
            }
        }
    }
}

/// Without this the properties above could hold for want of cases.
#[test]
fn random_connections_meet_every_kind_of_verdict() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..200 {
        let (plan, connections) = plans_with_connections(20)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        for connection in connections {
            let verdict = decide(&plan, &connection);
            let reason = match verdict.reason {
                Reason::Rule(_) => "rule",
                Reason::SameZone(_) => "same zone",
                Reason::Misplaced { .. } => "misplaced",
                Reason::NoRule { .. } => "no rule",
                Reason::Closed { .. } => "closed",
                Reason::Unproven { .. } => "unproven",
                Reason::Unguarded { .. } => "unguarded",
                Reason::Around => "around",
                Reason::NotGuarded => "not guarded",
            };
            *seen.entry((verdict.decision.code(), reason)).or_insert(0_u32) += 1;
        }
    }
    for kind in [
        ("allow", "rule"),
        ("allow", "same zone"),
        ("deny", "misplaced"),
        ("deny", "no rule"),
        ("deny", "closed"),
        ("would-deny", "misplaced"),
        ("would-deny", "no rule"),
        ("deny", "unguarded"),
        ("deny", "around"),
        ("would-deny", "around"),
        ("would-deny", "unguarded"),
        ("not-guarded", "not guarded"),
    ] {
        assert!(
            seen.get(&kind).is_some_and(|count| *count >= 10),
            "{:?} in {:?}",
            kind,
            seen
        );
    }
}
