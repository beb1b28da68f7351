//! Addresses that a plan binds to MAC addresses, since a conduit asks for more than an address: real frames from another one.

use std::collections::HashSet;

use penstock_agent::observed::Observation;
use penstock_lab as lab;
use penstock_policy::ids::Revision;
use penstock_policy::plan::{Hardware, Plan};
use penstock_policy::terms::{GatewayMode, Mac, Proof};
use penstock_policy::verdict::{Carried, Decision};

use super::plans::{SIDES, observing, two_flows};
use super::wire::{Part, Probe};
use super::world::{Agent, MODES, World};

const FORGER: [u8; 6] = [2, 0, 0, 0, 9, 9];

/// The plan, with the client of `lan1` and the server of `lan2` bound to the MAC addresses that they have.
fn bound(world: &World, mode: GatewayMode) -> Plan {
    let mut plan = two_flows(mode);
    for (side, addresses) in [
        ("lan1", ["10.1.0.5", "fd00:1::5"]),
        ("lan2", ["10.2.0.9", "fd00:2::9"]),
    ] {
        let mac = Mac(world.sides[side].mac);
        let hardware = addresses.map(|address| Hardware {
            address: address.parse().unwrap(),
            mac,
        });
        plan.bound.insert(side.to_owned(), hardware.to_vec());
    }
    plan
}

fn probe(source: &str, destination: &str, transport: Carried, number: u16) -> Probe {
    Probe {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        transport,
        number,
        dscp: 0,
    }
}

/// Whether the probe's part passes if its frame comes from this MAC address.
fn passes(world: &World, probe: &Probe, part: Part, from: Option<[u8; 6]>, expected: bool) -> bool {
    let mut frame = world.frame("lan1", "lan2", probe, part);
    if let Some(mac) = from {
        frame[6..12].copy_from_slice(&mac);
    }
    let (near, far) = match part.is_of_server() {
        true => ("lan2", "lan1"),
        false => ("lan1", "lan2"),
    };
    let expected = if expected {
        HashSet::from([0])
    } else {
        HashSet::new()
    };
    !world
        .through(&[(near.to_owned(), far.to_owned(), frame)], &expected)
        .is_empty()
}

#[test]
fn a_bound_address_counts_only_from_its_mac_address_in_both_directions_and_the_denial_names_both() {
    lab::sandbox::test(
        "bound::a_bound_address_counts_only_from_its_mac_address_in_both_directions_and_the_denial_names_both",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                world.at_gateway(async || {
                    let mut agent = Agent::start();
                    agent.apply(&two_flows(mode), 1).await;
                    for (number, (client, server)) in
                        (5000..).zip([("10.1.0.5", "10.2.0.9"), ("fd00:1::5", "fd00:2::9")])
                    {
                        let bare = probe(client, server, Carried::Tcp(502), number);
                        assert!(
                            passes(&world, &bare, Part::Opening, Some(FORGER), true),
                            "{mode:?}: nobody asked for more than the address {client}"
                        );
                    }
                    // The structure changes around flows that stand.
                    agent.apply(&bound(&world, mode), 2).await;
                    for (number, (client, server)) in
                        (6000..).zip([("10.1.0.5", "10.2.0.9"), ("fd00:1::5", "fd00:2::9")])
                    {
                        let real = probe(client, server, Carried::Tcp(502), number);
                        for (part, from, expected) in [
                            (Part::Opening, Some(FORGER), false),
                            (Part::Opening, None, true),
                            (Part::Answer, Some(FORGER), false),
                            (Part::Answer, None, true),
                            (Part::Data, Some(FORGER), false),
                            (Part::Data, None, true),
                        ] {
                            assert_eq!(
                                passes(&world, &real, part, from, expected),
                                expected,
                                "{mode:?} {client} {part:?} {from:?}"
                            );
                        }
                    }
                    let seen = agent
                        .observe_until(|one| {
                            matches!(one, Observation::Verdict(seen) if seen.reason.starts_with("10.1.0.5 is bound to"))
                        })
                        .await;
                    let Some(Observation::Verdict(denied)) = seen.last() else {
                        panic!("{seen:?}");
                    };
                    assert_eq!(denied.decision, Decision::Deny);
                    assert_eq!(denied.proofs, [Some(Proof::Address); 2], "what is forged proves nothing");
                    for named in ["02:00:00:00:09:09", "minimum_assurance"] {
                        assert!(denied.reason.contains(named), "{mode:?}: {}", denied.reason);
                    }
                    assert!(denied.reason.contains(&super::world::text(world.sides["lan1"].mac)), "{}", denied.reason);
                    // Who is not bound is held to nothing.
                    let other = probe("10.1.0.6", "10.2.0.9", Carried::Udp(4050), 7000);
                    assert!(passes(&world, &other, Part::Opening, Some(FORGER), true), "{mode:?}");
                    // Nothing is bound any more.
                    agent.apply(&two_flows(mode), 3).await;
                    let free = probe("10.1.0.5", "10.2.0.9", Carried::Tcp(502), 8000);
                    assert!(passes(&world, &free, Part::Opening, Some(FORGER), true), "{mode:?}");
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn a_release_that_binds_addresses_counts_in_its_shadow_what_comes_from_other_mac_addresses_and_drops_nothing()
{
    lab::sandbox::test(
        "bound::a_release_that_binds_addresses_counts_in_its_shadow_what_comes_from_other_mac_addresses_and_drops_nothing",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                world.at_gateway(async || {
                    let agent = Agent::start();
                    agent.apply(&two_flows(mode), 1).await;
                    let next = bound(&world, mode);
                    agent.enforcer.shadow(Some((next.into(), Revision(2)))).await.unwrap();
                    let real = probe("10.1.0.5", "10.2.0.9", Carried::Tcp(502), 9000);
                    let forged = [Part::Opening, Part::Data];
                    for (part, from) in [
                        (Part::Opening, None),
                        (Part::Answer, None),
                        (Part::Data, None),
                        (forged[0], Some(FORGER)),
                        (forged[1], Some(FORGER)),
                    ] {
                        assert!(passes(&world, &real, part, from, true), "{mode:?} {part:?} {from:?}");
                    }
                    let report = agent.enforcer.shadowed().await.unwrap();
                    let says = report.not_judged.contains("from which MAC addresses packets come");
                    match mode {
                        GatewayMode::Routed => {
                            assert_eq!(report.would_deny_packets, forged.len() as u64, "{report:?}");
                            assert_eq!(report.flows, ["conduit7/flow7"]);
                            assert_eq!(report.would_cut_connections, 1);
                            assert!(!says, "{report:?}");
                        }
                        GatewayMode::Bridged => assert!(report.would_deny_packets == 0 && says, "{report:?}"),
                    }
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn between_zones_that_observe_a_bound_address_from_another_mac_address_passes_and_is_recorded() {
    lab::sandbox::test(
        "bound::between_zones_that_observe_a_bound_address_from_another_mac_address_passes_and_is_recorded",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                world.at_gateway(async || {
                    let mut agent = Agent::start();
                    agent
                        .apply(&observing(bound(&world, mode), &["lan1", "lan2"]), 1)
                        .await;
                    let forged = probe("10.1.0.5", "10.2.0.9", Carried::Tcp(502), 5000);
                    assert!(
                        passes(&world, &forged, Part::Opening, Some(FORGER), true),
                        "{mode:?}"
                    );
                    let seen = agent
                        .observe_until(|one| {
                            matches!(one, Observation::Verdict(seen) if seen.reason.contains("is bound to"))
                        })
                        .await;
                    let Some(Observation::Verdict(recorded)) = seen.last() else {
                        panic!("{seen:?}");
                    };
                    assert_eq!(recorded.decision, Decision::WouldDeny, "{mode:?}");
                    // Nor is a group held up, which is in no zone; a router forwards none.
                    if mode == GatewayMode::Bridged {
                        let group = probe("10.1.0.5", "239.192.1.1", Carried::Udp(2222), 6000);
                        for from in [None, Some(FORGER)] {
                            assert!(passes(&world, &group, Part::Opening, from, true), "{from:?}");
                        }
                    }
                });
            }
        },
    )
    .unwrap();
}
