//! Sets of numbers inside a protocol: `40`, `0-199`, `[40, 41, 100-120]`, or the word `any` that someone wrote.

use serde_json::{Value, json};

use super::node::{Kind, Node, excerpt};
use super::read::{Term, scalar, wrong_shape};
use super::register_numbers::{of_six_digits, shown};
use super::scalars::decimal;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::terms::NumberRange;

/// Numbers from 0 to `MAX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Numbers<const MAX: u32> {
    /// `any`, as written.
    Any,
    /// Ranges, sorted, with neither overlap nor touch; never empty.
    Ranges(Vec<NumberRange>),
}

impl<const MAX: u32> Numbers<MAX> {
    /// The ranges, or `None` for `any`.
    pub(crate) fn limited(&self) -> Option<Vec<NumberRange>> {
        match self {
            Self::Any => None,
            Self::Ranges(ranges) => Some(ranges.clone()),
        }
    }

    /// Reads them; `hint` may say more of a range that is too large.
    pub(crate) fn read_with(
        node: &Node,
        hint: fn(NumberRange) -> Option<String>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let ranges = match &node.kind {
            Kind::Scalar { text, .. } if text == "any" => return Some(Self::Any),
            Kind::Scalar { .. } => vec![Self::range(node, hint, faults)?],
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
                    items.iter().map(|item| Self::range(item, hint, faults)).collect();
                read.into_iter().collect::<Option<Vec<NumberRange>>>()?
            }
            Kind::Mapping(_) | Kind::Broken => {
                wrong_shape(node, "numbers", faults);
                return None;
            }
        };
        Some(Self::Ranges(merged(ranges)))
    }

    fn range(
        node: &Node,
        hint: fn(NumberRange) -> Option<String>,
        faults: &mut Faults,
    ) -> Option<NumberRange> {
        let text = scalar(node, "a number or a range", faults)?;
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let mut help = "write `40`, `0-199`, `[40, 41, 100-120]` or `any`".to_owned();
        let complaint = match (decimal(first.trim()), decimal(last.trim())) {
            (Ok(first), Ok(last)) if first > last => "it ends before it begins".to_owned(),
            (Ok(first), Ok(last)) if last > MAX => {
                help = hint(NumberRange { first, last }).unwrap_or(help);
                format!("the largest possible number is {MAX}")
            }
            (Ok(first), Ok(last)) => return Some(NumberRange { first, last }),
            (Err(reason), _) | (_, Err(reason)) => reason.to_owned(),
        };
        faults.add(
            Fault::new(
                Code::NotARange,
                node.place,
                format!("`{}` is not a number or range within 0–{MAX}", excerpt(text)),
            )
            .label(complaint)
            .help(help),
        );
        None
    }
}

impl<const MAX: u32> Term for Numbers<MAX> {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        Self::read_with(node, |_| None, faults)
    }

    fn schema() -> Value {
        let range = json!({ "type": "string", "pattern": "^[0-9]+-[0-9]+$" });
        let number = json!({ "type": "integer", "minimum": 0, "maximum": MAX });
        json!({ "anyOf": [
            number, range, { "const": "any" },
            { "type": "array", "minItems": 1, "items": { "anyOf": [number, range] } },
        ] })
    }
}

/// Data addresses, 0–65535, as on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses(pub(crate) Numbers<65535>);

impl Term for Addresses {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let hint = |range| {
            let meant = shown(of_six_digits(range)?);
            Some(format!(
                "addresses count from 0, as on the wire: what manuals number {} is `{meant}`",
                shown(range)
            ))
        };
        Numbers::read_with(node, hint, faults).map(Self)
    }

    fn schema() -> Value {
        Numbers::<65535>::schema()
    }
}

/// The same numbers in as few ranges as possible, in order.
fn merged(mut ranges: Vec<NumberRange>) -> Vec<NumberRange> {
    ranges.sort();
    let mut merged: Vec<NumberRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged
}
