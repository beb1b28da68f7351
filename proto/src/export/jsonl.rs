//! JSON Lines: one object a line, with all of the event; the format to keep when in doubt.
//!
//! Control and hidden characters in texts, line separators of Unicode among them, are escapes, so that no reader of lines ends
//! one early.

use penstock_policy::text;
use serde_json::json;

use super::ExportRecord;
use super::record::instant;
use crate::event::severity_word;

/// What stands in each object, so that a reader knows the form.
pub const SCHEMA: &str = "penstock.export/1";

/// The record as one line, without its end.
pub fn line(record: &ExportRecord) -> String {
    let ends: Vec<_> = record
        .ends
        .iter()
        .flatten()
        .filter(|end| !end.zone.is_empty())
        .map(|end| {
            let asset = Some(&end.asset).filter(|asset| !asset.is_empty());
            json!({ "address": end.address, "asset": asset, "zone": end.zone })
        })
        .collect();
    let position = &record.position;
    let object = json!({
        "schema": SCHEMA,
        "position": position.to_string(),
        "plant": record.plant,
        "source": position.source,
        "epoch": position.epoch,
        "sequence": position.sequence,
        "index": position.index,
        "time": instant(record.time_ms),
        "time_ms": record.time_ms,
        "received": instant(record.received_ms),
        "received_ms": record.received_ms,
        "severity": severity_word(record.severity.into()),
        "kind": record.kind,
        "revision": record.revision,
        "summary": record.sentence,
        "names": ends,
        "event": record.fields,
    });
    text::json(&object.to_string()).into_owned()
}
