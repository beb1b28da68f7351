//! Searching a large trail (`cargo bench -p penstock-coordinator --bench audit_search`): a day's refusals of one conduit (the mark: ≤ 200 ms at 100
//! million events), a search that finds nothing, by name and by text, each beside the same store without its index; what the index
//! takes for each event; and what taking events in costs with the index growing behind it.
//!
//! `PENSTOCK_EVENTS` sets how many events (10 million), `PENSTOCK_DIR` where the store is made and removed.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing
)]

use std::path::Path;
use std::time::{Duration, Instant};

use penstock_coordinator::ingest::Ingest;
use penstock_coordinator::journal::Journal;
use penstock_coordinator::query::{self, Filter, indexing};
use penstock_coordinator::releases::Releases;
use penstock_coordinator::store::Store;
use penstock_policy::ids::{CoordinatorId, PlantId};
use penstock_proto::audit::{GENESIS, block_digest};
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{
    AuditBlock, AuditBlockBody, AuditEvent, Decision, SearchAuditRequest, Severity, VerdictEvent,
};
use prost::Message as _;
use tokio_util::sync::CancellationToken;

const GATEWAYS: u64 = 100;
const EVENTS: u64 = 200;
const START_MS: u64 = 1_800_000_000_000;
const DAY_MS: u64 = 86_400_000;
const DAYS: u64 = 30;
const RARE: &str = "remote-access";

/// One event of a gateway: mostly what is permitted, one in ten refused, and of one conduit one in a hundred thousand.
fn event(gateway: u64, n: u64, time_ms: u64) -> AuditEvent {
    let rare = n % 100_000 == 7;
    let refused = rare || n % 10 == 3;
    let decision = if refused { Decision::Deny } else { Decision::Allow };
    let conduit = if rare {
        RARE.to_owned()
    } else {
        format!("supply-{}", n % 7)
    };
    let host = n.wrapping_mul(2_654_435_761) % 40;
    AuditEvent {
        time_ms,
        severity: if refused {
            Severity::Warning
        } else {
            Severity::Info
        }
        .into(),
        revision: 0,
        kind: Some(Kind::Verdict(VerdictEvent {
            decision: decision.into(),
            flow_id: 3,
            flow: format!("{conduit}/polling"),
            ingress: "eth1".into(),
            egress: "eth2".into(),
            source: format!("10.{gateway}.1.{host}"),
            destination: format!("10.{gateway}.4.{}", host % 9),
            protocol: 6,
            port: 502,
            count: 1 + n % 7,
            first_ms: time_ms,
            last_ms: time_ms + 900,
            reason: if refused {
                "the flow permits it only during a grant"
            } else {
                ""
            }
            .to_owned(),
            ..VerdictEvent::default()
        })),
    }
}

/// Trails of all gateways, block by block, over [`DAYS`] days.
struct Trails {
    heads: Vec<(u64, [u8; 32])>,
    made: u64,
    all: u64,
}

impl Trails {
    fn new(all: u64) -> Self {
        Self {
            heads: vec![(0, GENESIS); GATEWAYS as usize],
            made: 0,
            all,
        }
    }

    /// The next block of each gateway, a few at once.
    fn next(&mut self, gateway: u64, blocks: u64) -> Vec<AuditBlock> {
        let (sequence, previous) = &mut self.heads[gateway as usize];
        (0..blocks)
            .map(|_| {
                let first = self.made;
                self.made += EVENTS;
                let time = |n: u64| {
                    START_MS + (u128::from(n) * u128::from(DAYS * DAY_MS) / u128::from(self.all)) as u64
                };
                let events = (first..first + EVENTS)
                    .map(|n| event(gateway, n, time(n)))
                    .collect();
                let body = AuditBlockBody { events }.encode_to_vec();
                let block = AuditBlock {
                    epoch: 1,
                    sequence: *sequence,
                    previous_digest: previous.to_vec().into(),
                    body: body.into(),
                };
                *previous = block_digest(previous, 1, *sequence, &block.body);
                *sequence += 1;
                block
            })
            .collect()
    }
}

struct Bench {
    store: Store,
    releases: Releases,
}

impl Bench {
    async fn open(path: &Path) -> Self {
        let store = Store::open(path).unwrap();
        let releases = Releases::open(store.clone(), PlantId::new("riverside").unwrap())
            .await
            .unwrap();
        Self { store, releases }
    }

    fn ingest(&self) -> Ingest {
        Ingest::new(
            self.store.clone(),
            Journal::new(self.store.clone(), &CoordinatorId::new("c1").unwrap()),
        )
    }

    /// Takes trails in; how long it took, without making them.
    async fn take(&self, trails: &mut Trails, events: u64) -> Duration {
        let ingest = self.ingest();
        let mut took = Duration::ZERO;
        let until = trails.made + events;
        while trails.made < until {
            let group: Vec<_> = (0..GATEWAYS)
                .map(|gateway| (gateway, trails.next(gateway, 4)))
                .collect();
            let begun = Instant::now();
            let tasks: Vec<_> = group
                .into_iter()
                .map(|(gateway, blocks)| {
                    let (ingest, received_ms) = (ingest.clone(), START_MS);
                    tokio::spawn(async move {
                        let done = ingest
                            .accept(&format!("gw-{gateway}"), blocks, received_ms)
                            .await
                            .unwrap();
                        assert!(done.fault.is_none());
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            took += begun.elapsed();
        }
        took
    }

    async fn search(&self, request: &SearchAuditRequest) -> (usize, Duration) {
        let filter = Filter::try_from(request.clone()).unwrap();
        let (out, mut records) = tokio::sync::mpsc::channel(64);
        let begun = Instant::now();
        let (store, releases) = (self.store.clone(), self.releases.clone());
        let searching = tokio::spawn(async move { query::search(&store, &releases, &filter, &out).await });
        let mut found = 0;
        while let Some(record) = records.recv().await {
            record.unwrap();
            found += 1;
        }
        // Without the index a search of a large store ends with its time; that is a measure, too.
        let _ = searching.await.unwrap();
        (found, begun.elapsed())
    }
}

fn searches() -> Vec<(&'static str, SearchAuditRequest)> {
    let day = |day: u64| SearchAuditRequest {
        from_ms: START_MS + day * DAY_MS,
        until_ms: START_MS + (day + 1) * DAY_MS,
        clock: 2,
        limit: 100_000,
        newest_first: true,
        ..SearchAuditRequest::default()
    };
    let conduit = SearchAuditRequest {
        conduits: vec![RARE.to_owned()],
        decision: Decision::Deny.into(),
        clock: 0,
        ..day(11)
    };
    let whole = SearchAuditRequest {
        limit: 100,
        newest_first: true,
        ..SearchAuditRequest::default()
    };
    vec![
        ("a day's refusals of one conduit", conduit),
        (
            "an asset that is nowhere",
            SearchAuditRequest {
                assets: vec!["10.99.9.250".to_owned()],
                ..whole.clone()
            },
        ),
        (
            "a text that is nowhere",
            SearchAuditRequest {
                text: "zebra crossing".to_owned(),
                ..whole.clone()
            },
        ),
        (
            "the newest 100 refusals to one asset",
            SearchAuditRequest {
                assets: vec!["10.42.4.3".to_owned()],
                decision: Decision::Deny.into(),
                ..whole
            },
        ),
    ]
}

async fn measure(bench: &Bench, what: &str, samples: usize) {
    for (name, request) in searches() {
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..samples {
            let (records, took) = bench.search(&request).await;
            found = records;
            times.push(took);
        }
        times.sort_unstable();
        let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
        println!(
            "{what}: {name}: {found} found, p50 {:?}, p99 {:?}",
            at(50),
            at(99)
        );
    }
}

fn bytes(path: &Path) -> u64 {
    ["", "-wal"]
        .iter()
        .map(|end| {
            let mut file = path.as_os_str().to_owned();
            file.push(end);
            std::fs::metadata(file).map_or(0, |file| file.len())
        })
        .sum()
}

fn main() {
    let events: u64 = std::env::var("PENSTOCK_EVENTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10_000_000);
    let parent = std::env::var("PENSTOCK_DIR").unwrap_or_else(|_| ".".to_owned());
    let dir = tempfile::tempdir_in(parent).unwrap();
    let path = dir.path().join("bench.db");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut trails = Trails::new(events);
        let bench = Bench::open(&path).await;
        let part = (events / 10).min(2_000_000);
        let rate = |took: Duration, events: u64| (events as f64 / took.as_secs_f64()) as u64;
        // In turns, so that what else the machine does falls on both.
        let (mut plain, mut with) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..2 {
            plain += bench.take(&mut trails, part).await;
            let stop = CancellationToken::new();
            let keeper = tokio::spawn(indexing::follow(
                bench.store.clone(),
                bench.releases.clone(),
                stop.clone(),
            ));
            with += bench.take(&mut trails, part).await;
            stop.cancel();
            keeper.await.unwrap();
        }
        println!(
            "taken in: {} events/s alone, {} events/s while the index grows",
            rate(plain, 2 * part),
            rate(with, 2 * part)
        );
        let rest = events.saturating_sub(trails.made);
        bench.take(&mut trails, rest).await;
        let begun = Instant::now();
        indexing::catch_up(&bench.store, &bench.releases).await.unwrap();
        println!(
            "indexed: the rest at {} events/s",
            rate(begun.elapsed(), trails.made)
        );
        measure(&bench, "with the index", 40).await;
        let (store, index) = (bytes(&path), bytes(&path.with_extension("search.db")));
        println!(
            "{} events: {:.1} bytes/event in the store, {:.2} in the index",
            trails.made,
            store as f64 / trails.made as f64,
            index as f64 / trails.made as f64
        );
        drop(bench);
        // A store that was just opened has no index until it is asked to open it.
        let bench = Bench::open(&path).await;
        measure(&bench, "without", 1).await;
    });
}
