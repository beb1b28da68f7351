//! RFC 5424: one message a record, framed for TLS by counted octets (RFC 5425 §4.3).
//!
//! `<PRI>1 TIME SOURCE penstock - KIND [penstock@32473 position="…" …][event@32473 …] BOM TEXT`
//!
//! - PRI: facility 13 (log audit); alarm is *alert*, warning *warning*, notice *notice*, info *informational*.
//! - TIME is the source's clock; HOSTNAME the last part of the source's name, the whole of it is a parameter.
//! - The two structured-data identifiers need the number of an enterprise. Penstock has none of its own: 32473 is the one that
//!   IANA reserves for documentation (RFC 5612).
//! - A message has at most [`MESSAGE_BYTES_MAX`] bytes. Fields that are shortened or left out are named by the parameter
//!   `truncated`.
//! - In values `"`, `\` and `]` are escaped (§6.3.3). Control and hidden characters, which receivers treat in different ways,
//!   are written `\u{…}`; formats that are JSON have them as they are.

use penstock_policy::text;
use serde_json::Value;

use super::ExportRecord;
use super::record::instant;
use super::visible::visible;
use crate::event::severity_word;
use crate::v1::Severity;

/// Largest message, bytes: what receivers take whose limit was not set (rsyslog), and RFC 5425 §4.3.1 asks them to.
pub const MESSAGE_BYTES_MAX: usize = 8192;
/// What of it the text may take.
const TEXT_BYTES_MAX: usize = 2048;
/// Longest value of a parameter, bytes, before it is escaped.
const VALUE_BYTES_MAX: usize = 1024;
/// What is kept for naming what was truncated.
const TRUNCATED_BYTES: usize = 320;
/// "Log audit" (RFC 5424 §6.2.1).
const FACILITY: u8 = 13;
/// What structured data begins with.
const OWN: &str = "penstock@32473";
/// What the event's own fields begin with.
const EVENT: &str = "event@32473";

/// The record as one message.
pub fn message(record: &ExportRecord) -> String {
    let mut message = head(record);
    let shown = visible(&record.sentence);
    let sentence = text::shortened(&shown, TEXT_BYTES_MAX);
    let mut truncated: Vec<&str> = Vec::new();
    if sentence.len() < shown.len() {
        truncated.push("text");
    }
    // Space, BOM and text; and the end of the structured data.
    let behind = sentence.len() + 4 + 1;
    let room = MESSAGE_BYTES_MAX.saturating_sub(message.len() + behind + TRUNCATED_BYTES);
    let mut event = format!("[{EVENT}");
    for (name, value) in &record.fields {
        let value = match value {
            Value::Null => continue,
            Value::String(value) => visible(value).into_owned(),
            other => text::json(&other.to_string()).into_owned(),
        };
        let kept = text::shortened(&value, VALUE_BYTES_MAX);
        let param = param(name, &kept);
        let fits = event.len() + param.len() <= room;
        if kept.len() < value.len() || !fits {
            truncated.push(name);
        }
        if fits {
            event.push_str(&param);
        }
    }
    if !truncated.is_empty() {
        let names = truncated.join(",");
        message.push_str(&param(
            "truncated",
            &text::shortened(&names, TRUNCATED_BYTES - 20),
        ));
    }
    message.push(']');
    if event.len() > EVENT.len() + 1 {
        message.push_str(&event);
        message.push(']');
    }
    message.push_str(" \u{feff}");
    message.push_str(&sentence);
    message
}

/// The record as a message whose text is that of another format, whole: it may be longer than [`MESSAGE_BYTES_MAX`].
pub fn carrying(record: &ExportRecord, text: &str) -> String {
    format!("{}] \u{feff}{text}", head(record))
}

/// A message as TLS carries it.
pub fn framed(message: &str) -> Vec<u8> {
    let mut frame = format!("{} ", message.len()).into_bytes();
    frame.extend_from_slice(message.as_bytes());
    frame
}

/// Up to and with our own parameters; the bracket is open.
fn head(record: &ExportRecord) -> String {
    let pri = u16::from(FACILITY) * 8 + u16::from(level(record.severity));
    let time = instant(record.time_ms).unwrap_or_else(|| "-".to_owned());
    let position = &record.position;
    let host = position.source.rsplit('/').next().unwrap_or_default();
    let mut head = format!(
        "<{pri}>1 {time} {} penstock - {} [{OWN}",
        graphic(host, 255),
        record.kind
    );
    let received = instant(record.received_ms).unwrap_or_default();
    for (name, value) in [
        ("position", position.to_string()),
        ("plant", record.plant.clone()),
        ("source", position.source.clone()),
        ("epoch", position.epoch.to_string()),
        ("sequence", position.sequence.to_string()),
        ("index", position.index.to_string()),
        ("received", received),
        ("severity", severity_word(record.severity.into()).to_owned()),
        ("revision", record.revision.to_string()),
    ] {
        head.push_str(&param(name, text::bounded(&visible(&value), 512)));
    }
    let names = [["first_asset", "first_zone"], ["second_asset", "second_zone"]];
    for (end, [asset, zone]) in record.ends.iter().flatten().zip(names) {
        for (name, value) in [(asset, &end.asset), (zone, &end.zone)] {
            if !value.is_empty() {
                head.push_str(&param(name, text::bounded(&visible(value), 255)));
            }
        }
    }
    head
}

/// Severity as syslog counts it.
fn level(severity: Severity) -> u8 {
    match severity {
        Severity::Alarm => 1,
        Severity::Warning | Severity::Unspecified => 4,
        Severity::Notice => 5,
        Severity::Info => 6,
    }
}

/// ` name="value"`, the value as it is read again.
fn param(name: &str, value: &str) -> String {
    let mut out = format!(" {}=\"", graphic(name, 32));
    for c in value.chars() {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// What may stand in a name: printable ASCII without those that end one.
fn graphic(text: &str, max: usize) -> String {
    let kept: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() && !matches!(c, '=' | ']' | '"') {
                c
            } else {
                '_'
            }
        })
        .take(max)
        .collect();
    if kept.is_empty() { "-".to_owned() } else { kept }
}
