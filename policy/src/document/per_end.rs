//! What is written once for both ends of a flow, or for each: `service: { source: mqtt-bridge, destination: mqtts-bridge }`.
//!
//! Only a bridge has two servers, and so something to write for each; that is judged with the flow, not here.

use serde_json::{Value, json};

use super::node::{Kind, Node};
use super::read::{At, Field, Record, Term, read_at, record_schema};
use crate::diagnostics::faults::Faults;

const KEYS: [&str; 2] = ["source", "destination"];
const DOC: &str = "What holds at the bridge's source, and what at its destination.";
const SOURCE: &str = "What holds at the source.";
const DESTINATION: &str = "What holds at the destination.";

/// One value for both ends, or one for each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PerEnd<T> {
    /// Written once.
    Same(At<T>),
    /// Written for each.
    Each { source: At<T>, destination: At<T> },
}

impl<T> PerEnd<T> {
    /// What holds at the source.
    pub(crate) fn source(&self) -> &At<T> {
        match self {
            Self::Same(both) => both,
            Self::Each { source, .. } => source,
        }
    }

    /// What holds at the destination.
    pub(crate) fn destination(&self) -> &At<T> {
        match self {
            Self::Same(both) => both,
            Self::Each { destination, .. } => destination,
        }
    }
}

impl<T: Term> Term for PerEnd<T> {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let each = match &node.kind {
            Kind::Mapping(entries) => entries.iter().any(|entry| KEYS.contains(&entry.key.as_str())),
            _ => false,
        };
        if !each {
            return read_at(node, faults).map(Self::Same);
        }
        let record = Record::open(node, "what is written for each end", &KEYS, faults)?;
        match (
            record.required("source", SOURCE, faults),
            record.required("destination", DESTINATION, faults),
        ) {
            (Field::Given(source), Field::Given(destination)) => Some(Self::Each { source, destination }),
            _ => None,
        }
    }

    fn schema() -> Value {
        let each = record_schema(
            DOC,
            vec![
                ("source", true, SOURCE, T::schema()),
                ("destination", true, DESTINATION, T::schema()),
            ],
        );
        json!({ "anyOf": [T::schema(), each] })
    }
}
