//! What editors are shown of templates, stations and groups: the document's own schema, with room for placeholders.
//!
//! The three sections are read by [`expand`](crate::document::expand) before the grammar reads anything. Here they only say their form, so
//! that their keys are known where an unknown one is explained.

use serde_json::{Map, Value, json};

use super::{Asset, CompensatingControl, Conduit, End, Gateway, Site, Zone};
use crate::diagnostics::faults::Faults;
use crate::document::expand::{SECTIONS, parameter_schema};
use crate::document::node::Node;
use crate::document::read::{At, OneOrMany, Table, Term, record_schema};
use crate::ids::{AssetId, ConduitId, ControlId, GatewayId, SiteId, ZoneId};

/// Pattern of the names of templates, stations and groups.
const NAME: &str = "^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$";
/// Pattern of a text with a placeholder.
const PLACEHOLDER: &str = "[$][(]";

/// Zones, one or a list; a group of zones may stand among them, and its members stand there when this is read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ZonesOrGroups(pub(crate) Vec<At<ZoneId>>);

impl Term for ZonesOrGroups {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        OneOrMany::read(node, faults).map(|OneOrMany(zones)| Self(zones))
    }

    fn schema() -> Value {
        let item = json!({ "type": "string", "pattern": "^(group:)?[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$" });
        json!({ "anyOf": [item, { "type": "array", "minItems": 1, "uniqueItems": true, "items": item }] })
    }
}

/// Declares a section that was read before the grammar.
macro_rules! read_before {
    ($($(#[$doc:meta])* $name:ident, $schema:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub(crate) struct $name;

        impl Term for $name {
            fn read(_: &Node, _: &mut Faults) -> Option<Self> {
                Some(Self)
            }

            fn schema() -> Value {
                let things: Value = $schema;
                json!({ "type": "object", "minProperties": 1, "propertyNames": { "pattern": NAME }, "additionalProperties": things })
            }
        }
    )*};
}

read_before! {
    /// The section `templates`.
    Templates, template();
    /// The section `stations`.
    Stations, station();
    /// The section `groups`.
    Groups, OneOrMany::<End>::schema();
}

fn station() -> Value {
    json!({
        "type": "object",
        "description": "A station: the template from which it is made, and its parameters.",
        "required": ["template"],
        "properties": { "template": { "type": "string", "pattern": NAME, "description": "The template from which it is made." } },
        "additionalProperties": { "anyOf": [{ "type": "string" }, { "type": "integer" }] },
    })
}

fn template() -> Value {
    let section = |name: &str| match name {
        "sites" => Table::<SiteId, Site>::schema(),
        "gateways" => Table::<GatewayId, Gateway>::schema(),
        "zones" => Table::<ZoneId, Zone>::schema(),
        "assets" => Table::<AssetId, Asset>::schema(),
        "conduits" => Table::<ConduitId, Conduit>::schema(),
        _ => Table::<ControlId, CompensatingControl>::schema(),
    };
    let parameters = json!({
        "type": "object",
        "propertyNames": { "pattern": "^[a-z][a-z0-9_-]{0,31}$" },
        "additionalProperties": parameter_schema(),
    });
    let mut fields = vec![
        (
            "title",
            false,
            "What people call it.",
            json!({ "type": "string", "minLength": 1 }),
        ),
        (
            "parameters",
            false,
            "What a station gives, by name: `number`, `address`, `network` or `text`.",
            parameters,
        ),
    ];
    for name in SECTIONS {
        let doc = "As in the document, with placeholders; each name bears `$(station)`.";
        fields.push((name, false, doc, with_placeholders(section(name))));
    }
    let groups = json!({ "type": "object", "minProperties": 1, "additionalProperties": with_placeholders(OneOrMany::<End>::schema()) });
    fields.push(("groups", false, "What each station adds to groups.", groups));
    record_schema("What equal stations have in common.", fields)
}

/// The schema of what stands in a document, where each text and number may also be a placeholder.
fn with_placeholders(schema: Value) -> Value {
    match schema {
        Value::Object(object) => {
            let is_word = object.contains_key("enum")
                || object.contains_key("const")
                || matches!(
                    object.get("type").and_then(Value::as_str),
                    Some("string" | "integer")
                );
            if is_word {
                return json!({ "anyOf": [Value::Object(object), { "type": "string", "pattern": PLACEHOLDER }] });
            }
            let inner = object.into_iter().map(|(key, value)| match key.as_str() {
                "propertyNames" => (key, named_with_placeholders(value)),
                // Words of the schema itself, not of what it describes.
                "required" | "type" | "description" | "minItems" | "minProperties" | "uniqueItems" => {
                    (key, value)
                }
                _ => (key, with_placeholders(value)),
            });
            Value::Object(inner.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(with_placeholders).collect()),
        other => other,
    }
}

fn named_with_placeholders(names: Value) -> Value {
    match names.get("pattern").and_then(Value::as_str) {
        Some(pattern) => json!({ "pattern": format!("({pattern})|{PLACEHOLDER}") }),
        None => names,
    }
}
