//! Emergencies: more people sign, and nothing else about their signatures is easier.

use super::*;

const THREE: &[(&str, u8)] = &[("j.meyer", 1), ("a.silva", 2), ("k.ito", 3)];

/// Approvers of whom two sign a release, and so many an emergency.
fn with_emergencies(threshold: Option<u8>) -> ApproverSet {
    ApproverSet {
        emergency_threshold: threshold,
        ..approvers(
            2,
            &[("j.meyer", 1), ("a.silva", 2), ("k.ito", 3), ("e.okafor", 4)],
        )
    }
}

fn believing(approvers: ApproverSet) -> Trust {
    Trust { approvers, ..trust() }
}

fn emergency(approvers: &ApproverSet, revision: u64, parent: Option<Digest>) -> Release {
    let mut plant = plant();
    plant.approvers = approvers.clone();
    let draft = Draft {
        emergency: true,
        ..draft(revision, parent)
    };
    build(&plant, draft).unwrap()
}

#[test]
fn an_emergency_needs_the_signatures_of_the_emergency_threshold_and_says_that_it_is_one() {
    let trust = believing(with_emergencies(Some(3)));
    let release = emergency(&trust.approvers, 1, None);
    let offered = |signers: &[(&str, u8)]| Parts::of(&release, &gateway(), signers);
    assert_eq!(offered(TWO).refusal(&trust), "under-signed");
    let verified = offered(THREE).verify(&trust).unwrap();
    assert!(verified.release.statement.emergency);
    assert_eq!(verified.release.signers.len(), 3);
    // Its author is one of four approvers, and is not counted here either.
    let with_author = [TWO, &[("e.okafor", 4)]].concat();
    assert_eq!(offered(&with_author).refusal(&trust), "self-approved");
    // The same change in no hurry needs two.
    let mut plant = plant();
    plant.approvers = trust.approvers.clone();
    let usual = build(&plant, draft(1, None)).unwrap();
    let verified = Parts::of(&usual, &gateway(), TWO).verify(&trust).unwrap();
    assert!(!verified.release.statement.emergency);
}

#[test]
fn who_decides_whether_there_are_emergencies_are_the_approvers_before_it() {
    // Neither does a release bring its own permission ...
    let without = believing(with_emergencies(None));
    let release = emergency(&with_emergencies(Some(3)), 1, None);
    let refused = Parts::of(&release, &gateway(), THREE)
        .verify(&without)
        .unwrap_err();
    assert_eq!(refused.code(), "no-emergencies");
    assert!(refused.to_string().contains("`emergency_threshold`"), "{refused}");
    // ... nor one that is easier: of those before it all four would have to sign.
    let all = believing(with_emergencies(Some(4)));
    assert_eq!(
        Parts::of(&release, &gateway(), THREE).refusal(&all),
        "under-signed"
    );
    // What was stored as less than the usual threshold is not less.
    let lower = believing(ApproverSet {
        threshold: 3,
        ..with_emergencies(Some(1))
    });
    assert_eq!(
        Parts::of(&release, &gateway(), TWO).refusal(&lower),
        "under-signed"
    );
}

#[test]
fn what_was_signed_as_no_emergency_is_never_taken_for_one_nor_the_other_way_round() {
    let trust = believing(with_emergencies(Some(3)));
    for emergencies in [true, false] {
        let mut plant = plant();
        plant.approvers = trust.approvers.clone();
        let drafted = Draft {
            emergency: emergencies,
            ..draft(1, None)
        };
        let mut parts = Parts::of(&build(&plant, drafted).unwrap(), &gateway(), THREE);
        parts.verify(&trust).unwrap();
        let mut statement = Statement::from_bytes(&parts.statement).unwrap();
        statement.emergency = !emergencies;
        parts.statement = statement.to_bytes();
        assert_eq!(parts.refusal(&trust), "altered");
    }
    // There is one way to write that it is none: not at all.
    let spelt = |value: &str| {
        respelt(|text| text.trim_end_matches('}').to_owned() + &format!(r#","emergency":{value}}}"#))
    };
    assert_eq!(spelt("false").refusal(&trust), "altered");
    assert_eq!(spelt("true").refusal(&trust), "under-signed");
    let written = String::from_utf8(good().statement).unwrap();
    assert!(!written.contains("emergency"), "{written}");
}

#[test]
fn an_emergency_in_the_middle_of_a_chain_needs_as_many_signatures_as_anywhere() {
    let believed = believing(with_emergencies(Some(3)));
    let before = {
        let mut plant = plant();
        plant.approvers = believed.approvers.clone();
        build(&plant, draft(1, None)).unwrap()
    };
    let held = Parts::of(&before, &gateway(), TWO).verify(&believed).unwrap();
    let between = |signers: &[(&str, u8)]| {
        let two = emergency(&believed.approvers, 2, Some(before.statement.digest()));
        let mut plant = plant();
        plant.approvers = believed.approvers.clone();
        let three = build(&plant, draft(3, Some(two.statement.digest()))).unwrap();
        let statement = two.statement.to_bytes();
        let signatures = sign(&statement, signers);
        Parts {
            chain: vec![(statement, signatures)],
            ..Parts::of(&three, &gateway(), TWO)
        }
    };
    assert_eq!(between(TWO).refusal(&held.release.next), "under-signed");
    let verified = between(THREE).verify(&held.release.next).unwrap();
    // What comes after it waits for its window again.
    assert!(!verified.release.statement.emergency);
}

#[test]
fn thresholds_that_make_an_emergency_easier_or_impossible_are_in_no_statement() {
    let refused = |threshold: u8, emergency: u8| {
        let set = ApproverSet {
            threshold,
            ..with_emergencies(Some(emergency))
        };
        let mut plant = plant();
        plant.approvers = set;
        build(&plant, draft(1, None)).is_err()
    };
    for (threshold, emergency, is_refused) in [
        (2, 1, true),
        (2, 2, true),
        (2, 3, false),
        (2, 4, false),
        (2, 5, true),
        (4, 4, false),
        (4, 3, true),
    ] {
        assert_eq!(
            refused(threshold, emergency),
            is_refused,
            "{threshold} {emergency}"
        );
    }
}
