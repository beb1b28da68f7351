#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use penstock_policy::ids::Revision;
use penstock_policy::verdict::Decision;
use penstock_proto::audit::read_body;
use penstock_proto::v1::audit_event::Kind;

use super::super::{DriftStep, VerdictSeen};
use super::*;
use crate::audit::spool::Spool;
use crate::audit::{self, BLOCK_BYTES, Position, SpoolLimits};

fn lost(packets: u64) -> Observation {
    let cause = LossCause::KernelOverrun;
    Observation::Lost { packets, cause }
}

/// Takes so many, and makes durable what it is told to.
#[derive(Debug, Default, Clone)]
struct Trail {
    room: Arc<AtomicU64>,
    taken: Arc<AtomicU64>,
    settled: Arc<AtomicU64>,
}

impl Sink for Trail {
    fn offer(&self, _: &Observation) -> Option<u64> {
        let (room, taken) = (&self.room, &self.taken);
        room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| room.checked_sub(1))
            .ok()?;
        Some(taken.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn settled(&self) -> u64 {
        self.settled.load(Ordering::SeqCst)
    }
}

#[test]
fn what_finds_no_room_at_once_waits_its_turn_and_what_is_beyond_is_counted() {
    let (sender, mut receiver) = mpsc::channel(16);
    let outbox = Outbox::new(sender);
    for number in 0..16 + WAITING_MAX + 5 {
        outbox.put(lost(number as u64 + 1));
    }
    outbox.put(Observation::Drift {
        step: DriftStep::Found,
        message: String::new(),
        process: None,
    });
    let (mut came, mut counted, mut drifts) = (Vec::new(), 0, 0);
    while counted == 0 {
        while let Ok(observed) = receiver.try_recv() {
            match observed {
                Observation::Lost {
                    packets,
                    cause: LossCause::ReceiverSlow,
                } => counted += packets,
                Observation::Lost { packets, .. } => came.push(packets),
                _ => drifts += 1,
            }
        }
        outbox.flush();
    }
    let waited = 16 + WAITING_MAX as u64;
    assert_eq!(came, (1..=waited).collect::<Vec<_>>(), "in their order");
    assert_eq!(counted, (waited + 1..=waited + 5).sum::<u64>());
    assert_eq!(drifts, 1);
}

#[test]
fn what_was_handed_on_is_pending_until_it_is_durable() {
    let trail = Trail::default();
    let outbox = Outbox::new(trail.clone());
    trail.room.store(3, Ordering::SeqCst);
    for packets in [1, 10, 100, 1000] {
        outbox.put(lost(packets));
    }
    assert_eq!(outbox.pending(), 1111, "three are on their way, one waits");
    trail.settled.store(2, Ordering::SeqCst);
    assert_eq!(outbox.pending(), 1100);
    trail.room.store(1, Ordering::SeqCst);
    outbox.flush();
    trail.settled.store(3, Ordering::SeqCst);
    assert_eq!(outbox.pending(), 1000);
    trail.settled.store(4, Ordering::SeqCst);
    assert_eq!(outbox.pending(), 0);
}

#[test]
fn packets_that_the_kernel_never_logged_are_not_pending() {
    let outbox = Outbox::new(Trail::default());
    outbox.put(Observation::Lost {
        packets: 1_000_000,
        cause: LossCause::RateLimit,
    });
    assert_eq!(outbox.pending(), 0);
}

#[test]
fn packets_that_the_kernels_log_left_out_are_pending_of_their_own_until_their_loss_is_durable() {
    let trail = Trail::default();
    let outbox = Outbox::new(trail.clone());
    let left_out = |packets| Observation::Lost {
        packets,
        cause: LossCause::RateLimit,
    };
    trail.room.store(1, Ordering::SeqCst);
    outbox.put(left_out(10));
    outbox.put(left_out(100));
    outbox.put(lost(1));
    assert_eq!((outbox.pending_left_out(), outbox.pending()), (110, 1));
    trail.room.store(9, Ordering::SeqCst);
    outbox.flush();
    assert_eq!(outbox.pending_left_out(), 110, "handed on is not durable");
    trail.settled.store(1, Ordering::SeqCst);
    assert_eq!(outbox.pending_left_out(), 100);
    trail.settled.store(3, Ordering::SeqCst);
    assert_eq!((outbox.pending_left_out(), outbox.pending()), (0, 0));
}

#[test]
fn a_disk_that_fails_for_long_makes_nothing_durable_and_costs_no_memory() {
    let trail = Trail::default();
    let outbox = Outbox::new(trail.clone());
    let all = 10 * HANDED_MAX as u64;
    trail.room.store(all, Ordering::SeqCst);
    for _ in 0..all {
        outbox.put(lost(1));
    }
    assert_eq!(outbox.pending(), all);
    assert_eq!(outbox.lock().handed.0.len(), HANDED_MAX);
    trail.settled.store(all - 1, Ordering::SeqCst);
    assert!(outbox.pending() > 0, "the last is not durable");
    trail.settled.store(all, Ordering::SeqCst);
    assert_eq!(outbox.pending(), 0);
}

fn verdict(port: u16) -> Observation {
    Observation::Verdict(VerdictSeen {
        decision: Decision::Deny,
        flow_id: None,
        flow: None,
        revision: Revision(1),
        ingress: "lan1".to_owned(),
        egress: "lan2".to_owned(),
        source: "10.1.0.5".parse().ok(),
        destination: "10.2.0.9".parse().ok(),
        protocol: 6,
        port,
        count: 1,
        first_ms: 1,
        last_ms: 2,
        reason: "no flow permits it".to_owned(),
        proofs: [None; 2],
    })
}

/// Puts verdicts, waiting for the trail where `paced`; the time until all are durable, and how many are in the trail one by one and
/// in loss records.
async fn report(all: u64, paced: bool) -> (Duration, u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let limits = SpoolLimits {
        bytes_max: 1 << 30,
        block_bytes: BLOCK_BYTES,
        free_bytes_min: 0,
    };
    let (audit, writer) = audit::start(folder.path().to_owned(), limits);
    let outbox = Outbox::new(audit.clone());
    let begun = Instant::now();
    let pending_below = async |max: u64| {
        while outbox.pending() > max {
            assert!(begun.elapsed() < Duration::from_secs(120));
            outbox.flush();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    for number in 0..all {
        if paced && number % 500 == 0 {
            pending_below(WAITING_MAX as u64 / 2).await;
        }
        outbox.put(verdict((number % 60_000) as u16));
    }
    pending_below(0).await;
    let took = begun.elapsed();
    audit.close().await;
    writer.await.unwrap();
    let (mut spool, _) = Spool::open(folder.path(), limits, 1).unwrap();
    let blocks = spool.read(Position::default(), usize::MAX, usize::MAX).unwrap();
    let events = blocks
        .iter()
        .flat_map(|block| read_body(&block.body).unwrap().events);
    let (mut told, mut lost) = (0, 0);
    for event in events {
        match event.kind {
            Some(Kind::Verdict(verdict)) => told += verdict.count,
            Some(Kind::Loss(loss)) => lost += loss.events,
            _ => {}
        }
    }
    (took, told, lost)
}

/// Prints how long it takes. The plan in force has no part in it, however large it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_verdicts_that_come_as_fast_as_the_trail_takes_them_are_all_in_it_one_by_one() {
    let (took, told, lost) = report(100_000, true).await;
    println!("100,000 verdicts durable within {took:?}");
    assert_eq!((told, lost), (100_000, 0));
}

/// On one thread, so that nothing is written before all of them came.
#[tokio::test]
async fn verdicts_that_come_faster_are_in_the_trail_or_in_a_loss_record_and_then_none_is_pending() {
    let (_, told, lost) = report(50_000, false).await;
    assert_eq!(told + lost, 50_000);
    assert!(lost > 0);
}
