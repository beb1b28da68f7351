//! What keeps packets from crossing beside the rules, and must-flows that fall silent: noticed within seconds, and over when it is.

use std::time::{Duration, Instant};

use penstock_agent::enforce::{EnforceSettings, Pace};
use penstock_agent::observed::{Condition, ConditionStep, Observation};
use penstock_lab as lab;
use penstock_policy::terms::GatewayMode;
use penstock_policy::verdict::Carried;
use penstock_tests::at_once;

use super::plans::{SIDES, two_flows};
use super::wire::{Part, Probe};
use super::world::{Agent, MODES, PATIENCE, World, settings};

/// Waits for a condition with these words, or until there is none.
async fn wait_for(agent: &Agent, words: &str, is: bool) -> Option<Condition> {
    let found = within(agent, words, is, PATIENCE).await;
    found.unwrap_or_else(|there| panic!("{words}, {is}: {there:?}"))
}

/// The same for so long; then what there is instead.
async fn within(
    agent: &Agent,
    words: &str,
    is: bool,
    patience: Duration,
) -> Result<Option<Condition>, Vec<Condition>> {
    let begun = Instant::now();
    loop {
        let there = agent.enforcer.conditions();
        let found = there.iter().find(|one| one.message.contains(words));
        if found.is_some() == is {
            return Ok(found.cloned());
        }
        if begun.elapsed() > patience {
            return Err(there);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn whatever_keeps_a_gateway_from_passing_anything_is_a_fault_within_seconds_and_over_when_it_is_mended() {
    lab::sandbox::test(
        "passage::whatever_keeps_a_gateway_from_passing_anything_is_a_fault_within_seconds_and_over_when_it_is_mended",
        |lab| {
            let worlds = MODES.map(|mode| World::new(lab, mode, &SIDES));
            at_once(&worlds, |world| {
                let mode = world.mode;
                let gateway = &world.gateway;
                let mut plan = two_flows(mode);
                plan.rules[0].must_flow = true;
                world.at_gateway(async || {
                    let mut agent = Agent::start();
                    let ip = |words: &str| {
                        gateway.ip(&words.split(' ').collect::<Vec<_>>()).unwrap();
                    };
                    if mode == GatewayMode::Routed {
                        gateway.address("lan2", "10.2.0.1/24").unwrap();
                    }
                    agent.apply(&plan, 1).await;
                    assert_eq!(agent.enforcer.conditions(), [], "{mode:?}: all is well");
                    let sysctl = |parameter: &str, value: &str| gateway.sysctl(parameter, value).unwrap();
                    let told = |step| {
                        move |o: &Observation| {
                            matches!(o, Observation::Condition(seen) if seen.step == step && seen.condition.code == "no-carrier")
                        }
                    };
                    type Case<'a> = (&'a str, &'a str, Box<dyn Fn() + 'a>, Box<dyn Fn() + 'a>);
                    let other_end = &world.sides["lan2"].namespace;
                    let mut cases: Vec<Case<'_>> = vec![
                        (
                            "no-carrier",
                            "lan2 has no carrier",
                            Box::new(|| drop(other_end.ip(&["link", "set", "eth0", "down"]).unwrap())),
                            Box::new(|| drop(other_end.ip(&["link", "set", "eth0", "up"]).unwrap())),
                        ),
                        (
                            "link-down",
                            "lan2 is switched off",
                            Box::new(|| ip("link set lan2 down")),
                            Box::new(|| ip("link set lan2 up")),
                        ),
                    ];
                    match mode {
                        GatewayMode::Routed => cases.extend::<Vec<Case<'_>>>(vec![
                            (
                                "forwarding-off",
                                "net.ipv4.ip_forward is 0",
                                Box::new(|| sysctl("net.ipv4.ip_forward", "0")),
                                Box::new(|| sysctl("net.ipv4.ip_forward", "1")),
                            ),
                            (
                                "forwarding-off",
                                "net.ipv4.conf.lan2.forwarding",
                                Box::new(|| sysctl("net.ipv4.conf.lan2.forwarding", "0")),
                                Box::new(|| sysctl("net.ipv4.conf.lan2.forwarding", "1")),
                            ),
                            (
                                "forwarding-off",
                                "net.ipv6.conf.all.forwarding",
                                Box::new(|| sysctl("net.ipv6.conf.all.forwarding", "0")),
                                Box::new(|| sysctl("net.ipv6.conf.all.forwarding", "1")),
                            ),
                            (
                                "address-changed",
                                "10.2.0.1",
                                Box::new(|| ip("addr del 10.2.0.1/24 dev lan2")),
                                Box::new(|| ip("addr add 10.2.0.1/24 dev lan2")),
                            ),
                            (
                                "interface-missing",
                                "called enp9",
                                Box::new(|| {
                                    for step in ["link set lan2 down", "link set lan2 name enp9", "link set enp9 up"] {
                                        ip(step);
                                    }
                                }),
                                Box::new(|| {
                                    for step in ["link set enp9 down", "link set enp9 name lan2", "link set lan2 up"] {
                                        ip(step);
                                    }
                                }),
                            ),
                        ]),
                        GatewayMode::Bridged => cases.push((
                            "not-bridged",
                            "port lan2 is in no bridge",
                            Box::new(|| ip("link set lan2 nomaster")),
                            Box::new(|| ip("link set lan2 master br0")),
                        )),
                    }
                    for (code, words, breaks, mends) in cases {
                        breaks();
                        let found = wait_for(&agent, words, true).await.unwrap();
                        assert_eq!(found.code, code, "{mode:?}: {found:?}");
                        assert!(found.alarm, "a must-flow stands still: {found:?}");
                        assert_eq!(found.flows[0], "conduit7/flow7", "{found:?}");
                        if code == "no-carrier" {
                            agent.observe_until(told(ConditionStep::Began)).await;
                        }
                        mends();
                    }
                    agent.observe_until(told(ConditionStep::Ended)).await;
                    wait_for(&agent, "", false).await;
                });
            });
        },
    )
    .unwrap();
}

#[test]
fn a_must_flow_that_fell_silent_is_a_fault_until_it_goes_on_and_one_that_never_spoke_is_none() {
    lab::sandbox::test(
        "passage::a_must_flow_that_fell_silent_is_a_fault_until_it_goes_on_and_one_that_never_spoke_is_none",
        |lab| {
            let mode = GatewayMode::Routed;
            let world = World::new(lab, mode, &SIDES);
            let mut plan = two_flows(mode);
            for rule in &mut plan.rules {
                rule.must_flow = true;
            }
            let probe = Probe {
                source: "10.1.0.5".parse().unwrap(),
                destination: "10.2.0.9".parse().unwrap(),
                transport: Carried::Udp(4050),
                number: 9,
                dscp: 0,
            };
            world.at_gateway(async || {
                let agent = Agent::start_with(EnforceSettings {
                    pace: Pace {
                        beats_min: 3,
                        learned_min: Duration::from_secs(1),
                        silent_min: Duration::from_secs(2),
                    },
                    ..settings()
                });
                agent.apply(&plan, 1).await;
                let polls = async |count: usize| {
                    for _ in 0..count {
                        assert!(world.passes("lan1", "lan2", &probe, Part::Opening, true));
                        tokio::time::sleep(Duration::from_millis(250)).await;
                    }
                };
                // On a busy machine the agent looks more seldom, and has no rhythm to go by yet.
                let begun = Instant::now();
                let found = loop {
                    polls(14).await;
                    let silent = "must-flow conduit8/flow8 carries";
                    match within(&agent, silent, true, PATIENCE / 3).await {
                        Ok(found) => break found.unwrap(),
                        Err(there) => assert!(begun.elapsed() < 4 * PATIENCE, "{there:?}"),
                    }
                };
                assert_eq!(
                    found.flows,
                    ["conduit8/flow8"],
                    "by the kernel's own counter of a range: {found:?}"
                );
                polls(4).await;
                wait_for(&agent, "", false).await;
            });
        },
    )
    .unwrap();
}
