//! The document as a tree of lists, mappings and words, each with its place, and with nothing typed yet.
//!
//! Scalars keep the text that was written: `2.10` stays `2.10` and `no` stays `no`, whatever YAML 1.1 or 1.2
//! would make of them; what a word means is decided where the grammar expects it.

use crate::diagnostics::source::Place;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Its own text if that fits on one line, else the key (or first key) that it hangs on.
    pub(crate) place: Place,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// A word or text; `plain` if it has no quotes.
    Scalar { text: String, plain: bool },
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order written; its keys are unique.
    Mapping(Vec<Entry>),
    /// Something refused, about which a fault has been said already.
    Broken,
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_plain: bool,
    pub(crate) key_place: Place,
    pub(crate) value: Node,
}

impl Node {
    /// Whether it is `null` in one of YAML's spellings: nothing at all, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if is_null(text))
    }

    /// What it is, for a sentence.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            _ if self.is_null() => "nothing".to_owned(),
            Kind::Scalar { text, .. } => format!("`{}`", excerpt(text)),
            Kind::List(_) => "a list".to_owned(),
            Kind::Mapping(_) => "a mapping".to_owned(),
            Kind::Broken => "something unreadable".to_owned(),
        }
    }
}

/// Whether it is one of YAML's spellings of nothing.
pub(crate) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// The beginning of a text that someone else wrote, short enough for a message.
pub(crate) fn excerpt(text: &str) -> String {
    const SHOWN: usize = 60;
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None if line.len() < text.len() => format!("{line}…"),
        None => line.to_owned(),
    }
}
