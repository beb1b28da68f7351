#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod break_glass;
mod change_control;
mod ended;
mod sessions;
mod standing;
mod vaguer;

use proptest::prelude::*;

use super::*;
use crate::arbitrary::{DICE, connection_near, plants};
use crate::compile::compile_all;
use crate::ids::FlowId;
use crate::model::FlowEnd;
use crate::plan::{Capability, Observing};
use crate::protocol::Operations;
use crate::terms::{Answers, Enforcement, OnAgentLoss, OnRefusal, PortRange, Tls, Transport};
use crate::verdict::decide;
use crate::waterworks::{
    asset, bridge, carried, conduit, gateway, id, messages, modbus, operation, publish, waterworks,
    with_brokers,
};

/// Codes found in a plant that was changed before compiling.
fn codes(change: impl FnOnce(&mut Plant)) -> Vec<&'static str> {
    let mut plant = waterworks();
    change(&mut plant);
    listed(&check(&plant, &compile_all(&plant).unwrap(), None))
}

/// Codes found in a plan that was changed after compiling.
fn plan_codes(change: impl FnOnce(&mut Plan)) -> Vec<&'static str> {
    let plant = waterworks();
    let mut plans = compile_all(&plant).unwrap();
    change(plans.get_mut(&gateway()).unwrap());
    listed(&check(&plant, &plans, None))
}

/// Codes found in a changed plant, judged against the plans of the water works as they were.
fn codes_after(change: impl FnOnce(&mut Plant)) -> Vec<&'static str> {
    let before = compile_all(&waterworks()).unwrap();
    let mut plant = waterworks();
    change(&mut plant);
    listed(&check(&plant, &compile_all(&plant).unwrap(), Some(&before)))
}

/// All but three that have tests of their own: the works' flows must flow and stop with the agent (`PC0161`), their
/// brokers let any client connect (`PC0120`), and nobody may override their gateway (`PC0182`).
fn listed(findings: &[Finding]) -> Vec<&'static str> {
    let codes = findings.iter().map(|finding| finding.code);
    codes
        .filter(|code| !["PC0120", "PC0161", "PC0182"].contains(code))
        .collect()
}

/// How grave the finding of this code is.
fn found(plant: &Plant, code: &str) -> Severity {
    let findings = check(plant, &compile_all(plant).unwrap(), None);
    findings
        .iter()
        .find(|finding| finding.code == code)
        .unwrap()
        .severity
}

fn flow<'a>(plant: &'a mut Plant, conduit: &str, flow: &str) -> &'a mut crate::model::Flow {
    plant
        .conduits
        .get_mut(&id(conduit))
        .unwrap()
        .flows
        .get_mut(&id(flow))
        .unwrap()
}

#[test]
fn the_water_works_have_no_finding_alone_or_against_themselves() {
    assert_eq!(codes(|_| {}), [""; 0]);
    assert_eq!(codes_after(|_| {}), [""; 0]);
}

#[test]
fn people_who_could_be_locked_out_are_found() {
    let management = |interface: &'static str, peers: &'static [&str]| {
        codes(move |plant| {
            let gateway = plant.gateways.get_mut(&gateway()).unwrap();
            let management = gateway.management.as_mut().unwrap();
            management.interface = interface.to_owned();
            management.peers = peers.iter().map(|peer| id(peer)).collect();
        })
    };
    assert_eq!(
        codes(|plant| plant.gateways.get_mut(&gateway()).unwrap().management = None),
        ["PC0101"]
    );
    assert_eq!(management("eth0", &[]), ["PC0102"]);
    assert_eq!(management("eth2", &["10.20.1.50/32"]), ["PC0103"]);
    assert_eq!(management("eth0", &["10.1.3.0/24"]), ["PC0104"]);
    assert_eq!(management("eth2", &["10.1.3.0/24"]), ["PC0104", "PC0103"]);
    let by_a_port = codes(|plant| {
        let gateway = plant.gateways.get_mut(&gateway()).unwrap();
        gateway.mode = crate::terms::GatewayMode::Bridged;
        gateway.management.as_mut().unwrap().interface = "eth2".to_owned();
    });
    assert_eq!(by_a_port, ["PC0105", "PC0103", "PC0106"]);
}

#[test]
fn a_bridge_with_flows_and_without_a_declared_router_is_noted() {
    let with_router = |router: Option<&str>| {
        codes(|plant| {
            let gateway = plant.gateways.get_mut(&gateway()).unwrap();
            gateway.mode = crate::terms::GatewayMode::Bridged;
            for interface in gateway.interfaces.values_mut() {
                interface.routers = router.iter().map(|router| id(router)).collect();
            }
        })
    };
    assert_eq!(with_router(None), ["PC0106"]);
    assert_eq!(with_router(Some("192.0.2.1/32")), [""; 0]);
}

#[test]
fn flows_that_share_connections_and_treat_them_differently_are_found() {
    let beside = |change: fn(&mut crate::model::Flow)| {
        let mut plant = with_brokers(messages);
        let flows = &mut plant.conduits.get_mut(&id("telemetry")).unwrap().flows;
        let mut second = flows[&id("upwards")].clone();
        second.operations = Some(Operations::from(vec![publish("pumps/+/level")]));
        change(&mut second);
        flows.insert(id("levels"), second);
        listed(&check(&plant, &compile_all(&plant).unwrap(), None))
    };
    assert_eq!(beside(|_| ()), [""; 0]);
    assert_eq!(beside(|flow| flow.tls = Some(Tls::default())), ["PC0125"; 2]);
    assert_eq!(beside(|flow| flow.on_refusal = OnRefusal::Reset), ["PC0126"; 2]);
    let in_order = beside(|flow| flow.answers = Answers::InOrder);
    assert_eq!(in_order, ["PC0128", "PC0128", "PC0129"]);
    // A bridge and a way past it, in either direction.
    assert_eq!(beside(carried), ["PC0127"]);
    assert_eq!(
        beside(|flow| {
            carried(flow);
            std::mem::swap(&mut flow.sources, &mut flow.destinations);
        }),
        ["PC0127"]
    );
}

#[test]
fn a_bridge_that_must_flow_is_missed_when_it_goes_or_carries_less() {
    let before = compile_all(&with_brokers(bridge)).unwrap();
    let after = |plant: Plant| listed(&check(&plant, &compile_all(&plant).unwrap(), Some(&before)));
    assert_eq!(after(with_brokers(bridge)), [""; 0]);
    assert_eq!(
        after(with_brokers(messages)),
        ["PC0131"],
        "a connection in its place is not it"
    );
    let less = |plant: &Plant| crate::model::Flow {
        operations: Some(Operations::from(vec![publish("pumps/1/pressure")])),
        ..bridge(plant)
    };
    assert_eq!(after(with_brokers(less)), ["PC0132"]);
}

#[test]
fn a_plan_that_is_not_what_the_plant_says_is_found() {
    assert_eq!(
        plan_codes(|plan| plan.gateway = id("gw-other")).first(),
        Some(&"PC0112")
    );
    assert_eq!(
        plan_codes(|plan| plan.rules[0].conduit = id("invented")),
        ["PC0113", "PC0114"]
    );
    assert_eq!(
        plan_codes(|plan| plan.rules[0].sources[0].network = id("10.20.1.22/32")),
        ["PC0113"]
    );
    assert_eq!(
        plan_codes(|plan| plan.rules[0].operations = None),
        ["PC0113", "PC0122"]
    );
    assert_eq!(plan_codes(|plan| plan.rules[0].must_flow = false), ["PC0113"]);
    assert_eq!(plan_codes(|plan| plan.rules.truncate(2)), ["PC0114"]);
    assert_eq!(
        plan_codes(|plan| plan.interfaces[1].observing = Observing::Everything),
        ["PC0115"]
    );
    assert_eq!(
        plan_codes(|plan| plan.interfaces[3].networks.push(id("10.20.8.0/24"))),
        ["PC0115"]
    );
    assert_eq!(plan_codes(|plan| plan.rules[0].id = FlowId(0)), ["PC0116"]);
    let uninspected = |plan: &mut Plan| {
        plan.requires.remove(&Capability::of("inspect:modbus-tcp"));
    };
    assert_eq!(plan_codes(uninspected), ["PC0116", "PC0117", "PC0117"]);

    let plant = waterworks();
    assert_eq!(listed(&check(&plant, &BTreeMap::new(), None)), ["PC0111"]);
}

#[test]
fn a_flow_that_says_nothing_new_is_found_once() {
    let twice = codes(|plant| {
        let again = flow(plant, "office-to-historian", "page").clone();
        let flows = &mut plant.conduits.get_mut(&id("office-to-historian")).unwrap().flows;
        flows.insert(id("page-2"), again);
    });
    assert_eq!(twice, ["PC0121"]);
    let within = codes(|plant| {
        let mut narrower = flow(plant, "office-to-historian", "page").clone();
        narrower.sources = vec![crate::waterworks::end(plant, "desk-1")];
        let flows = &mut plant.conduits.get_mut(&id("office-to-historian")).unwrap().flows;
        flows.insert(id("a-desk"), narrower);
    });
    assert_eq!(within, ["PC0121"]);
}

#[test]
fn a_limit_that_another_flow_voids_is_found() {
    let voided = codes(|plant| {
        let mut anything = flow(plant, "control-room-to-pumps", "polling").clone();
        anything.operations = None;
        anything.sources = vec![FlowEnd::Zone(id("operations"), vec![id("10.20.1.0/24")])];
        anything.service.transport = Transport::Tcp(vec![PortRange {
            first: 500,
            last: 510,
        }]);
        let flows = &mut plant
            .conduits
            .get_mut(&id("control-room-to-pumps"))
            .unwrap()
            .flows;
        flows.insert(id("anything"), anything);
    });
    assert_eq!(voided, ["PC0122", "PC0122"]);
    let two_protocols = codes(|plant| {
        flow(plant, "control-room-to-pumps", "setpoints").operations = Some(Operations::from(vec![
            crate::protocol::mqtt::MqttOperation::Connect {
                client_ids: None,
                users: None,
            },
        ]));
    });
    assert_eq!(two_protocols, ["PC0124", "PC0124"]);
}

#[test]
fn a_flow_that_passes_unread_without_an_agent_must_share_no_connection_with_one_that_a_grant_ends() {
    let judged = |on_agent_loss, granted_first: bool, change: fn(&mut Plan)| {
        let mut plan = compile_all(&waterworks()).unwrap().remove(&gateway()).unwrap();
        plan.rules.retain(|rule| rule.operations.is_some());
        plan.rules.truncate(1);
        plan.rules[0].on_agent_loss = on_agent_loss;
        let mut other = plan.rules[0].clone();
        other.conduit = id("visit");
        other.operations = None;
        other.sources.truncate(1);
        let place = if granted_first { 0 } else { 1 };
        plan.rules.insert(place, other);
        plan.grants.insert(id("visit"), Vec::new());
        change(&mut plan);
        let mut findings = Findings::default();
        rules::check(&plan, &mut findings);
        let errors = findings
            .all
            .iter()
            .filter(|finding| finding.severity == Severity::Error);
        errors
            .map(|finding| finding.code)
            .collect::<std::collections::BTreeSet<_>>()
    };
    for first in [false, true] {
        assert_eq!(judged(OnAgentLoss::Pass, first, |_| ()), ["PC0122"].into());
        assert_eq!(judged(OnAgentLoss::Block, first, |_| ()), [].into());
        // Both hang on grants, or neither does.
        let both = |plan: &mut Plan| {
            for rule in plan.rules.clone() {
                plan.grants.insert(rule.conduit, Vec::new());
            }
        };
        assert_eq!(judged(OnAgentLoss::Pass, first, both), [].into());
        let neither = |plan: &mut Plan| plan.grants.clear();
        assert_eq!(judged(OnAgentLoss::Pass, first, neither), [].into());
    }
}

#[test]
fn a_flow_whose_ends_are_not_on_two_sides_is_found() {
    let dead = codes(|plant| {
        plant
            .gateways
            .get_mut(&gateway())
            .unwrap()
            .interfaces
            .remove("eth1");
    });
    assert_eq!(dead, ["PC0123"]);
}

#[test]
fn a_must_flow_that_would_be_lost_is_found_by_what_was_in_force() {
    let lost = |change: fn(&mut Plant)| codes_after(change);
    let without = lost(|plant| {
        let flows = &mut plant
            .conduits
            .get_mut(&id("control-room-to-pumps"))
            .unwrap()
            .flows;
        flows.remove(&id("setpoints"));
    });
    // Its tuple still passes, as polling; but it may not write any more.
    assert_eq!(without, ["PC0132"]);
    assert_eq!(
        lost(|plant| {
            plant.conduits.remove(&id("control-room-to-pumps"));
        }),
        ["PC0131", "PC0131"]
    );
    assert_eq!(
        lost(|plant| {
            flow(plant, "control-room-to-pumps", "polling").sources.pop();
        }),
        ["PC0131"]
    );
    // A flow that need not flow may go.
    assert_eq!(
        lost(|plant| {
            plant.conduits.remove(&id("office-to-historian"));
        }),
        [""; 0]
    );
    let moved = lost(|plant| {
        plant
            .gateways
            .get_mut(&gateway())
            .unwrap()
            .interfaces
            .get_mut("eth3")
            .unwrap()
            .zone = id("safety");
    });
    assert!(moved.contains(&"PC0131"), "{moved:?}");
}

#[test]
fn ways_into_safety_are_found_and_weighed() {
    let status = |operations: Option<&str>, from: &'static str| {
        let operations = operations.map(|function| vec![operation(function, (0, 15))]);
        codes(move |plant| {
            if from == "office" {
                plant.assets.insert(id("hmi-1"), asset("office", "10.1.0.9"));
                plant.conduits.remove(&id("control-room-to-pumps"));
            }
            let mut flow = modbus(operations, plant, "hmi-1", "sis-1");
            flow.must_flow = false;
            plant
                .conduits
                .insert(id("status"), conduit(from, "safety", vec![("status", flow)]));
        })
    };
    assert_eq!(status(Some("read-coils"), "office"), ["PC0141"]);
    // The office reaches the control room, which only reads: for the record.
    assert_eq!(status(Some("read-coils"), "operations"), ["PC0142"]);
    assert_eq!(status(None, "operations"), ["PC0142", "PC0143"]);
    let severity = |function: &str| {
        let mut plant = waterworks();
        let flow = modbus(Some(vec![operation(function, (0, 15))]), &plant, "hmi-1", "sis-1");
        plant.conduits.insert(
            id("status"),
            conduit("operations", "safety", vec![("status", flow)]),
        );
        found(&plant, "PC0142")
    };
    assert_eq!(severity("read-coils"), Severity::Note);
    assert_eq!(severity("write-single-coil"), Severity::Warning);
}

#[test]
fn a_zone_that_observes_above_its_level_and_sides_that_overlap_are_found() {
    let observing = |zone: &'static str| {
        codes(move |plant| plant.zones.get_mut(&id(zone)).unwrap().enforcement = Enforcement::Observe)
    };
    assert_eq!(observing("control"), ["PC0151"]);
    assert_eq!(observing("office"), [""; 0]);
    let severity = |requirement: &str, expired: bool| {
        let mut plant = waterworks();
        plant.zones.get_mut(&id("control")).unwrap().enforcement = Enforcement::Observe;
        plant.compensating_controls.insert(
            id("adoption"),
            crate::model::CompensatingControl {
                zone: Some(id("control")),
                asset: None,
                conduit: None,
                requirement: requirement.to_owned(),
                reason: "The line learns its own traffic first.".to_owned(),
                measure: "The old firewall stays in front.".to_owned(),
                approved_by: id("a.silva"),
                expires: "2027-06-30".to_owned(),
                expired,
            },
        );
        found(&plant, "PC0151")
    };
    assert_eq!(severity("SR 5.2", false), Severity::Note);
    assert_eq!(severity("SR 5.2", true), Severity::Warning, "it counts no more");
    assert_eq!(severity("SR 1.2", false), Severity::Warning);
    let overlapping = codes(|plant| {
        plant
            .zones
            .get_mut(&id("safety"))
            .unwrap()
            .networks
            .push(id("10.20.4.0/28"))
    });
    assert_eq!(overlapping, ["PC0152"]);
}

#[test]
fn a_finding_says_where_what_and_what_to_do() {
    let mut plant = waterworks();
    plant.gateways.get_mut(&gateway()).unwrap().management = None;
    assert_eq!(
        check(&plant, &compile_all(&plant).unwrap(), None)[0].to_string(),
        "error[PC0101]: gw-works: no management access is declared: nobody could reach the gateway except at its own console\n  \
         help: declare `management` with the interface and the peers that may use it"
    );
}

proptest! {
    /// The compiler and the checker were written apart; here they must agree.
    #[test]
    fn what_the_compiler_makes_is_faithful_and_loses_nothing_against_itself(plant in plants()) {
        let plans = compile_all(&plant).unwrap();
        for finding in check(&plant, &plans, Some(&plans)) {
            // Where a last metre is in the plain, it is said for its own sake.
            let contradicts = finding.code.starts_with("PC011")
                || (finding.code.starts_with("PC013") && finding.code != "PC0130");
            prop_assert!(!contradicts, "{}", finding);
        }
    }

    /// Whatever is done to a plan so that a verdict changes, the checker finds it.
    #[test]
    fn a_plan_with_another_verdict_than_the_plants_is_found(
        plant in plants(), spoil in 0..9_u8, at in any::<prop::sample::Index>(),
        dice in prop::collection::vec(any::<[u32; DICE]>(), 24),
    ) {
        let plans = compile_all(&plant).unwrap();
        let gateway = plans.keys().nth(at.index(plans.len())).unwrap().clone();
        let mut spoilt = plans.clone();
        let plan = spoilt.get_mut(&gateway).unwrap();
        damage(plan, spoil, &at);
        let differs = dice.iter().any(|dice| {
            let near = [connection_near(&plans[&gateway], dice), connection_near(plan, dice)];
            near.iter().any(|connection| decide(plan, connection) != decide(&plans[&gateway], connection))
        });
        let errors = check(&plant, &spoilt, None).iter().any(|finding| finding.code.starts_with("PC011"));
        prop_assert!(errors || !differs, "damage {spoil}");
    }
}

fn damage(plan: &mut Plan, spoil: u8, at: &prop::sample::Index) {
    let rule = at.index(plan.rules.len().max(1));
    let side = at.index(plan.interfaces.len());
    let another = plan.rules.get(plan.rules.len().saturating_sub(1 + rule)).cloned();
    match (spoil, plan.rules.get_mut(rule)) {
        (0, Some(_)) => drop(plan.rules.remove(rule)),
        (1, Some(rule)) => std::mem::swap(&mut rule.sources, &mut rule.destinations),
        (2, Some(rule)) => rule.transport = another.unwrap().transport,
        (3, Some(rule)) => rule.destinations = another.unwrap().destinations,
        (4, Some(rule)) => {
            rule.transport = Transport::Tcp(vec![PortRange {
                first: 1,
                last: 65535,
            }])
        }
        (5, Some(rule)) => rule.sources[0].network = id("0.0.0.0/0"),
        (6, _) => drop(plan.interfaces[side].networks.pop()),
        (7, _) => plan.interfaces[side].networks.push(id("198.51.100.0/24")),
        (8, _) => {
            let side = &mut plan.interfaces[side];
            side.observing = match &side.observing {
                Observing::Everything => Observing::Nothing,
                Observing::Nothing => Observing::Everything,
                Observing::Only(_) => Observing::Only(vec![id("198.51.100.0/24")]),
            };
        }
        _ => {}
    }
}
