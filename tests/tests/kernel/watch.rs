//! What the agent notices, tells and survives: foreign changes, its own restart, a failing `nft`, the boot before it.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;

use penstock_agent::enforce::nft::readback::RulesetReader;
use penstock_agent::enforce::nft::run::Nft;
use penstock_agent::enforce::{ApplyMethod, Base, DriftState, EnforceError, EnforceSettings, NftError};
use penstock_agent::intercept::InspectorPorts;
use penstock_agent::observed::{DriftStep, Observation, REPORT_AFTER};
use penstock_lab as lab;
use penstock_policy::ids::{FlowId, Revision};
use penstock_policy::terms::{GatewayMode, OnAgentLoss, OnDrift};
use penstock_policy::verdict::{Carried, Decision};

use super::inspected::{inspected, with_ports};
use super::plans::{SIDES, observing, plan, rule, tcp, two_flows};
use super::wire::{Part, Probe};
use super::world::{Agent, MODES, World, settings};

fn probe(port: u16, number: u16) -> Probe {
    let (source, destination) = ("10.1.0.5".parse().unwrap(), "10.2.0.9".parse().unwrap());
    Probe {
        source,
        destination,
        transport: Carried::Tcp(port),
        number,
        dscp: 0,
    }
}

/// Ways in which somebody may interfere.
const INTERFERENCE: [&str; 7] = [
    "delete element inet penstock exact4 { 10.1.0.5 . 10.2.0.9 . tcp . 502 }",
    "add element inet penstock exact4 { 10.1.0.5 . 10.2.0.9 . tcp . 22 : 7 }",
    "insert rule inet penstock forward accept",
    "flush chain inet penstock miss",
    "add element inet penstock guarded { \"eth7\" }",
    "delete table inet penstock",
    "flush ruleset",
];

#[test]
fn a_foreign_change_is_seen_at_once_and_repaired() {
    lab::sandbox::test("watch::a_foreign_change_is_seen_at_once_and_repaired", |lab| {
        for mode in MODES {
            let world = World::new(lab, mode, &SIDES);
            world.at_gateway(async || {
                let mut agent = Agent::start();
                agent.apply(&two_flows(mode), 1).await;
                for (number, script) in (100..).zip(INTERFERENCE) {
                    if script == "flush ruleset" && mode == GatewayMode::Routed {
                        continue; // It would take the lab's own routing with it.
                    }
                    let nft = Nft::new("nft".into());
                    nft.load(&format!("{script}\n")).await.unwrap();
                    let seen = agent
                        .observe_until(|o| {
                            matches!(
                                o,
                                Observation::Drift {
                                    step: DriftStep::Repaired,
                                    ..
                                }
                            )
                        })
                        .await;
                    let found = seen.iter().find(|o| {
                        matches!(
                            o,
                            Observation::Drift {
                                step: DriftStep::Found,
                                ..
                            }
                        )
                    });
                    let Some(Observation::Drift {
                        process: Some(process),
                        ..
                    }) = found
                    else {
                        panic!("{script}: {seen:?}")
                    };
                    assert!(process.starts_with("nft["), "{process}");
                    assert_eq!(
                        agent.enforcer.verify().await.unwrap(),
                        DriftState::None,
                        "{script}"
                    );
                    assert!(
                        world.passes("lan1", "lan2", &probe(502, number), Part::Opening, true),
                        "{script}"
                    );
                    assert!(
                        !world.passes("lan1", "lan2", &probe(22, number), Part::Opening, false),
                        "{script}"
                    );
                }
            });
        }
    })
    .unwrap();
}

#[test]
fn drift_is_only_reported_where_the_plan_says_so_and_foreign_tables_are_no_drift() {
    lab::sandbox::test(
        "watch::drift_is_only_reported_where_the_plan_says_so_and_foreign_tables_are_no_drift",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed, &SIDES);
            world.at_gateway(async || {
                let mut agent = Agent::start();
                let mut plan = two_flows(GatewayMode::Routed);
                plan.on_drift = OnDrift::Report;
                agent.apply(&plan, 1).await;
                let nft = Nft::new("nft".into());
                nft.load("add table inet somebody\nadd chain inet somebody else\n")
                    .await
                    .unwrap();
                nft.load("add element inet penstock exact4 { 10.1.0.5 . 10.2.0.9 . tcp . 22 : 7 }\n")
                    .await
                    .unwrap();
                let seen = agent
                    .observe_until(|o| matches!(o, Observation::Drift { .. }))
                    .await;
                assert_eq!(seen.len(), 1, "the other table is none of our business: {seen:?}");
                assert!(
                    world.passes("lan1", "lan2", &probe(22, 1), Part::Opening, true),
                    "left as it is"
                );
                assert!(matches!(
                    agent.enforcer.verify().await.unwrap(),
                    DriftState::Present(_)
                ));
                // The next plan's differences find the kernel as it should not be; it is right afterwards.
                plan.on_drift = OnDrift::Repair;
                plan.rules.push(rule(9, &["10.1.0.5"], &["10.2.0.9"], tcp(23)));
                agent.apply(&plan, 2).await;
                assert_eq!(agent.enforcer.verify().await.unwrap(), DriftState::None);
                assert!(!world.passes("lan1", "lan2", &probe(22, 2), Part::Opening, false));
            });
        },
    )
    .unwrap();
}

#[test]
fn an_agent_that_comes_back_leaves_the_kernel_as_it_is() {
    lab::sandbox::test(
        "watch::an_agent_that_comes_back_leaves_the_kernel_as_it_is",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                world.at_gateway(async || {
                    let plan = two_flows(mode);
                    let agent = Agent::start();
                    assert_eq!(agent.apply(&plan, 1).await.change, ApplyMethod::Whole);
                    assert!(world.passes("lan1", "lan2", &probe(502, 1), Part::Opening, true));
                    drop(agent);
                    assert!(
                        world.passes("lan1", "lan2", &probe(502, 1), Part::Answer, true),
                        "without an agent"
                    );
                    let generation = || RulesetReader::open().unwrap().generation().unwrap();
                    let before = generation();
                    let agent = Agent::start();
                    assert_eq!(agent.apply(&plan, 1).await.change, ApplyMethod::Adopted);
                    assert_eq!(generation(), before, "something was written");
                    let counters = agent.enforcer.counters().await.unwrap();
                    assert_eq!(counters.allowed_packets, 2, "counters go on");
                    // Differences work on what was adopted. On a bridge it also changes who need find whom.
                    let mut fewer = plan.clone();
                    fewer.rules.remove(0);
                    let change = match mode {
                        GatewayMode::Routed => ApplyMethod::Differences,
                        GatewayMode::Bridged => ApplyMethod::Restructured,
                    };
                    assert_eq!(agent.apply(&fewer, 2).await.change, change);
                    assert!(!world.passes("lan1", "lan2", &probe(502, 1), Part::Data, false));
                    drop(agent);
                    // What differences and other rules led to is adopted as well.
                    let agent = Agent::start();
                    assert_eq!(
                        agent.apply(&fewer, 2).await.change,
                        ApplyMethod::Adopted,
                        "after differences"
                    );
                    let other = observing(plan.clone(), &["lan3"]);
                    assert_eq!(agent.apply(&other, 3).await.change, ApplyMethod::Restructured);
                    drop(agent);
                    let agent = Agent::start();
                    assert_eq!(
                        agent.apply(&other, 3).await.change,
                        ApplyMethod::Adopted,
                        "after other rules"
                    );
                    assert_eq!(agent.apply(&fewer, 4).await.change, ApplyMethod::Restructured);
                    drop(agent);
                    // What was interfered with meanwhile is not.
                    let script = "add element inet penstock exact4 { 10.1.0.5 . 10.2.0.9 . tcp . 22 : 7 }\n";
                    Nft::new("nft".into()).load(script).await.unwrap();
                    let agent = Agent::start();
                    assert_eq!(agent.apply(&fewer, 2).await.change, ApplyMethod::Whole);
                    assert!(!world.passes("lan1", "lan2", &probe(22, 2), Part::Opening, false));
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn a_missing_or_failing_nft_leaves_the_state_as_before() {
    lab::sandbox::test("watch::a_missing_or_failing_nft_leaves_the_state_as_before", |lab| {
        let world = World::new(lab, GatewayMode::Routed, &SIDES);
        let failing = lab.directory().join("nft");
        world.at_gateway(async || {
            let plan = two_flows(GatewayMode::Routed);
            let wrapper = |body: &str| {
                std::fs::write(&failing, format!("#!/bin/sh\n{body}\n")).unwrap();
                std::fs::set_permissions(&failing, std::fs::Permissions::from_mode(0o755)).unwrap();
            };
            wrapper("exec nft \"$@\"");
            let agent = Agent::start_with(EnforceSettings { nft: failing.clone(), ..settings() });
            agent.apply(&plan, 1).await;
            let mut next = plan.clone();
            next.rules.remove(0);
            let mut wider = plan.clone();
            wider.interfaces[0].networks.push("10.9.0.0/24".parse().unwrap());
            let apply = async |plan: &penstock_policy::plan::Plan| {
                agent.enforcer.apply(std::sync::Arc::new(plan.clone()), Revision(2)).await
            };
            wrapper("cat >/dev/null; echo 'Error: out of memory' >&2; exit 1");
            let error = apply(&wider).await.unwrap_err();
            assert!(matches!(&error, EnforceError::Kernel(NftError::Refused { complaint, .. }) if complaint.contains("out of memory")), "{error:?}");
            std::fs::remove_file(&failing).unwrap();
            let error = apply(&wider).await.unwrap_err();
            assert!(matches!(error, EnforceError::Kernel(NftError::Missing { .. })), "{error:?}");
            assert!(error.to_string().contains("not loaded"), "{error}");
            assert_eq!(agent.enforcer.verify().await.unwrap(), DriftState::None);
            assert!(world.passes("lan1", "lan2", &probe(502, 1), Part::Opening, true));
            // A revocation does not need the program.
            assert_eq!(apply(&next).await.unwrap().change, ApplyMethod::Differences);
            assert!(!world.passes("lan1", "lan2", &probe(502, 1), Part::Data, false));
            assert_eq!(agent.enforcer.verify().await.unwrap(), DriftState::None);
        });
    })
    .unwrap();
}

#[test]
fn a_kernel_that_cannot_inspect_is_told_in_our_words_with_flow_and_module_and_other_plans_go_on() {
    lab::sandbox::test(
        "watch::a_kernel_that_cannot_inspect_is_told_in_our_words_with_flow_and_module_and_other_plans_go_on",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed, &SIDES);
            let lacking = lab.directory().join("nft");
            // As nft answers where the kernel was built without it: it quotes the line and marks the place.
            let script = r#"#!/bin/sh
                script=$(cat)
                line=$(printf '%s\n' "$script" | grep -m1 tproxy)
                if [ -z "$line" ]; then printf '%s\n' "$script" | nft "$@"; exit; fi
                before=${line%%tproxy*}
                printf '/dev/stdin:9:18-23: Error: Could not process rule: No such file or directory\n%s\n%*s^^^^^^\n' \
                    "$line" "${#before}" '' >&2
                exit 1
            "#;
            std::fs::write(&lacking, script).unwrap();
            std::fs::set_permissions(&lacking, std::fs::Permissions::from_mode(0o755)).unwrap();
            world.at_gateway(async || {
                let ports = InspectorPorts { v4: 8686, v6: 8686 };
                let agent = Agent::start_with(EnforceSettings { nft: lacking.clone(), ..with_ports(ports) });
                agent.apply(&two_flows(GatewayMode::Routed), 1).await;
                let plan = std::sync::Arc::new(inspected(GatewayMode::Routed, OnAgentLoss::Pass));
                let rule = &plan.rules[0];
                let checked = agent.enforcer.check(plan.clone()).await.unwrap_err();
                let applied = agent.enforcer.apply(plan.clone(), Revision(2)).await.unwrap_err();
                for error in [checked, applied] {
                    let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    let flow = format!("{}/{}", rule.conduit, rule.flow);
                    assert!(matches!(&error, EnforceError::NoInterception { flows, .. } if *flows == flow), "{error:?}");
                    assert!(why.contains("lacks `tproxy`") && why.contains("modprobe nft_tproxy"), "{why}");
                }
                assert!(world.passes("lan1", "lan2", &probe(502, 1), Part::Opening, true), "as before");
                let mut next = two_flows(GatewayMode::Routed);
                next.interfaces[0].networks.push("10.9.0.0/24".parse().unwrap());
                assert_eq!(agent.apply(&next, 3).await.change, ApplyMethod::Restructured);
            });
        },
    )
    .unwrap();
}

#[test]
fn the_base_rules_deny_before_the_agent_and_leave_a_living_table_alone() {
    lab::sandbox::test(
        "watch::the_base_rules_deny_before_the_agent_and_leave_a_living_table_alone",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                let base_path = lab.directory().join(format!("base-{mode:?}.json"));
                world.at_gateway(async || {
                    let nft = Nft::new("nft".into());
                    assert_eq!(Base::read(&base_path).unwrap(), None);
                    let agent = Agent::start_with(EnforceSettings {
                        base_path: Some(base_path.clone()),
                        ..settings()
                    });
                    agent.apply(&two_flows(mode), 1).await;
                    let base = Base::read(&base_path).unwrap().unwrap();
                    assert_eq!(
                        base.load(&nft).await.unwrap(),
                        penstock_agent::enforce::ground::base::BaseOutcome::LeftAlone
                    );
                    assert!(world.passes("lan1", "lan2", &probe(502, 1), Part::Opening, true));
                    drop(agent);
                    // The machine boots anew.
                    nft.load(&penstock_agent::enforce::nft::render::remove())
                        .await
                        .unwrap();
                    assert!(
                        world.passes("lan1", "lan2", &probe(22, 2), Part::Opening, true),
                        "nothing guards it"
                    );
                    assert_eq!(
                        base.load(&nft).await.unwrap(),
                        penstock_agent::enforce::ground::base::BaseOutcome::Denying
                    );
                    for port in [22, 502] {
                        assert!(!world.passes("lan1", "lan2", &probe(port, 3), Part::Opening, false));
                    }
                    let agent = Agent::start();
                    agent.apply(&two_flows(mode), 1).await;
                    assert!(world.passes("lan1", "lan2", &probe(502, 4), Part::Opening, true));
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn verdicts_are_told_with_flow_revision_and_reason() {
    lab::sandbox::test("watch::verdicts_are_told_with_flow_revision_and_reason", |lab| {
        for mode in MODES {
            let world = World::new(lab, mode, &SIDES);
            world.at_gateway(async || {
                let mut agent = Agent::start_with(EnforceSettings {
                    // What is told as one has to come within it.
                    report_after: REPORT_AFTER,
                    ..settings()
                });
                let rules = two_flows(mode).rules;
                agent
                    .apply(&observing(plan(mode, rules), &["lan2", "lan3"]), 41)
                    .await;
                for part in [Part::Opening, Part::Answer, Part::Data] {
                    assert!(world.passes("lan1", "lan2", &probe(502, 1), part, true));
                }
                // At once, so that they are told as one.
                let denied = [10, 11, 12, 13, 14].map(|number| {
                    let frame = world.frame("lan1", "lan2", &probe(503, number), Part::Opening);
                    ("lan1".to_owned(), "lan2".to_owned(), frame)
                });
                assert!(world.through(&denied, &HashSet::new()).is_empty());
                let (source, destination) = ("10.2.0.9".parse().unwrap(), "10.3.0.1".parse().unwrap());
                let observed = Probe {
                    source,
                    destination,
                    transport: Carried::Udp(53),
                    number: 20,
                    dscp: 0,
                };
                for part in [Part::Opening, Part::Data, Part::Answer] {
                    assert!(world.passes("lan2", "lan3", &observed, part, true));
                }
                let mut verdicts = Vec::new();
                agent
                    .observe_until(|o| {
                        verdicts.extend(if let Observation::Verdict(v) = o {
                            Some(v.clone())
                        } else {
                            None
                        });
                        verdicts.len() == 3
                    })
                    .await;
                verdicts.sort_by_key(|v| (v.destination, v.port));
                let [allowed, denied, would] = &verdicts[..] else {
                    panic!("{verdicts:?}")
                };
                assert_eq!(
                    (allowed.decision, allowed.flow_id, allowed.count),
                    (Decision::Allow, Some(FlowId(7)), 1)
                );
                assert_eq!(allowed.flow.as_deref(), Some("conduit7/flow7"));
                assert_eq!(
                    (denied.decision, denied.flow_id, denied.count),
                    (Decision::Deny, None, 5)
                );
                assert!(denied.reason.contains("port 503 is not 502"), "{}", denied.reason);
                assert_eq!(
                    (would.decision, would.count, would.port),
                    (Decision::WouldDeny, 1, 53)
                );
                for (verdict, sides) in [
                    (allowed, ("lan1", "lan2")),
                    (denied, ("lan1", "lan2")),
                    (would, ("lan2", "lan3")),
                ] {
                    assert_eq!(
                        (verdict.ingress.as_str(), verdict.egress.as_str()),
                        sides,
                        "{mode:?} {verdict:?}"
                    );
                    assert_eq!(verdict.revision, Revision(41));
                    assert!(verdict.first_ms > 1_600_000_000_000 && verdict.first_ms <= verdict.last_ms);
                }
                let counters = agent.enforcer.counters().await.unwrap();
                assert_eq!(
                    (
                        counters.allowed_packets,
                        counters.denied_packets,
                        counters.would_deny_packets
                    ),
                    (3, 5, 3)
                );
            });
        }
    })
    .unwrap();
}
