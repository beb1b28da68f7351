//! Rollouts in the store: one record each (`rollout/<number>`), beside it what the plant has as a whole: the freeze, and the
//! release that whoever has none gets (`baseline`).

use std::collections::BTreeMap;

use penstock_policy::ids::{Digest, Revision};
use serde::{Deserialize, Serialize};

use crate::rollout::{Mark, Record};

/// Prefix of the rollouts' records; the number follows.
pub(super) const PREFIX: &str = "rollout/";
/// The record that says whether the line is stopped.
pub(super) const FREEZE: &str = "freeze";
/// The record that says what a gateway gets that no rollout asks for more.
pub(super) const BASELINE: &str = "baseline";
/// Rollouts that are over and kept, the newest; older ones are in the trail.
pub(super) const KEPT_MAX: usize = 50;
/// Events kept of one rollout: so many of the first, and so many of the last.
const EVENTS_MAX: (usize, usize) = (50, 150);

/// A rollout as recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredRollout {
    pub(super) number: u64,
    /// Digest of the release's statement.
    pub(super) statement: Digest,
    pub(super) started_by: String,
    pub(super) because: Because,
    pub(super) started_ms: u64,
    /// When it came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended_ms: Option<u64>,
    /// Its last stage, where a newer release took over after it was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended_as: Option<String>,
    /// What was done and what happened, the oldest first.
    pub(super) events: Vec<Event>,
    /// So many are left out behind the first ones.
    #[serde(default)]
    pub(super) omitted: u32,
    pub(super) rollout: Record,
}

/// Why somebody did something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Because {
    pub(super) reason: String,
    pub(super) ticket: String,
}

/// Who wants something, and why.
#[derive(Debug, Clone, Default)]
pub struct Who {
    /// The operator.
    pub by: String,
    /// In their words.
    pub reason: String,
    /// Their ticket.
    pub ticket: String,
}

impl Because {
    /// In the words of who wants something.
    pub(super) fn of(who: &Who) -> Self {
        Self {
            reason: who.reason.clone(),
            ticket: who.ticket.clone(),
        }
    }
}

/// Something that was done, or happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    pub(super) at_ms: u64,
    /// Empty: the coordinator, by the plan.
    pub(super) by: String,
    /// Stable word.
    pub(super) what: String,
    pub(super) message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) because: Option<Because>,
}

/// Whether the line is stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FreezeRecord {
    pub(super) frozen: bool,
    pub(super) by: String,
    pub(super) because: Because,
    pub(super) since_ms: u64,
}

/// What a gateway gets that no rollout asks for more, if it does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Baseline {
    /// Nothing was carried yet.
    None,
    /// What was carried to all at once, or was current before there were rollouts.
    AtOnce(Revision),
    /// What the rollout of this number carried.
    Rollout(u64),
}

pub(super) fn key_of(number: u64) -> String {
    // Fixed width, so that the store's order is the numbers' order.
    format!("{PREFIX}{number:020}")
}

impl StoredRollout {
    /// Adds an event; of many, those in the middle are left out, and counted.
    pub(super) fn note(&mut self, event: Event) {
        self.events.push(event);
        let (first, last) = EVENTS_MAX;
        if self.events.len() > first + last {
            self.events.remove(first);
            self.omitted = self.omitted.saturating_add(1);
        }
    }
}

/// Gateways named for one thing that happened; further ones are counted.
const NAMES_MAX: usize = 8;

/// What became of gateways, in words: by what it is, some of the names.
pub(super) fn marks_in_words<'a>(
    changes: impl Iterator<Item = (&'a str, Mark)>,
) -> Vec<(&'static str, String)> {
    let mut by_mark: BTreeMap<Mark, (Vec<&str>, usize)> = BTreeMap::new();
    for (name, mark) in changes {
        let (names, count) = by_mark.entry(mark).or_default();
        *count += 1;
        if names.len() < NAMES_MAX {
            names.push(name);
        }
    }
    let words = by_mark.into_iter().map(|(mark, (names, count))| {
        let further = match count - names.len() {
            0 => String::new(),
            further => format!(" and {further} more"),
        };
        (
            mark.word(),
            format!("{}{further}: {}", names.join(", "), mark.became()),
        )
    });
    words.collect()
}
