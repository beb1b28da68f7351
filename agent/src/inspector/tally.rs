//! Turns single judgements into few events: what one client did on one server is reported once per interval.
//!
//! - A permitted operation is counted by its name and rule, without a word being made of it: that is the hot path. It is
//!   reported a second after its first use (default), and then at doubling distance up to [`INTERVAL_ALLOWED_MAX`].
//! - A refusal names its operation. The same one is reported at doubling distance up to [`INTERVAL_TOLD_MAX`]; of a client
//!   that tries more different ones than [`SENTENCES_MAX`] in an interval, the rest is counted by name.
//! - What is no operation and does not pass (malformed packets, answers that nobody asked for, a standing connection that
//!   enforcing cuts) is denied and reported as such; where it is only observed, it would be denied.
//! - Notes (exceptions of a device, resets, the opening and the end of connections) are reported like refusals.
//!
//! One tally per client (address, and device where it showed a certificate) and server address and port, whatever the number
//! of connections. Pure: time is an argument. Both kinds of entries are bounded, in one tally and in all of a thread
//! ([`TallyRoom`]), and so are their texts: a topic may have 64 KiB.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::Operation;
use penstock_inspect::connection::Deviation;
use penstock_inspect::judge::{RuleIndex, Verdict};
use penstock_inspect::operation::VALUES;
use penstock_policy::ids::FlowId;
use penstock_policy::protocol::Protocol;
use penstock_policy::terms::NumberRange;
use penstock_policy::text;
use penstock_policy::verdict::Decision;

use super::lookup::RuleSet;
use crate::observed::{NamedFlow, REPORT_AFTER, Subject};

/// The longest interval of refusals and notes.
pub(super) const INTERVAL_TOLD_MAX: Duration = Duration::from_secs(10);
/// The longest interval of permitted operations.
pub(super) const INTERVAL_ALLOWED_MAX: Duration = Duration::from_secs(3600);
/// Different sentences of one tally that are kept apart at once.
pub(super) const SENTENCES_MAX: usize = 32;
/// Permitted operations by rule of one tally; what comes on top is counted with the last.
const ALLOWED_MAX: usize = 256;

/// Sentences of all tallies of a thread that are kept apart at once; beyond, they are counted by name.
pub(super) const SENTENCES_ALL_MAX: usize = 4096;
/// Permitted operations by rule of all tallies of a thread; what comes on top is counted with the last of its tally.
pub(super) const ALLOWED_ALL_MAX: usize = 32_768;
/// Of a sentence or a reason so much is kept, bytes.
pub(super) const TEXT_BYTES_MAX: usize = 1024;

/// What all tallies of a thread share: room, and how soon is reported.
#[derive(Debug)]
pub(super) struct TallyRoom {
    /// The first interval of anything.
    report_after: Duration,
    sentences: Cell<usize>,
    allowed: Cell<usize>,
}

impl TallyRoom {
    /// All of it is free. Anything is reported first `report_after` its first use.
    pub(super) fn new(report_after: Duration) -> Self {
        Self {
            report_after,
            sentences: Cell::default(),
            allowed: Cell::default(),
        }
    }
}

impl Default for TallyRoom {
    fn default() -> Self {
        Self::new(REPORT_AFTER)
    }
}

/// What is reported: one aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TallyReport {
    /// Of what.
    pub subject: Subject,
    /// What was decided, of an operation.
    pub decision: Option<Decision>,
    /// The operation, or the sentence.
    pub text: String,
    /// Of a refused operation: the least and the greatest value that it was to write.
    pub values: Option<NumberRange>,
    /// Why, in words.
    pub reason: String,
    /// The flow that decided, or came closest.
    pub flow: Option<NamedFlow>,
    /// What is spoken on the connection, where the policy says.
    pub protocol: Option<Protocol>,
    /// How often.
    pub count: u64,
    /// When first and last.
    pub first: Duration,
    /// When last.
    pub last: Duration,
}

/// When an entry was used and is reported next.
#[derive(Debug, Clone, Copy)]
struct Times {
    count: u64,
    first: Duration,
    last: Duration,
    interval: Duration,
    due: Duration,
}

impl Times {
    fn new(now: Duration, interval: Duration) -> Self {
        Self {
            count: 0,
            first: now,
            last: now,
            interval,
            due: now + interval,
        }
    }

    fn mark(&mut self, now: Duration) {
        if self.count == 0 {
            self.first = now;
        }
        self.count += 1;
        self.last = now;
    }

    /// Takes the count if it is to be reported; `None`: it is not due. A silent interval gives a count of 0.
    fn take(&mut self, now: Duration, all: bool, longest: Duration) -> Option<u64> {
        if self.due > now && !all {
            return None;
        }
        if self.count > 0 {
            self.interval = (self.interval * 2).min(longest);
        }
        self.due = now + self.interval;
        Some(std::mem::take(&mut self.count))
    }
}

#[derive(Debug)]
struct AllowedOperation {
    /// Its name and its rule.
    key: (&'static str, Option<usize>),
    times: Times,
}

#[derive(Debug)]
struct Sentence {
    subject: Subject,
    decision: Option<Decision>,
    text: String,
    values: Option<NumberRange>,
    reason: String,
    rule: Option<usize>,
    times: Times,
}

/// What is counted for one tuple, under one set of rules.
#[derive(Debug, Default)]
pub(super) struct Tally {
    room: Rc<TallyRoom>,
    rules: Option<Arc<RuleSet>>,
    allowed: Vec<AllowedOperation>,
    sentences: Vec<Sentence>,
}

impl Tally {
    /// Counts nothing yet, and takes its room from there.
    pub(super) fn new(room: Rc<TallyRoom>) -> Self {
        Self {
            room,
            rules: None,
            allowed: Vec::new(),
            sentences: Vec::new(),
        }
    }

    /// From here on the entries speak of these rules. Whatever was counted under others must have been taken before.
    pub(super) fn set_rules(&mut self, rules: Option<Arc<RuleSet>>) {
        self.rules = rules;
    }

    /// Whether the client's role counts.
    pub(super) fn is_by_role(&self) -> bool {
        self.rules.as_ref().is_some_and(|set| set.by_role)
    }

    /// The flow of a rule.
    pub(super) fn flow(&self, rule: RuleIndex) -> Option<FlowId> {
        let set = self.rules.as_ref()?;
        set.flow(Some(rule)).map(|flow| flow.id)
    }

    /// Counts one judged operation.
    pub(super) fn judged(
        &mut self,
        now: Duration,
        operation: &Operation<'_>,
        verdict: Verdict,
        forwarded: bool,
    ) {
        match verdict {
            Verdict::Allow(rule) => self.allowed(now, operation, Some(rule)),
            Verdict::Upkeep => self.allowed(now, operation, None),
            Verdict::Refuse(refusal) => {
                let decision = if forwarded {
                    Decision::WouldDeny
                } else {
                    Decision::Deny
                };
                let rules = self.rules.clone();
                let reason = || match rules.as_ref().and_then(|set| set.rules.as_ref()) {
                    Some(rules) => rules.explain(operation, verdict),
                    None => refusal.why.to_string(),
                };
                let sentence = (Subject::Operation, Some(decision));
                let text = operation.to_string();
                let values = operation.numbers(VALUES);
                let entry = self.say(now, sentence, text, operation.name, reason, refusal.nearest);
                if let (Some(entry), Some(values)) = (self.sentences.get_mut(entry), values) {
                    entry.values = Some(entry.values.map_or(values, |seen| seen.hull(values)));
                }
            }
        }
    }

    fn allowed(&mut self, now: Duration, operation: &Operation<'_>, rule: Option<usize>) {
        let key = (operation.name, rule);
        if let Some(entry) = self.allowed.iter_mut().find(|entry| entry.key == key) {
            entry.times.mark(now);
            return;
        }
        let all = self.room.allowed.get();
        if self.allowed.len() >= ALLOWED_MAX || all >= ALLOWED_ALL_MAX && !self.allowed.is_empty() {
            if let Some(last) = self.allowed.last_mut() {
                last.times.mark(now);
            }
            return;
        }
        let mut times = Times::new(now, self.room.report_after);
        times.mark(now);
        self.room.allowed.set(all + 1);
        self.allowed.push(AllowedOperation { key, times });
    }

    /// Counts a refusal of the server's own.
    pub(super) fn exception(&mut self, now: Duration, asked: &str, refusal: &str) {
        let text = format!("the server answered {asked} with {refusal}");
        self.note(now, Subject::Note, text);
    }

    /// Counts something that is no operation.
    pub(super) fn note(&mut self, now: Duration, subject: Subject, text: impl Into<String>) {
        let text = text.into();
        self.say(now, (subject, None), text, "further notes", String::new, None);
    }

    /// Counts what a side sent that is no operation and that enforcing does not let pass.
    pub(super) fn deviates(&mut self, now: Duration, what: &Deviation, done: bool) {
        let decision = if done { Decision::Deny } else { Decision::WouldDeny };
        self.say(
            now,
            (Subject::Note, Some(decision)),
            what.to_string(),
            "other things that are not operations",
            || what.consequence().to_owned(),
            None,
        );
    }

    /// Foretells that enforcing would end a connection that stands, or not let it stand as it is.
    pub(super) fn would_end(&mut self, now: Duration, what: &str, why: &str) {
        let would = (Subject::Session, Some(Decision::WouldDeny));
        let class = "connections that would be ended";
        self.say(now, would, what.to_owned(), class, || why.to_owned(), None);
    }

    /// Counts a connection that was not let in.
    pub(super) fn turned_away(&mut self, now: Duration, why: String) {
        let refused = (Subject::Session, Some(Decision::Deny));
        self.say(
            now,
            refused,
            why,
            "connections that were refused",
            String::new,
            None,
        );
    }

    /// Counts it in the entry of its words, and says which that is. The reason is made only for a new one.
    fn say(
        &mut self,
        now: Duration,
        (subject, decision): (Subject, Option<Decision>),
        mut text: String,
        class: &str,
        reason: impl FnOnce() -> String,
        rule: Option<usize>,
    ) -> usize {
        shorten(&mut text);
        let (held, all) = (self.sentences.len(), self.room.sentences.get());
        let mut mark = |text: &str| {
            let mut entries = self.sentences.iter_mut().enumerate();
            let (place, known) = entries.find(|(_, sentence)| {
                sentence.subject == subject && sentence.decision == decision && sentence.text == text
            })?;
            known.times.mark(now);
            Some(place)
        };
        if let Some(known) = mark(&text) {
            return known;
        }
        let full = held >= SENTENCES_MAX || all >= SENTENCES_ALL_MAX;
        let text = if full {
            format!("{class}, and others of its kind")
        } else {
            text
        };
        if full && let Some(known) = mark(&text) {
            return known;
        }
        // Classes are few: a protocol has so many operations.
        let mut reason = reason();
        shorten(&mut reason);
        let mut times = Times::new(now, self.room.report_after);
        times.mark(now);
        self.room.sentences.set(all + 1);
        self.sentences.push(Sentence {
            subject,
            decision,
            text,
            values: None,
            reason,
            rule,
            times,
        });
        held
    }

    /// Appends what is due at `now`, or everything; sentences that were silent for an interval are forgotten.
    pub(super) fn take(&mut self, now: Duration, all: bool, out: &mut Vec<TallyReport>) {
        let before = (self.sentences.len(), self.allowed.len());
        let rules = self.rules.clone();
        let protocol = rules.as_ref().and_then(|set| set.protocol());
        let flow = |rule: Option<usize>| rules.as_ref().and_then(|set| set.flow(rule)).cloned();
        self.allowed.retain_mut(|entry| {
            let Some(count) = entry.times.take(now, all, INTERVAL_ALLOWED_MAX) else {
                return true;
            };
            if count > 0 {
                let (name, rule) = entry.key;
                let compiled = rules.as_ref().and_then(|set| set.rules.as_ref());
                let listed = rule.zip(compiled).map(|(rule, compiled)| {
                    let words = compiled.rule(rule).unwrap_or("unknown");
                    format!("permitted by operation {} ({words})", rule + 1)
                });
                out.push(TallyReport {
                    subject: Subject::Operation,
                    decision: Some(Decision::Allow),
                    text: name.to_owned(),
                    values: None,
                    reason: listed.unwrap_or_else(|| "needs no rule".to_owned()),
                    flow: flow(rule),
                    protocol,
                    count,
                    first: entry.times.first,
                    last: entry.times.last,
                });
            }
            // A silent entry is kept: its interval says that its first use was reported.
            !all
        });
        self.sentences.retain_mut(|entry| {
            let Some(count) = entry.times.take(now, all, INTERVAL_TOLD_MAX) else {
                return true;
            };
            if count > 0 {
                out.push(TallyReport {
                    subject: entry.subject,
                    decision: entry.decision,
                    text: entry.text.clone(),
                    values: entry.values.take(),
                    reason: entry.reason.clone(),
                    flow: flow(entry.rule),
                    protocol,
                    count,
                    first: entry.times.first,
                    last: entry.times.last,
                });
            }
            count > 0 && !all
        });
        self.leave(before.0 - self.sentences.len(), before.1 - self.allowed.len());
    }

    /// Gives room back.
    fn leave(&self, sentences: usize, allowed: usize) {
        for (count, left) in [(&self.room.sentences, sentences), (&self.room.allowed, allowed)] {
            count.set(count.get().saturating_sub(left));
        }
    }

    /// Whether nothing is counted that was not reported.
    pub(super) fn is_silent(&self) -> bool {
        self.sentences.is_empty() && self.allowed.iter().all(|entry| entry.times.count == 0)
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.leave(self.sentences.len(), self.allowed.len());
    }
}

/// Cuts what is longer than is kept; the end says so.
fn shorten(text: &mut String) {
    if let Cow::Owned(cut) = text::shortened(text, TEXT_BYTES_MAX) {
        *text = cut;
    }
}

#[cfg(test)]
mod tests;
