//! Exports over a real store: what is removed, damaged or away; receivers of other makes are in `tests/tests/api/exports`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use penstock_policy::ids::PlantId;
use penstock_proto::event::EventKind;
use penstock_proto::export::LineFormat;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AgentEvent, AuditBlockBody, AuditEvent, DriftEvent, Severity};
use prost::Message as _;
use serde_json::Value;

use super::place::Place;
use super::*;
use crate::releases::Releases;
use crate::store::{BlockSummary, Expired, Store};
use crate::summary::summarize;

struct World {
    folder: tempfile::TempDir,
    store: Store,
    standings: Standings,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s.db")).unwrap();
        Self {
            folder,
            store,
            standings: Standings::default(),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }

    fn settings(&self) -> ExportSettings {
        ExportSettings {
            name: "lines".to_owned(),
            to: Destination::File {
                path: self.file(),
                format: LineFormat::Jsonl,
            },
            kinds: 0,
            severity_min: 0,
            start: Start::Oldest,
        }
    }

    async fn exporter(&self, settings: ExportSettings) -> Exporter {
        let plant = PlantId::new("works").unwrap();
        Exporter {
            settings,
            plant: plant.to_string(),
            store: self.store.clone(),
            releases: Releases::open(self.store.clone(), plant).await.unwrap(),
            standings: self.standings.clone(),
        }
    }

    /// Exports until the file holds `lines`.
    async fn until(&self, settings: ExportSettings, lines: usize) -> Vec<Value> {
        let exporting = tokio::spawn(follow(self.exporter(settings.clone()).await));
        let there = async {
            let noted = async || Place::load(&self.store, &settings).await.unwrap().cursor;
            while read(&self.file()).len() < lines || noted().await != *self.store.appended().borrow() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), there)
            .await
            .unwrap();
        exporting.abort();
        let _ = exporting.await;
        read(&self.file())
    }

    async fn append(&self, kind: Kind, received_ms: u64) {
        let body = AuditBlockBody {
            events: vec![AuditEvent {
                time_ms: received_ms,
                severity: kind.described().severity().into(),
                revision: 0,
                kind: Some(kind),
            }],
        };
        let summary = summarize(&body);
        let own = self
            .store
            .append_own("gw-a", body.encode_to_vec().into(), summary, received_ms);
        own.await.unwrap();
    }

    async fn append_many(&self, from: u64, until: u64) {
        for n in from..until {
            self.append(connected(), n * 1000).await;
        }
    }
}

fn connected() -> Kind {
    Kind::Agent(AgentEvent {
        step: "connected".to_owned(),
        message: "c1".to_owned(),
        ..AgentEvent::default()
    })
}

fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn sequences(lines: &[Value]) -> Vec<u64> {
    lines
        .iter()
        .map(|line| line["sequence"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn an_export_goes_on_where_it_was_and_what_retention_removed_before_it_is_said_in_it_and_in_health() {
    let world = World::new();
    world.append_many(0, 40).await;
    assert_eq!(
        sequences(&world.until(world.settings(), 40).await),
        (0..40).collect::<Vec<_>>()
    );
    // The export is away, 60 blocks come, and of all but ten the time is over.
    world.append_many(40, 100).await;
    let expired = Expired {
        before_ms: 90_000,
        unlikely_after_ms: u64::MAX,
        unlikely_before_ms: 0,
    };
    world.store.drop_expired(expired, 1000, None).await.unwrap();
    let lines = world.until(world.settings(), 51).await;
    assert_eq!(lines[40]["kind"], "export");
    assert_eq!(lines[40]["severity"], "alarm");
    assert_eq!(lines[40]["event"]["blocks"], 50);
    assert_eq!(sequences(&lines[41..]), (90..100).collect::<Vec<_>>());
    let faults = world.standings.watch().now(crate::clock::now_ms());
    assert_eq!(faults[0].code, "export-short");
    assert!(
        faults[0].message.contains("50 blocks of the trail are missing"),
        "{faults:?}"
    );
    // Nothing of it comes again, and nothing is said twice.
    world.append_many(100, 101).await;
    let lines = world.until(world.settings(), 52).await;
    assert_eq!((lines.len(), sequences(&lines[51..])), (52, vec![100]));
}

#[tokio::test]
async fn a_block_that_cannot_be_read_stops_nothing_and_is_said_in_its_place() {
    let world = World::new();
    world.append_many(0, 2).await;
    let damaged = world
        .store
        .append_own("gw-a", vec![0xff; 9].into(), BlockSummary::default(), 2000);
    damaged.await.unwrap();
    world.append_many(3, 5).await;
    let lines = world.until(world.settings(), 5).await;
    assert_eq!(lines[2]["kind"], "export");
    let said = lines[2]["summary"].as_str().unwrap();
    assert!(said.contains("block 1/2 of gw-a cannot be read"), "{said}");
    assert_eq!(sequences(&[&lines[..2], &lines[3..]].concat()), [0, 1, 3, 4]);
}

#[tokio::test]
async fn only_the_kinds_and_severities_that_are_asked_for_are_sent_and_only_what_comes_from_now_on() {
    let world = World::new();
    world.append_many(0, 3).await;
    let settings = ExportSettings {
        kinds: EventKind::Drift.bit(),
        severity_min: Severity::Warning.into(),
        start: Start::Now,
        ..world.settings()
    };
    // Where it begins is noted as soon as it starts, not when its receiver is there.
    let place = Place::load(&world.store, &settings).await.unwrap();
    assert_eq!(place.cursor, world.store.appended().borrow().clone());
    let drift = |step: &str| {
        Kind::Drift(DriftEvent {
            step: step.to_owned(),
            ..DriftEvent::default()
        })
    };
    for kind in [drift("found"), connected(), drift("repaired"), drift("found")] {
        world.append(kind, 9000).await;
    }
    let graver = |kind: &Kind| kind.described().severity() >= Severity::Warning;
    let expected: Vec<u64> = [(drift("found"), 3), (drift("repaired"), 5), (drift("found"), 6)]
        .into_iter()
        .filter(|(kind, _)| graver(kind))
        .map(|(_, sequence)| sequence)
        .collect();
    let lines = world.until(settings, expected.len()).await;
    assert_eq!(sequences(&lines), expected);
}

#[tokio::test]
async fn an_export_that_waits_says_so_costs_ingest_nothing_and_goes_on_when_its_receiver_is_there() {
    let world = World::new();
    let folder = world.folder.path().join("later");
    let settings = ExportSettings {
        to: Destination::File {
            path: folder.join("audit.jsonl"),
            format: LineFormat::Jsonl,
        },
        ..world.settings()
    };
    let exporting = tokio::spawn(follow(world.exporter(settings).await));
    let mut faults = world.standings.watch();
    let said = async {
        while faults.now(0).is_empty() {
            faults.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), said).await.unwrap();
    assert_eq!(faults.now(0)[0].code, "export-waits");
    assert!(
        faults.now(0)[0].message.contains("cannot open"),
        "{:?}",
        faults.now(0)
    );
    world.append_many(0, 100).await;
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("audit.jsonl");
    let there = async {
        while read(&path).len() < 100 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), there)
        .await
        .unwrap();
    assert_eq!(faults.now(0), []);
    exporting.abort();
}
