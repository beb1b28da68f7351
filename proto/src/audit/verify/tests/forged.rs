//! What somebody does who has a machine, its keys, or a copy of either.

use super::*;

#[test]
fn a_gateway_that_was_set_back_or_copied_seals_with_numbers_that_were_there() {
    let mut source = trail(&[(5, 0), (0, 2), (5, 0)]);
    let image = source.copy();
    source.event("goes on");
    source.seal();
    let mut both = source.blocks.clone();
    // The coordinator has told it that its places are taken: it goes on in another epoch, with the keys that it has.
    let mut copy = image;
    copy.blocks.clear();
    copy.new_epoch();
    copy.event("the copy goes on");
    copy.seal();
    both.append(&mut copy.blocks);
    let report = read(&both);
    assert!(
        alarms(&report).iter().any(|text| text.contains("set back")),
        "{report}"
    );
    // In the same epoch it is a fork before that.
    let mut copy = source.copy();
    copy.blocks.clear();
    copy.head.next_sequence -= 1;
    copy.event("another");
    let mut both = source.blocks.clone();
    both.append(&mut copy.blocks);
    assert!(!read(&both).is_whole());
}

#[test]
fn whoever_takes_the_machine_can_neither_alter_what_was_sealed_nor_begin_the_keys_again_unseen() {
    let mut source = Source::new();
    for step in 0..5 {
        source.event(&format!("step {step}"));
        source.seal();
    }
    source.vouch(Plant::shared());
    assert!(read(&source.blocks).is_whole());
    // Seals 0 and 1 were uploaded. What comes after them is written again with what the machine has now.
    let rewritten = |keys: SealKeys| {
        let mut other = source.copy();
        other.cut_to(4);
        other.keys = keys;
        other.event("what happened was something else");
        other.seal();
        other.vouch(Plant::shared());
        alarms(&read(&other.blocks)).join("\n")
    };
    let with_newer = rewritten(source.copy().keys);
    assert!(with_newer.contains("3 seals before"), "{with_newer}");
    let with_new = rewritten(SealKeys::begin().unwrap());
    assert!(with_new.contains("began again"), "{with_new}");
}

#[test]
fn keys_that_were_not_announced_and_seals_that_their_key_did_not_sign_are_found() {
    let mut source = trail(&[]);
    source.keys = SealKeys::from_text(&SealKeys::begin().unwrap().to_text().replacen(
        " 0 ",
        &format!(" {} ", source.keys.number()),
        1,
    ))
    .unwrap();
    source.event("by another");
    source.seal();
    let report = read(&source.blocks);
    assert!(
        matches!(
            report.findings.last(),
            Some(Finding::Seal(SealFinding::OtherKey { .. }))
        ),
        "{report}"
    );
    let mut source = trail(&[]);
    let (text, event) = source.sealed_as("works/gw-a");
    let mut note = Note::parse(&event.note).unwrap();
    note.text = SealText { time_ms: 6, ..text }.to_string();
    source.put(vec![Kind::Seal(SealEvent {
        note: note.to_bytes().into(),
        certificates: Vec::new(),
    })]);
    let report = read(&source.blocks);
    assert!(
        matches!(
            report.findings.last(),
            Some(Finding::Seal(SealFinding::Forged { .. }))
        ),
        "{report}"
    );
}

#[test]
fn an_event_that_only_a_coordinator_writes_is_a_forgery_in_a_gateways_trail() {
    let mut source = trail(&[]);
    source.put(vec![Kind::Operator(OperatorEvent::default())]);
    let report = read(&source.blocks);
    assert!(
        matches!(report.findings.last(), Some(Finding::Forged(_, "operator"))),
        "{report}"
    );
}

#[test]
fn the_word_of_another_plant_another_gateway_or_another_key_proves_nothing() {
    let plant = Plant::shared();
    for other in [
        Plant::new("gw-a", KeyKind::EcdsaP256),
        Plant::new("gw-b", KeyKind::EcdsaP256),
        Plant {
            key: FileKey::generate(KeyKind::EcdsaP256).unwrap().into(),
            chain: plant.chain.clone(),
            ..Plant::new("gw-a", KeyKind::EcdsaP256)
        },
    ] {
        let mut source = Source::new();
        source.event("one");
        source.seal();
        source.vouch(&other);
        let report = read_by(plant, &source.blocks);
        assert_eq!(report.vouched, None);
        assert!(
            matches!(
                report.findings.last(),
                Some(Finding::Seal(SealFinding::WrongWord { .. }))
            ),
            "{report}"
        );
    }
    for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Ed25519] {
        let plant = Plant::new("gw-a", kind);
        let mut source = Source::new();
        source.event("one");
        source.seal();
        source.vouch(&plant);
        let report = read_by(&plant, &source.blocks);
        assert!(
            report.is_whole() && report.vouched == report.sealed,
            "{kind:?}: {report}"
        );
    }
}

#[test]
fn a_seal_of_another_trail_or_another_place_is_found_and_one_that_moved_to_a_later_epoch_seals_nothing_there()
{
    let mut source = trail(&[(5, 0)]);
    let moved = source.sealed_as("works/gw-a").1;
    let elsewhere = source.sealed_as("works/gw-b").1;
    let mut other = source.copy();
    other.put(vec![Kind::Seal(elsewhere)]);
    assert!(alarms(&read(&other.blocks))[0].contains("works/gw-b"));
    let mut other = source.copy();
    other.event("between");
    other.put(vec![Kind::Seal(moved.clone())]);
    assert!(alarms(&read(&other.blocks))[0].contains("other blocks"));
    source.new_epoch();
    let sealed = read(&source.blocks).sealed;
    source.put(vec![Kind::Seal(moved)]);
    let report = read(&source.blocks);
    assert!(report.is_whole() && report.sealed == sealed, "{report}");
}

#[test]
fn keys_for_which_nobody_vouches_are_an_alarm_after_a_while_and_not_before() {
    let mut source = Source::new();
    for _ in 1..UNVOUCHED_MAX {
        source.seal();
    }
    assert!(read(&source.blocks).is_whole());
    source.seal();
    let report = read(&source.blocks);
    assert!(alarms(&report)[0].contains("vouched for none"), "{report}");
    assert_eq!(report.vouched, None);
}
