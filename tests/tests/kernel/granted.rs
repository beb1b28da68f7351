//! Conduits that hang on grants of remote access: what the kernel makes of them while an agent lives, and when none does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use penstock_agent::enforce::{ApplyMethod, DriftState};
use penstock_agent::intercept::InspectorPorts;
use penstock_policy::ids::FlowId;
use penstock_policy::plan::{Grant, Plan};
use penstock_policy::terms::{OnAgentLoss, PortRange, Transport};
use penstock_policy::verdict::Carried;

use super::flows::probe;
use super::inspected::{inspected, with_ports};
use super::plans::{rule, tcp, two_flows};
use super::wire::{Part, Probe};
use super::world::{Agent, PATIENCE, World, at_each_gateway};

/// The plan with its first `count` conduits hanging on a grant, which opens them or not.
pub fn granted(mut plan: Plan, count: usize, opens: bool) -> Plan {
    let visit = Grant {
        name: "visit".parse().unwrap(),
        person: "Carla".to_owned(),
        from_ms: 1_000,
        until_ms: 2_000,
    };
    let conduits: BTreeSet<_> = plan
        .rules
        .iter()
        .take(count)
        .map(|rule| rule.conduit.clone())
        .collect();
    plan.grants = conduits
        .iter()
        .map(|conduit| (conduit.clone(), vec![visit.clone()]))
        .collect();
    plan.at(Some(if opens { 1_500 } else { 2_000 }))
}

fn connections() -> [Probe; 4] {
    [
        probe("10.1.0.5", "10.2.0.9", Carried::Tcp(502), 4000),
        probe("fd00:1::5", "fd00:2::9", Carried::Tcp(502), 4001),
        probe("10.1.0.6", "10.2.0.9", Carried::Udp(4050), 5000),
        probe("fd00:1::6", "fd00:2::9", Carried::Udp(4050), 5001),
    ]
}

fn passes(world: &World, probe: &Probe, part: Part, expected: bool) -> bool {
    world.passes("lan1", "lan2", probe, part, expected)
}

/// Waits until packets of a connection no longer pass.
fn ends(world: &World, probe: &Probe) {
    let begun = Instant::now();
    while passes(world, probe, Part::Data, false) {
        assert!(begun.elapsed() < PATIENCE, "{probe:?} goes on");
    }
}

fn left(plan: &Plan, left: Duration) -> BTreeMap<penstock_policy::ids::ConduitId, Duration> {
    plan.open.iter().map(|conduit| (conduit.clone(), left)).collect()
}

#[test]
fn a_conduit_is_closed_without_its_grant_open_during_it_and_closed_in_both_directions_after_it() {
    at_each_gateway(
        "granted::a_conduit_is_closed_without_its_grant_open_during_it_and_closed_in_both_directions_after_it",
        async |mode, world, agent| {
            // The first flow hangs on a grant, the second stands open.
            let [closed, open] = [false, true].map(|opens| granted(two_flows(mode), 1, opens));
            agent.apply(&closed, 1).await;
            let [tcp4, tcp6, udp4, udp6] = connections();
            let parts = [Part::Opening, Part::Answer, Part::Data];
            for probe in [tcp4, tcp6] {
                assert!(!passes(world, &probe, Part::Opening, false), "{probe:?}");
            }
            // What opens and closes are a few elements, not the rules.
            assert_eq!(agent.apply(&open, 1).await.change, ApplyMethod::Differences);
            for probe in [tcp4, tcp6, udp4, udp6] {
                for part in parts {
                    assert!(passes(world, &probe, part, true), "{probe:?} {part:?}");
                }
            }
            assert_eq!(agent.apply(&closed, 1).await.change, ApplyMethod::Differences);
            for probe in [tcp4, tcp6] {
                for part in parts {
                    assert!(!passes(world, &probe, part, false), "{probe:?} {part:?}");
                }
            }
            for probe in [udp4, udp6] {
                assert!(passes(world, &probe, Part::Data, true), "{probe:?}");
            }
            // The document lets it stand open, and then again not.
            assert_eq!(
                agent.apply(&two_flows(mode), 2).await.change,
                ApplyMethod::Restructured
            );
            assert!(passes(world, &tcp4, Part::Opening, true));
            assert_eq!(agent.apply(&closed, 3).await.change, ApplyMethod::Restructured);
            assert!(!passes(world, &tcp4, Part::Data, false));
            assert!(passes(world, &udp4, Part::Data, true));
        },
    );
}

#[test]
fn the_kernel_ends_a_grant_by_itself_where_no_agent_lives_and_nothing_else() {
    at_each_gateway(
        "granted::the_kernel_ends_a_grant_by_itself_where_no_agent_lives_and_nothing_else",
        async |mode, world, agent| {
            let open = granted(two_flows(mode), 1, true);
            agent.apply(&open, 1).await;
            let [tcp4, tcp6, udp4, _] = connections();
            for probe in [tcp4, tcp6, udp4] {
                assert!(passes(world, &probe, Part::Opening, true), "{probe:?}");
                assert!(passes(world, &probe, Part::Answer, true), "{probe:?}");
            }
            agent
                .enforcer
                .hold_open(left(&open, Duration::from_millis(300)))
                .await
                .unwrap();
            drop(agent);
            for probe in [tcp4, tcp6] {
                ends(world, &probe);
                assert!(!passes(world, &probe, Part::Answer, false), "{probe:?}");
            }
            assert!(passes(world, &udp4, Part::Data, true), "it stands open");
            assert!(passes(world, &udp4, Part::Answer, true), "it stands open");
            // The next agent finds what it expects, and that grants have ended is no drift.
            let next = Agent::start();
            let plan = std::sync::Arc::new(open.clone());
            let applied = next
                .enforcer
                .apply(plan, penstock_policy::ids::Revision(1))
                .await
                .unwrap();
            assert_eq!(applied.change, ApplyMethod::Adopted);
            assert_eq!(next.enforcer.verify().await.unwrap(), DriftState::None);
            assert!(
                !passes(world, &tcp4, Part::Data, false),
                "nobody has prolonged it"
            );
            next.enforcer
                .hold_open(left(&open, Duration::from_secs(600)))
                .await
                .unwrap();
            assert!(passes(world, &tcp4, Part::Data, true));
            assert_eq!(next.enforcer.verify().await.unwrap(), DriftState::None);
        },
    );
}

#[test]
fn a_grant_of_any_length_opens_its_conduit_and_no_longer_grant_keeps_others_closed() {
    at_each_gateway(
        "granted::a_grant_of_any_length_opens_its_conduit_and_no_longer_grant_keeps_others_closed",
        async |mode, world, agent| {
            let open = granted(two_flows(mode), 2, true);
            agent.apply(&open, 1).await;
            let [tcp4, _, udp4, _] = connections();
            let day = Duration::from_hours(24);
            for longest in [
                day + Duration::from_hours(4),
                30 * day + Duration::from_millis(5),
                400 * day,
                Duration::from_millis(u64::MAX),
            ] {
                let mut left = left(&open, Duration::from_mins(10));
                *left.values_mut().next().unwrap() = longest;
                agent.enforcer.hold_open(left).await.unwrap();
                for probe in [tcp4, udp4] {
                    assert!(
                        passes(world, &probe, Part::Opening, true),
                        "{longest:?} {probe:?}"
                    );
                }
                assert_eq!(agent.enforcer.verify().await.unwrap(), DriftState::None);
            }
        },
    );
}

/// The grant names one host and two ports; the network around that host may use one of them at all times.
#[test]
fn a_grant_that_ends_takes_nothing_away_that_stands_open() {
    at_each_gateway(
        "granted::a_grant_that_ends_takes_nothing_away_that_stands_open",
        async |mode, world, agent| {
            let mut open = granted(two_flows(mode), 1, true);
            open.rules[0].transport = Transport::Tcp([502, 503].map(PortRange::single).to_vec());
            let servers = ["10.2.0.9", "fd00:2::9"];
            let around = rule(9, &["10.1.0.0/24", "fd00:1::/64"], &servers, tcp(502));
            open.rules.push(around);
            agent.apply(&open, 1).await;
            let [tcp4, tcp6, ..] = connections();
            let by_grant = probe("10.1.0.5", "10.2.0.9", Carried::Tcp(503), 4010);
            for probe in [tcp4, tcp6, by_grant] {
                assert!(passes(world, &probe, Part::Opening, true), "{probe:?}");
                assert!(passes(world, &probe, Part::Answer, true), "{probe:?}");
            }
            agent
                .enforcer
                .hold_open(left(&open, Duration::from_millis(200)))
                .await
                .unwrap();
            drop(agent);
            ends(world, &by_grant);
            for probe in [tcp4, tcp6] {
                assert!(passes(world, &probe, Part::Data, true), "{probe:?}");
                assert!(passes(world, &probe, Part::Answer, true), "{probe:?}");
            }
        },
    );
}

/// The flow that stands open limits operations, and comes first in the plan; the grant permits anything.
#[test]
fn what_a_grant_lets_pass_unread_ends_with_it_where_another_flow_names_the_same_connection() {
    at_each_gateway(
        "granted::what_a_grant_lets_pass_unread_ends_with_it_where_another_flow_names_the_same_connection",
        async |mode, world, agent| {
            drop(agent);
            let nobody = InspectorPorts { v4: 4999, v6: 4999 };
            let agent = Agent::start_with(with_ports(nobody));
            let mut open = granted(two_flows(mode), 1, true);
            let mut limited = inspected(mode, OnAgentLoss::Block).rules[0].clone();
            limited.id = FlowId(5);
            limited.conduit = "c5".parse().unwrap();
            open.rules.insert(0, limited);
            agent.apply(&open, 1).await;
            let [tcp4, tcp6, ..] = connections();
            for probe in [tcp4, tcp6] {
                assert!(passes(world, &probe, Part::Opening, true), "{probe:?}");
                assert!(passes(world, &probe, Part::Answer, true), "{probe:?}");
            }
            agent
                .enforcer
                .hold_open(left(&open, Duration::from_millis(200)))
                .await
                .unwrap();
            for probe in [tcp4, tcp6] {
                ends(world, &probe);
                assert!(!passes(world, &probe, Part::Answer, false), "{probe:?}");
            }
        },
    );
}

#[test]
fn a_flow_by_ranges_ends_with_its_grant_too() {
    at_each_gateway(
        "granted::a_flow_by_ranges_ends_with_its_grant_too",
        async |mode, world, agent| {
            let open = granted(two_flows(mode), 2, true);
            agent.apply(&open, 1).await;
            let [_, _, udp4, udp6] = connections();
            for probe in [udp4, udp6] {
                assert!(passes(world, &probe, Part::Opening, true), "{probe:?}");
            }
            agent
                .enforcer
                .hold_open(left(&open, Duration::from_millis(200)))
                .await
                .unwrap();
            for probe in [udp4, udp6] {
                ends(world, &probe);
            }
        },
    );
}

#[test]
fn an_inspected_flow_that_passes_unread_without_an_agent_ends_with_its_grant() {
    at_each_gateway(
        "granted::an_inspected_flow_that_passes_unread_without_an_agent_ends_with_its_grant",
        async |mode, world, agent| {
            drop(agent);
            let nobody = InspectorPorts { v4: 4999, v6: 4999 };
            let agent = Agent::start_with(with_ports(nobody));
            let open = granted(inspected(mode, OnAgentLoss::Pass), 1, true);
            agent.apply(&open, 1).await;
            let [tcp4, ..] = connections();
            assert!(passes(world, &tcp4, Part::Opening, true));
            agent
                .enforcer
                .hold_open(left(&open, Duration::from_millis(200)))
                .await
                .unwrap();
            // Each connection anew: what began before is another matter where operations are read.
            let begun = Instant::now();
            let passes_anew = |number| {
                let anew = probe("10.1.0.5", "10.2.0.9", Carried::Tcp(502), number);
                passes(world, &anew, Part::Opening, false)
            };
            assert!(
                (4100..)
                    .take_while(|_| begun.elapsed() < PATIENCE)
                    .any(|number| !passes_anew(number)),
                "it goes on"
            );
        },
    );
}
