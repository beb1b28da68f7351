//! The lines of `allow`: what the operations of a talk need, as a person would write it.
//!
//! Limits stand in the order in which the protocol's vocabulary has them. Places of an operation stand in one line where the same
//! values are written to them: what is written to one is no permission for another. What was asked in vain stands behind `#`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use penstock_policy::protocol::vocabulary::Kind;
use penstock_policy::protocol::{LimitSet, Protocol};
use penstock_policy::terms::NumberRange;

use super::names::made_up;
use super::shapes::{Shape, list};
use super::{Clock, EntryKey, EntrySeen, Talk, seen};
use crate::learn::talk::Failure;
use crate::operation::VALUES;

/// The limit that says as which users clients connect, where a protocol has it.
const USERS: &str = "users";
/// Lines of what was asked in vain.
const FAILED_MAX: usize = 50;

/// One line, and what is said of it behind it.
pub(super) struct Line {
    pub(super) entry: String,
    pub(super) remark: String,
}

/// Writes them; `widening` stands before how often each was seen.
pub(super) fn write(out: &mut String, protocol: Protocol, talk: &Talk, widening: &str, clock: &Clock<'_>) {
    connect(out, protocol, talk);
    for line in needed(protocol, talk, clock) {
        let _ = writeln!(out, "          - {} # {widening}{}", line.entry, line.remark);
    }
    let failed = failed(protocol, talk, clock);
    for line in failed.iter().take(FAILED_MAX) {
        let _ = writeln!(
            out,
            "          # not proposed: - {} # {}",
            line.entry, line.remark
        );
    }
    if let Some(more @ 1..) = failed.len().checked_sub(FAILED_MAX) {
        let _ = writeln!(
            out,
            "          # not proposed: {more} more that were asked in vain."
        );
    }
}

/// Who may connect, if that can be said.
fn connect(out: &mut String, protocol: Protocol, talk: &Talk) {
    let Some(session) = &protocol.session else { return };
    if talk.names.is_empty() {
        return;
    }
    let listed = |texts: &std::collections::BTreeSet<String>| {
        list(&texts.iter().map(|text| quoted(text)).collect::<Vec<_>>())
    };
    let mut limits = Vec::new();
    // A client that gave no name could not connect if names were asked for.
    if let Some(common) = made_up(&talk.names) {
        let _ = writeln!(
            out,
            "          # Client identifiers look made up for each connection ({} that begin with {}), which no list can name: {} may \
             connect here. Give the client an identifier of its own and list it.",
            talk.names.iter().filter(|name| name.starts_with(&common)).count(),
            quoted(&common),
            session.anyone
        );
    } else if !talk.names.contains("") {
        limits.push(format!("{}: {}", session.names, listed(&talk.names)));
    }
    let knows_users = protocol.limits.iter().any(|limit| limit.name == USERS);
    if knows_users && !talk.users.is_empty() && !talk.users.contains("") {
        limits.push(format!("{USERS}: {}", listed(&talk.users)));
    }
    if !limits.is_empty() {
        let limits = limits.join(", ");
        let _ = writeln!(out, "          - {}: {{ {limits} }}", session.operation);
    } else if !talk.has_operations() {
        // A list that permits to connect, and nothing else.
        let _ = writeln!(out, "          - {}", session.operation);
    }
}

/// What was carried out, or must have been.
pub(super) fn needed(protocol: Protocol, talk: &Talk, clock: &Clock<'_>) -> Vec<Line> {
    let mut lines: BTreeMap<(EntryKey, Option<Shape>), EntrySeen> = BTreeMap::new();
    for (key, more) in &talk.operations {
        let shape = Shape::of(key.written, more);
        lines
            .entry((key.anywhere(), shape))
            .and_modify(|line| line.join(more))
            .or_insert_with(|| more.clone());
    }
    let seen_lines = lines.iter().map(|((key, shape), line)| {
        let remark = match shape.as_ref().and_then(Shape::in_words) {
            Some(words) => format!("{}; {words}", seen(&line.seen, clock)),
            None => seen(&line.seen, clock),
        };
        Line {
            entry: entry(protocol, key, line, shape.as_ref()),
            remark,
        }
    });
    let inferred = talk
        .inferred
        .iter()
        .filter(|(key, _)| !is_covered(protocol, talk, key));
    let inferred = inferred.map(|(key, line)| Line {
        entry: entry(protocol, key, line, None),
        remark: format!(
            "inferred from {}: it was asked for before the recording, perhaps for more than this",
            deliveries(line, clock)
        ),
    });
    seen_lines.chain(inferred).collect()
}

fn deliveries(line: &EntrySeen, clock: &Clock<'_>) -> String {
    format!("what was delivered {}", seen(&line.seen, clock))
}

/// Whether something that was asked for already brings what was delivered.
fn is_covered(protocol: Protocol, talk: &Talk, inferred: &EntryKey) -> bool {
    let covers = |name: &str, outer: &str, inner: &str| {
        let limit = protocol.limits.iter().find(|limit| limit.name == name);
        matches!(limit.map(|limit| &limit.kind), Some(Kind::Patterns(patterns)) if (patterns.covers)(outer, inner))
    };
    let asked = talk.operations.keys();
    let mut asked = asked.filter(|key| key.operation == inferred.operation);
    asked.any(|key| {
        inferred.texts.iter().all(|(name, text)| {
            key.text(name)
                .is_some_and(|outer| outer == text || covers(name, outer, text))
        })
    })
}

/// What was asked in vain, but for what was carried out at other times: that is a number at the flow.
pub(super) fn failed(protocol: Protocol, talk: &Talk, clock: &Clock<'_>) -> Vec<Line> {
    let in_vain = talk.failed.iter().filter(|((_, key), line)| {
        let worked = talk.operations.get(key);
        worked.is_none_or(|worked| !worked.holds(line))
    });
    let lines = in_vain.map(|((why, key), line)| Line {
        entry: entry(protocol, key, line, Shape::of(key.written, line).as_ref()),
        remark: format!(
            "{} {}",
            match why {
                Failure::Refused => "refused by its server",
                Failure::Unanswered => "not answered",
                Failure::Malformed => "malformed",
            },
            seen(&line.seen, clock)
        ),
    });
    lines.collect()
}

fn entry(protocol: Protocol, key: &EntryKey, line: &EntrySeen, shape: Option<&Shape>) -> String {
    let limits = protocol.limits.iter().filter_map(|limit| {
        let set = match shape.filter(|_| limit.name == VALUES) {
            Some(shape) => shape.list(),
            None => limit_of(key, line, limit.name)?,
        };
        Some(format!("{}: {set}", limit.name))
    });
    let limits: Vec<String> = limits.collect();
    match limits.is_empty() {
        true => key.operation.clone(),
        false => format!("{}: {{ {} }}", key.operation, limits.join(", ")),
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
        LimitSet::Numbers(ranges) if ranges.is_empty() => return None,
        LimitSet::Numbers(ranges) => list(&ranges.iter().map(NumberRange::to_string).collect::<Vec<_>>()),
        LimitSet::Range(range) => range.to_string(),
        LimitSet::Patterns(listed) | LimitSet::Texts(listed) => {
            list(&listed.iter().map(|text| quoted(text)).collect::<Vec<_>>())
        }
        LimitSet::Flag(is_so) => if *is_so { "yes" } else { "no" }.to_owned(),
    })
}

/// A YAML string in double quotes, whatever a client put into a topic.
pub(super) fn quoted(text: &str) -> String {
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
