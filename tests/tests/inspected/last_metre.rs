//! A server that speaks no TLS, and clients that do: pymodbus, umodbus, Python's `ssl` and `openssl s_client`, through a gateway that ends
//! their TLS and goes on in the plain.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use penstock_agent::inspector::SeatLimits;
use penstock_lab::{self as lab, Namespace};
use penstock_policy::plan::{Capability, Observing, Plan};
use penstock_policy::terms::{GatewayMode, Tls};
use penstock_policy::verdict::Decision;
use penstock_proto::peer::Epoch;
use penstock_proto::withdrawn::Withdrawn;
use penstock_tests::at_once;
use tokio::sync::watch;

use super::pki::{Files, Pki};
use super::world::{Agent, CLIENT, CLIENT6, MODES, PATIENCE, SERVER, SERVER6, World, peer, polling, python};

/// Where clients connect inside TLS, and where the server listens: Modbus, and something that nobody reads.
const MODBUS: (u16, u16) = (802, 502);
const OTHER: (u16, u16) = (10_102, 102);
/// A connection that does not come about in this time does not come about.
const SILENCE: Duration = Duration::from_millis(800);

/// `hmi` may use both ports of `plc`, inside TLS alone; Modbus with limits.
fn plan(world: &World) -> Plan {
    let mut plan = world.plan(&[(MODBUS.0, polling()), (OTHER.0, None)]);
    for (rule, (_, plain)) in plan.rules.iter_mut().zip([MODBUS, OTHER]) {
        rule.tls = Some(
            Tls {
                plain_port: Some(plain),
                ..Tls::default()
            }
            .into(),
        );
    }
    plan.requires.insert(Capability::of(Capability::TLS_BEFORE_PLAIN));
    plan
}

fn observing(mut plan: Plan) -> Plan {
    for side in &mut plan.interfaces {
        side.observing = Observing::Everything;
    }
    plan
}

/// A server in the plain that names its client, and gives back what it gets.
struct Echo(Arc<AtomicUsize>);

impl Echo {
    fn start(at: &Namespace, address: &str) -> Self {
        let address: SocketAddr = (address.parse::<std::net::IpAddr>().unwrap(), OTHER.1).into();
        let listener = at.enter(|| TcpListener::bind(address).unwrap()).unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let peer = stream.peer_addr().unwrap().ip();
                    let _ = writeln!(stream, "{peer}");
                    let mut copy = stream.try_clone().unwrap();
                    let _ = std::io::copy(&mut stream, &mut copy);
                });
            }
        });
        Self(count)
    }

    fn connections(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// What one of the clients in the office prints.
fn client(world: &World, stack: &str, server: &str, port: u16, own: &Files, more: &[&str]) -> String {
    let (script, port) = (peer("tls_client.py"), port.to_string());
    let Files {
        authority,
        certificate,
        key,
    } = own;
    let fixed = [script.as_str(), stack, server, &port, authority, certificate, key];
    world.say(python(), &[&fixed[..], more].concat())
}

/// What `openssl s_client` says of its handshake and of what comes then.
fn openssl(world: &World, port: u16, more: &[&str]) -> String {
    let server = format!("{SERVER}:{port}");
    let fixed = ["s_client", "-ign_eof", "-connect", &server];
    world.say("openssl", &[&fixed[..], more].concat())
}

/// Whether a client in the office gets a connection in the plain that carries anything.
fn plainly(world: &World, port: u16) -> bool {
    let server = SocketAddr::new(SERVER.parse().unwrap(), port);
    let asked = world.office.enter(move || {
        let mut stream = TcpStream::connect_timeout(&server, SILENCE).ok()?;
        // Where nobody listens any more, nothing comes; what reaches the server is seen there.
        stream.set_read_timeout(Some(2 * SILENCE)).unwrap();
        stream.write_all(&[0, 5, 0, 0, 0, 6, 1, 3, 0, 7, 0, 1]).ok()?;
        let mut first = [0];
        stream.read_exact(&mut first).ok()?;
        // An alert of TLS is no answer.
        (first != [21]).then_some(())
    });
    asked.unwrap().is_some()
}

#[test]
fn a_plc_that_speaks_no_tls_is_reached_by_certificate_alone_and_sees_its_client() {
    lab::sandbox::test(
        "last_metre::a_plc_that_speaks_no_tls_is_reached_by_certificate_alone_and_sees_its_client",
        |lab| {
            let folder = lab.directory();
            let worlds = MODES.map(|mode| World::new(lab, mode));
            at_once(&worlds, |world| {
                let mode = world.mode;
                let pki = Pki::new(&folder.join(format!("pki-{mode:?}")));
                let own = pki.device("hmi", &[]);
                let _plcs = [SERVER, SERVER6].map(|server| world.plc(server));
                let _echoes = [SERVER, SERVER6].map(|server| Echo::start(&world.control, server));
                world.at_gateway(async || {
                    let mut agent = Agent::start(SeatLimits::default());
                    agent.enforcer.identify(Some(pki.gateway(&[SERVER, SERVER6])));
                    agent.apply(plan(world), 1).await;
                    for (stack, server) in [("pymodbus", SERVER), ("umodbus", SERVER), ("umodbus", SERVER6)] {
                        let say = |more: &[&str]| client(world, stack, server, MODBUS.0, &own, more);
                        assert_eq!(say(&["read", "7"]), "1007", "{mode:?} {stack} {server}");
                        assert_eq!(say(&["write", "45", "9"]), "9", "{mode:?} {stack} {server}");
                        assert_eq!(say(&["read", "45"]), "9", "{mode:?} {stack} {server}");
                        assert_eq!(say(&["write", "7", "9"]), "exception 2", "{mode:?} {stack} {server}");
                    }
                    let seen = agent.until(|seen| seen.decision == Some(Decision::Deny)).await;
                    let opened = seen.iter().find(|seen| seen.text.starts_with("connection opened"));
                    assert_eq!(
                        opened.unwrap().text,
                        "connection opened: its TLS ends here, and it goes on in the plain to the server's port 502"
                    );
                    let refused = seen.last().unwrap();
                    assert!(refused.text.starts_with("write-single-register 7"), "{refused:?}");
                    assert_eq!(refused.client_name, "device/hmi by certificate");
                    // What nobody reads goes on byte for byte, with both ends' addresses and ends.
                    for (server, seen) in [(SERVER, CLIENT), (SERVER6, CLIENT6)] {
                        let said = client(world, "ssl", server, OTHER.0, &own, &["300000"]);
                        assert_eq!(said, format!("{seen} same"), "{mode:?}");
                    }
                    let counters = agent.enforcer.counters().await.unwrap();
                    assert_eq!((counters.allowed_packets, counters.stray_packets), (0, 0), "{counters:?}");
                });
            });
        },
    )
    .unwrap();
}

#[test]
fn who_shows_no_certificate_of_the_flow_s_asset_or_speaks_in_the_plain_reaches_no_port_of_the_plc() {
    lab::sandbox::test(
        "last_metre::who_shows_no_certificate_of_the_flow_s_asset_or_speaks_in_the_plain_reaches_no_port_of_the_plc",
        |lab| {
            let folder = lab.directory();
            let worlds = MODES.map(|mode| World::new(lab, mode));
            at_once(&worlds, |world| {
                let mode = world.mode;
                let pki = Pki::new(&folder.join(format!("pki-odd-{mode:?}")));
                let other = Pki::of("dairy", &folder.join(format!("other-{mode:?}")));
                let foreign = Files {
                    authority: pki.device("hmi", &[]).authority,
                    ..other.device("hmi", &[])
                };
                let (own, neighbour) = (pki.device("hmi", &[]), pki.device("historian", &[]));
                let _plc = world.plc(SERVER);
                let echo = Echo::start(&world.control, SERVER);
                world.at_gateway(async || {
                    let mut agent = Agent::start(SeatLimits::default());
                    agent.enforcer.identify(Some(pki.gateway(&[SERVER])));
                    agent.apply(plan(world), 1).await;
                    let shown = |files: &Files| {
                        let Files {
                            authority,
                            certificate,
                            key,
                        } = files.clone();
                        ["-CAfile".to_owned(), authority, "-cert".to_owned(), certificate, "-key".to_owned(), key]
                    };
                    for (files, because) in [
                        (None, "shows no certificate"),
                        (Some(&foreign), "not of this plant's authority"),
                        (Some(&neighbour), "not device/hmi of plant works"),
                    ] {
                        let arguments = files.map(shown);
                        let arguments: Vec<&str> = arguments.iter().flatten().map(String::as_str).collect();
                        let said = openssl(world, OTHER.0, &arguments);
                        assert!(said.contains("alert"), "{mode:?} {because}: {said}");
                        let seen = agent.until(|seen| seen.text.contains(because)).await;
                        assert_eq!(seen.last().unwrap().decision, Some(Decision::Deny), "{mode:?}");
                    }
                    for port in [MODBUS.0, MODBUS.1, OTHER.0, OTHER.1] {
                        assert!(!plainly(world, port), "{mode:?} {port}");
                    }
                    agent.until(|seen| seen.text.contains("does not speak TLS")).await;
                    assert_eq!(echo.connections(), 0, "{mode:?}");
                    // While none ends the TLS, nobody gets there at all.
                    drop(agent);
                    for port in [MODBUS.0, MODBUS.1, OTHER.0, OTHER.1] {
                        assert!(!plainly(world, port), "{mode:?} {port} without an agent");
                    }
                    let said = client(world, "ssl", SERVER, OTHER.0, &own, &["10"]);
                    assert!(said.starts_with("failed"), "{said}");
                    assert_eq!(echo.connections(), 0, "{mode:?}");
                });
            });
        },
    )
    .unwrap();
}

#[test]
fn clients_move_to_tls_while_the_zones_observe_and_enforcing_ends_what_is_left_in_the_plain() {
    lab::sandbox::test(
        "last_metre::clients_move_to_tls_while_the_zones_observe_and_enforcing_ends_what_is_left_in_the_plain",
        |lab| {
            let folder = lab.directory();
            let worlds = MODES.map(|mode| World::new(lab, mode));
            at_once(&worlds, |world| {
                let mode = world.mode;
                let pki = Pki::new(&folder.join(format!("pki-observing-{mode:?}")));
                let own = pki.device("hmi", &[]);
                let _plc = world.plc(SERVER);
                // Clients keep the port, and only begin to speak TLS there.
                let mut same_port = world.plan(&[(MODBUS.1, polling())]);
                same_port.rules[0].tls = plan(world).rules[0].tls.clone();
                same_port
                    .requires
                    .insert(Capability::of(Capability::TLS_BEFORE_PLAIN));
                world.at_gateway(async || {
                    let mut agent = Agent::start(SeatLimits::default());
                    agent.enforcer.identify(Some(pki.gateway(&[SERVER])));
                    for (revision, (plan, port)) in (1..).zip([(same_port, MODBUS.1), (plan(world), MODBUS.0)]) {
                        agent.apply(observing(plan.clone()), 2 * revision).await;
                        let tls = |more: &[&str]| client(world, "umodbus", SERVER, port, &own, more);
                        let plain = |more: &[&str]| world.modbus(&[&["pymodbus"][..], more].concat());
                        assert_eq!(plain(&["read", SERVER, "7"]), "1007", "{mode:?} {port}");
                        assert_eq!(tls(&["read", "7"]), "1007", "{mode:?} {port}");
                        assert_eq!(tls(&["write", "8", "1008"]), "1008", "{mode:?} {port}: it only observes");
                        let foretold = |seen: &penstock_agent::observed::OperationSeen| {
                            seen.text.starts_with("write-single-register 8")
                                && seen.decision == Some(Decision::WouldDeny)
                        };
                        agent.until(foretold).await;
                        agent.apply(plan, 2 * revision + 1).await;
                        assert!(plain(&["read", SERVER, "7"]).starts_with("failed"), "{mode:?} {port}");
                        assert_eq!(tls(&["read", "7"]), "1007", "{mode:?} {port}");
                        assert_eq!(tls(&["write", "8", "1008"]), "exception 2", "{mode:?} {port}");
                    }
                });
            });
        },
    )
    .unwrap();
}

#[test]
fn a_planned_restart_ends_such_connections_in_order_and_a_withdrawn_key_cuts_them() {
    lab::sandbox::test(
        "last_metre::a_planned_restart_ends_such_connections_in_order_and_a_withdrawn_key_cuts_them",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed);
            let pki = Pki::new(&lab.directory().join("pki-restart"));
            let _echo = Echo::start(&world.control, SERVER);
            let (list, known) = watch::channel(Arc::<Withdrawn>::default());
            let own = pki.device_in_life("hmi", &[], 1);
            let waiting = |name: &str| {
                let (script, port) = (peer("tls_client.py"), OTHER.0.to_string());
                let Files {
                    authority,
                    certificate,
                    key,
                } = &own;
                let arguments = [&script, "wait", SERVER, &port, authority, certificate, key];
                let daemon = world.begin(name, python(), &arguments);
                daemon.wait_for_log("standing", PATIENCE).unwrap();
                daemon
            };
            world.at_gateway(async || {
                let identity = pki.gateway_knowing(&[SERVER], known.into());
                let agent = Agent::start(SeatLimits::default());
                agent.enforcer.identify(Some(identity.clone()));
                agent.apply(plan(&world), 1).await;
                let stands = waiting("stands");
                let mut agent = agent.restarted(lab.directory()).await;
                stands.wait_for_log("ended", PATIENCE).unwrap();
                agent.enforcer.identify(Some(identity));
                agent.apply(plan(&world), 1).await;
                let stolen = waiting("stolen");
                let mut withdrawn = Withdrawn::default();
                withdrawn.withdraw(&"device/hmi".parse().unwrap(), Epoch(2));
                let withdrawn = Arc::new(withdrawn);
                list.send_replace(withdrawn.clone());
                agent.enforcer.heed(withdrawn).await;
                agent
                    .until(|seen| seen.text.contains("the client's key was withdrawn"))
                    .await;
                let cut = stolen.wait_for_log("cut", PATIENCE);
                assert!(cut.is_ok(), "{}", stolen.log());
            });
        },
    )
    .unwrap();
}
