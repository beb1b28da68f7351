//! Sets of numbers inside a protocol: `40`, `0-199`, `[40, 41, 100-120]`, or the word `any` that someone wrote.

use serde_json::{Value, json};

use super::node::{Kind, Node, excerpt};
use super::read::{scalar, wrong_shape};
use super::scalars::decimal;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::terms::NumberRange;

/// Numbers as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// `any`, as written.
    Any,
    /// Ranges, sorted, with neither overlap nor touch; never empty.
    Ranges(Vec<NumberRange>),
}

impl Numbers {
    /// Reads numbers from 0 to `last`; `hint` may say more of a range that is too large.
    pub(crate) fn read(
        node: &Node,
        last: u32,
        hint: fn(NumberRange) -> Option<String>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let ranges = match &node.kind {
            Kind::Scalar { text, .. } if text == "any" => return Some(Self::Any),
            Kind::Scalar { .. } => vec![range(node, last, hint, faults)?],
            Kind::List(items) if items.is_empty() => {
                faults.add(
                    Fault::new(Code::EmptyList, node.place, "the list of numbers is empty")
                        .label("nothing in it")
                        .help("an empty list never means `any`: write the numbers, or the word `any`"),
                );
                return None;
            }
            Kind::List(items) => {
                let read: Vec<Option<NumberRange>> =
                    items.iter().map(|item| range(item, last, hint, faults)).collect();
                read.into_iter().collect::<Option<Vec<NumberRange>>>()?
            }
            Kind::Mapping(_) | Kind::Broken => {
                wrong_shape(node, "numbers", faults);
                return None;
            }
        };
        Some(Self::Ranges(NumberRange::merged(ranges)))
    }

    /// Their JSON Schema.
    pub(crate) fn schema(last: u32) -> Value {
        let range = json!({ "type": "string", "pattern": "^[0-9]+-[0-9]+$" });
        let number = json!({ "type": "integer", "minimum": 0, "maximum": last });
        json!({ "anyOf": [
            number, range, { "const": "any" },
            { "type": "array", "minItems": 1, "items": { "anyOf": [number, range] } },
        ] })
    }
}

fn range(
    node: &Node,
    greatest: u32,
    hint: fn(NumberRange) -> Option<String>,
    faults: &mut Faults,
) -> Option<NumberRange> {
    let text = scalar(node, "a number or a range", faults)?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let mut help = "write `40`, `0-199`, `[40, 41, 100-120]` or `any`".to_owned();
    let complaint = match (decimal(first.trim()), decimal(last.trim())) {
        (Ok(first), Ok(last)) if first > last => "it ends before it begins".to_owned(),
        (Ok(first), Ok(last)) if last > greatest => {
            help = hint(NumberRange { first, last }).unwrap_or(help);
            format!("the largest possible number is {greatest}")
        }
        (Ok(first), Ok(last)) => return Some(NumberRange { first, last }),
        (Err(reason), _) | (_, Err(reason)) => reason.to_owned(),
    };
    faults.add(
        Fault::new(
            Code::NotARange,
            node.place,
            format!("`{}` is not a number or range within 0–{greatest}", excerpt(text)),
        )
        .label(complaint)
        .help(help),
    );
    None
}
