//! The messages that Modbus and MQTT have for what was learned of them.

use std::collections::BTreeMap;

use penstock_policy::protocol::LimitSet;
use penstock_policy::protocol::modbus_tcp::MODBUS_TCP;
use penstock_policy::protocol::modbus_tcp::functions::modbus_function;
use penstock_policy::protocol::mqtt::MQTT;
use penstock_policy::terms::NumberRange;

use super::{LearnedEntry, range};
use crate::v1::{LearnedEvent, LearnedMessages, LearnedModbus, LearnedRange};

const UNITS: &str = "units";
const ADDRESSES: &str = "addresses";
const READ_ADDRESSES: &str = "read_addresses";
const SUB_FUNCTIONS: &str = "sub_functions";
const VALUES: &str = "values";
const TOPICS: &str = "topics";
const QOS: &str = "qos";
const RETAIN: &str = "retain";

/// Adds an entry by its protocol's own message; gives it back where the protocol has none.
pub(super) fn put(event: &mut LearnedEvent, mut entry: LearnedEntry) -> Option<LearnedEntry> {
    if event.application == MODBUS_TCP.word {
        event.modbus.push(modbus(&mut entry));
    } else if event.application == MQTT.word {
        let list = match entry.operation.as_str() {
            "publish" => &mut event.published,
            _ => &mut event.subscribed,
        };
        list.push(messages(entry));
    } else {
        return Some(entry);
    }
    None
}

fn modbus(entry: &mut LearnedEntry) -> LearnedModbus {
    let mut ranges = |limit: &str| -> Vec<LearnedRange> {
        match entry.sets.remove(limit) {
            Some(LimitSet::Numbers(ranges)) => ranges.into_iter().map(LearnedRange::from).collect(),
            _ => Vec::new(),
        }
    };
    let (read, mut write, values) = (ranges(READ_ADDRESSES), ranges(ADDRESSES), ranges(VALUES));
    let sub_functions = ranges(SUB_FUNCTIONS).into_iter().map(|code| code.first).collect();
    // Values belong to their place also where the rest of a long entry is told.
    if write.is_empty() {
        write.extend(entry.written.map(LearnedRange::from));
    }
    let mut units = entry.numbers.iter().filter(|(limit, _)| *limit == UNITS);
    LearnedModbus {
        unit: units.next().map_or(0, |(_, unit)| *unit),
        function: std::mem::take(&mut entry.operation),
        count: entry.count,
        first_ms: entry.first_ms,
        last_ms: entry.last_ms,
        read,
        write,
        sub_functions,
        values,
    }
}

fn messages(entry: LearnedEntry) -> LearnedMessages {
    let qos = match entry.sets.get(QOS) {
        Some(LimitSet::Range(qos)) => *qos,
        _ => NumberRange { first: 0, last: 0 },
    };
    let mut texts = entry.texts.into_iter().filter(|(limit, _)| *limit == TOPICS);
    LearnedMessages {
        topic: texts.next().map(|(_, topic)| topic).unwrap_or_default(),
        count: entry.count,
        first_ms: entry.first_ms,
        last_ms: entry.last_ms,
        qos_least: qos.first,
        qos_greatest: qos.last,
        retain: entry.sets.get(RETAIN) == Some(&LimitSet::Flag(true)),
    }
}

/// The entries of these messages.
pub(super) fn entries(event: &LearnedEvent) -> impl Iterator<Item = Option<LearnedEntry>> {
    let modbus = event.modbus.iter().map(requests);
    let published = event.published.iter().map(|told| topic("publish", told));
    let subscribed = event.subscribed.iter().map(|told| topic("subscribe", told));
    modbus.chain(published).chain(subscribed).map(Some)
}

fn requests(told: &LearnedModbus) -> LearnedEntry {
    let ranges = |list: &[LearnedRange]| list.iter().map(range).collect::<Vec<_>>();
    let codes = told.sub_functions.iter().map(|code| NumberRange {
        first: *code,
        last: *code,
    });
    let sets = [
        (ADDRESSES, ranges(&told.write)),
        (READ_ADDRESSES, ranges(&told.read)),
        (VALUES, ranges(&told.values)),
        (SUB_FUNCTIONS, codes.collect()),
    ];
    let sets = sets.into_iter().filter(|(_, ranges)| !ranges.is_empty());
    // Values of files are not kept by their places.
    let files = modbus_function(&told.function).is_some_and(|function| function.files);
    LearnedEntry {
        operation: told.function.clone(),
        numbers: vec![(UNITS, told.unit)],
        texts: Vec::new(),
        written: match told.write.as_slice() {
            [only] if !told.values.is_empty() && !files => Some(range(only)),
            _ => None,
        },
        sets: sets
            .map(|(limit, ranges)| (limit, LimitSet::Numbers(ranges)))
            .collect(),
        count: told.count,
        first_ms: told.first_ms,
        last_ms: told.last_ms,
    }
}

fn topic(verb: &str, told: &LearnedMessages) -> LearnedEntry {
    let qos = NumberRange {
        first: told.qos_least,
        last: told.qos_greatest,
    };
    let mut sets = BTreeMap::from([(QOS, LimitSet::Range(qos))]);
    if verb == "publish" {
        sets.insert(RETAIN, LimitSet::Flag(told.retain));
    }
    LearnedEntry {
        operation: verb.to_owned(),
        numbers: Vec::new(),
        texts: vec![(TOPICS, told.topic.clone())],
        written: None,
        sets,
        count: told.count,
        first_ms: told.first_ms,
        last_ms: told.last_ms,
    }
}

/// Each in words, with how often it was asked. Topics are a client's words.
pub(super) fn words(event: &LearnedEvent) -> impl Iterator<Item = String> {
    let functions = event.modbus.iter().map(|told| {
        format!(
            "{} of unit {} \u{d7}{}",
            told.function.escape_debug(),
            told.unit,
            told.count
        )
    });
    let verbs = [("publish", &event.published), ("subscribe", &event.subscribed)];
    let messages = verbs.into_iter().flat_map(|(verb, list)| {
        list.iter()
            .map(move |told| format!("{verb} {} \u{d7}{}", told.topic.escape_debug(), told.count))
    });
    functions.chain(messages)
}

/// How many there are.
pub(super) fn count(event: &LearnedEvent) -> usize {
    event.modbus.len() + event.published.len() + event.subscribed.len()
}

/// What of them can be searched for.
pub(super) fn texts(event: &LearnedEvent) -> impl Iterator<Item = &str> {
    let topics = event.published.iter().chain(&event.subscribed);
    let functions = event.modbus.iter().map(|told| told.function.as_str());
    topics.map(|told| told.topic.as_str()).chain(functions)
}
