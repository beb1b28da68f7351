#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use penstock_policy::ids::Digest;

use super::*;
use crate::enforce::nft::readback::base_seal;

const BOOT: &str = "boot-1";

fn held(tables: &[u8], structure: u8, seal: Option<&str>) -> KernelRuleset {
    KernelRuleset {
        tables: tables.to_vec(),
        structure: Digest([structure; 32]),
        maps: BTreeMap::new(),
        seal: seal.map(str::to_owned),
        handles: Digest([7; 32]),
    }
}

/// What a planned stop left: rules of structure 1.
fn left() -> (KernelRuleset, Note) {
    let held = held(&[1], 1, Some("penstock a b"));
    let note = Note {
        boot: BOOT.to_owned(),
        version: "1".to_owned(),
        content: content(&held),
        handles: handles(&held),
        generation: 10,
        ended: true,
        changing: false,
        at_ms: 5_000,
        open: None,
    };
    (held, note)
}

fn judged(note: Option<&Note>, boot: &str, held: &KernelRuleset, adopted: bool) -> Continuity {
    judge(StartFacts {
        note,
        had_policy: note.is_some(),
        boot,
        booted_ms: 2_000,
        held,
        generation: 10,
        adopted,
        families: &[1],
    })
}

fn opened_from(found: &Continuity) -> Option<u64> {
    match found {
        Continuity::Opened { from_ms, .. } => Some(*from_ms),
        _ => None,
    }
}

#[test]
fn rules_that_were_taken_away_or_changed_while_no_agent_ran_stood_open_since_it_was_last_known() {
    let (held_before, note) = left();
    for (what, found) in [
        ("removed", held(&[], 0, None)),
        ("changed", held(&[1], 2, Some("penstock a b"))),
        ("unsealed", held(&[1], 3, None)),
        ("base", held(&[1], 4, Some(&base_seal(Digest([4; 32]))))),
    ] {
        assert_eq!(
            opened_from(&judged(Some(&note), BOOT, &found, false)),
            Some(5_000),
            "{what}"
        );
    }
    let put_back = KernelRuleset {
        handles: Digest([8; 32]),
        ..held_before
    };
    assert_eq!(
        opened_from(&judged(Some(&note), BOOT, &put_back, true)),
        Some(5_000),
        "the same rules under other handles were away for a while"
    );
    let killed = Note { ended: false, ..note };
    assert_eq!(
        opened_from(&judged(Some(&killed), BOOT, &put_back, true)),
        Some(5_000),
        "also where the agent was killed"
    );
    let amid = Note {
        changing: true,
        ..killed
    };
    assert_eq!(
        judged(Some(&amid), BOOT, &put_back, true),
        Continuity::Stood(None),
        "but not where it was killed amid a change of its own"
    );
    let after_a_stop = Note { ended: true, ..amid };
    assert_eq!(
        judged(Some(&after_a_stop), BOOT, &put_back, true),
        Continuity::Stood(None),
        "nor are the transactions of that change other programs'"
    );
}

#[test]
fn a_planned_restart_an_upgrade_a_first_start_and_a_reboot_behind_base_rules_raise_no_alarm() {
    let (held_before, note) = left();
    assert_eq!(
        judged(Some(&note), BOOT, &held_before, true),
        Continuity::Stood(Some(0))
    );
    assert_eq!(
        judged(Some(&note), BOOT, &held_before, false),
        Continuity::Renewed
    );
    assert_eq!(judged(None, BOOT, &held(&[], 0, None), false), Continuity::First);
    let base = held(&[1], 4, Some(&base_seal(Digest([4; 32]))));
    assert_eq!(judged(Some(&note), "boot-2", &base, false), Continuity::Closed);
    // From an agent that kept no note.
    let before = |held: &KernelRuleset, adopted| {
        judge(StartFacts {
            note: None,
            had_policy: true,
            boot: BOOT,
            booted_ms: 2_000,
            held,
            generation: 10,
            adopted,
            families: &[1],
        })
    };
    assert_eq!(before(&held_before, true), Continuity::Stood(None));
    assert_eq!(before(&held_before, false), Continuity::Renewed);
    assert_eq!(opened_from(&before(&held(&[], 0, None), false)), Some(0));
}

#[test]
fn a_reboot_without_base_rules_stood_open_since_the_boot() {
    let (_, note) = left();
    let none = held(&[], 0, None);
    assert_eq!(
        opened_from(&judged(Some(&note), "boot-2", &none, false)),
        Some(2_000)
    );
    // What somebody put into a table of that name is no base rule.
    let forged = held(&[1], 9, Some(&base_seal(Digest([4; 32]))));
    assert_eq!(
        opened_from(&judged(Some(&note), "boot-2", &forged, false)),
        Some(2_000)
    );
}

#[test]
fn an_agent_that_was_killed_amid_a_change_is_no_foreign_hand_unless_the_tables_are_gone() {
    let (_, mut note) = left();
    (note.ended, note.changing) = (false, true);
    assert_eq!(
        judged(Some(&note), BOOT, &held(&[1], 5, None), false),
        Continuity::Unfinished
    );
    assert_eq!(
        opened_from(&judged(Some(&note), BOOT, &held(&[], 0, None), false)),
        Some(5_000)
    );
}

#[test]
fn what_was_found_is_shown_for_a_day_and_says_from_when_until_when() {
    let open = OpenSpan {
        from_ms: 1_700_000_000_000,
        until_ms: 1_700_000_060_000,
        message: GONE.to_owned(),
    };
    let sentence = open.sentence();
    assert!(
        sentence.contains("2023-11-14T22:13:20Z") && sentence.contains("2023-11-14T22:14:20Z"),
        "{sentence}"
    );
    let day_ms = 24 * 3600 * 1000;
    assert!(open.is_shown(open.until_ms + day_ms) && !open.is_shown(open.until_ms + day_ms + 1));
}

#[test]
fn a_note_that_was_renewed_holds_longer_than_when_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let (_, mut note) = left();
    note.write(&path);
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    assert!(
        Note::read(&path).unwrap().at_ms > note.at_ms,
        "the file's own time"
    );
    let back = std::time::UNIX_EPOCH + Duration::from_secs(1);
    std::fs::File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .set_modified(back)
        .unwrap();
    assert_eq!(Note::read(&path).unwrap(), note);
    touch(&path);
    assert!(std::fs::metadata(&path).unwrap().modified().unwrap() >= written);
    note.ended = false;
    std::fs::write(&path, b"no note").unwrap();
    assert_eq!(Note::read(&path), None);
}
