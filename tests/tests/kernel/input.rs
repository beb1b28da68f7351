//! The gateway's own input: guarded, and nobody who may manage it is locked out.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use penstock_agent::enforce::{EnforceSettings, OwnClients};
use penstock_lab::{self as lab, Namespace};
use penstock_policy::plan::{Management, Plan};
use penstock_policy::terms::GatewayMode;
use penstock_tests::at_once;

use super::plans::{SIDES, two_flows};
use super::world::{Agent, MODES, PATIENCE, SILENCE, World, settings};

fn reaches(from: &Namespace, address: &str) -> bool {
    connects(from, address, PATIENCE)
}

fn is_kept_from(from: &Namespace, address: &str) -> bool {
    !connects(from, address, SILENCE)
}

/// Whether a connection is opened from there by one of its addresses.
fn comes_by(from: &Namespace, own: &str, address: &str, patience: Duration) -> bool {
    let (own, there): (SocketAddr, SocketAddr) =
        (format!("{own}:0").parse().unwrap(), address.parse().unwrap());
    let come = || {
        let family = rustix::net::AddressFamily::INET;
        let socket = rustix::net::socket(family, rustix::net::SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &own).unwrap();
        rustix::io::ioctl_fionbio(&socket, true).unwrap();
        let _ = rustix::net::connect(&socket, &there);
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if rustix::net::getpeername(&socket).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    };
    from.enter(come).unwrap()
}

fn connects(from: &Namespace, address: &str, patience: Duration) -> bool {
    let address: SocketAddr = address.parse().unwrap();
    from.enter(|| TcpStream::connect_timeout(&address, patience).is_ok())
        .unwrap()
}

#[test]
fn only_managements_peers_reach_the_gateway_and_its_own_connections_are_answered() {
    lab::sandbox::test(
        "input::only_managements_peers_reach_the_gateway_and_its_own_connections_are_answered",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed, &SIDES);
            let (gateway, manager) = (&world.gateway, &world.manager);
            let plant = &world.sides["lan1"].namespace;
            gateway.address("eth0", "192.168.9.1/24").unwrap();
            gateway.address("lan1", "10.1.0.1/24").unwrap();
            manager.address("eth0", "192.168.9.2/24").unwrap();
            manager.address("eth0", "192.168.9.200/24").unwrap();
            plant.address("eth0", "10.1.0.5/24").unwrap();
            let stranger = lab.namespace("stranger").unwrap();
            lab.link((gateway, "eth9"), (&stranger, "eth0")).unwrap();
            gateway.address("eth9", "192.168.8.1/24").unwrap();
            stranger.address("eth0", "192.168.8.2/24").unwrap();
            world.at_gateway(async || {
                let _shell = TcpListener::bind("0.0.0.0:22").unwrap();
                let coordinator = manager
                    .enter(|| TcpListener::bind("192.168.9.2:7000").unwrap())
                    .unwrap();
                let historian = plant
                    .enter(|| TcpListener::bind("10.1.0.5:4840").unwrap())
                    .unwrap();
                // A session that a person at work has open, and the link to the coordinator.
                let link = TcpStream::connect("192.168.9.2:7000").unwrap();
                let (mut far_end, _) = coordinator.accept().unwrap();
                let agent = Agent::start();
                let applied = agent.apply(&two_flows(GatewayMode::Routed), 1).await;
                assert_eq!(applied.findings, []);
                assert!(reaches(manager, "192.168.9.1:22"), "a peer manages the gateway");
                assert!(is_kept_from(plant, "10.1.0.1:22"), "the plant does not");
                assert!(
                    plant.run("ping", &["-c1", "-W30", "10.1.0.1"]).is_ok(),
                    "an echo is answered"
                );
                assert!(
                    is_kept_from(&stranger, "192.168.8.1:22"),
                    "nor does who comes by an interface that the plan does not name"
                );
                assert!(
                    !comes_by(manager, "192.168.9.200", "192.168.9.1:22", SILENCE),
                    "on the management's interface only peers come in"
                );
                std::io::Write::write_all(&mut far_end, b"still here").unwrap();
                let mut heard = [0; 10];
                link.set_read_timeout(Some(PATIENCE)).unwrap();
                std::io::Read::read_exact(&mut &link, &mut heard).unwrap();
                let own = TcpStream::connect_timeout(&"10.1.0.5:4840".parse().unwrap(), PATIENCE);
                assert!(own.is_ok(), "what the gateway itself opens is answered: {own:?}");
                drop(historian);
                assert!(agent.enforcer.counters().await.unwrap().input_denied_packets >= 2);
            });
        },
    )
    .unwrap();
}

/// What may be missing of a gateway's management, by name.
fn spoilt(plan: &Plan) -> [(&'static str, Plan, &'static [&'static str]); 3] {
    let with = |spoil: fn(&mut Management)| {
        let mut plan = plan.clone();
        plan.management.as_mut().map(spoil);
        plan
    };
    let unnamed = Plan {
        management: None,
        ..plan.clone()
    };
    [
        ("no management", unnamed, &["management-none"]),
        ("no peers", with(|it| it.peers.clear()), &["management-none"]),
        (
            "no such interface",
            with(|it| it.interface = "eth77".to_owned()),
            &[],
        ),
    ]
}

#[test]
fn missing_management_opens_no_port_of_the_gateway_to_anyone_and_its_own_link_stands() {
    lab::sandbox::test(
        "input::missing_management_opens_no_port_of_the_gateway_to_anyone_and_its_own_link_stands",
        |lab| {
            let worlds = MODES.map(|mode| World::new(lab, mode, &SIDES));
            at_once(&worlds, |world| {
                let mode = world.mode;
                let (gateway, manager) = (&world.gateway, &world.manager);
                let plant = &world.sides["lan1"].namespace;
                let inside = match mode {
                    GatewayMode::Routed => "lan1",
                    GatewayMode::Bridged => "br0",
                };
                gateway.address(inside, "10.1.0.1/24").unwrap();
                gateway.address("eth0", "192.168.9.1/24").unwrap();
                gateway.address("eth0", "fd00:99::1/64").unwrap();
                plant.address("eth0", "10.1.0.5/24").unwrap();
                manager.address("eth0", "192.168.9.2/24").unwrap();
                manager.address("eth0", "fd00:99::2/64").unwrap();
                world.at_gateway(async || {
                    let _shell = TcpListener::bind("[::]:22").unwrap();
                    let leases = std::net::UdpSocket::bind("0.0.0.0:68").unwrap();
                    leases.set_read_timeout(Some(PATIENCE)).unwrap();
                    let coordinator = manager
                        .enter(|| TcpListener::bind("192.168.9.2:7000").unwrap())
                        .unwrap();
                    let link = TcpStream::connect("192.168.9.2:7000").unwrap();
                    let (mut far_end, _) = coordinator.accept().unwrap();
                    link.set_read_timeout(Some(PATIENCE)).unwrap();
                    let agent = Agent::start();
                    for (what, plan, codes) in spoilt(&two_flows(mode)) {
                        let applied = agent.apply(&plan, 1).await;
                        let found: Vec<_> = applied.findings.iter().map(|it| it.code).collect();
                        assert_eq!(found, codes, "{mode:?}, {what}");
                        for (from, to) in [
                            (plant, "10.1.0.1:22"),
                            (manager, "192.168.9.1:22"),
                            (manager, "[fd00:99::1]:22"),
                        ] {
                            assert!(is_kept_from(from, to), "{mode:?}, {what}: {to}");
                        }
                        std::io::Write::write_all(&mut &link, b"here").unwrap();
                        std::io::Write::write_all(&mut far_end, b"still here").unwrap();
                        std::io::Read::read_exact(&mut &link, &mut [0; 10]).unwrap();
                        let again =
                            TcpStream::connect_timeout(&"192.168.9.2:7000".parse().unwrap(), PATIENCE);
                        assert!(
                            again.is_ok(),
                            "{mode:?}, {what}: the link is opened anew: {again:?}"
                        );
                        manager
                            .enter(|| {
                                let server = std::net::UdpSocket::bind("192.168.9.2:67").unwrap();
                                server.send_to(b"lease", "192.168.9.1:68").unwrap();
                            })
                            .unwrap();
                        let heard = leases.recv(&mut [0; 5]);
                        assert!(
                            heard.is_ok(),
                            "{mode:?}, {what}: a lease of an address: {heard:?}"
                        );
                    }
                });
            });
        },
    )
    .unwrap();
}

#[test]
fn a_management_interface_that_comes_later_is_open_to_its_peers_at_once_and_its_absence_is_reported() {
    lab::sandbox::test(
        "input::a_management_interface_that_comes_later_is_open_to_its_peers_at_once_and_its_absence_is_reported",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed, &SIDES);
            let (gateway, manager) = (&world.gateway, &world.manager);
            manager.address("eth0", "192.168.9.2/24").unwrap();
            world.at_gateway(async || {
                let _shell = TcpListener::bind("0.0.0.0:22").unwrap();
                let rename = |from: &str, to: &str| {
                    for step in [
                        &["link", "set", from, "down"][..],
                        &["link", "set", from, "name", to],
                        &["link", "set", to, "up"],
                    ] {
                        gateway.ip(step).unwrap();
                    }
                    gateway.ip(&["addr", "flush", "dev", to]).unwrap();
                    gateway.address(to, "192.168.9.1/24").unwrap();
                };
                rename("eth0", "eth77");
                let agent = Agent::start();
                agent.apply(&two_flows(GatewayMode::Routed), 1).await;
                let code = || agent.enforcer.missing_management().map(|finding| finding.code);
                assert_eq!(code(), Some("management-missing"));
                assert!(
                    is_kept_from(manager, "192.168.9.1:22"),
                    "by another name it is not known"
                );
                rename("eth77", "eth0");
                assert_eq!(code(), None);
                assert!(reaches(manager, "192.168.9.1:22"), "no plan was applied meanwhile");
            });
        },
    )
    .unwrap();
}

#[test]
fn a_service_for_some_clients_is_open_to_them_on_their_own_side_at_its_port_and_to_nobody_else() {
    lab::sandbox::test(
        "input::a_service_for_some_clients_is_open_to_them_on_their_own_side_at_its_port_and_to_nobody_else",
        |lab| {
            let worlds = MODES.map(|mode| World::new(lab, mode, &SIDES));
            at_once(&worlds, |world| {
                let mode = world.mode;
                let [plant, others] = ["lan1", "lan2"].map(|side| &world.sides[side].namespace);
                let inside = match mode {
                    GatewayMode::Routed => "lan1",
                    GatewayMode::Bridged => "br0",
                };
                world.gateway.address(inside, "10.1.0.1/24").unwrap();
                for own in ["10.1.0.5/24", "10.1.0.6/24"] {
                    plant.address("eth0", own).unwrap();
                }
                // Beyond: with an address of its own, and with the client's.
                for own in ["10.2.0.5/24", "10.1.0.5/32"] {
                    others.address("eth0", own).unwrap();
                }
                if mode == GatewayMode::Routed {
                    world.gateway.address("lan2", "10.2.0.1/24").unwrap();
                    others.route("10.1.0.0/24", "10.2.0.1").unwrap();
                } else {
                    others
                        .ip(&["route", "add", "10.1.0.0/24", "dev", "eth0"])
                        .unwrap();
                }
                world.at_gateway(async || {
                    let _map = TcpListener::bind("0.0.0.0:502").unwrap();
                    let _shell = TcpListener::bind("0.0.0.0:22").unwrap();
                    let clients = [[10, 1, 0, 5].into(), [10, 1, 0, 77].into()].into();
                    let agent = Agent::start_with(EnforceSettings {
                        own: BTreeMap::from([("10.1.0.1:502".parse().unwrap(), OwnClients::Only(clients))]),
                        ..settings()
                    });
                    agent.apply(&two_flows(mode), 1).await;
                    let map = "10.1.0.1:502";
                    assert!(comes_by(plant, "10.1.0.5", map, PATIENCE), "{mode:?}: the client");
                    for (from, own, to, why) in [
                        (plant, "10.1.0.5", "10.1.0.1:22", "another port"),
                        (plant, "10.1.0.6", map, "its neighbour"),
                        (others, "10.2.0.5", map, "another side"),
                        (others, "10.1.0.5", map, "another side in its name"),
                    ] {
                        assert!(!comes_by(from, own, to, SILENCE), "{mode:?}: {why}");
                    }
                    assert!(
                        comes_by(plant, "10.1.0.5", map, PATIENCE),
                        "{mode:?}: the client still"
                    );
                });
            });
        },
    )
    .unwrap();
}
