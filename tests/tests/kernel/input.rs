//! The gateway's own input: guarded, and nobody who may manage it is locked out.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use penstock::lab::{self, Namespace};
use penstock_policy::model::GatewayMode;

use super::plans::{SIDES, two_flows};
use super::world::{Agent, PATIENCE, SILENCE, World};

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
                    reaches(&stranger, "192.168.8.1:22"),
                    "other interfaces are not ours"
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

#[test]
fn without_a_management_interface_the_input_stays_open_and_that_is_said() {
    lab::sandbox::test(
        "input::without_a_management_interface_the_input_stays_open_and_that_is_said",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed, &SIDES);
            let plant = &world.sides["lan1"].namespace;
            world.gateway.address("lan1", "10.1.0.1/24").unwrap();
            plant.address("eth0", "10.1.0.5/24").unwrap();
            world.at_gateway(async || {
                let _shell = TcpListener::bind("0.0.0.0:22").unwrap();
                let agent = Agent::start();
                let mut plan = two_flows(GatewayMode::Routed);
                if let Some(management) = &mut plan.management {
                    management.interface = "eth77".to_owned();
                }
                for plan in [
                    plan.clone(),
                    penstock_policy::plan::Plan {
                        management: None,
                        ..plan
                    },
                ] {
                    let applied = agent.apply(&plan, 1).await;
                    let codes: Vec<_> = applied.findings.iter().map(|finding| finding.code).collect();
                    assert_eq!(codes, ["management-open"]);
                    assert!(reaches(plant, "10.1.0.1:22"), "nobody is locked out");
                }
            });
        },
    )
    .unwrap();
}
