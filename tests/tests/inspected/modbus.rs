//! Modbus clients of several stacks before a pymodbus controller.

use penstock_lab as lab;
use penstock_policy::plan::Observing;
use penstock_policy::verdict::Decision;

use super::world::{Agent, CLIENT, MODES, SERVER, SERVER6, World, polling};

#[test]
fn what_is_permitted_works_and_what_is_not_is_an_error_that_each_stack_understands() {
    lab::sandbox::test(
        "modbus::what_is_permitted_works_and_what_is_not_is_an_error_that_each_stack_understands",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode);
                let _plc = world.plc(SERVER);
                world.at_gateway(async || {
                    let mut agent = Agent::enforcing(world.plan(&[(502, polling())])).await;
                    for stack in ["pymodbus", "umodbus"] {
                        let ask = |verb: &[&str]| {
                            let [first, rest @ ..] = verb else { unreachable!() };
                            world.modbus(&[&[stack, *first, SERVER], rest].concat())
                        };
                        assert_eq!(ask(&["read", "7"]), "1007", "{mode:?} {stack}");
                        assert_eq!(ask(&["write", "40", "5"]), "5", "{mode:?} {stack}");
                        assert_eq!(ask(&["read", "40"]), "5", "{mode:?} {stack}");
                        // 2, illegal data address: the function is permitted, elsewhere.
                        assert_eq!(ask(&["write", "50", "5"]), "exception 2", "{mode:?} {stack}");
                        assert_eq!(ask(&["read", "50"]), "1050", "{mode:?} {stack}");
                    }
                    // libmodbus, by mbpoll; it counts from 1.
                    let mbpoll = |more: &[&str]| {
                        world.say(
                            "mbpoll",
                            &[&["-m", "tcp", "-1", "-o", "3", SERVER], more].concat(),
                        )
                    };
                    let read = mbpoll(&["-r", "8", "-c", "1"]);
                    assert!(read.contains("1007"), "{mode:?}: {read}");
                    let refused = mbpoll(&["-r", "8", "9"]);
                    assert!(refused.contains("Illegal data address"), "{mode:?}: {refused}");
                    let seen = agent
                        .until(|seen| seen.text == "write-single-register 7 of unit 1")
                        .await;
                    let refused = seen.last().unwrap();
                    assert_eq!(refused.decision, Some(Decision::Deny));
                    assert_eq!(refused.flow.as_ref().unwrap().name, "supply/flow-1");
                    assert_eq!(
                        (refused.client.to_string(), refused.client_name.as_str()),
                        (CLIENT.to_owned(), "hmi")
                    );
                    assert_eq!(refused.server_name, "plc");
                    assert!(refused.reason.contains("40-49"), "{}", refused.reason);
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn ipv6_is_inspected_alike() {
    lab::sandbox::test("modbus::ipv6_is_inspected_alike", |lab| {
        for mode in MODES {
            let world = World::new(lab, mode);
            let _plc = world.plc(SERVER6);
            world.at_gateway(async || {
                let _agent = Agent::enforcing(world.plan(&[(502, polling())])).await;
                assert_eq!(
                    world.modbus(&["pymodbus", "read", SERVER6, "7"]),
                    "1007",
                    "{mode:?}"
                );
                let refused = world.modbus(&["pymodbus", "write", SERVER6, "7", "1"]);
                assert_eq!(refused, "exception 2", "{mode:?}");
            });
        }
    })
    .unwrap();
}

#[test]
fn zones_that_observe_let_everything_pass_and_the_trail_says_what_would_be_refused() {
    lab::sandbox::test(
        "modbus::zones_that_observe_let_everything_pass_and_the_trail_says_what_would_be_refused",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode);
                let _plc = world.plc(SERVER);
                let mut plan = world.plan(&[(502, polling())]);
                for interface in &mut plan.interfaces {
                    interface.observing = Observing::Everything;
                }
                world.at_gateway(async || {
                    let mut agent = Agent::enforcing(plan).await;
                    assert_eq!(
                        world.modbus(&["pymodbus", "write", SERVER, "7", "9"]),
                        "9",
                        "{mode:?}"
                    );
                    assert_eq!(world.modbus(&["pymodbus", "read", SERVER, "7"]), "9", "{mode:?}");
                    let seen = agent
                        .until(|seen| seen.decision == Some(Decision::WouldDeny))
                        .await;
                    assert_eq!(seen.last().unwrap().text, "write-single-register 7 of unit 1");
                });
            }
        },
    )
    .unwrap();
}
