//! How much audit a coordinator takes in, verified and acknowledged, by where its store is: on one SQLite file, replicated by one NATS
//! server, and by three (DESIGN §9; three copies, each synced before it is acknowledged). All in one run, on one machine.
//!
//! `cargo bench -p penstock-tests --bench replicated`; `PENSTOCK_RUNS` for more than three runs of each.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../../tests/api/world/nats.rs"]
mod nats;

use std::time::{Duration, Instant};

use nats::Servers;
use penstock_coordinator::ingest::Ingest;
use penstock_coordinator::journal::Journal;
use penstock_coordinator::store::{DiskReserve, NatsSettings, Store};
use penstock_policy::ids::CoordinatorId;
use penstock_proto::audit::{GENESIS, block_digest};
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AuditBlock, AuditBlockBody, AuditEvent, Decision, Severity, VerdictEvent};
use prost::Message as _;

const GATEWAYS: u64 = 8;
const BLOCKS: u64 = 128;
const EVENTS: u64 = 500;

fn event(n: u64) -> AuditEvent {
    AuditEvent {
        time_ms: 1_800_000_000_000 + n,
        severity: Severity::Warning.into(),
        revision: 7,
        kind: Some(Kind::Verdict(VerdictEvent {
            decision: Decision::Deny.into(),
            ingress: "eth1".into(),
            egress: "eth2".into(),
            source: "10.1.20.9".into(),
            destination: "10.20.4.7".into(),
            protocol: 6,
            port: 502,
            count: 1 + n % 7,
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

async fn opened(path: &std::path::Path, servers: Option<NatsSettings>) -> Store {
    let Some(servers) = servers else {
        return Store::open(path).unwrap();
    };
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match Store::open_replicated(path, DiskReserve::default(), "c1", servers.clone()).await {
            Ok(store) => return store,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Events a second.
#[allow(clippy::cast_precision_loss)]
async fn taken_in(store: &Store, trail: &[AuditBlock], run: usize) -> f64 {
    let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
    let ingest = Ingest::new(store.clone(), journal);
    let begun = Instant::now();
    let tasks: Vec<_> = (0..GATEWAYS)
        .map(|n| {
            let (ingest, trail) = (ingest.clone(), trail.to_vec());
            tokio::spawn(async move {
                let source = format!("gw-{run}-{n}");
                for blocks in trail.chunks(32) {
                    let done = ingest.accept(&source, blocks.to_vec(), 1).await.unwrap();
                    assert!(done.fault.is_none());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    (GATEWAYS * BLOCKS * EVENTS) as f64 / begun.elapsed().as_secs_f64()
}

fn main() {
    let runs = std::env::var("PENSTOCK_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok());
    let runs: usize = runs.unwrap_or(3);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let trail = trail();
    for (name, count, jetstream) in [
        ("one SQLite file", 0, ""),
        ("one NATS server, synced", 1, "sync_interval: always"),
        ("three NATS servers, synced", 3, "sync_interval: always"),
    ] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let servers = (count > 0).then(|| Servers::start(count, jetstream));
        let mut figures: Vec<f64> = runtime.block_on(async {
            let store = opened(&folder.path().join("s.db"), servers.as_ref().map(Servers::stream)).await;
            let mut figures = Vec::new();
            for run in 0..runs {
                figures.push(taken_in(&store, &trail, run).await);
            }
            figures
        });
        figures.sort_by(f64::total_cmp);
        let at = |place: usize| figures.get(place).copied().unwrap_or_default();
        println!(
            "{name}: {:.0} events/s (median of {runs}; {:.0}–{:.0})",
            at(runs / 2),
            at(0),
            at(runs - 1)
        );
    }
}
