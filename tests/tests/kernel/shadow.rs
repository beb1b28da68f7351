//! The next plan in its shadow: what it would refuse of live traffic is counted, and everything passes as without it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use penstock_agent::enforce::DriftState;
use penstock_agent::enforce::nft::names::TABLE_SHADOW;
use penstock_agent::enforce::nft::run::Nft;
use penstock_agent::kernel::ShadowReport;
use penstock_lab::{self as lab, Lab};
use penstock_policy::ids::Revision;
use penstock_policy::plan::{Observing, Plan};
use penstock_policy::terms::{GatewayMode, OnAgentLoss};
use penstock_policy::verdict::{Carried, Connection, Decision, decide};
use proptest::test_runner::Config;

use super::inspected::inspected;
use super::plans::{SIDES, observing, plan, rule, tcp, two_flows, udp};
use super::random::{INTERFACES, draw, first_seed, is_forwarded};
use super::wire::{Part, Probe};
use super::world::{Agent, World, at_each_gateway};

/// What the two flows of the policy in force carry: TCP that is opened, answered and goes on, and a datagram.
fn exchange(world: &World, number: u16) {
    let [tcp, udp] = [Carried::Tcp(502), Carried::Udp(4050)].map(|transport| Probe {
        source: "10.1.0.5".parse().unwrap(),
        destination: "10.2.0.9".parse().unwrap(),
        transport,
        number,
        dscp: 0,
    });
    for part in [Part::Opening, Part::Answer, Part::Data, Part::Push] {
        assert!(world.passes("lan1", "lan2", &tcp, part, true), "{part:?}");
    }
    assert!(world.passes("lan1", "lan2", &udp, Part::Opening, true));
}

/// The two flows, of which the first must not stop.
fn in_force(mode: GatewayMode) -> Plan {
    let mut plan = two_flows(mode);
    plan.rules[0].must_flow = true;
    plan
}

async fn begin(agent: &Agent, next: &Plan) {
    let next = Some((Arc::new(next.clone()), Revision(2)));
    agent.enforcer.shadow(next).await.unwrap();
}

async fn read(agent: &Agent) -> ShadowReport {
    agent.enforcer.shadowed().await.unwrap()
}

/// Whether there is a table of a shadow in the kernel.
fn stands(world: &World) -> bool {
    let tables = world.gateway.run("nft", &["list", "tables"]).unwrap();
    tables.contains(TABLE_SHADOW)
}

#[test]
fn a_release_that_would_cut_a_must_flow_is_seen_in_its_shadow_and_nothing_is_dropped() {
    at_each_gateway(
        "shadow::a_release_that_would_cut_a_must_flow_is_seen_in_its_shadow_and_nothing_is_dropped",
        async |mode, world, agent| {
            agent.apply(&in_force(mode), 1).await;
            exchange(world, 1000);
            let next = plan(mode, in_force(mode).rules.split_off(1));
            begin(&agent, &next).await;
            let report = read(&agent).await;
            assert_eq!((report.judged_packets, report.would_deny_packets), (0, 0));
            // A connection that stands, and a new one.
            exchange(world, 1000);
            exchange(world, 1001);
            let report = read(&agent).await;
            let expected = ShadowReport {
                since_ms: report.since_ms,
                since_boot: report.since_boot,
                judged_packets: 10,
                would_deny_packets: 8,
                would_cut_connections: 2,
                flows: vec!["conduit7/flow7".to_owned()],
                cuts_must_flow: true,
                ..ShadowReport::default()
            };
            assert_eq!(report, expected);
            assert_eq!(agent.enforcer.verify().await.unwrap(), DriftState::None);
            let counters = agent.enforcer.counters().await.unwrap();
            assert_eq!((counters.denied_packets, counters.would_deny_packets), (0, 0));
            // What the same release keeps, it does not count.
            begin(&agent, &in_force(mode)).await;
            exchange(world, 1002);
            let report = read(&agent).await;
            assert_eq!((report.judged_packets, report.would_deny_packets), (5, 0));
            assert_eq!((report.flows.len(), report.cuts_must_flow), (0, false));
            agent.enforcer.shadow(None).await.unwrap();
            assert!(!stands(world));
            assert_eq!(agent.enforcer.shadowed().await, None);
            assert_eq!(agent.enforcer.verify().await.unwrap(), DriftState::None);
        },
    );
}

#[test]
fn what_only_observation_lets_pass_is_counted_where_the_next_release_enforces() {
    at_each_gateway(
        "shadow::what_only_observation_lets_pass_is_counted_where_the_next_release_enforces",
        async |mode, world, agent| {
            let next = plan(mode, vec![rule(7, &["10.1.0.5"], &["10.2.0.9"], udp(4000, 4100))]);
            agent.apply(&observing(plan(mode, vec![]), &SIDES), 1).await;
            begin(&agent, &next).await;
            exchange(world, 1000);
            let report = read(&agent).await;
            assert_eq!((report.judged_packets, report.would_deny_packets), (5, 4));
            assert_eq!(report.flows, ["undeclared traffic"]);
            assert_eq!((report.would_cut_connections, report.cuts_must_flow), (1, false));
            // As long as both observe, nothing is refused.
            begin(&agent, &observing(next, &SIDES)).await;
            exchange(world, 1001);
            assert_eq!(read(&agent).await.would_deny_packets, 0);
        },
    );
}

#[test]
fn operations_that_are_read_from_the_next_release_on_are_said_to_be_not_judged() {
    at_each_gateway(
        "shadow::operations_that_are_read_from_the_next_release_on_are_said_to_be_not_judged",
        async |mode, world, agent| {
            agent.apply(&in_force(mode), 1).await;
            begin(&agent, &inspected(mode, OnAgentLoss::Block)).await;
            exchange(world, 1000);
            let report = read(&agent).await;
            assert_eq!((report.judged_packets, report.would_deny_packets), (5, 0));
            assert_eq!(
                report.not_judged,
                "the operations of conduit7/flow7: they are read only once this release is in force (connections that stand \
                 then are reset, so that they are read from their beginning: 1 so far)"
            );
        },
    );
}

#[test]
fn a_person_whom_the_next_release_locks_out_of_the_gateway_is_counted() {
    at_each_gateway(
        "shadow::a_person_whom_the_next_release_locks_out_of_the_gateway_is_counted",
        async |mode, world, agent| {
            world
                .gateway
                .ip(&["address", "add", "192.168.9.1/24", "dev", "eth0"])
                .unwrap();
            world
                .manager
                .ip(&["address", "add", "192.168.9.2/24", "dev", "eth0"])
                .unwrap();
            let listener = std::net::TcpListener::bind("192.168.9.1:22").unwrap();
            let reaches = || {
                world.manager.enter(|| {
                    let address = "192.168.9.1:22".parse().unwrap();
                    std::net::TcpStream::connect_timeout(&address, super::world::PATIENCE).unwrap();
                })
            };
            agent.apply(&in_force(mode), 1).await;
            let mut next = in_force(mode);
            begin(&agent, &next).await;
            reaches().unwrap();
            assert_eq!(read(&agent).await.would_deny_packets, 0);
            next.management.as_mut().unwrap().peers = vec!["192.168.9.9/32".parse().unwrap()];
            begin(&agent, &next).await;
            reaches().unwrap();
            let report = read(&agent).await;
            assert!(report.would_deny_packets > 0, "{report:?}");
            assert_eq!(report.flows, ["access to the gateway itself"]);
            drop(listener);
        },
    );
}

#[test]
fn the_shadow_of_an_agent_that_was_killed_goes_with_the_next_one() {
    at_each_gateway(
        "shadow::the_shadow_of_an_agent_that_was_killed_goes_with_the_next_one",
        async |mode, world, agent| {
            agent.apply(&in_force(mode), 1).await;
            begin(
                &agent,
                &plan(mode, vec![rule(9, &["10.1.0.5"], &["10.2.0.9"], tcp(22))]),
            )
            .await;
            drop(agent);
            assert!(stands(world));
            exchange(world, 1000);
            let agent = Agent::start();
            agent.apply(&in_force(mode), 1).await;
            assert_eq!(agent.enforcer.shadowed().await, None);
            exchange(world, 1001);
            // As the reconciler asks at its start.
            agent.enforcer.shadow(None).await.unwrap();
            assert!(!stands(world));
            assert_eq!(agent.enforcer.verify().await.unwrap(), DriftState::None);
            // And with the tables themselves.
            begin(&agent, &in_force(mode)).await;
            let nft = Nft::new("nft".into());
            nft.load(&penstock_agent::enforce::nft::render::remove())
                .await
                .unwrap();
            assert!(!stands(world));
        },
    );
}

#[test]
fn a_first_release_is_judged_where_no_policy_is_in_force() {
    at_each_gateway(
        "shadow::a_first_release_is_judged_where_no_policy_is_in_force",
        async |mode, world, agent| {
            begin(&agent, &in_force(mode)).await;
            exchange(world, 1000);
            // Nobody waits for a report that never comes: a rollout opens this gateway once it judged for long enough.
            let report = agent.enforcer.shadowed().await.unwrap();
            assert_eq!(report.would_deny_packets, 0, "{report:?}");
            assert!(report.since_ms > 0 && !report.since_boot.is_zero(), "{report:?}");
            let again = agent.enforcer.shadowed().await.unwrap();
            assert_eq!(
                (again.since_ms, again.since_boot),
                (report.since_ms, report.since_boot),
                "it does not begin again at each look"
            );
            agent.enforcer.shadow(None).await.unwrap();
            assert!(!stands(world));
        },
    );
}

#[test]
fn a_shadow_begins_again_where_somebody_removed_it_or_what_is_in_force_changed() {
    at_each_gateway(
        "shadow::a_shadow_begins_again_where_somebody_removed_it_or_what_is_in_force_changed",
        async |mode, world, agent| {
            let next = plan(mode, in_force(mode).rules.split_off(1));
            agent.apply(&in_force(mode), 1).await;
            begin(&agent, &next).await;
            exchange(world, 1000);
            assert_eq!(read(&agent).await.would_deny_packets, 4);
            let nft = Nft::new("nft".into());
            nft.load(&format!("delete table inet {TABLE_SHADOW}\n"))
                .await
                .unwrap();
            assert_eq!(read(&agent).await.judged_packets, 0);
            exchange(world, 1001);
            assert_eq!(read(&agent).await.would_deny_packets, 4);
            // The same plan again is no change; another one is.
            agent.apply(&in_force(mode), 2).await;
            assert_eq!(read(&agent).await.would_deny_packets, 4);
            let mut renamed = in_force(mode);
            renamed.rules[0].id = penstock_policy::ids::FlowId(70);
            renamed.rules[0].flow = "polling".parse().unwrap();
            agent.apply(&renamed, 3).await;
            assert_eq!(read(&agent).await.would_deny_packets, 0);
            exchange(world, 1002);
            assert_eq!(read(&agent).await.flows, ["conduit7/polling"]);
        },
    );
}

#[test]
fn a_shadow_on_a_routed_gateway_counts_as_the_oracle_does_and_lets_all_pass() {
    lab::sandbox::test(
        "shadow::a_shadow_on_a_routed_gateway_counts_as_the_oracle_does_and_lets_all_pass",
        |lab| compare(lab, GatewayMode::Routed),
    )
    .unwrap();
}

#[test]
fn a_shadow_on_a_bridged_gateway_counts_as_the_oracle_does_and_lets_all_pass() {
    lab::sandbox::test(
        "shadow::a_shadow_on_a_bridged_gateway_counts_as_the_oracle_does_and_lets_all_pass",
        |lab| compare(lab, GatewayMode::Bridged),
    )
    .unwrap();
}

/// Plans that may follow: fewer flows, the same where all enforce, and on a routed gateway another one altogether.
fn successors(plan: &Plan, seed: u64) -> Vec<Plan> {
    let mut fewer = plan.clone();
    fewer.rules = plan.rules.iter().rev().step_by(2).cloned().collect();
    let mut enforcing = fewer.clone();
    for side in &mut enforcing.interfaces {
        side.observing = Observing::Nothing;
    }
    let mut successors = vec![fewer, enforcing];
    if plan.mode == GatewayMode::Routed {
        let (mut other, _) = draw(seed + 1_000_000);
        other.mode = plan.mode;
        // Flows of its own, flows of the one in force, and other sides.
        other.rules.extend(plan.rules.iter().step_by(3).cloned());
        successors.push(other);
    }
    successors
}

fn compare(lab: &Lab, mode: GatewayMode) {
    let world = World::new(lab, mode, &INTERFACES);
    let first = first_seed();
    println!("seeds from PENSTOCK_SEED={first}");
    let mut counted = [0; 2];
    world.at_gateway(async || {
        let agent = Agent::start();
        let mut number = 1024_u16;
        for seed in first..first + u64::from(Config::default().cases / 16) {
            let (mut plan, connections) = draw(seed);
            plan.mode = mode;
            agent.apply(&plan, seed).await;
            for (which, next) in successors(&plan, seed).iter().enumerate() {
                begin(&agent, next).await;
                let label = format!("seed {seed}, successor {which}");
                let [passed, refused] = judge(&world, (&plan, next), &connections, &mut number, &label);
                let report = read(&agent).await;
                assert_eq!(report.would_deny_packets, refused, "{label}: {report:?}");
                // Errors and neighbours of the lab's own may come on top.
                assert!(report.judged_packets >= passed, "{label}: {report:?}");
                counted[0] += passed;
                counted[1] += refused;
            }
        }
    });
    println!("{counted:?}");
    // Both ways are drawn often enough to show something.
    assert!(counted[1] > 100 && counted[0] - counted[1] > 100, "{counted:?}");
}

/// Sends connections' first packets and their answers, all of which have to pass or not as without a shadow. How many passed, and how
/// many of them the next plan would refuse.
fn judge(
    world: &World,
    (plan, next): (&Plan, &Plan),
    connections: &[Connection],
    number: &mut u16,
    label: &str,
) -> [u64; 2] {
    let next = opened(plan, next);
    let sent = connections.iter().filter(|connection| {
        let ends = [&connection.ingress, &connection.egress];
        let holds = |name: &String, address| {
            let mut sides = plan.interfaces.iter();
            sides.any(|side| side.name == *name && side.holds(address))
        };
        // A bridge never sends a frame back out of the port it came in by; which port it was its shadow does not see.
        let is_judged = world.mode == GatewayMode::Routed
            || ends[0] != ends[1]
                && holds(ends[0], connection.source)
                && holds(ends[1], connection.destination);
        is_judged && ends.iter().all(|end| world.sides.contains_key(*end))
    });
    let probes: Vec<(&Connection, Probe)> = sent
        .map(|connection| {
            *number = number.checked_add(1).unwrap_or(1024);
            let probe = Probe {
                source: connection.source,
                destination: connection.destination,
                transport: connection.transport,
                number: *number,
                dscp: 0,
            };
            (connection, probe)
        })
        .collect();
    let mut passing: Vec<&(&Connection, Probe)> = probes.iter().collect();
    let mut totals = [0; 2];
    for part in [Part::Opening, Part::Answer] {
        let frames: Vec<_> = passing
            .iter()
            .map(|(c, probe)| {
                let (from, to) = match part {
                    Part::Answer => (&c.egress, &c.ingress),
                    _ => (&c.ingress, &c.egress),
                };
                let frame = world.frame(&c.ingress, &c.egress, probe, part);
                (from.clone(), to.clone(), frame)
            })
            .collect();
        let verdicts: Vec<_> = passing.iter().map(|(c, _)| decide(plan, c)).collect();
        let expected: HashSet<usize> = (0..passing.len())
            .filter(|index| is_forwarded(plan, passing[*index].0, &verdicts[*index], false))
            .collect();
        let passed = world.through(&frames, &expected);
        let differing: Vec<String> = passed
            .symmetric_difference(&expected)
            .map(|index| format!("{}: {}", passing[*index].0, verdicts[*index]))
            .collect();
        assert!(differing.is_empty(), "{label}, {part:?}: {differing:#?}");
        passing = (0..passing.len())
            .filter(|index| expected.contains(index))
            .map(|index| passing[index])
            .collect();
        let is_refused = |c: &Connection| decide(&next, c).decision == Decision::Deny;
        totals[0] += passing.len() as u64;
        totals[1] += passing.iter().filter(|(c, _)| is_refused(c)).count() as u64;
        passing.retain(|(c, _)| !matches!(c.transport, Carried::Other(_)));
    }
    totals
}

/// The next plan, with the conduits open that a grant opens today.
fn opened(plan: &Plan, next: &Plan) -> Plan {
    let granted: BTreeSet<_> = next
        .grants
        .keys()
        .filter(|c| plan.grants.contains_key(*c))
        .cloned()
        .collect();
    next.opening(next.open.union(&granted).cloned().collect())
}
