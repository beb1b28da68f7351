//! A coordinator that lies to the people who use it, or was made to: its store is changed behind its back, and the real
//! `penstock` is asked what it makes of that.

use penstock_coordinator::store::{Expect, Store};
use penstock_policy::ids::{ApproverId, Digest};
use penstock_proto::v1;
use serde_json::{Value, json};

use crate::person::{Person, digits, key_pem};
use crate::world::{Built, Control, People, World, built, document, key, people, store_of};

/// Changes what the coordinator has stored, while it does not run.
async fn lie<F: AsyncFnOnce(&Store)>(world: &mut World, change: F) {
    world.running.take().unwrap().stop().await;
    let store = store_of(&world.config).await;
    change(&store).await;
    drop(store);
    world.start_again().await;
}

fn record_of(revision: u64) -> String {
    format!("release/{revision:020}")
}

async fn change_record(store: &Store, revision: u64, change: impl FnOnce(&mut Value)) {
    let key = record_of(revision);
    let record = store.get(&key).await.unwrap().unwrap();
    let mut value = serde_json::from_slice(&record.value).unwrap();
    change(&mut value);
    let bytes = serde_json::to_vec(&value).unwrap();
    store
        .put_if(&key, Expect::Revision(record.revision), bytes)
        .await
        .unwrap();
}

/// Marks a release as the one that holds, with these signatures.
async fn mark_as_current(store: &Store, release: &Built, signatures: Value) {
    let revision = release.release.statement.revision.0;
    change_record(store, revision, |record| {
        record["signatures"] = signatures.clone();
        record["approved_ms"] = json!(1);
    })
    .await;
    let link = json!({
        "statement": String::from_utf8(release.statement.clone()).unwrap(),
        "signatures": signatures,
    });
    let key = format!("link/{revision:020}");
    store
        .put_if(&key, Expect::Absent, serde_json::to_vec(&link).unwrap())
        .await
        .unwrap();
}

fn signatures(release: &Built, people: &[&str]) -> Value {
    people
        .iter()
        .map(|person| {
            let approver = ApproverId::new(*person).unwrap();
            let signature = key(person).sign(approver, &release.statement).unwrap();
            ((*person).to_owned(), Value::from(hex(signature.bytes())))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn propose(control: &mut Control, release: &Built) {
    control.propose_release(release.request.clone()).await.unwrap();
}

/// A coordinator with one release that bob and carol approved, and what bob has at his terminal.
async fn begin() -> (World, People, Person, Built) {
    let world = World::start().await;
    let mut people = people(&world).await;
    let bob = Person::new(&world, "bob", "desk", v1::Role::Approver).await;
    let one = built(&document(2, 100), 1, None, "anna");
    propose(&mut people.engineer, &one).await;
    let shown = bob.approves(&one).await;
    assert_eq!(shown["base"]["how"], "no-release");
    people.carol.approve_release(one.approval("carol")).await.unwrap();
    (world, people, bob, one)
}

/// A wide release that nobody approved, and a harmless change on top of it.
async fn smuggled(people: &mut People, one: &Built) -> (Built, Built) {
    let wide = built(&document(2, 9_999), 2, Some(one.digest()), "anna");
    propose(&mut people.engineer, &wide).await;
    let text = document(2, 9_999).replace("title: Watch", "title: Watching");
    let on_top = built(&text, 3, Some(wide.digest()), "anna");
    (wide, on_top)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_nobody_approved_is_the_base_of_nothing_though_the_coordinator_calls_it_current() {
    for (name, signers, expected) in [
        ("no signature", vec![], "unsigned"),
        ("one of the two that it needs", vec!["carol"], "under-signed"),
        (
            "a stolen key and the author's",
            vec!["carol", "anna"],
            "under-signed",
        ),
    ] {
        let (mut world, mut people, bob, one) = begin().await;
        let (wide, on_top) = smuggled(&mut people, &one).await;
        lie(&mut world, async |store| {
            mark_as_current(store, &wide, signatures(&wide, &signers)).await;
        })
        .await;
        bob.find(&world);
        let mut anna = world
            .control(Some(world.certificate("operator/anna")))
            .await
            .unwrap();
        propose(&mut anna, &on_top).await;
        assert_eq!(bob.fails_to_approve(&on_top).await, expected, "{name}");
        // Nor for one whose machine knows nothing yet, nor for an author.
        let newcomer = Person::new(&world, "carol", "new desk", v1::Role::Approver).await;
        assert_eq!(newcomer.fails_to_approve(&on_top).await, expected, "{name}");
        let plant = world.dir.path().join("plant.yaml");
        std::fs::write(&plant, document(2, 5)).unwrap();
        let compared = ["diff", plant.to_str().unwrap(), "--against-current"];
        assert_eq!(bob.fails(&compared).await, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_signatures_of_the_release_before_prove_nothing_about_another() {
    let (mut world, mut people, bob, one) = begin().await;
    let (wide, on_top) = smuggled(&mut people, &one).await;
    lie(&mut world, async |store| {
        mark_as_current(store, &wide, signatures(&one, &["bob", "carol"])).await;
    })
    .await;
    bob.find(&world);
    let mut anna = world
        .control(Some(world.certificate("operator/anna")))
        .await
        .unwrap();
    propose(&mut anna, &on_top).await;
    assert_eq!(bob.fails_to_approve(&on_top).await, "altered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_history_by_other_approvers_is_another_one_and_to_a_newcomer_all_of_it_is_new() {
    let (mut world, _people, bob, _) = begin().await;
    // The liar's own history, from the first release on, by keys that are the liar's; it names bob as an approver too.
    let own = |limit| document(2, limit).replace(&public("carol"), &public("mallory"));
    let forged = built(&own(9_999), 1, None, "anna");
    let change = built(&own(9_998), 2, Some(forged.digest()), "anna");
    lie(&mut world, async |store| {
        for (key, record) in store.list("link/").await.unwrap() {
            store.delete_if(&key, record.revision).await.unwrap();
        }
        let statement = String::from_utf8(forged.statement.clone()).unwrap();
        let mut blobs: Vec<Vec<u8>> = forged
            .request
            .documents
            .iter()
            .map(|file| file.content.to_vec())
            .collect();
        let names: Vec<_> = forged
            .request
            .documents
            .iter()
            .map(|file| json!([file.name, Digest::of(&file.content).to_string()]))
            .collect();
        let plans: serde_json::Map<_, _> = forged
            .release
            .plans
            .iter()
            .map(|(gateway, plan)| (gateway.to_string(), json!(Digest::of(plan).to_string())))
            .collect();
        blobs.extend(forged.release.plans.values().cloned());
        store.put_blobs(blobs).await.unwrap();
        change_record(store, 1, |record| {
            record["statement"] = json!(statement);
            record["documents"] = json!(names);
            record.as_object_mut().unwrap().remove("detail");
            record["plans"] = plans.into();
            record["zones"] = json!({});
        })
        .await;
        let signed = {
            let mut all = signatures(&forged, &["erin"]);
            let approver = ApproverId::new("carol").unwrap();
            let carol = key("mallory").sign(approver, &forged.statement).unwrap();
            all["carol"] = json!(hex(carol.bytes()));
            all
        };
        mark_as_current(store, &forged, signed).await;
    })
    .await;
    bob.find(&world);
    let mut anna = world
        .control(Some(world.certificate("operator/anna")))
        .await
        .unwrap();
    propose(&mut anna, &change).await;
    // Bob has seen another r1.
    assert_eq!(bob.fails_to_approve(&change).await, "number-reused");
    assert_eq!(bob.fails(&["release", "list"]).await, "number-reused");
    assert_eq!(bob.fails(&["release", "show", "1"]).await, "number-reused");
    // A machine that knows nothing shows all of it, and says so.
    let newcomer = Person::new(&world, "bob", "new desk", v1::Role::Approver).await;
    let shown = newcomer.approves(&change).await;
    assert_eq!(shown["base"]["how"], "first-use");
    let effects: Vec<_> = shown["changes"]["changes"].as_array().unwrap().iter().collect();
    assert!(
        effects
            .iter()
            .any(|change| change["effect"] == "added" && change["subject"] == "flow watch/poll"),
        "{effects:?}"
    );
}

fn public(person: &str) -> String {
    String::from(key(person).public())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hidden_signature_another_document_for_a_number_and_an_older_history_are_each_named() {
    let (mut world, mut people, bob, one) = begin().await;
    let two = built(&document(2, 101), 2, Some(one.digest()), "anna");
    propose(&mut people.engineer, &two).await;
    let shown = bob.approves(&two).await;
    assert_eq!(shown["base"]["how"], "verified");
    assert_eq!(shown["base"]["statement_digest"], one.digest().to_string());
    bob.done(&["release", "list"]).await;
    lie(&mut world, async |store| {
        change_record(store, 2, |record| record["signatures"] = json!({})).await;
    })
    .await;
    bob.find(&world);
    assert_eq!(bob.fails(&["release", "list"]).await, "approval-hidden");

    // Another proposal under the number that was announced: by the digits, and by what this machine has seen.
    let other = built(&document(2, 9_999), 2, Some(one.digest()), "anna");
    lie(&mut world, async |store| {
        let record = store.get(&record_of(2)).await.unwrap().unwrap();
        store.delete_if(&record_of(2), record.revision).await.unwrap();
    })
    .await;
    bob.find(&world);
    let mut anna = world
        .control(Some(world.certificate("operator/anna")))
        .await
        .unwrap();
    propose(&mut anna, &other).await;
    let (key, announced, number) = bob.words(&two);
    assert_eq!(
        bob.fails(&bob.approve(&key, &announced, &number)).await,
        "digest-mismatch"
    );
    assert_eq!(bob.fails_to_approve(&other).await, "number-reused");

    // The release that holds is taken back as if it had never been.
    lie(&mut world, async |store| {
        for (key, record) in store.list("link/").await.unwrap() {
            store.delete_if(&key, record.revision).await.unwrap();
        }
        for revision in [1, 2] {
            change_record(store, revision, |record| record["approved_ms"] = Value::Null).await;
        }
    })
    .await;
    bob.find(&world);
    let plant = world.dir.path().join("plant.yaml");
    std::fs::write(&plant, document(2, 5)).unwrap();
    let compared = ["diff", plant.to_str().unwrap(), "--against-current"];
    assert_eq!(bob.fails(&compared).await, "history-forked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_shown_against_what_this_person_verified_last_over_changes_of_approvers() {
    let (world, mut people, bob, one) = begin().await;
    // Two releases without bob: the first leaves carol and erin to approve, the second brings him back.
    let without = document(2, 101).replace(&format!("    bob: {{ key: \"{}\" }}\n", public("bob")), "");
    let two = built(&without, 2, Some(one.digest()), "anna");
    let mut erin = world.operator("erin", v1::Role::Approver).await;
    propose(&mut people.engineer, &two).await;
    people.carol.approve_release(two.approval("carol")).await.unwrap();
    erin.approve_release(two.approval("erin")).await.unwrap();
    let three = built(&document(2, 102), 3, Some(two.digest()), "anna");
    propose(&mut people.engineer, &three).await;
    assert_eq!(bob.fails_to_approve(&three).await, "NOT_AN_APPROVER");
    people
        .carol
        .approve_release(three.approval("carol"))
        .await
        .unwrap();
    erin.approve_release(three.approval("erin")).await.unwrap();
    let four = built(&document(2, 103), 4, Some(three.digest()), "anna");
    propose(&mut people.engineer, &four).await;
    let shown = bob.approves(&four).await;
    assert_eq!(shown["base"]["statement_digest"], three.digest().to_string());
    assert_eq!(shown["base"]["how"], "verified");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_made_without_a_network_comes_back_by_a_command_that_verifies_it() {
    let (world, mut people, bob, one) = begin().await;
    let two = built(&document(2, 101), 2, Some(one.digest()), "anna");
    propose(&mut people.engineer, &two).await;
    let folder = world.dir.path().join("carried");
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (statement, documents, signed) = (file("r2.statement"), file("plant"), file("r2.signed"));
    bob.done(&[
        "release",
        "show",
        "2",
        "--statement",
        &statement,
        "--documents",
        &documents,
    ])
    .await;
    // Carol's machine has no login and no network.
    let carol = Person { home: folder.clone() };
    std::fs::write(file("carol.key"), key_pem("carol")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(file("carol.key"), mode).unwrap();
    let key = file("carol.key");
    carol
        .done(&[
            "release",
            "sign",
            &statement,
            "--key",
            &key,
            "--as",
            "carol",
            "--documents",
            &documents,
            "--out",
            &signed,
            "--yes",
        ])
        .await;
    let number = digits(two.digest());
    let spoilt = file("spoilt.signed");
    let text = std::fs::read_to_string(&signed).unwrap();
    let mut envelope: Value = serde_json::from_str(&text).unwrap();
    envelope["signatures"][0]["keyid"] = json!("erin");
    std::fs::write(&spoilt, envelope.to_string()).unwrap();
    let bring = |file| {
        [
            "release",
            "approve",
            "2",
            "--digest",
            &number,
            "--signature",
            file,
            "--yes",
        ]
    };
    assert_eq!(bob.fails(&bring(&spoilt)).await, "altered");
    let shown = bob.done(&bring(&signed)).await;
    assert_eq!(shown["release"]["approved_by"], json!(["carol"]));
    assert_eq!(bob.fails(&bring(&signed)).await, "usage", "it is there already");
    let shown = bob.approves(&two).await;
    assert_eq!(shown["release"]["state"], "current");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_that_was_refused_leaves_its_number_to_another() {
    let (world, mut people, bob, one) = begin().await;
    let plant = world.dir.path().join("plant.yaml");
    let managed = "    management: { interface: eth0, peers: [192.0.2.10] }\n    interfaces:\n";
    let text = document(2, 5).replace("    interfaces:\n", managed);
    std::fs::write(&plant, text).unwrap();
    let proposed = [
        "release",
        "propose",
        plant.to_str().unwrap(),
        "--reason",
        "less",
        "--yes",
    ];
    assert_eq!(bob.fails(&proposed).await, "WRONG_ROLE");
    let two = built(&document(2, 101), 2, Some(one.digest()), "anna");
    propose(&mut people.engineer, &two).await;
    bob.done(&["release", "list"]).await;
    bob.approves(&two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_withdrawn_hides_no_signature_and_is_not_brought_back_as_if_it_had_been_in_force() {
    let (mut world, mut people, bob, one) = begin().await;
    let two = built(&document(2, 101), 2, Some(one.digest()), "anna");
    propose(&mut people.engineer, &two).await;
    bob.approves(&two).await;
    people
        .engineer
        .withdraw_release(two.end("a mistake"))
        .await
        .unwrap();
    lie(&mut world, async |store| {
        change_record(store, 2, |record| record["signatures"] = json!({})).await;
    })
    .await;
    bob.find(&world);
    bob.done(&["release", "list"]).await;
    let revert = ["release", "revert", "2", "--reason", "back", "--yes"];
    assert_eq!(bob.fails(&revert).await, "NEVER_IN_FORCE");
}
