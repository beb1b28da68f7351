//! The trail as others read it: rsyslog over TLS, a collector with OpenTelemetry's own messages, `jq`, and OCSF's schema. Each record is held against
//! the store's, one by one, also when coordinator and receiver are killed under load.

mod receivers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use penstock_coordinator::config::ConfigFile;
use penstock_coordinator::store::{BlockFilter, Store};
use penstock_proto::audit::{GENESIS, block_digest, read_body};
use penstock_proto::export::{ExportRecord, LineFormat};
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::gateway_message::Message as Up;
use prost::Message as _;
use serde_json::Value;

use self::receivers::{Collector, Pki, Rsyslog, lines};
use crate::audit::{Trail, acknowledged};
use crate::person::Person;
use crate::world::{PATIENCE, Program, World, store_of};

/// Texts that end something in one of the formats.
const HOSTILE: &str = "a\r\n<13>1 - - - - - - \"] [x y=\"\\\" | CEF:0|x=y ; \u{1b}[31m\u{202e}\u{2028}é≠";

/// One event of each kind that a gateway writes, with such a text.
fn kinds() -> Vec<Kind> {
    let text = || HOSTILE.to_owned();
    vec![
        Kind::Verdict(v1::VerdictEvent {
            decision: v1::Decision::WouldDeny.into(),
            source: "10.1.2.9".to_owned(),
            destination: "fd00::7".to_owned(),
            protocol: 17,
            port: 53,
            count: 2,
            first_ms: 1_800_000_000_000,
            last_ms: 1_800_000_001_000,
            reason: text(),
            ..v1::VerdictEvent::default()
        }),
        Kind::Verdict(v1::VerdictEvent {
            decision: v1::Decision::Deny.into(),
            source: text(),
            flow: text(),
            ..v1::VerdictEvent::default()
        }),
        Kind::Operation(v1::OperationEvent {
            decision: v1::Decision::Allow.into(),
            subject: "operation".to_owned(),
            operation: text(),
            client: "10.1.2.9".to_owned(),
            server: "10.2.0.7".to_owned(),
            port: 502,
            count: 1,
            protocol: "modbus-tcp".to_owned(),
            ..v1::OperationEvent::default()
        }),
        Kind::Policy(v1::PolicyEvent {
            step: "refused".to_owned(),
            message: text(),
            ..v1::PolicyEvent::default()
        }),
        Kind::Drift(v1::DriftEvent {
            step: "found".to_owned(),
            message: text(),
            process: text(),
        }),
        Kind::Loss(v1::LossEvent {
            events: 7,
            cause: text(),
            ..v1::LossEvent::default()
        }),
        Kind::Agent(v1::AgentEvent {
            step: "disconnected".to_owned(),
            message: text(),
            ..v1::AgentEvent::default()
        }),
        Kind::Learned(v1::LearnedEvent {
            source: "10.1.2.9".to_owned(),
            destination: "10.2.0.7".to_owned(),
            protocol: 6,
            port: 1883,
            application: "mqtt".to_owned(),
            published: vec![v1::LearnedMessages {
                topic: text(),
                count: 1,
                ..v1::LearnedMessages::default()
            }],
            ..v1::LearnedEvent::default()
        }),
        Kind::Fault(v1::FaultEvent {
            step: "ended".to_owned(),
            code: "no-carrier".to_owned(),
            message: text(),
            zones: vec![text()],
            ..v1::FaultEvent::default()
        }),
    ]
}

/// One block with all of them.
fn block_of_all_kinds() -> v1::AuditBlock {
    let events = kinds().into_iter().map(|kind| v1::AuditEvent {
        time_ms: crate::world::now_ms(),
        severity: kind.described().severity().into(),
        revision: 0,
        kind: Some(kind),
    });
    let body = v1::AuditBlockBody {
        events: events.collect(),
    };
    v1::AuditBlock {
        epoch: 1,
        sequence: 0,
        previous_digest: GENESIS.to_vec().into(),
        body: body.encode_to_vec().into(),
    }
}

/// All records of a store, in the order in which the coordinator had them.
async fn stored(store: &Store) -> Vec<ExportRecord> {
    let mut records = Vec::new();
    for block in store.blocks(BlockFilter::default(), 1_000_000).await.unwrap() {
        for (event, index) in read_body(&block.body).unwrap().events.into_iter().zip(0..) {
            let record = v1::AuditRecord {
                source: block.source.clone(),
                epoch: block.epoch,
                sequence: block.sequence,
                index,
                received_ms: block.received_ms,
                event: Some(event),
                ..v1::AuditRecord::default()
            };
            records.push(ExportRecord::of("riverside", &record));
        }
    }
    records
}

fn by_position(records: &[ExportRecord]) -> BTreeMap<String, &ExportRecord> {
    let placed = records.iter().map(|record| (record.position.to_string(), record));
    placed.collect()
}

/// Adds sections to a program's configuration.
fn with_exports(file: &Path, sections: &str) {
    let before = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, format!("{before}\n{sections}")).unwrap();
}

/// The parameter of a message's structured data, which holds nothing that is escaped.
fn position_in(raw: &str) -> &str {
    let behind = raw.split_once(" position=\"").unwrap().1;
    behind.split_once('"').unwrap().0
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

/// rsyslog and the coordinator are killed again and again while gateways deliver.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_reaches_rsyslog_over_tls_at_least_once_whoever_is_killed_and_none_is_another() {
    const ROUNDS: u64 = 3;
    const BLOCKS: u64 = 150;
    let mut world = World::start().await;
    let file = Program::takes_over(&mut world, "127.0.83.21").await;
    let pki = Pki::new(world.dir.path());
    let mut rsyslog = Rsyslog::start(world.dir.path(), &pki, "127.0.83.22");
    let (roots, certificate, key) = (pki.root(), pki.own("client.pem"), pki.own("client.key"));
    with_exports(
        &file,
        &format!(
            "[[export]]\nname = \"siem\"\nformat = \"syslog\"\nto = \"syslog+tls://127.0.83.22:{}\"\nroots = {roots:?}\n\
             certificate = {certificate:?}\nkey = {key:?}\n",
            rsyslog.port
        ),
    );
    let mut trail = Trail::new(1);
    let mut unacknowledged: Vec<v1::AuditBlock> = Vec::new();
    let mut program = Program::start(&file);
    for round in 0..ROUNDS {
        program.serves(&world).await;
        let session = world.session("gw-a", v1::PolicyState::default()).await;
        let before = lines(&rsyslog.out).len();
        unacknowledged.extend((0..BLOCKS).map(|n| trail.block(&format!("{round}/{n} {HOSTILE}"))));
        for block in &unacknowledged {
            session.send(Up::Audit(block.clone())).await;
        }
        // In the middle of it: something has arrived.
        until("nothing arrives", || lines(&rsyslog.out).len() > before).await;
        match round % 3 {
            0 => rsyslog.kill_and_start(),
            1 => {
                program.kill();
                program = Program::start(&file);
            }
            _ => {
                rsyslog.kill_and_start();
                program.kill();
                program = Program::start(&file);
            }
        }
        program.serves(&world).await;
        let mut session = world.session("gw-a", v1::PolicyState::default()).await;
        for block in &unacknowledged {
            session.send(Up::Audit(block.clone())).await;
        }
        acknowledged(&mut session, (round + 1) * BLOCKS).await;
        unacknowledged.clear();
    }
    let expected = ROUNDS * BLOCKS;
    let gateways = |out: &Path| {
        let read = lines(out);
        let positions = read
            .iter()
            .map(|line| position_in(line["raw"].as_str().unwrap()).to_owned());
        positions
            .filter(|position| position.starts_with("gw-a/"))
            .collect::<BTreeSet<_>>()
            .len() as u64
    };
    until("some never arrive", || gateways(&rsyslog.out) == expected).await;
    program.kill();
    let records = stored(&store_of(&world.config).await).await;
    let mut missing = by_position(&records);
    let known = missing.clone();
    let received = lines(&rsyslog.out);
    for line in &received {
        let raw = line["raw"].as_str().unwrap();
        let position = position_in(raw);
        let record = known
            .get(position)
            .unwrap_or_else(|| panic!("nobody wrote {raw}"));
        assert_eq!(raw, LineFormat::Syslog.line(record));
        // What rsyslog itself makes of the message.
        assert_eq!(line["app"], "penstock");
        assert_eq!(line["kind"], record.kind);
        let host = record.position.source.rsplit('/').next().unwrap();
        assert_eq!(line["host"], host);
        assert!(
            line["data"]
                .as_str()
                .unwrap()
                .contains(&format!("position=\"{position}\""))
        );
        missing.remove(position);
    }
    // The last ones of the coordinator's own trail may not be sent when it is killed.
    missing.retain(|position, _| position.starts_with("gw-a/"));
    assert_eq!(missing.keys().collect::<Vec<_>>(), Vec::<&String>::new());
    println!(
        "{} records arrived {} times in all",
        received
            .iter()
            .map(|line| position_in(line["raw"].as_str().unwrap()))
            .collect::<BTreeSet<_>>()
            .len(),
        received.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_reads_by_opentelemetrys_own_messages_what_the_store_holds_in_order_and_once() {
    let mut world = World::start().await;
    let file = Program::takes_over(&mut world, "127.0.83.23").await;
    let pki = Pki::new(world.dir.path());
    let collector = Collector::start(world.dir.path(), &pki);
    let (roots, certificate, key) = (pki.root(), pki.own("client.pem"), pki.own("client.key"));
    with_exports(
        &file,
        &format!(
            "[[export]]\nname = \"collector\"\nformat = \"otlp\"\nto = \"otlp+https://127.0.0.1:{}\"\nroots = {roots:?}\n\
             certificate = {certificate:?}\nkey = {key:?}\n",
            collector.port
        ),
    );
    let program = Program::start(&file);
    program.serves(&world).await;
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    let first = block_of_all_kinds();
    let mut previous = block_digest(&GENESIS, 1, 0, &first.body);
    session.send(Up::Audit(first)).await;
    // More than it takes in one request.
    for sequence in 1..4 {
        let mut block = Trail::new(1).block("many");
        let mut body = v1::AuditBlockBody::decode(block.body).unwrap();
        body.events = vec![body.events.remove(0); 250];
        let body = body.encode_to_vec();
        block.previous_digest = previous.to_vec().into();
        previous = block_digest(&previous, 1, sequence, &body);
        (block.sequence, block.body) = (sequence, body.into());
        session.send(Up::Audit(block)).await;
    }
    acknowledged(&mut session, 4).await;
    let events = kinds().len() + 3 * 250;
    let of_gateway = |line: &Value| line["attributes"]["penstock.source"] == "gw-a";
    until("some never arrive", || {
        lines(&collector.out)
            .iter()
            .filter(|line| of_gateway(line))
            .count()
            >= events
    })
    .await;
    program.kill();
    let records = stored(&store_of(&world.config).await).await;
    let known = by_position(&records);
    let received = lines(&collector.out);
    let own: Vec<&Value> = received.iter().filter(|line| of_gateway(line)).collect();
    assert_eq!(own.len(), events, "nothing that was answered is sent again");
    let order = |line: &&Value| {
        (
            line["attributes"]["penstock.sequence"].as_i64(),
            line["attributes"]["penstock.index"].as_i64(),
        )
    };
    assert!(own.is_sorted_by_key(order));
    for line in &received {
        let record = known[line["attributes"]["log.record.uid"].as_str().unwrap()];
        assert_eq!(line["body"], record.sentence.as_str());
        assert_eq!(
            line["attributes"]["penstock.event"],
            Value::Object(record.fields.clone())
        );
        assert_eq!(line["time"], record.time_ms * 1_000_000);
        assert_eq!(line["observed"], record.received_ms * 1_000_000);
        assert_eq!(line["name"], format!("penstock.{}", record.kind));
        assert_eq!(line["resource"]["penstock.plant"], "riverside");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_read_by_jq_and_fit_ocsfs_schema_and_the_command_writes_the_same_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let section = |format: &str| {
        let to = format!("file:{}", path(&format!("trail.{format}")).display());
        toml::from_str(&format!("name = {format:?}\nformat = {format:?}\nto = {to:?}")).unwrap()
    };
    let exports = ["jsonl", "cef", "ocsf"].map(section).to_vec();
    let world = World::start_with(|config| {
        let (plant, name) = (config.plant.clone(), config.name.clone());
        let mut typed = ConfigFile::with_defaults(plant, name, config.data.clone());
        typed.exports = exports;
        config.exports = typed.check().unwrap().exports;
    })
    .await;
    let person = Person::new(&world, "vic", "desk", v1::Role::Viewer).await;
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    session.send(Up::Audit(block_of_all_kinds())).await;
    acknowledged(&mut session, 1).await;
    let count = |format: &str| {
        let text = std::fs::read_to_string(path(&format!("trail.{format}"))).unwrap_or_default();
        text.lines().filter(|line| line.contains("gw-a/1/0/")).count()
    };
    for format in ["jsonl", "cef", "ocsf"] {
        until(format, || count(format) == kinds().len()).await;
    }

    // `jq` reads what was written, without a line too many.
    let jq = Command::new("jq")
        .args([
            "-r",
            "select(.source == \"gw-a\") | [.position, .kind, .summary] | @json",
        ])
        .arg(path("trail.jsonl"))
        .output()
        .expect("jq: run scripts/setup");
    assert!(jq.status.success(), "{}", String::from_utf8_lossy(&jq.stderr));
    let read: Vec<Value> = jq
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let records = stored(world.running.as_ref().unwrap().store()).await;
    let own: Vec<_> = records
        .iter()
        .filter(|record| record.position.source == "gw-a")
        .collect();
    let expected: Vec<Value> = own
        .iter()
        .map(|record| serde_json::json!([record.position.to_string(), record.kind, record.sentence]))
        .collect();
    assert_eq!(read, expected);

    // The schema's own view of each class that is written.
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers/bin/python");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/exports/ocsf.py");
    let valid = Command::new(python)
        .arg(script)
        .arg(path("trail.ocsf"))
        .output()
        .unwrap();
    assert!(
        valid.status.success(),
        "{}",
        String::from_utf8_lossy(&valid.stderr)
    );
    let classes: Vec<u32> = serde_json::from_slice(&valid.stdout).unwrap();
    assert_eq!(classes, [2004, 3002, 4001, 5019, 6002, 6003]);

    // Once, by a person, to a file: the same lines.
    for (format, line) in [
        ("jsonl", LineFormat::Jsonl),
        ("syslog", LineFormat::Syslog),
        ("cef", LineFormat::Cef),
        ("ocsf", LineFormat::Ocsf),
    ] {
        let out = path(&format!("once.{format}"));
        let from = "gw-a/1/0/2";
        let arguments = [
            "audit",
            "export",
            "--format",
            format,
            "--from-position",
            from,
            "--out",
        ];
        person
            .done(&[&arguments[..], &[out.to_str().unwrap()]].concat())
            .await;
        let written = std::fs::read_to_string(&out).unwrap();
        let expected: Vec<String> = own[2..].iter().map(|record| line.line(record)).collect();
        assert_eq!(written.lines().collect::<Vec<_>>(), expected, "{format}");
    }
    let out = path("once.otlp");
    let arguments = ["audit", "export", "--format", "otlp", "--source", "gw-a", "--out"];
    person
        .done(&[&arguments[..], &[out.to_str().unwrap()]].concat())
        .await;
    let whole =
        penstock_proto::export::otlp::ExportLogsServiceRequest::decode(&*std::fs::read(&out).unwrap());
    assert_eq!(whole.unwrap().resource_logs.len(), own.len());
    // What is there is not overwritten.
    let again = person
        .run(&[&arguments[..], &[out.to_str().unwrap()]].concat())
        .await;
    assert!(!again.status.success());
}
