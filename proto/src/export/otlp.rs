//! OpenTelemetry logs: the request of OTLP, protobuf, as `POST /v1/logs` takes it (OpenTelemetry protocol 1.x).
//!
//! The messages below have the names and numbers of `opentelemetry/proto/logs/v1` and `common/v1`, as far as they are used here.
//! The body of a record is its sentence; attributes have the position (`log.record.uid`, `penstock.*`) and the event's own
//! fields as `penstock.event`. Severity numbers are those that the data model gives for syslog's words: info 9, notice 10,
//! warning 13, alarm 19. Protobuf says how long each text is, so that none ends another.

use prost::Message;
use serde_json::{Map, Value};

use super::record::signed;
use super::{ExportRecord, VERSION};
use crate::event::severity_word;
use crate::v1::Severity;

/// Path of the receiver where an address names none.
pub const PATH: &str = "/v1/logs";
/// What the body of a request is.
pub const CONTENT_TYPE: &str = "application/x-protobuf";

/// Records on their way to a receiver.
#[derive(Clone, PartialEq, Message)]
pub struct ExportLogsServiceRequest {
    /// By what wrote them.
    #[prost(message, repeated, tag = "1")]
    pub resource_logs: Vec<ResourceLogs>,
}

/// Records of one resource.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceLogs {
    /// The resource.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// By the part that wrote them.
    #[prost(message, repeated, tag = "2")]
    pub scope_logs: Vec<ScopeLogs>,
}

/// What wrote records.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// Which.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// Records of one part of a program.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeLogs {
    /// The part.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<InstrumentationScope>,
    /// The records.
    #[prost(message, repeated, tag = "2")]
    pub log_records: Vec<LogRecord>,
}

/// A part of a program.
#[derive(Clone, PartialEq, Message)]
pub struct InstrumentationScope {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// One record.
#[derive(Clone, PartialEq, Message)]
pub struct LogRecord {
    /// When it happened.
    #[prost(fixed64, tag = "1")]
    pub time_unix_nano: u64,
    /// When the coordinator had it.
    #[prost(fixed64, tag = "11")]
    pub observed_time_unix_nano: u64,
    /// How grave.
    #[prost(int32, tag = "2")]
    pub severity_number: i32,
    /// The same as the source's word.
    #[prost(string, tag = "3")]
    pub severity_text: String,
    /// The sentence.
    #[prost(message, optional, tag = "5")]
    pub body: Option<AnyValue>,
    /// Position and fields.
    #[prost(message, repeated, tag = "6")]
    pub attributes: Vec<KeyValue>,
    /// Its kind.
    #[prost(string, tag = "12")]
    pub event_name: String,
}

/// An attribute.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// Any value.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// Nothing: an empty value.
    #[prost(oneof = "any_value::Value", tags = "1, 2, 3, 4, 5, 6")]
    pub value: Option<any_value::Value>,
}

/// What any value may be.
pub mod any_value {
    /// One of them.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        /// A text.
        #[prost(string, tag = "1")]
        StringValue(String),
        /// Yes or no.
        #[prost(bool, tag = "2")]
        BoolValue(bool),
        /// A whole number.
        #[prost(int64, tag = "3")]
        IntValue(i64),
        /// Another number.
        #[prost(double, tag = "4")]
        DoubleValue(f64),
        /// Several.
        #[prost(message, tag = "5")]
        ArrayValue(super::ArrayValue),
        /// By name.
        #[prost(message, tag = "6")]
        KvlistValue(super::KeyValueList),
    }
}

/// Several values.
#[derive(Clone, PartialEq, Message)]
pub struct ArrayValue {
    /// They.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<AnyValue>,
}

/// Values by name.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValueList {
    /// They.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<KeyValue>,
}

/// What a receiver answers with status 200.
#[derive(Clone, PartialEq, Message)]
pub struct ExportLogsServiceResponse {
    /// What it did not take for good.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<ExportLogsPartialSuccess>,
}

/// Records that a receiver will never take.
#[derive(Clone, PartialEq, Message)]
pub struct ExportLogsPartialSuccess {
    /// How many.
    #[prost(int64, tag = "1")]
    pub rejected_log_records: i64,
    /// Why.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

/// One request with these records; several, one behind the other, are one request again, as protobuf has it.
pub fn request(records: &[ExportRecord]) -> Vec<u8> {
    let mut plants: Vec<ResourceLogs> = Vec::new();
    for group in records.chunk_by(|one, other| one.plant == other.plant) {
        let Some(first) = group.first() else { continue };
        plants.push(ResourceLogs {
            resource: Some(Resource {
                attributes: vec![
                    text("service.name", "penstock"),
                    text("service.version", VERSION),
                    text("penstock.plant", &first.plant),
                ],
            }),
            scope_logs: vec![ScopeLogs {
                scope: Some(InstrumentationScope {
                    name: "penstock.audit".to_owned(),
                    version: VERSION.to_owned(),
                }),
                log_records: group.iter().map(log_record).collect(),
            }],
        });
    }
    ExportLogsServiceRequest {
        resource_logs: plants,
    }
    .encode_to_vec()
}

/// One record of such a request.
pub fn log_record(record: &ExportRecord) -> LogRecord {
    let position = &record.position;
    let mut attributes = vec![
        text("log.record.uid", &position.to_string()),
        text("penstock.source", &position.source),
        number("penstock.epoch", position.epoch),
        number("penstock.sequence", position.sequence),
        number("penstock.index", position.index.into()),
        number("penstock.revision", record.revision),
        text("penstock.kind", record.kind),
    ];
    for (end, name) in record.ends.iter().flatten().zip(["source", "destination"]) {
        for (what, value) in [
            ("address", &end.address),
            ("asset", &end.asset),
            ("zone", &end.zone),
        ] {
            if !value.is_empty() {
                let space = if what == "address" { "" } else { "penstock." };
                attributes.push(text(&format!("{space}{name}.{what}"), value));
            }
        }
    }
    attributes.push(KeyValue {
        key: "penstock.event".to_owned(),
        value: Some(list(&record.fields)),
    });
    LogRecord {
        time_unix_nano: record.time_ms.saturating_mul(1_000_000),
        observed_time_unix_nano: record.received_ms.saturating_mul(1_000_000),
        severity_number: match record.severity {
            Severity::Unspecified => 0,
            Severity::Info => 9,
            Severity::Notice => 10,
            Severity::Warning => 13,
            Severity::Alarm => 19,
        },
        severity_text: severity_word(record.severity.into()).to_owned(),
        body: Some(of_text(&record.sentence)),
        attributes,
        event_name: format!("penstock.{}", record.kind),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(of_text(value)),
    }
}

fn number(key: &str, value: u64) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(some(any_value::Value::IntValue(signed(value)))),
    }
}

fn of_text(value: &str) -> AnyValue {
    some(any_value::Value::StringValue(value.to_owned()))
}

fn some(value: any_value::Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn list(fields: &Map<String, Value>) -> AnyValue {
    let values = fields.iter().map(|(key, value)| KeyValue {
        key: key.clone(),
        value: Some(any(value)),
    });
    some(any_value::Value::KvlistValue(KeyValueList {
        values: values.collect(),
    }))
}

fn any(value: &Value) -> AnyValue {
    match value {
        Value::Null => AnyValue { value: None },
        Value::Bool(value) => some(any_value::Value::BoolValue(*value)),
        Value::String(value) => of_text(value),
        Value::Array(values) => some(any_value::Value::ArrayValue(ArrayValue {
            values: values.iter().map(any).collect(),
        })),
        Value::Object(fields) => list(fields),
        Value::Number(value) => match value.as_i64() {
            Some(value) => some(any_value::Value::IntValue(value)),
            // A number beyond what OTLP counts keeps all its digits as a text.
            None if value.is_u64() => of_text(&value.to_string()),
            None => some(any_value::Value::DoubleValue(value.as_f64().unwrap_or_default())),
        },
    }
}
