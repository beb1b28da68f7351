//! What a flow may do inside its protocol more, or less, than before, in words that name what an approver signs for:
//! "read-holding-registers: addresses 0-199 → 0-99: 100-199 may no longer be read by hmi-1 on plc-7".
//!
//! A promise stands behind them: where nothing is called wider, the new list permits no operation that the old one
//! did not. The inspector wants one entry to permit an operation whole, and so it is compared here: an entry that no
//! single entry of the other list covers counts as more, or less, even where several together name the same numbers.

use super::modbus::{Limit, View};
use super::mqtt::{self, Grant};
use crate::protocol::Operations;
use crate::protocol::modbus_tcp::ModbusOperation;
use crate::protocol::mqtt::MqttOperation;

/// How two lists differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Something is permitted that was not.
    pub(super) wider: bool,
    /// Something was permitted that is not any more.
    pub(super) narrower: bool,
    /// What, in words; empty if the two say the same.
    pub(super) details: Vec<String>,
}

const NO_LONGER: &str = "may no longer";
const ALSO: &str = "may also";

/// Compares two lists; `who` acts on whom by them (` by hmi-1 on plc-7`, or nothing).
pub(super) fn compare(before: &Operations, after: &Operations, who: &str) -> Difference {
    let of_modbus = (ModbusOperation::list(before), ModbusOperation::list(after));
    let of_mqtt = (MqttOperation::list(before), MqttOperation::list(after));
    match (of_modbus, of_mqtt) {
        ((Some(before), Some(after)), _) => modbus(&before, &after, who),
        (_, (Some(before), Some(after))) => mqtt(&before, &after, who),
        _ => Difference {
            wider: true,
            narrower: true,
            details: vec![
                format!("may also {}", after.phrases().join("; ")),
                format!("may no longer {}", before.phrases().join("; ")),
            ],
        },
    }
}

fn modbus(before: &[ModbusOperation], after: &[ModbusOperation], who: &str) -> Difference {
    let views = |list: &[ModbusOperation]| list.iter().map(View::of).collect::<Vec<_>>();
    let (old, new) = (views(before), views(after));
    // Entries that the other list has not just so, with those that nothing there covers marked.
    let odd = |list: &[ModbusOperation], views: &[View], others: &[View]| -> Vec<(String, View, bool)> {
        list.iter()
            .zip(views)
            .filter(|(_, view)| !others.contains(view))
            .map(|(entry, view)| {
                let covered = others.iter().any(|other| other.covers(view));
                (entry.to_string(), view.clone(), covered)
            })
            .collect()
    };
    let (mut gone, mut come) = (odd(before, &old, &new), odd(after, &new, &old));
    let mut difference = Difference {
        wider: come.iter().any(|(_, _, covered)| !covered),
        narrower: gone.iter().any(|(_, _, covered)| !covered),
        details: Vec::new(),
    };
    // One entry of a function against one: said by what differs between the two.
    let functions: Vec<String> = gone
        .iter()
        .map(|(_, view, _)| view.function().to_owned())
        .collect();
    for function in functions {
        let of = |list: &[(String, View, bool)]| -> Vec<View> {
            let same = list.iter().filter(|(_, view, _)| view.function() == function);
            same.map(|(_, view, _)| view.clone()).collect()
        };
        let (from, to) = (of(&gone), of(&come));
        let ([from], [to]) = (from.as_slice(), to.as_slice()) else {
            continue;
        };
        if let Some(words) = pair(from, to, &old, &new, who) {
            difference.details.push(words);
            gone.retain(|(_, view, _)| view.function() != function);
            come.retain(|(_, view, _)| view.function() != function);
        }
    }
    for (list, others, may) in [(&come, &old, ALSO), (&gone, &new, NO_LONGER)] {
        for (phrase, view, _) in list.iter().filter(|(_, _, covered)| !covered) {
            let in_one = if view.beyond(widest(view), others).is_empty() {
                " in one request"
            } else {
                ""
            };
            difference.details.push(format!("{may} {phrase}{in_one}{who}"));
        }
    }
    difference
}

/// The limit that several entries may share between them.
fn widest(view: &View) -> Limit {
    match (
        view.limit(Limit::Read).is_empty(),
        view.limit(Limit::Write).is_empty(),
    ) {
        (false, true) => Limit::Read,
        (true, false) => Limit::Write,
        (false, false) => Limit::ReadAndWrite,
        (true, true) => Limit::Units,
    }
}

/// Two entries of one function that differ in one limit, and what follows from it.
fn pair(from: &View, to: &View, old: &[View], new: &[View], who: &str) -> Option<String> {
    let limit = from.differs_in(to)?;
    let mut sentences = Vec::new();
    for (view, others, may) in [(from, new, NO_LONGER), (to, old, ALSO)] {
        if others.iter().any(|other| other.covers(view)) {
            continue;
        }
        let beyond = view.beyond(limit, others);
        // Where no number is named, only requests that span two entries differ: that takes the whole phrase.
        if beyond.is_empty() {
            return None;
        }
        sentences.push(limit.sentence(&beyond, may));
    }
    if sentences.is_empty() {
        return None;
    }
    Some(format!(
        "{}: {} {} → {}: {}{who}",
        from.function(),
        limit.name(),
        limit.words(from.limit(limit)),
        limit.words(to.limit(limit)),
        sentences.join(", ")
    ))
}

fn mqtt(before: &[MqttOperation], after: &[MqttOperation], who: &str) -> Difference {
    let (old, new) = (mqtt::grants(before), mqtt::grants(after));
    let beyond = |some: &[Grant], others: &[Grant]| -> Vec<Grant> {
        some.iter()
            .filter(|grant| !others.iter().any(|other| other.covers(grant)))
            .cloned()
            .collect()
    };
    let (lost, won) = (beyond(&old, &new), beyond(&new, &old));
    let mut details: Vec<String> = won
        .iter()
        .map(|grant| format!("{}{who}", grant.sentence(ALSO, &old)))
        .collect();
    details.extend(
        lost.iter()
            .map(|grant| format!("{}{who}", grant.sentence(NO_LONGER, &new))),
    );
    Difference {
        wider: !won.is_empty(),
        narrower: !lost.is_empty(),
        details,
    }
}
