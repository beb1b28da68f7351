//! The trail as programs read it that others wrote: JSON Lines, syslog (RFC 5424), CEF, OCSF and OTLP.
//!
//! One description of a record ([`ExportRecord`]), one file for each format, and no other place in which an event is put into
//! words: kind, sentence and fields come from [`crate::event`]. Formats are pure, so that the coordinator, which exports
//! continuously, and the CLI, which exports once, write the same bytes.
//!
//! Each record carries its [`Position`], by which a reader knows a repeated record and misses none. Texts in events come from
//! clients and strangers; no text ends a record, a field or a line, in any format. What a format has no room for is named in
//! the record as truncated.

use serde::Serialize;

pub mod cef;
pub mod jsonl;
pub mod ocsf;
pub mod otlp;
mod position;
mod record;
pub mod syslog;
mod visible;

pub use position::{Position, PositionError};
pub use record::{End, ExportRecord};

/// What a record is called by in every format.
pub const PRODUCT: &str = "Penstock";
/// The version that stands in records.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Formats in which each record is one line of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LineFormat {
    /// One JSON object, with all of the event.
    Jsonl,
    /// RFC 5424.
    Syslog,
    /// ArcSight Common Event Format.
    Cef,
    /// Open Cybersecurity Schema Framework, as JSON.
    Ocsf,
}

/// A format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text, a line for each record.
    Lines(LineFormat),
    /// OpenTelemetry logs, protobuf.
    Otlp,
}

impl Format {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Lines(LineFormat::Jsonl),
        Self::Lines(LineFormat::Syslog),
        Self::Lines(LineFormat::Cef),
        Self::Lines(LineFormat::Ocsf),
        Self::Otlp,
    ];

    /// Its word, in configurations and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lines(LineFormat::Jsonl) => "jsonl",
            Self::Lines(LineFormat::Syslog) => "syslog",
            Self::Lines(LineFormat::Cef) => "cef",
            Self::Lines(LineFormat::Ocsf) => "ocsf",
            Self::Otlp => "otlp",
        }
    }

    /// The format of this word.
    ///
    /// ```
    /// use penstock_proto::export::Format;
    ///
    /// assert_eq!(Format::of_word("otlp"), Some(Format::Otlp));
    /// assert_eq!(Format::of_word("xml"), None);
    /// ```
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.word() == word)
    }
}

impl LineFormat {
    /// The record as one line, without its end.
    pub fn line(self, record: &ExportRecord) -> String {
        match self {
            Self::Jsonl => jsonl::line(record),
            Self::Syslog => syslog::message(record),
            Self::Cef => cef::line(record),
            Self::Ocsf => ocsf::line(record),
        }
    }

    /// The record as an RFC 5424 message, whose text is in this format.
    pub fn syslog(self, record: &ExportRecord) -> String {
        match self {
            Self::Syslog => syslog::message(record),
            other => syslog::carrying(record, &other.line(record)),
        }
    }
}

#[cfg(test)]
mod tests;
