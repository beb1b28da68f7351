//! The JSON Schema of a plant document, from the same declarations that read it, so that editors complete and
//! check while one types.
//!
//! It is strict where JSON Schema can be: no unknown keys, words from closed lists, numbers in range. What needs
//! the document as a whole (do names resolve, do networks overlap) only `load` can tell.

use serde_json::{Value, json};

use crate::document::grammar::Document;
use crate::document::read::Term;

/// The schema (draft 2020-12) of a whole document.
pub fn json_schema() -> Value {
    let mut schema = Document::schema();
    if let Some(object) = schema.as_object_mut() {
        object.insert(
            "$schema".to_owned(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        object.insert("title".to_owned(), json!("Penstock plant document"));
    }
    schema
}
