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
    assert_eq!(events(&blocks).len() as u64 + lost, 32);
    assert!(lost > 0 && spool.state().bytes <= limits.bytes_max);
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
