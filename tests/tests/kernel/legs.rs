//! Standing inspected connections while plan, inspector and routes change.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use penstock_agent::enforce::{ApplyMethod, EnforceSettings};
use penstock_agent::observed::{DriftStep, Observation};
use penstock_lab as lab;
use penstock_policy::plan::Observing;
use penstock_policy::terms::{GatewayMode, OnAgentLoss, OnDrift};
use socket2::{Domain, SockRef, Socket, Type};

use super::inspected::{
    Case, Echo, SERVERS, connect, echoes, in_each_mode, inspected, is_cut, plant, refuses, with,
};
use super::inspector::Inspector;
use super::plans::two_flows;
use super::strays::disowned;
use super::unfinished::Stopping;
use super::world::{Agent, MODES, PATIENCE, Side};

/// TCP frames that the gateway sent to this side within the time.
fn heard(side: &Side, time: Duration) -> usize {
    let frames = side.wire.catch_for(time);
    let is_tcp = |f: &&Vec<u8>| match f[12..14] {
        [0x08, 0] => f[23] == 6,
        [0x86, 0xdd] => f[20] == 6,
        _ => false,
    };
    frames
        .iter()
        .filter(is_tcp)
        .filter(|f| f[6..12] != side.mac)
        .count()
}

#[test]
fn a_revoked_flow_is_dead_in_both_directions_though_the_inspector_keeps_its_sockets() {
    in_each_mode(
        "legs::a_revoked_flow_is_dead_in_both_directions_though_the_inspector_keeps_its_sockets",
        async |case| {
            let Case {
                mode,
                world,
                inspector,
                agent,
            } = case;
            let (near, far) = (&world.sides["lan1"], &world.sides["lan2"]);
            let both = inspected(mode, OnAgentLoss::Pass);
            agent.apply(&both, 1).await;
            let mut standing = SERVERS.map(|address| connect(&near.namespace, address).unwrap().0);
            for stream in &mut standing {
                assert!(echoes(stream, b"before"), "{mode:?}");
            }
            let mut without = both.clone();
            without.rules.remove(0);
            let change = match mode {
                GatewayMode::Routed => ApplyMethod::Differences,
                // On a bridge the flow's ends need not find each other any more, either.
                GatewayMode::Bridged => ApplyMethod::Restructured,
            };
            assert_eq!(agent.apply(&without, 2).await.change, change);
            world.drain();
            for stream in &mut standing {
                assert!(is_cut(stream), "{mode:?}: the flow is revoked");
            }
            assert_eq!(
                heard(far, Duration::from_millis(50)),
                0,
                "{mode:?}: the server hears something"
            );
            // The inspector itself says something to both.
            world.drain();
            inspector.say(b"unasked");
            assert_eq!(
                heard(far, Duration::from_millis(250)),
                0,
                "{mode:?}: to the server"
            );
            assert_eq!(
                heard(near, Duration::from_millis(250)),
                0,
                "{mode:?}: to the client"
            );
            let counters = agent.enforcer.counters().await.unwrap();
            assert!(counters.stray_packets >= 4, "{mode:?}: {counters:?}");
            assert_eq!(counters.allowed_packets, 0, "{mode:?}: {counters:?}");
        },
    );
}

#[test]
fn standing_connections_go_on_while_plans_are_swapped_and_lose_no_packet() {
    in_each_mode(
        "legs::standing_connections_go_on_while_plans_are_swapped_and_lose_no_packet",
        async |case| {
            let Case {
                mode,
                world,
                inspector,
                agent,
            } = case;
            let client = &world.sides["lan1"].namespace;
            // The rules know of the inspector from the first plan on that needs it.
            agent.apply(&two_flows(mode), 1).await;
            let first = agent.apply(&inspected(mode, OnAgentLoss::Block), 1).await;
            assert_eq!(first.change, ApplyMethod::Restructured);
            let mut standing = SERVERS.map(|address| connect(client, address).unwrap().0);
            let (mut busy, mut changes) = (Vec::new(), Vec::new());
            let swapped = Arc::new(AtomicBool::new(false));
            for stream in &mut standing {
                let mut stream = stream.try_clone().unwrap();
                let swapped = Arc::clone(&swapped);
                busy.push(std::thread::spawn(move || {
                    let mut rounds = 0;
                    while rounds < 50 || !swapped.load(Ordering::Relaxed) {
                        assert!(echoes(&mut stream, &[9; 3000]));
                        rounds += 1;
                        // The swaps want the processor, too.
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }));
            }
            for round in 0..12_u64 {
                let loss = [OnAgentLoss::Block, OnAgentLoss::Pass][(round % 2) as usize];
                let mut next = inspected(mode, loss);
                if round % 3 == 0 {
                    next.interfaces[2].observing = Observing::Everything;
                }
                changes.push(agent.apply(&next, round + 2).await.change);
            }
            swapped.store(true, Ordering::Relaxed);
            for thread in busy {
                thread.join().unwrap();
            }
            assert!(changes.contains(&ApplyMethod::Restructured), "{changes:?}");
            assert!(changes.contains(&ApplyMethod::Differences), "{changes:?}");
            let counters = agent.enforcer.counters().await.unwrap();
            // Nothing goes by the inspector.
            let astray = counters.stray_packets + counters.unattended_packets + counters.allowed_packets;
            assert_eq!(astray, 0, "{mode:?}: {counters:?}");
            // None is lost: what is refused is to the connection tracking of no connection (see `strays`).
            let refused = counters.denied_packets + counters.input_denied_packets;
            assert!(
                refused <= disowned(),
                "{mode:?}: {} disowned, {counters:?}",
                disowned()
            );
            assert_eq!(inspector.seen().len(), 2);
        },
    );
}

#[test]
fn inspected_connections_stand_and_begin_while_tables_of_another_version_take_over_also_where_agents_are_killed_at_it()
 {
    in_each_mode(
        "legs::inspected_connections_stand_and_begin_while_tables_of_another_version_take_over_also_where_agents_are_killed_at_it",
        async |case| {
            let Case {
                mode,
                world,
                inspector,
                agent,
            } = case;
            let client = &world.sides["lan1"].namespace;
            let plan = inspected(mode, OnAgentLoss::Block);
            agent.apply(&plan, 1).await;
            drop(agent);
            let mut standing = SERVERS.map(|address| connect(client, address).unwrap().0);
            let stopping = Stopping::new();
            let of_version = |log_group| EnforceSettings {
                log_group,
                ..with(&inspector)
            };
            let (mut is_done, mut loads) = (false, 0);
            let mut last = None;
            while !is_done {
                let version = 87 + u16::try_from(loads % 2).unwrap();
                drop(last.take());
                is_done = stopping.kill_amid(of_version(version), None, &plan, loads).await;
                for stream in &mut standing {
                    assert!(
                        echoes(stream, &[9; 3000]),
                        "{mode:?}, killed after {loads} transactions"
                    );
                }
                for address in SERVERS {
                    let (mut stream, _) = connect(client, address).unwrap();
                    assert!(
                        echoes(&mut stream, b"new"),
                        "{mode:?}, killed after {loads} transactions"
                    );
                }
                let agent = Agent::start_with(of_version(version));
                agent.apply(&plan, 2).await;
                (last, loads) = (Some(agent), loads + 1);
            }
            assert_eq!(loads, 8, "{mode:?}: each of the seven transactions, and none");
            let agent = last.unwrap();
            let counters = agent.enforcer.counters().await.unwrap();
            let astray = counters.stray_packets + counters.unattended_packets + counters.allowed_packets;
            assert_eq!(astray, 0, "{mode:?}: {counters:?}");
        },
    );
}

#[test]
fn connections_that_stood_without_an_inspector_go_on_where_zones_observe_until_one_enforces() {
    lab::sandbox::test(
        "legs::connections_that_stood_without_an_inspector_go_on_where_zones_observe_until_one_enforces",
        |lab| {
            for mode in MODES {
                let world = plant(lab, mode);
                let (client, server) = (&world.sides["lan1"].namespace, &world.sides["lan2"].namespace);
                let _echo = SERVERS.map(|address| Echo::start(server, address));
                for (revision, loss) in [(1, OnAgentLoss::Pass), (3, OnAgentLoss::Block)] {
                    let gone = Inspector::start(&world.gateway, None);
                    let (settings, ports) = (with(&gone), gone.ports);
                    drop(gone);
                    let enforcing = inspected(mode, loss);
                    let mut observing = enforcing.clone();
                    for side in &mut observing.interfaces {
                        side.observing = Observing::Everything;
                    }
                    world.at_gateway(async || {
                        let agent = Agent::start_with(settings);
                        agent.apply(&observing, revision).await;
                        let mut unread = SERVERS.map(|address| connect(client, address).unwrap().0);
                        for stream in &mut unread {
                            assert!(echoes(stream, b"unread"), "{mode:?} {loss:?}");
                        }
                        let inspector = Inspector::start(&world.gateway, Some(ports));
                        for (stream, address) in unread.iter_mut().zip(SERVERS) {
                            assert!(echoes(stream, b"goes on"), "{mode:?} {loss:?} {address}");
                            let (mut read, _) = connect(client, address).unwrap();
                            assert!(echoes(&mut read, b"read"));
                        }
                        assert_eq!(inspector.seen().len(), SERVERS.len());
                        agent.apply(&enforcing, revision + 1).await;
                        for stream in &mut unread {
                            assert!(is_cut(stream), "{mode:?} {loss:?}: it goes on unread");
                        }
                    });
                }
            }
        },
    )
    .unwrap();
}

#[test]
fn connections_that_stood_without_an_inspector_end_when_it_comes_and_new_ones_are_inspected() {
    lab::sandbox::test(
        "legs::connections_that_stood_without_an_inspector_end_when_it_comes_and_new_ones_are_inspected",
        |lab| {
            for mode in MODES {
                let world = plant(lab, mode);
                let (client, server) = (&world.sides["lan1"].namespace, &world.sides["lan2"].namespace);
                let _echo = SERVERS.map(|address| Echo::start(server, address));
                let gone = Inspector::start(&world.gateway, None);
                let (settings, ports) = (with(&gone), gone.ports);
                drop(gone);
                world.at_gateway(async || {
                    let agent = Agent::start_with(settings);
                    agent.apply(&inspected(mode, OnAgentLoss::Pass), 1).await;
                    for address in SERVERS {
                        let (mut unread, _) = connect(client, address).unwrap();
                        assert!(echoes(&mut unread, b"unread"));
                        let inspector = Inspector::start(&world.gateway, Some(ports));
                        assert!(is_cut(&mut unread), "{mode:?}: it goes on unread");
                        let (mut read, _) = connect(client, address).unwrap();
                        assert!(echoes(&mut read, b"read"));
                        assert_eq!(inspector.seen().len(), 1);
                        // The other way round: without the inspector a new connection passes again.
                        drop(inspector);
                        assert!(is_cut(&mut read));
                        let (mut unread, _) = connect(client, address).unwrap();
                        assert!(echoes(&mut unread, b"unread"));
                    }
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn who_begins_again_from_its_port_is_not_taken_for_what_a_lost_inspector_carried() {
    lab::sandbox::test(
        "legs::who_begins_again_from_its_port_is_not_taken_for_what_a_lost_inspector_carried",
        |lab| {
            let mode = GatewayMode::Routed;
            let world = plant(lab, mode);
            let (client, server) = (&world.sides["lan1"].namespace, &world.sides["lan2"].namespace);
            let _echo = SERVERS.map(|address| Echo::start(server, address));
            let inspector = Inspector::start(&world.gateway, None);
            // Both ends vanish without a reset, so that the connection stands on in the connection tracking.
            for namespace in [client, &world.gateway] {
                let mute = "table inet mute { chain output { type filter hook output priority raw; \
                            tcp flags & rst != 0 drop; }; }";
                namespace.run_with_input("nft", &["-f", "-"], mute).unwrap();
            }
            world.at_gateway(async || {
                let agent = Agent::start_with(with(&inspector));
                // Without an inspector it passes since all sides only observe: nothing on the connection tells it is new.
                let mut plan = inspected(mode, OnAgentLoss::Block);
                for interface in &mut plan.interfaces {
                    interface.observing = Observing::Everything;
                }
                agent.apply(&plan, 1).await;
                let ports = SERVERS.map(|address| {
                    let (mut stream, _) = connect(client, address).unwrap();
                    assert!(echoes(&mut stream, b"carried"));
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                    stream.local_addr().unwrap()
                });
                drop(inspector);
                for (from, address) in ports.into_iter().zip(SERVERS) {
                    let again = || {
                        let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
                        socket.bind(&from.into())?;
                        let server: SocketAddr = address.parse().unwrap();
                        socket.connect_timeout(&server.into(), PATIENCE)?;
                        let mut stream = TcpStream::from(socket);
                        stream.set_read_timeout(Some(PATIENCE))?;
                        // The server tells first whom it sees.
                        stream.read_exact(&mut vec![0; from.ip().to_string().len() + 1])?;
                        std::io::Result::Ok(echoes(&mut stream, b"again"))
                    };
                    assert!(matches!(client.enter(again).unwrap(), Ok(true)), "{address}");
                }
            });
        },
    )
    .unwrap();
}

#[test]
fn a_connection_whose_operations_are_no_longer_limited_goes_on_through_the_inspector() {
    in_each_mode(
        "legs::a_connection_whose_operations_are_no_longer_limited_goes_on_through_the_inspector",
        async |case| {
            let Case {
                mode,
                world,
                inspector,
                agent,
            } = case;
            let client = &world.sides["lan1"].namespace;
            let limited = inspected(mode, OnAgentLoss::Block);
            agent.apply(&limited, 1).await;
            let mut standing = SERVERS.map(|address| connect(client, address).unwrap().0);
            let mut unlimited = limited.clone();
            unlimited.rules[0].operations = None;
            agent.apply(&unlimited, 2).await;
            for (stream, address) in standing.iter_mut().zip(SERVERS) {
                assert!(echoes(stream, &[3; 100_000]), "{mode:?} {address}");
                let (mut new, _) = connect(client, address).unwrap();
                assert!(echoes(&mut new, b"new"));
            }
            assert_eq!(inspector.seen().len(), 2, "new ones do not come");
            // A plan that does not permit them at all ends them.
            let mut without = unlimited.clone();
            without.rules.remove(0);
            agent.apply(&without, 3).await;
            for stream in &mut standing {
                assert!(is_cut(stream), "{mode:?}");
            }
        },
    );
}

#[test]
fn a_lost_route_to_the_inspector_lets_nothing_by_and_is_put_back() {
    in_each_mode(
        "legs::a_lost_route_to_the_inspector_lets_nothing_by_and_is_put_back",
        async |case| {
            let Case {
                mode,
                world,
                mut agent,
                ..
            } = case;
            let client = &world.sides["lan1"].namespace;
            let lose = || {
                for family in ["-4", "-6"] {
                    world.gateway.ip(&[family, "rule", "del", "pref", "86"]).unwrap();
                }
            };
            let mut plan = inspected(mode, OnAgentLoss::Pass);
            plan.on_drift = OnDrift::Report;
            agent.apply(&plan, 1).await;
            lose();
            for address in SERVERS {
                assert!(refuses(client, address), "{mode:?} {address}");
            }
            let counters = agent.enforcer.counters().await.unwrap();
            assert_eq!(
                (counters.allowed_packets, counters.unattended_packets),
                (0, 0),
                "{counters:?}"
            );
            plan.on_drift = OnDrift::Repair;
            agent.apply(&plan, 2).await;
            for address in SERVERS {
                assert!(
                    connect(client, address).is_ok(),
                    "{mode:?} {address}: applying sets it"
                );
            }
            lose();
            let repaired = |o: &Observation| matches!(o, Observation::Drift { step: DriftStep::Repaired, message, .. } if message.contains("routing rule"));
            agent.observe_until(repaired).await;
            agent.enforcer.verify().await.unwrap();
            for address in SERVERS {
                assert!(
                    connect(client, address).is_ok(),
                    "{mode:?} {address}: it is put back"
                );
            }
        },
    );
}
