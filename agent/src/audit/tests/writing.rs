//! The writer: group commit, overflow, and a database that is taken away under it.

use std::time::Duration;

use super::super::spool::Spool;
use super::super::*;
use super::{LIMITS, event, verify};

async fn until(audit: &Audit, what: impl FnMut(&AuditState) -> bool) -> AuditState {
    let mut state = audit.state();
    tokio::time::timeout(Duration::from_secs(60), state.wait_for(what))
        .await
        .unwrap()
        .unwrap()
        .clone()
}

fn limits() -> SpoolLimits {
    SpoolLimits {
        bytes_max: 64 << 20,
        ..LIMITS
    }
}

#[tokio::test]
async fn every_recorded_event_is_in_the_trail_or_in_a_loss_record() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, writer) = start(folder.path().to_owned(), limits());
    // Three times what the queue holds, without ever letting the writer run.
    let total = QUEUE_MAX as u64 * 3;
    for n in 0..total {
        audit.record(Severity::Info, record::agent("tick", &n.to_string()));
    }
    until(&audit, |state| {
        state.spool.next_sequence > 0 && state.spool.lost_events > 0
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    audit.record(Severity::Info, record::agent("tick", "last"));
    audit.close().await;
    writer.await.unwrap();
    let (mut spool, begun) = spool::Spool::open(folder.path(), limits(), 1).unwrap();
    assert!(begun.is_none());
    let (missing, events, told, _) = verify(&super::all(&mut spool));
    // The writer's own word that the trail began is one more.
    assert_eq!((missing, events + told), (0, total + 2));
    assert!(told > 0);
}

#[tokio::test]
async fn a_spool_that_cannot_be_opened_counts_losses_and_recovers_when_the_way_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("state");
    std::fs::write(&place, "a file where the folder should be").unwrap();
    let (audit, writer) = start(place.clone(), limits());
    audit.record(Severity::Alarm, record::agent("lost", "one"));
    let state = until(&audit, |state| state.spool.lost_events == 1).await;
    assert_eq!(state.fault.unwrap().code, "spool-failed");
    std::fs::remove_file(&place).unwrap();
    audit.record(Severity::Alarm, record::agent("lost", "two"));
    until(&audit, |state| {
        state.spool.next_sequence > 0 && state.fault.is_none()
    })
    .await;
    audit.record(Severity::Alarm, record::agent("kept", "three"));
    audit.close().await;
    writer.await.unwrap();
    let (mut spool, _) = spool::Spool::open(&place, limits(), 1).unwrap();
    let (_, events, told, _) = verify(&super::all(&mut spool));
    assert_eq!(
        events + told,
        4,
        "the beginning and `three` are there, and each other event is or is told as lost"
    );
    // Whether `two` came before the database was tried again is a matter of time.
    assert!((1..=2).contains(&told), "{told}");
}

#[tokio::test]
async fn a_coordinators_trail_that_cannot_be_followed_is_a_fault_and_one_alarm() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, writer) = start(folder.path().to_owned(), limits());
    let lie = AuditAck {
        epoch: u64::MAX,
        next_sequence: 1,
        digest: vec![0; 32].into(),
        witness: None,
        trails: None,
    };
    // It is asked for again as long as the session stands.
    for _ in 0..5 {
        assert!(audit.resume(lie.clone()).await.is_err());
    }
    let trail_ahead = |state: &AuditState| {
        state
            .fault
            .as_ref()
            .is_some_and(|fault| fault.code == "trail-ahead")
    };
    until(&audit, trail_ahead).await;
    audit.resume(AuditAck::default()).await.unwrap();
    until(&audit, |state| state.fault.is_none()).await;
    audit.close().await;
    writer.await.unwrap();
    let (mut spool, _) = spool::Spool::open(folder.path(), limits(), 1).unwrap();
    let (_, events, ..) = verify(&super::all(&mut spool));
    assert_eq!(events, 2, "that the trail began, and the alarm");
}

#[tokio::test]
async fn a_mark_that_cannot_be_read_keeps_no_event_out_of_a_whole_spool_and_is_a_fault_until_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(folder.path(), limits(), 1).unwrap();
    spool.append(vec![event(3, 1, 10)], 1).unwrap();
    spool.close().unwrap();
    // A folder in its place cannot be read as a file, by nobody: as a disk that reports errors.
    let mark = folder.path().join("spool.mark");
    std::fs::remove_file(&mark).unwrap();
    std::fs::create_dir(&mark).unwrap();
    let (audit, writer) = start(folder.path().to_owned(), limits());
    audit.record(Severity::Alarm, record::agent("kept", "two"));
    let has_fault = |state: &AuditState| {
        state
            .fault
            .as_ref()
            .is_some_and(|fault| fault.code == "spool-mark-failed")
    };
    until(&audit, |state| state.spool.next_sequence == 2 && has_fault(state)).await;
    std::fs::remove_dir(&mark).unwrap();
    until(&audit, |state| state.fault.is_none()).await;
    let state = audit.state().borrow().clone();
    assert_eq!((state.spool.lost_events, state.next.epoch), (0, 1), "{state:?}");
    audit.close().await;
    writer.await.unwrap();
    let marked = mark::read(folder.path()).unwrap();
    assert_eq!(
        marked,
        Some(Position {
            epoch: 1,
            sequence: 2
        })
    );
    assert!(!folder.path().join("spool.damaged").exists());
}

#[tokio::test]
async fn a_spool_that_is_gone_with_a_mark_that_cannot_be_read_is_no_first_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("spool.mark")).unwrap();
    let (_, begun) = Spool::open(folder.path(), limits(), 1).unwrap();
    assert!(
        matches!(&begun, Some(super::super::opening::EpochReason::Lost(why)) if why.contains("is not known")),
        "{begun:?}"
    );
}
