//! Keys that no longer count, shown by programs that others wrote: mosquitto's clients and `openssl s_client`.

use std::sync::Arc;

use penstock_agent::inspector::SeatLimits;
use penstock_lab as lab;
use penstock_policy::plan::Capability;
use penstock_policy::terms::Tls;
use penstock_policy::verdict::Decision;
use penstock_proto::peer::Epoch;
use penstock_proto::withdrawn::Withdrawn;
use tokio::sync::watch;

use super::mqtts::{NAME, TOPIC, broker, publish};
use super::pki::{Files, Pki};
use super::world::{Agent, MODES, PATIENCE, SERVER, World, peer, polling, python, telemetry};

/// A subscriber that tells what it hears, and why it is not connected.
fn hears(world: &World, name: &str, own: &Files) -> lab::Daemon {
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
        "-i",
        name,
    ];
    let name = format!("{name}-{:?}", world.mode);
    world.begin(&name, "mosquitto_sub", &[&fixed[..], &own.arguments()].concat())
}

/// What `openssl s_client` prints with this certificate, until the gateway ends it.
fn openssl(world: &World, own: &Files) -> String {
    let Files {
        authority,
        certificate,
        key,
    } = own;
    let server = format!("{SERVER}:8883");
    let arguments = [
        "s_client",
        "-ign_eof",
        "-connect",
        &server,
        "-CAfile",
        authority,
        "-cert",
        certificate,
        "-key",
        key,
    ];
    world.say("openssl", &arguments)
}

#[test]
fn a_device_whose_key_is_withdrawn_is_cut_and_refused_and_flows_that_the_list_does_not_name_go_on() {
    lab::sandbox::test(
        "withdrawn::a_device_whose_key_is_withdrawn_is_cut_and_refused_and_flows_that_the_list_does_not_name_go_on",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode);
                let pki = Pki::new(&lab.directory().join(format!("pki-withdrawn-{mode:?}")));
                let broker = broker(lab, &world, &pki.device("plc", &[SERVER]));
                let _plc = world.plc(SERVER);
                let (stolen, current) =
                    (pki.device_in_life("hmi", &[], 1), pki.device_in_life("hmi", &[], 2));
                let mut plan = world.plan(&[(8883, telemetry()), (502, polling())]);
                plan.rules[0].tls = Some(Tls::default().into());
                plan.requires.insert(Capability("inspect:mqtt-tls".to_owned()));
                let (list, known) = watch::channel(Arc::<Withdrawn>::default());
                world.at_gateway(async || {
                    let mut agent = Agent::start(SeatLimits::default());
                    let own = pki.gateway_knowing(&[SERVER, NAME], known.into());
                    agent.enforcer.identify(Some(own));
                    agent.apply(plan.clone(), 1).await;
                    let (thief, device) = (hears(&world, "thief", &stolen), hears(&world, "device", &current));
                    for name in ["thief", "device"] {
                        broker.wait_for_log(&format!("Sending SUBACK to {name}"), PATIENCE).unwrap();
                    }
                    let polling = world.begin(
                        &format!("polls-{mode:?}"),
                        python(),
                        &[&peer("modbus_client.py"), "poll", SERVER, "4"],
                    );
                    polling.wait_for_log("polling", PATIENCE).unwrap();

                    let mut withdrawn = Withdrawn::default();
                    withdrawn.withdraw(&"device/hmi".parse().unwrap(), Epoch(2));
                    let withdrawn = Arc::new(withdrawn);
                    list.send_replace(withdrawn.clone());
                    agent.enforcer.heed(withdrawn).await;
                    agent.until(|seen| seen.text.contains("the client's key was withdrawn")).await;
                    // It comes back, and is refused by name; so is any other program with its certificate.
                    let refused = |seen: &penstock_agent::observed::OperationSeen| {
                        seen.text.contains("device/hmi was withdrawn") && seen.decision == Some(Decision::Deny)
                    };
                    agent.until(refused).await;
                    let said = openssl(&world, &stolen);
                    assert!(said.contains("alert"), "{said}");
                    assert_ne!(publish(&world, TOPIC, &stolen.arguments()), "");

                    // Whom the list does not name hears on, over the connection that stood.
                    assert_eq!(publish(&world, TOPIC, &current.arguments()), "");
                    device.wait_for_log(&format!("{TOPIC} 21"), PATIENCE).unwrap();
                    let subscribed = broker.log().matches("Sending SUBACK to device").count();
                    assert_eq!(subscribed, 1, "{}", broker.log());
                    assert!(!thief.log().contains(&format!("{TOPIC} 21")), "{}", thief.log());
                    polling.wait_for_log("polled", PATIENCE).unwrap();
                    assert!(polling.log().contains("failed 0 "), "{mode:?}: {}", polling.log());
                });
                drop(broker);
            }
        },
    )
    .unwrap();
}
