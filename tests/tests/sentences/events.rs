//! Each kind of event is described whole, whatever is in it; what is described is what a search finds and what the runbook lists.
//!
//! The events are made from the wire contract itself (`audit.proto`), so that a new kind, or a new field of an old one, is tested
//! as soon as it is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use penstock_coordinator::query::{Filter, search};
use penstock_coordinator::releases::Releases;
use penstock_coordinator::store::{Append, NewBlock, Store};
use penstock_coordinator::summary::summarize;
use penstock_policy::ids::PlantId;
use penstock_proto::audit::{GENESIS, read_body};
use penstock_proto::event::{AgentStep, EventKind, Reading, Writer, severity_word};
use penstock_proto::v1::{
    AuditBlock, AuditBlockBody, AuditEvent, AuditRecord, FILE_DESCRIPTOR_SET, SearchAuditRequest,
};
use proptest::prelude::*;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use tokio::sync::mpsc;

/// Who may write any kind.
const SOURCE: &str = "coordinator/c1";
/// Fields that are not shown one by one, and why.
const NOT_FIELDS: [(&str, &str); 1] = [(
    "client_ids",
    "clients' own words; learning reads them from the event",
)];
/// Words by which an event's severity is judged.
const STEPS: [&str; 11] = [
    "raised",
    "refused",
    "effective",
    "found",
    "repaired",
    "ended",
    "expired",
    "started",
    "trail-lost",
    "session",
    "tap-overrun",
];

/// The wire contract.
struct Contract {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
}

impl Contract {
    fn read() -> Self {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let own = set
            .file
            .into_iter()
            .filter(|file| file.package() == "penstock.v1");
        let (mut messages, mut enums) = (BTreeMap::new(), BTreeMap::new());
        for file in own {
            for message in file.message_type {
                messages.insert(format!(".penstock.v1.{}", message.name()), message);
            }
            for list in file.enum_type {
                enums.insert(format!(".penstock.v1.{}", list.name()), list);
            }
        }
        Self { messages, enums }
    }

    /// The fields of an event that hold its kind.
    fn kinds(&self) -> Vec<&FieldDescriptorProto> {
        let event = &self.messages[".penstock.v1.AuditEvent"];
        event
            .field
            .iter()
            .filter(|field| field.oneof_index.is_some())
            .collect()
    }
}

/// Numbers from a seed (SplitMix64), and words that no other event has.
struct Random {
    state: u64,
    words: u64,
}

impl Random {
    fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    fn word(&mut self, field: &str) -> String {
        self.words += 1;
        match self.below(3) {
            0 if matches!(field, "step" | "subject" | "cause") => {
                STEPS[self.below(STEPS.len() as u64) as usize].to_owned()
            }
            1 => String::new(),
            _ => {
                let number = self.number();
                format!("Wört {} [{number:x}]", self.words)
            }
        }
    }
}

fn key(out: &mut Vec<u8>, field: &FieldDescriptorProto, wire: u64) {
    varint(out, ((field.number() as u64) << 3) | wire);
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn piece(out: &mut Vec<u8>, field: &FieldDescriptorProto, bytes: &[u8]) {
    key(out, field, 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// One value of a field; whether it is another than nothing.
fn value(contract: &Contract, random: &mut Random, field: &FieldDescriptorProto, out: &mut Vec<u8>) -> bool {
    let number = match field.r#type() {
        Type::String => {
            let word = random.word(field.name());
            piece(out, field, word.as_bytes());
            return !word.is_empty();
        }
        Type::Bytes => {
            piece(out, field, &random.number().to_be_bytes());
            return true;
        }
        Type::Message => {
            let inner = message(contract, random, field.type_name()).0;
            piece(out, field, &inner);
            return true;
        }
        Type::Uint64 => random.number() >> random.below(64),
        Type::Uint32 => random.number() as u32 as u64 >> random.below(32),
        Type::Bool => random.below(2),
        Type::Enum => {
            let values = &contract.enums[field.type_name()].value;
            values[random.below(values.len() as u64) as usize].number() as u64
        }
        other => panic!("{}: {other:?} is not made here yet", field.name()),
    };
    key(out, field, 0);
    varint(out, number);
    number != 0
}

/// A message of this type with random fields, and the names of those of its own that are set.
fn message(contract: &Contract, random: &mut Random, name: &str) -> (Vec<u8>, Vec<String>) {
    let (mut out, mut set) = (Vec::new(), Vec::new());
    for field in &contract.messages[name].field {
        let times = if field.label() == Label::Repeated {
            random.below(4)
        } else {
            1
        };
        let mut is_set = false;
        for _ in 0..times {
            is_set |= value(contract, random, field, &mut out);
        }
        if is_set && (field.r#type() != Type::Message || field.label() != Label::Repeated) {
            set.push(field.name().to_owned());
        }
    }
    (out, set)
}

/// One event of each kind, with the names of its fields that are set.
fn one_of_each(contract: &Contract, random: &mut Random) -> Vec<(AuditEvent, Vec<String>)> {
    let kinds = contract.kinds().into_iter();
    kinds
        .map(|kind| {
            let (inner, set) = message(contract, random, kind.type_name());
            let mut bytes = Vec::new();
            piece(&mut bytes, kind, &inner);
            let mut event = AuditEvent::decode(bytes.as_slice()).unwrap();
            event.time_ms = 1 + random.below(1000);
            event.severity = event.described().unwrap().severity().into();
            (event, set)
        })
        .collect()
}

#[test]
fn each_kind_of_the_wire_contract_is_described_under_its_name_there() {
    let contract = Contract::read();
    let random = &mut Random { state: 1, words: 0 };
    let of_contract: Vec<String> = contract
        .kinds()
        .iter()
        .map(|kind| kind.name().to_owned())
        .collect();
    let described: Vec<_> = one_of_each(&contract, random)
        .iter()
        .map(|(event, _)| EventKind::of(event).unwrap().word().to_owned())
        .collect();
    assert_eq!(described, of_contract);
    assert_eq!(described.len(), EventKind::ALL.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 2))]
    #[test]
    fn every_event_has_a_severity_of_its_kind_a_sentence_and_all_its_fields(seed: u64) {
        let (contract, random) = (Contract::read(), &mut Random { state: seed, words: 0 });
        for (event, set) in one_of_each(&contract, random) {
            let kind = EventKind::of(&event).unwrap().description();
            let described = event.described().unwrap();
            prop_assert!(
                kind.severities.iter().any(|(listed, _)| *listed == described.severity()),
                "{}: {:?}", kind.word, described.severity()
            );
            let reading = Reading::of(SOURCE, &event, &[]);
            prop_assert_eq!(reading.kind, kind.word);
            prop_assert!(!reading.sentence.is_empty(), "{:?}", event);
            for name in set.iter().filter(|name| NOT_FIELDS.iter().all(|(not, _)| not != name)) {
                prop_assert!(reading.fields.contains_key(name), "{} has no field {name}", kind.word);
            }
        }
    }
}

/// What a search answers.
async fn found(store: &Store, releases: &Releases, request: SearchAuditRequest) -> Vec<AuditRecord> {
    let (out, mut answers) = mpsc::channel(100);
    let filter = Filter::try_from(request).unwrap();
    search(store, releases, &filter, &out).await.unwrap();
    drop(out);
    let mut records = Vec::new();
    while let Some(record) = answers.recv().await {
        records.push(record.unwrap());
    }
    records
}

/// A store that holds these events in one block.
async fn holding(folder: &Path, events: Vec<AuditEvent>) -> (Store, Releases) {
    let store = Store::open(&folder.join("s.db")).unwrap();
    let releases = Releases::open(store.clone(), PlantId::new("riverside").unwrap())
        .await
        .unwrap();
    let body = AuditBlockBody { events }.encode_to_vec();
    let summary = summarize(&read_body(&body).unwrap());
    let block = NewBlock {
        block: AuditBlock {
            epoch: 1,
            sequence: 0,
            previous_digest: GENESIS.to_vec().into(),
            body: body.into(),
        },
        summary,
        received_ms: 5,
    };
    let stored = store.append(SOURCE, vec![block]).await.unwrap();
    assert!(
        matches!(stored[..], [Append::Stored { missing: 0, .. }]),
        "{stored:?}"
    );
    (store, releases)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 16))]
    #[test]
    fn an_event_of_any_kind_comes_back_from_the_store_and_is_found_by_its_kind_and_by_each_of_its_texts(seed: u64) {
        let folder = tempfile::tempdir().unwrap();
        let (contract, random) = (Contract::read(), &mut Random { state: seed, words: 0 });
        let events: Vec<_> = one_of_each(&contract, random).into_iter().map(|(event, _)| event).collect();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let (store, releases) = holding(folder.path(), events.clone()).await;
            for event in events {
                let kinds = vec![EventKind::of(&event).unwrap().word().to_owned()];
                let texts = event.described().unwrap().texts().into_iter().map(str::to_owned);
                for text in texts.map(|text| text.to_uppercase()).chain([String::new()]) {
                    let request = SearchAuditRequest { kinds: kinds.clone(), text: text.clone(), ..Default::default() };
                    let found = found(&store, &releases, request).await;
                    let found: Vec<_> = found.into_iter().filter_map(|record| record.event).collect();
                    assert_eq!(found, std::slice::from_ref(&event), "{kinds:?} {text:?}");
                }
            }
        });
    }
}

#[tokio::test]
async fn an_event_of_a_kind_that_is_not_known_is_kept_found_and_shown_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let mut body = AuditBlockBody::default();
    body.events.push(AuditEvent {
        time_ms: 7,
        severity: 3,
        revision: 0,
        kind: None,
    });
    // An event whose kind is of a later version: field 9000 of `AuditEvent`, in field 1 of the body.
    let unknown = FieldDescriptorProto {
        number: Some(9000),
        ..FieldDescriptorProto::default()
    };
    let events = FieldDescriptorProto {
        number: Some(1),
        ..FieldDescriptorProto::default()
    };
    let mut later = body.events[0].encode_to_vec();
    piece(&mut later, &unknown, b"whatever");
    let mut bytes = Vec::new();
    piece(&mut bytes, &events, &later);
    let read = read_body(&bytes).unwrap();
    assert_eq!(read.events.len(), 1);
    let (store, releases) = holding(folder.path(), read.events).await;
    let all = found(&store, &releases, SearchAuditRequest::default()).await;
    let reading = Reading::of(SOURCE, all[0].event.as_ref().unwrap(), &all[0].names);
    assert_eq!((all.len(), reading.kind), (1, "unknown"));
    assert_eq!(
        reading.sentence,
        "an event of a kind that this version does not know"
    );
    let verdicts = SearchAuditRequest {
        kinds: vec!["verdict".to_owned()],
        ..Default::default()
    };
    assert_eq!(found(&store, &releases, verdicts).await, []);
}

/// What agents write is listed: each step in their source is one of [`AgentStep`].
#[test]
fn agents_write_no_step_that_is_not_listed() {
    let mut unlisted = Vec::new();
    let mut folders = vec![root().join("agent/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "tests" {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let text = fs::read_to_string(&path).unwrap();
                let calls = text.split("record::agent(").skip(1);
                let words = calls.filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next());
                let words = words.filter(|word| AgentStep::of_word(word).is_none());
                unlisted.extend(words.map(|word| format!("{name}: {word}")));
            }
        }
    }
    assert!(unlisted.is_empty(), "{unlisted:#?}");
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// The runbook's tables.
fn tables() -> String {
    let mut out = String::from("| kind | written by | what it is | severity |\n|---|---|---|---|\n");
    for kind in EventKind::ALL {
        let kind = kind.description();
        let writer = match kind.writer {
            Writer::Gateway => "gateways",
            Writer::Coordinator => "the coordinator",
        };
        let mut severities: Vec<(String, &str)> = Vec::new();
        for (severity, when) in kind.severities {
            let word = severity_word(*severity as i32);
            match severities.last_mut() {
                Some((words, same)) if same == when => *words += &format!(", {word}"),
                _ => severities.push((word.to_owned(), when)),
            }
        }
        let severities = severities.iter().map(|(words, when)| format!("{words}: {when}"));
        let severities: Vec<String> = severities.collect();
        let severities = severities.join("; ");
        out += &format!(
            "| `{}` | {writer} | {} | {severities} |\n",
            kind.word, kind.meaning
        );
    }
    out += "\nThe steps of `agent`:\n\n| step | severity | what it is |\n|---|---|---|\n";
    for step in AgentStep::ALL {
        let severity = severity_word(step.severity() as i32);
        out += &format!("| `{}` | {severity} | {} |\n", step.word(), step.meaning());
    }
    out
}

/// `PENSTOCK_FIXTURES=write` writes what it should be.
#[test]
fn the_runbook_lists_the_events_as_they_are_described() {
    const BEGIN: &str = "<!-- events: written by tests/tests/sentences/events.rs -->\n\n";
    const END: &str = "\n<!-- events end -->\n";
    let path = root().join("deploy/runbook.md");
    let runbook = fs::read_to_string(&path).unwrap();
    let (before, rest) = runbook.split_once(BEGIN).unwrap();
    let (listed, after) = rest.split_once(END).unwrap();
    let tables = tables();
    if std::env::var_os("PENSTOCK_FIXTURES").is_some_and(|what| what == "write") {
        fs::write(&path, format!("{before}{BEGIN}{tables}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(listed, tables);
}
