//! MQTT over TLS: clients and a broker that others wrote, with the plant's certificates, and TLS that ends at the gateway.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use penstock_agent::inspector::SeatLimits;
use penstock_lab::{self as lab, Daemon, Lab};
use penstock_policy::plan::{Capability, Plan};
use penstock_policy::terms::Tls;
use penstock_policy::verdict::Decision;
use penstock_tests::at_once;

use super::pki::{Files, Pki};
use super::world::{Agent, CLIENT, MODES, PATIENCE, SERVER, World, peer, python, telemetry};

pub const NAME: &str = "broker.works.example";
pub const TOPIC: &str = "works/3/pressure";
/// The content type of TLS's alerts.
const TLS_ALERT: u8 = 21;

/// A broker that lets in who shows a certificate of the plant, and tells who connects.
pub fn broker(lab: &Lab, world: &World, own: &Files) -> Daemon {
    let config = lab.directory().join("mosquitto-tls.conf");
    let Files {
        authority,
        certificate,
        key,
    } = own;
    let text = format!(
        "listener 8883\nuser root\nallow_anonymous true\ncafile {authority}\ncertfile {certificate}\nkeyfile {key}\n\
         require_certificate true\nlog_type all\nlog_dest stderr\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = world.control.command("mosquitto");
    command.arg("-c").arg(&config);
    let name = format!("mosquitto-tls-{:?}", world.mode);
    let daemon = world.control.spawn_command(&name, command).unwrap();
    world
        .control
        .wait_for_tcp(&format!("{SERVER}:8883"), PATIENCE)
        .unwrap();
    daemon
}

fn plan(world: &World) -> Plan {
    let mut plan = world.plan(&[(8883, telemetry())]);
    plan.rules[0].tls = Some(Tls::default().into());
    plan.requires.insert(Capability("inspect:mqtt-tls".to_owned()));
    plan
}

async fn agent(pki: &Pki, plan: Plan) -> Agent {
    let agent = Agent::start(SeatLimits::default());
    agent.enforcer.identify(Some(pki.gateway(&[SERVER, NAME])));
    agent.apply(plan, 1).await;
    agent
}

/// What mosquitto_pub says when it publishes with these arguments on top; nothing, if all went well.
pub fn publish(world: &World, topic: &str, more: &[&str]) -> String {
    let fixed = ["-p", "8883", "-q", "1", "-m", "21", "-t", topic];
    let server = if more.contains(&"-h") {
        &[][..]
    } else {
        &["-h", SERVER]
    };
    world.say("mosquitto_pub", &[&fixed[..], server, more].concat())
}

/// What a client hears that speaks plainly.
pub fn plain() -> Vec<u8> {
    let mut stream = TcpStream::connect(format!("{SERVER}:8883")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c")
        .unwrap();
    let mut heard = Vec::new();
    // The end may be a reset.
    let _ = stream.read_to_end(&mut heard);
    heard
}

fn hears(world: &World, own: &Files) -> Daemon {
    let fixed = [
        "-h",
        SERVER,
        "-p",
        "8883",
        "-t",
        "works/+/pressure",
        "-q",
        "1",
        "-v",
    ];
    let arguments = [&fixed[..], &own.arguments()].concat();
    world.begin(
        &format!("hears-tls-{:?}", world.mode),
        "mosquitto_sub",
        &arguments,
    )
}

#[test]
fn real_clients_meet_a_real_broker_through_the_gateway_and_check_its_name_as_ever() {
    lab::sandbox::test(
        "mqtts::real_clients_meet_a_real_broker_through_the_gateway_and_check_its_name_as_ever",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode);
                let pki = Pki::new(&lab.directory().join(format!("pki-{mode:?}")));
                let broker = broker(lab, &world, &pki.device("plc", &[SERVER]));
                let own = pki.device("hmi", &[]);
                world.at_gateway(async || {
                    let mut agent = agent(&pki, plan(&world)).await;
                    let hears = hears(&world, &own);
                    broker.wait_for_log("Sending SUBACK", PATIENCE).unwrap();
                    for version in ["311", "5"] {
                        let more = [&own.arguments()[..], &["-V", version]].concat();
                        assert_eq!(publish(&world, TOPIC, &more), "", "{mode:?} {version}");
                        let paho = |topic: &str| {
                            let Files {
                                authority,
                                certificate,
                                key,
                            } = &own;
                            let script = peer("mqtt_client.py");
                            let arguments = [&script, version, SERVER, topic, authority, certificate, key];
                            world.say(python(), &arguments)
                        };
                        assert_eq!(paho("works/4/pressure"), "Success", "{mode:?} {version}");
                        let refused = if version == "5" {
                            "Not authorized"
                        } else {
                            "Success"
                        };
                        assert_eq!(paho("works/4/valve"), refused, "{mode:?} {version}");
                    }
                    hears
                        .wait_for_log(&format!("{TOPIC} 21\nworks/4/pressure 7\n{TOPIC} 21"), PATIENCE)
                        .unwrap();
                    // Both ends see each other.
                    broker
                        .wait_for_log(&format!("New client connected from {CLIENT}:"), PATIENCE)
                        .unwrap();
                    let seen = agent.until(|seen| seen.decision == Some(Decision::Deny)).await;
                    let refused = seen.last().unwrap();
                    assert_eq!(refused.text, "publish works/4/valve at QoS 1");
                    assert_eq!(refused.client_name, "device/hmi by certificate");
                    assert!(!broker.log().contains("valve"), "{}", broker.log());
                    // A renewal cuts nobody.
                    agent.enforcer.identify(Some(pki.gateway(&[SERVER])));
                    assert_eq!(publish(&world, "works/5/pressure", &own.arguments()), "");
                    hears.wait_for_log("works/5/pressure 21", PATIENCE).unwrap();
                    assert_eq!(agent.enforcer.identity_fault(), None);
                    // The gateway passes for no other server than those in its certificate.
                    agent.enforcer.identify(Some(pki.gateway(&[NAME])));
                    let said = publish(&world, TOPIC, &own.arguments());
                    assert!(said.contains("TLS error"), "{said}");
                    assert_eq!(
                        broker.log().matches("Sending SUBACK").count(),
                        1,
                        "who listens never connected anew: {}",
                        broker.log()
                    );
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn who_is_not_the_device_of_that_address_is_refused_before_the_broker_hears_of_it() {
    lab::sandbox::test(
        "mqtts::who_is_not_the_device_of_that_address_is_refused_before_the_broker_hears_of_it",
        |lab| {
            let folder = lab.directory();
            let all = MODES.map(|mode| {
                let world = World::new(lab, mode);
                let pki = Pki::new(&folder.join(format!("pki-{mode:?}")));
                let broker = broker(lab, &world, &pki.device("plc", &[SERVER]));
                (world, pki, broker)
            });
            at_once(&all, |(world, pki, broker)| {
                let mode = world.mode;
                let authority = pki.device("hmi", &[]).authority;
                let other = Pki::of("dairy", &folder.join(format!("other-{mode:?}")));
                let foreign = Files {
                    authority: authority.clone(),
                    ..other.device("hmi", &[])
                };
                let neighbour = pki.device("historian", &[]);
                world.at_gateway(async || {
                    let mut agent = agent(pki, plan(world)).await;
                    let before = broker.log().matches("New connection").count();
                    for (more, because) in [
                        (&["--cafile", authority.as_str()][..], "shows no certificate"),
                        (&foreign.arguments(), "not of this plant's authority"),
                        (&neighbour.arguments(), "not device/hmi of plant works"),
                        // It speaks TLS on this port also unasked, and trusts whom its system trusts.
                        (&[], "the client refuses this gateway's certificate"),
                    ] {
                        let said = publish(world, TOPIC, more);
                        assert_ne!(said, "", "{mode:?} {because}");
                        let seen = agent.until(|seen| seen.text.contains(because)).await;
                        let refused = seen.last().unwrap();
                        assert_eq!(refused.decision, Some(Decision::Deny), "{mode:?} {refused:?}");
                        assert_eq!(refused.client.to_string(), CLIENT);
                    }
                    let answered = world.office.enter(plain).unwrap();
                    assert!(
                        answered.first().is_none_or(|first| *first == TLS_ALERT),
                        "{answered:?}"
                    );
                    let seen = agent.until(|seen| seen.text.contains("does not speak TLS")).await;
                    assert_eq!(seen.last().unwrap().decision, Some(Decision::Deny));
                    let after = broker.log().matches("New connection").count();
                    assert_eq!(before, after, "{}", broker.log());
                });
            });
        },
    )
    .unwrap();
}

#[test]
fn a_broker_that_is_not_the_flows_is_told_nothing() {
    lab::sandbox::test("mqtts::a_broker_that_is_not_the_flows_is_told_nothing", |lab| {
        for mode in MODES {
            let world = World::new(lab, mode);
            let pki = Pki::new(&lab.directory().join(format!("pki-{mode:?}")));
            // With the right address in it, and of the plant: but it is another asset's.
            let broker = broker(lab, &world, &pki.device("historian", &[SERVER]));
            let own = pki.device("hmi", &[]);
            world.at_gateway(async || {
                let mut agent = agent(&pki, plan(&world)).await;
                assert_ne!(publish(&world, TOPIC, &own.arguments()), "", "{mode:?}");
                let because = "not device/plc of plant works";
                agent.until(|seen| seen.text.contains(because)).await;
                assert!(!broker.log().contains("New client connected"), "{}", broker.log());
            });
        }
    })
    .unwrap();
}
