//! A router behind the gateway that is in no zone, with a narrow link behind it: what it reports must reach who sends.

use std::io::Write;
use std::net::{TcpListener, TcpStream};

use penstock_agent::observed::Observation;
use penstock_lab::{self as lab, Lab, Namespace};
use penstock_policy::plan::Plan;
use penstock_policy::terms::GatewayMode;
use penstock_policy::verdict::Decision;

use super::plans::{SIDES, two_flows};
use super::strays::mtu;
use super::world::{Agent, MODES, PATIENCE, World};

/// The router's own addresses, which lie in no zone.
const ROUTER: [&str; 2] = ["192.168.77.1", "fd00:77::1"];
const SERVERS: [&str; 2] = ["10.2.0.9:502", "[fd00:2::9]:502"];
/// The narrow link's.
const NARROW: u32 = 1280;

/// The client is on `lan1`. On `lan2` is a router, and behind its narrow link the server.
fn far_away(lab: &Lab, world: &World) -> Namespace {
    let (client, router) = (&world.sides["lan1"].namespace, &world.sides["lan2"].namespace);
    let server = lab
        .namespace(&format!("{:?}-server", world.mode).to_lowercase())
        .unwrap();
    lab.link((router, "eth1"), (&server, "eth0")).unwrap();
    router
        .ip(&["link", "set", "eth1", "mtu", &NARROW.to_string()])
        .unwrap();
    router.forward().unwrap();
    for (host, interface) in [
        (client, "eth0"),
        (router, "eth0"),
        (router, "eth1"),
        (&server, "eth0"),
    ] {
        let off = format!("net.ipv6.conf.{interface}.disable_ipv6");
        host.sysctl(&off, "0").unwrap();
    }
    for (host, interface, address) in [
        (client, "eth0", "10.1.0.5/24"),
        (client, "eth0", "fd00:1::5/64"),
        (router, "eth0", "192.168.77.1/24"),
        (router, "eth0", "fd00:77::1/64"),
        (router, "eth1", "10.2.0.1/24"),
        (router, "eth1", "fd00:2::1/64"),
        (&server, "eth0", "10.2.0.9/24"),
        (&server, "eth0", "fd00:2::9/64"),
    ] {
        host.address(interface, address).unwrap();
    }
    let route = |host: &Namespace, words: &str| {
        host.ip(&words.split(' ').collect::<Vec<_>>()).unwrap();
    };
    route(&server, "route add default via 10.2.0.1");
    route(&server, "-6 route add default via fd00:2::1");
    match world.mode {
        GatewayMode::Routed => {
            let gateway = &world.gateway;
            for (interface, address) in [
                ("lan1", "10.1.0.1/24"),
                ("lan1", "fd00:1::1/64"),
                ("lan2", "192.168.77.2/24"),
                ("lan2", "fd00:77::2/64"),
            ] {
                gateway.address(interface, address).unwrap();
            }
            route(gateway, "route add 10.2.0.0/24 via 192.168.77.1");
            route(gateway, "-6 route add fd00:2::/64 via fd00:77::1");
            route(client, "route add default via 10.1.0.1");
            route(client, "-6 route add default via fd00:1::1");
            route(router, "route add 10.1.0.0/24 via 192.168.77.2");
            route(router, "-6 route add fd00:1::/64 via fd00:77::2");
        }
        GatewayMode::Bridged => {
            route(client, "route add 192.168.77.1 dev eth0");
            route(client, "route add 10.2.0.0/24 via 192.168.77.1");
            route(client, "-6 route add fd00:77::1 dev eth0");
            route(client, "-6 route add fd00:2::/64 via fd00:77::1");
            route(router, "route add 10.1.0.0/24 dev eth0");
            route(router, "-6 route add fd00:1::/64 dev eth0");
        }
    }
    server
}

fn with_router(mut plan: Plan) -> Plan {
    let nets = ROUTER.map(|router| router.parse::<std::net::IpAddr>().unwrap().into());
    plan.interfaces[1].routers = nets.to_vec();
    plan
}

/// Sends more than a window to a server; gives what came of it, and the path's largest packet that the client knows then.
fn send(client: &Namespace, listener: &TcpListener) -> (Result<u64, std::io::Error>, u32) {
    const BYTES: usize = 300_000;
    let address = listener.local_addr().unwrap();
    let stream = client
        .enter(|| TcpStream::connect_timeout(&address, PATIENCE).unwrap())
        .unwrap();
    let (answering, _) = listener.accept().unwrap();
    let sent = std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&vec![7; BYTES]).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        answering.set_read_timeout(Some(PATIENCE)).unwrap();
        std::io::copy(&mut &answering, &mut std::io::sink())
    });
    (sent, mtu(&stream))
}

#[test]
fn a_declared_router_of_no_zone_reports_its_narrow_link_and_an_undeclared_one_is_named_in_the_trail() {
    lab::sandbox::test(
        "routers::a_declared_router_of_no_zone_reports_its_narrow_link_and_an_undeclared_one_is_named_in_the_trail",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                let server = far_away(lab, &world);
                let client = &world.sides["lan1"].namespace;
                let listeners = SERVERS.map(|address| server.enter(|| TcpListener::bind(address).unwrap()).unwrap());
                world.at_gateway(async || {
                    let mut agent = Agent::start();
                    agent.apply(&with_router(two_flows(mode)), 1).await;
                    for listener in &listeners {
                        let (sent, path) = send(client, listener);
                        assert_eq!((sent.unwrap(), path), (300_000, NARROW), "{mode:?} {listener:?}");
                    }
                    // What was learned of the path is forgotten; the router is not declared any more.
                    client.ip(&["route", "flush", "cache"]).unwrap();
                    client.ip(&["-6", "route", "flush", "cache"]).unwrap();
                    agent.apply(&two_flows(mode), 2).await;
                    for (listener, router) in listeners.iter().zip(ROUTER) {
                        let address = listener.local_addr().unwrap();
                        let mut stream = client.enter(|| TcpStream::connect_timeout(&address, PATIENCE).unwrap()).unwrap();
                        stream.write_all(&[7; 10_000]).unwrap();
                        let words = format!("{router} is neither in a zone on the side of lan2 nor a router there");
                        agent
                            .observe_until(|o| {
                                matches!(o, Observation::Verdict(v) if v.decision == Decision::Deny && v.reason.contains(&words))
                            })
                            .await;
                    }
                });
            }
        },
    )
    .unwrap();
}
