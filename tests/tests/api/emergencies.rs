//! Emergencies as people make them: more of them sign, and everybody sees what it is.

use penstock_policy::ids::{Digest, Revision};
use penstock_policy::release::{Draft, spoken};
use penstock_proto::refusal::Reason;
use penstock_proto::v1;

use crate::person::Person;
use crate::world::{Built, World, built, built_as, document, people, refused, release};

/// Two of three approvers sign a release, and all of them an emergency.
fn with_emergencies(limit: u32) -> String {
    document(2, limit).replace("threshold: 2\n", "threshold: 2\n  emergency_threshold: 3\n")
}

fn emergency(text: &str, revision: u64, parent: Digest) -> Built {
    built_as(text, "anna", |draft| Draft {
        revision: Revision(revision),
        parent: Some(parent),
        emergency: true,
        ..draft
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emergency_is_in_force_with_the_signatures_of_its_own_threshold_and_says_everywhere_what_it_is() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let one = built(&with_emergencies(100), 1, None, "anna");
    release(&mut people, &one).await;
    let two = emergency(&with_emergencies(101), 2, one.digest());
    people
        .engineer
        .propose_release(two.request.clone())
        .await
        .unwrap();
    let bob = Person::new(&world, "bob", "desk", v1::Role::Approver).await;
    let shown = bob.approves(&two).await;
    assert_eq!(shown["statement"]["emergency"], true);
    assert_eq!(shown["statement"]["words"], spoken(&two.digest()));
    assert_eq!(shown["release"]["threshold"], 3);
    // What is enough for any other release is not enough for this one.
    let waits = people.carol.approve_release(two.approval("carol")).await.unwrap();
    let waits = waits.into_inner();
    assert_eq!(waits.state(), v1::ReleaseState::Proposed);
    assert!(waits.emergency && waits.threshold == 3);
    let mut erin = world.operator("erin", v1::Role::Approver).await;
    let done = erin.approve_release(two.approval("erin")).await.unwrap();
    assert_eq!(done.into_inner().state(), v1::ReleaseState::Current);
    let listed = bob.done(&["release", "list"]).await;
    assert_eq!(listed["releases"][0]["emergency"], true);
    assert_eq!(listed["releases"][1]["emergency"], false);
    let page = bob.reads(&["release", "show", "2"]).await;
    assert!(page.contains("▲▲ EMERGENCY ▲▲"), "{page}");
    // Bob's machine followed it; what it knows it says without the coordinator.
    let three = built(&with_emergencies(102), 3, Some(two.digest()), "anna");
    people
        .engineer
        .propose_release(three.request.clone())
        .await
        .unwrap();
    bob.approves(&three).await;
    let known = bob.done(&["release", "known"]).await;
    assert_eq!(known["verified"]["words"], spoken(&two.digest()));
    assert_eq!(
        (&known["verified"]["revision"], &known["highest"]),
        (&2.into(), &3.into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_approvers_have_no_threshold_for_them_there_are_no_emergencies_and_the_refusal_says_what_to_do()
{
    let world = World::start().await;
    let mut people = people(&world).await;
    let one = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &one).await;
    // A document that brings the threshold does not permit itself.
    let two = emergency(&with_emergencies(101), 2, one.digest());
    let answer = people.engineer.propose_release(two.request.clone()).await;
    let said = refused(answer, Reason::NoEmergencies);
    assert!(said.contains("without `--emergency`"), "{said}");
    let anna = Person::new(&world, "anna", "desk", v1::Role::Engineer).await;
    let plant = world.dir.path().join("plant.yaml");
    let managed = "    management: { interface: eth0, peers: [192.0.2.10] }\n    interfaces:\n";
    std::fs::write(
        &plant,
        with_emergencies(101).replace("    interfaces:\n", managed),
    )
    .unwrap();
    let mut arguments = vec![
        "release",
        "propose",
        plant.to_str().unwrap(),
        "--reason",
        "flood",
        "--yes",
    ];
    arguments.push("--emergency");
    assert_eq!(anna.fails(&arguments).await, "NO_EMERGENCIES");
    arguments.pop();
    let proposed = anna.done(&arguments).await;
    assert_eq!(proposed["statement"]["emergency"], false);
}
