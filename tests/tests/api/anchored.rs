//! Trails that somebody rewrites who has the coordinator with all its keys: the releases that people signed contradict them, and so does what
//! gateways saw.

use penstock_policy::ids::Digest;
use penstock_policy::merkle::growing::{self, NodeAt, TreeState};
use penstock_policy::release::{Draft, STATEMENT_FORMATS, TrailsAnchor};
use penstock_proto::audit::note::{Note, NoteSignature};
use penstock_proto::audit::tree_head::TreeHead;
use penstock_proto::refusal::Reason;
use penstock_proto::v1;
use penstock_proto::v1::gateway_message::Message as Up;
use serde_json::{Value, json};

use crate::audit::{Trail, acknowledged};
use crate::person::Person;
use crate::world::{World, built_as, document, refused};

/// Sessions of both gateways, whose agents read all that there is, and some blocks of one of them.
async fn with_gateways(world: &World, trail: &mut Trail, blocks: u64) {
    for name in ["gw-b", "gw-a"] {
        let credentials = world.certificate(&format!("gateway/{name}"));
        let channel = world.channel(world.roots(), Some(credentials)).await.unwrap();
        let hello = v1::Hello {
            software_version: "test".to_owned(),
            capabilities: STATEMENT_FORMATS.map(str::to_owned).into(),
            boot_id: "1".to_owned(),
            policy: Some(v1::PolicyState::default()),
            ..v1::Hello::default()
        };
        let mut session = world.greeting(channel, hello).await;
        if name == "gw-a" && blocks > 0 {
            let mut last = 0;
            for number in 0..blocks {
                let block = trail.block(&format!("attack {number}"));
                last = block.sequence + 1;
                session.send(Up::Audit(block)).await;
            }
            acknowledged(&mut session, last).await;
        }
    }
}

/// Takes the newest block of a gateway out of the database, and builds the whole tree anew, as whoever holds the coordinator can.
fn rewrite(world: &World) {
    let database = rusqlite::Connection::open(world.config.data.join("penstock.db")).unwrap();
    let newest =
        "SELECT max(leaf) FROM block JOIN source ON source.id = block.source WHERE source.name = 'gw-a'";
    let taken: i64 = database.query_row(newest, [], |row| row.get(0)).unwrap();
    let leaves = "SELECT hash FROM node WHERE level = 0 AND position <> ?1 ORDER BY position";
    let leaves: Vec<[u8; 32]> = database
        .prepare(leaves)
        .unwrap()
        .query_map([taken], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    database
        .execute("DELETE FROM block WHERE leaf = ?1", [taken])
        .unwrap();
    database
        .execute("UPDATE block SET leaf = leaf - 1 WHERE leaf > ?1", [taken])
        .unwrap();
    database.execute("DELETE FROM node", []).unwrap();
    let place = |at: NodeAt| (at.level, at.position as i64);
    for (index, leaf) in (0..).zip(leaves) {
        let get = |at| {
            let read = "SELECT hash FROM node WHERE level = ?1 AND position = ?2";
            database.query_row(read, place(at), |row| row.get(0))
        };
        let put = |at, hash: [u8; 32]| {
            let (level, position) = place(at);
            let write = "INSERT INTO node (level, position, hash) VALUES (?1, ?2, ?3)";
            database.execute(write, (level, position, hash)).map(|_| ())
        };
        growing::append(index, leaf, get, put).unwrap();
    }
}

/// A document of the plant, as a file that people may propose.
fn plant(world: &World, limit: u32) -> String {
    let managed = "mode: routed\n    management: { interface: mgmt, peers: [192.0.2.10] }\n";
    let file = world.dir.path().join(format!("plant-{limit}.yaml"));
    std::fs::write(&file, document(1, limit).replace("mode: routed\n", managed)).unwrap();
    file.to_string_lossy().into_owned()
}

async fn propose(anna: &Person, plant: &str, more: &[&str]) -> Value {
    let words = ["release", "propose", plant, "--reason", "a range", "--yes"];
    anna.done(&[&words[..], more].concat()).await
}

/// The words by which an approver signs what was proposed.
fn approving(person: &Person, proposed: &Value) -> [String; 8] {
    let revision = proposed["release"]["revision"].to_string();
    let digest = proposed["release"]["statement_digest"].as_str().unwrap();
    let digits = digest.trim_start_matches("sha256:")[..12].to_owned();
    let key = person.home.join("approver.key").to_string_lossy().into_owned();
    let word = str::to_owned;
    [
        word("release"),
        word("approve"),
        revision,
        word("--digest"),
        digits,
        word("--key"),
        key,
        word("--yes"),
    ]
}

fn words(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

/// Takes evidence; what is proved, also where it is not sound.
async fn evidence(world: &World, person: &Person, name: &str) -> (String, Value) {
    let file = world.dir.path().join(name).to_string_lossy().into_owned();
    let output = person.run(&["audit", "evidence", &file]).await;
    (
        file,
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_rewrites_the_trails_with_the_coordinators_own_keys_contradicts_the_release_that_people_signed() {
    let mut world = World::start().await;
    let mut trail = Trail::new(3);
    with_gateways(&world, &mut trail, 4).await;
    let anna = Person::new(&world, "anna", "engineer", v1::Role::Engineer).await;
    let bob = Person::new(&world, "bob", "approver", v1::Role::Approver).await;
    let erin = Person::new(&world, "erin", "assessor", v1::Role::Viewer).await;
    let plant_1 = plant(&world, 10);
    let proposed = propose(&anna, &plant_1, &[]).await;
    let named = proposed["statement"]["trails"]["blocks"].as_u64().unwrap();
    assert!(named >= 4, "{proposed}");
    bob.done(&words(&approving(&bob, &proposed))).await;
    with_gateways(&world, &mut trail, 0).await;

    // An assessor with the root and the document believes the file, and says who vouches for it.
    let (file, taken) = evidence(&world, &erin, "honest.evidence").await;
    assert_eq!(
        (&taken["sound"], &taken["approvers"]),
        (&json!(true), &json!("own-word"))
    );
    let verify = ["audit", "verify", &file, "--approvers", &plant_1];
    let proved = erin.done(&verify).await;
    assert_eq!(
        (&proved["sound"], &proved["approvers"]),
        (&json!(true), &json!("known"))
    );
    let by = json!({"revision": 1, "signers": ["bob"], "blocks": named});
    assert_eq!(proved["anchored_by"], by);
    let read = erin.reads(&verify).await;
    let sentence = format!("anchored by release r1, signed by bob, which names the first {named} blocks");
    assert!(read.contains(&sentence), "{read}");

    // Everything is built anew, as if a block had never been.
    world.running.take().unwrap().stop().await;
    rewrite(&world);
    world.start_again().await;
    for person in [&anna, &bob, &erin] {
        person.find(&world);
    }
    with_gateways(&world, &mut Trail::new(3), 0).await;
    let fresh = Person::new(&world, "frank", "fresh", v1::Role::Viewer).await;
    let (file, taken) = evidence(&world, &fresh, "forged.evidence").await;
    assert_eq!(taken["sound"], false, "{taken}");
    let wrong = taken["contradictions"][0].as_str().unwrap();
    assert!(
        wrong.contains("release r1, as its approvers signed it"),
        "{wrong}"
    );
    assert!(
        !fresh
            .run(&["audit", "verify", &file, "--approvers", &plant_1])
            .await
            .status
            .success()
    );
    assert_eq!(
        erin.fails(&["audit", "evidence", "x.evidence"]).await,
        "trail-rewritten"
    );

    // A policy is released all the same, without a word about the trails ...
    let plant_2 = plant(&world, 20);
    let said = anna
        .says(&["release", "propose", &plant_2, "--reason", "more", "--yes"])
        .await;
    assert!(
        said.contains("So the release names no head of the trails"),
        "{said}"
    );
    let shown = anna.done(&["release", "show", "2"]).await;
    assert!(shown["statement"]["trails"].is_null());
    bob.done(&words(&approving(&bob, &shown))).await;
    // ... or with the word that they begin again, which its approver accepts.
    let proposed = propose(&anna, &plant(&world, 30), &["--again"]).await;
    assert_eq!(proposed["statement"]["trails"]["again"], true);
    let accepted = bob.reads(&words(&approving(&bob, &proposed))).await;
    assert!(accepted.contains("the trails begin again"), "{accepted}");
    let (_, taken) = evidence(&world, &fresh, "again.evidence").await;
    assert_eq!(taken["sound"], true, "{taken}");
    assert_eq!(taken["begins_again"]["given_up"], 1);
    assert_eq!(taken["anchored_by"]["revision"], 3);
    // From there on everything goes on as before.
    let proposed = propose(&anna, &plant(&world, 40), &[]).await;
    assert_eq!(proposed["statement"]["trails"]["again"], false);
    bob.done(&words(&approving(&bob, &proposed))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_the_trails_do_not_begin_with_is_neither_proposed_nor_signed() {
    let world = World::start().await;
    with_gateways(&world, &mut Trail::new(3), 2).await;
    // By an author who makes it up.
    let mut engineer = world.operator("greta", v1::Role::Engineer).await;
    let made_up = built_as(&document(1, 5), "greta", |draft| Draft {
        trails: Some(TrailsAnchor {
            size: 2,
            root: Digest::of(b"made up"),
            again: false,
        }),
        ..draft
    });
    let why = refused(
        engineer.propose_release(made_up.request.clone()).await,
        Reason::StatementMismatch,
    );
    assert!(why.contains("over 2 blocks"), "{why}");

    // By an approver whose machine saw other trails.
    let anna = Person::new(&world, "anna", "engineer", v1::Role::Engineer).await;
    let bob = Person::new(&world, "bob", "approver", v1::Role::Approver).await;
    let proposed = propose(&anna, &plant(&world, 10), &[]).await;
    let head = TreeHead {
        origin: "riverside/coordinator/c1".to_owned(),
        tree: TreeState {
            size: 2,
            root: [7; 32],
        },
        time_ms: 1,
    };
    let signature = NoteSignature {
        name: head.origin.clone(),
        key_id: [1; 4],
        bytes: vec![1],
    };
    let seen = Note {
        text: head.to_string(),
        signatures: vec![signature],
    };
    let tree = bob.home.join("penstock/contexts/riverside.bob.tree");
    std::fs::write(&tree, seen.to_bytes()).unwrap();
    let approve = approving(&bob, &proposed);
    assert_eq!(bob.fails(&words(&approve)).await, "trail-rewritten");
    std::fs::remove_file(&tree).unwrap();
    bob.done(&words(&approve)).await;
    assert!(tree.exists(), "what was signed for is remembered");
}
