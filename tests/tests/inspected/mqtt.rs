//! MQTT clients before a mosquitto broker.

use std::path::Path;
use std::process::Command;

use penstock_lab::{self as lab, Daemon, Lab};
use penstock_policy::verdict::Decision;

use super::world::{Agent, CLIENT, MODES, PATIENCE, SERVER, World, peer, python, telemetry};

/// A broker that tells who connects.
fn broker(lab: &Lab, world: &World) -> Daemon {
    let config = lab.directory().join("mosquitto.conf");
    std::fs::write(
        &config,
        "user root\nlistener 1883\nallow_anonymous true\nlog_type all\nlog_dest stderr\n",
    )
    .unwrap();
    let mut command: Command = world.control.command("mosquitto");
    command.arg("-c").arg(Path::new(&config));
    let daemon = world
        .control
        .spawn_command(&format!("mosquitto-{:?}", world.mode), command)
        .unwrap();
    world
        .control
        .wait_for_tcp(&format!("{SERVER}:1883"), PATIENCE)
        .unwrap();
    daemon
}

#[test]
fn permitted_topics_pass_both_ways_and_others_are_refused_in_order() {
    lab::sandbox::test(
        "mqtt::permitted_topics_pass_both_ways_and_others_are_refused_in_order",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode);
                let broker = broker(lab, &world);
                world.at_gateway(async || {
                    let mut agent = Agent::enforcing(world.plan(&[(1883, telemetry())])).await;
                    let hears = world.begin(
                        &format!("hears-{mode:?}"),
                        "mosquitto_sub",
                        &["-h", SERVER, "-t", "works/+/pressure", "-q", "1", "-v"],
                    );
                    broker.wait_for_log("Sending SUBACK", PATIENCE).unwrap();
                    let publish = |topic: &str, version: &str| {
                        let fixed = ["-h", SERVER, "-q", "1", "-m", "21", "-i", "tank", "-V", version];
                        world.say("mosquitto_pub", &[&fixed[..], &["-t", topic]].concat())
                    };
                    for version in ["311", "5"] {
                        assert_eq!(publish("works/3/pressure", version), "", "{mode:?} {version}");
                    }
                    hears
                        .wait_for_log("works/3/pressure 21\nworks/3/pressure 21", PATIENCE)
                        .unwrap();
                    // Both ends see each other.
                    broker
                        .wait_for_log(&format!("New client connected from {CLIENT}:"), PATIENCE)
                        .unwrap();
                    let paho = |version: &str, topic: &str| {
                        world.say(python(), &[&peer("mqtt_client.py"), version, SERVER, topic])
                    };
                    for version in ["311", "5"] {
                        assert_eq!(paho(version, "works/4/pressure"), "Success", "{mode:?} {version}");
                    }
                    hears
                        .wait_for_log("works/4/pressure 7\nworks/4/pressure 7", PATIENCE)
                        .unwrap();
                    assert_eq!(paho("5", "works/3/valve"), "Not authorized", "{mode:?}");
                    let seen = agent.until(|seen| seen.decision == Some(Decision::Deny)).await;
                    assert_eq!(seen.last().unwrap().text, "publish works/3/valve at QoS 1");
                    let refused = world.say(
                        "mosquitto_sub",
                        &["-h", SERVER, "-t", "#", "-W", "5", "-C", "1", "-i", "greedy"],
                    );
                    assert!(refused.to_lowercase().contains("subscri"), "{mode:?}: {refused}");
                    assert!(!broker.log().contains("works/3/valve"), "{}", broker.log());
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn a_subscribe_with_one_forbidden_topic_brings_the_others() {
    lab::sandbox::test(
        "mqtt::a_subscribe_with_one_forbidden_topic_brings_the_others",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode);
                let broker = broker(lab, &world);
                world.at_gateway(async || {
                    let mut agent = Agent::enforcing(world.plan(&[(1883, telemetry())])).await;
                    for (version, refused) in [("311", 128), ("5", 135)] {
                        let id = format!("three-{version}");
                        let hears = world.begin(
                            &format!("{id}-{mode:?}"),
                            "mosquitto_sub",
                            &[
                                "-d",
                                "-v",
                                "-h",
                                SERVER,
                                "-V",
                                version,
                                "-i",
                                &id,
                                "-t",
                                "works/1/pressure",
                                "-t",
                                "other/#",
                                "-t",
                                "works/2/pressure",
                            ],
                        );
                        broker
                            .wait_for_log(&format!("Sending SUBACK to {id}"), PATIENCE)
                            .unwrap();
                        let log = broker.log();
                        for topic in ["works/1/pressure", "works/2/pressure"] {
                            assert!(log.contains(&format!("{id} 0 {topic}")), "{mode:?}: {log}");
                        }
                        assert!(!log.contains("other/#"), "{mode:?}: {log}");
                        // Both bring messages.
                        for topic in ["works/1/pressure", "works/2/pressure"] {
                            let said = world.say("mosquitto_pub", &["-h", SERVER, "-t", topic, "-m", "21"]);
                            assert_eq!(said, "", "{mode:?} {version}");
                            hears.wait_for_log(&format!("{topic} 21"), PATIENCE).unwrap();
                        }
                        // One code for each filter, in the client's order.
                        let codes = format!("Subscribed (mid: 1): 0, {refused}, 0");
                        assert!(hears.log().contains(&codes), "{mode:?}: {}", hears.log());
                        let paho = |topics: &[&str]| {
                            let script = peer("mqtt_subscriber.py");
                            world.say(python(), &[&[&*script, version, SERVER], topics].concat())
                        };
                        let not = if version == "5" {
                            "Not authorized"
                        } else {
                            "Unspecified error"
                        };
                        let granted = "Granted QoS 1";
                        assert_eq!(
                            paho(&["$SYS/#", "works/3/pressure", "#"]),
                            format!("{not}, {granted}, {not}"),
                            "{mode:?} {version}"
                        );
                        assert_eq!(paho(&["#", "x"]), format!("{not}, {not}"), "{mode:?} {version}");
                    }
                    assert!(!broker.log().contains("paho 1 #"), "{}", broker.log());
                    let told = agent
                        .until(|seen| seen.text == "subscribe other/# at QoS 0")
                        .await;
                    assert_eq!(told.last().unwrap().decision, Some(Decision::Deny));
                });
            }
        },
    )
    .unwrap();
}
