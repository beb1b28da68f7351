//! ArcSight Common Event Format, version 0: `CEF:0|Penstock|Penstock|VERSION|ID|NAME|SEVERITY|EXTENSION`.
//!
//! - ID is the kind, and where it has one its step, decision or action: `verdict:deny`, `fault:began`. NAME is the same in words.
//! - SEVERITY: info 2, notice 4, warning 7, alarm 10.
//! - `externalId` is the position, `dvchost` the source, `rt` when it happened, `deviceCustomDate1` when the coordinator had it;
//!   `cs6` holds the event's own fields as JSON.
//! - In the header `\` and `|` are escaped, in values `\`, `=` and line ends. Other control and hidden characters are written
//!   `\u{…}`. `msg` has at most 1023 bytes, a custom string 4000, as the standard says; what is shortened is named by
//!   `penstockTruncated`.

use std::net::IpAddr;

use penstock_policy::text;

use super::record::signed;
use super::visible::visible;
use super::{End, ExportRecord, PRODUCT, VERSION};
use crate::event::decision_word;
use crate::v1::{Decision, Severity};

/// Longest `msg`, bytes.
const MESSAGE_BYTES_MAX: usize = 1023;
/// Longest custom string, bytes.
const CUSTOM_BYTES_MAX: usize = 4000;
/// Longest name of somebody or something, bytes.
const NAME_BYTES_MAX: usize = 255;

/// The extension as it is written, and what of it was shortened.
#[derive(Default)]
struct Extension {
    text: String,
    truncated: Vec<&'static str>,
}

impl Extension {
    fn add(&mut self, key: &'static str, value: &str, max: usize) {
        if value.is_empty() {
            return;
        }
        let kept = text::shortened(value, max);
        if kept.len() < value.len() {
            self.truncated.push(key);
        }
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(key);
        self.text.push('=');
        for c in kept.chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '=' => self.text.push_str("\\="),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                c => {
                    let shown = visible(c.encode_utf8(&mut [0; 4])).replace('\\', "\\\\");
                    self.text.push_str(&shown);
                }
            }
        }
    }

    fn number(&mut self, key: &'static str, value: u64) {
        self.add(key, &signed(value).to_string(), NAME_BYTES_MAX);
    }

    /// A custom string with its label.
    fn custom(&mut self, [key, label_key]: [&'static str; 2], label: &str, value: &str) {
        if !value.is_empty() {
            self.add(label_key, label, NAME_BYTES_MAX);
            self.add(key, value, CUSTOM_BYTES_MAX);
        }
    }

    /// One end: its address by the key of its family, and its name.
    fn end(&mut self, end: &End, [v4, v6, v6_label, host]: [&'static str; 4], label: &str) {
        match end.address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => self.add(v4, &end.address, NAME_BYTES_MAX),
            Ok(IpAddr::V6(_)) => {
                self.add(v6_label, label, NAME_BYTES_MAX);
                self.add(v6, &end.address, NAME_BYTES_MAX);
            }
            Err(_) => {}
        }
        self.add(host, &end.asset, NAME_BYTES_MAX);
    }
}

/// The record as one line, without its end.
pub fn line(record: &ExportRecord) -> String {
    let what = what(record);
    let id = what.map_or(record.kind.to_owned(), |what| format!("{}:{what}", record.kind));
    let name = what.map_or(record.kind.to_owned(), |what| format!("{} {what}", record.kind));
    let severity = match record.severity {
        Severity::Alarm => 10,
        Severity::Warning => 7,
        Severity::Notice => 4,
        Severity::Info => 2,
        Severity::Unspecified => 5,
    };
    let mut out = Extension::default();
    out.number("rt", record.time_ms);
    out.add("deviceCustomDate1Label", "received", NAME_BYTES_MAX);
    out.number("deviceCustomDate1", record.received_ms);
    out.add("externalId", &record.position.to_string(), NAME_BYTES_MAX);
    out.add("dvchost", &record.position.source, NAME_BYTES_MAX);
    out.add("cat", record.kind, NAME_BYTES_MAX);
    ends(record, &mut out);
    if record.decision != Decision::Unspecified {
        out.add("act", decision_word(record.decision.into()), NAME_BYTES_MAX);
    }
    for (key, field) in [
        ("suser", "operator"),
        ("reason", "reason"),
        ("deviceInboundInterface", "ingress"),
    ] {
        if let Some(value) = record.text(field) {
            out.add(key, value, MESSAGE_BYTES_MAX);
        }
    }
    for (key, field) in [("cnt", "count"), ("start", "first_ms"), ("end", "last_ms")] {
        if let Some(value) = record.number(field) {
            out.number(key, value);
        }
    }
    out.custom(
        ["cs1", "cs1Label"],
        "flow",
        record.text("flow").unwrap_or_default(),
    );
    out.custom(["cs2", "cs2Label"], "plant", &record.plant);
    out.custom(["cs6", "cs6Label"], "event", &record.fields_json());
    if record.revision > 0 {
        out.add("cn1Label", "revision", NAME_BYTES_MAX);
        out.number("cn1", record.revision);
    }
    out.add("msg", &record.sentence, MESSAGE_BYTES_MAX);
    let truncated = std::mem::take(&mut out.truncated).join(",");
    out.add("penstockTruncated", &truncated, NAME_BYTES_MAX);
    format!(
        "CEF:0|{PRODUCT}|{PRODUCT}|{VERSION}|{}|{}|{severity}|{}",
        header(&id),
        header(&name),
        out.text
    )
}

/// Who, to whom, by what.
fn ends(record: &ExportRecord, out: &mut Extension) {
    let Some([first, second]) = &record.ends else {
        return;
    };
    out.end(
        first,
        ["src", "c6a2", "c6a2Label", "shost"],
        "Source IPv6 Address",
    );
    out.end(
        second,
        ["dst", "c6a3", "c6a3Label", "dhost"],
        "Destination IPv6 Address",
    );
    if let Some(port) = record.number("port") {
        out.number("dpt", port);
    }
    match record.number("protocol") {
        Some(1 | 58) => out.add("proto", "ICMP", NAME_BYTES_MAX),
        Some(6) => out.add("proto", "TCP", NAME_BYTES_MAX),
        Some(17) => out.add("proto", "UDP", NAME_BYTES_MAX),
        Some(other) => out.number("proto", other),
        None => {}
    }
    if let Some(protocol) = record.text("protocol").or_else(|| record.text("application")) {
        out.add("app", protocol, NAME_BYTES_MAX);
    }
    for ([key, label_key], label, zone) in [
        (["cs3", "cs3Label"], "source zone", &first.zone),
        (["cs4", "cs4Label"], "destination zone", &second.zone),
    ] {
        out.custom([key, label_key], label, zone);
    }
}

/// What happened, in one word of ours.
fn what(record: &ExportRecord) -> Option<&str> {
    if record.decision != Decision::Unspecified {
        return Some(decision_word(record.decision.into()));
    }
    record.text("step").or_else(|| record.text("action"))
}

/// A field of the header.
fn header(value: &str) -> String {
    let shown = visible(text::bounded(value, NAME_BYTES_MAX)).replace('\\', "\\\\");
    shown.replace('|', "\\|")
}
