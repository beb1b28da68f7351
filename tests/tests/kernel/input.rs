//! The gateway's own input: guarded, and nobody who may manage it is locked out.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use penstock_lab::{self as lab, Namespace};
use penstock_policy::plan::{Management, Plan};
use penstock_policy::terms::GatewayMode;
use penstock_tests::at_once;

use super::plans::{SIDES, two_flows};
use super::world::{Agent, MODES, PATIENCE, SILENCE, World};

fn reaches(from: &Namespace, address: &str) -> bool {
    connects(from, address, PATIENCE)
}

fn is_kept_from(from: &Namespace, address: &str) -> bool {
    !connects(from, address, SILENCE)
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
                let of_no_peer = manager.enter(|| {
                    let socket = rustix::net::socket(
                        rustix::net::AddressFamily::INET,
                        rustix::net::SocketType::STREAM,
                        None,
                    )
                    .unwrap();
                    let own: SocketAddr = "192.168.9.200:0".parse().unwrap();
                    rustix::net::bind(&socket, &own).unwrap();
                    rustix::io::ioctl_fionbio(&socket, true).unwrap();
                    let there: SocketAddr = "192.168.9.1:22".parse().unwrap();
                    let _ = rustix::net::connect(&socket, &there);
                    std::thread::sleep(Duration::from_millis(300));
                    rustix::net::getpeername(&socket).is_ok()
                });
                assert!(
                    !of_no_peer.unwrap(),
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
