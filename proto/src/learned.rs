//! What was learned of operations, between the events that carry it and what reads them: one form for all protocols.
//!
//! Modbus and MQTT have messages of their own, from before there were other protocols, and trails hold them: they are written and
//! read here and nowhere else. All other protocols share one message. What a gateway says is checked like any other input: operations
//! and limits are the protocol's own, numbers have their ranges.

mod legacy;

use std::collections::BTreeMap;

use penstock_policy::protocol::vocabulary::Kind;
use penstock_policy::protocol::{LimitSet, Protocol};
use penstock_policy::terms::NumberRange;

use crate::v1::{LearnedEvent, LearnedLimit, LearnedOperation, LearnedRange};

/// Operations that one line of a document can permit, and what was seen of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnedEntry {
    /// The operation, by the name that permits it.
    pub operation: String,
    /// Limits by a number that each has lines of its own.
    pub numbers: Vec<(&'static str, u32)>,
    /// Limits by a text that each has a line of its own. As the client sent it: not to be printed as it is.
    pub texts: Vec<(&'static str, String)>,
    /// Where it writes, if its values are known.
    pub written: Option<NumberRange>,
    /// What was asked, by limit.
    pub sets: BTreeMap<&'static str, LimitSet>,
    /// How often.
    pub count: u64,
    /// When first, milliseconds since 1970.
    pub first_ms: u64,
    /// When last.
    pub last_ms: u64,
}

/// Adds an entry to an event of its protocol.
pub fn put(event: &mut LearnedEvent, entry: LearnedEntry) {
    if let Some(entry) = legacy::put(event, entry) {
        event.operations.push(LearnedOperation::from(entry));
    }
}

/// The entries of an event about `protocol`; `None`: one of them is not of that protocol, or has a number that cannot be.
pub fn entries(event: &LearnedEvent, protocol: Protocol) -> Option<Vec<LearnedEntry>> {
    let own = event.operations.iter().map(|told| read(told, protocol));
    let all = legacy::entries(event).chain(own);
    all.map(|entry| entry.filter(|entry| fits(entry, protocol)))
        .collect()
}

/// Each operation of an event in words, with how often it was asked.
pub fn words(event: &LearnedEvent) -> impl Iterator<Item = String> {
    let own = event.operations.iter().map(|told| {
        let about = told.about.iter().flat_map(|limit| {
            let texts = limit.texts.iter().map(|text| text.escape_debug().to_string());
            texts.chain(
                limit
                    .ranges
                    .iter()
                    .map(|range| format!("{} {}", limit.limit.escape_debug(), range.first)),
            )
        });
        let said: Vec<String> = std::iter::once(told.operation.escape_debug().to_string())
            .chain(about)
            .collect();
        format!("{} \u{d7}{}", said.join(" "), told.count)
    });
    legacy::words(event).chain(own)
}

/// How many operations an event names.
pub fn count(event: &LearnedEvent) -> usize {
    legacy::count(event) + event.operations.len()
}

/// What of an event's operations can be searched for.
pub fn texts(event: &LearnedEvent) -> impl Iterator<Item = &str> {
    let own = event.operations.iter().flat_map(|told| {
        let about = told
            .about
            .iter()
            .flat_map(|limit| limit.texts.iter().map(String::as_str));
        std::iter::once(told.operation.as_str()).chain(about)
    });
    legacy::texts(event).chain(own)
}

impl From<NumberRange> for LearnedRange {
    fn from(range: NumberRange) -> Self {
        Self {
            first: range.first,
            last: range.last,
        }
    }
}

fn range(told: &LearnedRange) -> NumberRange {
    NumberRange {
        first: told.first,
        last: told.last,
    }
}

impl From<LearnedEntry> for LearnedOperation {
    fn from(entry: LearnedEntry) -> Self {
        let numbers = entry.numbers.into_iter().map(|(limit, number)| LearnedLimit {
            limit: limit.to_owned(),
            ranges: vec![LearnedRange {
                first: number,
                last: number,
            }],
            ..LearnedLimit::default()
        });
        let texts = entry.texts.into_iter().map(|(limit, text)| LearnedLimit {
            limit: limit.to_owned(),
            texts: vec![text],
            ..LearnedLimit::default()
        });
        Self {
            operation: entry.operation,
            count: entry.count,
            first_ms: entry.first_ms,
            last_ms: entry.last_ms,
            about: numbers.chain(texts).collect(),
            asked: entry.sets.into_iter().map(limit).collect(),
            written: entry.written.map(LearnedRange::from),
        }
    }
}

fn limit((name, set): (&'static str, LimitSet)) -> LearnedLimit {
    let mut told = LearnedLimit {
        limit: name.to_owned(),
        ..LearnedLimit::default()
    };
    match set {
        LimitSet::Numbers(ranges) => told.ranges = ranges.into_iter().map(LearnedRange::from).collect(),
        LimitSet::Range(range) => told.ranges = vec![range.into()],
        LimitSet::Patterns(listed) | LimitSet::Texts(listed) => told.texts = listed,
        LimitSet::Flag(is_so) => told.flag = is_so,
    }
    told
}

fn read(told: &LearnedOperation, protocol: Protocol) -> Option<LearnedEntry> {
    let (mut numbers, mut texts) = (Vec::new(), Vec::new());
    for about in &told.about {
        let name = protocol.limit(&about.limit)?.name;
        match (about.ranges.as_slice(), about.texts.as_slice()) {
            ([one], []) if one.first == one.last => numbers.push((name, one.first)),
            ([], [text]) => texts.push((name, text.clone())),
            _ => return None,
        }
    }
    let set = |asked: &LearnedLimit| {
        let limit = protocol.limit(&asked.limit)?;
        let set = match limit.kind {
            Kind::Numbers { .. } => LimitSet::Numbers(asked.ranges.iter().map(range).collect()),
            Kind::Range { .. } => LimitSet::Range(asked.ranges.first().map(range)?),
            Kind::Patterns(_) => LimitSet::Patterns(asked.texts.clone()),
            Kind::Texts => LimitSet::Texts(asked.texts.clone()),
            Kind::Flag { .. } => LimitSet::Flag(asked.flag),
        };
        Some((limit.name, set))
    };
    Some(LearnedEntry {
        operation: told.operation.clone(),
        numbers,
        texts,
        written: told.written.as_ref().map(range),
        sets: told.asked.iter().map(set).collect::<Option<_>>()?,
        count: told.count,
        first_ms: told.first_ms,
        last_ms: told.last_ms,
    })
}

/// Whether the protocol has this operation (a group is none that can be asked), with these limits and such numbers in them.
fn fits(entry: &LearnedEntry, protocol: Protocol) -> bool {
    let name = entry.operation.as_str();
    if protocol.groups.iter().any(|group| group.name == name) {
        return false;
    }
    let Some(shape) = protocol.shape(name) else {
        return false;
    };
    let fits_range = |limit: &str, range: &NumberRange| {
        let takes = shape.takes(limit);
        let last = takes.and_then(|takes| match takes.limit.kind {
            Kind::Numbers { last, .. } | Kind::Range { last, .. } => Some(last),
            Kind::Patterns(_) | Kind::Texts | Kind::Flag { .. } => None,
        });
        range.first <= range.last && last.is_some_and(|last| range.last <= last)
    };
    let single = |number: u32| NumberRange {
        first: number,
        last: number,
    };
    let set = |limit: &str, set: &LimitSet| match set {
        LimitSet::Numbers(ranges) => ranges.iter().all(|range| fits_range(limit, range)),
        LimitSet::Range(range) => fits_range(limit, range),
        LimitSet::Patterns(_) | LimitSet::Texts(_) | LimitSet::Flag(_) => shape.takes(limit).is_some(),
    };
    entry
        .numbers
        .iter()
        .all(|(limit, number)| fits_range(limit, &single(*number)))
        && entry.texts.iter().all(|(limit, _)| shape.takes(limit).is_some())
        && entry.sets.iter().all(|(limit, asked)| set(limit, asked))
        && entry.written.is_none_or(|written| written.first <= written.last)
        && entry.first_ms <= entry.last_ms
}

#[cfg(test)]
mod tests;
