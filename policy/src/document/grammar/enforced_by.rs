//! Who enforces a conduit, where it is not the plant's gateways.

use serde_json::{Value, json};

use crate::diagnostics::faults::Faults;
use crate::document::node::{Kind, Node};
use crate::document::read::{Term, record, unknown_word, wrong_shape};
use crate::document::scalars::Text;
use crate::model::Enforcer;

record! {
    /// Something else than the plant's gateways.
    Other "who enforces a conduit" {
        /// What it is, in words: its maker, its name, where it stands, who looks after it.
        required other: Text,
    }
}

/// What is written under `enforced_by`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EnforcedBy(pub(crate) Enforcer);

/// The word for nobody.
const NONE: &str = "none";

impl Term for EnforcedBy {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        match &node.kind {
            Kind::Mapping(_) => {
                let other = Other::read(node, faults)?.other.value()?.0.clone();
                Some(Self(Enforcer::Other(other)))
            }
            Kind::Scalar { text, .. } if text == NONE => Some(Self(Enforcer::Nobody)),
            Kind::Scalar { text, .. } if !node.is_null() => {
                unknown_word(node, text, "`none`, or `{ other: WHAT }`", &[NONE], faults);
                None
            }
            _ => {
                wrong_shape(node, "`none`, or `{ other: WHAT }`,", faults);
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "anyOf": [{ "const": NONE }, Other::schema()] })
    }
}
