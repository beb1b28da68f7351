//! How much audit the coordinator takes in: read, verified against the chain, and durable (DESIGN §12:
//! ≥ 200,000 events/s on 2 cores). `cargo bench -p penstock-coordinator`; the figure is "items" (events) per second.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::atomic::{AtomicU64, Ordering};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use penstock_coordinator::ingest::Ingest;
use penstock_coordinator::journal::Journal;
use penstock_coordinator::store::{BlockFilter, Store};
use penstock_policy::ids::CoordinatorId;
use penstock_proto::audit::{GENESIS, block_digest};
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AuditBlock, AuditBlockBody, AuditEvent, Decision, Severity, VerdictEvent};
use prost::Message as _;

const BLOCKS: u64 = 128;
const EVENTS: u64 = 500;

fn main() {
    divan::main();
}

fn event(n: u64) -> AuditEvent {
    AuditEvent {
        time_ms: 1_800_000_000_000 + n,
        severity: Severity::Warning.into(),
        revision: 7,
        kind: Some(Kind::Verdict(VerdictEvent {
            decision: Decision::Deny.into(),
            flow_id: 0,
            flow: String::new(),
            ingress: "eth1".into(),
            egress: "eth2".into(),
            source: "10.1.20.9".into(),
            destination: "10.20.4.7".into(),
            protocol: 6,
            port: 502,
            count: 1 + n % 7,
            first_ms: 1_800_000_000_000 + n,
            last_ms: 1_800_000_000_900 + n,
            reason: "no rule matches; closest is control-room-to-pumps/polling: the source differs".into(),
            ..VerdictEvent::default()
        })),
    }
}

/// A trail as a gateway sends it.
fn trail() -> Vec<AuditBlock> {
    let mut previous = GENESIS;
    (0..BLOCKS)
        .map(|sequence| {
            let body = AuditBlockBody {
                events: (0..EVENTS).map(|n| event(sequence * EVENTS + n)).collect(),
            }
            .encode_to_vec();
            let block = AuditBlock {
                epoch: 1,
                sequence,
                previous_digest: previous.to_vec().into(),
                body: body.clone().into(),
            };
            previous = block_digest(&previous, 1, sequence, &body);
            block
        })
        .collect()
}

#[divan::bench(args = [1, 8], sample_count = 10, sample_size = 1)]
fn events_verified_and_stored(bencher: Bencher<'_, '_>, gateways: u64) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let store = Store::open(&dir.path().join("bench.db")).unwrap();
    let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
    let ingest = Ingest::new(store.clone(), journal);
    let trail = trail();
    let bytes: usize = trail.iter().map(|block| block.body.len()).sum();
    let round = AtomicU64::new(0);
    bencher
        .counter(ItemsCount::new(gateways * BLOCKS * EVENTS))
        .counter(BytesCount::new(gateways * bytes as u64))
        .bench(|| {
            // New sources each time, so that every block is new.
            let round = round.fetch_add(1, Ordering::Relaxed);
            let tasks: Vec<_> = (0..gateways)
                .map(|n| {
                    let (ingest, trail) = (ingest.clone(), trail.clone());
                    runtime.spawn(async move {
                        let source = format!("gw-{round}-{n}");
                        for blocks in trail.chunks(32) {
                            let done = ingest.accept(&source, blocks.to_vec(), 1).await.unwrap();
                            assert!(done.fault.is_none());
                        }
                    })
                })
                .collect();
            runtime.block_on(async {
                for task in tasks {
                    task.await.unwrap();
                }
            });
        });
    // What was acknowledged is found.
    let first = BlockFilter {
        source: Some("gw-0-0".to_owned()),
        ..BlockFilter::default()
    };
    let found = runtime.block_on(store.blocks(first, usize::MAX >> 1)).unwrap();
    assert_eq!(found.len() as u64, BLOCKS);
}
