//! One limit of an operation, as its kind is written: numbers, a range, patterns, names, yes or no.

use serde_json::{Value, json};

use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::document::node::{Kind as Written, Node};
use crate::document::numbers::Numbers;
use crate::document::read::{OneOrMany, Term, items, scalar};
use crate::document::scalars::Text;
use crate::protocol::LimitSet;
use crate::protocol::vocabulary::{Kind, Limit, Patterns, Takes};
use crate::terms::NumberRange;

/// What a limit is where nothing is written; `None`: it does not limit.
pub(super) fn unsaid(limit: &Limit) -> Option<LimitSet> {
    match limit.kind {
        Kind::Numbers { .. } | Kind::Texts | Kind::Patterns(_) => None,
        Kind::Range { last, .. } => Some(LimitSet::Range(NumberRange { first: 0, last })),
        Kind::Flag { .. } => Some(LimitSet::Flag(false)),
    }
}

/// Reads the limit of the operation of that name. `None` if it does not limit, or if a fault was added.
pub(super) fn read(operation: &str, takes: &Takes, node: &Node, faults: &mut Faults) -> Option<LimitSet> {
    match &takes.limit.kind {
        Kind::Numbers { last, hint, .. } => {
            let Numbers::Ranges(ranges) = Numbers::read(node, *last, *hint, faults)? else {
                return None;
            };
            judge_numbers(operation, takes, node, &ranges, faults);
            Some(LimitSet::Numbers(ranges))
        }
        Kind::Range { last, one, help } => range(node, *last, (one, help), faults).map(LimitSet::Range),
        Kind::Patterns(patterns) => read_patterns(patterns, node, faults).map(LimitSet::Patterns),
        Kind::Texts => {
            let texts = OneOrMany::<Text>::read(node, faults)?.0;
            Some(LimitSet::Texts(texts.into_iter().map(|at| at.value.0).collect()))
        }
        Kind::Flag { .. } => bool::read(node, faults).map(LimitSet::Flag),
    }
}

/// What else is wrong with numbers for this operation, or doubtful.
fn judge_numbers(operation: &str, takes: &Takes, node: &Node, ranges: &[NumberRange], faults: &mut Faults) {
    if let Some(within) = &takes.within
        && ranges.iter().any(|range| range.last > within.last)
    {
        faults.add(
            Fault::new(Code::OutOfRange, node.place, within.why)
                .label(format!("expected: {}", within.expected)),
        );
    }
    if let Kind::Numbers { doubt, .. } = &takes.limit.kind
        && let Some(doubt) = doubt(operation, ranges)
    {
        faults.add(
            Fault::new(Code::RegisterNumbers, node.place, doubt.message)
                .label(doubt.label)
                .help(doubt.help),
        );
    }
}

fn range(node: &Node, last: u32, (one, help): (&str, &str), faults: &mut Faults) -> Option<NumberRange> {
    match Numbers::read(node, last, |_| None, faults)? {
        Numbers::Any => Some(NumberRange { first: 0, last }),
        Numbers::Ranges(ranges) => match ranges.as_slice() {
            [range] => Some(*range),
            _ => {
                faults.add(Fault::new(Code::NotARange, node.place, one).help(help));
                None
            }
        },
    }
}

fn read_patterns(patterns: &Patterns, node: &Node, faults: &mut Faults) -> Option<Vec<String>> {
    if matches!(&node.kind, Written::Scalar { text, .. } if text == "any") {
        return Some(vec![patterns.any.to_owned()]);
    }
    let one = |node: &Node, faults: &mut Faults| {
        let text = scalar(node, patterns.noun, faults)?;
        if (patterns.is)(text) {
            return Some(text.to_owned());
        }
        faults.add(
            Fault::new(
                Code::NotATopicFilter,
                node.place,
                format!("{} is not {}", node.describe(), patterns.noun),
            )
            .label(patterns.rule),
        );
        None
    };
    match &node.kind {
        Written::List(nodes) => {
            let listed = items(nodes, node, one, faults)?;
            Some(listed.into_iter().map(|at| at.value).collect())
        }
        _ => one(node, faults).map(|pattern| vec![pattern]),
    }
}

/// The JSON Schema of a limit.
pub(super) fn schema(takes: &Takes) -> Value {
    match &takes.limit.kind {
        Kind::Numbers { last, .. } => {
            Numbers::schema(takes.within.as_ref().map_or(*last, |within| within.last))
        }
        Kind::Range { last, .. } => Numbers::schema(*last),
        Kind::Patterns(patterns) => {
            let one = json!({ "type": "string", "pattern": patterns.schema, "minLength": 1 });
            json!({ "anyOf": [one, { "type": "array", "minItems": 1, "uniqueItems": true, "items": one }] })
        }
        Kind::Texts => OneOrMany::<Text>::schema(),
        Kind::Flag { .. } => bool::schema(),
    }
}
