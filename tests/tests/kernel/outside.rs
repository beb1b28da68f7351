//! Interfaces that no plan names: nothing leads from them into the plant, nor out to them, and the gateway itself stays
//! manageable.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use penstock_agent::enforce::EnforceSettings;
use penstock_agent::enforce::ground::base::{Base, BaseOutcome};
use penstock_agent::enforce::nft::render;
use penstock_agent::enforce::nft::run::Nft;
use penstock_agent::observed::Observation;
use penstock_lab::{self as lab, Lab, Namespace};
use penstock_policy::terms::GatewayMode;
use penstock_policy::verdict::{Carried, Decision};
use penstock_tests::at_once;

use super::plans::{SIDES, observing, two_flows};
use super::wire::{Part, Probe, frame};
use super::world::{Agent, MODES, PATIENCE, SILENCE, World, settings};

const MANAGER: &str = "192.168.9.2:7000";
const PLANT: &str = "10.1.0.5:4840";
const SHELL: &str = "192.168.9.1:22";

fn connect(address: &str) -> std::io::Result<TcpStream> {
    connect_within(PATIENCE, address)
}

fn connect_within(patience: Duration, address: &str) -> std::io::Result<TcpStream> {
    let address: SocketAddr = address.parse().unwrap();
    TcpStream::connect_timeout(&address, patience)
}

fn reaches(from: &Namespace, address: &str) -> bool {
    from.enter(|| connect(address).is_ok()).unwrap()
}

fn is_kept_from(from: &Namespace, address: &str) -> bool {
    from.enter(|| connect_within(SILENCE, address).is_err()).unwrap()
}

/// A gateway that would route between the management network and the plant, if nothing kept it from doing so.
fn leaky(lab: &Lab, mode: GatewayMode) -> World {
    let world = World::new(lab, mode, &SIDES);
    let (gateway, manager, plant) = (&world.gateway, &world.manager, plant(&world));
    gateway.forward().unwrap();
    gateway.address("eth0", "192.168.9.1/24").unwrap();
    manager.address("eth0", "192.168.9.2/24").unwrap();
    plant.address("eth0", "10.1.0.5/24").unwrap();
    let inside = match mode {
        GatewayMode::Routed => "lan1",
        GatewayMode::Bridged => "br0",
    };
    gateway.address(inside, "10.1.0.1/24").unwrap();
    manager.route("10.1.0.0/24", "192.168.9.1").unwrap();
    plant.route("192.168.9.0/24", "10.1.0.1").unwrap();
    world
}

fn plant(world: &World) -> &Namespace {
    &world.sides["lan1"].namespace
}

fn listen(at: &Namespace, address: &str) -> TcpListener {
    at.enter(|| TcpListener::bind(address).unwrap()).unwrap()
}

#[test]
fn the_management_network_is_not_routed_into_the_plant_nor_the_plant_out_to_it() {
    lab::sandbox::test(
        "outside::the_management_network_is_not_routed_into_the_plant_nor_the_plant_out_to_it",
        |lab| {
            let worlds = MODES.map(|mode| leaky(lab, mode));
            at_once(&worlds, |world| {
                let (mode, manager, plant) = (world.mode, &world.manager, plant(world));
                world.at_gateway(async || {
                    let _shell = TcpListener::bind("0.0.0.0:22").unwrap();
                    let (_manager, _plant) = (listen(manager, MANAGER), listen(plant, PLANT));
                    assert!(reaches(manager, PLANT), "{mode:?}: without Penstock it is routed");
                    assert!(reaches(plant, MANAGER), "{mode:?}: without Penstock it is routed");
                    let mut agent = Agent::start();
                    agent.apply(&two_flows(mode), 1).await;
                    assert!(is_kept_from(manager, PLANT), "{mode:?}: into the plant");
                    assert!(is_kept_from(plant, MANAGER), "{mode:?}: out of the plant");
                    let ping = ["-c1", "-W1", "10.1.0.5"];
                    assert!(manager.run("ping", &ping).is_err(), "{mode:?}: echo");
                    assert!(reaches(manager, SHELL), "{mode:?}: management comes in");
                    let own = [MANAGER, PLANT].map(connect);
                    assert!(own.iter().all(Result::is_ok), "{mode:?}: what the gateway opens: {own:?}");
                    let of_crossing = match mode {
                        GatewayMode::Routed => "interface eth0 belongs to no zone of this plan",
                        GatewayMode::Bridged => "a bridged gateway routes nothing",
                    };
                    let is_told = |o: &Observation| matches!(o, Observation::Verdict(v) if v.decision == Decision::Deny && v.reason.contains(of_crossing));
                    agent.observe_until(is_told).await;

                    // A side that only observes lets it pass, and it is told what enforcement would do.
                    agent.apply(&observing(two_flows(mode), &["lan1"]), 2).await;
                    assert!(reaches(manager, PLANT), "{mode:?}: observed only");
                    assert!(reaches(plant, MANAGER), "{mode:?}: observed only");
                    let is_told = |o: &Observation| matches!(o, Observation::Verdict(v) if v.decision == Decision::WouldDeny && v.reason.contains(of_crossing));
                    agent.observe_until(is_told).await;
                    agent.apply(&observing(two_flows(mode), &["lan2", "lan3"]), 3).await;
                    assert!(is_kept_from(manager, PLANT), "{mode:?}: the others' observing is not lan1's");
                    assert!(is_kept_from(plant, MANAGER), "{mode:?}: the others' observing is not lan1's");
                });
            });
        },
    )
    .unwrap();
}

#[test]
fn a_connection_across_that_stands_when_the_plan_comes_carries_nothing_more() {
    lab::sandbox::test(
        "outside::a_connection_across_that_stands_when_the_plan_comes_carries_nothing_more",
        |lab| {
            for mode in MODES {
                let world = leaky(lab, mode);
                let (manager, plant) = (&world.manager, plant(&world));
                world.at_gateway(async || {
                    let listener = listen(plant, PLANT);
                    let near = manager.enter(|| connect(PLANT).unwrap()).unwrap();
                    let (far, _) = listener.accept().unwrap();
                    let agent = Agent::start();
                    agent.apply(&two_flows(mode), 1).await;
                    for (mut sender, mut receiver) in [(&near, &far), (&far, &near)] {
                        std::io::Write::write_all(&mut sender, b"more").unwrap();
                        receiver.set_read_timeout(Some(SILENCE)).unwrap();
                        let heard = std::io::Read::read(&mut receiver, &mut [0; 4]);
                        assert!(heard.is_err(), "{mode:?}: {heard:?}");
                    }
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn before_the_first_plan_the_base_rules_close_these_ways_too() {
    lab::sandbox::test(
        "outside::before_the_first_plan_the_base_rules_close_these_ways_too",
        |lab| {
            let worlds = MODES.map(|mode| leaky(lab, mode));
            let folder = lab.directory();
            at_once(&worlds, |world| {
                let (mode, manager, plant) = (world.mode, &world.manager, plant(world));
                let base_path = folder.join(format!("outside-{mode:?}.json"));
                world.at_gateway(async || {
                    let _shell = TcpListener::bind("0.0.0.0:22").unwrap();
                    let (_manager, _plant) = (listen(manager, MANAGER), listen(plant, PLANT));
                    assert!(
                        reaches(plant, "10.1.0.1:22"),
                        "{mode:?}: without Penstock it is open"
                    );
                    let agent = Agent::start_with(EnforceSettings {
                        base_path: Some(base_path.clone()),
                        ..settings()
                    });
                    agent.apply(&two_flows(mode), 1).await;
                    drop(agent);
                    let nft = Nft::new("nft".into());
                    nft.load(&render::remove()).await.unwrap();
                    assert!(reaches(manager, PLANT), "{mode:?}: nothing guards it");
                    let base = Base::read(&base_path).unwrap().unwrap();
                    assert_eq!(base.load(&nft).await.unwrap(), BaseOutcome::Denying);
                    assert!(is_kept_from(manager, PLANT), "{mode:?}");
                    assert!(is_kept_from(plant, MANAGER), "{mode:?}");
                    assert!(reaches(manager, SHELL), "{mode:?}: management comes in");
                    assert!(is_kept_from(plant, "10.1.0.1:22"), "{mode:?}: the plant does not");
                    let own = [MANAGER, PLANT].map(connect);
                    assert!(
                        own.iter().all(Result::is_ok),
                        "{mode:?}: what the gateway opens: {own:?}"
                    );
                });
            });
        },
    )
    .unwrap();
}

#[test]
fn a_port_of_the_bridge_that_is_not_in_the_plan_gets_no_frame_across() {
    lab::sandbox::test(
        "outside::a_port_of_the_bridge_that_is_not_in_the_plan_gets_no_frame_across",
        |lab| {
            let world = World::new(
                lab,
                GatewayMode::Bridged,
                &["lan1", "lan2", "lan3", "spare1", "spare2"],
            );
            let comes_out = |from: &str, to: &str, kind: [u8; 2], body: &[u8], expected: bool| {
                let (near, far) = (&world.sides[from], &world.sides[to]);
                let mut sent = frame(near.mac, far.mac, body);
                sent[12..14].copy_from_slice(&kind);
                sent.resize(sent.len().max(60), 0);
                world.drain();
                near.wire.send(&sent);
                far.wire.catches(expected, |caught| {
                    caught[..sent.len().min(caught.len())] == sent[..]
                })
            };
            let arp = [
                &[0, 1, 8, 0, 6, 4, 0, 1][..],
                &[2, 0, 0, 0, 2, 4],
                &[10, 9, 0, 5],
                &[0; 6],
                &[10, 2, 0, 9],
                &[7; 18],
            ]
            .concat();
            let frames = [([0x08, 0x06], arp.as_slice()), ([0x88, 0x92], &[0x80; 46])];
            world.at_gateway(async || {
                let mut agent = Agent::start();
                agent.apply(&two_flows(GatewayMode::Bridged), 1).await;
                for (kind, body) in frames {
                    assert!(!comes_out("spare1", "lan2", kind, body, false), "{kind:x?} in");
                    assert!(!comes_out("lan2", "spare1", kind, body, false), "{kind:x?} out");
                    assert!(
                        comes_out("spare1", "spare2", kind, body, true),
                        "{kind:x?} is not ours"
                    );
                }
                let is_told =
                    |o: &Observation| matches!(o, Observation::Verdict(v) if v.reason.contains("interface spare1"));
                agent.observe_until(is_told).await;
                agent
                    .apply(&observing(two_flows(GatewayMode::Bridged), &["lan2"]), 2)
                    .await;
                for (kind, body) in frames {
                    assert!(
                        comes_out("spare1", "lan2", kind, body, true),
                        "{kind:x?} in, observed only"
                    );
                    assert!(
                        comes_out("lan2", "spare1", kind, body, true),
                        "{kind:x?} out, observed only"
                    );
                    assert!(
                        !comes_out("lan1", "spare1", kind, body, false),
                        "{kind:x?} out of lan1"
                    );
                }
            });
        },
    )
    .unwrap();
}

#[test]
fn a_port_of_the_bridge_that_is_not_in_the_plan_takes_no_mac_address_of_a_guarded_side() {
    lab::sandbox::test(
        "outside::a_port_of_the_bridge_that_is_not_in_the_plan_takes_no_mac_address_of_a_guarded_side",
        |lab| {
            let world = World::new(lab, GatewayMode::Bridged, &["lan1", "lan2", "lan3", "spare1"]);
            let probe = |number| Probe {
                source: "10.1.0.5".parse().unwrap(),
                destination: "10.2.0.9".parse().unwrap(),
                transport: Carried::Tcp(502),
                number,
                dscp: 0,
            };
            world.at_gateway(async || {
                let mut agent = Agent::start();
                agent.apply(&two_flows(GatewayMode::Bridged), 1).await;
                assert!(world.passes("lan1", "lan2", &probe(1), Part::Opening, true));
                assert!(
                    world.passes("lan1", "lan2", &probe(1), Part::Answer, true),
                    "the server has spoken"
                );
                let server = world.sides["lan2"].mac;
                let theft = frame(server, [0xff; 6], &[0x45; 60]);
                world.sides["spare1"].wire.send(&theft);
                let is_told = |o: &Observation| {
                    matches!(o, Observation::Verdict(v) if v.ingress == "spare1" && v.reason.contains("belongs to another side"))
                };
                agent.observe_until(is_told).await;
                assert!(
                    world.passes("lan1", "lan2", &probe(2), Part::Opening, true),
                    "the server is where it was"
                );
                assert!(!world.sides["spare1"].wire.catches(false, |caught| caught[..6] == server));
            });
        },
    )
    .unwrap();
}
