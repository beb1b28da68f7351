//! The bump in the wire: frames that are not plain IP, and a kernel that does not show them to the rules.

use std::time::{Duration, Instant};

use penstock_agent::enforce::DriftState;
use penstock_agent::observed::{DriftStep, Observation};
use penstock_lab as lab;
use penstock_policy::plan::{Observing, Plan};
use penstock_policy::terms::{GatewayMode, OnDrift};
use penstock_policy::verdict::{Carried, Decision};

use super::plans::{SIDES, observing, two_flows};
use super::wire::{Part, Probe};
use super::world::{Agent, PATIENCE, World};

fn allowed(number: u16) -> Probe {
    let (source, destination) = ("10.1.0.5".parse().unwrap(), "10.2.0.9".parse().unwrap());
    Probe {
        source,
        destination,
        transport: Carried::Tcp(502),
        number,
        dscp: 0,
    }
}

/// A frame from `lan1` to `lan2` with `middle` between its addresses and `rest`.
fn with_type(world: &World, middle: &[u8], rest: &[u8]) -> Vec<u8> {
    let (near, far) = (&world.sides["lan1"], &world.sides["lan2"]);
    let mut frame = [&far.mac[..], &near.mac, middle, rest].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// Whether the frame comes out at `lan2` as it was sent.
fn comes_out(world: &World, frame: &[u8], expected: bool) -> bool {
    world.drain();
    world.sides["lan1"].wire.send(frame);
    // A tag is taken off into the packet's own data on reception, so the rest is what must be the same.
    world.sides["lan2"].wire.catches(expected, |caught| {
        caught[..12] == frame[..12] && caught.ends_with(&frame[frame.len() - 20..])
    })
}

/// Frames around an allowed packet that would not be shown to the `inet` rules.
fn odd_frames(world: &World) -> Vec<(&'static str, Vec<u8>)> {
    let packet = |number| allowed(number).packet(Part::Opening);
    vec![
        ("VLAN", with_type(world, &[0x81, 0, 0, 5, 0x08, 0], &packet(1))),
        (
            "priority tag",
            with_type(world, &[0x81, 0, 0, 0, 0x08, 0], &packet(2)),
        ),
        (
            "QinQ",
            with_type(world, &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x08, 0], &packet(3)),
        ),
        (
            "PPPoE",
            with_type(world, &[0x88, 0x64, 0x11, 0, 0, 1, 0, 42, 0, 0x21], &packet(4)),
        ),
        ("PROFINET", with_type(world, &[0x88, 0x92], &[0x80; 46])),
        (
            "LLC/SNAP",
            with_type(world, &[0, 52, 0xaa, 0xaa, 3, 0, 0, 0, 0x08, 0], &packet(5)),
        ),
    ]
}

#[test]
fn tagged_and_foreign_frames_do_not_slip_by() {
    lab::sandbox::test("bridge::tagged_and_foreign_frames_do_not_slip_by", |lab| {
        let world = World::new(lab, GatewayMode::Bridged, &SIDES);
        world.at_gateway(async || {
            for (name, frame) in odd_frames(&world) {
                assert!(comes_out(&world, &frame, true), "{name}: without Penstock the bridge carries it");
            }
            let mut agent = Agent::start();
            let plan = two_flows(GatewayMode::Bridged);
            agent.apply(&plan, 1).await;
            assert!(world.passes("lan1", "lan2", &allowed(10), Part::Opening, true));
            let odd = odd_frames(&world);
            for (name, frame) in &odd {
                assert!(!comes_out(&world, frame, false), "{name} slipped by");
            }
            let counted = agent.enforcer.counters().await.unwrap();
            assert_eq!(counted.denied_packets, odd.len() as u64, "{counted:?}");
            let seen = agent
                .observe_until(|o| matches!(o, Observation::Verdict(v) if v.reason.contains("0x8892")))
                .await;
            let tagged = |o: &Observation| matches!(o, Observation::Verdict(v) if v.decision == Decision::Deny && v.ingress == "lan1");
            assert!(seen.iter().any(tagged), "{seen:#?}");

            agent.apply(&observing(plan, &["lan1", "lan2"]), 2).await;
            for (name, frame) in &odd {
                assert!(comes_out(&world, frame, true), "{name}: an observing pair lets it pass");
            }
            assert_eq!(agent.enforcer.counters().await.unwrap().would_deny_packets, odd.len() as u64);
        });
    })
    .unwrap();
}

#[test]
fn arp_passes_between_the_addresses_of_both_sides_only() {
    lab::sandbox::test(
        "bridge::arp_passes_between_the_addresses_of_both_sides_only",
        |lab| {
            let world = World::new(lab, GatewayMode::Bridged, &SIDES);
            world.at_gateway(async || {
                let agent = Agent::start();
                agent.apply(&two_flows(GatewayMode::Bridged), 1).await;
                let arp = |sender: [u8; 4], target: [u8; 4]| {
                    let mac = world.sides["lan1"].mac;
                    let body = [
                        &[0, 1, 8, 0, 6, 4, 0, 1][..],
                        &mac,
                        &sender,
                        &[0; 6],
                        &target,
                        &[7; 18],
                    ]
                    .concat();
                    with_type(&world, &[0x08, 0x06], &body)
                };
                assert!(
                    comes_out(&world, &arp([10, 1, 0, 5], [10, 2, 0, 9]), true),
                    "a host asks for one across"
                );
                assert!(
                    !comes_out(&world, &arp([0, 0, 0, 0], [10, 1, 0, 6]), false),
                    "a probe for a free address is for its own side"
                );
                assert!(
                    !comes_out(&world, &arp([0, 0, 0, 0], [10, 2, 0, 9]), false),
                    "also one for an address across"
                );
                let denied = agent.enforcer.counters().await.unwrap().denied_packets;
                assert_eq!(denied, 0, "a probe is no denial");
                assert!(
                    comes_out(&world, &arp([10, 1, 0, 5], [10, 1, 0, 5]), true),
                    "a host that moved announces itself"
                );
                assert!(
                    !comes_out(&world, &arp([10, 2, 0, 9], [10, 2, 0, 8]), false),
                    "the other side's address is forged"
                );
                assert!(
                    !comes_out(&world, &arp([192, 0, 2, 1], [10, 2, 0, 9]), false),
                    "an address of nowhere"
                );
            });
        },
    )
    .unwrap();
}

#[test]
fn neighbours_find_each_other_through_the_bump_and_real_connections_stand() {
    lab::sandbox::test(
        "bridge::neighbours_find_each_other_through_the_bump_and_real_connections_stand",
        |lab| {
            let world = World::new(lab, GatewayMode::Bridged, &SIDES);
            let (client, server) = (&world.sides["lan1"].namespace, &world.sides["lan2"].namespace);
            for (host, side, own) in [(client, 1, 5), (server, 2, 9)] {
                host.sysctl("net.ipv6.conf.eth0.disable_ipv6", "0").unwrap();
                host.address("eth0", &format!("10.{side}.0.{own}/8")).unwrap();
                host.address("eth0", &format!("fd00:{side}::{own}/16")).unwrap();
            }
            world.at_gateway(async || {
                let agent = Agent::start();
                agent.apply(&two_flows(GatewayMode::Bridged), 1).await;
                for (open, closed) in [
                    ("10.2.0.9:502", "10.2.0.9:503"),
                    ("[fd00:2::9]:502", "[fd00:2::9]:503"),
                ] {
                    let _listeners = server
                        .enter(|| [open, closed].map(|a| std::net::TcpListener::bind(a).unwrap()))
                        .unwrap();
                    client.wait_for_tcp(open, PATIENCE).unwrap();
                    let refused = client
                        .enter(|| {
                            std::net::TcpStream::connect_timeout(
                                &closed.parse().unwrap(),
                                Duration::from_millis(300),
                            )
                        })
                        .unwrap();
                    assert!(refused.is_err(), "{closed} was reached");
                }
            });
        },
    )
    .unwrap();
}

#[test]
fn a_kernel_that_shows_no_bridged_packets_to_the_rules_fails_closed_and_is_set_right() {
    lab::sandbox::test(
        "bridge::a_kernel_that_shows_no_bridged_packets_to_the_rules_fails_closed_and_is_set_right",
        |lab| {
            let world = World::new(lab, GatewayMode::Bridged, &SIDES);
            world.at_gateway(async || {
                let mut agent = Agent::start();
                let repairing = two_flows(GatewayMode::Bridged);
                let reporting = Plan {
                    on_drift: OnDrift::Report,
                    ..repairing.clone()
                };
                agent.apply(&reporting, 1).await;
                let undeclared = Probe {
                    transport: Carried::Tcp(22),
                    ..allowed(22)
                };
                assert!(world.passes("lan1", "lan2", &allowed(20), Part::Opening, true));
                // Where drift is only reported, it is reported once, and stays.
                std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0").unwrap();
                for probe in [allowed(21), undeclared] {
                    assert!(!world.passes("lan1", "lan2", &probe, Part::Opening, false), "uninspected");
                }
                let counters = agent.counters_once(|c| c.uninspected_packets >= 2).await;
                assert_eq!(counters.uninspected_packets, 2);
                let is_step = |step| {
                    move |o: &Observation| {
                        matches!(o, Observation::Drift { step: found, message, .. }
                            if *found == step && message.contains("bridge-nf-call-iptables"))
                    }
                };
                agent.observe_until(is_step(DriftStep::Found)).await;
                let state = agent.enforcer.verify().await.unwrap();
                assert!(
                    matches!(&state, DriftState::Present(what) if what.contains("bridge-nf-call-iptables is off")),
                    "{state:?}"
                );
                // A plan that repairs sets it right, and whoever switches it off again is noticed with nobody asking: the
                // agent's next comparison would come in five minutes.
                agent.apply(&repairing, 2).await;
                assert!(world.passes("lan1", "lan2", &allowed(23), Part::Opening, true));
                std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0").unwrap();
                let off = Instant::now();
                agent.observe_until(is_step(DriftStep::Repaired)).await;
                println!("noticed and repaired after {:?}", off.elapsed());
                assert_eq!(agent.enforcer.verify().await.unwrap(), DriftState::None);
                assert!(world.passes("lan1", "lan2", &allowed(24), Part::Opening, true));
                assert!(!world.passes("lan1", "lan2", &undeclared, Part::Opening, false));
            });
        },
    )
    .unwrap();
}

#[test]
fn arp_that_asks_for_nobody_passes_between_zones_that_observe_and_not_beside_them() {
    lab::sandbox::test(
        "bridge::arp_that_asks_for_nobody_passes_between_zones_that_observe_and_not_beside_them",
        |lab| {
            let world = World::new(lab, GatewayMode::Bridged, &SIDES);
            world.at_gateway(async || {
                let agent = Agent::start();
                let mut plan = observing(two_flows(GatewayMode::Bridged), &["lan2"]);
                plan.interfaces[0].observing = Observing::Only(vec!["10.1.0.0/25".parse().unwrap()]);
                agent.apply(&plan, 1).await;
                let asks = |sender: [u8; 4]| {
                    let mac = world.sides["lan1"].mac;
                    let nobody = [198, 51, 100, 7];
                    let head = [0, 1, 8, 0, 6, 4, 0, 1];
                    let body = [&head[..], &mac, &sender, &[0; 6], &nobody, &[7; 20]].concat();
                    with_type(&world, &[0x08, 0x06], &body)
                };
                assert!(comes_out(&world, &asks([10, 1, 0, 6]), true), "its zone observes");
                assert!(
                    !comes_out(&world, &asks([10, 1, 0, 200]), false),
                    "its zone enforces"
                );
            });
        },
    )
    .unwrap();
}
