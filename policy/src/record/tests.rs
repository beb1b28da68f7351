//! What a record proves, what it only repeats, and that nothing in it can be altered unnoticed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::ids::{Digest, Revision};
use crate::model::{ApproverSet, Plant};
use crate::release::{Draft, Release, Signature, build};
use crate::rollout::{Fleet, assign, default_plan};
use crate::waterworks::{approvers, gateway, id, key, waterworks};

/// The water works with two gateways more, so that waves differ.
fn plant() -> Plant {
    let mut plant = waterworks();
    for name in ["gw-east", "gw-west"] {
        let copy = plant.gateways[&gateway()].clone();
        plant.gateways.insert(id(name), copy);
        for conduit in plant.conduits.values_mut() {
            conduit.via.insert(id(name));
        }
    }
    plant
}

fn release(revision: u64, parent: Option<Digest>) -> Release {
    let draft = Draft {
        revision: Revision(revision),
        parent,
        replaces: Vec::new(),
        emergency: false,
        withdrawn: None,
        trust: None,
        trails: None,
        document_digest: Digest::of(b"plant"),
        author: id("e.okafor"),
        ticket: Some("CHG-1".to_owned()),
        reason: "Poll the new pump".to_owned(),
        created_ms: 1_000,
    };
    build(&plant(), draft).unwrap()
}

fn recorded(release: &Release, signers: &[(&str, u8)]) -> RecordedStatement {
    let bytes = release.statement.to_bytes();
    let signatures: Vec<Signature> = signers
        .iter()
        .map(|(person, seed)| key(*seed).sign(id(person), &bytes).unwrap())
        .collect();
    RecordedStatement::new(&bytes, &signatures)
}

const TWO: &[(&str, u8)] = &[("j.meyer", 1), ("a.silva", 2)];

/// r3 on top of r2, which was approved and carried nowhere, on top of r1, the baseline.
fn record() -> ChangeRecord {
    let one = release(1, None);
    let two = release(2, Some(one.statement.digest()));
    let three = release(3, Some(two.statement.digest()));
    let fleet = Fleet::of(&plant()).unwrap();
    let plan = default_plan(&fleet, 7);
    let waves = assign(&plan, &fleet);
    let stated = three.statement.digest();
    let gateways = three.plans.iter().zip(&waves).map(|((name, plan), wave)| {
        let plan_digest = Digest::of(plan);
        GatewayRecord {
            name: name.clone(),
            plan_digest,
            wave: u32::from(wave.unwrap()) + 1,
            state: "confirmed".to_owned(),
            connected: true,
            staged: None,
            effective: Some(HeldPolicy {
                revision: 3,
                plan_digest,
                statement_digest: Some(stated),
            }),
            standing: String::new(),
        }
    });
    ChangeRecord {
        format: RECORD_FORMAT.to_owned(),
        plant: plant().id,
        made_by: id("j.meyer"),
        made_ms: 9_000,
        coordinator: "c1".to_owned(),
        baseline: Some(recorded(&one, TWO)),
        between: vec![recorded(&two, TWO)],
        authorisation: Authorisation {
            release: recorded(&three, TWO),
            approved_ms: 2_000,
            preview: "no change".to_owned(),
        },
        verification: Verification {
            time_ms: 8_000,
            gateways: gateways.collect(),
            zones: vec![ZoneRecord {
                zone: "control".to_owned(),
                state: "enforcing".to_owned(),
                reasons: vec!["all is well".to_owned()],
            }],
        },
        implementation: Implementation {
            plan,
            started_by: "e.okafor".to_owned(),
            reason: "night shift knows".to_owned(),
            ticket: "CHG-1".to_owned(),
            started_ms: 3_000,
            ended_ms: 7_000,
            stage: "completed".to_owned(),
            events: vec![RecordedEvent {
                time_ms: 3_000,
                by: "e.okafor".to_owned(),
                what: "started".to_owned(),
                message: "started".to_owned(),
                reason: "night shift knows".to_owned(),
                ticket: "CHG-1".to_owned(),
            }],
            trail: Vec::new(),
            trail_is_cut: false,
        },
        new_baseline: Some(stated),
    }
}

fn signed(record: &ChangeRecord) -> SignedRecord {
    let mut signed = SignedRecord::new(record).unwrap();
    signed.sign(id("j.meyer"), &key(1));
    signed
}

/// The claims of a record that is read back from its file.
fn claims(record: &ChangeRecord, believed: Believed<'_>) -> Vec<Claim> {
    let signed = SignedRecord::from_json(&signed(record).to_json()).unwrap();
    let read = ChangeRecord::from_bytes(&signed.record).unwrap();
    assert_eq!(read, *record);
    verify(&read, &signed, believed)
}

fn grade(claims: &[Claim], code: &str) -> Grade {
    let found = claims.iter().find(|claim| claim.code == code);
    found.unwrap_or_else(|| panic!("{code}: {claims:#?}")).grade
}

fn contradicted(claims: &[Claim]) -> Vec<&str> {
    let bad = claims.iter().filter(|claim| claim.grade == Grade::Contradicted);
    bad.map(|claim| claim.code).collect()
}

fn believes(approvers: &ApproverSet) -> Believed<'_> {
    Believed {
        approvers: Some(approvers),
        ..Believed::default()
    }
}

#[test]
fn a_record_proves_who_approved_what_to_somebody_who_has_the_approvers_keys() {
    let (set, fleet) = (plant().approvers, Fleet::of(&plant()).unwrap());
    let all = claims(
        &record(),
        Believed {
            fleet: Some(&fleet),
            ..believes(&set)
        },
    );
    assert_eq!(contradicted(&all), Vec::<&str>::new(), "{all:#?}");
    for code in [
        "approved",
        "baseline",
        "reason",
        "plans",
        "documents",
        "waves",
        "signed",
    ] {
        assert_eq!(grade(&all, code), Grade::Proved, "{code}");
    }
    for code in ["implementation", "effective", "health", "new-baseline", "preview"] {
        assert_eq!(grade(&all, code), Grade::Word, "{code}");
    }
}

/// The format that is kept: today's reader reads it, and today's writer writes it.
#[test]
fn a_record_is_written_as_it_was_when_its_format_was_made() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/change-record-1.json");
    if !path.exists() && std::env::var_os("PENSTOCK_FIXTURES").is_some() {
        std::fs::write(&path, signed(&record()).to_json() + "\n").unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    let read = SignedRecord::from_json(&kept).unwrap();
    assert_eq!(read.to_json() + "\n", kept);
    let record = ChangeRecord::from_bytes(&read.record).unwrap();
    assert_eq!(SignedRecord::new(&record).unwrap().record, read.record);
    let maker = Believed {
        maker: Some(key(1).public()),
        ..Believed::default()
    };
    let claims = verify(&record, &read, maker);
    assert_eq!(contradicted(&claims), Vec::<&str>::new());
    assert_eq!(grade(&claims, "signed"), Grade::Proved);
}

#[test]
fn without_keys_of_the_readers_own_a_record_says_that_it_proves_no_approval() {
    let all = claims(&record(), Believed::default());
    assert_eq!(contradicted(&all), Vec::<&str>::new());
    for code in ["approved", "baseline", "reason", "waves", "signer-unknown"] {
        assert_eq!(grade(&all, code), Grade::Word, "{code}");
    }
    let maker = Believed {
        maker: Some(key(1).public()),
        ..Believed::default()
    };
    assert_eq!(grade(&claims(&record(), maker), "signed"), Grade::Proved);
    let unsigned = SignedRecord::new(&record()).unwrap();
    let all = verify(&record(), &unsigned, Believed::default());
    assert_eq!(contradicted(&all), Vec::<&str>::new());
    assert_eq!(grade(&all, "unsigned"), Grade::Word);
}

#[test]
fn who_names_the_makers_key_does_not_believe_a_record_whose_signature_was_taken_away() {
    let maker = Believed {
        maker: Some(key(1).public()),
        ..Believed::default()
    };
    let mut lied = record();
    "e.okafor, at night".clone_into(&mut lied.implementation.started_by);
    let unsigned = SignedRecord::new(&lied).unwrap();
    assert_eq!(contradicted(&verify(&lied, &unsigned, maker)), ["not-by-maker"]);
    // Nor one that somebody else made, in their own name.
    lied.made_by = id("m.mallory");
    let mut other = SignedRecord::new(&lied).unwrap();
    other.sign(id("m.mallory"), &key(9));
    let claims = verify(&lied, &other, maker);
    let found = contradicted(&claims);
    assert!(found.contains(&"not-by-maker"), "{found:?}");
}

#[test]
fn what_does_not_fit_together_is_named() {
    type Change = fn(&mut ChangeRecord);
    let cases: &[(&str, Change)] = &[
        ("not-approved", |record| {
            record.authorisation.release.signatures.truncate(1);
        }),
        ("not-approved", |record| {
            let signatures = record.between[0].signatures.clone();
            record.authorisation.release.signatures = signatures;
        }),
        ("not-approved", |record| record.between.clear()),
        ("not-approved", |record| {
            record.baseline = Some(recorded(&release(1, None), TWO)).map(|mut other| {
                other.statement = other.statement.replace("the new pump", "another pump");
                other
            });
        }),
        ("unreadable", |record| {
            record.authorisation.release.statement.push(' ');
        }),
        ("unreadable", |record| {
            record.authorisation.release.signatures[0].signature.truncate(10);
        }),
        ("wrong-plant", |record| record.plant = id("another-plant")),
        ("plans", |record| {
            record.verification.gateways[1].plan_digest = Digest::of(b"other")
        }),
        ("plans", |record| {
            record.verification.gateways.pop();
        }),
        ("plans", |record| record.verification.gateways.swap(0, 1)),
        ("effective", |record| {
            record.verification.gateways[0]
                .effective
                .as_mut()
                .unwrap()
                .plan_digest = Digest::of(b"other");
        }),
        ("effective", |record| {
            record.verification.gateways[0].effective = None
        }),
        ("new-baseline", |record| record.new_baseline = None),
        ("new-baseline", |record| {
            record.implementation.stage = "rolled-back".to_owned()
        }),
        ("waves", |record| record.verification.gateways[0].wave += 1),
    ];
    let (set, fleet) = (plant().approvers, Fleet::of(&plant()).unwrap());
    for (number, (code, change)) in cases.iter().enumerate() {
        let mut changed = record();
        change(&mut changed);
        let all = claims(
            &changed,
            Believed {
                fleet: Some(&fleet),
                ..believes(&set)
            },
        );
        assert!(contradicted(&all).contains(code), "{number} {code}: {all:#?}");
    }
}

#[test]
fn a_record_that_its_maker_signed_and_somebody_altered_is_not_believed() {
    let set = plant().approvers;
    let honest = signed(&record());
    let mut lied = record();
    "e.okafor, at night".clone_into(&mut lied.implementation.started_by);
    let altered = SignedRecord {
        record: lied.to_bytes(),
        signatures: honest.signatures,
    };
    assert_eq!(
        contradicted(&verify(&lied, &altered, believes(&set))),
        ["altered"]
    );
    // A signature over a release is none over a record.
    let statement = release(1, None).statement.to_bytes();
    let over_release = SignedRecord {
        record: record().to_bytes(),
        signatures: vec![key(1).sign(id("j.meyer"), &statement).unwrap()],
    };
    assert_eq!(
        contradicted(&verify(&record(), &over_release, believes(&set))),
        ["altered"]
    );
}

#[test]
fn the_approvers_of_the_reader_count_and_not_those_in_the_record() {
    let others = approvers(2, &[("j.meyer", 8), ("a.silva", 9)]);
    assert_eq!(
        contradicted(&claims(&record(), believes(&others))),
        ["not-approved"]
    );
    let three = approvers(3, &[("j.meyer", 1), ("a.silva", 2), ("m.okoye", 3)]);
    assert_eq!(
        contradicted(&claims(&record(), believes(&three))),
        ["not-approved"]
    );
}

#[test]
fn a_rollout_that_did_not_complete_has_no_new_baseline_and_says_who_does_not_enforce_it() {
    let mut halted = record();
    halted.implementation.stage = "rolled-back".to_owned();
    halted.new_baseline = None;
    let back = &mut halted.verification.gateways[2];
    back.state = "reverted-hard".to_owned();
    back.effective.as_mut().unwrap().revision = 1;
    let set = plant().approvers;
    let all = claims(&halted, believes(&set));
    assert_eq!(contradicted(&all), Vec::<&str>::new());
    let words = |code: &str| all.iter().find(|claim| claim.code == code).unwrap().words.clone();
    assert_eq!(
        words("effective-not"),
        format!("not so: {}", halted.verification.gateways[2].name)
    );
    assert!(words("new-baseline").contains("rolled-back"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 8))]

    #[test]
    fn no_byte_of_a_signed_record_can_be_changed_unnoticed(at in any::<prop::sample::Index>(), by in 1..=255_u8) {
        let honest = signed(&record());
        let mut bytes = honest.record.clone();
        let at = at.index(bytes.len());
        bytes[at] = bytes[at].wrapping_add(by);
        let set = plant().approvers;
        if let Ok(read) = ChangeRecord::from_bytes(&bytes) {
            let altered = SignedRecord { record: bytes, signatures: honest.signatures };
            let all = verify(&read, &altered, believes(&set));
            prop_assert!(!contradicted(&all).is_empty());
        }
    }
}
