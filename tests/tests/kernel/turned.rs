//! Connections that run before the gateway knows of them: connection tracking takes the first packet that it sees for the
//! opening, and half the time that is one of the server's.

use penstock_agent::enforce::ApplyMethod;
use penstock_agent::enforce::nft::run::Nft;
use penstock_agent::observed::{Observation, VerdictSeen};
use penstock_lab as lab;
use penstock_policy::plan::Plan;
use penstock_policy::terms::{GatewayMode, OnAgentLoss};
use penstock_policy::verdict::{Carried, Decision};

use super::inspected::{inspected, with_ports};
use super::inspector::Inspector;
use super::plans::{SIDES, observing, plan, rule, tcp, two_flows, udp};
use super::wire::{Part, Probe};
use super::world::{Agent, MODES, World, at_each_gateway};

/// Running conversations of [`two_flows`]: exact tuples and ranges, TCP and UDP, IPv4 and IPv6.
pub fn running() -> [Probe; 4] {
    let probe = |source: &str, destination: &str, transport, number| Probe {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        transport,
        number,
        dscp: 0,
    };
    [
        probe("10.1.0.5", "10.2.0.9", Carried::Tcp(502), 4000),
        probe("fd00:1::5", "fd00:2::9", Carried::Tcp(502), 4000),
        probe("10.1.0.6", "10.2.0.9", Carried::Udp(4050), 4050),
        probe("fd00:1::6", "fd00:2::9", Carried::Udp(4050), 4050),
    ]
}

/// The time after the start, in which servers may speak first, is over.
pub async fn started_long_ago() {
    let over = "flush set inet penstock starting\n";
    Nft::new("nft".into()).load(over).await.unwrap();
}

pub fn goes(world: &World, probe: &Probe, part: Part, passes: bool) {
    let passed = world.passes("lan1", "lan2", probe, part, passes);
    assert_eq!(passed, passes, "{:?} {part:?} of {probe:?}", world.mode);
}

/// The server speaks first, as the gateway sees it, and then both.
pub fn talk(world: &World, probe: &Probe) {
    for part in [Part::Push, Part::Data, Part::Push] {
        goes(world, probe, part, true);
    }
}

async fn observed_while_the_server_speaks_first(world: &World, agent: &Agent) -> Plan {
    let plan = two_flows(world.mode);
    agent.apply(&observing(plan.clone(), &SIDES), 1).await;
    started_long_ago().await;
    for probe in running() {
        talk(world, &probe);
    }
    plan
}

#[test]
fn a_flow_that_runs_lives_on_when_its_zone_goes_from_observe_to_enforce() {
    at_each_gateway(
        "turned::a_flow_that_runs_lives_on_when_its_zone_goes_from_observe_to_enforce",
        async |mode, world, agent| {
            let plan = observed_while_the_server_speaks_first(world, &agent).await;
            assert_eq!(
                agent.apply(&plan, 2).await.change,
                ApplyMethod::Restructured,
                "{mode:?}"
            );
            for probe in running() {
                talk(world, &probe);
            }
            // A further release, and an agent that comes back.
            let mut more = plan.clone();
            more.rules.push(rule(9, &["10.3.0.1"], &["10.1.0.1"], tcp(80)));
            agent.apply(&more, 3).await;
            drop(agent);
            let agent = Agent::start();
            assert_eq!(
                agent.apply(&more, 3).await.change,
                ApplyMethod::Adopted,
                "{mode:?}"
            );
            for probe in running() {
                talk(world, &probe);
            }
            // Tables that somebody removed are made anew.
            started_long_ago().await;
            Nft::new("nft".into())
                .load("delete table inet penstock\n")
                .await
                .unwrap();
            agent.enforcer.verify().await.unwrap();
            started_long_ago().await;
            for probe in running() {
                talk(world, &probe);
            }
        },
    );
}

#[test]
fn a_flow_that_was_taken_up_midway_is_revoked_at_its_next_packet_as_any_other() {
    at_each_gateway(
        "turned::a_flow_that_was_taken_up_midway_is_revoked_at_its_next_packet_as_any_other",
        async |mode, world, agent| {
            let plan = observed_while_the_server_speaks_first(world, &agent).await;
            agent.apply(&plan, 2).await;
            for (place, revoked) in [(0, [0, 1]), (1, [2, 3])] {
                let mut without = plan.clone();
                without.rules.remove(place);
                agent.apply(&without, 3).await;
                for (number, probe) in running().iter().enumerate() {
                    for part in [Part::Push, Part::Data, Part::Push] {
                        goes(world, probe, part, !revoked.contains(&number));
                    }
                }
                agent.apply(&plan, 4).await;
                for probe in running() {
                    talk(world, &probe);
                }
            }
            let counters = agent.enforcer.counters().await.unwrap();
            assert_eq!(counters.denied_packets, 12, "{mode:?}");
        },
    );
}

#[test]
fn a_fresh_gateway_that_enforces_takes_up_what_runs() {
    at_each_gateway(
        "turned::a_fresh_gateway_that_enforces_takes_up_what_runs",
        async |mode, world, mut agent| {
            agent.apply(&two_flows(mode), 1).await;
            for probe in running() {
                talk(world, &probe);
            }
            let mut verdicts = Vec::new();
            agent
                .observe_until(|observed| {
                    if let Observation::Verdict(verdict) = observed {
                        verdicts.push(verdict.clone());
                    }
                    verdicts.len() == 6
                })
                .await;
            for verdict in &verdicts {
                let client_and_server = running()
                    .iter()
                    .any(|probe| ends(verdict) == (probe.source, probe.destination, port(probe)));
                assert!(client_and_server, "{mode:?} {verdict:#?}");
                assert_eq!(verdict.decision, Decision::Allow, "{mode:?}");
                assert_eq!(
                    (&*verdict.ingress, &*verdict.egress),
                    ("lan1", "lan2"),
                    "{mode:?}"
                );
            }
            let assumed = verdicts
                .iter()
                .filter(|verdict| verdict.reason.contains("assumed"));
            assert_eq!(
                assumed.count(),
                2,
                "{mode:?}: UDP in both families: {verdicts:#?}"
            );
        },
    );
}

fn ends(verdict: &VerdictSeen) -> (std::net::IpAddr, std::net::IpAddr, u16) {
    (
        verdict.source.unwrap(),
        verdict.destination.unwrap(),
        verdict.port,
    )
}

fn port(probe: &Probe) -> u16 {
    match probe.transport {
        Carried::Tcp(port) | Carried::Udp(port) => port,
        _ => 0,
    }
}

#[test]
fn a_server_whose_client_stays_silent_is_refused_once_the_start_is_over() {
    at_each_gateway(
        "turned::a_server_whose_client_stays_silent_is_refused_once_the_start_is_over",
        async |mode, world, agent| {
            agent.apply(&two_flows(mode), 1).await;
            for probe in &running()[2..] {
                goes(world, probe, Part::Push, true);
                let undeclared = Probe {
                    transport: Carried::Udp(4101),
                    ..*probe
                };
                goes(world, &undeclared, Part::Push, false);
            }
            started_long_ago().await;
            for probe in &running()[2..] {
                goes(world, probe, Part::Push, false);
                goes(world, probe, Part::Data, true);
                goes(world, probe, Part::Push, true);
            }
        },
    );
}

#[test]
fn a_server_that_opens_gains_nothing_by_its_declared_port() {
    at_each_gateway(
        "turned::a_server_that_opens_gains_nothing_by_its_declared_port",
        async |mode, world, agent| {
            let plan = two_flows(mode);
            agent.apply(&plan, 1).await;
            started_long_ago().await;
            let [tcp4, tcp6, udp4, udp6] = running();
            for probe in [tcp4, tcp6] {
                goes(world, &probe, Part::Against, false);
                // A running connection of the flow does not lend its entry to the server's SYN.
                talk(world, &probe);
                goes(world, &probe, Part::Against, false);
                talk(world, &probe);
                let opened = Probe {
                    number: 4001,
                    ..probe
                };
                for part in [Part::Opening, Part::Answer, Part::Data, Part::Push] {
                    goes(world, &opened, part, true);
                }
                goes(world, &opened, Part::Against, false);
            }
            for probe in [udp4, udp6] {
                goes(world, &probe, Part::Push, false);
                goes(world, &probe, Part::Data, true);
                goes(world, &probe, Part::Push, true);
                let elsewhere = Probe { number: 161, ..probe };
                goes(world, &elsewhere, Part::Push, false);
            }
            // Opened by the server while that was only observed, and answered: it ends with the observing.
            agent.apply(&observing(plan.clone(), &SIDES), 2).await;
            for probe in [tcp4, tcp6] {
                let opened = Probe {
                    number: 4444,
                    ..probe
                };
                for part in [Part::Against, Part::Data, Part::Push, Part::Data] {
                    goes(world, &opened, part, true);
                }
            }
            agent.apply(&plan, 3).await;
            for probe in [tcp4, tcp6] {
                let opened = Probe {
                    number: 4444,
                    ..probe
                };
                for part in [Part::Push, Part::Data, Part::Against, Part::Push] {
                    goes(world, &opened, part, false);
                }
            }
        },
    );
}

#[test]
fn a_connection_whose_opening_was_seen_is_never_turned_round() {
    at_each_gateway(
        "turned::a_connection_whose_opening_was_seen_is_never_turned_round",
        async |mode, world, agent| {
            let forth = rule(7, &["10.1.0.5"], &["10.2.0.9"], tcp(502));
            let all_back = rule(8, &["10.2.0.9"], &["10.1.0.0/24"], udp(1, 2));
            let all_back = penstock_policy::plan::Rule {
                transport: penstock_policy::terms::Transport::Tcp(vec![penstock_policy::terms::PortRange {
                    first: 1,
                    last: 65_535,
                }]),
                ..all_back
            };
            agent.apply(&plan(mode, vec![forth, all_back.clone()]), 1).await;
            let [probe, ..] = running();
            for part in [Part::Opening, Part::Answer, Part::Data, Part::Push] {
                goes(world, &probe, part, true);
            }
            agent.apply(&plan(mode, vec![all_back]), 2).await;
            for part in [Part::Data, Part::Push] {
                goes(world, &probe, part, false);
            }
        },
    );
}

#[test]
fn a_connection_whose_operations_cannot_be_read_from_its_beginning_is_reset_at_both_ends() {
    lab::sandbox::test(
        "turned::a_connection_whose_operations_cannot_be_read_from_its_beginning_is_reset_at_both_ends",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                reach_both_ends(&world);
                let inspector = Inspector::start(&world.gateway, None);
                world.at_gateway(async || {
                    let mut agent = Agent::start_with(with_ports(inspector.ports));
                    let plan = inspected(mode, OnAgentLoss::Block);
                    agent.apply(&observing(plan.clone(), &SIDES), 1).await;
                    let [tcp4, tcp6, ..] = running();
                    for probe in [tcp4, tcp6] {
                        talk(&world, &probe);
                    }
                    agent.apply(&plan, 2).await;
                    for probe in [tcp4, tcp6] {
                        for (part, side) in [(Part::Push, "lan2"), (Part::Data, "lan1")] {
                            world.drain();
                            let frame = world.frame("lan1", "lan2", &probe, part);
                            world.sides[side].wire.send(&frame);
                            let flags_at = if probe.source.is_ipv6() {
                                14 + 40 + 13
                            } else {
                                14 + 20 + 13
                            };
                            let reset = world.sides[side].wire.catches(true, |caught| {
                                caught.get(flags_at).is_some_and(|flags| flags & 4 != 0)
                            });
                            assert!(reset, "{mode:?} {part:?}");
                        }
                        let cut = agent
                            .observe_until(|observed| {
                                matches!(observed, Observation::Verdict(verdict) if verdict.reason.contains("was reset"))
                            })
                            .await;
                        let Some(Observation::Verdict(verdict)) = cut.last() else {
                            panic!("{cut:?}")
                        };
                        assert_eq!(ends(verdict), (probe.source, probe.destination, 502), "{mode:?}");
                    }
                    assert!(
                        agent.enforcer.counters().await.unwrap().denied_packets >= 4,
                        "{mode:?}"
                    );
                });
            }
        },
    )
    .unwrap();
}

/// The next verdict that is not an allowed one.
async fn refused(agent: &mut Agent) -> VerdictSeen {
    let refused = |observed: &Observation| match observed {
        Observation::Verdict(verdict) if verdict.decision != Decision::Allow => Some(verdict.clone()),
        _ => None,
    };
    let seen = agent.observe_until(|observed| refused(observed).is_some()).await;
    seen.iter().find_map(refused).unwrap()
}

#[test]
fn an_event_names_client_and_server_though_the_server_was_seen_first() {
    at_each_gateway(
        "turned::an_event_names_client_and_server_though_the_server_was_seen_first",
        async |mode, world, mut agent| {
            let plan = two_flows(mode);
            agent.apply(&plan, 1).await;
            started_long_ago().await;
            for probe in &running()[2..] {
                for number in [4050, 51_000] {
                    let spoken_to = Probe { number, ..*probe };
                    goes(world, &spoken_to, Part::Push, false);
                    let verdict = refused(&mut agent).await;
                    assert_eq!(
                        ends(&verdict),
                        (probe.source, probe.destination, 4050),
                        "{mode:?}"
                    );
                    assert_eq!(
                        (&*verdict.ingress, &*verdict.egress),
                        ("lan1", "lan2"),
                        "{mode:?}"
                    );
                    assert!(
                        verdict.reason.contains("once the client has sent one"),
                        "{}",
                        verdict.reason
                    );
                }
            }
            agent.apply(&observing(plan, &SIDES), 2).await;
            for probe in &running()[..2] {
                let undeclared = Probe {
                    transport: Carried::Tcp(44_818),
                    number: 51_000,
                    ..*probe
                };
                goes(world, &undeclared, Part::Push, true);
                let verdict = refused(&mut agent).await;
                assert_eq!(
                    ends(&verdict),
                    (probe.source, probe.destination, 44_818),
                    "{mode:?}"
                );
                assert!(
                    verdict.reason.contains("inferred from the ports"),
                    "{}",
                    verdict.reason
                );
            }
        },
    );
}

#[test]
fn a_kernel_that_takes_up_no_running_connection_is_reported() {
    at_each_gateway(
        "turned::a_kernel_that_takes_up_no_running_connection_is_reported",
        async |mode, world, agent| {
            let loose = "net.netfilter.nf_conntrack_tcp_loose";
            world.gateway.sysctl(loose, "0").unwrap();
            let findings = agent.apply(&two_flows(mode), 1).await.findings;
            let codes: Vec<_> = findings.iter().map(|finding| finding.code).collect();
            assert_eq!(codes, ["running-connections-lost"], "{mode:?}");
            world.gateway.sysctl(loose, "1").unwrap();
            assert_eq!(agent.apply(&two_flows(mode), 2).await.findings, [], "{mode:?}");
        },
    );
}

/// The gateway itself has ways to client and server of the TCP flow, which are no hosts that would answer by themselves.
fn reach_both_ends(world: &World) {
    for (number, host) in [(1, 5), (2, 9)] {
        let side = &world.sides[&format!("lan{number}")];
        let (interface, length4, length6) = match world.mode {
            GatewayMode::Routed => (format!("lan{number}"), 24, 64),
            GatewayMode::Bridged => ("br0".to_owned(), 8, 16),
        };
        for (own, end) in [
            (
                format!("10.{number}.0.1/{length4}"),
                format!("10.{number}.0.{host}"),
            ),
            (
                format!("fd00:{number}::1/{length6}"),
                format!("fd00:{number}::{host}"),
            ),
        ] {
            world.gateway.address(&interface, &own).unwrap();
            let mac = super::world::text(side.mac);
            let known = [
                "neigh",
                "replace",
                &end,
                "lladdr",
                &mac,
                "dev",
                &interface,
                "nud",
                "permanent",
            ];
            world.gateway.ip(&known).unwrap();
        }
    }
}
