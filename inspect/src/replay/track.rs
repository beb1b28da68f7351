//! One connection at one gateway of a replay: what it carried, and what the gateway would have made of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::protocol::Protocol;
use penstock_policy::terms::{NumberRange, OnRefusal};

use super::{
    Answer, DEVIATIONS_MAX, DeviationSeen, Gate, JudgedOperation, OPERATIONS_MAX, Occurrences, Track,
    Treatment,
};
use crate::capture::Happening;
use crate::connection::{Effect, Sender};
use crate::follow::{Follower, StreamFinding};
use crate::judge::Rules;
use crate::operation::VALUES;
use crate::ranges::{few, merge};

#[derive(Debug)]
pub(super) struct RunningTrack {
    track: Track,
    follower: Option<Follower>,
    operations: BTreeMap<(String, Answer), (Occurrences, Vec<NumberRange>)>,
    further: u64,
    further_refused: u64,
    unjudged_bytes: u64,
    ended: bool,
    /// The grant of remote access that opened it is over: what the gateway says since.
    over: Option<String>,
    /// It passes, or goes on, only because its zones observe.
    observed: bool,
    deviations: BTreeMap<(Effect, String, Option<&'static str>), Occurrences>,
    notes: BTreeMap<String, Occurrences>,
}

impl RunningTrack {
    /// Nothing was seen yet. Where the gate reads nothing, `protocol` still tells what to read for people.
    pub(super) fn new(track: Track, protocol: Option<Protocol>, midway: bool) -> Self {
        let (rules, on_refusal) = match &track.gate {
            Gate::Inspected {
                rules, on_refusal, ..
            } => (Some(Arc::clone(rules)), *on_refusal),
            _ => {
                let nothing = protocol.and_then(Rules::nothing);
                (nothing.map(Arc::new), OnRefusal::Answer)
            }
        };
        Self {
            observed: matches!(track.gate, Gate::Shut { observing: true, .. }),
            track,
            follower: rules.map(|rules| Follower::new(rules, midway).refusing(on_refusal)),
            operations: BTreeMap::new(),
            further: 0,
            further_refused: 0,
            unjudged_bytes: 0,
            ended: false,
            over: None,
            deviations: BTreeMap::new(),
            notes: BTreeMap::new(),
        }
    }

    /// What became of it.
    pub(super) fn treatment(self) -> Treatment {
        Treatment {
            connection: self.track.gate.answer(),
            observed: self.observed,
            stranger: matches!(self.track.gate, Gate::Stranger { .. }),
            over: self.over,
            gateway: self.track.gateway,
            operations: self
                .operations
                .into_iter()
                .map(|((operation, answer), (seen, values))| JudgedOperation {
                    operation,
                    answer,
                    seen,
                    values,
                })
                .collect(),
            further_operations: self.further,
            further_refused: self.further_refused,
            unjudged_bytes: self.unjudged_bytes,
            ended: self.ended,
            deviations: self
                .deviations
                .into_iter()
                .map(|((effect, what, remedy), seen)| DeviationSeen {
                    what,
                    effect,
                    remedy,
                    seen,
                })
                .collect(),
            notes: self.notes,
        }
    }

    /// A grant of remote access has begun or ended, and this is what the gateway says now. One that is over takes its
    /// connections along, where the zones enforce; one that begins opens none that had been refused.
    pub(super) fn turned(&mut self, now: &Gate) {
        if self.over.is_none()
            && self.track.gate.permits()
            && let Gate::Shut { observing, .. } = now
        {
            self.over = Some(now.answer().because);
            self.observed |= observing;
            self.follower = None;
        }
    }

    /// Takes what happens on the connection.
    pub(super) fn happened(&mut self, at: Duration, happening: &Happening<'_>) {
        if matches!(self.track.gate, Gate::Sealed { .. }) && self.over.is_none() {
            self.unjudged_bytes += match happening {
                Happening::Data(_, bytes) => bytes.len() as u64,
                Happening::Gap(_, bytes) => *bytes,
                _ => 0,
            };
            return;
        }
        let Self {
            track,
            follower,
            operations,
            further,
            further_refused,
            unjudged_bytes,
            ended,
            deviations,
            notes,
            over: _,
            observed: _,
        } = self;
        let Some(follower) = follower else { return };
        let rules = match &track.gate {
            Gate::Inspected { rules, .. } => Some(Arc::clone(rules)),
            _ => None,
        };
        let mut note = |words: String| {
            notes
                .entry(words)
                .and_modify(|seen| seen.again(at))
                .or_insert_with(|| Occurrences::once(at));
        };
        let mut found = |finding: StreamFinding<'_>| match finding {
            StreamFinding::Judged { operation, verdict } => {
                let answer = track.gate.answer_to(rules.as_deref(), operation, verdict);
                let allowed = answer.allowed;
                let key = (operation.to_string(), answer);
                let written = operation.numbers(VALUES);
                if let Some((seen, values)) = operations.get_mut(&key) {
                    seen.again(at);
                    merge(values, written.as_slice());
                    few(values);
                } else if operations.len() < OPERATIONS_MAX {
                    let values = written.into_iter().collect();
                    operations.insert(key, (Occurrences::once(at), values));
                } else {
                    *further += 1;
                    *further_refused += u64::from(!allowed);
                }
            }
            StreamFinding::Answered { .. } => {}
            StreamFinding::Exception { asked, refusal } => {
                note(format!("the device answered {asked} with {refusal}"));
            }
            // Only who reads a connection can end it for what it carries.
            StreamFinding::Deviation { what, .. } if rules.is_none() => note(what.to_string()),
            StreamFinding::Deviation { what, effect } => {
                *ended |= effect == Effect::Ended;
                let kind = (effect, what.to_string(), what.remedy());
                let known = deviations.len() < DEVIATIONS_MAX || deviations.contains_key(&kind);
                let kind = match known {
                    true => kind,
                    false => (effect, "others of their kind".to_owned(), None),
                };
                deviations
                    .entry(kind)
                    .and_modify(|seen| seen.again(at))
                    .or_insert_with(|| Occurrences::once(at));
            }
            StreamFinding::Resynchronised { from, skipped_bytes } => {
                *unjudged_bytes += skipped_bytes;
                if skipped_bytes > 0 {
                    note(format!(
                        "{} skipped to find the beginning of a packet",
                        of(from, skipped_bytes)
                    ));
                }
            }
            StreamFinding::NeverFollowed { from, skipped_bytes } => {
                *unjudged_bytes += skipped_bytes;
                note(format!(
                    "{} could not be read as the protocol",
                    of(from, skipped_bytes)
                ));
            }
        };
        match happening {
            Happening::Data(from, bytes) => follower.data(*from, at, bytes, &mut found),
            Happening::Gap(from, bytes) => {
                follower.gap(*from);
                *unjudged_bytes += bytes;
            }
            Happening::Ends { seen } => follower.finish(*seen, &mut found),
            Happening::Begins { .. } | Happening::Conflict(..) | Happening::Unopened(_) => {}
        }
        // Elsewhere the verdict is about the connection alone.
        if rules.is_none() {
            *unjudged_bytes = 0;
        }
    }

    /// It is over: what read it is let go, so that a long recording costs no more than what is said of it.
    pub(super) fn ended(&mut self) {
        self.follower = None;
    }

    /// The recording holds nothing that the client sent: its answers say nothing about whether they were asked for.
    pub(super) fn only_answers(&mut self, bytes: u64) {
        if !matches!(self.track.gate, Gate::Inspected { .. }) {
            return;
        }
        self.deviations
            .retain(|(effect, ..), _| *effect != Effect::Withheld);
        self.unjudged_bytes = self.unjudged_bytes.max(bytes);
        let seen = Occurrences::once(Duration::ZERO);
        self.notes.insert(
            "nothing of what its client sent is in the recording".to_owned(),
            seen,
        );
    }
}

fn of(from: Sender, bytes: u64) -> String {
    match from {
        Sender::Client => format!("{bytes} bytes of the client"),
        Sender::Server => format!("{bytes} bytes of the server"),
    }
}
