//! Ways by which a packet of an inspected flow might be forwarded beside the inspector. There are none while it lives.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use penstock_lab as lab;
use penstock_policy::terms::{GatewayMode, OnAgentLoss};
use penstock_policy::verdict::Carried;
use penstock_tests::at_once;

use super::inspected::{inspected, plant, with};
use super::inspector::Inspector;
use super::plans::SIDES;
use super::wire::{Part, Probe, frame, ip};
use super::world::{Agent, MODES, World};

fn probe(v6: bool, number: u16) -> Probe {
    let (source, destination) = if v6 {
        ("fd00:1::5", "fd00:2::9")
    } else {
        ("10.1.0.5", "10.2.0.9")
    };
    Probe {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        transport: Carried::Tcp(502),
        number,
        dscp: 0,
    }
}

/// Frames with IP and TCP, or fragments of it, that came out at the interface.
fn came_out(world: &World, interface: &str) -> usize {
    let side = &world.sides[interface];
    let frames = side.wire.catch_for(Duration::from_millis(80));
    let of_ours = |f: &&Vec<u8>| match f[12..14] {
        [0x08, 0] => f[23] == 6,
        [0x86, 0xdd] => [6, 44, 60].contains(&f[20]),
        _ => false,
    };
    frames
        .iter()
        .filter(of_ours)
        .filter(|f| f[6..12] != side.mac)
        .count()
}

/// Every kind of frame around the flow, each sent by `lan1` unless it says otherwise.
fn attempts(world: &World, v6: bool) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let dscp = world.sides["lan2"].dscp;
    let (near, far) = (&world.sides["lan1"], &world.sides["lan2"]);
    let next = match world.mode {
        GatewayMode::Routed => near.gateway_mac,
        GatewayMode::Bridged => far.mac,
    };
    let packet = |number, part| {
        Probe {
            dscp,
            ..probe(v6, number)
        }
        .packet(part)
    };
    let own = |packet: &[u8]| frame(near.mac, next, packet);
    let mut all = vec![
        ("first packet", "lan1", own(&packet(3001, Part::Opening))),
        (
            "data of an unknown connection",
            "lan1",
            own(&packet(3002, Part::Data)),
        ),
        (
            "to everybody on the link",
            "lan1",
            frame(near.mac, [0xff; 6], &packet(3003, Part::Opening)),
        ),
        (
            "from another side",
            "lan3",
            world.frame("lan3", "lan2", &probe(v6, 3004), Part::Opening),
        ),
        (
            "an answer without a question",
            "lan2",
            world.frame("lan1", "lan2", &probe(v6, 3005), Part::Answer),
        ),
    ];
    let (from, to): (IpAddr, IpAddr) = (probe(v6, 0).source, probe(v6, 0).destination);
    if v6 {
        let tcp = packet(3006, Part::Opening)[40..].to_vec();
        let options = [&[6, 0, 1, 4, 0, 0, 0, 0][..], &tcp].concat();
        all.push((
            "behind destination options",
            "lan1",
            own(&ip(from, to, 60, dscp, &options)),
        ));
        let tcp = packet(3007, Part::Opening)[40..].to_vec();
        let whole = [&[6, 0, 0, 0, 0, 0, 0, 9][..], &tcp].concat();
        all.push((
            "as its own only fragment",
            "lan1",
            own(&ip(from, to, 44, dscp, &whole)),
        ));
        for (name, offset, part) in [
            ("first fragment", 1_u16, &tcp[..16]),
            ("last fragment", 16, &tcp[16..]),
        ] {
            let [high, low] = offset.to_be_bytes();
            let fragment = [&[6, 0, high, low, 0, 0, 0, 7][..], part].concat();
            all.push((name, "lan1", own(&ip(from, to, 44, dscp, &fragment))));
        }
    } else {
        let tcp = packet(3008, Part::Opening)[20..].to_vec();
        for (name, flags, part) in [
            ("first fragment", 0x2000_u16, &tcp[..16]),
            ("last fragment", 2, &tcp[16..]),
        ] {
            let mut fragment = ip(from, to, 6, dscp, part);
            fragment[4..6].copy_from_slice(&[0, 77]);
            fragment[6..8].copy_from_slice(&flags.to_be_bytes());
            fragment[10..12].copy_from_slice(&[0, 0]);
            let sum = super::wire::checksum(&[&fragment[..20]]);
            fragment[10..12].copy_from_slice(&sum.to_be_bytes());
            all.push((name, "lan1", own(&fragment)));
        }
    }
    all
}

#[test]
fn nothing_of_an_inspected_flow_is_forwarded_while_the_inspector_lives() {
    lab::sandbox::test(
        "bypass::nothing_of_an_inspected_flow_is_forwarded_while_the_inspector_lives",
        |lab| {
            let worlds = MODES.map(|mode| World::new(lab, mode, &SIDES));
            at_once(&worlds, |world| {
                let mode = world.mode;
                let inspector = Inspector::start(&world.gateway, None);
                let ports = inspector.ports;
                world.at_gateway(async || {
                    let agent = Agent::start_with(with(&inspector));
                    for loss in [OnAgentLoss::Pass, OnAgentLoss::Block] {
                        agent.apply(&inspected(mode, loss), 1).await;
                        for v6 in [false, true] {
                            for (name, from, frame) in attempts(world, v6) {
                                world.drain();
                                world.sides[from].wire.send(&frame);
                                for to in ["lan1", "lan2", "lan3"].into_iter().filter(|to| *to != from) {
                                    assert_eq!(
                                        came_out(world, to),
                                        0,
                                        "{mode:?} {loss:?} v6 {v6}: {name} at {to}"
                                    );
                                }
                            }
                        }
                    }
                    // Without it, the same first packet comes out: the frames are what they should be.
                    drop(inspector);
                    agent.apply(&inspected(mode, OnAgentLoss::Pass), 2).await;
                    for v6 in [false, true] {
                        assert!(
                            world.passes("lan1", "lan2", &probe(v6, 3100), Part::Opening, true),
                            "{mode:?}"
                        );
                    }
                    let _again = Inspector::start(&world.gateway, Some(ports));
                    for v6 in [false, true] {
                        assert!(
                            !world.passes("lan1", "lan2", &probe(v6, 3100), Part::Data, false),
                            "{mode:?}"
                        );
                        assert!(
                            !world.passes("lan1", "lan2", &probe(v6, 3100), Part::Answer, false),
                            "{mode:?}"
                        );
                    }
                });
            });
        },
    )
    .unwrap();
}

#[test]
fn nobody_reaches_the_inspectors_own_port() {
    lab::sandbox::test("bypass::nobody_reaches_the_inspectors_own_port", |lab| {
        for mode in MODES {
            let world = plant(lab, mode);
            let client = &world.sides["lan1"].namespace;
            let inspector = Inspector::start(&world.gateway, None);
            let own = "10.1.0.1";
            client.route("192.0.0.8/32", own).unwrap();
            world.at_gateway(async || {
                let agent = Agent::start_with(with(&inspector));
                agent.apply(&inspected(mode, OnAgentLoss::Pass), 1).await;
                let port = inspector.ports.v4;
                let reaches = |address: String| {
                    let address: SocketAddr = address.parse().unwrap();
                    TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok()
                };
                for address in [format!("192.0.0.8:{port}"), format!("{own}:{port}")] {
                    let from_plant = client.enter(|| reaches(address.clone())).unwrap();
                    assert!(!from_plant, "{mode:?}: the plant reaches {address}");
                    assert!(
                        !reaches(address.clone()),
                        "{mode:?}: a program of the gateway reaches {address}"
                    );
                }
                assert!(inspector.seen().is_empty());
            });
        }
    })
    .unwrap();
}
