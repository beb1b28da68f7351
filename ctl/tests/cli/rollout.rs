//! Rollout plans and change-control records on a person's machine: what is written, what is judged, and what is proved of it.

use std::path::Path;

use penstock::documents::Documents;
use penstock::keys;
use penstock_policy::ids::{Digest, GatewayId};
use penstock_policy::record::{
    Authorisation, ChangeRecord, GatewayRecord, HeldPolicy, Implementation, RECORD_FORMAT, RecordedStatement,
    SignedRecord, Verification,
};
use penstock_policy::release::{Draft, Envelope, Statement, build};
use penstock_policy::rollout::{Fleet, default_plan};
use serde_json::json;

use crate::said::{altered, ends, json as read, sign, statement, works};

#[test]
fn the_plan_that_is_written_has_nothing_wrong_and_is_the_same_each_time() {
    let folder = works();
    let written = ends(folder.path(), 0, &["rollout", "plan", "--from", "plant"]).out;
    assert!(
        written.contains("\ntrial: 10m\n") && written.contains("# 1 of 2 gateways: "),
        "{written}"
    );
    std::fs::write(folder.path().join("r.yaml"), &written).unwrap();
    assert_eq!(
        written,
        ends(folder.path(), 0, &["rollout", "plan", "--from", "plant"]).out
    );
    let judged = ends(folder.path(), 0, &["rollout", "check", "r.yaml", "plant"]).out;
    assert!(judged.contains("  1. first  1  gw-"), "{judged}");
    assert!(
        judged.contains("✓ nothing to object to: 2 gateways in 2 waves"),
        "{judged}"
    );
    let alone = ends(folder.path(), 0, &["rollout", "check", "r.yaml"]).out;
    assert!(alone.contains("judged without gateways"), "{alone}");
    let data = read(
        &ends(
            folder.path(),
            0,
            &["rollout", "check", "r.yaml", "plant", "--output", "json"],
        )
        .out,
    );
    assert_eq!(data["schema"], "penstock.rollout-check/1");
    assert_eq!((&data["gateways"], &data["errors"]), (&json!(2), &json!(0)));
    assert_eq!(data["waves"][0]["gateways"].as_array().unwrap().len(), 1);
    assert_eq!(data["seconds_min"], 3 * 3_600);
    // Another seed may choose another gateway, and is written down.
    let seeded = ends(
        folder.path(),
        0,
        &["rollout", "plan", "--from", "plant", "--seed", "5"],
    )
    .out;
    assert!(seeded.contains("\nseed: 5\n"), "{seeded}");
    // The plan never takes the place of a file of the document.
    ends(
        folder.path(),
        2,
        &["rollout", "plan", "--from", "plant", "-o", "plant/plant.yaml"],
    );
}

#[test]
fn a_plan_with_faults_shows_their_lines_and_ends_with_1() {
    let folder = works();
    let written = ends(folder.path(), 0, &["rollout", "plan", "--from", "plant"]).out;
    let spoilt = written
        .replace("trial: 10m", "trail: 10m")
        .replace("soft_rate: 0.02", "soft_rate: 5");
    std::fs::write(folder.path().join("r.yaml"), &spoilt).unwrap();
    let said = ends(folder.path(), 1, &["rollout", "check", "r.yaml", "plant"]).out;
    assert!(
        said.contains("did you mean `trial`?") && said.contains("r.yaml:"),
        "{said}"
    );
    assert!(
        said.contains("✗ 2 errors: no rollout is started with this plan"),
        "{said}"
    );
    std::fs::write(
        folder.path().join("r.yaml"),
        written.replace("soak: 1h", "soak: 0s"),
    )
    .unwrap();
    let doubtful = ends(folder.path(), 0, &["rollout", "check", "r.yaml", "plant"]).out;
    assert!(
        doubtful.contains("PS0902") && doubtful.contains("▲ 1 warning"),
        "{doubtful}"
    );
    ends(
        folder.path(),
        1,
        &["rollout", "check", "r.yaml", "plant", "--strict"],
    );
    let other = ends(
        folder.path(),
        1,
        &["rollout", "check", "plant/plant.yaml", "plant"],
    )
    .out;
    assert!(other.contains("is not a key of a rollout plan"), "{other}");
}

/// The record of the first release's rollout, as `rollout record` makes it, signed by its maker.
fn record(folder: &Path) {
    statement(folder, "k.ito");
    sign(folder, 0, "r1.statement", "j.meyer", "r1.one");
    sign(folder, 0, "r1.one", "a.silva", "r1.two");
    let envelope = Envelope::from_json(&std::fs::read_to_string(folder.join("r1.two")).unwrap()).unwrap();
    let stated = Statement::from_bytes(&envelope.statement).unwrap();
    let documents = Documents::read(&folder.join("plant")).unwrap();
    let plant = penstock::loading::examine(&documents).unwrap().plant.unwrap();
    let built = build(&plant, Draft::of(&stated)).unwrap();
    let fleet = Fleet::of(&plant).unwrap();
    let plan = default_plan(&fleet, 1);
    let digest = Digest::of(&envelope.statement);
    let gateway = |(name, plan): (&GatewayId, &Vec<u8>)| GatewayRecord {
        name: name.clone(),
        plan_digest: Digest::of(plan),
        wave: 0,
        state: "confirmed".to_owned(),
        connected: true,
        staged: None,
        effective: Some(HeldPolicy {
            revision: 1,
            plan_digest: Digest::of(plan),
            statement_digest: Some(digest),
        }),
        standing: String::new(),
    };
    let record = ChangeRecord {
        format: RECORD_FORMAT.to_owned(),
        plant: plant.id.clone(),
        made_by: "m.okoye".parse().unwrap(),
        made_ms: 1_700_000_900_000,
        coordinator: "c1".to_owned(),
        baseline: None,
        between: Vec::new(),
        authorisation: Authorisation {
            release: RecordedStatement::new(&envelope.statement, &envelope.signatures),
            approved_ms: 1_700_000_100_000,
            preview: "all of it is new".to_owned(),
        },
        implementation: Implementation {
            plan,
            started_by: "k.ito".to_owned(),
            reason: "the first".to_owned(),
            ticket: String::new(),
            started_ms: 1_700_000_200_000,
            ended_ms: 1_700_000_800_000,
            stage: "completed".to_owned(),
            events: Vec::new(),
            trail: Vec::new(),
            trail_is_cut: false,
        },
        verification: Verification {
            time_ms: 1_700_000_850_000,
            gateways: built.plans.iter().map(gateway).collect(),
            zones: Vec::new(),
        },
        new_baseline: Some(digest),
    };
    let mut signed = SignedRecord::new(&record).unwrap();
    let key = keys::read(&folder.join("m.okoye.key"), || panic!("it has no passphrase")).unwrap();
    let signature = key
        .sign("m.okoye".parse().unwrap(), &signed.signable(), None)
        .unwrap();
    signed.signatures.push(signature);
    std::fs::write(folder.join("r1.record"), signed.to_json()).unwrap();
}

#[test]
fn a_record_is_verified_without_a_coordinator_and_says_what_it_does_not_prove() {
    let folder = works();
    record(folder.path());
    let whole = [
        "rollout",
        "verify",
        "r1.record",
        "--approvers",
        "plant",
        "--documents",
        "plant",
    ];
    let said = ends(folder.path(), 0, &whole).out;
    let (proved, word) = said.split_once("not proved by this file").unwrap();
    for words in [
        "was approved by a.silva, j.meyer; its author k.ito does not count",
        "it is the plant's first release",
        "together they give the root that its statement names",
        "compile to exactly what r1 states",
        "m.okoye, who made it, signed the record",
    ] {
        assert!(proved.contains(words), "{words} in\n{said}");
    }
    assert!(
        word.contains("on the coordinator's word") && word.contains("2 of 2 gateways report"),
        "{said}"
    );
    // Without the reader's own approvers it proves no approval, and says so.
    let alone = ends(folder.path(), 0, &["rollout", "verify", "r1.record"]).out;
    let word = alone.split_once("not proved by this file").unwrap().1;
    assert!(word.contains("is not proved without your own copy"), "{alone}");
    let data = read(&ends(folder.path(), 0, &[&whole[..], &["--output", "json"]].concat()).out);
    assert_eq!(
        (&data["schema"], &data["sound"]),
        (&json!("penstock.rollout-verify/1"), &json!(true))
    );
}

#[test]
fn a_record_that_was_altered_or_that_other_people_approved_is_not_believed() {
    let folder = works();
    record(folder.path());
    let text = std::fs::read_to_string(folder.path().join("r1.record")).unwrap();
    let envelope = read(&text);
    let mut swapped = envelope.clone();
    swapped["signatures"][0]["keyid"] = json!("j.meyer");
    let mut cut = text.clone();
    cut.truncate(cut.len() - 5);
    for tampered in [
        swapped.to_string(),
        cut,
        text.replace("change-record+json", "release+json"),
    ] {
        std::fs::write(folder.path().join("bad"), tampered).unwrap();
        ends(
            folder.path(),
            7,
            &["rollout", "verify", "bad", "--approvers", "plant"],
        );
    }
    altered(folder.path(), "others", "threshold: 2", "threshold: 3");
    let said = ends(
        folder.path(),
        7,
        &["rollout", "verify", "r1.record", "--approvers", "others"],
    )
    .out;
    assert!(
        said.contains("must not be believed") && said.contains("under-signed"),
        "{said}"
    );
    // A signed release is no record, and a record no release.
    ends(
        folder.path(),
        7,
        &["rollout", "verify", "r1.two", "--approvers", "plant"],
    );
    ends(
        folder.path(),
        7,
        &["release", "verify", "r1.record", "--approvers", "plant"],
    );
}

#[test]
fn to_stop_something_takes_a_reason_and_to_open_more_without_a_question_takes_its_name() {
    let folder = works();
    for arguments in [
        &["rollout", "freeze"][..],
        &["rollout", "halt", "4"],
        &["rollout", "resume", "--reason", "well again", "--yes"],
        &["rollout", "skip", "gw-a", "--reason", "broken", "--yes"],
        &["rollout", "plan"],
        &["rollout", "check"],
    ] {
        ends(folder.path(), 2, arguments);
    }
    // With all of it, the coordinator is asked: there is none.
    ends(
        folder.path(),
        6,
        &["rollout", "freeze", "--reason", "smoke in line 2"],
    );
    ends(
        folder.path(),
        6,
        &["rollout", "resume", "4", "--reason", "well again", "--yes"],
    );
}
