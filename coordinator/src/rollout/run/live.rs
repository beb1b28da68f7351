//! One rollout under way: its machine, what the store has of it, and what is to come of its steps once they are stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_policy::ids::GatewayId;

use super::standing::{hard, order_of, standing, wrong};
use super::stored::{Because, Event, StoredRollout, Who, marks_in_words};
use crate::clock;
use crate::releases::CurrentRelease;
use crate::rollout::{Action, Fact, HaltReason, Mark, Note, Now, Record, Rollout, Stage, Standing};
use crate::sessions::GatewayFacts;

/// Longest text about one step in the trail, bytes.
const STEP_BYTES_MAX: usize = 1800;

/// How many new faults of a gateway one event names.
const FAULTS_NAMED: usize = 6;

/// A rollout in memory.
pub(super) struct Live {
    pub(super) machine: Rollout,
    pub(super) release: Arc<CurrentRelease>,
    /// As it is now.
    pub(super) log: StoredRollout,
    /// What the store has of the machine, and at which revision of the record; `None`: it is not stored yet.
    pub(super) stored: Option<(Record, u64)>,
    pub(super) inbox: Vec<Fact>,
    pub(super) pending: Pending,
    /// What happened since the last write, for the trail.
    pub(super) unsaid: String,
    /// There are events that the store does not have.
    pub(super) has_news: bool,
    /// What was wrong on gateways when they were last seen without the release: not its doing.
    faults: BTreeMap<u32, BTreeSet<String>>,
    /// What came since, as far as it was written down.
    named: BTreeMap<u32, BTreeSet<String>>,
    due_at: Option<Instant>,
}

/// What comes of steps, once they are stored.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The targets of all.
    pub(super) all: bool,
    /// Those whose order is another one.
    pub(super) targets: BTreeSet<u32>,
    /// Those that stand otherwise.
    pub(super) moved: BTreeSet<u32>,
    /// Trials that stay (`true`) or go.
    pub(super) words: BTreeMap<u32, bool>,
}

impl Live {
    pub(super) fn new(machine: Rollout, release: Arc<CurrentRelease>, log: StoredRollout) -> Self {
        Self {
            machine,
            release,
            log,
            stored: None,
            inbox: Vec::new(),
            pending: Pending::default(),
            unsaid: String::new(),
            has_news: false,
            faults: BTreeMap::new(),
            named: BTreeMap::new(),
            due_at: Some(Instant::now()),
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.log.number
    }

    /// A copy to try something on.
    pub(super) fn try_on(&self) -> Self {
        Self {
            machine: self.machine.clone(),
            release: self.release.clone(),
            log: self.log.clone(),
            stored: self.stored.clone(),
            inbox: self.inbox.clone(),
            pending: Pending {
                all: self.pending.all,
                targets: self.pending.targets.clone(),
                moved: self.pending.moved.clone(),
                words: self.pending.words.clone(),
            },
            unsaid: self.unsaid.clone(),
            has_news: self.has_news,
            faults: self.faults.clone(),
            named: self.named.clone(),
            due_at: self.due_at,
        }
    }

    /// Takes in how a gateway stands. `seen` is the session that it had when it was looked at last, `session` the one that it has.
    pub(super) fn hear(
        &mut self,
        id: &GatewayId,
        (seen, session): (Option<u64>, Option<u64>),
        facts: &GatewayFacts,
    ) {
        let (Some(gateway), Some(mark)) = (self.machine.fleet().find(id), self.release.mark(id)) else {
            return;
        };
        let standing = standing(facts, &mark);
        let report = Fact::Report {
            gateway,
            order: order_of(self.log.number, facts),
            standing,
        };
        match (seen, session) {
            (Some(seen), Some(session)) if seen == session => self.inbox.push(report),
            (seen, Some(_)) => {
                self.inbox.extend(seen.map(|_| Fact::Gone { gateway }));
                self.inbox.push(Fact::Hello {
                    gateway,
                    keeps_order: facts.knows_trials(),
                    standing,
                });
            }
            // How it stood at the end says whether it may be activating now.
            (Some(_), None) => self.inbox.extend([report, Fact::Gone { gateway }]),
            (None, None) => return,
        }
        self.pending.moved.insert(gateway);
        if seen != session && session.is_some() {
            self.pending.targets.insert(gateway);
        }
        self.weigh(gateway, standing, wrong(facts));
    }

    /// What is wrong on a gateway since it activated, and was not before, is a failure of the release.
    fn weigh(&mut self, gateway: u32, standing: Standing, codes: BTreeSet<String>) {
        let has_it = matches!(standing, Standing::Trial { .. } | Standing::Confirmed);
        let concerns = self.machine.looks_at(gateway) || self.machine.mark(gateway) == Some(Mark::Opened);
        let before = self.faults.get(&gateway).filter(|_| has_it && concerns);
        let Some(before) = before else {
            self.faults.insert(gateway, codes);
            self.named.remove(&gateway);
            return;
        };
        let new: BTreeSet<String> = codes.difference(before).cloned().collect();
        self.name(gateway, &new);
        if let Some(event) = hard(&new) {
            self.inbox.push(Fact::Hard { gateway, event });
        } else if !new.is_empty() {
            self.inbox.push(Fact::Soft { gateway });
        }
    }

    /// Writes down which faults these are: people who look at a halt have to know.
    fn name(&mut self, gateway: u32, codes: &BTreeSet<String>) {
        let fleet = self.machine.fleet().clone();
        let named = self.named.entry(gateway).or_default();
        if let Some(member) = fleet.member(gateway)
            && let Some(words) = unnamed_in_words(&member.id, codes, named)
        {
            self.say("", "fault", words, clock::now_ms());
        }
    }

    /// Whether there is something to step for.
    pub(super) fn is_due(&self) -> bool {
        !self.inbox.is_empty() || self.due_at.is_some_and(|due| due <= Instant::now())
    }

    /// When to step again; by a clock that nobody sets.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// Something changed that is no fact of its own: it steps as soon as it can.
    pub(super) fn hurry(&mut self) {
        self.due_at = Some(Instant::now());
    }

    /// Steps; answers with those that may be unconfirmed now and were not, or the other way round.
    pub(super) fn step(&mut self, now: Now) -> Vec<(GatewayId, bool)> {
        let facts = std::mem::take(&mut self.inbox);
        let actions = self.machine.step(now, facts);
        self.take(actions, "", now.wall_ms)
    }

    /// Takes over what came of a step, or of what somebody wanted. Its events stand in the order of cause and effect: what
    /// gateways reported, what comes of that for the rollout, what it decided about gateways.
    pub(super) fn take(&mut self, actions: Vec<Action>, by: &str, now_ms: u64) -> Vec<(GatewayId, bool)> {
        let record = self.machine.record();
        let changes: Vec<(u32, Mark)> = record.changes(&self.log.rollout).collect();
        let before: BTreeMap<u32, Mark> = self.log.rollout.changes(&record).collect();
        self.log.rollout = record;
        let (decided, reported): (Vec<_>, Vec<_>) =
            changes.iter().copied().partition(|(_, mark)| mark.is_decided());
        self.say_marks(&reported, by, now_ms);
        for action in actions {
            match action {
                Action::Retarget(gateway) => {
                    self.pending.targets.insert(gateway);
                }
                Action::RetargetAll => self.pending.all = true,
                Action::Confirm(gateway) => {
                    self.pending.words.insert(gateway, true);
                }
                Action::Revert(gateway) => {
                    self.pending.words.insert(gateway, false);
                }
                Action::Note(note) => self.note(&note, by, now_ms),
            }
        }
        self.say_marks(&decided, by, now_ms);
        let wait = self
            .machine
            .deadline()
            .map(|deadline| deadline.saturating_sub(now_ms));
        self.due_at = wait.map(|ms| Instant::now() + Duration::from_millis(ms.min(LOOK_MS)));
        self.pending
            .moved
            .extend(changes.iter().map(|(gateway, _)| *gateway));
        let is_over = is_end(self.machine.stage());
        if is_over && self.log.ended_ms.is_none() {
            self.log.ended_ms = Some(now_ms);
        }
        let crossed = changes.into_iter().filter(|(gateway, mark)| {
            let before = before
                .get(gateway)
                .is_some_and(|before| before.may_be_unconfirmed());
            before != mark.may_be_unconfirmed()
        });
        let fleet = self.machine.fleet();
        let named = crossed.filter_map(|(gateway, mark)| {
            Some((fleet.member(gateway)?.id.clone(), mark.may_be_unconfirmed()))
        });
        named.collect()
    }

    fn say_marks(&mut self, changes: &[(u32, Mark)], by: &str, now_ms: u64) {
        let fleet = self.machine.fleet().clone();
        let named = changes
            .iter()
            .filter_map(|(gateway, mark)| Some((fleet.member(*gateway)?.id.as_str(), *mark)));
        for (what, words) in marks_in_words(named) {
            self.say(by, what, words, now_ms);
        }
    }

    fn note(&mut self, note: &Note, by: &str, now_ms: u64) {
        let (what, words) = match note {
            Note::Reached(stage) => (stage.word(), self.reached(*stage)),
            Note::Halted(reason) => ("halted", format!("halted: {reason}")),
            Note::Unexpected(gateway) => {
                let member = self.machine.fleet().member(*gateway);
                let name = member.map(|member| member.id.to_string()).unwrap_or_default();
                (
                    "unexpected",
                    format!("{name} enforces the release without having been allowed to"),
                )
            }
        };
        // What a person did has an event of its own.
        let by = if matches!(note, Note::Halted(HaltReason::Person { .. })) {
            by
        } else {
            ""
        };
        self.say(by, what, words, now_ms);
    }

    fn reached(&self, stage: Stage) -> String {
        let wave = |wave: u16| {
            let name = self
                .machine
                .plan()
                .waves
                .get(usize::from(wave))
                .map(|wave| wave.name.as_str());
            format!("wave {} ({})", u32::from(wave) + 1, name.unwrap_or_default())
        };
        match stage {
            Stage::Opening { wave: number, .. } => format!("{} opens", wave(number)),
            Stage::Soaking { wave: number, .. } => format!("{} is over, and is looked at", wave(number)),
            Stage::Superseded { by } => format!("{by} takes over"),
            stage => format!("is {}", stage.word()),
        }
    }

    /// Writes down what happened.
    pub(super) fn say(&mut self, by: &str, what: &str, message: String, at_ms: u64) {
        if self.unsaid.len() + message.len() <= STEP_BYTES_MAX {
            let join = if self.unsaid.is_empty() { "" } else { "; " };
            self.unsaid.push_str(join);
            self.unsaid.push_str(&message);
        }
        self.has_news = true;
        self.log.note(Event {
            at_ms,
            by: by.to_owned(),
            what: what.to_owned(),
            message,
            because: None,
        });
    }

    /// Writes down what a person did, which has an event of its own in the trail.
    pub(super) fn say_because(&mut self, who: &Who, what: &str, message: String, at_ms: u64) {
        self.has_news = true;
        self.log.note(Event {
            at_ms,
            by: who.by.clone(),
            what: what.to_owned(),
            message,
            because: Some(Because::of(who)),
        });
    }

    /// As the trail names it.
    pub(super) fn target(&self) -> String {
        format!("rollout of {} {}", self.machine.revision(), self.log.statement)
    }

    /// Whether the store does not have what was decided.
    pub(super) fn is_unstored(&self) -> bool {
        match &self.stored {
            Some((stored, _)) => !self.log.rollout.is_but_for_time(stored) || self.has_news,
            None => true,
        }
    }

    /// Whether the store has an older number of the last order. It is there before the order is given: after a restart, orders have
    /// higher numbers than any that a gateway may repeat.
    pub(super) fn is_numbered_on(&self) -> bool {
        let stored = self.stored.as_ref();
        stored.is_some_and(|(stored, _)| stored.orders() != self.log.rollout.orders())
    }

    /// Whether it is over, and no gateway may have its release unconfirmed.
    pub(super) fn is_settled(&self) -> bool {
        let is_open = |mark: &Mark| mark.may_be_unconfirmed();
        is_end(self.machine.stage()) && !self.log.rollout.counts().keys().any(is_open)
    }

    /// Whether more of its time passed than may be lost.
    pub(super) fn has_aged(&self) -> bool {
        let stored = self.stored.as_ref();
        let is_under_way = !is_end(self.machine.stage());
        is_under_way && stored.is_some_and(|(stored, _)| self.log.rollout.own_ms_since(stored) >= AGE_MS)
    }

    /// Whether its release is the one that whoever has none gets, as far as it goes.
    pub(super) fn is_carried(&self) -> bool {
        matches!(
            self.machine.stage(),
            Stage::Completed | Stage::CompletedWithExceptions
        )
    }
}

/// Those of a gateway's faults that are not named yet, in words; from now on they are.
fn unnamed_in_words(
    id: &GatewayId,
    codes: &BTreeSet<String>,
    named: &mut BTreeSet<String>,
) -> Option<String> {
    let unnamed: Vec<String> = codes.difference(named).cloned().collect();
    let shown = unnamed.get(..FAULTS_NAMED).unwrap_or(&unnamed).join(", ");
    named.extend(unnamed);
    (!shown.is_empty()).then(|| format!("{id} reports since it has the release: {shown}"))
}

/// It is stepped at least so often while it waits for time to pass, milliseconds.
const LOOK_MS: u64 = 60_000;
/// How much of a rollout's own time a restart may lose, milliseconds.
const AGE_MS: u64 = 60_000;

/// Whether nothing comes after it by itself, but for gateways that come late.
pub(super) fn is_end(stage: Stage) -> bool {
    matches!(
        stage,
        Stage::Completed
            | Stage::CompletedWithExceptions
            | Stage::RolledBack
            | Stage::Cancelled
            | Stage::Superseded { .. }
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_fault_that_counts_against_a_release_is_named_once() {
        let id: GatewayId = "gw-a".parse().unwrap();
        let mut named = BTreeSet::new();
        let mut said = |codes: &[&str]| {
            let codes = codes.iter().map(ToString::to_string).collect();
            unnamed_in_words(&id, &codes, &mut named)
        };
        let first = said(&["kernel-failed", "spool-full"]).unwrap();
        assert_eq!(
            first,
            "gw-a reports since it has the release: kernel-failed, spool-full"
        );
        assert_eq!(said(&["kernel-failed"]), None);
        assert_eq!(said(&[]), None);
        let next = said(&["interface-missing", "kernel-failed"]).unwrap();
        assert!(next.ends_with(": interface-missing"), "{next}");
    }
}
