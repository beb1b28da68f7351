//! Random plans and random packets: the kernel's verdict is the oracle's.
//!
//! What rules limit to operations must go to the inspector while one listens (every other plan), and without one be
//! forwarded or blocked as the rules say.

use std::collections::{BTreeSet, HashSet};

use penstock_agent::enforce::ApplyMethod;
use penstock_lab::{self as lab, Lab};
use penstock_policy::arbitrary::{UNGUARDED, plans_with_connections};
use penstock_policy::ids::FlowId;
use penstock_policy::plan::{Observing, Plan};
use penstock_policy::terms::{Enforcement, GatewayMode, OnAgentLoss};
use penstock_policy::verdict::{
    Carried, Connection, Decision, Permissions, Reason, Verdict, decide, mode, permitted,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::inspected::with_ports;
use super::inspector::Inspector;
use super::wire::{Part, Probe};
use super::world::{Agent, World};

const CONNECTIONS_PER_PLAN: usize = 70;
pub(super) const INTERFACES: [&str; 8] = [
    "eth1",
    "eth2",
    "eth3",
    "eth4",
    "eth5",
    "eth6",
    UNGUARDED[0],
    UNGUARDED[1],
];

#[test]
fn a_routed_gateway_decides_as_the_oracle_does() {
    lab::sandbox::test("random::a_routed_gateway_decides_as_the_oracle_does", |lab| {
        compare(lab, GatewayMode::Routed);
    })
    .unwrap();
}

#[test]
fn a_bridged_gateway_decides_as_the_oracle_does() {
    lab::sandbox::test("random::a_bridged_gateway_decides_as_the_oracle_does", |lab| {
        compare(lab, GatewayMode::Bridged);
    })
    .unwrap();
}

/// Seeds come from the clock and are printed; `PENSTOCK_SEED` repeats a run.
pub(super) fn first_seed() -> u64 {
    let given = std::env::var("PENSTOCK_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs()
    })
}

fn compare(lab: &Lab, mode: GatewayMode) {
    let world = World::new(lab, mode, &INTERFACES);
    let first = first_seed();
    println!("seeds from PENSTOCK_SEED={first}");
    let mut all = Tally::default();
    let ports = Inspector::start(&world.gateway, None).ports;
    world.at_gateway(async || {
        let agent = Agent::start_with(with_ports(ports));
        let mut number = 1024_u16;
        let plans = u64::from(Config::default().cases / 6);
        for seed in first..first + 10 * plans {
            // Some seeds draw little of one kind: then more are drawn.
            if seed >= first + plans && all.lacks().is_none() {
                break;
            }
            let (mut plan, connections) = draw(seed);
            plan.mode = mode;
            let inspector = (seed % 2 == 0).then(|| Inspector::start(&world.gateway, Some(ports)));
            let lives = inspector.is_some();
            agent.apply(&plan, seed).await;
            let before = agent.enforcer.counters().await.unwrap().intercepted_packets;
            let tally = judge(
                &world,
                &plan,
                &connections,
                &mut number,
                lives,
                &format!("seed {seed}"),
            );
            let taken = agent.enforcer.counters().await.unwrap().intercepted_packets - before;
            assert_eq!(taken, tally.inspected, "seed {seed}: packets for the inspector");
            // The same again with fewer and reordered flows, which the kernel gets as differences. It also gets anew, on a bridge,
            // who need not find whom any more, which flows hang on grants, and where the inspector speaks to servers in the plain, where
            // others do (or may: rules of the same clients and servers need the same).
            let mut fewer = plan.clone();
            fewer.rules = plan.rules.iter().rev().step_by(2).cloned().collect();
            let change = agent.apply(&fewer, seed).await.change;
            let others = limited(&plan) != limited(&fewer);
            let as_expected = match change {
                ApplyMethod::Restructured => {
                    others || in_the_plain(&plan) != in_the_plain(&fewer) || mode == GatewayMode::Bridged
                }
                ApplyMethod::Differences | ApplyMethod::Unchanged => !others,
                ApplyMethod::Adopted | ApplyMethod::Whole => false,
            };
            assert!(as_expected, "seed {seed}: {change:?}");
            let label = format!("seed {seed}, every second flow");
            let again = judge(&world, &fewer, &connections, &mut number, lives, &label);
            for tally in [tally, again] {
                all.cases += tally.cases;
                all.allowed += tally.allowed;
                all.inspected += tally.inspected;
                all.kinds.extend(tally.kinds);
            }
        }
    });
    println!("{all:?}");
    assert_eq!(all.lacks(), None);
}

/// The flows that hang on grants.
fn limited(plan: &Plan) -> BTreeSet<FlowId> {
    let rules = plan.rules.iter();
    let limited = rules.filter(|rule| plan.grants.contains_key(&rule.conduit));
    limited.map(|rule| rule.id).collect()
}

/// The flows whose servers speak no TLS, behind a gateway at which their clients' TLS ends.
fn in_the_plain(plan: &Plan) -> BTreeSet<FlowId> {
    let rules = plan.rules.iter();
    let plain = rules.filter(|rule| rule.plain_port().is_some());
    plain.map(|rule| rule.id).collect()
}

/// A plan and connections near it.
pub(super) fn draw(seed: u64) -> (Plan, Vec<Connection>) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    plans_with_connections(CONNECTIONS_PER_PLAN)
        .new_tree(&mut runner)
        .unwrap()
        .current()
}

/// What a verdict is, and whether it is so for an interface that the plan does not name, or on a side whose zones have not
/// all the same mode.
fn kind(plan: &Plan, connection: &Connection, verdict: &Verdict) -> String {
    let unnamed = matches!(verdict.reason, Reason::Unguarded { .. } | Reason::Around);
    let sides = plan.interfaces.iter();
    let mut crossed = sides.filter(|side| [&connection.ingress, &connection.egress].contains(&&side.name));
    let addition = if unnamed {
        ", unnamed interface"
    } else if crossed.any(|side| matches!(side.observing, Observing::Only(_))) {
        ", side of both modes"
    } else {
        ""
    };
    format!("{}{addition}", verdict.decision.code())
}

/// Whether it is for the inspector: all rules of its tuple name operations, and its source is where it belongs.
fn is_inspected(plan: &Plan, connection: &Connection) -> bool {
    let at_home = plan
        .interfaces
        .iter()
        .any(|side| side.name == connection.ingress && side.holds(connection.source));
    at_home
        && matches!(
            permitted(plan, connection),
            Permissions::Only(_) | Permissions::InsideTls(_)
        )
}

/// Whether the kernel forwards it.
pub(super) fn is_forwarded(plan: &Plan, connection: &Connection, verdict: &Verdict, lives: bool) -> bool {
    if lives && is_inspected(plan, connection) {
        return false;
    }
    match (verdict.decision, &verdict.reason, permitted(plan, connection)) {
        (Decision::Allow, Reason::Rule(_), Permissions::Only(rules)) => {
            let passes = rules
                .iter()
                .all(|(rule, _)| rule.on_agent_loss == OnAgentLoss::Pass);
            // Where enforcement would block it, observation lets it pass.
            passes || mode(plan, connection) == Some(Enforcement::Observe)
        }
        (decision, ..) => decision != Decision::Deny,
    }
}

#[derive(Debug, Default)]
struct Tally {
    cases: usize,
    /// Connections that were let through.
    allowed: usize,
    /// Opening packets for the inspector.
    inspected: u64,
    kinds: BTreeSet<String>,
}

impl Tally {
    /// What there must be more of for the comparison to say much.
    fn lacks(&self) -> Option<&'static str> {
        let wanted = [
            "not-guarded",
            "deny, unnamed interface",
            "would-deny, unnamed interface",
            "deny, side of both modes",
            "would-deny, side of both modes",
        ];
        match self {
            Self { cases: ..=3000, .. } => {
                Some("cases: the generator makes connections that the lab cannot send")
            }
            Self { allowed: ..=300, .. } => Some("connections that are let through"),
            Self { inspected: ..=30, .. } => Some("connections for the inspector"),
            Self { kinds, .. } => wanted.into_iter().find(|kind| !kinds.contains(*kind)),
        }
    }
}

/// Sends each connection's first packet, and the answers of those that were let through.
fn judge(
    world: &World,
    plan: &Plan,
    connections: &[Connection],
    number: &mut u16,
    lives: bool,
    label: &str,
) -> Tally {
    let probes: Vec<(&Connection, Probe)> = connections
        .iter()
        .filter(|c| world.sides.contains_key(&c.ingress) && world.sides.contains_key(&c.egress))
        // A bridge never sends a frame back out of the port it came in by.
        .filter(|c| world.mode == GatewayMode::Routed || c.ingress != c.egress)
        .map(|connection| {
            *number += 1;
            let Connection {
                source,
                destination,
                transport,
                ..
            } = *connection;
            (
                connection,
                Probe {
                    source,
                    destination,
                    transport,
                    number: *number,
                    dscp: 0,
                },
            )
        })
        .collect();
    let verdicts: Vec<_> = probes
        .iter()
        .map(|(connection, _)| decide(plan, connection))
        .collect();
    let expected: HashSet<usize> = (0..probes.len())
        .filter(|index| is_forwarded(plan, probes[*index].0, &verdicts[*index], lives))
        .collect();
    let inspected = probes.iter().filter(|(c, _)| lives && is_inspected(plan, c));
    let inspected = inspected.count() as u64;
    let frames: Vec<_> = probes
        .iter()
        .map(|(c, p)| {
            (
                c.ingress.clone(),
                c.egress.clone(),
                world.frame(&c.ingress, &c.egress, p, Part::Opening),
            )
        })
        .collect();
    let passed = world.through(&frames, &expected);
    for (index, (connection, _)) in probes.iter().enumerate() {
        assert_eq!(
            passed.contains(&index),
            expected.contains(&index),
            "{label}, inspector {lives}: {connection}: the kernel {}, the oracle says {}",
            if passed.contains(&index) {
                "let it through"
            } else {
                "dropped it"
            },
            verdicts[index],
        );
    }
    // What was let through is answered through the gateway, in the same connection.
    let answered: Vec<_> = expected
        .iter()
        .map(|index| &probes[*index])
        .filter(|(c, _)| !matches!(c.transport, Carried::Other(_)))
        .collect();
    let answers: Vec<_> = answered
        .iter()
        .map(|(c, p)| {
            (
                c.egress.clone(),
                c.ingress.clone(),
                world.frame(&c.ingress, &c.egress, p, Part::Answer),
            )
        })
        .collect();
    let all: HashSet<usize> = (0..answers.len()).collect();
    let passed = world.through(&answers, &all);
    let dropped: Vec<String> = all
        .difference(&passed)
        .map(|index| answered[*index].0.to_string())
        .collect();
    assert!(dropped.is_empty(), "{label}: answers were dropped: {dropped:?}");
    Tally {
        cases: probes.len() + answers.len(),
        allowed: expected.len(),
        inspected,
        kinds: probes
            .iter()
            .zip(&verdicts)
            .map(|((connection, _), verdict)| kind(plan, connection, verdict))
            .collect(),
    }
}
