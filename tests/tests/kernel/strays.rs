//! Packets that have the addresses of a standing inspected connection and are not of its ends: late copies, torn ones, from
//! another side, errors about it, and what the gateway sends in others' names.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use penstock_agent::enforce::Counters;
use penstock_lab as lab;
use penstock_policy::terms::{GatewayMode, OnAgentLoss};
use socket2::{Domain, Socket, Type};

use super::flows::too_big;
use super::inspected::{Case, Echo, SERVERS, connect, echoes, in_each_mode, inspected, plant, with};
use super::inspector::Inspector;
use super::wire::{copy_of, ip};
use super::world::{Agent, MODES, PATIENCE, SILENCE, Side};

#[test]
fn a_late_copy_or_a_torn_packet_of_a_standing_connection_goes_nowhere_unread_and_harms_nothing() {
    in_each_mode(
        "strays::a_late_copy_or_a_torn_packet_of_a_standing_connection_goes_nowhere_unread_and_harms_nothing",
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
                // Whether tracking still takes the copy for a part of the connection depends on how far the window grew.
                let before = disowned();
                assert!(
                    (number - 1..2 * number).contains(&before),
                    "{mode:?} {address}: {before}"
                );
                // As it was caught its checksum is not there yet: torn, and to the connection tracking of no connection.
                near.wire.send(copy);
                // On a bridge it would be forwarded; on a router it finds the inspector's socket, and no mark on it.
                let refused = |c: &Counters| c.denied_packets + c.input_denied_packets;
                let counters = agent.counters_once(|c| refused(c) > before).await;
                let passed = counters.allowed_packets + counters.unattended_packets;
                assert_eq!(
                    (refused(&counters), passed),
                    (before + 1, 0),
                    "{mode:?} {address}: {counters:?}"
                );
                assert_eq!(disowned(), before + 1, "{mode:?} {address}");
                assert!(echoes(&mut stream, b"now"), "{mode:?} {address}");
            }
        },
    );
}

/// Packets that the connection tracking of this thread's namespace took for no part of a connection: too old, or torn.
pub fn disowned() -> u64 {
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
fn what_comes_from_another_side_is_of_no_leg_though_a_leg_has_its_addresses() {
    in_each_mode(
        "strays::what_comes_from_another_side_is_of_no_leg_though_a_leg_has_its_addresses",
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
fn what_the_gateway_sends_with_foreign_addresses_is_an_inspected_flow_or_is_dropped() {
    lab::sandbox::test(
        "strays::what_the_gateway_sends_with_foreign_addresses_is_an_inspected_flow_or_is_dropped",
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
        "strays::path_mtu_errors_reach_the_leg_that_they_are_about",
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
pub fn mtu(leg: &TcpStream) -> u32 {
    if leg.peer_addr().unwrap().is_ipv6() {
        rustix::net::sockopt::ipv6_mtu(leg).unwrap()
    } else {
        rustix::net::sockopt::ip_mtu(leg).unwrap()
    }
}
