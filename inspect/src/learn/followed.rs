//! One connection while it is learned from: whether it carries anything, which protocol it is, and what became of each operation.
//!
//! What is kept of it is in [`super::talk`].

use std::sync::Arc;
use std::time::Duration;

use penstock_policy::protocol::Protocol;

use super::answers::{Answers, Settled};
use super::{Ends, Learned};
use crate::capture::Happening;
use crate::capture::direction::Opening;
use crate::connection::{ConnectionLimits, Deviation, DeviationKind, Sender};
use crate::follow::{Follower, StreamFinding};
use crate::judge::{Objection, Refusal, Rules, Verdict};
use crate::protocols;

/// A connection, what reads it, and what it was seen to do.
#[derive(Debug)]
pub(super) struct FollowedConnection {
    ends: Ends,
    opening: Opening,
    /// Something was said on it.
    carries: bool,
    /// What reads it; `None`: it is of no protocol that can be read, or its content has yet to tell.
    reader: Option<Reader>,
    /// Its first bytes may tell which protocol it is.
    is_new: bool,
    limits: ConnectionLimits,
    waiting_max: usize,
}

#[derive(Debug)]
struct Reader {
    protocol: Protocol,
    /// The connection itself passes today.
    passes: bool,
    /// Its operations are limited today, or it has none to limit.
    inspected: bool,
    follower: Follower,
    answers: Answers,
}

impl FollowedConnection {
    /// Nothing was said on it yet; `limits`: what of it waits to become a whole packet, and how many operations wait for their answer.
    pub(super) fn new(ends: Ends, opening: Opening, limits: (ConnectionLimits, usize)) -> Self {
        let (limits, waiting_max) = limits;
        Self {
            ends,
            opening,
            carries: false,
            reader: None,
            is_new: opening == Opening::Recorded,
            limits,
            waiting_max,
        }
    }

    /// The same, of the protocol of these rules, if its port or the plant says which it is. Then its content is not asked.
    pub(super) fn read_by(mut self, rules: Option<Arc<Rules>>, passes: bool, inspected: bool) -> Self {
        self.reader = rules.map(|rules| Reader {
            protocol: rules.protocol(),
            passes,
            inspected,
            follower: Follower::within(self.limits, rules, self.opening != Opening::Recorded),
            answers: Answers::within(self.waiting_max),
        });
        self.is_new &= self.reader.is_none();
        self
    }

    /// Bytes held of packets that are not whole yet.
    pub(super) fn held_bytes(&self) -> usize {
        self.reader
            .as_ref()
            .map_or(0, |reader| reader.follower.held_bytes())
    }

    /// Takes what happens on it.
    pub(super) fn happened(&mut self, learned: &mut Learned, at: Duration, happening: Happening<'_>) {
        match &happening {
            Happening::Data(..) | Happening::Gap(..) => self.carries(learned, at),
            Happening::Unopened(how) => learned.attempt(self.ends, at, *how),
            Happening::Begins { .. } | Happening::Conflict(..) | Happening::Ends { .. } => {}
        }
        if let Happening::Data(from, bytes) = &happening
            && std::mem::take(&mut self.is_new)
            && *from == Sender::Client
        {
            self.reader = self.by_content(learned, at, bytes);
        }
        if let Some(reader) = &mut self.reader {
            reader.happened(learned, self.ends, at, happening);
        }
    }

    /// What reads it, if its first bytes are beyond doubt those of a protocol.
    fn by_content(&self, learned: &mut Learned, at: Duration, bytes: &[u8]) -> Option<Reader> {
        let protocol = protocols::by_content(bytes)?;
        let rules = Arc::new(Rules::nothing(protocol)?);
        learned.talk(self.ends, at, Some(protocol))?.by_content = true;
        Some(Reader {
            protocol,
            passes: false,
            inspected: true,
            follower: Follower::within(self.limits, rules, false),
            answers: Answers::within(self.waiting_max),
        })
    }

    /// It carries something: only then it counts.
    fn carries(&mut self, learned: &mut Learned, at: Duration) {
        let begins = !std::mem::replace(&mut self.carries, true);
        let protocol = self.reader.as_ref().map(|reader| reader.protocol);
        let talk = match begins {
            true => learned.talk(self.ends, at, protocol),
            false => learned.talks.get_mut(&self.ends),
        };
        let Some(talk) = talk else { return };
        talk.days.add(at);
        if begins {
            if talk.connections.count == 0 {
                talk.connections.first = at;
            }
            talk.connections.again(at);
            talk.guessed += u64::from(self.opening == Opening::Guessed);
            talk.opened += u64::from(self.opening == Opening::Recorded);
        }
    }
}

impl Reader {
    fn happened(&mut self, learned: &mut Learned, ends: Ends, at: Duration, happening: Happening<'_>) {
        let Self {
            protocol,
            passes,
            inspected,
            follower,
            answers,
        } = self;
        let keep = |learned: &mut Learned, settled: Settled| {
            learned.lesson(
                ends,
                Some(*protocol),
                settled.at,
                (settled.lesson, settled.standing),
            );
        };
        if matches!(happening, Happening::Data(Sender::Server, _)) {
            answers.heard();
        }
        let mut found = |finding: StreamFinding<'_>| match finding {
            StreamFinding::Judged { operation, verdict } => {
                let why = match verdict {
                    Verdict::Refuse(Refusal { why, .. }) => Some(why),
                    _ => None,
                };
                let permitted = *passes && (!*inspected || verdict.would_allow_alone());
                learned.permitted_already += u64::from(permitted);
                let is_malformed = !permitted && matches!(why, Some(Objection::Malformed(_)));
                if is_malformed {
                    learned.malformed(ends, *protocol, at, operation);
                }
                let is_asked = !permitted && !is_malformed && !matches!(why, Some(Objection::Busy(_)));
                answers.asked(at, is_asked.then_some(operation), &mut |settled| {
                    keep(learned, settled)
                });
            }
            StreamFinding::Answered { behind, refused } => {
                answers.answered(behind, refused, &mut |settled| keep(learned, settled));
            }
            StreamFinding::NeverFollowed { .. } => {
                answers.server_gap(&mut |settled| keep(learned, settled));
                if let Some(talk) = learned.talk(ends, at, Some(*protocol)) {
                    talk.unread = true;
                }
            }
            StreamFinding::Deviation { what, .. } => {
                // What cannot be read, or is not whole, may be the answer to what waits.
                if what.kind() == DeviationKind::Unreadable || what == Deviation::CUT_SHORT {
                    answers.server_gap(&mut |settled| keep(learned, settled));
                }
                // What the plant permits already is not proposed again for the sake of its answers.
                if !*passes {
                    note(learned, ends, (at, *protocol), what.kind());
                }
            }
            _ => {}
        };
        match happening {
            Happening::Data(from, bytes) => follower.data(from, at, bytes, &mut found),
            Happening::Gap(from, _) => {
                follower.gap(from);
                if from == Sender::Server {
                    answers.server_gap(&mut |settled| keep(learned, settled));
                }
            }
            Happening::Ends { seen } => {
                follower.finish(seen, &mut found);
                answers.finish(&mut |settled| keep(learned, settled));
            }
            Happening::Begins { .. } | Happening::Conflict(..) | Happening::Unopened(_) => {}
        }
    }
}

/// Keeps in mind what a connection does that is no operation.
fn note(learned: &mut Learned, ends: Ends, (at, protocol): (Duration, Protocol), kind: DeviationKind) {
    let Some(talk) = learned.talk(ends, at, Some(protocol)) else {
        return;
    };
    match kind {
        DeviationKind::Unreadable => talk.unread = true,
        DeviationKind::OtherIdentifiers => talk.in_order = true,
        DeviationKind::Misfit => talk.misfits = true,
        DeviationKind::Other => {}
    }
}
