//! Spools that agents kept in a database, as they left them: what was in them is there afterwards, wherever the takeover was cut off.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::PathBuf;

use penstock_proto::audit::read_body;
use penstock_proto::v1::AuditBlock;

use super::*;
use crate::audit::opening::EpochReason;

const LIMITS: SpoolLimits = SpoolLimits {
    bytes_max: 64 * 1024,
    block_bytes: 300,
    free_bytes_min: 0,
};

/// A folder with a spool of before: two events of each severity in each of four commits, a block each pair, 1/5 acknowledged, five events
/// lost and not reported; where it is `moving`, forked at 1/5, with one event more in epoch 2.
fn earlier(moving: bool) -> tempfile::TempDir {
    let name = if moving {
        "spool-sled-moving.txt"
    } else {
        "spool-sled.txt"
    };
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let text = std::fs::read_to_string(fixtures.join(name)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("spool")).unwrap();
    let mut file: Option<(PathBuf, Vec<u8>)> = None;
    // A file's name and length, and below it what of it is not zeros: an offset and the bytes there.
    for line in text.lines().chain(["end 0"]) {
        let (first, second) = line.trim().split_once(' ').unwrap();
        if line.starts_with(' ') {
            let at = usize::from_str_radix(first, 16).unwrap();
            let (_, bytes) = file.as_mut().unwrap();
            for place in 0..second.len() / 2 {
                bytes[at + place] = u8::from_str_radix(&second[place * 2..place * 2 + 2], 16).unwrap();
            }
            continue;
        }
        let path = folder.path().join("spool").join(first);
        let before = file.replace((path, vec![0; second.parse().unwrap()]));
        if let Some((path, bytes)) = before {
            std::fs::write(path, bytes).unwrap();
        }
    }
    std::fs::create_dir(folder.path().join("spool/blobs")).unwrap();
    let next = if moving { "2 1" } else { "1 16" };
    std::fs::write(
        folder.path().join("spool.mark"),
        format!("penstock-spool-mark/1 {next}\n"),
    )
    .unwrap();
    folder
}

fn all(spool: &mut Spool) -> Vec<AuditBlock> {
    spool.read(Position::default(), usize::MAX, usize::MAX).unwrap()
}

/// The numbers of the events, which are their times.
fn events(blocks: &[AuditBlock]) -> Vec<u64> {
    let bodies = blocks.iter().map(|block| read_body(&block.body).unwrap().events);
    let mut numbers: Vec<_> = bodies
        .flatten()
        .map(|event| event.time_ms - 1_790_000_000_000)
        .collect();
    numbers.sort_unstable();
    numbers
}

/// The severity of each event.
fn severities(blocks: &[AuditBlock]) -> impl Iterator<Item = i32> {
    let bodies = blocks.iter().map(|block| read_body(&block.body).unwrap().events);
    bodies.flatten().map(|event| event.severity)
}

fn at(epoch: u64, sequence: u64) -> Position {
    Position { epoch, sequence }
}

#[test]
fn a_spool_of_before_is_taken_over_with_every_block_at_its_place() {
    let folder = earlier(false);
    let (mut spool, begun) = Spool::open(folder.path(), LIMITS, 1).unwrap();
    assert_eq!(begun, None);
    assert_eq!(spool.next(), at(1, 16));
    assert_eq!(spool.accounts.acked, at(1, 5));
    assert_eq!(spool.state().lost_events, 5);
    let blocks = all(&mut spool);
    let mut head = None;
    for (block, sequence) in blocks.iter().zip(0..) {
        let accepted = penstock_proto::audit::Head::accept(head.as_ref(), block).unwrap();
        assert_eq!((block.sequence, accepted.missing), (sequence, 0));
        head = Some(accepted.head);
    }
    assert_eq!(head, Some(spool.head()));
    assert_eq!(events(&blocks), (1..=32).collect::<Vec<_>>());
    assert!(!folder.path().join("spool").exists() && !folder.path().join("spool.taken").exists());
    spool.append(Vec::new(), 1_790_000_900_000).unwrap();
    assert_eq!(spool.next(), at(1, 17), "what was lost before is reported");
    drop(spool);
    let (mut spool, begun) = Spool::open(folder.path(), LIMITS, 1).unwrap();
    assert_eq!((all(&mut spool).len(), begun), (17, None));
}

#[test]
fn what_was_about_to_move_to_a_new_epoch_moves_after_the_takeover() {
    let folder = earlier(true);
    let (mut spool, begun) = Spool::open(folder.path(), LIMITS, 1).unwrap();
    assert_eq!((begun, spool.next()), (None, at(2, 1)));
    while spool.has_blocks_to_move() {
        spool.move_blocks(4).unwrap();
    }
    // The five that were delivered, the one of the new epoch, and the eleven that moved behind it.
    let blocks = all(&mut spool);
    let places: Vec<_> = blocks.iter().map(|block| (block.epoch, block.sequence)).collect();
    let expected = (0..5)
        .map(|sequence| (1, sequence))
        .chain((0..12).map(|sequence| (2, sequence)));
    assert_eq!(places, expected.collect::<Vec<_>>());
    assert_eq!(events(&blocks), (1..=33).collect::<Vec<_>>());
}

#[test]
fn a_takeover_that_is_cut_off_anywhere_is_done_again_and_nothing_is_there_twice() {
    for removed in ["trail/accounts", "trail/4", "trail/1", "spool.mark", "nothing"] {
        let folder = earlier(false);
        let place = folder.path().join("spool");
        // As it is before the database is moved away; and with what a crash may not have kept.
        copy(&place, folder.path(), LIMITS).unwrap();
        assert!(place.exists());
        if removed == "trail/accounts" || removed == "nothing" {
            let _ = std::fs::remove_dir_all(folder.path().join(removed));
        } else if removed.starts_with("trail") {
            // The accounts are the last: without one of the logs, they are not there either.
            std::fs::remove_dir_all(folder.path().join(removed)).unwrap();
            std::fs::remove_dir_all(folder.path().join("trail/accounts")).unwrap();
        } else {
            std::fs::remove_file(folder.path().join(removed)).unwrap();
        }
        let (mut spool, begun) = Spool::open(folder.path(), LIMITS, 1).unwrap();
        assert_eq!(begun, None, "{removed}");
        assert_eq!(spool.next(), at(1, 16), "{removed}");
        assert_eq!(
            events(&all(&mut spool)),
            (1..=32).collect::<Vec<_>>(),
            "{removed}"
        );
    }
}

#[test]
fn a_spool_of_before_without_room_for_all_keeps_the_gravest_that_is_not_delivered_and_reports_the_rest() {
    let folder = earlier(false);
    let limits = SpoolLimits {
        bytes_max: 3000,
        ..LIMITS
    };
    let (mut spool, begun) = Spool::open(folder.path(), limits, 1).unwrap();
    assert_eq!((begun, spool.next()), (None, at(1, 16)));
    let blocks = all(&mut spool);
    let lost = spool.state().lost_events - 5;
    // Ten events are delivered: they are no loss, and have no room.
    assert_eq!(events(&blocks).len() as u64 + lost, 32 - 10);
    assert!(lost > 0 && spool.state().bytes <= limits.bytes_max);
    // All alarms and all warnings that are not delivered, and of the notices what had room.
    let kept = |severity| severities(&blocks).filter(|of| *of == severity).count();
    assert_eq!((kept(4), kept(3), kept(1)), (4, 6, 0));
}

#[test]
fn a_spool_of_before_stays_whole_while_the_disk_is_below_its_reserve() {
    let folder = earlier(false);
    let limits = SpoolLimits {
        free_bytes_min: u64::MAX,
        ..LIMITS
    };
    let refused = Spool::open(folder.path(), limits, 1);
    assert!(matches!(refused, Err(SpoolError::NoRoom { .. })));
    let (mut spool, begun) = Spool::open(folder.path(), LIMITS, 1).unwrap();
    assert_eq!((begun, events(&all(&mut spool))), (None, (1..=32).collect()));
}

/// What an agent of before leaves that finds its database gone: epoch 2, with these events one block each, `acked` up to there.
fn put_back(folder: &Path, numbers: std::ops::RangeInclusive<u64>, acked: Position) {
    let guard = |key: &[u8], mut content: Vec<u8>| {
        let mut hash = <sha2::Sha256 as sha2::Digest>::new();
        sha2::Digest::update(&mut hash, key);
        sha2::Digest::update(&mut hash, &content);
        content.extend_from_slice(&sha2::Digest::finalize(hash)[..8]);
        content
    };
    let db = database::open(&folder.join("spool"), CACHE_BYTES, SEGMENT_BYTES).unwrap();
    let tree = db.open_tree("trail").unwrap();
    let (mut sequence, mut digest, mut bytes) = (0, penstock_proto::audit::GENESIS, 0);
    for number in numbers {
        let kind = crate::audit::record::agent("step", "put back");
        let severity = penstock_proto::v1::Severity::Notice;
        let event = crate::audit::record::event(1_790_000_000_000 + number, severity, 1, kind);
        for (facts, body) in crate::audit::waiting::cut(vec![event.into()], 300) {
            let mut content = vec![facts.severity];
            let cost = 249 + body.len() as u64;
            crate::audit::layout::put(
                &mut content,
                &[cost, facts.events, 0, 0, facts.first_ms, facts.last_ms],
            );
            content.extend_from_slice(&digest);
            content.extend_from_slice(&body);
            let mut key = b"b".to_vec();
            crate::audit::layout::put(&mut key, &[2, sequence]);
            tree.insert(&key, guard(&key, content)).unwrap();
            digest = block_digest(&digest, 2, sequence, &body);
            (sequence, bytes) = (sequence + 1, bytes + cost);
        }
    }
    let mut meta = vec![1];
    crate::audit::layout::put(&mut meta, &[2, sequence, bytes, acked.epoch, acked.sequence, 0]);
    crate::audit::layout::put(&mut meta, &[0; 16]);
    crate::audit::layout::put(&mut meta, &[u64::MAX, u64::MAX]);
    meta.extend_from_slice(&digest);
    tree.insert(META_KEY, guard(META_KEY, meta)).unwrap();
    db.flush().unwrap();
    std::fs::write(
        folder.join("spool.mark"),
        format!("penstock-spool-mark/1 2 {sequence}\n"),
    )
    .unwrap();
}

#[test]
fn what_an_agent_that_was_put_back_wrote_is_taken_over_and_what_it_left_undelivered_moves_behind_it() {
    // Where the coordinator is when it sees the agent again: where it was, or with two blocks of the new epoch.
    for theirs in [at(1, 5), at(2, 2)] {
        let folder = earlier(false);
        Spool::open(folder.path(), LIMITS, 1).unwrap().0.close().unwrap();
        put_back(folder.path(), 33..=36, theirs);
        let (mut spool, begun) = Spool::open(folder.path(), LIMITS, 1).unwrap();
        assert_eq!((begun, spool.next()), (None, at(2, 4)));
        let ack = penstock_proto::v1::AuditAck {
            epoch: theirs.epoch,
            next_sequence: theirs.sequence,
            ..Default::default()
        };
        let resumed = spool.resume(&ack).unwrap();
        assert_eq!(resumed, crate::audit::resume::Resume::From(theirs));
        while spool.has_blocks_to_move() {
            spool.move_blocks(4).unwrap();
        }
        assert_eq!(events(&all(&mut spool)), (1..=36).collect::<Vec<_>>());
        let sent = spool.read(theirs, usize::MAX, usize::MAX).unwrap();
        // The first five blocks.
        let is_first = |number: &u64| *number <= 8 || [15, 16].contains(number);
        let delivered = |number: &u64| match theirs.epoch {
            1 => is_first(number),
            _ => is_first(number) || [33, 34].contains(number),
        };
        let expected = (1..=36).filter(|number| !delivered(number));
        assert_eq!(events(&sent), expected.collect::<Vec<_>>(), "{theirs:?}");
        assert_eq!(spool.state().lost_events, 5);
    }
}

#[test]
fn what_an_agent_that_was_put_back_wrote_finds_room_where_the_rest_is_delivered() {
    let folder = earlier(false);
    let (mut spool, _) = Spool::open(folder.path(), LIMITS, 1).unwrap();
    spool.acknowledge(at(1, 16));
    let limits = SpoolLimits {
        bytes_max: spool.state().bytes + 200,
        ..LIMITS
    };
    spool.close().unwrap();
    put_back(folder.path(), 33..=36, at(1, 16));
    let (mut spool, begun) = Spool::open(folder.path(), limits, 1).unwrap();
    assert_eq!((begun, spool.next()), (None, at(2, 4)));
    let held = events(&all(&mut spool));
    assert!((33..=36).all(|number| held.contains(&number)), "{held:?}");
    assert!(spool.state().bytes <= limits.bytes_max);
    assert_eq!(spool.state().lost_events, 5, "what is delivered is no loss");
}

#[test]
fn a_damaged_spool_of_before_is_set_aside_and_the_trail_goes_on_behind_its_mark() {
    let folder = earlier(false);
    let file = folder.path().join("spool/db");
    let length = std::fs::metadata(&file).unwrap().len();
    std::fs::write(&file, vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
    let (mut spool, begun) = Spool::open(folder.path(), LIMITS, 1).unwrap();
    assert!(matches!(&begun, Some(EpochReason::Lost(_))), "{begun:?}");
    assert_eq!(spool.next().sequence, 0);
    assert_eq!(spool.next().epoch, 2);
    assert_eq!(spool.state().lost_events, 16, "the blocks that the mark knew of");
    assert!(all(&mut spool).is_empty());
    assert!(!folder.path().join("spool").exists());
}
