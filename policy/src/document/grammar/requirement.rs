//! Requirements of the standard, by their ids.

use serde_json::{Value, json};

use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::document::node::Node;
use crate::document::read::{Term, scalar};
use crate::document::suggest;

/// A requirement of IEC 62443-3-3 or 62443-4-2, by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requirement(pub(crate) String);

impl Term for Requirement {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "a requirement", faults)?;
        if let Some(known) = crate::standard::all().find(|known| known.id == text) {
            return Some(Self(known.id.to_owned()));
        }
        let ids = crate::standard::all().map(|known| known.id);
        faults.add(
            Fault::new(
                Code::UnknownRequirement,
                node.place,
                format!("there is no requirement {}", node.describe()),
            )
            .label("unknown requirement")
            .help(suggest::nearest(text, ids).map_or_else(
                || {
                    "write it as in IEC 62443-3-3 (`SR 1.2`, `SR 1.1 RE 1`) or 62443-4-2 (`CR 1.2`)"
                        .to_owned()
                },
                |id| format!("did you mean `{id}`?"),
            )),
        );
        None
    }

    fn schema() -> Value {
        json!({ "type": "string", "enum": crate::standard::all().map(|known| known.id).collect::<Vec<_>>() })
    }
}
