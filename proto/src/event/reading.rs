//! An event as its readers get it: word, sentence and fields; also of one whose kind is not known, and of one that its source may
//! not write.

use serde_json::{Map, Value, json};

use super::EventKind;
use crate::v1::{AuditEvent, NamedAddress};

/// What of an event is printed and exported.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Its kind's word; `foreign`, if its source may not write such events; or `unknown`.
    pub kind: &'static str,
    /// It in one sentence.
    pub sentence: String,
    /// Its fields by name.
    pub fields: Map<String, Value>,
}

impl Reading {
    /// Reads an event of the trail of `source`, with what its addresses were called.
    pub fn of(source: &str, event: &AuditEvent, names: &[NamedAddress]) -> Self {
        let (Some(kind), Some(described)) = (EventKind::of(event), event.described()) else {
            return Self {
                kind: "unknown",
                sentence: "an event of a kind that this version does not know".to_owned(),
                fields: Map::new(),
            };
        };
        let own = Self {
            kind: kind.word(),
            sentence: described.sentence(names),
            fields: object(described.fields()),
        };
        if kind.may_be_written_by(source) {
            own
        } else {
            own.claimed_by(source)
        }
    }

    /// Shown, and not believed.
    fn claimed_by(self, source: &str) -> Self {
        let (word, claimed) = (self.kind, self.sentence);
        Self {
            kind: "foreign",
            sentence: format!(
                "NOT BELIEVED: {source} may not write events of the kind `{word}`; it claims: {claimed}"
            ),
            fields: object(json!({ "claimed_kind": word, "claims": self.fields })),
        }
    }
}

fn object(fields: Value) -> Map<String, Value> {
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
