//! The lines of `allow`: what the operations of a talk need, as a person would write it.
//!
//! Limits stand in the order in which the protocol's vocabulary has them. All places of an operation stand in one line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use penstock_policy::protocol::{LimitSet, Protocol};
use penstock_policy::terms::NumberRange;

use super::{Clock, EntryKey, EntrySeen, Talk, seen};
use crate::operation::VALUES;

/// Writes them; `widening` stands before how often each was seen.
pub(super) fn write(out: &mut String, protocol: Protocol, talk: &Talk, widening: &str, clock: &Clock<'_>) {
    // A client that gave no name could not connect if names were asked for.
    if let Some(session) = &protocol.session
        && !talk.names.is_empty()
        && !talk.names.contains("")
    {
        let names = list(&talk.names.iter().map(|name| quoted(name)).collect::<Vec<_>>());
        let _ = writeln!(
            out,
            "          - {}: {{ {}: {names} }}",
            session.operation, session.names
        );
    }
    let mut lines: BTreeMap<EntryKey, EntrySeen> = BTreeMap::new();
    for (key, more) in &talk.operations {
        lines
            .entry(key.anywhere())
            .and_modify(|line| line.join(more))
            .or_insert_with(|| more.clone());
    }
    for (key, line) in &lines {
        let limits = protocol.limits.iter().filter_map(|limit| {
            let set = limit_of(key, line, limit.name)?;
            Some(format!("{}: {set}", limit.name))
        });
        let _ = writeln!(
            out,
            "          - {}: {{ {} }} # {widening}{}",
            key.operation,
            limits.collect::<Vec<_>>().join(", "),
            seen(&line.seen, clock)
        );
    }
}

/// What a line says of a limit; `None`: nothing.
fn limit_of(key: &EntryKey, line: &EntrySeen, name: &str) -> Option<String> {
    if let Some(number) = key.number(name) {
        return Some(number.to_string());
    }
    if let Some(text) = key.text(name) {
        return Some(list(&[quoted(text)]));
    }
    Some(match line.sets.get(name)? {
        LimitSet::Numbers(ranges) if name == VALUES => {
            list(&[ranges.iter().copied().reduce(NumberRange::hull)?.to_string()])
        }
        LimitSet::Numbers(ranges) if ranges.is_empty() => return None,
        LimitSet::Numbers(ranges) => list(&ranges.iter().map(NumberRange::to_string).collect::<Vec<_>>()),
        LimitSet::Range(range) => range.to_string(),
        LimitSet::Patterns(listed) | LimitSet::Texts(listed) => {
            list(&listed.iter().map(|text| quoted(text)).collect::<Vec<_>>())
        }
        LimitSet::Flag(is_so) => if *is_so { "yes" } else { "no" }.to_owned(),
    })
}

fn list(items: &[String]) -> String {
    format!("[{}]", items.join(", "))
}

/// A YAML string in double quotes, whatever a client put into a topic.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() || !c.is_ascii() => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
