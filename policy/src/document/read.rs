//! How the grammar reads: one trait for everything that can stand in a document, and the containers around it.
//!
//! A [`Term`] reads itself from the tree *and* says its JSON Schema, and [`record!`] makes both from one
//! declaration, so that what editors check and what the loader accepts cannot drift apart. Nothing here stops at
//! a fault: a record with a bad field still exists, with that field [`Field::Faulty`], so that everything else
//! about it is judged too and no second fault is reported because of the first.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::node::{Entry, Kind, Node, excerpt};
use super::{scalars, suggest};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;

/// Something that can stand in a plant document.
pub(crate) trait Term: Sized {
    /// Reads it. Where this gives `None`, a fault was added.
    fn read(node: &Node, faults: &mut Faults) -> Option<Self>;

    /// Its JSON Schema (draft 2020-12).
    fn schema() -> Value;
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// A field of a record.
#[derive(Debug, Clone)]
pub(crate) enum Field<T> {
    /// Not written.
    Absent,
    /// Written, but wrong, or missing where it must be; a fault was added.
    Faulty,
    /// Written and good.
    Given(At<T>),
}

impl<T> Field<T> {
    pub(crate) fn get(&self) -> Option<&At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Absent | Self::Faulty => None,
        }
    }

    pub(crate) fn value(&self) -> Option<&T> {
        self.get().map(|at| &at.value)
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// Adds that another shape was expected.
pub(crate) fn wrong_shape(node: &Node, expected: &str, faults: &mut Faults) {
    if matches!(node.kind, Kind::Broken) {
        return;
    }
    let fault = if node.is_null() {
        Fault::new(
            Code::EmptyValue,
            node.place,
            format!("there is no value here; {expected} is expected"),
        )
        .label("no value")
        .help("write the value, or remove the key")
    } else {
        Fault::new(
            Code::WrongShape,
            node.place,
            format!("{expected} is expected, not {}", node.describe()),
        )
        .label(format!("expected: {expected}"))
    };
    faults.add(fault);
}

/// The text of a scalar that is not null.
pub(crate) fn scalar<'a>(node: &'a Node, expected: &str, faults: &mut Faults) -> Option<&'a str> {
    match &node.kind {
        Kind::Scalar { text, .. } if !node.is_null() => Some(text),
        _ => {
            wrong_shape(node, expected, faults);
            None
        }
    }
}

/// Reads `T` and keeps its place.
pub(crate) fn read_at<T: Term>(node: &Node, faults: &mut Faults) -> Option<At<T>> {
    T::read(node, faults).map(|value| At {
        value,
        place: node.place,
    })
}

/// The items of a list, each read by `read_one`; none may be the same as another.
pub(crate) fn items<T: PartialEq>(
    nodes: &[Node],
    list: &Node,
    read_one: impl Fn(&Node, &mut Faults) -> Option<T>,
    faults: &mut Faults,
) -> Option<Vec<At<T>>> {
    if nodes.is_empty() {
        faults.add(
            Fault::new(Code::EmptyList, list.place, "the list is empty")
                .label("nothing in it")
                .help("an empty list never means `any`: fill it, or remove the key"),
        );
        return None;
    }
    let mut read: Vec<At<T>> = Vec::new();
    for node in nodes {
        let Some(value) = read_one(node, faults) else {
            continue;
        };
        let place = node.place;
        let item = At { value, place };
        if let Some(first) = read.iter().find(|other| other.value == item.value) {
            faults.add(
                Fault::new(
                    Code::RepeatedItem,
                    item.place,
                    format!("{} stands twice in the list", node.describe()),
                )
                .label("again here")
                .related(first.place, "first here")
                .help("remove one of the two, or correct it"),
            );
        } else {
            read.push(item);
        }
    }
    Some(read)
}

/// A list, never empty.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct List<T>(pub(crate) Vec<At<T>>);

impl<T: Term + PartialEq> Term for List<T> {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let Kind::List(nodes) = &node.kind else {
            wrong_shape(node, "a list", faults);
            return None;
        };
        items(nodes, node, T::read, faults).map(Self)
    }

    fn schema() -> Value {
        json!({ "type": "array", "minItems": 1, "uniqueItems": true, "items": T::schema() })
    }
}

/// One thing, or a list of them, never empty.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<At<T>>);

impl<T: Term + PartialEq> Term for OneOrMany<T> {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        match &node.kind {
            Kind::List(nodes) => items(nodes, node, T::read, faults).map(Self),
            _ => read_at(node, faults).map(|item| Self(vec![item])),
        }
    }

    fn schema() -> Value {
        json!({ "anyOf": [T::schema(), List::<T>::schema()] })
    }
}

/// What the names in a [`Table`] are.
pub(crate) trait Key: Ord + Clone + std::fmt::Display {
    /// The name as text.
    fn text(&self) -> &str;

    /// The name, or why it is none.
    fn parse(text: &str) -> Result<Self, String>;

    /// The pattern of JSON Schema that names match.
    const PATTERN: &'static str;
}

/// A named thing: where its name stands, and what it is if that could be read.
#[derive(Debug, Clone)]
pub(crate) struct Named<T> {
    pub(crate) key_place: Place,
    pub(crate) value: Option<T>,
}

/// Things by name, never none. A name is here even if its thing could not be read, so that references to it hold.
#[derive(Debug, Clone)]
pub(crate) struct Table<K, T>(pub(crate) BTreeMap<K, Named<T>>);

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Key, T> Table<K, T> {
    /// Those that could be read, by name.
    pub(crate) fn readable(&self) -> impl Iterator<Item = (&K, &Named<T>, &T)> {
        self.0
            .iter()
            .filter_map(|(name, named)| named.value.as_ref().map(|value| (name, named, value)))
    }

    /// The thing of that name, if it could be read.
    pub(crate) fn get(&self, name: &K) -> Option<&T> {
        self.0.get(name)?.value.as_ref()
    }
}

impl<K: Key, T: Term> Term for Table<K, T> {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let Kind::Mapping(entries) = &node.kind else {
            wrong_shape(node, "a mapping of names", faults);
            return None;
        };
        if entries.is_empty() {
            faults.add(
                Fault::new(Code::EmptyList, node.place, "the mapping is empty")
                    .label("nothing in it")
                    .help("an empty mapping never means `any`: fill it, or remove the key"),
            );
            return None;
        }
        let mut table = BTreeMap::new();
        for entry in entries {
            let value = T::read(&entry.value, faults);
            match K::parse(&entry.key) {
                Ok(name) => {
                    scalars::warn_if_ambiguous(&entry.key, entry.key_plain, entry.key_place, faults);
                    table.insert(
                        name,
                        Named {
                            key_place: entry.key_place,
                            value,
                        },
                    );
                }
                Err(reason) => faults.add(Fault::new(Code::BadName, entry.key_place, reason)),
            }
        }
        Some(Self(table))
    }

    fn schema() -> Value {
        json!({
            "type": "object",
            "minProperties": 1,
            "propertyNames": { "pattern": K::PATTERN },
            "additionalProperties": T::schema(),
        })
    }
}

/// A mapping with a fixed set of keys, while its fields are being read.
pub(crate) struct Record<'a> {
    what: String,
    place: Place,
    entries: &'a [Entry],
}

impl<'a> Record<'a> {
    /// Opens a mapping and refuses keys that are not among `known`.
    pub(crate) fn open(
        node: &'a Node,
        what: impl Into<String>,
        known: &[&str],
        faults: &mut Faults,
    ) -> Option<Self> {
        let what = what.into();
        let Kind::Mapping(entries) = &node.kind else {
            wrong_shape(node, &format!("a mapping that describes {what}"), faults);
            return None;
        };
        for entry in entries {
            // Beyond what is listed a fault is only counted, and the search for a likely key not worth its cost.
            if !known.contains(&entry.key.as_str()) {
                let message = format!("`{}` is not a key of {what}", excerpt(&entry.key));
                let fault = Fault::new(Code::UnknownKey, entry.key_place, message).label("unknown key");
                let listed = !faults.full();
                faults.add(if listed {
                    fault.help(suggest::help(&entry.key, known.iter().copied()))
                } else {
                    fault
                });
            }
        }
        Some(Self {
            what,
            place: node.place,
            entries,
        })
    }

    /// What is written for a field.
    pub(crate) fn written(&self, key: &str) -> Option<&'a Node> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(&entry.value)
    }

    /// A field that may be left out.
    pub(crate) fn optional<T: Term>(&self, key: &str, _doc: &str, faults: &mut Faults) -> Field<T> {
        match self.written(key) {
            None => Field::Absent,
            Some(node) => read_at(node, faults).map_or(Field::Faulty, Field::Given),
        }
    }

    /// A field that must be there.
    pub(crate) fn required<T: Term>(&self, key: &str, doc: &str, faults: &mut Faults) -> Field<T> {
        let field = self.optional(key, doc, faults);
        if !field.is_absent() {
            return field;
        }
        faults.add(
            Fault::new(
                Code::MissingKey,
                self.place,
                format!("{} has no `{key}`", self.what),
            )
            .label(format!("`{key}` is missing"))
            .help(format!("add `{key}`: {}", doc.trim())),
        );
        Field::Faulty
    }
}

/// The schema of a record: its fields as (key, required, documentation, schema).
pub(crate) fn record_schema(doc: &str, fields: Vec<(&str, bool, &str, Value)>) -> Value {
    let required: Vec<&str> = fields
        .iter()
        .filter(|field| field.1)
        .map(|field| field.0)
        .collect();
    let mut properties = Map::new();
    for (key, _, doc, mut schema) in fields {
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".to_owned(), json!(doc.trim()));
        }
        properties.insert(key.to_owned(), schema);
    }
    let mut schema = json!({
        "type": "object",
        "description": doc.trim(),
        "additionalProperties": false,
        "properties": properties,
    });
    if let Some(object) = schema.as_object_mut()
        && !required.is_empty()
    {
        object.insert("required".to_owned(), json!(required));
    }
    schema
}

/// The key of a field, which may be a word that Rust keeps for itself.
pub(crate) fn key(field: &str) -> &str {
    field.strip_prefix("r#").unwrap_or(field)
}

/// Declares a mapping with fixed keys: its struct, its strict reader and its schema at once.
macro_rules! record {
    (
        $(#[doc = $doc:literal])* $name:ident $what:literal {
            $($(#[doc = $field_doc:literal])* $need:ident $field:ident : $type:ty,)*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone)]
        pub(crate) struct $name {
            $($(#[doc = $field_doc])* pub(crate) $field: $crate::document::read::Field<$type>,)*
        }

        impl $crate::document::read::Term for $name {
            fn read(
                node: &$crate::document::node::Node,
                faults: &mut $crate::diagnostics::faults::Faults,
            ) -> Option<Self> {
                use $crate::document::read::key;
                let known = &[$(key(stringify!($field))),*];
                let record = $crate::document::read::Record::open(node, $what, known, faults)?;
                Some(Self { $($field: record.$need(key(stringify!($field)), concat!($($field_doc),*), faults),)* })
            }

            fn schema() -> serde_json::Value {
                $crate::document::read::record_schema(concat!($($doc),*), vec![
                    $((
                        $crate::document::read::key(stringify!($field)),
                        stringify!($need) == "required",
                        concat!($($field_doc),*),
                        <$type as $crate::document::read::Term>::schema(),
                    ),)*
                ])
            }
        }
    };
}
pub(crate) use record;

/// Declares how the variants of an enum are written.
macro_rules! words {
    ($type:ty, $expected:literal, { $($word:literal => $variant:expr,)* }) => {
        impl $crate::document::read::Term for $type {
            fn read(
                node: &$crate::document::node::Node,
                faults: &mut $crate::diagnostics::faults::Faults,
            ) -> Option<Self> {
                match $crate::document::read::scalar(node, $expected, faults)? {
                    $($word => Some($variant),)*
                    other => {
                        $crate::document::read::unknown_word(node, other, $expected, &[$($word),*], faults);
                        None
                    }
                }
            }

            fn schema() -> serde_json::Value {
                serde_json::json!({ "type": "string", "enum": [$($word),*] })
            }
        }
    };
}
pub(crate) use words;

/// Adds that a word is not one of those possible.
pub(crate) fn unknown_word(node: &Node, word: &str, expected: &str, known: &[&str], faults: &mut Faults) {
    faults.add(
        Fault::new(
            Code::NotOneOf,
            node.place,
            format!("`{}` is not {expected}", excerpt(word)),
        )
        .label(format!("expected: {expected}"))
        .help(suggest::help(word, known.iter().copied())),
    );
}
