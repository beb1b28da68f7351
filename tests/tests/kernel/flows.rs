//! Verdicts over a connection's life: revocation, change of policy, errors about it, fragments and odd headers.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use penstock_agent::enforce::ApplyMethod;
use penstock_lab as lab;
use penstock_policy::plan::{Observing, Plan};
use penstock_policy::terms::{GatewayMode, OnAgentLoss};
use penstock_policy::verdict::Carried;

use super::inspected::{inspected, with};
use super::inspector::Inspector;
use super::plans::{SIDES, plan, rule, tcp, two_flows};
use super::wire::{Part, Probe, checksum, frame, ip, pseudo, set_dscp};
use super::world::{Agent, MODES, World, at_each_gateway};

pub fn probe(source: &str, destination: &str, transport: Carried, number: u16) -> Probe {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    Probe {
        source,
        destination,
        transport,
        number,
        dscp: 0,
    }
}

fn modbus(v6: bool) -> Probe {
    if v6 {
        probe("fd00:1::5", "fd00:2::9", Carried::Tcp(502), 4000)
    } else {
        probe("10.1.0.5", "10.2.0.9", Carried::Tcp(502), 4000)
    }
}

#[test]
fn a_revoked_flow_stops_at_its_next_packet_in_both_directions_and_others_go_on() {
    at_each_gateway(
        "flows::a_revoked_flow_stops_at_its_next_packet_in_both_directions_and_others_go_on",
        async |mode, world, agent| {
            let both = two_flows(mode);
            agent.apply(&both, 1).await;
            let others = [
                probe("10.1.0.6", "10.2.0.9", Carried::Udp(4050), 5000),
                probe("fd00:1::6", "fd00:2::9", Carried::Udp(4050), 5001),
            ];
            for standing in [modbus(false), modbus(true), others[0], others[1]] {
                for part in [Part::Opening, Part::Answer, Part::Data] {
                    assert!(
                        world.passes("lan1", "lan2", &standing, part, true),
                        "{standing:?} {part:?}"
                    );
                }
            }
            let mut without = both.clone();
            without.rules.remove(0);
            // On a bridge the flow's ends need not find each other any more, either.
            let change = match mode {
                GatewayMode::Routed => ApplyMethod::Differences,
                GatewayMode::Bridged => ApplyMethod::Restructured,
            };
            assert_eq!(agent.apply(&without, 2).await.change, change);
            for revoked in [modbus(false), modbus(true)] {
                for part in [Part::Data, Part::Answer] {
                    assert!(
                        !world.passes("lan1", "lan2", &revoked, part, false),
                        "{revoked:?} {part:?}"
                    );
                }
            }
            for other in others {
                for part in [Part::Data, Part::Answer] {
                    assert!(
                        world.passes("lan1", "lan2", &other, part, true),
                        "{other:?} {part:?}"
                    );
                }
            }
            agent.apply(&both, 3).await;
            for again in [modbus(false), modbus(true)] {
                assert!(
                    world.passes("lan1", "lan2", &again, Part::Data, true),
                    "{again:?}"
                );
            }
        },
    );
}

#[test]
fn no_packet_of_a_flow_that_stays_is_lost_while_plans_are_swapped() {
    lab::sandbox::test(
        "flows::no_packet_of_a_flow_that_stays_is_lost_while_plans_are_swapped",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                let stays = probe("10.1.0.6", "10.2.0.9", Carried::Udp(4050), 5000);
                let packet = world.frame("lan1", "lan2", &stays, Part::Opening);
                let (go, stop, sent) = (
                    AtomicBool::new(false),
                    AtomicBool::new(false),
                    AtomicUsize::new(0),
                );
                let mut caught = std::thread::scope(|scope| {
                    let sender = scope.spawn(|| {
                        let mut caught = Vec::new();
                        while !stop.load(Relaxed) {
                            std::thread::sleep(Duration::from_micros(100));
                            if go.load(Relaxed) {
                                world.sides["lan1"].wire.send(&packet);
                                sent.fetch_add(1, Relaxed);
                                // On a slow machine more packets come than a socket keeps for later.
                                caught.extend(std::iter::from_fn(|| world.sides["lan2"].wire.try_catch()));
                            }
                        }
                        caught
                    });
                    let swaps = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        world.at_gateway(async || {
                            let agent = Agent::start();
                            agent.apply(&two_flows(mode), 1).await;
                            world.drain();
                            go.store(true, Relaxed);
                            // On a loaded machine few packets come between two swaps.
                            let few = || sent.load(Relaxed) < 300 && !sender.is_finished();
                            for round in (0_u64..).take_while(|round| *round < 20 || few()) {
                                let mut next = two_flows(mode);
                                if round % 2 == 0 {
                                    next.rules.remove(0);
                                }
                                if round % 4 == 0 {
                                    // A change of structure: the tables are replaced whole.
                                    next.interfaces[2].observing = Observing::Everything;
                                }
                                if round % 4 == 3 {
                                    // Another one, with chains of its own.
                                    let half = vec!["10.3.0.0/25".parse().unwrap()];
                                    next.interfaces[2].observing = Observing::Only(half);
                                }
                                agent.apply(&next, round + 2).await;
                            }
                        });
                    }));
                    stop.store(true, Relaxed);
                    let caught = sender.join().unwrap();
                    swaps.unwrap();
                    caught
                });
                caught.extend(world.sides["lan2"].wire.catch_for(Duration::from_millis(200)));
                let of_flow = caught
                    .iter()
                    .filter(|f| f[12..14] == [8, 0] && f[23] == 17)
                    .count();
                assert_eq!(of_flow, sent.into_inner(), "{mode:?}: packets were lost");
            }
        },
    )
    .unwrap();
}

/// An ICMP "fragmentation needed" or ICMPv6 "packet too big" from `router` about the packet `about`.
pub fn too_big(router: IpAddr, to: IpAddr, about: &[u8]) -> Vec<u8> {
    let quoted = &about[..about.len().min(64)];
    let v6 = router.is_ipv6();
    let mut body = if v6 {
        vec![2, 0, 0, 0, 0, 0, 5, 0]
    } else {
        vec![3, 4, 0, 0, 0, 0, 5, 0]
    };
    body.extend_from_slice(quoted);
    let protocol = if v6 { 58 } else { 1 };
    let header = if v6 {
        pseudo(router, to, 58, body.len())
    } else {
        vec![]
    };
    let sum = checksum(&[&header, &body]);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(router, to, protocol, 0, &body)
}

/// Routers on `lan2` that are in no zone.
const ROUTERS: [&str; 2] = ["203.0.113.1", "2001:db8::1"];

fn with_routers(mut plan: Plan) -> Plan {
    let nets = ROUTERS.map(|router| router.parse::<IpAddr>().unwrap().into());
    plan.interfaces[1].routers = nets.to_vec();
    plan
}

#[test]
fn path_mtu_errors_pass_for_allowed_connections_only_and_from_the_right_side_only() {
    lab::sandbox::test(
        "flows::path_mtu_errors_pass_for_allowed_connections_only_and_from_the_right_side_only",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &["lan1", "lan2", "lan3", "spare"]);
                world.at_gateway(async || {
                    let agent = Agent::start();
                    let plan = with_routers(two_flows(mode));
                    agent.apply(&plan, 1).await;
                    for v6 in [false, true] {
                        let allowed = modbus(v6);
                        assert!(world.passes("lan1", "lan2", &allowed, Part::Opening, true));
                        assert!(world.passes("lan1", "lan2", &allowed, Part::Answer, true));
                        let denied = Probe {
                            transport: Carried::Tcp(503),
                            number: 4001,
                            ..allowed
                        };
                        assert!(!world.passes("lan1", "lan2", &denied, Part::Opening, false));
                        let error = |router: &str, about: &Probe| {
                            let mut packet =
                                too_big(router.parse().unwrap(), about.source, &about.packet(Part::Data));
                            // The lab's routing goes by DSCP.
                            set_dscp(&mut packet, world.sides["lan1"].dscp);
                            packet
                        };
                        let router = if v6 { ROUTERS[1] } else { ROUTERS[0] };
                        assert!(
                            arrives(&world, "lan2", "lan1", &error(router, &allowed), true),
                            "{mode:?} {v6}"
                        );
                        assert!(
                            !arrives(&world, "lan2", "lan1", &error(router, &denied), false),
                            "{mode:?} {v6}"
                        );
                        for elsewhere in ["lan3", "spare"] {
                            assert!(
                                !arrives(&world, elsewhere, "lan1", &error(router, &allowed), false),
                                "{mode:?} {v6} {elsewhere}"
                            );
                        }
                        let mut without = plan.clone();
                        without.rules.remove(0);
                        agent.apply(&without, 2).await;
                        assert!(
                            !arrives(&world, "lan2", "lan1", &error(router, &allowed), false),
                            "{mode:?} {v6}"
                        );
                        agent.apply(&plan, 3).await;
                    }
                });
            }
        },
    )
    .unwrap();
}

/// Whether an IP packet sent at `from` comes out at `to`.
fn arrives(world: &World, from: &str, to: &str, packet: &[u8], expected: bool) -> bool {
    let (near, far) = (&world.sides[from], &world.sides[to]);
    let next = if world.mode == GatewayMode::Routed {
        near.gateway_mac
    } else {
        far.mac
    };
    let frames = [(from.to_owned(), to.to_owned(), frame(near.mac, next, packet))];
    let expected = if expected {
        HashSet::from([0])
    } else {
        HashSet::new()
    };
    !world.through(&frames, &expected).is_empty()
}

#[test]
fn a_standing_connection_is_judged_by_its_wire_at_every_packet() {
    at_each_gateway(
        "flows::a_standing_connection_is_judged_by_its_wire_at_every_packet",
        async |mode, world, agent| {
            agent.apply(&two_flows(mode), 1).await;
            for v6 in [false, true] {
                let standing = modbus(v6);
                for part in [Part::Opening, Part::Answer, Part::Data] {
                    assert!(world.passes("lan1", "lan2", &standing, part, true));
                }
                // The same bytes from another side are forged, in either direction.
                assert!(
                    !world.passes("lan3", "lan2", &standing, Part::Data, false),
                    "{mode:?}"
                );
                assert!(
                    !world.passes("lan1", "lan3", &standing, Part::Answer, false),
                    "{mode:?}"
                );
            }
        },
    );
}

#[test]
fn fragments_of_an_allowed_flow_pass_and_headers_that_hide_ports_do_not() {
    at_each_gateway(
        "flows::fragments_of_an_allowed_flow_pass_and_headers_that_hide_ports_do_not",
        async |mode, world, agent| {
            agent.apply(&two_flows(mode), 1).await;
            for (port, passes) in [(4050, true), (5050, false)] {
                assert_eq!(
                    fragments_pass(world, port, passes),
                    passes,
                    "{mode:?} IPv4 UDP {port}"
                );
            }
            // Destination options before UDP: no rule can see through every header there is.
            let (from, to): (IpAddr, IpAddr) = ("fd00:1::6".parse().unwrap(), "fd00:2::9".parse().unwrap());
            let plain = probe("fd00:1::6", "fd00:2::9", Carried::Udp(4050), 6001);
            assert!(world.passes("lan1", "lan2", &plain, Part::Opening, true));
            let udp = Probe {
                number: 6002,
                ..plain
            }
            .packet(Part::Opening)[40..]
                .to_vec();
            let body = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp].concat();
            let hidden = ip(from, to, 60, world.sides["lan2"].dscp, &body);
            assert!(!arrives(world, "lan1", "lan2", &hidden, false), "{mode:?}");
        },
    );
}

/// Sends a UDP datagram over IPv4 in two fragments; whether two fragments, or the whole, come out.
fn fragments_pass(world: &World, port: u16, expected: bool) -> bool {
    let (from, to): (IpAddr, IpAddr) = ("10.1.0.6".parse().unwrap(), "10.2.0.9".parse().unwrap());
    let mut udp = [
        7000_u16.to_be_bytes(),
        port.to_be_bytes(),
        1208_u16.to_be_bytes(),
        [0, 0],
    ]
    .concat();
    udp.resize(1208, 0x55);
    let sum = checksum(&[&pseudo(from, to, 17, udp.len()), &udp]);
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    world.drain();
    for (offset, more, part) in [(0_u16, true, &udp[..800]), (100, false, &udp[800..])] {
        let mut packet = ip(from, to, 17, world.sides["lan2"].dscp, part);
        packet[4..6].copy_from_slice(&port.to_be_bytes());
        let flags = offset | if more { 0x2000 } else { 0 };
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        packet[10..12].copy_from_slice(&[0, 0]);
        let sum = checksum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        world.send("lan1", "lan2", &packet);
    }
    let bytes = std::cell::Cell::new(0);
    world.sides["lan2"].wire.catches(expected, |frame| {
        if frame[12..14] == [8, 0] && frame[23] == 17 {
            bytes.set(bytes.get() + frame.len() - 34);
        }
        bytes.get() >= 1208
    });
    let bytes = bytes.get();
    assert!(
        bytes == 0 || bytes == 1208,
        "{bytes} bytes of a datagram of 1208 came out"
    );
    bytes == 1208
}

#[test]
fn sides_that_change_go_and_come_back_are_asked_as_they_are_now() {
    lab::sandbox::test(
        "flows::sides_that_change_go_and_come_back_are_asked_as_they_are_now",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                let inspector = Inspector::start(&world.gateway, None);
                world.at_gateway(async || {
                    let agent = Agent::start_with(with(&inspector));
                    // With all chains that there are.
                    let full = inspected(mode, OnAgentLoss::Block);
                    let of_lan1 = |networks: &[&str]| {
                        let mut plan = full.clone();
                        plan.interfaces[0].networks = networks.iter().map(|n| n.parse().unwrap()).collect();
                        plan
                    };
                    let mut without_lan1 = full.clone();
                    without_lan1.interfaces.remove(0);
                    // All characters that a name may have, at its beginning and end too.
                    let mut oddly_named = full.clone();
                    for name in [
                        "eth0.100",
                        "br-lan",
                        "a@b:0_c",
                        "0-",
                        ".x.",
                        "_y:",
                        "@",
                        "-in-put",
                        "lan1.accept",
                    ] {
                        let mut interface = full.interfaces[2].clone();
                        interface.name = name.to_owned();
                        interface.networks = vec!["10.7.0.0/16".parse().unwrap()];
                        oddly_named.interfaces.push(interface);
                    }
                    let steps = [
                        (full.clone(), [true, true]),
                        (of_lan1(&["10.1.0.0/30", "fd00:1::/126"]), [true, false]),
                        (of_lan1(&["10.1.0.4/30", "fd00:1::4/126"]), [false, true]),
                        // They touch, and one lies in another.
                        (
                            of_lan1(&["10.1.0.0/29", "10.1.0.2/31", "10.1.0.8/29", "fd00:1::/125"]),
                            [true, true],
                        ),
                        (of_lan1(&["10.9.0.0/16", "fd00:9::/64"]), [false, false]),
                        (without_lan1, [false, false]),
                        (oddly_named, [true, true]),
                        (of_lan1(&["0.0.0.0/1", "::/0"]), [true, true]),
                        (full.clone(), [true, true]),
                    ];
                    for (revision, (plan, expected)) in (1..).zip(steps) {
                        let applied = agent.apply(&plan, revision).await;
                        assert!(
                            revision == 1 || applied.change == ApplyMethod::Restructured,
                            "{revision}"
                        );
                        agent.enforcer.verify().await.unwrap();
                        for ((v4, v6), passes) in [("10.1.0.2", "fd00:1::2"), ("10.1.0.6", "fd00:1::6")]
                            .into_iter()
                            .zip(expected)
                        {
                            for (from, to) in [(v4, "10.2.0.9"), (v6, "fd00:2::9")] {
                                let packet = probe(from, to, Carried::Udp(4050), 5000);
                                assert_eq!(
                                    world.passes("lan1", "lan2", &packet, Part::Opening, passes),
                                    passes,
                                    "{mode:?} step {revision}: {from}"
                                );
                            }
                        }
                    }
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn an_observing_pair_passes_everything_and_an_enforcing_side_makes_it_enforce() {
    at_each_gateway(
        "flows::an_observing_pair_passes_everything_and_an_enforcing_side_makes_it_enforce",
        async |mode, world, agent| {
            let rules = vec![rule(7, &["10.1.0.5"], &["10.2.0.9"], tcp(502))];
            let observed = super::plans::observing(plan(mode, rules), &["lan1", "lan2"]);
            agent.apply(&observed, 1).await;
            let undeclared = probe("10.1.0.5", "10.2.0.9", Carried::Tcp(22), 4100);
            assert!(
                world.passes("lan1", "lan2", &undeclared, Part::Opening, true),
                "{mode:?}"
            );
            assert!(
                world.passes("lan1", "lan2", &undeclared, Part::Answer, true),
                "{mode:?}"
            );
            let forged = probe("192.0.2.1", "10.2.0.9", Carried::Udp(53), 4101);
            assert!(
                world.passes("lan1", "lan2", &forged, Part::Opening, true),
                "{mode:?}"
            );
            let to_enforcing = probe("10.1.0.5", "10.3.0.9", Carried::Tcp(22), 4102);
            assert!(
                !world.passes("lan1", "lan3", &to_enforcing, Part::Opening, false),
                "{mode:?}"
            );
            let counters = agent.enforcer.counters().await.unwrap();
            assert_eq!(
                (counters.would_deny_packets, counters.denied_packets),
                (3, 1),
                "{mode:?}"
            );
        },
    );
}
