//! The trail is sealed as it is written, whatever step the machine stops at; judged by the verifier that everybody uses.

use std::path::{Path, PathBuf};
use std::time::Duration;

use penstock_policy::ids::PlantId;
use penstock_proto::audit::Head;
use penstock_proto::audit::chain::SealTrust;
use penstock_proto::audit::keys::SealKeys;
use penstock_proto::audit::seal::BlocksSince;
use penstock_proto::audit::verify::{Finding, TrailReport, TrailVerifier};
use proptest::prelude::*;
use tokio::sync::watch;

use super::super::check::{CheckReport, check};
use super::super::sealer::{Proof, Sealer, keep_witness, shown};
use super::super::spool::Spool;
use super::super::waiting::WaitingEvent;
use super::super::*;
use super::{LIMITS, all, crash, event, folder};

const NAME: &str = "works/gw-a";

fn verified(blocks: &[AuditBlock]) -> TrailReport {
    let plant: PlantId = "works".parse().unwrap();
    let mut verifier = TrailVerifier::new(SealTrust {
        plant: &plant,
        source: "gw-a".into(),
        roots: &[],
    });
    for block in blocks {
        verifier.take(block, None);
    }
    verifier.report()
}

fn alarms(report: &TrailReport) -> usize {
    report.findings.iter().filter(|found| found.is_alarm()).count()
}

fn sealer(folder: &Path) -> Sealer {
    Sealer::new(folder, watch::channel(Some(NAME.to_owned())).1)
}

/// One commit with a seal; `erases`: the machine lives on until the key that signed is erased.
fn commit(spool: &mut Spool, sealer: &mut Sealer, events: Vec<AuditEvent>, now_ms: u64, erases: bool) {
    let order = sealer.order();
    let appended = spool
        .append_sealed(
            events.into_iter().map(WaitingEvent::from).collect(),
            now_ms,
            order,
        )
        .unwrap();
    if let Some(text) = appended.seal.filter(|_| erases) {
        sealer.sealed(text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 10))]

    #[test]
    fn a_trail_goes_on_and_verifies_whatever_step_of_a_seal_the_machine_stops_at(
        steps in proptest::collection::vec((0..5_u8, 0..5_i32, 0..600_usize), 1..30),
    ) {
        let mut place = folder();
        let (mut spool, _) = Spool::open(place.path(), LIMITS, 1).unwrap();
        let mut seals = sealer(place.path());
        for (now, (step, severity, size)) in (1..).zip(&steps) {
            let now_ms = now * 2000;
            let events = vec![event(*severity, now_ms, *size), event(1, now_ms, 300)];
            match step {
                0 | 1 => spool.append(events, now_ms).unwrap(),
                2 => commit(&mut spool, &mut seals, events, now_ms, true),
                _ => {
                    // Killed behind the commit, before the key is erased; or just after.
                    commit(&mut spool, &mut seals, events, now_ms, *step == 3);
                    let left = crash(place.path());
                    drop(spool);
                    (spool, _) = Spool::open(left.path(), LIMITS, 1).unwrap();
                    seals = sealer(left.path());
                    place = left;
                }
            }
        }
        for after in [2000, 4000] {
            commit(&mut spool, &mut seals, vec![event(4, 0, 1)], 1_000_000 + after, true);
        }
        let report = verified(&all(&mut spool));
        prop_assert_eq!(alarms(&report), 0, "{}", report);
        // What the last commit shed itself is reported by the next one.
        let owed: u64 = spool.accounts.untold.iter().map(|loss| loss.blocks).sum();
        prop_assert!(report.unexplained() <= owed, "{} owed: {}", owed, report);
        prop_assert_eq!(report.unsealed, (0, 0));
        prop_assert!(report.missing > 0 || report.loose == 0, "{}", report);
    }
}

#[test]
fn a_trail_that_moves_to_another_epoch_begins_its_keys_again_and_all_that_moved_is_sealed_there() {
    let place = folder();
    let (mut spool, _) = Spool::open(place.path(), LIMITS, 1).unwrap();
    let mut seals = sealer(place.path());
    for now in 1..5 {
        commit(&mut spool, &mut seals, vec![event(3, now, 50)], now, true);
    }
    let ahead = AuditAck {
        epoch: 1,
        next_sequence: 100,
        digest: vec![7; 32].into(),
        witness: None,
        trails: None,
    };
    assert!(matches!(spool.resume(&ahead).unwrap(), Resume::Reseated(..)));
    seals.begin_again();
    while spool.has_blocks_to_move() {
        spool.move_blocks(3).unwrap();
    }
    commit(&mut spool, &mut seals, Vec::new(), 9, true);
    let report = verified(&all(&mut spool));
    assert!(report.is_whole(), "{report}");
    assert_eq!(
        (report.first.unwrap().epoch, report.events, report.unsealed),
        (2, 4, (0, 0))
    );
}

#[test]
fn keys_that_are_lost_or_set_back_begin_again_or_repeat_and_a_verifier_says_so() {
    let place = folder();
    let (mut spool, _) = Spool::open(place.path(), LIMITS, 1).unwrap();
    let mut seals = sealer(place.path());
    let keys = place.path().join("spool.keys");
    commit(&mut spool, &mut seals, vec![event(3, 1, 50)], 1, true);
    let old = std::fs::read(&keys).unwrap();
    for now in 2..5 {
        commit(&mut spool, &mut seals, vec![event(3, now, 50)], now, true);
    }
    let copied = crash(place.path());
    std::fs::remove_file(&keys).unwrap();
    commit(
        &mut spool,
        &mut sealer(place.path()),
        vec![event(3, 6, 50)],
        6,
        true,
    );
    let lost = verified(&all(&mut spool));
    assert_eq!(alarms(&lost), 1, "{lost}");
    assert!(lost.to_string().contains("began again"), "{lost}");
    std::fs::write(copied.path().join("spool.keys"), old).unwrap();
    let (mut spool, _) = Spool::open(copied.path(), LIMITS, 1).unwrap();
    commit(
        &mut spool,
        &mut sealer(copied.path()),
        vec![event(3, 6, 50)],
        6,
        true,
    );
    let back = verified(&all(&mut spool));
    assert!(back.to_string().contains("set back"), "{back}");
}

#[test]
fn while_the_key_cannot_be_kept_the_trail_goes_on_and_the_same_key_seals() {
    let place = folder();
    let (mut spool, _) = Spool::open(place.path(), LIMITS, 1).unwrap();
    let elsewhere = folder();
    let keys = elsewhere.path().join("keys");
    std::fs::create_dir(&keys).unwrap();
    let mut seals = sealer(&keys);
    commit(&mut spool, &mut seals, vec![event(3, 1, 50)], 1, true);
    std::fs::remove_dir_all(&keys).unwrap();
    for now in 2..4 {
        commit(&mut spool, &mut seals, vec![event(3, now, 50)], now, true);
        assert!(seals.fault().is_some());
    }
    std::fs::create_dir(&keys).unwrap();
    commit(&mut spool, &mut seals, vec![event(3, 5, 50)], 5, true);
    assert_eq!(seals.fault(), None);
    let report = verified(&all(&mut spool));
    assert!(report.is_whole() && report.unsealed == (0, 0), "{report}");
}

fn checked(folder: &Path) -> CheckReport {
    let plant: PlantId = "works".parse().unwrap();
    let trust = SealTrust {
        plant: &plant,
        source: "gw-a".into(),
        roots: &[],
    };
    check(folder, LIMITS, trust, None).unwrap()
}

/// All files of a folder.
fn files(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
}

#[test]
fn a_check_reads_the_trail_where_it_lies_while_it_is_written_and_changes_nothing() {
    let place = folder();
    assert_eq!(checked(place.path()).trail.blocks, 0, "there is none yet");
    let (mut spool, _) = Spool::open(place.path(), LIMITS, 1).unwrap();
    let mut seals = sealer(place.path());
    for now in 1..60 {
        let now_ms = now * 2000;
        commit(
            &mut spool,
            &mut seals,
            vec![event(3, now_ms, 50), event(1, now_ms, 500)],
            now_ms,
            true,
        );
        if now % 20 == 0 {
            let mut before = Vec::new();
            files(place.path(), &mut before);
            let report = checked(place.path());
            assert!(report.is_whole() && report.trail.unsealed == (0, 0), "{report}");
            let mut after = Vec::new();
            files(place.path(), &mut after);
            assert!(before == after);
            assert_eq!(
                report.trail,
                verified(&all(&mut spool)),
                "as the agent itself reads it"
            );
        }
    }
    assert!(checked(place.path()).trail.missing > 0, "some of it was shed");
}

#[test]
fn a_check_finds_a_damaged_place_lost_accounts_and_a_block_that_somebody_altered() {
    let place = folder();
    let (mut spool, _) = Spool::open(place.path(), LIMITS, 1).unwrap();
    let mut seals = sealer(place.path());
    for now in 1..5 {
        commit(&mut spool, &mut seals, vec![event(3, now, 50)], now, true);
    }
    spool.close().unwrap();
    let damaged = crash(place.path());
    let log = std::fs::read_dir(damaged.path().join("trail/3"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let report = checked(damaged.path());
    assert!(!report.is_whole() && report.damaged > 0, "{report}");
    assert!(!report.plan().is_empty());
    let lost = crash(place.path());
    std::fs::remove_dir_all(lost.path().join("trail/accounts")).unwrap();
    let report = checked(lost.path());
    assert!(
        !report.is_whole() && report.to_string().contains("accounts"),
        "{report}"
    );
    // With frames and accounts as they should be: by somebody who knows the form of the log.
    let (mut spool, _) = Spool::open(place.path(), LIMITS, 1).unwrap();
    let mut blocks = all(&mut spool);
    let report = verified(&blocks);
    assert!(report.is_whole(), "{report}");
    blocks[0].body = b"".as_slice().into();
    assert!(!verified(&blocks).is_whole());
}

#[test]
fn the_coordinators_word_is_kept_where_it_goes_further_and_shown() {
    let place = folder();
    let mut keys = SealKeys::begin().unwrap();
    let mut word = |sequence: u64| {
        let head = Head {
            epoch: 1,
            next_sequence: sequence,
            digest: [1; 32],
        };
        let seal = keys.seal(NAME, head, BlocksSince::new(0).named(), 1_000).1;
        keys = keys.advanced().unwrap();
        seal
    };
    assert_eq!(Proof::read(place.path()), None);
    let texts: Vec<_> = [5, 9, 7].map(&mut word).into_iter().collect();
    let note = penstock_proto::audit::note::Note::parse(&texts[1].note).unwrap();
    std::fs::write(place.path().join("spool.sealed"), &note.text).unwrap();
    let unwitnessed = Proof::read(place.path()).unwrap();
    assert_eq!(
        unwitnessed.words(5_000),
        "up to 1/9, 4 s ago; witnessed by no coordinator yet"
    );
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    for mut word in texts {
        word.certificates = vec![certificate.der().to_vec().into()];
        keep_witness(place.path(), &word).unwrap();
    }
    let proof = Proof::read(place.path()).unwrap();
    assert_eq!(proof.words(5_000), "up to 1/9, 4 s ago; witnessed up to 1/9");
    let plant: PlantId = "works".parse().unwrap();
    let trust = SealTrust {
        plant: &plant,
        source: "gw-a".into(),
        roots: &[],
    };
    assert!(
        sealer::witnessed(place.path(), &trust).is_err(),
        "it is no coordinator's"
    );
}

#[test]
fn a_quiet_trail_gets_no_seal_a_grave_event_one_soon_and_seals_ask_for_none() {
    let place = folder();
    let (mut spool, _) = Spool::open(place.path(), LIMITS, 1).unwrap();
    let mut seals = sealer(place.path());
    assert!(!seals.is_due(&[]));
    let waiting = |severity| [WaitingEvent::from(event(severity, 1, 1))];
    let quiet = waiting(1);
    assert!(seals.is_due(&quiet), "the first one at once");
    commit(&mut spool, &mut seals, vec![event(1, 1, 1)], 1, true);
    assert!(!seals.is_due(&[]) && !seals.is_due(&quiet));
    seals.grew(1, false);
    assert!(!seals.is_due(&waiting(3)), "not within a second");
    std::thread::sleep(Duration::from_millis(1050));
    assert!(!seals.is_due(&quiet));
    assert!(seals.is_due(&waiting(3)) && waiting(4)[0].is_grave());
    seals.grew(1024, false);
    assert!(seals.is_due(&[]));
    let nameless = Sealer::new(place.path(), watch::channel(None).1);
    assert!(
        !nameless.is_due(&quiet),
        "a gateway that is not enrolled has no name to seal by"
    );
}

#[tokio::test]
async fn a_gateway_that_is_enrolled_seals_what_it_wrote_by_the_time_it_stops() {
    let place = tempfile::tempdir().unwrap();
    let limits = SpoolLimits {
        bytes_max: 64 << 20,
        ..LIMITS
    };
    let (audit, writer) = start(place.path().to_owned(), limits);
    audit.record(Severity::Info, record::agent("tick", "before it is enrolled"));
    audit.seal_as(NAME.to_owned());
    for n in 0..2000 {
        audit.record(Severity::Info, record::agent("tick", &n.to_string()));
    }
    audit.close().await;
    writer.await.unwrap();
    let (mut spool, _) = Spool::open(place.path(), limits, 1).unwrap();
    let report = verified(&all(&mut spool));
    assert!(report.is_whole(), "{report}");
    assert_eq!((report.events, report.unsealed), (2002, (0, 0)), "{report}");
    let seal = shown(place.path()).unwrap();
    assert_eq!((seal.name.as_str(), seal.head.epoch), (NAME, 1));
    assert!(
        matches!(report.findings.as_slice(), [Finding::Seal(_)]),
        "it begins, and nothing else"
    );
}

#[test]
fn what_was_delivered_and_given_up_before_the_coordinator_was_restored_is_accounted_for() {
    let place = folder();
    let (mut spool, _) = Spool::open(place.path(), LIMITS, 1).unwrap();
    let mut seals = sealer(place.path());
    let mut backup = Vec::new();
    let write = |spool: &mut Spool, seals: &mut Sealer, from: u64| {
        for now in from..from + 60 {
            let events = vec![event(3, now, 50), event(1, now, 400)];
            commit(spool, seals, events, now * 2000, true);
            spool.acknowledge(spool.next());
        }
    };
    for now in 1..6 {
        commit(&mut spool, &mut seals, vec![event(1, now, 100)], now * 2000, true);
    }
    backup.extend(all(&mut spool));
    let head = spool.head();
    write(&mut spool, &mut seals, 10);
    let restored = AuditAck {
        epoch: head.epoch,
        next_sequence: head.next_sequence,
        digest: head.digest.to_vec().into(),
        witness: None,
        trails: None,
    };
    let lost_before = spool.state().lost_events;
    assert_eq!(
        spool.resume(&restored).unwrap(),
        Resume::From(Position {
            epoch: head.epoch,
            sequence: head.next_sequence,
        })
    );
    assert_eq!(
        spool.resume(&restored).unwrap(),
        Resume::From(Position {
            epoch: head.epoch,
            sequence: head.next_sequence,
        }),
        "counted once"
    );
    assert_eq!(
        spool.state().lost_events,
        lost_before,
        "how many events, nobody knows"
    );
    for now in 200..203 {
        commit(&mut spool, &mut seals, vec![event(4, now, 10)], now * 2000, true);
    }
    let behind = spool.read(
        Position {
            epoch: head.epoch,
            sequence: head.next_sequence,
        },
        usize::MAX,
        usize::MAX,
    );
    backup.extend(behind.unwrap());
    let report = verified(&backup);
    assert!(report.missing > 20, "{report}");
    assert_eq!(report.unexplained(), 0, "{report}");
    assert_eq!(report.told.0, report.missing, "{report}");
    assert_eq!(checked(place.path()).unexplained(), 0);
}
