//! Whether the rules stood while no agent watched them.

use std::path::Path;

use penstock_agent::enforce::nft::run::Nft;
use penstock_agent::enforce::{DriftState, EnforceSettings};
use penstock_agent::observed::{ConditionStep, Observation};
use penstock_lab as lab;
use penstock_policy::ids::Revision;
use penstock_policy::terms::GatewayMode;

use super::plans::{SIDES, two_flows};
use super::world::{Agent, World, settings};

fn noted(folder: &Path) -> EnforceSettings {
    EnforceSettings {
        base_path: Some(folder.join("base.json")),
        note_path: Some(folder.join("left.json")),
        ..settings()
    }
}

/// What an agent that starts now finds: the alarm, or the step of a quiet start.
async fn found(folder: &Path, mode: GatewayMode) -> (Agent, Result<&'static str, String>) {
    let mut agent = Agent::start_with(noted(folder));
    agent.apply(&two_flows(mode), 1).await;
    let seen = agent
        .observe_until(|seen| matches!(seen, Observation::Condition(_) | Observation::Start { .. }))
        .await;
    let found = seen.into_iter().find_map(|seen| match seen {
        Observation::Condition(seen) => {
            assert_eq!(seen.step, ConditionStep::Found);
            assert!(
                seen.condition.alarm && seen.first_ms > 0 && seen.first_ms <= seen.last_ms,
                "{seen:?}"
            );
            Some(Err(seen.condition.message))
        }
        Observation::Start { step, .. } => Some(Ok(step)),
        _ => None,
    });
    (agent, found.unwrap())
}

async fn nft(script: &str) {
    Nft::new("nft".into()).load(script).await.unwrap();
}

#[test]
fn a_gateway_that_was_opened_by_hand_while_its_agent_was_stopped_says_so_and_a_restart_does_not() {
    lab::sandbox::test(
        "stood::a_gateway_that_was_opened_by_hand_while_its_agent_was_stopped_says_so_and_a_restart_does_not",
        |lab| {
            for mode in [GatewayMode::Routed, GatewayMode::Bridged] {
                let world = World::new(lab, mode, &SIDES);
                let folder = tempfile::tempdir().unwrap();
                world.at_gateway(async || {
                    let first = Agent::start_with(noted(folder.path()));
                    first.apply(&two_flows(mode), 1).await;
                    assert_eq!(first.enforcer.stood_open(), None, "a first start is no opening");
                    first.enforcer.leave().await.unwrap();
                    drop(first);

                    let (agent, how) = found(folder.path(), mode).await;
                    assert_eq!(how, Ok("rules-stood"), "{mode:?}: a planned restart");
                    agent.enforcer.leave().await.unwrap();
                    drop(agent);

                    nft("delete table inet penstock\n").await;
                    let (agent, how) = found(folder.path(), mode).await;
                    let message = how.unwrap_err();
                    assert!(
                        message.contains("removed") && message.contains("between"),
                        "{mode:?}: {message}"
                    );
                    assert_eq!(
                        agent.enforcer.stood_open().unwrap().message,
                        message,
                        "in health, too"
                    );
                    agent.enforcer.leave().await.unwrap();
                    drop(agent);

                    let (agent, how) = found(folder.path(), mode).await;
                    assert_eq!(how, Ok("rules-stood"), "{mode:?}: it was said once");
                    assert!(
                        agent.enforcer.stood_open().is_some(),
                        "health shows it through a restart"
                    );
                    agent.enforcer.leave().await.unwrap();
                    drop(agent);

                    // A flow more, while nobody looks.
                    nft("add element inet penstock exact4 { 10.1.0.5 . 10.2.0.9 . tcp . 22 : 7 }\n").await;
                    let (agent, how) = found(folder.path(), mode).await;
                    assert!(how.unwrap_err().contains("changed"), "{mode:?}");
                    drop(agent);
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn an_agent_that_was_killed_finds_its_rules_as_it_left_them_or_says_that_they_are_gone() {
    lab::sandbox::test(
        "stood::an_agent_that_was_killed_finds_its_rules_as_it_left_them_or_says_that_they_are_gone",
        |lab| {
            let mode = GatewayMode::Routed;
            let world = World::new(lab, mode, &SIDES);
            let folder = tempfile::tempdir().unwrap();
            world.at_gateway(async || {
                let killed = Agent::start_with(noted(folder.path()));
                killed.apply(&two_flows(mode), 1).await;
                let note = folder.path().join("left.json");
                let begun = std::time::Instant::now();
                while !note.exists() && begun.elapsed() < super::world::PATIENCE {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                drop(killed);
                let (agent, how) = found(folder.path(), mode).await;
                assert_eq!(how, Ok("rules-stood"));
                drop(agent);
                nft("delete table inet penstock\n").await;
                let (_agent, how) = found(folder.path(), mode).await;
                assert!(how.unwrap_err().contains("removed"));
            });
        },
    )
    .unwrap();
}

/// Takes a rule away and puts it back: the same content, under another handle.
async fn put_back(world: &World) {
    let listed = world
        .gateway
        .run("nft", &["-a", "list", "table", "inet", "penstock"]);
    let listed = listed.unwrap();
    let (mut chain, mut last) = ("", None);
    for line in listed.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.split(' ').next().unwrap();
        }
        if let ("}", Some(handle)) = (line, last) {
            return nft(&format!(
                "delete rule inet penstock {chain} handle {handle}\nadd rule inet penstock {chain} accept\n"
            ))
            .await;
        }
        last = line.strip_prefix("accept # handle ");
    }
    panic!("no chain ends with such a rule: {listed}");
}

#[test]
fn rules_that_were_put_back_under_a_living_agent_are_no_opening_and_under_a_killed_one_they_are() {
    lab::sandbox::test(
        "stood::rules_that_were_put_back_under_a_living_agent_are_no_opening_and_under_a_killed_one_they_are",
        |lab| {
            let mode = GatewayMode::Routed;
            let world = World::new(lab, mode, &SIDES);
            let folder = tempfile::tempdir().unwrap();
            world.at_gateway(async || {
                let mut living = Agent::start_with(noted(folder.path()));
                living.apply(&two_flows(mode), 1).await;
                put_back(&world).await;
                let is_told = |seen: &Observation| {
                    matches!(seen, Observation::Drift { message, .. } if message.contains("hold what the plan says again"))
                };
                living.observe_until(is_told).await;
                living.enforcer.leave().await.unwrap();
                drop(living);
                let (killed, how) = found(folder.path(), mode).await;
                assert_eq!(how, Ok("rules-stood"), "the agent saw it itself");

                let note = folder.path().join("left.json");
                let begun = std::time::Instant::now();
                while !std::fs::read_to_string(&note).unwrap().contains("\"ended\":false") {
                    assert!(begun.elapsed() < super::world::PATIENCE);
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                drop(killed);
                put_back(&world).await;
                let (_agent, how) = found(folder.path(), mode).await;
                assert!(how.unwrap_err().contains("put back"));
            });
        },
    )
    .unwrap();
}

#[test]
fn what_was_opened_by_hand_is_told_although_the_first_plan_could_not_be_loaded() {
    lab::sandbox::test(
        "stood::what_was_opened_by_hand_is_told_although_the_first_plan_could_not_be_loaded",
        |lab| {
            let mode = GatewayMode::Routed;
            let world = World::new(lab, mode, &SIDES);
            let folder = tempfile::tempdir().unwrap();
            world.at_gateway(async || {
                let first = Agent::start_with(noted(folder.path()));
                first.apply(&two_flows(mode), 1).await;
                first.enforcer.leave().await.unwrap();
                drop(first);
                nft("add rule inet penstock forward accept\n").await;
                let plan = std::sync::Arc::new(two_flows(mode));
                let failing = EnforceSettings {
                    nft: "/bin/false".into(),
                    ..noted(folder.path())
                };
                let hindered = Agent::start_with(failing);
                for revision in [1, 2] {
                    let applied = hindered.enforcer.apply(plan.clone(), Revision(revision)).await;
                    assert!(applied.is_err());
                }
                drop(hindered);
                let (_agent, how) = found(folder.path(), mode).await;
                assert!(how.unwrap_err().contains("changed"));
            });
        },
    )
    .unwrap();
}

#[test]
fn the_head_of_the_trail_that_the_kernel_keeps_is_found_by_the_next_agent_and_disturbs_neither_rules_nor_drift_nor_counters()
 {
    lab::sandbox::test(
        "stood::the_head_of_the_trail_that_the_kernel_keeps_is_found_by_the_next_agent_and_disturbs_neither_rules_nor_drift_nor_counters",
        |lab| {
            for mode in [GatewayMode::Routed, GatewayMode::Bridged] {
                let world = World::new(lab, mode, &SIDES);
                let folder = tempfile::tempdir().unwrap();
                world.at_gateway(async || {
                    let first = Agent::start_with(noted(folder.path()));
                    assert!(!first.enforcer.keep_head("nothing").await.unwrap(), "nothing of ours is there");
                    first.apply(&two_flows(mode), 1).await;
                    assert_eq!(first.enforcer.kept_head().await.unwrap(), None);
                    let rules = || {
                        let listed = world.gateway.run("nft", &["-a", "list", "table", "inet", "penstock"]);
                        // How long an element has still to live is another at each look.
                        let lines = listed.unwrap();
                        let lines = lines.lines().map(|line| line.split(" expires ").next().unwrap().to_owned());
                        lines.collect::<Vec<String>>()
                    };
                    let before = rules();
                    for head in ["penstock trail 3 7 AAAA+/==", "penstock trail 3 9 BBBB+/=="] {
                        assert!(first.enforcer.keep_head(head).await.unwrap());
                        assert_eq!(first.enforcer.kept_head().await.unwrap().as_deref(), Some(head));
                        assert_eq!(first.enforcer.verify().await.unwrap(), DriftState::None, "{mode:?}");
                    }
                    assert_eq!(rules(), before, "{mode:?}: the same rules under the same handles");
                    // A change of the policy leaves it, and it leaves the quick way to a change.
                    first.apply(&two_flows(mode), 2).await;
                    first.enforcer.leave().await.unwrap();
                    drop(first);
                    let (next, how) = found(folder.path(), mode).await;
                    assert_eq!(how, Ok("rules-stood"), "{mode:?}");
                    let kept = next.enforcer.kept_head().await.unwrap();
                    assert_eq!(kept.as_deref(), Some("penstock trail 3 9 BBBB+/=="));
                });
            }
        },
    )
    .unwrap();
}
