//! Many verdicts at once: each is reported, or counted in a loss record; none is lost without a word.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use penstock_agent::enforce::{ApplyMethod, EnforceSettings, Enforcer};
use penstock_agent::observed::{Observation, REPORT_AFTER, VerdictSeen};
use penstock_lab as lab;
use penstock_policy::terms::GatewayMode;
use penstock_policy::verdict::{Carried, Decision};
use tokio::sync::mpsc;

use super::plans::{SIDES, observing, two_flows};
use super::wire::{Part, Probe};
use super::world::{Agent, MODES, PATIENCE, World, settings};

/// What its reader takes at a time: less than the agent's trail does.
const OBSERVED_MAX: usize = 1024;

/// Reports as late as the program does: a burst has to find its tables full.
fn as_the_program() -> EnforceSettings {
    EnforceSettings {
        report_after: REPORT_AFTER,
        ..settings()
    }
}

/// An agent with its reader.
fn start() -> Agent {
    let (sender, observed) = mpsc::channel(OBSERVED_MAX);
    Agent {
        enforcer: Enforcer::start(as_the_program(), sender).unwrap(),
        observed,
    }
}

/// What was reported, and how many packets were said to be lost.
#[derive(Debug, Default)]
struct Report {
    verdicts: Vec<VerdictSeen>,
    lost: u64,
}

impl Report {
    /// What comes until `enough`.
    async fn until(agent: &mut Agent, enough: impl Fn(&Self) -> bool) -> Self {
        let mut report = Self::default();
        let seen = agent
            .observe_until(|observed| {
                match observed {
                    Observation::Verdict(verdict) => report.verdicts.push(verdict.clone()),
                    Observation::Lost { packets, .. } => report.lost += packets,
                    Observation::Operation(_)
                    | Observation::Drift { .. }
                    | Observation::Condition(_)
                    | Observation::Start { .. } => {}
                }
                enough(&report)
            })
            .await;
        drop(seen);
        report
    }

    fn told(&self) -> u64 {
        self.verdicts.iter().map(|verdict| verdict.count).sum()
    }

    fn covers(&self, decision: Decision, wanted: &BTreeSet<(IpAddr, IpAddr, u8, u16)>) -> bool {
        self.verdicts.len() >= wanted.len() && self.tuples(decision).is_superset(wanted)
    }

    fn tuples(&self, decision: Decision) -> BTreeSet<(IpAddr, IpAddr, u8, u16)> {
        self.verdicts
            .iter()
            .filter(|verdict| verdict.decision == decision)
            .map(|verdict| {
                let (source, destination) = (verdict.source.unwrap(), verdict.destination.unwrap());
                (source, destination, verdict.protocol, verdict.port)
            })
            .collect()
    }
}

/// `count` openings, half of them IPv4 and half IPv6, half TCP and half UDP: each of another source to another port.
fn openings(count: u16) -> impl Iterator<Item = Probe> {
    (0..count).map(|number| {
        let v6 = number % 2 == 1;
        let [high, low] = (number / 2).to_be_bytes();
        let (source, destination): (IpAddr, IpAddr) = if v6 {
            let source = format!("fd00:2::{:x}", 0x100 + number);
            (source.parse().unwrap(), "fd00:3::1".parse().unwrap())
        } else {
            let source = IpAddr::from([10, 2, 0, 2 + low % 200]);
            (source, "10.3.0.1".parse().unwrap())
        };
        let port = 10_000 + u16::from(high) * 256 + u16::from(low);
        let transport = match number / 2 % 2 {
            0 => Carried::Tcp(port),
            _ => Carried::Udp(port),
        };
        Probe {
            source,
            destination,
            transport,
            number: 3000,
            dscp: 0,
        }
    })
}

fn tuple(probe: &Probe) -> (IpAddr, IpAddr, u8, u16) {
    let (protocol, port) = match probe.transport {
        Carried::Tcp(port) => (6, port),
        Carried::Udp(port) => (17, port),
        other => panic!("{other:?}"),
    };
    (probe.source, probe.destination, protocol, port)
}

fn send(world: &World, probes: &[Probe]) {
    let frames: Vec<Vec<u8>> = probes
        .iter()
        .map(|probe| world.frame("lan2", "lan3", probe, Part::Opening))
        .collect();
    for frame in &frames {
        world.sides["lan2"].wire.send(frame);
    }
}

/// Runs `test` with such an agent at gateways of both modes between which `lan2` and `lan3` observe, or enforce.
fn burst(name: &str, observe: bool, test: impl AsyncFn(&World, &mut Agent) + Sync) {
    lab::sandbox::test(name, |lab| {
        for mode in MODES {
            let world = World::new(lab, mode, &SIDES);
            world.at_gateway(async || {
                let mut agent = start();
                let plan = two_flows(mode);
                let observers: &[&str] = if observe { &["lan2", "lan3"] } else { &[] };
                agent.apply(&observing(plan, observers), 1).await;
                test(&world, &mut agent).await;
            });
        }
    })
    .unwrap();
}

async fn is_reported_whole(world: &World, agent: &mut Agent, decision: Decision) {
    for (number, count) in [(3000, 60), (3001, 2000)] {
        let probes: Vec<Probe> = openings(count).map(|probe| Probe { number, ..probe }).collect();
        send(world, &probes);
        let wanted: BTreeSet<_> = probes.iter().map(tuple).collect();
        assert_eq!(wanted.len(), usize::from(count));
        let seen = Report::until(agent, |report| {
            report.lost > 0 || report.covers(decision, &wanted)
        })
        .await;
        assert_eq!(seen.lost, 0, "{:?}: {count} at once", world.mode);
    }
}

#[test]
fn every_one_of_2000_undeclared_connections_in_one_burst_is_reported_while_observing() {
    burst(
        "bursts::every_one_of_2000_undeclared_connections_in_one_burst_is_reported_while_observing",
        true,
        async |world, agent| is_reported_whole(world, agent, Decision::WouldDeny).await,
    );
}

#[test]
fn every_source_of_2000_denials_in_one_burst_is_named() {
    burst(
        "bursts::every_source_of_2000_denials_in_one_burst_is_named",
        false,
        async |world, agent| is_reported_whole(world, agent, Decision::Deny).await,
    );
}

async fn is_reported_or_counted(world: &World, agent: &mut Agent) {
    let probes: Vec<Probe> = openings(12_000).collect();
    send(world, &probes);
    let report = Report::until(agent, |report| report.told() + report.lost >= 12_000).await;
    assert!(report.lost > 0, "the bound is not reached: {}", report.told());
    assert_eq!(report.told() + report.lost, 12_000, "{:?}", world.mode);
}

#[test]
fn of_a_burst_beyond_all_bounds_each_packet_is_reported_or_counted_as_lost_while_observing() {
    burst(
        "bursts::of_a_burst_beyond_all_bounds_each_packet_is_reported_or_counted_as_lost_while_observing",
        true,
        async |world, agent| is_reported_or_counted(world, agent).await,
    );
}

#[test]
fn of_denials_beyond_all_bounds_each_is_reported_or_counted_as_lost() {
    burst(
        "bursts::of_denials_beyond_all_bounds_each_is_reported_or_counted_as_lost",
        false,
        async |world, agent| is_reported_or_counted(world, agent).await,
    );
}

#[test]
fn a_connection_that_the_logs_limit_left_out_is_reported_when_it_goes_on() {
    burst(
        "bursts::a_connection_that_the_logs_limit_left_out_is_reported_when_it_goes_on",
        true,
        async |world, agent| {
            // More than the log takes at once, fewer than are followed at once.
            let probes: Vec<Probe> = openings(7000).collect();
            let wanted: BTreeSet<_> = probes.iter().map(tuple).collect();
            let mut seen = BTreeSet::new();
            let begun = Instant::now();
            while begun.elapsed() < 4 * PATIENCE {
                send(world, &probes);
                // Of the last ones fewer come.
                let left = wanted.difference(&seen).count().min(1000) as u64;
                let report = Report::until(agent, |report| report.told() + report.lost >= left).await;
                seen.extend(report.tuples(Decision::WouldDeny));
                if seen.is_superset(&wanted) {
                    return;
                }
            }
            panic!(
                "{:?}: {} of {} are reported",
                world.mode,
                seen.len(),
                wanted.len()
            );
        },
    );
}

#[test]
fn every_source_of_a_burst_to_the_gateway_itself_is_named() {
    lab::sandbox::test(
        "bursts::every_source_of_a_burst_to_the_gateway_itself_is_named",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed, &SIDES);
            world.gateway.address("lan2", "10.2.0.1/24").unwrap();
            world.at_gateway(async || {
                let mut agent = start();
                agent.apply(&two_flows(GatewayMode::Routed), 1).await;
                let destination = "10.2.0.1".parse().unwrap();
                let probes: Vec<Probe> = openings(2000)
                    .filter(|probe| probe.source.is_ipv4())
                    .map(|probe| Probe { destination, ..probe })
                    .collect();
                send(&world, &probes);
                let wanted: BTreeSet<_> = probes.iter().map(tuple).collect();
                let report = Report::until(&mut agent, |report| {
                    report.lost > 0 || report.covers(Decision::Deny, &wanted)
                })
                .await;
                assert_eq!(report.lost, 0);
            });
        },
    )
    .unwrap();
}

#[test]
fn what_the_kernel_logs_while_no_agent_listens_is_counted_as_lost() {
    lab::sandbox::test(
        "bursts::what_the_kernel_logs_while_no_agent_listens_is_counted_as_lost",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                let folder = tempfile::tempdir().unwrap();
                let start = || {
                    let settings = EnforceSettings {
                        account_path: Some(folder.path().join("logged")),
                        ..settings()
                    };
                    let (sender, observed) = mpsc::channel(OBSERVED_MAX);
                    Agent {
                        enforcer: Enforcer::start(settings, sender).unwrap(),
                        observed,
                    }
                };
                world.at_gateway(async || {
                    let plan = observing(two_flows(mode), &["lan2", "lan3"]);
                    let mut agent = start();
                    agent.apply(&plan, 1).await;
                    let probes: Vec<Probe> = openings(10).collect();
                    send(&world, &probes);
                    let heard = Report::until(&mut agent, |report| report.told() == 10).await;
                    assert_eq!(heard.lost, 0);
                    drop(agent);
                    let away: Vec<Probe> = openings(30)
                        .map(|probe| Probe {
                            number: 3001,
                            ..probe
                        })
                        .collect();
                    send(&world, &away);
                    // They have passed once the last of them has.
                    let last = Probe {
                        number: 3002,
                        ..probes[0]
                    };
                    assert!(world.passes("lan2", "lan3", &last, Part::Opening, true));
                    let mut agent = start();
                    agent.apply(&plan, 1).await;
                    let report = Report::until(&mut agent, |report| report.lost > 0).await;
                    assert_eq!((report.told(), report.lost), (0, 31), "{mode:?}");
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn what_rules_of_an_agent_before_log_until_the_first_plan_is_in_force_is_counted_as_lost() {
    lab::sandbox::test(
        "bursts::what_rules_of_an_agent_before_log_until_the_first_plan_is_in_force_is_counted_as_lost",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed, &SIDES);
            let folder = tempfile::tempdir().unwrap();
            let start = || {
                let (sender, observed) = mpsc::channel(OBSERVED_MAX);
                let settings = EnforceSettings {
                    account_path: Some(folder.path().join("logged")),
                    ..settings()
                };
                Agent {
                    enforcer: Enforcer::start(settings, sender).unwrap(),
                    observed,
                }
            };
            world.at_gateway(async || {
                let plan = observing(two_flows(GatewayMode::Routed), &["lan2", "lan3"]);
                let agent = start();
                agent.apply(&plan, 1).await;
                drop(agent);
                let mut agent = start();
                // So that it listens, and has heard them before there is a plan; what it has not is counted as well.
                tokio::time::sleep(Duration::from_millis(300)).await;
                let probes: Vec<Probe> = openings(10).collect();
                send(&world, &probes);
                // Beyond when they are due.
                tokio::time::sleep(10 * settings().report_after).await;
                agent.apply(&plan, 1).await;
                let report = Report::until(&mut agent, |report| report.told() + report.lost >= 10).await;
                assert_eq!(report.told() + report.lost, 10);
            });
        },
    )
    .unwrap();
}

#[test]
fn what_the_kernel_logs_while_another_program_hears_its_log_is_counted_as_lost() {
    lab::sandbox::test(
        "bursts::what_the_kernel_logs_while_another_program_hears_its_log_is_counted_as_lost",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed, &SIDES);
            let folder = tempfile::tempdir().unwrap();
            world.at_gateway(async || {
                let plan = observing(two_flows(GatewayMode::Routed), &["lan2", "lan3"]);
                let mut other = start();
                other.apply(&plan, 1).await;
                let (sender, observed) = mpsc::channel(OBSERVED_MAX);
                let settings = EnforceSettings {
                    account_path: Some(folder.path().join("logged")),
                    ..settings()
                };
                let mut agent = Agent {
                    enforcer: Enforcer::start(settings, sender).unwrap(),
                    observed,
                };
                agent.apply(&plan, 1).await;
                let probes: Vec<Probe> = openings(10).collect();
                send(&world, &probes);
                Report::until(&mut other, |report| report.told() == 10).await;
                let report = Report::until(&mut agent, |report| report.lost >= 10).await;
                assert_eq!((report.told(), report.lost), (0, 10));
                drop(other);
                // As soon as it hears the log, it reports.
                let (mut sent, mut told, mut lost) = (0, 0, 0);
                while told == 0 {
                    let number = 3001 + sent;
                    send(&world, &[Probe { number, ..probes[0] }]);
                    sent += 1;
                    let report = Report::until(&mut agent, |report| report.told() + report.lost > 0).await;
                    (told, lost) = (told + report.told(), lost + report.lost);
                }
                assert_eq!(told + lost, u64::from(sent));
            });
        },
    )
    .unwrap();
}

#[test]
fn what_the_logs_limit_left_out_is_counted_once_and_not_again_by_the_agent_that_takes_the_tables_over() {
    lab::sandbox::test(
        "bursts::what_the_logs_limit_left_out_is_counted_once_and_not_again_by_the_agent_that_takes_the_tables_over",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed, &SIDES);
            let folder = tempfile::tempdir().unwrap();
            let account = folder.path().join("logged");
            let start = || {
                let (sender, observed) = mpsc::channel(OBSERVED_MAX);
                let settings = EnforceSettings {
                    account_path: Some(account.clone()),
                    ..settings()
                };
                Agent {
                    enforcer: Enforcer::start(settings, sender).unwrap(),
                    observed,
                }
            };
            world.at_gateway(async || {
                let plan = two_flows(GatewayMode::Routed);
                let mut agent = start();
                agent.apply(&plan, 1).await;
                // More than the log takes at once, fewer than are followed at once.
                let probes: Vec<Probe> = openings(7000).collect();
                send(&world, &probes);
                let report = Report::until(&mut agent, |report| report.told() + report.lost >= 7000).await;
                assert!(report.lost > 0, "the log took all of them");
                assert_eq!(report.told() + report.lost, 7000);
                let kept = || std::fs::read_to_string(&account).unwrap_or_default();
                // How many were heard, how many the limit left out, and in which boot.
                let left_out = report.lost.to_string();
                let begun = Instant::now();
                while kept().split_whitespace().nth(1) != Some(left_out.as_str()) {
                    assert!(begun.elapsed() < PATIENCE, "{:?} does not say {left_out}", kept());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                drop(agent);
                let mut agent = start();
                let applied = agent.apply(&plan, 1).await;
                assert_eq!(applied.change, ApplyMethod::Adopted);
                // It has counted twice by then.
                let counted = 3 * settings().count;
                let again = Report::until(&mut agent, |report| report.lost > 0);
                assert!(tokio::time::timeout(counted, again).await.is_err(), "it is counted again");
            });
        },
    )
    .unwrap();
}
