//! What a flow may do inside its protocol more, or less, than before, in words that name what an approver signs for:
//! "read-holding-registers: addresses 0-199 → 0-99: 100-199 may no longer be read by hmi-1 on plc-7".
//!
//! A promise stands behind them: where nothing is called wider, the new list permits no operation that the old one
//! did not. The inspector wants one entry to permit an operation whole, and so it is compared here: an entry that no
//! single entry of the other list covers counts as more, or less, even where several together name the same numbers.

use super::permits::{Permit, permits};
use crate::protocol::Operations;

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
    if before.protocol != after.protocol {
        return Difference {
            wider: true,
            narrower: true,
            details: vec![
                format!("may also {}", after.phrases().join("; ")),
                format!("may no longer {}", before.phrases().join("; ")),
            ],
        };
    }
    let (old, new) = (permits(before), permits(after));
    // Entries that the other list has not just so, with those that nothing there covers marked.
    let odd = |own: &[Permit], others: &[Permit]| -> Vec<(Permit, bool)> {
        let odd = own.iter().filter(|permit| !others.contains(permit));
        odd.map(|permit| (permit.clone(), others.iter().any(|other| other.covers(permit))))
            .collect()
    };
    let (mut gone, mut come) = (odd(&old, &new), odd(&new, &old));
    let mut difference = Difference {
        wider: come.iter().any(|(_, covered)| !covered),
        narrower: gone.iter().any(|(_, covered)| !covered),
        details: Vec::new(),
    };
    // One entry of an operation against one: said by what differs between the two.
    for (permit, _) in gone.clone() {
        let alone = |list: &[(Permit, bool)]| {
            let mut same = list.iter().filter(|(other, _)| other.is_of_same(&permit));
            match (same.next(), same.next()) {
                (Some((only, _)), None) => Some(only.clone()),
                _ => None,
            }
        };
        let (Some(from), Some(to)) = (alone(&gone), alone(&come)) else {
            continue;
        };
        if let Some(words) = pair(&from, &to, &old, &new, who) {
            difference.details.push(words);
            gone.retain(|(other, _)| !other.is_of_same(&permit));
            come.retain(|(other, _)| !other.is_of_same(&permit));
        }
    }
    for (list, others, may) in [(&come, &old, ALSO), (&gone, &new, NO_LONGER)] {
        for (permit, _) in list.iter().filter(|(_, covered)| !covered) {
            let said = permit.sentence(may, others).unwrap_or_else(|| {
                let in_one = if permit.is_only_joined(others) {
                    " in one request"
                } else {
                    ""
                };
                format!("{may} {}{in_one}", permit.phrase)
            });
            difference.details.push(format!("{said}{who}"));
        }
    }
    difference
}

/// Two entries of one operation that differ in one set of numbers, and what follows from it.
fn pair(from: &Permit, to: &Permit, old: &[Permit], new: &[Permit], who: &str) -> Option<String> {
    let differs = from.differs_in(to)?;
    let mut sentences = Vec::new();
    for (permit, others, may) in [(from, new, NO_LONGER), (to, old, ALSO)] {
        if !others.iter().any(|other| other.covers(permit)) {
            // Where no number is named, only requests that span two entries differ: that takes the whole phrase.
            sentences.push(differs.sentence(permit, others, may)?);
        }
    }
    if sentences.is_empty() {
        return None;
    }
    Some(format!(
        "{}: {} {} → {}: {}{who}",
        from.operation(),
        differs.name(),
        differs.words(from),
        differs.words(to),
        sentences.join(", ")
    ))
}
