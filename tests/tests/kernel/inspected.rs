//! Flows that name operations: their connections go through the inspector, or nowhere.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use penstock_agent::enforce::EnforceSettings;
use penstock_agent::intercept::InspectorPorts;
use penstock_agent::observed::Observation;
use penstock_lab::{self as lab, Lab, Namespace};
use penstock_policy::plan::Plan;
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::modbus_tcp::ModbusOperation;
use penstock_policy::terms::{GatewayMode, OnAgentLoss};
use penstock_policy::verdict::Decision;
use penstock_tests::at_once;

use super::inspector::Inspector;
use super::plans::{SIDES, two_flows};
use super::world::{Agent, MODES, PATIENCE, SILENCE, World, settings};

pub const SERVERS: [&str; 2] = ["10.2.0.9:502", "[fd00:2::9]:502"];

/// A plant whose sides have real addresses: the client on `lan1`, the server on `lan2`.
pub fn plant(lab: &Lab, mode: GatewayMode) -> World {
    let world = World::new(lab, mode, &SIDES);
    for (number, host) in [(1, 5), (2, 9), (3, 7)] {
        let side = &world.sides[&format!("lan{number}")].namespace;
        side.sysctl("net.ipv6.conf.eth0.disable_ipv6", "0").unwrap();
        let (gateway, length4, length6) = match mode {
            GatewayMode::Routed => (format!("lan{number}"), 24, 64),
            GatewayMode::Bridged => ("br0".to_owned(), 8, 16),
        };
        side.address("eth0", &format!("10.{number}.0.{host}/{length4}"))
            .unwrap();
        side.address("eth0", &format!("fd00:{number}::{host}/{length6}"))
            .unwrap();
        let (own4, own6) = (format!("10.{number}.0.1"), format!("fd00:{number}::1"));
        world
            .gateway
            .address(&gateway, &format!("{own4}/{length4}"))
            .unwrap();
        world
            .gateway
            .address(&gateway, &format!("{own6}/{length6}"))
            .unwrap();
        if mode == GatewayMode::Routed {
            side.route("default", &own4).unwrap();
            side.ip(&["-6", "route", "add", "default", "via", &own6]).unwrap();
        }
    }
    world
}

/// The two flows, of which TCP 502 names operations.
pub fn inspected(mode: GatewayMode, loss: OnAgentLoss) -> Plan {
    let mut plan = two_flows(mode);
    plan.rules[0].operations = Some(std::sync::Arc::new(Operations::from(vec![ModbusOperation {
        function: "read-only".to_owned(),
        units: None,
        addresses: None,
        read_addresses: None,
        values: None,
        sub_functions: None,
    }])));
    plan.rules[0].on_agent_loss = loss;
    plan
}

pub fn with(inspector: &Inspector) -> EnforceSettings {
    with_ports(inspector.ports)
}

pub fn with_ports(ports: InspectorPorts) -> EnforceSettings {
    EnforceSettings {
        inspector: Some(ports),
        ..settings()
    }
}

/// A server that tells who connects, and then echoes.
#[derive(Debug)]
pub struct Echo;

impl Echo {
    pub fn start(at: &Namespace, address: &str) -> Self {
        let listener = at.enter(|| TcpListener::bind(address).unwrap()).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let peer = stream.peer_addr().unwrap().ip();
                    let _ = writeln!(stream, "{peer}");
                    let mut copy = stream.try_clone().unwrap();
                    let _ = std::io::copy(&mut stream, &mut copy);
                });
            }
        });
        Self
    }
}

/// An inspector and an agent at the gateway of a [`plant`] whose servers echo.
pub struct Case<'w> {
    pub mode: GatewayMode,
    pub world: &'w World,
    pub inspector: Inspector,
    pub agent: Agent,
}

/// Runs `test` at a routed gateway, and at a bridged one, both at once.
pub fn in_each_mode(name: &str, test: impl AsyncFn(Case<'_>) + Sync) {
    lab::sandbox::test(name, |lab| {
        let worlds = MODES.map(|mode| plant(lab, mode));
        at_once(&worlds, |world| {
            let _echo = SERVERS.map(|address| Echo::start(&world.sides["lan2"].namespace, address));
            let inspector = Inspector::start(&world.gateway, None);
            world.at_gateway(async || {
                let agent = Agent::start_with(with(&inspector));
                test(Case {
                    mode: world.mode,
                    world,
                    inspector,
                    agent,
                })
                .await;
            });
        });
    })
    .unwrap();
}

/// Connects from `at`; the connection, and whom the server sees.
pub fn connect(at: &Namespace, server: &str) -> std::io::Result<(TcpStream, IpAddr)> {
    connect_within(PATIENCE, at, server)
}

/// Whether no connection comes about, or one that carries nothing.
pub fn refuses(at: &Namespace, server: &str) -> bool {
    connect_within(SILENCE, at, server).is_err()
}

fn connect_within(patience: Duration, at: &Namespace, server: &str) -> std::io::Result<(TcpStream, IpAddr)> {
    let server: SocketAddr = server.parse().unwrap();
    let mut stream = at
        .enter(|| TcpStream::connect_timeout(&server, patience))
        .unwrap()?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_nodelay(true)?;
    let (mut line, mut byte) = (String::new(), [0]);
    loop {
        stream.read_exact(&mut byte)?;
        match byte[0] {
            b'\n' => break,
            other => line.push(other.into()),
        }
    }
    Ok((stream, line.parse().unwrap()))
}

/// Whether what is sent comes back.
pub fn echoes(stream: &mut TcpStream, text: &[u8]) -> bool {
    let mut back = vec![0; text.len()];
    stream.write_all(text).is_ok() && stream.read_exact(&mut back).is_ok() && back == text
}

/// Whether the connection carries nothing more.
pub fn is_cut(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    !echoes(stream, b"anything")
}

#[test]
fn both_ends_see_each_other_and_nothing_of_theirs_is_forwarded() {
    in_each_mode(
        "inspected::both_ends_see_each_other_and_nothing_of_theirs_is_forwarded",
        async |case| {
            let Case {
                mode,
                world,
                inspector,
                agent,
            } = case;
            let client = &world.sides["lan1"].namespace;
            for (round, loss) in [OnAgentLoss::Block, OnAgentLoss::Pass].into_iter().enumerate() {
                agent.apply(&inspected(mode, loss), 1).await;
                for (number, address) in SERVERS.into_iter().enumerate() {
                    let (mut stream, seen) =
                        connect(client, address).unwrap_or_else(|e| panic!("{mode:?} {address}: {e}"));
                    let own = stream.local_addr().unwrap();
                    assert_eq!(seen, own.ip(), "{mode:?} {address}");
                    assert!(echoes(&mut stream, &[7; 300_000]), "{mode:?} {address}");
                    let came = inspector.wait_for(2 * round + number + 1);
                    assert_eq!(came.last(), Some(&(own, address.parse().unwrap())));
                }
                let counters = agent.enforcer.counters().await.unwrap();
                assert_eq!(
                    (
                        counters.allowed_packets,
                        counters.unattended_packets,
                        counters.stray_packets
                    ),
                    (0, 0, 0),
                    "{mode:?} {loss:?}: {counters:?}"
                );
                assert!(counters.intercepted_packets > 20, "{counters:?}");
            }
        },
    );
}

#[test]
fn without_an_inspector_a_flow_passes_unread_or_is_blocked_as_it_says() {
    lab::sandbox::test(
        "inspected::without_an_inspector_a_flow_passes_unread_or_is_blocked_as_it_says",
        |lab| {
            let worlds = MODES.map(|mode| plant(lab, mode));
            at_once(&worlds, |world| {
                let mode = world.mode;
                let (client, server) = (&world.sides["lan1"].namespace, &world.sides["lan2"].namespace);
                let _echo = SERVERS.map(|address| Echo::start(server, address));
                let gone = Inspector::start(&world.gateway, None);
                let settings = with(&gone);
                drop(gone);
                world.at_gateway(async || {
                    let mut agent = Agent::start_with(settings);
                    agent.apply(&inspected(mode, OnAgentLoss::Block), 1).await;
                    for address in SERVERS {
                        assert!(refuses(client, address), "{mode:?} {address}");
                    }
                    assert!(agent.enforcer.counters().await.unwrap().denied_packets >= 2);
                    agent.apply(&inspected(mode, OnAgentLoss::Pass), 2).await;
                    for address in SERVERS {
                        let (mut stream, _) = connect(client, address).unwrap();
                        assert!(echoes(&mut stream, &[7; 10_000]), "{mode:?} {address}");
                    }
                    // The connections just closed still say so to each other.
                    let counters = agent
                        .counters_once(|c| c.unattended_packets == c.allowed_packets)
                        .await;
                    assert!(counters.unattended_packets > 10, "{counters:?}");
                    assert_eq!(counters.unattended_packets, counters.allowed_packets, "{counters:?}");
                    let told = |o: &Observation| matches!(o, Observation::Verdict(v) if v.decision == Decision::Allow && v.reason.contains("unread"));
                    agent.observe_until(told).await;
                });
            });
        },
    )
    .unwrap();
}

#[test]
fn a_bridge_without_a_way_to_both_ends_is_told_and_opens_nothing() {
    lab::sandbox::test(
        "inspected::a_bridge_without_a_way_to_both_ends_is_told_and_opens_nothing",
        |lab| {
            let world = plant(lab, GatewayMode::Bridged);
            let (client, server) = (&world.sides["lan1"].namespace, &world.sides["lan2"].namespace);
            let _echo = Echo::start(server, SERVERS[0]);
            let inspector = Inspector::start(&world.gateway, None);
            world.at_gateway(async || {
                let agent = Agent::start_with(with(&inspector));
                let plan = inspected(GatewayMode::Bridged, OnAgentLoss::Pass);
                let codes = async || {
                    let findings = agent.apply(&plan, 1).await.findings;
                    findings
                        .into_iter()
                        .map(|finding| finding.code)
                        .collect::<Vec<_>>()
                };
                assert_eq!(codes().await, [""; 0]);
                world.gateway.ip(&["addr", "flush", "dev", "br0"]).unwrap();
                assert_eq!(codes().await, ["bridge-has-no-way"]);
                assert!(refuses(client, SERVERS[0]));
                // No address is needed, a route is enough.
                world
                    .gateway
                    .ip(&["route", "add", "10.0.0.0/8", "dev", "br0"])
                    .unwrap();
                world
                    .gateway
                    .ip(&["-6", "route", "add", "fd00::/16", "dev", "br0"])
                    .unwrap();
                assert_eq!(codes().await, [""; 0]);
                assert!(connect(client, SERVERS[0]).is_ok());
                world
                    .gateway
                    .sysctl("net.ipv4.conf.all.src_valid_mark", "1")
                    .unwrap();
                assert_eq!(codes().await, ["inspection-parameter"]);
            });
        },
    )
    .unwrap();
}
