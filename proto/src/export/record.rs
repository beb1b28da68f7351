//! What an export says of one event, whatever the format.

use penstock_policy::text;
use serde_json::{Map, Value, json};

use super::Position;
use crate::event::Reading;
use crate::v1::{AuditRecord, Decision, NamedAddress, Severity};

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportRecord {
    /// The plant whose trail it is.
    pub plant: String,
    /// Where it stands.
    pub position: Position,
    /// When it happened by the source's clock, milliseconds since 1970.
    pub time_ms: u64,
    /// When the coordinator had it, milliseconds since 1970.
    pub received_ms: u64,
    /// The policy revision in force; 0 if none.
    pub revision: u64,
    /// How grave it is.
    pub severity: Severity,
    /// Its kind's word; `foreign`, `unknown`, or `export` of what an export says of itself.
    pub kind: &'static str,
    /// It in one sentence.
    pub sentence: String,
    /// Its fields by name.
    pub fields: Map<String, Value>,
    /// The two addresses that it is about, with their names.
    pub ends: Option<[End; 2]>,
    /// What was decided.
    pub decision: Decision,
}

/// One of the two ends that an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// Its address, as the event has it.
    pub address: String,
    /// The asset that had it; empty: none is known.
    pub asset: String,
    /// The zone; empty: none is known.
    pub zone: String,
}

impl End {
    fn of(address: &str, names: &[NamedAddress]) -> Self {
        let named = names.iter().find(|named| named.address == address);
        let (asset, zone) = named.map_or((String::new(), String::new()), |named| {
            (named.asset.clone(), named.zone.clone())
        });
        Self {
            address: address.to_owned(),
            asset,
            zone,
        }
    }
}

impl ExportRecord {
    /// What is exported of a record of the trail of `plant`.
    pub fn of(plant: &str, record: &AuditRecord) -> Self {
        let event = record.event.clone().unwrap_or_default();
        let reading = Reading::of(&record.source, &event, &record.names);
        // What its source may not write is shown, and not believed.
        let believed = event.described().filter(|_| reading.kind != "foreign");
        let ends = believed.and_then(|event| event.addresses());
        Self {
            plant: plant.to_owned(),
            position: Position {
                source: record.source.clone(),
                epoch: record.epoch,
                sequence: record.sequence,
                index: record.index,
            },
            time_ms: event.time_ms,
            received_ms: record.received_ms,
            revision: event.revision,
            severity: Severity::try_from(event.severity).unwrap_or_default(),
            kind: reading.kind,
            sentence: reading.sentence,
            ends: ends.map(|ends| ends.map(|address| End::of(address, &record.names))),
            decision: believed.map(|event| event.decision()).unwrap_or_default(),
            fields: reading.fields,
        }
    }

    /// Blocks that the export `name` will not bring, since `why`: said in the export itself, so that it is never silently
    /// short.
    pub fn missing(plant: &str, name: &str, now_ms: u64, blocks: u64, why: &str) -> Self {
        let what = if blocks == 1 {
            "1 block".to_owned()
        } else {
            format!("{blocks} blocks")
        };
        let fields = json!({ "step": "missing", "export": name, "blocks": blocks, "message": why });
        Self {
            plant: plant.to_owned(),
            position: Position {
                source: format!("export/{name}"),
                epoch: 0,
                sequence: now_ms,
                index: 0,
            },
            time_ms: now_ms,
            received_ms: now_ms,
            revision: 0,
            severity: Severity::Alarm,
            kind: "export",
            sentence: format!("{what} of the trail are missing in this export: {why}"),
            fields: match fields {
                Value::Object(fields) => fields,
                _ => Map::new(),
            },
            ends: None,
            decision: Decision::Unspecified,
        }
    }

    /// A field that is a text, if there is one that says something.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.fields
            .get(field)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    /// A field that is a number beyond 0.
    pub(super) fn number(&self, field: &str) -> Option<u64> {
        self.fields
            .get(field)
            .and_then(Value::as_u64)
            .filter(|number| *number > 0)
    }

    /// The event's own fields as one JSON object in which nothing is hidden.
    pub(super) fn fields_json(&self) -> String {
        let json = serde_json::to_string(&self.fields).unwrap_or_default();
        text::json(&json).into_owned()
    }
}

/// A time as RFC 3339 has it, UTC, milliseconds; `None`: no calendar has it.
pub(super) fn instant(ms: u64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// A number as those have it who count with signs.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
