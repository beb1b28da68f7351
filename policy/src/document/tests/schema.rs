//! The JSON Schema agrees with the reader: what loads validates, what has a fault of form does not.
//!
//! The checker here knows exactly the keywords that the schema uses and refuses any other, so a keyword that
//! it would ignore cannot slip in.

use serde_json::{Map, Value};

use super::{BASE, WATERWORKS};
use crate::diagnostics::faults::Faults;
use crate::document::node::{Kind, Node};
use crate::document::parse;
use crate::schema::json_schema;

/// The document as an editor's YAML 1.2 reader sees it.
pub(super) fn value_of(text: &str) -> Value {
    let node = parse::parse(0, text, &mut 0, &mut Faults::default()).expect("well-formed YAML");
    value(&node)
}

fn value(node: &Node) -> Value {
    match &node.kind {
        Kind::Scalar { text, plain: true } => match text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "" | "~" | "null" => Value::Null,
            text => text
                .parse::<i64>()
                .map(Value::from)
                .or_else(|_| text.parse::<f64>().map(Value::from))
                .unwrap_or_else(|_| Value::from(text)),
        },
        Kind::Scalar { text, .. } => Value::from(text.as_str()),
        Kind::List(items) => items.iter().map(value).collect(),
        Kind::Mapping(entries) => Value::Object(
            entries
                .iter()
                .map(|entry| (entry.key.clone(), value(&entry.value)))
                .collect(),
        ),
        Kind::Broken => Value::Null,
    }
}

/// The faults of a value against the schema; `partial` for one file of several, which need not hold every section.
pub(super) fn check(value: &Value, partial: bool) -> Vec<String> {
    let mut schema = json_schema();
    if partial {
        schema.as_object_mut().unwrap().remove("required");
    }
    let mut faults = Vec::new();
    validate(&schema, value, "", &mut faults);
    faults
}

fn validate(schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    let Some(schema) = schema.as_object() else {
        if schema == &Value::Bool(false) {
            faults.push(format!("{at}: nothing may stand here"));
        }
        return;
    };
    for (keyword, wanted) in schema {
        let good = match keyword.as_str() {
            "$schema" | "title" | "description" | "format" => true,
            "type" => match wanted.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("the checker does not know the type {other}"),
            },
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "pattern" => value
                .as_str()
                .is_none_or(|text| matches(wanted.as_str().unwrap(), text)),
            "minLength" => value
                .as_str()
                .is_none_or(|text| text.chars().count() as u64 >= wanted.as_u64().unwrap()),
            "minimum" => value
                .as_i64()
                .is_none_or(|number| number >= wanted.as_i64().unwrap()),
            "maximum" => value
                .as_i64()
                .is_none_or(|number| number <= wanted.as_i64().unwrap()),
            "minItems" => value
                .as_array()
                .is_none_or(|items| items.len() as u64 >= wanted.as_u64().unwrap()),
            "uniqueItems" => value.as_array().is_none_or(|items| {
                items
                    .iter()
                    .enumerate()
                    .all(|(at, item)| !items[at + 1..].contains(item))
            }),
            "minProperties" => value
                .as_object()
                .is_none_or(|object| object.len() as u64 >= wanted.as_u64().unwrap()),
            "maxProperties" => value
                .as_object()
                .is_none_or(|object| object.len() as u64 <= wanted.as_u64().unwrap()),
            "required" => value.as_object().is_none_or(|object| {
                wanted
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|key| object.contains_key(key.as_str().unwrap()))
            }),
            "anyOf" => wanted.as_array().unwrap().iter().any(|one| {
                let mut inner = Vec::new();
                validate(one, value, at, &mut inner);
                inner.is_empty()
            }),
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(wanted, item, &format!("{at}/{n}"), faults);
                }
                true
            }
            "propertyNames" => value.as_object().is_none_or(|object| {
                object
                    .keys()
                    .all(|key| matches(wanted["pattern"].as_str().unwrap(), key))
            }),
            "properties" | "patternProperties" | "additionalProperties" => true,
            other => panic!("the checker does not know the keyword {other}"),
        };
        if !good {
            faults.push(format!("{at}: {keyword} {wanted} does not hold for {value}"));
        }
    }
    if let Some(object) = value.as_object() {
        properties(schema, object, at, faults);
    }
}

fn properties(schema: &Map<String, Value>, object: &Map<String, Value>, at: &str, faults: &mut Vec<String>) {
    for (key, value) in object {
        let at = format!("{at}/{key}");
        let named = schema
            .get("properties")
            .and_then(|properties| properties.get(key));
        let patterned = schema
            .get("patternProperties")
            .and_then(Value::as_object)
            .and_then(|patterns| patterns.iter().find(|(pattern, _)| matches(pattern, key)));
        match (
            named.or(patterned.map(|(_, schema)| schema)),
            schema.get("additionalProperties"),
        ) {
            (Some(schema), _) | (None, Some(schema)) => validate(schema, value, &at, faults),
            (None, None) => {}
        }
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    // proptest carries this regular-expression engine already; ours are plain enough for it.
    regex_lite::Regex::new(pattern)
        .expect("a pattern of the schema")
        .is_match(text)
}

#[test]
fn what_loads_without_fault_validates() {
    for text in [WATERWORKS, BASE] {
        assert_eq!(check(&value_of(text), false), Vec::<String>::new());
    }
}

#[test]
fn what_is_wrong_in_form_does_not_validate() {
    for (from, to) in [
        ("on_agent_loss: block", "on_agent_los: block"),
        ("kind: safety", "kind: safty"),
        ("works: { timezone: UTC }", "works: { title: Works }"),
        ("networks: 10.3.0.0/24", "networks: []"),
        ("networks: 10.3.0.0/24", "networks: 10.3.0.0"),
        ("sl_target: 3", "sl_target: 5"),
        ("threshold: 2", "threshold: 0"),
        ("on_agent_loss: block", "on_agent_loss: block\n    tunnel: maybe"),
        ("  clerk: {", "  Clerk_1: {"),
        ("service: https }", "service: htpps }"),
        ("service: https }", "service: icmp-echo:7 }"),
        ("read-coils:", "read-coil:"),
        (
            "read-coils: { units: 1, addresses: 0-9 }",
            "write-single-coil: { units: 1 }",
        ),
        ("addresses: 0-9 }", "addresses: 0-9, values: 1 }"),
        ("addresses: 0-9 }", "addresses: 70000 }"),
        ("topics: a/b", "topics: \"a/#/b\""),
        ("SR 1.2", "SR 1.22"),
        (
            "192.0.2.10 }\n",
            "192.0.2.10 }\n    window: Someday 02:00-04:00\n",
        ),
        ("ed25519:3b6a", "ed25519:zz6a"),
        ("plant: test-works\n", ""),
    ] {
        assert!(BASE.contains(from), "{from}");
        assert!(
            !check(&value_of(&BASE.replacen(from, to, 1)), false).is_empty(),
            "{to} validates"
        );
    }
}

/// The keys of all records, wherever they stand in the schema.
fn keys(schema: &Value, found: &mut std::collections::BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(properties) = object.get("properties").and_then(Value::as_object) {
                found.extend(properties.keys().cloned());
            }
            object.values().for_each(|inner| keys(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| keys(inner, found)),
        _ => {}
    }
}

#[test]
fn the_guide_names_every_key_service_and_code() {
    let guide = include_str!("../../../../docs/plant-document.md");
    let mut all = std::collections::BTreeSet::new();
    keys(&json_schema(), &mut all);
    all.extend(crate::document::services::services().map(|service| service.name.to_owned()));
    let missing: Vec<&String> = all
        .iter()
        .filter(|key| !guide.contains(&format!("`{key}`")))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/plant-document.md does not name {missing:?}"
    );
    for code in crate::diagnostics::Code::ALL {
        let row = format!("| {code} | {} |", code.meaning());
        assert!(
            guide.contains(&row),
            "docs/plant-document.md lacks the row\n{row}"
        );
    }
}
