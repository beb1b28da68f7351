//! What a flow may do inside its protocol: the entries of `allow`, read once the flow's service is known.
//!
//! An entry is a mapping with one key, the operation's name, and its limits below; an operation that needs no limit is a bare
//! word. Which operations there are and what limits them says the protocol's vocabulary ([`crate::protocol`]).

mod limits;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::node::{Kind, Node, excerpt};
use super::read::{At, Record, wrong_shape};
use super::suggest;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::protocol::vocabulary::{Shape, Takes, Vocabulary};
use crate::protocol::{LimitSet, Operations, Permitted, Protocol};

/// Reads the entries of an `allow` list for `protocol`. `None` if any is wrong; a fault says which.
pub(crate) fn read(protocol: Protocol, entries: &[Node], faults: &mut Faults) -> Option<Operations> {
    let before = faults.errors();
    let mut found: Vec<At<Permitted>> = Vec::new();
    for entry in entries {
        let Some((name, place, limits)) = named(entry, faults) else {
            continue;
        };
        let Some(value) = permitted(&protocol, name, place, limits, faults) else {
            continue;
        };
        if let Some(first) = found.iter().find(|other| other.value == value) {
            faults.add(
                Fault::new(
                    Code::RepeatedItem,
                    place,
                    format!("the operation `{}` stands twice", excerpt(name)),
                )
                .label("again here")
                .related(first.place, "first here")
                .help("remove one of the two, or correct its limits"),
            );
        } else {
            found.push(At { value, place });
        }
    }
    (faults.errors() == before).then(|| Operations {
        protocol,
        permitted: found.into_iter().map(|at| at.value).collect(),
    })
}

/// The operation's name, where it stands, and the node of its limits: the entry itself for a bare word.
fn named<'a>(entry: &'a Node, faults: &mut Faults) -> Option<(&'a str, Place, &'a Node)> {
    match &entry.kind {
        Kind::Scalar { text, .. } if !entry.is_null() => return Some((text, entry.place, entry)),
        Kind::Mapping(keys) => {
            if let [key] = keys.as_slice() {
                return Some((&key.key, key.key_place, &key.value));
            }
            let second = keys.get(1).map_or(entry.place, |key| key.key_place);
            faults.add(
                Fault::new(
                    Code::WrongShape,
                    second,
                    "an operation is one name with its limits below it",
                )
                .label(if keys.is_empty() {
                    "no name"
                } else {
                    "a second name in the same entry"
                })
                .help(
                    "begin each operation with `- `, and write its limits as `{ units: 1, addresses: 0-9 }`",
                ),
            );
        }
        _ => wrong_shape(entry, "an operation", faults),
    }
    None
}

/// One entry with its limits.
fn permitted(
    vocabulary: &Vocabulary,
    name: &str,
    place: Place,
    node: &Node,
    faults: &mut Faults,
) -> Option<Permitted> {
    let Some(shape) = vocabulary.shape(name) else {
        let message = format!("{} has no operation `{}`", vocabulary.name, excerpt(name));
        faults.add(
            Fault::new(Code::UnknownOperation, place, message)
                .label("unknown operation")
                .help(suggest::help(name, vocabulary.names())),
        );
        return None;
    };
    let mut limits = BTreeMap::new();
    if matches!(node.kind, Kind::Scalar { .. }) {
        if let Some((takes, help)) = required(shape).next() {
            incomplete(name, place, takes.limit.name, help, faults);
            return None;
        }
        for takes in shape.limits {
            limits.extend(limits::unsaid(takes.limit).map(|set| (takes.limit.name, set)));
        }
    } else {
        limits = limits_below(vocabulary, name, shape, place, node, faults)?;
    }
    Some(Permitted {
        operation: name.to_owned(),
        limits,
    })
}

/// The limits that have to be said, and what to write.
fn required(shape: Shape) -> impl Iterator<Item = (&'static Takes, &'static str)> {
    shape
        .limits
        .iter()
        .filter_map(|takes| Some((takes, takes.required?)))
}

/// The limits that stand below an operation's name. `None` if one that every plan has could not be read.
fn limits_below(
    vocabulary: &Vocabulary,
    name: &str,
    shape: Shape,
    place: Place,
    node: &Node,
    faults: &mut Faults,
) -> Option<BTreeMap<&'static str, LimitSet>> {
    let known: Vec<&str> = vocabulary.limits.iter().map(|limit| limit.name).collect();
    let what = format!("the {} operation `{}`", vocabulary.name, excerpt(name));
    let record = Record::open(node, what, &known, faults)?;
    for limit in vocabulary.limits {
        if let (None, Some(written)) = (shape.takes(limit.name), record.written(limit.name)) {
            faults.add(
                Fault::new(
                    Code::NotForOperation,
                    written.place,
                    format!("`{name}` has no `{}` to limit", limit.name),
                )
                .label("this can limit nothing")
                .help(format!("remove `{}`", limit.name)),
            );
        }
    }
    for (takes, help) in required(shape) {
        if record.written(takes.limit.name).is_none() {
            incomplete(name, place, takes.limit.name, help, faults);
        }
    }
    let mut read = BTreeMap::new();
    for takes in shape.limits {
        let set = match record.written(takes.limit.name) {
            None => limits::unsaid(takes.limit),
            Some(node) => limits::read(name, takes, node, faults),
        };
        match set {
            Some(set) => {
                read.insert(takes.limit.name, set);
            }
            None if takes.limit.kind.is_always_said() => return None,
            None => {}
        }
    }
    Some(read)
}

fn incomplete(name: &str, place: Place, missing: &str, help: &str, faults: &mut Faults) {
    faults.add(
        Fault::new(
            Code::OperationIncomplete,
            place,
            format!("`{}` does not say its `{missing}`", excerpt(name)),
        )
        .label(format!("`{missing}` is missing"))
        .help(help),
    );
}

/// The schemas of one entry of an `allow` list, all protocols together.
pub(crate) fn schemas() -> Vec<Value> {
    let one = |key: &str, properties: Map<String, Value>| {
        let mut schema = json!({ "type": "object", "additionalProperties": false, "minProperties": 1, "maxProperties": 1 });
        if let Some(object) = schema.as_object_mut() {
            object.insert(key.to_owned(), Value::Object(properties));
        }
        schema
    };
    let mut schemas = Vec::new();
    for protocol in Protocol::all() {
        let named: Vec<(&str, Shape)> = protocol
            .names()
            .filter_map(|name| Some((name, protocol.shape(name)?)))
            .collect();
        let below = |(name, shape): &(&str, Shape)| ((*name).to_owned(), schema_of(*shape));
        schemas.push(one("properties", named.iter().map(below).collect()));
        if let Some(numbered) = &protocol.numbered {
            let shape = Shape {
                limits: numbered.limits,
                effect: None,
                help: numbered.help,
            };
            let by_number = Map::from_iter([(numbered.pattern.to_owned(), schema_of(shape))]);
            schemas.push(one("patternProperties", by_number));
        }
        let bare = named
            .iter()
            .filter(|(_, shape)| required(*shape).next().is_none());
        schemas.extend(bare.map(|(name, _)| json!({ "const": name })));
    }
    schemas
}

/// The schema of the limits that an operation may have, with those required that must be there.
fn schema_of(shape: Shape) -> Value {
    let fields = shape.limits.iter().map(|takes| {
        (
            takes.limit.name,
            takes.required.is_some(),
            takes.limit.help,
            limits::schema(takes),
        )
    });
    super::read::record_schema(shape.help, fields.collect())
}
