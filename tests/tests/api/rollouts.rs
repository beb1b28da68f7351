//! Releases carried to simulated gateways by rollouts, over real connections: wave by wave, halted, frozen, and across restarts of
//! the coordinator.

mod begin;
mod killed;

use std::time::Duration;

use penstock_coordinator::rollout::run::AfterApproval;
use penstock_policy::rollout::{Converge, FORMAT, GateLimits, RolloutPlan, Selector, Span, Wave};
use penstock_proto::refusal::Reason;
use penstock_proto::v1;

use crate::bounds;
use crate::world::{Built, Conduct, People, Simulated, World, built, key, people, refused};

/// A plant of so many gateways, each in front of a control zone of its own. `title` makes documents differ.
fn plant(count: usize, title: &str) -> String {
    let person = |name: &str| {
        format!(
            "    {name}: {{ key: \"{}\" }}\n",
            String::from(key(name).public())
        )
    };
    let mut text = format!(
        "plant: riverside\napprovers:\n  threshold: 1\n  people:\n{}{}sites:\n  works: {{ title: {title}, timezone: UTC }}\ngateways:\n",
        person("bob"),
        person("carol"),
    );
    for n in 1..=count {
        text.push_str(&format!(
            "  gw-{n}:\n    site: works\n    mode: routed\n    interfaces:\n      eth1: {{ zone: operations, address: 10.20.1.{n}/24 }}\n      \
             eth2: {{ zone: control-{n}, address: 10.30.{n}.1/24 }}\n"
        ));
    }
    text.push_str(
        "zones:\n  operations: { title: Operations, kind: operations, networks: [10.20.1.0/24] }\n",
    );
    for n in 1..=count {
        text.push_str(&format!(
            "  control-{n}: {{ title: Control, kind: control, networks: [10.30.{n}.0/24] }}\n"
        ));
    }
    text.push_str("assets:\n  hmi: { zone: operations, address: 10.20.1.200 }\n");
    text
}

/// Of three gateways there is nobody left for the last wave.
fn plan_of_three() -> RolloutPlan {
    let mut plan = plan();
    plan.waves.truncate(2);
    plan
}

/// First `gw-1`, then two, then the rest; nothing is waited for but gateways.
fn plan() -> RolloutPlan {
    let wave = |name: &str, gateways: Selector| Wave {
        name: name.to_owned(),
        gateways,
        per_cell: 10,
        soak: Span::seconds(0),
    };
    let named = |names: &[&str]| Selector::List(names.iter().map(|name| name.parse().unwrap()).collect());
    RolloutPlan {
        format: FORMAT.to_owned(),
        seed: 1,
        start_ms: None,
        shadow: Span::seconds(0),
        trial: Span::seconds(60),
        silence: Span::seconds(30),
        patience: Span::seconds(3600),
        gate: GateLimits { soft_rate: 0.02 },
        converge: Converge { at_once: 10 },
        waves: vec![
            wave("first", named(&["gw-1"])),
            wave("two", named(&["gw-2", "gw-3"])),
            wave("rest", Selector::All),
        ],
    }
}

fn because() -> Option<v1::Because> {
    Some(v1::Because {
        reason: "the valve needs it".to_owned(),
        ticket: "CHG-7".to_owned(),
    })
}

fn start(release: &Built, plan: Option<&RolloutPlan>) -> v1::StartRolloutRequest {
    v1::StartRolloutRequest {
        revision: release.release.statement.revision.0,
        statement_digest: release.digest().0.to_vec().into(),
        plan: plan
            .map(|plan| serde_json::to_vec(plan).unwrap().into())
            .unwrap_or_default(),
        because: because(),
    }
}

fn steer(revision: u64, command: v1::steer_rollout_request::Command) -> v1::SteerRolloutRequest {
    v1::SteerRolloutRequest {
        revision,
        because: because(),
        command: Some(command),
    }
}

async fn waiting() -> (World, People) {
    let world = World::start_with(|config| config.after_approval = AfterApproval::Wait).await;
    let people = people(&world).await;
    (world, people)
}

async fn approve(people: &mut People, release: &Built) {
    people
        .engineer
        .propose_release(release.request.clone())
        .await
        .unwrap();
    people.bob.approve_release(release.approval("bob")).await.unwrap();
}

async fn shown(people: &mut People, revision: u64) -> v1::Rollout {
    look(people, revision).await.unwrap()
}

async fn look(people: &mut People, revision: u64) -> Option<v1::Rollout> {
    let request = v1::WatchRolloutRequest {
        revision,
        once: true,
        gateways: true,
    };
    match people.engineer.watch_rollout(request).await {
        Ok(stream) => stream.into_inner().message().await.unwrap(),
        Err(status) => {
            assert_eq!(status.code(), tonic::Code::NotFound, "{status}");
            None
        }
    }
}

/// Waits until a rollout is at this stage.
async fn reaches(people: &mut People, revision: u64, stage: &str) -> v1::Rollout {
    let mut last = v1::Rollout::default();
    for _ in 0..1500 {
        last = look(people, revision).await.unwrap_or_default();
        if last.stage == stage {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it is {} and not {stage}: {last:?}", last.stage);
}

fn fleet(count: usize, world: &World) -> Vec<Simulated> {
    let mut fleet: Vec<_> = (1..=count)
        .map(|n| Simulated::new(&format!("gw-{n}"), Conduct::Good))
        .collect();
    for gateway in &mut fleet {
        gateway.connect(world);
    }
    fleet
}

/// For a while in which a machine that was wrong would have acted: nothing is hoped to be enough, all of it is looked at.
async fn meanwhile(mut holds: impl FnMut() -> bool) {
    for _ in 0..25 {
        assert!(holds());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until(mut is: impl FnMut() -> bool) {
    bounds::until(async || is().then_some(())).await;
}

async fn all(count: usize, is: impl Fn(usize) -> bool) {
    until(|| (0..count).all(&is)).await;
}

#[tokio::test]
async fn a_rollout_goes_on_from_wave_to_wave_as_gateways_are_confirmed_and_each_gets_the_release_once() {
    let (world, mut people) = waiting().await;
    let fleet = fleet(5, &world);
    let one = built(&plant(5, "One"), 1, None, "anna");
    approve(&mut people, &one).await;
    meanwhile(|| fleet.iter().all(|gateway| gateway.log().is_empty())).await;
    let started = people
        .engineer
        .start_rollout(start(&one, Some(&plan())))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((started.waves, started.started_by.as_str()), (3, "anna"));
    // Asked twice, it is the same one.
    let again = people
        .engineer
        .start_rollout(start(&one, Some(&plan())))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.started_ms, started.started_ms);
    let done = reaches(&mut people, 1, "completed").await;
    assert_eq!(done.counts["confirmed"], 5, "{done:?}");
    for gateway in &fleet {
        assert_eq!(gateway.effective(), 1);
        for what in ["offer 1", "active 1", "confirm 1"] {
            assert_eq!(gateway.count(what), 1, "{}: {:?}", gateway.name, gateway.log());
        }
    }
    let what: Vec<_> = done.events.iter().map(|event| event.what.as_str()).collect();
    assert_eq!(what.first(), Some(&"started"));
    assert_eq!(done.events[0].because, because());
    let trail = world.trail("coordinator/c1").await;
    let steps = trail.iter().filter(|record| {
        let kind = record.event.as_ref().unwrap().kind.as_ref();
        matches!(kind, Some(v1::audit_event::Kind::Operator(event)) if event.action == "carry-rollout")
    });
    assert!(steps.count() >= 3, "steps are in the trail");
}

#[tokio::test]
async fn a_must_flow_that_is_lost_in_a_wave_halts_the_rollout_and_no_other_wave_is_opened() {
    let (world, mut people) = waiting().await;
    let fleet = fleet(5, &world);
    fleet[1].disk.lock().unwrap().conduct = Conduct::LosesMustFlow;
    let one = built(&plant(5, "One"), 1, None, "anna");
    approve(&mut people, &one).await;
    people
        .engineer
        .start_rollout(start(&one, Some(&plan())))
        .await
        .unwrap();
    until(|| fleet[1].count("active 1") == 1).await;
    let mut halted = shown(&mut people, 1).await;
    for _ in 0..500 {
        if !halted.halted.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        halted = shown(&mut people, 1).await;
    }
    assert!(halted.halted.contains("gw-2"), "{halted:?}");
    meanwhile(|| fleet[3..].iter().all(|gateway| gateway.count("active 1") == 0)).await;
    // Nobody goes on but who may.
    refused(
        people
            .engineer
            .steer_rollout(steer(1, v1::steer_rollout_request::Command::Resume(true)))
            .await,
        Reason::WrongRole,
    );
    people
        .bob
        .steer_rollout(steer(1, v1::steer_rollout_request::Command::Resume(true)))
        .await
        .unwrap();
    all(5, |n| n == 1 || fleet[n].effective() == 1).await;
    assert_eq!(fleet[1].effective(), 0);
    let done = reaches(&mut people, 1, "completed-with-exceptions").await;
    assert_eq!(done.counts["reverted-hard"], 1, "{done:?}");
}

#[tokio::test]
async fn a_coordinator_that_is_started_again_between_any_two_steps_goes_on_and_repeats_nothing() {
    let (mut world, mut people) = waiting().await;
    let mut fleet = fleet(5, &world);
    let one = built(&plant(5, "One"), 1, None, "anna");
    approve(&mut people, &one).await;
    people
        .engineer
        .start_rollout(start(&one, Some(&plan())))
        .await
        .unwrap();
    let waves: [&[usize]; 3] = [&[0], &[1, 2], &[3, 4]];
    for (number, wave) in waves.iter().enumerate() {
        until(|| wave.iter().any(|n| fleet[*n].count("active 1") > 0)).await;
        // Nobody of a later wave is opened before those of this one are confirmed.
        for later in &waves[number + 1..] {
            for n in *later {
                let before_all = wave.iter().all(|n| fleet[*n].count("confirm 1") == 1);
                assert!(fleet[*n].count("active 1") == 0 || before_all);
            }
        }
        for gateway in &mut fleet {
            gateway.leave();
        }
        world.restart().await;
        people.engineer = world
            .control(Some(world.certificate("operator/anna")))
            .await
            .unwrap();
        for gateway in &mut fleet {
            gateway.connect(&world);
        }
    }
    let done = reaches(&mut people, 1, "completed").await;
    assert_eq!(done.counts["confirmed"], 5, "{done:?}");
    let before: Vec<_> = fleet.iter().map(Simulated::log).collect();
    for gateway in &fleet {
        assert_eq!(
            gateway.count("confirm 1"),
            1,
            "{}: {:?}",
            gateway.name,
            gateway.log()
        );
        assert_eq!(gateway.effective(), 1);
    }
    // What is confirmed is offered nothing, and opened no more, by a coordinator that starts again.
    for gateway in &mut fleet {
        gateway.leave();
    }
    world.restart().await;
    for gateway in &mut fleet {
        gateway.connect(&world);
    }
    meanwhile(|| fleet.iter().map(Simulated::log).eq(before.iter().cloned())).await;
}

#[tokio::test]
async fn a_stopped_line_opens_nothing_also_after_a_restart_until_an_approver_lets_it_go_on() {
    let (mut world, mut people) = waiting().await;
    let mut fleet = fleet(3, &world);
    let one = built(&plant(3, "One"), 1, None, "anna");
    approve(&mut people, &one).await;
    let freeze = |frozen: bool| v1::FreezeRolloutsRequest {
        frozen,
        because: because(),
    };
    let state = people
        .engineer
        .freeze_rollouts(freeze(true))
        .await
        .unwrap()
        .into_inner();
    assert!(state.frozen && state.ticket == "CHG-7");
    people
        .engineer
        .start_rollout(start(&one, Some(&plan_of_three())))
        .await
        .unwrap();
    meanwhile(|| fleet.iter().all(|gateway| gateway.count("active 1") == 0)).await;
    for gateway in &mut fleet {
        gateway.leave();
    }
    world.restart().await;
    people.engineer = world
        .control(Some(world.certificate("operator/anna")))
        .await
        .unwrap();
    people.bob = world
        .control(Some(world.certificate("operator/bob")))
        .await
        .unwrap();
    for gateway in &mut fleet {
        gateway.connect(&world);
    }
    meanwhile(|| fleet.iter().all(|gateway| gateway.count("active 1") == 0)).await;
    refused(
        people.engineer.freeze_rollouts(freeze(false)).await,
        Reason::WrongRole,
    );
    people.bob.freeze_rollouts(freeze(false)).await.unwrap();
    reaches(&mut people, 1, "completed").await;
}

#[tokio::test]
async fn a_gateway_that_was_absent_goes_straight_to_the_newest_release_and_a_replaced_one_gets_it_again() {
    let (world, mut people) = waiting().await;
    let mut fleet = fleet(3, &world);
    let one = built(&plant(3, "One"), 1, None, "anna");
    approve(&mut people, &one).await;
    people
        .engineer
        .start_rollout(start(&one, Some(&plan_of_three())))
        .await
        .unwrap();
    reaches(&mut people, 1, "completed").await;
    fleet[2].leave();
    let two = built(&plant(3, "Two"), 2, Some(one.digest()), "anna");
    approve(&mut people, &two).await;
    let mut all_at_once = plan();
    all_at_once.waves.drain(..2);
    let wave = &mut all_at_once.waves[0];
    wave.name = "all".to_owned();
    people
        .engineer
        .start_rollout(start(&two, Some(&all_at_once)))
        .await
        .unwrap();
    until(|| fleet[0].effective() == 2 && fleet[1].effective() == 2).await;
    let three = built(&plant(3, "Three"), 3, Some(two.digest()), "anna");
    approve(&mut people, &three).await;
    people
        .engineer
        .start_rollout(start(&three, Some(&all_at_once)))
        .await
        .unwrap();
    let two = shown(&mut people, 2).await;
    assert_eq!(two.stage, "superseded");
    until(|| fleet[0].effective() == 3 && fleet[1].effective() == 3).await;
    fleet[2].connect(&world);
    until(|| fleet[2].effective() == 3).await;
    assert_eq!(fleet[2].count("offer 2"), 0, "{:?}", fleet[2].log());
    until(|| !fleet[2].is_on_trial()).await;
    reaches(&mut people, 3, "completed").await;
    // A new machine takes the place of one.
    fleet[0] = Simulated::new("gw-1", Conduct::Good);
    fleet[0].connect(&world);
    until(|| fleet[0].count("confirm 3") == 1).await;
}
