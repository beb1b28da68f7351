//! The states of alarms (ISA-18.2): a pure function of conditions, what people do, and time.
//!
//! ```text
//!            condition stands            acknowledged
//!   normal ───────────────▶ unacknowledged ─────────▶ acknowledged
//!     ▲ ▲                     │        ▲                 │
//!     │ └── acknowledged ── returned ──┘ comes back      │ condition is over
//!     └──────────────────────────────────────────────────┘
//!   beside them: suppressed (by design, while a zone may be dark), shelved (for a time, with a reason), out of service
//! ```
//!
//! [`Machine::due`] says which steps are due; [`Machine::apply`] takes one after it is stored. Between the two nothing is lost: a
//! step that could not be stored is due again. A condition that nobody knows anything of is [`Condition::Unknown`] and changes nothing.
//! What is not durable are the delays under way: they begin again after a restart.
//!
//! A clock that is set back prolongs no shelf and no dark time: they end then, and the alarm is shown.

mod command;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use penstock_policy::ids::GatewayId;
use serde::{Deserialize, Serialize};

pub(crate) use self::command::{Command, CommandError};
use super::{AlarmKey, Priority};

/// Longest time for which an alarm is shelved: no longer than a shift.
pub(crate) const SHELF_MAX: Duration = Duration::from_secs(12 * 3600);
/// Subjects and gateways of one alarm that are kept, so that more of it is noticed: far more than anybody reads, and a small record.
const SUBJECTS_MAX: usize = 256;
/// In a subject, between the gateway whose seals it is about and the place of what does not fit there. Of each gateway only the newest counts, and no
/// other subjects take its place: so no gateway fills an alarm for the others.
pub(crate) const OF_SEALS: &str = " seals ";

/// How long a condition stands before it is raised, and is away before it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// Before it is raised.
    pub on: Duration,
    /// Before it is over.
    pub off: Duration,
}

/// What is known of one alarm's condition now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It stands.
    Stands(Sign),
    /// It does not.
    Clear,
    /// Nobody knows.
    Unknown,
}

/// What shows that a condition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sign {
    /// What is wrong, in words.
    pub(crate) message: String,
    /// What of it there is (flows, sources, a revision): more of it than somebody acknowledged is raised again.
    pub(crate) subjects: BTreeSet<String>,
    /// From which gateways it comes.
    pub(crate) gateways: BTreeSet<GatewayId>,
    /// How urgent it is.
    pub(crate) priority: Priority,
    /// It is of a safety zone.
    pub(crate) is_safety: bool,
    /// For how long it is suppressed by design.
    pub(crate) dark: Duration,
}

/// The state of an alarm that is not normal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AlarmState {
    Unacknowledged,
    Acknowledged,
    Returned,
    Shelved,
    Suppressed,
    OutOfService,
}

impl AlarmState {
    /// Its word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unacknowledged => "unacknowledged",
            Self::Acknowledged => "acknowledged",
            Self::Returned => "returned",
            Self::Shelved => "shelved",
            Self::Suppressed => "suppressed",
            Self::OutOfService => "out-of-service",
        }
    }

    /// Its condition stands, and nothing hides that.
    pub(crate) fn stands(self) -> bool {
        matches!(self, Self::Unacknowledged | Self::Acknowledged)
    }
}

/// What is recorded of an alarm that is not normal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlarmRecord {
    pub(crate) state: AlarmState,
    pub(crate) priority: Priority,
    pub(crate) is_safety: bool,
    /// Since when it is in this state, and when it was raised last, milliseconds since 1970.
    pub(crate) since_ms: u64,
    pub(crate) raised_ms: u64,
    /// When it comes back at the latest that is shelved or suppressed; 0: it is neither.
    pub(crate) until_ms: u64,
    pub(crate) message: String,
    pub(crate) subjects: BTreeSet<String>,
    pub(crate) gateways: BTreeSet<GatewayId>,
    pub(crate) by: Author,
    pub(crate) reason: String,
}

/// Who does something about an alarm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Author {
    /// An operator, or the name that somebody gave by topic; empty: nobody.
    pub(crate) name: String,
    /// Nothing proves the name.
    pub(crate) by_topic: bool,
}

/// One step of an alarm. It counts once it was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) key: AlarmKey,
    /// Its word in the trail.
    pub(crate) word: &'static str,
    /// What is recorded from then on; `None`: it is normal.
    pub(crate) after: Option<AlarmRecord>,
    /// What was recorded or seen, for what is said of a step to normal.
    pub(crate) message: String,
    pub(crate) priority: Priority,
    pub(crate) by: Author,
    pub(crate) reason: String,
}

impl Step {
    /// The word of the state after it.
    pub(crate) fn state(&self) -> &'static str {
        self.after
            .as_ref()
            .map_or("normal", |record| record.state.as_str())
    }

    /// It asks for somebody's attention.
    pub(crate) fn is_raise(&self) -> bool {
        self.after
            .as_ref()
            .is_some_and(|record| record.state == AlarmState::Unacknowledged)
    }
}

/// All alarms of a plant.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    delays: Delays,
    records: BTreeMap<AlarmKey, AlarmRecord>,
    /// Since when a condition differs from what is recorded.
    pending: BTreeMap<AlarmKey, u64>,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether `duration` is over since then, or the clock was set back.
fn is_over(since_ms: u64, duration: Duration, now_ms: u64) -> bool {
    now_ms < since_ms || now_ms - since_ms >= ms(duration)
}

/// Whose seals a subject is about.
fn of_seals(subject: &str) -> Option<&str> {
    subject.split_once(OF_SEALS).map(|(gateway, _)| gateway)
}

/// The subjects that are kept of those held and those seen now.
fn united(held: &BTreeSet<String>, seen: &BTreeSet<String>) -> BTreeSet<String> {
    let (seals, others): (Vec<_>, Vec<_>) = seen.iter().partition(|subject| of_seals(subject).is_some());
    let newer: BTreeSet<_> = seals.iter().filter_map(|subject| of_seals(subject)).collect();
    let (before, held): (Vec<_>, Vec<_>) = held.iter().partition(|subject| of_seals(subject).is_some());
    let before = before
        .into_iter()
        .filter(|subject| of_seals(subject).is_none_or(|gateway| !newer.contains(gateway)));
    let mut kept = BTreeSet::new();
    for subject in seals.iter().copied().chain(held).chain(others).chain(before) {
        if kept.len() >= SUBJECTS_MAX {
            break;
        }
        kept.insert(subject.clone());
    }
    kept
}

impl Machine {
    /// With what was recorded.
    pub(crate) fn new(delays: Delays, records: BTreeMap<AlarmKey, AlarmRecord>) -> Self {
        Self {
            delays,
            records,
            pending: BTreeMap::new(),
        }
    }

    /// All that are not normal.
    pub(crate) fn records(&self) -> &BTreeMap<AlarmKey, AlarmRecord> {
        &self.records
    }

    /// The steps that are due now, at most one for each alarm. What has no condition is no longer in the plant, and is over.
    pub(crate) fn due(&mut self, now_ms: u64, conditions: &BTreeMap<AlarmKey, Condition>) -> Vec<Step> {
        let keys: BTreeSet<AlarmKey> = self.records.keys().chain(conditions.keys()).cloned().collect();
        let mut steps = Vec::new();
        for key in keys {
            match conditions.get(&key) {
                Some(condition) => steps.extend(self.step(&key, condition, now_ms)),
                None => {
                    self.pending.remove(&key);
                    let record = self.records.get(&key);
                    steps.extend(record.map(|record| cleared(&key, record)));
                }
            }
        }
        self.pending.retain(|key, _| conditions.contains_key(key));
        steps
    }

    /// Takes a step that is stored.
    pub(crate) fn apply(&mut self, step: &Step) {
        self.pending.remove(&step.key);
        match &step.after {
            Some(record) => self.records.insert(step.key.clone(), record.clone()),
            None => self.records.remove(&step.key),
        };
    }

    fn step(&mut self, key: &AlarmKey, condition: &Condition, now_ms: u64) -> Option<Step> {
        let held = self.records.get(key);
        match (held.map(|held| held.state), held) {
            (Some(AlarmState::OutOfService), _) => return None,
            (Some(AlarmState::Shelved), Some(held)) => {
                // Also where the clock was set back: nobody shelved it for that long.
                let is_over = now_ms >= held.until_ms || now_ms < held.since_ms;
                return is_over
                    .then(|| step(key, "unshelved", uncovered(held, Some(condition), now_ms), held));
            }
            (Some(AlarmState::Suppressed), Some(held))
                if !matches!(condition, Condition::Clear)
                    && (now_ms >= held.until_ms || now_ms < held.since_ms) =>
            {
                return Some(step(
                    key,
                    "raised",
                    uncovered(held, Some(condition), now_ms),
                    held,
                ));
            }
            _ => {}
        }
        let stands = held.is_some_and(|held| held.state != AlarmState::Returned);
        let delay = match (condition, stands) {
            (Condition::Unknown, _) | (Condition::Clear, false) => {
                self.pending.remove(key);
                return None;
            }
            (Condition::Stands(sign), true) => {
                self.pending.remove(key);
                return held.and_then(|held| more(key, held, sign, now_ms));
            }
            (Condition::Stands(_), false) => self.delays.on,
            (Condition::Clear, true) => self.delays.off,
        };
        let since_ms = self.pending.entry(key.clone()).or_insert(now_ms);
        // A clock that was set back begins the delay again.
        *since_ms = (*since_ms).min(now_ms);
        if !is_over(*since_ms, delay, now_ms) {
            return None;
        }
        match (condition, held) {
            (Condition::Stands(sign), _) => Some(raised(key, sign, now_ms)),
            (_, Some(held)) if held.state == AlarmState::Unacknowledged => {
                let after = AlarmRecord {
                    state: AlarmState::Returned,
                    since_ms: now_ms,
                    ..held.clone()
                };
                Some(step(key, "returned", Some(after), held))
            }
            (_, Some(held)) => Some(cleared(key, held)),
            (_, None) => None,
        }
    }
}

/// A step that nobody takes.
fn step(key: &AlarmKey, word: &'static str, after: Option<AlarmRecord>, before: &AlarmRecord) -> Step {
    let shown = after.as_ref().unwrap_or(before);
    Step {
        key: key.clone(),
        word,
        message: shown.message.clone(),
        priority: shown.priority,
        by: Author::default(),
        reason: String::new(),
        after,
    }
}

fn cleared(key: &AlarmKey, record: &AlarmRecord) -> Step {
    step(key, "cleared", None, record)
}

fn raised(key: &AlarmKey, sign: &Sign, now_ms: u64) -> Step {
    let is_dark = !sign.dark.is_zero();
    let record = AlarmRecord {
        state: match is_dark {
            true => AlarmState::Suppressed,
            false => AlarmState::Unacknowledged,
        },
        until_ms: match is_dark {
            true => now_ms.saturating_add(ms(sign.dark)),
            false => 0,
        },
        ..fresh(sign, now_ms)
    };
    let word = if is_dark { "suppressed" } else { "raised" };
    step(key, word, Some(record.clone()), &record)
}

/// Raised again, where there is more of it than somebody acknowledged, or than is shown to whoever will.
fn more(key: &AlarmKey, held: &AlarmRecord, sign: &Sign, now_ms: u64) -> Option<Step> {
    let is_acknowledged = held.state == AlarmState::Acknowledged;
    if !is_acknowledged && held.state != AlarmState::Unacknowledged || sign.subjects.is_subset(&held.subjects)
    {
        return None;
    }
    // Of others than seals, no more than are kept: whoever tries under new names all the time is no news.
    let is_full = held.subjects.len() >= SUBJECTS_MAX;
    let kept = united(&held.subjects, &sign.subjects);
    let mut new = kept.difference(&held.subjects);
    if !new.any(|subject| !is_full || of_seals(subject).is_some()) {
        return None;
    }
    let (since_ms, raised_ms) = match is_acknowledged {
        true => (now_ms, now_ms),
        false => (held.since_ms, held.raised_ms),
    };
    let after = AlarmRecord {
        state: AlarmState::Unacknowledged,
        since_ms,
        raised_ms,
        by: Author::default(),
        reason: String::new(),
        ..refreshed(held, Some(sign))
    };
    Some(step(key, "raised-again", Some(after), held))
}

fn fresh(sign: &Sign, now_ms: u64) -> AlarmRecord {
    AlarmRecord {
        state: AlarmState::Unacknowledged,
        priority: sign.priority,
        is_safety: sign.is_safety,
        since_ms: now_ms,
        raised_ms: now_ms,
        until_ms: 0,
        message: sign.message.clone(),
        subjects: united(&BTreeSet::new(), &sign.subjects),
        gateways: sign.gateways.iter().take(SUBJECTS_MAX).cloned().collect(),
        by: Author::default(),
        reason: String::new(),
    }
}

/// What is recorded, with what is seen now.
fn refreshed(held: &AlarmRecord, sign: Option<&Sign>) -> AlarmRecord {
    let Some(sign) = sign else {
        return held.clone();
    };
    AlarmRecord {
        priority: sign.priority,
        is_safety: sign.is_safety,
        message: sign.message.clone(),
        subjects: united(&held.subjects, &sign.subjects),
        gateways: sign.gateways.iter().take(SUBJECTS_MAX).cloned().collect(),
        ..held.clone()
    }
}

/// What is seen when nothing hides an alarm any more: it asks for attention again, unless its condition is known to be over.
fn uncovered(held: &AlarmRecord, condition: Option<&Condition>, now_ms: u64) -> Option<AlarmRecord> {
    let sign = match condition {
        Some(Condition::Clear) | None => return None,
        Some(Condition::Stands(sign)) => Some(sign),
        Some(Condition::Unknown) => None,
    };
    Some(AlarmRecord {
        state: AlarmState::Unacknowledged,
        since_ms: now_ms,
        raised_ms: now_ms,
        until_ms: 0,
        by: Author::default(),
        reason: String::new(),
        ..refreshed(held, sign)
    })
}

#[cfg(test)]
mod tests;
