//! Losing, damaging, rolling back and forking a spool: each is noticed and said.

use penstock_proto::v1::AuditAck;

use super::super::opening::EpochReason;
use super::super::resume::Resume;
use super::*;

fn filled(folder: &Path, blocks: u64) -> Spool {
    let (mut spool, _) = Spool::open(folder, LIMITS, 1).unwrap();
    for n in 0..blocks {
        spool.append(vec![event(2, n, 10)], n * 10_000).unwrap();
    }
    spool
}

fn ack(head: Head) -> AuditAck {
    AuditAck {
        trails: None,
        epoch: head.epoch,
        next_sequence: head.next_sequence,
        digest: head.digest.to_vec().into(),
        witness: None,
    }
}

#[test]
fn a_deleted_log_begins_a_new_epoch_and_counts_the_blocks_that_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 5).close().unwrap();
    std::fs::remove_dir_all(folder.path().join("trail")).unwrap();
    let (spool, begun) = Spool::open(folder.path(), LIMITS, 1).unwrap();
    assert!(matches!(begun, Some(EpochReason::Lost(_))), "{begun:?}");
    assert_eq!(
        spool.next(),
        Position {
            epoch: 2,
            sequence: 0
        }
    );
    assert_eq!(spool.state().lost_events, 5);
}

#[test]
fn a_rolled_back_log_begins_a_new_epoch_and_keeps_the_old_blocks() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 3).close().unwrap();
    let old = crash(folder.path());
    let mut spool = Spool::open(folder.path(), LIMITS, 1).unwrap().0;
    spool.append(vec![event(2, 0, 10)], 0).unwrap();
    spool.close().unwrap();
    std::fs::remove_dir_all(folder.path().join("trail")).unwrap();
    crate::audit::tests::copy(&old.path().join("trail"), &folder.path().join("trail"));
    let (mut spool, begun) = Spool::open(folder.path(), LIMITS, 1).unwrap();
    assert!(matches!(begun, Some(EpochReason::Lost(_))), "{begun:?}");
    assert_eq!(
        spool.next(),
        Position {
            epoch: 2,
            sequence: 0
        }
    );
    assert_eq!(all(&mut spool).len(), 3);
}

#[test]
fn the_pieces_that_restarts_leave_are_put_together_and_lose_nothing() {
    let folder = folder();
    let limits = SpoolLimits {
        bytes_max: 8 << 20,
        ..LIMITS
    };
    for n in 0..60 {
        let (mut spool, begun) = Spool::open(folder.path(), limits, 1).unwrap();
        assert_eq!(begun.is_some(), n == 0);
        spool
            .append(vec![event(2, n, 10), event(4, n, 10)], n * 10_000)
            .unwrap();
        let files = |name: &str| std::fs::read_dir(folder.path().join(name)).unwrap().count();
        assert!(files("trail/2") <= 8 && files("trail/4") <= 8 && files("trail/accounts") == 1);
        let blocks = all(&mut spool);
        assert_eq!(
            (verify(&blocks), blocks.len() as u64),
            ((0, 2 * n + 2, 0, 0), 2 * n + 2)
        );
    }
}

#[test]
fn pieces_are_put_together_to_no_more_than_a_whole_segment_however_many_there_are() {
    let folder = folder();
    let limits = SpoolLimits {
        bytes_max: 8 << 20,
        ..LIMITS
    };
    let (mut spool, _) = Spool::open(folder.path(), limits, 1).unwrap();
    for n in 0..40 {
        // As a commit that failed leaves it.
        spool.shelves.of_mut(2).abandon();
        let batch = vec![event(2, n, 900); 20];
        spool.append(batch, n * 10_000).unwrap();
    }
    spool.close().unwrap();
    let (mut spool, _) = Spool::open(folder.path(), limits, 1).unwrap();
    let files = std::fs::read_dir(folder.path().join("trail/2")).unwrap();
    let sizes: Vec<_> = files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .collect();
    assert!(sizes.len() < 40, "{sizes:?}");
    assert!(sizes.iter().all(|bytes| *bytes <= (8 << 20) / 32), "{sizes:?}");
    assert_eq!(verify(&all(&mut spool)), (0, 40 * 20, 0, 0));
}

#[test]
fn an_upload_goes_on_where_the_coordinator_is_and_goes_back_when_it_was_restored() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = filled(folder.path(), 6);
    let full = spool.head();
    let blocks = all(&mut spool);
    let third = blocks[..3]
        .iter()
        .fold(None, |head: Option<Head>, block| {
            Some(Head::accept(head.as_ref(), block).unwrap().head)
        })
        .unwrap();
    assert_eq!(
        spool.resume(&ack(full)).unwrap(),
        Resume::From(Position {
            epoch: 1,
            sequence: 6
        })
    );
    assert_eq!(
        spool.resume(&ack(third)).unwrap(),
        Resume::From(Position {
            epoch: 1,
            sequence: 3
        })
    );
    let nothing = AuditAck::default();
    let Resume::From(at) = spool.resume(&nothing).unwrap() else {
        panic!("an empty coordinator is no fork");
    };
    assert_eq!(spool.read(at, 100, 1 << 20).unwrap().len(), 6);
}

#[test]
fn a_gateway_restored_from_an_image_moves_what_it_wrote_since_into_a_new_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = filled(folder.path(), 3);
    spool.acknowledge(Position {
        epoch: 1,
        sequence: 3,
    });
    spool.append(vec![event(2, 50, 0)], 50).unwrap();
    let image = crash(folder.path());
    for n in 0..5 {
        spool.append(vec![event(2, 100 + n, 10)], 100).unwrap();
    }
    let coordinator = spool.head();
    drop(spool);

    let (mut spool, begun) = Spool::open(image.path(), LIMITS, 1).unwrap();
    assert!(begun.is_none(), "the image is whole in itself");
    for n in 0..20 {
        spool.append(vec![event(3, 200 + n, 20)], 200).unwrap();
    }
    let Resume::Reseated(at, _) = spool.resume(&ack(coordinator)).unwrap() else {
        panic!("the fork was not seen");
    };
    assert_eq!(
        at,
        Position {
            epoch: 2,
            sequence: 0
        }
    );
    spool.append(vec![event(4, 300, 0)], 300).unwrap();
    while spool.has_blocks_to_move() {
        spool.move_blocks(3).unwrap();
    }
    let moved = spool.read(at, 1000, 1 << 20).unwrap();
    let (missing, events, ..) = verify(&moved);
    assert_eq!((missing, events), (0, 1 + 1 + 20));
    assert!(moved.iter().all(|block| block.epoch == 2));
    let head = spool.head();
    spool.close().unwrap();
    let (spool, _) = Spool::open(image.path(), LIMITS, 1).unwrap();
    assert_eq!(spool.head(), head);
}

#[test]
fn what_is_damaged_while_a_full_spool_moves_to_a_new_epoch_is_counted() {
    let folder = folder();
    let (mut spool, _) = Spool::open(folder.path(), LIMITS, 1).unwrap();
    let mut appended = 0;
    while spool.state().lost_events == 0 {
        appended += 1;
        spool
            .append(vec![event(2, appended, 500)], appended * 10_000)
            .unwrap();
    }
    let ahead = Head {
        next_sequence: appended * 2,
        ..spool.head()
    };
    assert!(matches!(spool.resume(&ack(ahead)).unwrap(), Resume::Reseated(..)));
    appended += 1;
    spool.append(vec![event(4, appended, 500)], 0).unwrap();
    let names = std::fs::read_dir(folder.path().join("trail/2")).unwrap();
    let mut paths: Vec<_> = names.map(|name| name.unwrap().path()).collect();
    paths.sort();
    let path = &paths[paths.len() - 3];
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
    while spool.has_blocks_to_move() {
        spool.move_blocks(3).unwrap();
    }
    let (_, present, ..) = verify(&all(&mut spool));
    assert_eq!(present + spool.state().lost_events, appended);
}

#[test]
fn a_coordinator_that_claims_an_absurd_epoch_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = filled(folder.path(), 1);
    let before = spool.next();
    let lie = AuditAck {
        epoch: u64::MAX,
        next_sequence: u64::MAX,
        digest: vec![0; 3].into(),
        witness: None,
        trails: None,
    };
    assert!(spool.resume(&lie).is_err());
    assert_eq!(spool.next(), before);
}

#[test]
fn a_file_system_without_room_refuses_the_append_and_counts_it_later() {
    let folder = tempfile::tempdir().unwrap();
    let limits = SpoolLimits {
        free_bytes_min: u64::MAX,
        ..LIMITS
    };
    let (mut spool, _) = Spool::open(folder.path(), limits, 1).unwrap();
    assert!(spool.append(vec![event(4, 1, 1)], 1).is_err());
    spool.count_lost(super::super::layout::Cause::DiskError, 1, 1, 1);
    spool.limits = LIMITS;
    spool.append(vec![event(1, 5000, 1)], 5000).unwrap();
    let (_, events, told, _) = verify(&all(&mut spool));
    assert_eq!((events, told), (1, 1));
}
