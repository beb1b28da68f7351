//! What a key of the plant document means: read off the schema, which is made of the declarations that read the document.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::output::{Page, Report, Tone};

/// What a key means, wherever it may stand.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FieldMeaning {
    /// As it was asked for.
    pub field: String,
    /// Each place in a document where such a key may stand.
    pub places: Vec<FieldPlace>,
}

/// One place of a key.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FieldPlace {
    /// The keys that lead to it; `*` stands for a name that the document gives.
    pub path: String,
    /// Whether it must be there.
    pub required: bool,
    /// What it means.
    pub meaning: String,
    /// The words that are possible, if it takes words of a closed list.
    pub words: Vec<String>,
    /// The keys in it.
    pub keys: Vec<String>,
}

impl Report for FieldMeaning {
    const SCHEMA: &'static str = "penstock.field/1";
    fn page(&self, page: &mut Page) {
        for place in &self.places {
            page.gap();
            let path = page.paint(Tone::Strong, &place.path);
            let need = if place.required { "required" } else { "optional" };
            let need = page.paint(Tone::Dim, need);
            page.line(format!("{path}  {need}"));
            page.paragraph(2, Tone::Plain, &place.meaning);
            for (what, names) in [("one of", &place.words), ("keys", &place.keys)] {
                if !names.is_empty() {
                    page.paragraph(2, Tone::Dim, &format!("{what}: {}", names.join(", ")));
                }
            }
        }
    }
}

impl FieldMeaning {
    /// The meaning of a key: by its name, or by the last names of its path (`flows.tls`). `None` if the document has no such key.
    pub(super) fn of(asked: &str) -> Option<Self> {
        let wanted: Vec<&str> = asked
            .split('.')
            .filter(|part| *part != "*" && !part.is_empty())
            .collect();
        if wanted.is_empty() {
            return None;
        }
        let mut all = BTreeMap::new();
        walk(&penstock_policy::schema::json_schema(), &mut Vec::new(), &mut all);
        let is_wanted = |path: &str| {
            let parts: Vec<&str> = path.split('.').filter(|part| *part != "*").collect();
            // A template holds the same keys again: they are explained once, where they stand otherwise.
            parts.ends_with(&wanted)
                && (wanted.contains(&"templates") || parts.first() != Some(&"templates") || parts.len() <= 2)
        };
        let places: Vec<FieldPlace> = all
            .into_iter()
            .filter(|(path, _)| is_wanted(path))
            .map(|(_, place)| place)
            .collect();
        (!places.is_empty()).then(|| Self {
            field: asked.to_owned(),
            places,
        })
    }
}

/// Gathers every key below a schema, by its path.
fn walk(schema: &Value, path: &mut Vec<String>, found: &mut BTreeMap<String, FieldPlace>) {
    let required: Vec<&str> = strings(&schema["required"]);
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        path.push(key.clone());
        let mut words = Vec::new();
        words_of(inner, &mut words);
        let mut keys = Vec::new();
        keys_of(inner, &mut keys);
        let meaning = inner["description"].as_str().unwrap_or_default();
        found.entry(path.join(".")).or_insert_with(|| FieldPlace {
            path: path.join("."),
            required: required.contains(&key.as_str()),
            meaning: meaning.split_whitespace().collect::<Vec<_>>().join(" "),
            words,
            keys,
        });
        walk(inner, path, found);
        path.pop();
    }
    if schema["additionalProperties"].is_object() {
        path.push("*".to_owned());
        walk(&schema["additionalProperties"], path, found);
        path.pop();
    }
    for alternative in schema["anyOf"]
        .as_array()
        .into_iter()
        .flatten()
        .chain(schema["items"].is_object().then_some(&schema["items"]))
    {
        walk(alternative, path, found);
    }
}

/// The words of a closed list, of a value or of those in a list of it.
fn words_of(schema: &Value, words: &mut Vec<String>) {
    words.extend(strings(&schema["enum"]).into_iter().map(str::to_owned));
    words.extend(schema["const"].as_str().map(str::to_owned));
    for alternative in schema["anyOf"].as_array().into_iter().flatten() {
        words_of(alternative, words);
    }
    words.dedup();
}

/// The keys directly in a value.
fn keys_of(schema: &Value, keys: &mut Vec<String>) {
    keys.extend(
        schema["properties"]
            .as_object()
            .into_iter()
            .flat_map(|object| object.keys().cloned()),
    );
    for inner in ["additionalProperties", "items"] {
        if schema[inner].is_object() {
            keys_of(&schema[inner], keys);
        }
    }
    for alternative in schema["anyOf"].as_array().into_iter().flatten() {
        keys_of(alternative, keys);
    }
    keys.sort();
    keys.dedup();
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::FieldMeaning;

    #[test]
    fn a_key_is_explained_at_each_of_its_places_or_at_the_one_that_is_meant() {
        let behind = FieldMeaning::of("behind").unwrap();
        assert_eq!(behind.places.len(), 1);
        assert_eq!(behind.places[0].path, "gateways.*.interfaces.*.behind");
        let zone = FieldMeaning::of("zone").unwrap();
        assert!(zone.places.len() > 3);
        let asset = FieldMeaning::of("assets.zone").unwrap();
        assert_eq!(asset.places.len(), 1);
        assert!(asset.places[0].required);
        let kind = FieldMeaning::of("zones.*.kind").unwrap();
        assert!(kind.places[0].words.iter().any(|word| word == "safety"));
        assert!(
            FieldMeaning::of("conduits").unwrap().places[0]
                .keys
                .contains(&"flows".to_owned())
        );
        assert!(FieldMeaning::of("nothing-of-the-kind").is_none());
        assert!(FieldMeaning::of("").is_none());
    }
}
