//! How a rollout begins: by itself, not at all, with agents that know no trials; and what is refused.

use super::*;

#[tokio::test]
async fn a_rollout_starts_by_itself_by_the_default_plan_where_the_configuration_says_so() {
    let world = World::start_with(|config| config.after_approval = AfterApproval::DefaultPlan).await;
    let mut people = people(&world).await;
    let _fleet = fleet(1, &world);
    let one = built(&plant(1, "One"), 1, None, "anna");
    approve(&mut people, &one).await;
    let shown = reaches(&mut people, 1, "shadowing").await;
    assert!(shown.started_by.is_empty() && shown.because.unwrap().reason.contains("default-plan"));
    let plan: RolloutPlan = serde_json::from_slice(&shown.plan).unwrap();
    assert_eq!(plan.shadow, Span::seconds(3600));
}

#[tokio::test]
async fn where_releases_go_to_all_at_once_no_rollout_is_started_and_what_went_is_the_baseline_of_the_first_one()
 {
    let mut world = World::start().await;
    let mut people = people(&world).await;
    let mut fleet = fleet(2, &world);
    let one = built(&plant(2, "One"), 1, None, "anna");
    approve(&mut people, &one).await;
    until(|| fleet.iter().all(|gateway| gateway.effective() == 1)).await;
    refused(
        people.engineer.start_rollout(start(&one, None)).await,
        Reason::NotProposed,
    );
    for gateway in &mut fleet {
        gateway.leave();
    }
    world.config.after_approval = AfterApproval::Wait;
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
    reaches(&mut people, 1, "completed").await;
    let two = built(&plant(2, "Two"), 2, Some(one.digest()), "anna");
    approve(&mut people, &two).await;
    // Whoever comes without a policy gets what is in force, not what waits for its rollout.
    fleet[0] = Simulated::new("gw-1", Conduct::Good);
    fleet[0].connect(&world);
    until(|| fleet[0].count("confirm 1") == 1).await;
    assert!(fleet.iter().all(|gateway| gateway.count("offer 2") == 0));
}

#[tokio::test]
async fn agents_that_know_no_trials_are_offered_a_release_only_when_they_may_activate_it() {
    let (world, mut people) = waiting().await;
    let mut fleet = fleet(2, &world);
    fleet[1] = Simulated::new("gw-2", Conduct::Old);
    fleet[1].connect(&world);
    fleet[0].disk.lock().unwrap().conduct = Conduct::Held;
    let one = built(&plant(2, "One"), 1, None, "anna");
    approve(&mut people, &one).await;
    let mut two = plan();
    two.waves.remove(1);
    people
        .engineer
        .start_rollout(start(&one, Some(&two)))
        .await
        .unwrap();
    let held = reaches(&mut people, 1, "opening").await;
    let old = held
        .gateways
        .iter()
        .find(|gateway| gateway.name == "gw-2")
        .unwrap();
    assert!(old.without_trials, "{held:?}");
    meanwhile(|| fleet[1].log().is_empty()).await;
    people
        .bob
        .steer_rollout(steer(
            1,
            v1::steer_rollout_request::Command::Skip("gw-1".to_owned()),
        ))
        .await
        .unwrap();
    until(|| fleet[0].count("staged 1") >= 1).await;
    people
        .bob
        .steer_rollout(steer(1, v1::steer_rollout_request::Command::Pass(true)))
        .await
        .unwrap();
    until(|| fleet[1].effective() == 1).await;
    assert_eq!(fleet[0].effective(), 0);
}

#[tokio::test]
async fn what_cannot_be_started_is_refused_with_what_is_wrong() {
    let (world, mut people) = waiting().await;
    let _fleet = fleet(2, &world);
    let one = built(&plant(2, "One"), 1, None, "anna");
    people
        .engineer
        .propose_release(one.request.clone())
        .await
        .unwrap();
    let words = refused(
        people.engineer.start_rollout(start(&one, None)).await,
        Reason::NotProposed,
    );
    assert!(words.contains("is not approved"), "{words}");
    people.bob.approve_release(one.approval("bob")).await.unwrap();
    let mut wrong = start(&one, None);
    wrong.statement_digest = vec![7; 32].into();
    refused(people.engineer.start_rollout(wrong).await, Reason::DigestMismatch);
    let mut silent = start(&one, None);
    silent.because = None;
    refused(people.engineer.start_rollout(silent).await, Reason::BadRequest);
    // The plan's problems are all named.
    let mut odd = plan();
    odd.trial = Span::seconds(1);
    odd.waves.truncate(1);
    let status = people
        .engineer
        .start_rollout(start(&one, Some(&odd)))
        .await
        .unwrap_err();
    let explained = format!("{:?}", penstock_proto::refusal::explain(&status));
    assert!(
        explained.contains("plan.trial") && explained.contains("plan.waves"),
        "{explained}"
    );
    let two = built(&plant(2, "Two"), 2, Some(one.digest()), "anna");
    approve(&mut people, &two).await;
    let words = refused(
        people.engineer.start_rollout(start(&one, None)).await,
        Reason::NotProposed,
    );
    assert!(words.contains("not the newest"), "{words}");
    refused(
        people
            .engineer
            .steer_rollout(steer(2, v1::steer_rollout_request::Command::Pause(true)))
            .await,
        Reason::NotFound,
    );
}
