//! What is called settled is durable: an event, or its loss.

use std::time::Duration;

use super::super::spool::Spool;
use super::super::*;
use super::{LIMITS, all, crash, verify};

const PATIENCE: Duration = Duration::from_secs(60);

async fn until_settled(audit: &Audit, number: u64) {
    let settled = async {
        while audit.settled() < number {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.unwrap();
}

fn tick(audit: &Audit) -> Option<u64> {
    audit.offer_event(|| audit.now(record::agent("tick", "")))
}

/// Events, and events that are reported as lost, in what a crash at this moment leaves; but for that the trail began.
fn left(folder: &std::path::Path) -> (u64, u64) {
    let crashed = crash(folder);
    let (mut spool, _) = Spool::open(crashed.path(), LIMITS, 1).unwrap();
    let (_, events, lost, _) = verify(&all(&mut spool));
    (events - 1, lost)
}

#[tokio::test]
async fn what_is_settled_survives_a_crash_at_that_moment() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, unwritten) = queue();
    // Before there is a writer nothing is, and what finds no room is not numbered.
    let numbers: Vec<u64> = std::iter::from_fn(|| tick(&audit)).collect();
    assert_eq!(numbers, (1..=QUEUE_MAX as u64).collect::<Vec<_>>());
    assert_eq!(audit.settled(), 0);
    let limits = SpoolLimits {
        bytes_max: 64 << 20,
        ..LIMITS
    };
    let writer = unwritten.write_to(folder.path().to_owned(), limits);
    until_settled(&audit, QUEUE_MAX as u64).await;
    assert_eq!(left(folder.path()), (QUEUE_MAX as u64, 0));
    audit.close().await;
    writer.await.unwrap();
    assert_eq!(tick(&audit), None, "nothing writes it any more");
}

#[tokio::test]
async fn what_a_failing_disk_lost_is_settled_once_its_loss_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("state");
    std::fs::write(&place, "a file where the folder should be").unwrap();
    let (audit, writer) = start(place.clone(), LIMITS);
    for _ in 0..5 {
        tick(&audit).unwrap();
    }
    let mut state = audit.state();
    let lost = state.wait_for(|state| state.spool.lost_events == 5);
    tokio::time::timeout(PATIENCE, lost).await.unwrap().unwrap();
    assert_eq!(audit.settled(), 0, "that they are lost is known in memory alone");
    std::fs::remove_file(&place).unwrap();
    until_settled(&audit, 5).await;
    let (events, lost) = left(&place);
    assert_eq!(events + lost, 5);
    assert!(lost > 0);
    audit.close().await;
    writer.await.unwrap();
}
