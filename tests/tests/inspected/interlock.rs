//! The question to the process before a change, as a gateway with rules asks it: of controllers and brokers that others wrote.

use std::time::Duration;

use penstock_agent::audit::Audit;
use penstock_agent::interlock::{Asker, Interlocks};
use penstock_agent::reconcile::site::Interlock;
use penstock_agent::timepiece::Timepiece;
use penstock_lab as lab;
use penstock_policy::plan::Interlock as Wanted;
use penstock_policy::plan::{AskedFrom, Capability, Condition, Management, Plan};
use penstock_policy::terms::GatewayMode;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::world::{Agent, PATIENCE, SERVER, World, polling};

/// The gateway's own address on the controller's side.
const OWN: &str = "10.2.0.1";

fn asking(plan: Plan, asset: &str, (address, from): (&str, AskedFrom), condition: Condition) -> Plan {
    let port = condition.usual_port();
    let mut requires = plan.requires.clone();
    requires.insert(Capability::of(Capability::CHANGE_CONTROL));
    let interlock = Some(Wanted {
        asset: asset.parse().unwrap(),
        address: address.parse().unwrap(),
        port,
        from,
        condition,
    });
    Plan {
        requires,
        interlock,
        ..plan
    }
}

fn coil(unit: u8) -> Condition {
    // Of this controller a coil is what its register is: the office may write register 40.
    Condition::Coil {
        unit,
        coil: 40,
        is: true,
    }
}

fn topic(is: &str) -> Condition {
    Condition::Topic {
        topic: "line/1/safe".to_owned(),
        is: is.to_owned(),
        tls: None,
    }
}

/// A part of an agent that asks; runs within the caller's runtime.
fn asker() -> (Interlocks, CancellationToken) {
    let (audit, _) = Audit::without_spool();
    let (asker, interlocks) = Asker::new(
        Default::default(),
        watch::channel(None).1,
        audit,
        Timepiece::Kernel,
    );
    let stop = CancellationToken::new();
    tokio::spawn(asker.run(stop.clone()));
    (interlocks, stop)
}

/// Asks until the answer is `wanted`.
async fn until(interlocks: &Interlocks, plan: &Plan, wanted: impl Fn(&Interlock) -> bool) -> Interlock {
    let mut last = None;
    let asked = async {
        loop {
            let said = interlocks.says(plan);
            if wanted(&said) {
                return said;
            }
            last = Some(said);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let said = tokio::time::timeout(PATIENCE, asked).await;
    said.unwrap_or_else(|_| panic!("{last:?}"))
}

fn says_no(part: &str) -> impl Fn(&Interlock) -> bool {
    move |said| matches!(said, Interlock::NotSafe(why) if why.contains(part))
}

#[test]
fn a_controller_is_asked_through_the_gateways_own_rules_and_its_word_counts_while_it_is_so() {
    lab::sandbox::test(
        "interlock::a_controller_is_asked_through_the_gateways_own_rules_and_its_word_counts_while_it_is_so",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed);
            let plc = world.plc(SERVER);
            world.at_gateway(async || {
                let from = || (SERVER, AskedFrom::Address(OWN.parse().unwrap()));
                let plan = asking(world.plan(&[(502, polling())]), "plc", from(), coil(1));
                let _agent = Agent::enforcing(plan.clone()).await;
                let (interlocks, stop) = asker();
                let set = |value: &str| world.modbus(&["pymodbus", "write", SERVER, "40", value]);
                assert_eq!(set("0"), "0");
                until(
                    &interlocks,
                    &plan,
                    says_no("coil 40 is off at plc (10.2.0.9:502)"),
                )
                .await;
                assert_eq!(set("65535"), "65535");
                until(&interlocks, &plan, |said| *said == Interlock::Safe).await;
                assert_eq!(set("0"), "0");
                until(&interlocks, &plan, says_no("coil 40 is off")).await;
                // A unit that the controller does not have, and a controller that is gone.
                let other = asking(plan.clone(), "plc", from(), coil(9));
                let said = until(&interlocks, &other, |said| !says_no("is being asked")(said)).await;
                assert!(says_no("plc (10.2.0.9:502)")(&said), "{said:?}");
                drop(plc);
                until(&interlocks, &plan, says_no("cannot be reached")).await;
                stop.cancel();
            });
        },
    )
    .unwrap();
}

#[test]
fn a_broker_is_asked_for_what_it_keeps_also_beside_a_bridge_through_the_way_in_for_people() {
    lab::sandbox::test(
        "interlock::a_broker_is_asked_for_what_it_keeps_also_beside_a_bridge_through_the_way_in_for_people",
        |lab| {
            let world = World::new(lab, GatewayMode::Bridged);
            let desk = lab.namespace("desk").unwrap();
            lab.link((&world.gateway, "mgmt"), (&desk, "eth0")).unwrap();
            world.gateway.address("mgmt", "192.168.9.1/28").unwrap();
            desk.address("eth0", "192.168.9.2/28").unwrap();
            let config = lab.directory().join("mosquitto.conf");
            std::fs::write(&config, "user root\nlistener 1883\nallow_anonymous true\n").unwrap();
            let broker = desk
                .spawn("mosquitto", "mosquitto", &["-c", &config.to_string_lossy()])
                .unwrap();
            desk.wait_for_tcp("192.168.9.2:1883", PATIENCE).unwrap();
            let publish = |retained: bool, text: &str| {
                let mut command = desk.command("mosquitto_pub");
                command.args(["-h", "192.168.9.2", "-t", "line/1/safe", "-m", text]);
                if retained {
                    command.arg("-r");
                }
                assert!(command.status().unwrap().success());
            };
            world.at_gateway(async || {
                let mut plan = world.plan(&[]);
                plan.management = Some(Management {
                    interface: "mgmt".to_owned(),
                    peers: vec!["192.168.9.2/32".parse().unwrap()],
                });
                let from = ("192.168.9.2", AskedFrom::Interface("mgmt".to_owned()));
                let plan = asking(plan, "broker", from, topic("yes"));
                let _agent = Agent::enforcing(plan.clone()).await;
                let (interlocks, stop) = asker();
                // What only passes by is not kept.
                publish(false, "yes");
                until(
                    &interlocks,
                    &plan,
                    says_no("gives no retained message of \"line/1/safe\""),
                )
                .await;
                publish(true, "no");
                until(&interlocks, &plan, says_no("\"line/1/safe\" is \"no\" at broker")).await;
                publish(true, "yes");
                until(&interlocks, &plan, |said| *said == Interlock::Safe).await;
                drop(broker);
                until(&interlocks, &plan, says_no("cannot be reached")).await;
                stop.cancel();
            });
        },
    )
    .unwrap();
}
