//! Standing inspected connections while plan, inspector and routes change.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use penstock::lab;
use penstock_agent::enforce::{Change, Counters, DriftStep, Observed};
use penstock_policy::model::{Enforcement, GatewayMode, OnAgentLoss, OnDrift};
use socket2::{Domain, SockRef, Socket, Type};

use super::flows::too_big;
use super::inspected::{
    Case, Echo, MODES, SERVERS, connect, echoes, in_each_mode, inspected, is_cut, plant, refuses, with,
};
use super::inspector::Inspector;
use super::plans::two_flows;
use super::wire::{copy_of, ip};
use super::world::{Agent, PATIENCE, SILENCE, Side};

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
            assert_eq!(agent.apply(&without, 2).await.change, Change::Differences);
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
            assert_eq!(first.change, Change::Restructured);
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
                    next.interfaces[2].enforcement = Enforcement::Observe;
                }
                changes.push(agent.apply(&next, round + 2).await.change);
            }
            swapped.store(true, Ordering::Relaxed);
            for thread in busy {
                thread.join().unwrap();
            }
            assert!(changes.contains(&Change::Restructured), "{changes:?}");
            assert!(changes.contains(&Change::Differences), "{changes:?}");
            let counters = agent.enforcer.counters().await.unwrap();
            // Nothing goes by the inspector.
            let astray = counters.stray_packets + counters.unattended_packets + counters.allowed_packets;
            assert_eq!(astray, 0, "{mode:?}: {counters:?}");
            // None is lost: what is refused is to the connection tracking of no connection (see the next test).
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
fn a_late_copy_or_a_torn_packet_of_a_standing_connection_goes_nowhere_unread_and_harms_nothing() {
    in_each_mode(
        "legs::a_late_copy_or_a_torn_packet_of_a_standing_connection_goes_nowhere_unread_and_harms_nothing",
        async |case| {
            let Case {
                mode, world, agent, ..
            } = case;
            let near = &world.sides["lan1"];
            agent.apply(&inspected(mode, OnAgentLoss::Pass), 1).await;
            for (number, address) in (1..).zip(SERVERS) {
                let (mut stream, _) = connect(&near.namespace, address).unwrap();
                world.drain();
                assert!(echoes(&mut stream, b"long ago"));
                let frames = near.wire.catch_for(Duration::from_millis(50));
                let sent = |f: &&Vec<u8>| f[6..12] == near.mac && f.windows(8).any(|w| w == b"long ago");
                let copy = frames.iter().find(sent).expect("the packet was not seen");
                assert!(echoes(&mut stream, &[5; 300_000]), "{mode:?} {address}");
                near.wire.send(&copy_of(copy));
                // The inspector's system answers that it has it.
                assert!(echoes(&mut stream, b"once"), "{mode:?} {address}");
                // As it was caught its checksum is not there yet: torn, and to the connection tracking of no connection.
                near.wire.send(copy);
                let begun = Instant::now();
                // On a bridge it would be forwarded; on a router it finds the inspector's socket, and no mark on it.
                let refused = |c: &Counters| c.denied_packets + c.input_denied_packets;
                let mut counters = agent.enforcer.counters().await.unwrap();
                while refused(&counters) < number && begun.elapsed() < Duration::from_secs(3) {
                    std::thread::sleep(Duration::from_millis(5));
                    counters = agent.enforcer.counters().await.unwrap();
                }
                let passed = counters.allowed_packets + counters.unattended_packets;
                assert_eq!(
                    (refused(&counters), passed),
                    (number, 0),
                    "{mode:?} {address}: {counters:?}"
                );
                assert_eq!(disowned(), number, "{mode:?} {address}");
                assert!(echoes(&mut stream, b"now"), "{mode:?} {address}");
            }
        },
    );
}

/// Packets that the connection tracking of this thread's namespace took for no part of a connection: too old, or torn.
fn disowned() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").unwrap();
    let mut lines = text.lines();
    let place = lines
        .next()
        .unwrap()
        .split_whitespace()
        .position(|name| name == "invalid")
        .unwrap();
    lines
        .map(|line| u64::from_str_radix(line.split_whitespace().nth(place).unwrap(), 16).unwrap())
        .sum()
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
                    interface.enforcement = Enforcement::Observe;
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
fn what_comes_from_another_side_is_of_no_leg_though_a_leg_has_its_addresses() {
    in_each_mode(
        "legs::what_comes_from_another_side_is_of_no_leg_though_a_leg_has_its_addresses",
        async |case| {
            let Case {
                mode, world, agent, ..
            } = case;
            let (near, far) = (&world.sides["lan1"], &world.sides["lan2"]);
            agent.apply(&inspected(mode, OnAgentLoss::Pass), 1).await;
            for address in SERVERS {
                let (mut stream, _) = connect(&near.namespace, address).unwrap();
                assert!(echoes(&mut stream, b"first"));
                world.drain();
                assert!(echoes(&mut stream, b"copied"));
                // Both legs' packets, of both peers, as the other two sides could have made them.
                for (side, others) in [(near, ["lan2", "lan3"]), (far, ["lan1", "lan3"])] {
                    let frames = side.wire.catch_for(Duration::from_millis(50));
                    let sent = |f: &&Vec<u8>| f[6..12] == side.mac && f.windows(6).any(|w| w == b"copied");
                    let copy = copy_of(frames.iter().find(sent).expect("the packet was not seen"));
                    let before = agent.enforcer.counters().await.unwrap().intercepted_packets;
                    for other in others {
                        let other = &world.sides[other];
                        let to = match mode {
                            GatewayMode::Routed => &other.gateway_mac,
                            GatewayMode::Bridged => &copy.first_chunk().copied().unwrap(),
                        };
                        other.wire.send(&[to, &other.mac, &copy[12..]].concat());
                    }
                    std::thread::sleep(Duration::from_millis(50));
                    let counters = agent.enforcer.counters().await.unwrap();
                    assert_eq!(
                        counters.intercepted_packets, before,
                        "{mode:?} {address}: {counters:?}"
                    );
                }
            }
        },
    );
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
            let repaired = |o: &Observed| matches!(o, Observed::Drift { step: DriftStep::Repaired, message, .. } if message.contains("routing rule"));
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

#[test]
fn what_the_gateway_sends_with_foreign_addresses_is_an_inspected_flow_or_is_dropped() {
    lab::sandbox::test(
        "legs::what_the_gateway_sends_with_foreign_addresses_is_an_inspected_flow_or_is_dropped",
        |lab| {
            for mode in MODES {
                let world = plant(lab, mode);
                let server = &world.sides["lan2"].namespace;
                let _echo = ["10.2.0.9:502", "10.2.0.9:503"].map(|address| Echo::start(server, address));
                let inspector = Inspector::start(&world.gateway, None);
                world.at_gateway(async || {
                    let agent = Agent::start_with(with(&inspector));
                    agent.apply(&inspected(mode, OnAgentLoss::Block), 1).await;
                    let connects = |from: &str, to: &str, patience: Duration| {
                        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                        socket.set_ip_transparent_v4(true).unwrap();
                        let from: SocketAddr = from.parse().unwrap();
                        socket.bind(&from.into()).unwrap();
                        let to: SocketAddr = to.parse().unwrap();
                        socket.connect_timeout(&to.into(), patience).is_ok()
                    };
                    assert!(
                        connects("10.1.0.5:20001", "10.2.0.9:502", PATIENCE),
                        "{mode:?}: the inspector may"
                    );
                    assert!(
                        !connects("10.1.0.5:20002", "10.2.0.9:503", SILENCE),
                        "{mode:?}: another port"
                    );
                    assert!(
                        !connects("10.1.0.6:20003", "10.2.0.9:502", SILENCE),
                        "{mode:?}: for another client"
                    );
                    assert!(
                        !connects("10.3.0.7:20004", "10.2.0.9:502", SILENCE),
                        "{mode:?}: from another side"
                    );
                    let own = TcpStream::connect_timeout(&"10.2.0.9:503".parse().unwrap(), PATIENCE);
                    assert!(
                        own.is_ok(),
                        "{mode:?}: what the gateway itself opens is its own affair"
                    );
                    assert!(agent.enforcer.counters().await.unwrap().stray_packets >= 3);
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn path_mtu_errors_reach_the_leg_that_they_are_about() {
    in_each_mode(
        "legs::path_mtu_errors_reach_the_leg_that_they_are_about",
        async |case| {
            let Case {
                mode,
                world,
                inspector,
                agent,
            } = case;
            let client = &world.sides["lan1"].namespace;
            agent.apply(&inspected(mode, OnAgentLoss::Block), 1).await;
            for (address, (router1, router2)) in SERVERS
                .into_iter()
                .zip([("10.1.0.77", "10.2.0.77"), ("fd00:1::77", "fd00:2::77")])
            {
                world.drain();
                let (mut stream, _) = connect(client, address).unwrap();
                assert!(echoes(&mut stream, b"hello"));
                let (near, far) = inspector.last_legs();
                for (leg, side, router) in [(&near, "lan1", router1), (&far, "lan2", router2)] {
                    assert_eq!(mtu(leg), 1500, "{mode:?} {address} {side}");
                    let (from, to) = (leg.local_addr().unwrap(), leg.peer_addr().unwrap());
                    // On a bridge the near leg is addressed to the inspector; on the wire it is the server.
                    let from = if side == "lan1" {
                        address.parse().unwrap()
                    } else {
                        from
                    };
                    let wrong = if side == "lan1" { "lan3" } else { "lan1" };
                    let about = quoted(&world.sides[side], from, to);
                    for (interface, expected) in [(wrong, 1500), (side, 1280)] {
                        let error = too_big(router.parse().unwrap(), from.ip(), &about);
                        let other = if interface == "lan2" { "lan1" } else { "lan2" };
                        world.send(interface, other, &error);
                        let begun = Instant::now();
                        while mtu(leg) != expected && begun.elapsed() < PATIENCE {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        std::thread::sleep(Duration::from_millis(20));
                        assert_eq!(
                            mtu(leg),
                            expected,
                            "{mode:?} {address} {side}, error by {interface}"
                        );
                    }
                }
                assert!(
                    echoes(&mut stream, &[4; 50_000]),
                    "{mode:?} {address}: it goes on"
                );
            }
        },
    );
}

/// The beginning of the next packet between these ends, as an error quotes it, by the last that was seen on the wire.
fn quoted(side: &Side, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let header = if from.is_ipv6() { 54 } else { 34 };
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let frames = side.wire.catch_for(Duration::from_millis(60));
    let last = frames
        .iter()
        .rfind(|f| f.len() >= header + 20 && f[header..header + 4] == ports);
    let tcp = &last.expect("no packet of the leg was seen")[header..];
    let sent = tcp.len() - usize::from(tcp[12] >> 4) * 4;
    let sequence = u32::from_be_bytes(tcp[4..8].try_into().unwrap()) + sent as u32;
    let mut next = [ports, sequence.to_be_bytes().to_vec()].concat();
    next.extend([0; 12]);
    ip(from.ip(), to.ip(), 6, 0, &next)
}

/// What the kernel takes for the largest packet on a connection's path.
fn mtu(leg: &TcpStream) -> u32 {
    if leg.peer_addr().unwrap().is_ipv6() {
        rustix::net::sockopt::ipv6_mtu(leg).unwrap()
    } else {
        rustix::net::sockopt::ip_mtu(leg).unwrap()
    }
}
