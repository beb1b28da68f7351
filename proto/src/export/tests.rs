//! Each format over each kind of event, and over any text: goldens, and properties by parsers that know nothing of the writers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod parse;
mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;
use prost::Message as _;
use serde_json::Value;

use self::parse::{cef, frames, syslog as parsed};
use super::visible::visible;
use super::*;
use crate::event::EventKind;
use crate::v1::audit_event::Kind;
use crate::v1::{
    AuditEvent, AuditRecord, Decision, FaultEvent, LearnedEvent, NamedAddress, OperatorEvent, Severity,
    VerdictEvent,
};

const LINES: [LineFormat; 4] = [
    LineFormat::Jsonl,
    LineFormat::Syslog,
    LineFormat::Cef,
    LineFormat::Ocsf,
];

#[test]
fn the_samples_hold_each_kind_of_event() {
    let kinds: BTreeSet<&str> = samples::records().iter().map(|record| record.kind).collect();
    for kind in EventKind::ALL {
        assert!(kinds.contains(kind.word()), "{kind:?}");
    }
    for kind in ["foreign", "unknown", "export"] {
        assert!(kinds.contains(kind), "{kind}");
    }
}

#[test]
fn each_kind_of_event_is_written_in_each_format_as_the_goldens_have_it() {
    for format in LINES {
        let mut written = String::new();
        for record in samples::records() {
            // The version stands in most lines, and changes.
            written.push_str(&format.line(&record).replace(VERSION, "VERSION"));
            written.push('\n');
        }
        let word = Format::Lines(format).word();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/export/{word}.txt"));
        if std::env::var_os("PENSTOCK_UPDATE_GOLDENS").is_some() {
            std::fs::write(&file, &written).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap();
        for (written, golden) in written.lines().zip(golden.lines()) {
            assert_eq!(written, golden, "{word}");
        }
        assert_eq!(written.lines().count(), golden.lines().count(), "{word}");
    }
}

#[test]
fn a_position_is_read_as_it_was_written_and_orders_records_of_one_source_alone() {
    let first: Position = "coordinator/c1/1/9/0".parse().unwrap();
    let later: Position = "coordinator/c1/2/0/0".parse().unwrap();
    let other: Position = "gw-a/2/0/0".parse().unwrap();
    assert!(first < later);
    assert_eq!(first.partial_cmp(&other), None);
    for bad in ["", "gw-a", "gw-a/1/2", "/1/2/3", "gw-a/1/2/x", "gw-a/1/-2/3"] {
        let refused = bad.parse::<Position>().unwrap_err().to_string();
        assert!(
            refused.contains(&format!("`{bad}` is not a position")),
            "{refused}"
        );
    }
}

#[test]
fn what_has_no_room_in_a_message_is_named_in_it() {
    let event = FaultEvent {
        zones: (0..2000).map(|n| format!("zone-{n}")).collect(),
        ..FaultEvent::default()
    };
    let record = of(Kind::Fault(event), "gw-a", &[]);
    let message = syslog::message(&record);
    assert!(message.len() <= syslog::MESSAGE_BYTES_MAX);
    let read = parsed(&message).unwrap();
    assert_eq!(read.data["penstock@32473"]["truncated"], "zones");
    let event = OperatorEvent {
        message: "x".repeat(1 << 16),
        ..OperatorEvent::default()
    };
    let long = of(Kind::Operator(event), "coordinator/c1", &[]);
    let read = cef(&cef::line(&long)).unwrap();
    assert_eq!(read.extension["penstockTruncated"], "cs6,msg");
    let message = syslog::message(&long);
    assert!(message.len() <= syslog::MESSAGE_BYTES_MAX);
    assert_eq!(
        parsed(&message).unwrap().data["penstock@32473"]["truncated"],
        "text,message"
    );
    // A format that is JSON has all of it.
    let read: Value = serde_json::from_str(&jsonl::line(&long)).unwrap();
    assert_eq!(read["event"]["message"].as_str().unwrap().len(), 1 << 16);
}

#[test]
fn what_an_export_does_not_bring_is_an_alarm_in_itself() {
    let record = ExportRecord::missing(
        "works",
        "siem",
        1_800_000_000_000,
        12,
        "retention removed them first",
    );
    assert_eq!(record.severity, Severity::Alarm);
    assert_eq!(
        record.sentence,
        "12 blocks of the trail are missing in this export: retention removed them first"
    );
    assert_eq!(record.position.source, "export/siem");
}

fn of(kind: Kind, source: &str, names: &[NamedAddress]) -> ExportRecord {
    let record = AuditRecord {
        source: source.to_owned(),
        epoch: 3,
        sequence: 77,
        index: 5,
        received_ms: 1_800_000_000_123,
        names: names.to_vec(),
        event: Some(AuditEvent {
            time_ms: 1_800_000_000_000,
            severity: Severity::Warning.into(),
            revision: 4,
            kind: Some(kind),
        }),
        ..AuditRecord::default()
    };
    ExportRecord::of("works", &record)
}

fn operator(text: &str) -> Kind {
    Kind::Operator(OperatorEvent {
        operator: text.to_owned(),
        role: text.to_owned(),
        action: text.to_owned(),
        target: text.to_owned(),
        allowed: true,
        message: text.to_owned(),
    })
}

fn verdict(text: &str) -> Kind {
    Kind::Verdict(VerdictEvent {
        decision: Decision::Deny.into(),
        flow: text.to_owned(),
        ingress: text.to_owned(),
        source: text.to_owned(),
        destination: text.to_owned(),
        protocol: 6,
        port: 502,
        reason: text.to_owned(),
        ..VerdictEvent::default()
    })
}

/// Texts that end something in one of the formats, among any others.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n".to_owned()),
        Just("\r\n<14>1 - - - - - -".to_owned()),
        Just("|CEF:0|a|b|c|d|e|10|".to_owned()),
        Just("=x act=allow msg=\\=".to_owned()),
        Just("\"] [penstock@32473 position=\"a/1/1/1\"]".to_owned()),
        Just("\\\\\"\\]\\".to_owned()),
        Just("\",\"kind\":\"x".to_owned()),
        Just("\u{0}\u{7}\u{1b}[31m\u{7f}\u{85}\u{2028}\u{2029}\u{feff}\u{202e}".to_owned()),
        Just("\u{fffd}\u{10ffff}\u{d7ff}é≠ 12 ".to_owned()),
        ".{0,12}",
        "\\PC{0,40}",
        (1usize..6_000).prop_map(|length| "]\"=".repeat(length / 3)),
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

/// What a field that was shortened begins with is what was there.
fn same_or_named(kept: &str, whole: &str, truncated: &str, name: &str) {
    if kept == whole {
        return;
    }
    assert!(
        truncated.split(',').any(|named| named == name),
        "{name}: {truncated}"
    );
    let begun = kept.strip_suffix('…').unwrap_or(kept);
    assert!(whole.starts_with(begun), "{name}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 8))]

    #[test]
    fn no_text_in_an_event_ends_a_line_or_changes_another_field_in_any_format(text in hostile()) {
        let names = [NamedAddress { address: text.clone(), asset: text.clone(), zone: text.clone() }];
        for record in [of(operator(&text), "coordinator/c1", &[]), of(verdict(&text), "gw-a", &names)] {
            for format in LINES {
                let line = format.line(&record);
                let ends = |c: char| c == '\n' || (penstock_policy::text::is_hidden(c) && c != '\u{feff}');
                prop_assert!(!line.contains(ends), "{line:?}");
            }
            // JSON: the same values, and no others.
            let read: Value = serde_json::from_str(&jsonl::line(&record)).unwrap();
            prop_assert_eq!(&read["event"], &Value::Object(record.fields.clone()));
            prop_assert_eq!(&read["position"], &Value::from(record.position.to_string()));
            prop_assert_eq!(&read["summary"], &Value::from(record.sentence.clone()));
            let read: Value = serde_json::from_str(&ocsf::line(&record)).unwrap();
            prop_assert_eq!(&read["unmapped"]["event"], &Value::Object(record.fields.clone()));
            prop_assert_eq!(&read["metadata"]["uid"], &Value::from(record.position.to_string()));
            prop_assert_eq!(&read["message"], &Value::from(record.sentence.clone()));
            // syslog: the same parameters, or named as truncated.
            let message = syslog::message(&record);
            prop_assert!(message.len() <= syslog::MESSAGE_BYTES_MAX, "{}", message.len());
            let read = parsed(&message).unwrap();
            let own = &read.data["penstock@32473"];
            let empty = BTreeMap::new();
            let event = read.data.get("event@32473").unwrap_or(&empty);
            prop_assert_eq!(read.data.len(), 1 + usize::from(!event.is_empty()));
            prop_assert_eq!(&own["position"], &record.position.to_string());
            let truncated = own.get("truncated").map(String::as_str).unwrap_or_default();
            same_or_named(&read.text, &visible(&record.sentence), truncated, "text");
            for (name, value) in &record.fields {
                let Value::String(value) = value else { continue };
                let kept = event.get(name).map(String::as_str).unwrap_or_default();
                same_or_named(kept, &visible(value), truncated, name);
            }
            prop_assert!(event.keys().all(|name| record.fields.contains_key(name)));
            // CEF: our own header, our own keys, the same values.
            let read = cef(&cef::line(&record)).unwrap();
            prop_assert_eq!(read.header[..3].join("|"), "0|Penstock|Penstock");
            prop_assert_eq!(&read.extension["externalId"], &record.position.to_string());
            for key in read.extension.keys() {
                prop_assert!(CEF_KEYS.contains(&key.as_str()), "{key}");
            }
            let truncated = read.extension.get("penstockTruncated").map(String::as_str).unwrap_or_default();
            if !truncated.contains("cs6") {
                let event: Value = serde_json::from_str(&read.extension["cs6"]).unwrap();
                prop_assert_eq!(event, Value::Object(record.fields.clone()));
            }
            // OTLP: protobuf, with all of it.
            let read = otlp::ExportLogsServiceRequest::decode(otlp::request(std::slice::from_ref(&record)).as_slice()).unwrap();
            prop_assert_eq!(&read.resource_logs[0].scope_logs[0].log_records, &[otlp::log_record(&record)]);
        }
    }

    #[test]
    fn frames_are_read_one_by_one_whatever_is_in_them(texts in prop::collection::vec(hostile(), 1..4)) {
        let messages: Vec<String> = texts.iter().map(|text| {
            let record = of(operator(text), "coordinator/c1", &[]);
            LineFormat::Jsonl.syslog(&record)
        }).collect();
        let stream: Vec<u8> = messages.iter().flat_map(|message| syslog::framed(message)).collect();
        prop_assert_eq!(frames(&stream).unwrap(), messages);
    }
}

/// Each key that a line of CEF may have.
const CEF_KEYS: &[&str] = &[
    "rt",
    "deviceCustomDate1",
    "deviceCustomDate1Label",
    "externalId",
    "dvchost",
    "cat",
    "src",
    "dst",
    "c6a2",
    "c6a2Label",
    "c6a3",
    "c6a3Label",
    "shost",
    "dhost",
    "dpt",
    "proto",
    "app",
    "act",
    "suser",
    "reason",
    "deviceInboundInterface",
    "cnt",
    "start",
    "end",
    "cs1",
    "cs1Label",
    "cs2",
    "cs2Label",
    "cs3",
    "cs3Label",
    "cs4",
    "cs4Label",
    "cs6",
    "cs6Label",
    "cn1",
    "cn1Label",
    "msg",
    "penstockTruncated",
];
