//! What a standing client has, and what becomes of it when the rules change.
//!
//! Judged again, at once: who is connected, its will, its subscriptions, and what is passing in either direction. If one of
//! them is no longer permitted, the connection ends; the broker gets a DISCONNECT first, so that it does not publish
//! the will of a client that the policy cut off. A will that is still permitted is left to it.
//!
//! A DISCONNECT needs the end of a packet. So a client that left a will is forwarded publications only when they are whole,
//! up to [`crate::connection::ConnectionLimits::control_bytes_max`]. Within a larger one that is still permitted the cut waits for its end: until then
//! nothing is lost, since the broker keeps the will while the client is connected. If the client is gone before, or if the
//! publication itself is no longer permitted, nothing can take the will back, and the trail says that: to fill the publication up, so that a
//! DISCONNECT could follow, would publish what is not permitted; to send anything else, to stop, or to have the broker
//! drop the client for another connection of its name publishes the will.
//!
//! A publication at QoS 2 is with the broker before it is released. [`UnreleasedPublications`] keeps its topic, and what is no longer
//! permitted then is not released.

use std::collections::BTreeMap;

use super::{Fate, Mqtt, operations};
use crate::connection::machine::FeedEnd;
use crate::connection::{Effect, Mode, Output, Sender, Sink, pass};
use crate::judge::{Refusal, Verdict};
use crate::mqtt::deviation::{MqttDeviation, Revocation};
use crate::mqtt::judge::{Admission, MqttRules};
use crate::mqtt::objection;
use crate::mqtt::operation::Operation;
use crate::mqtt::packet::Header;
use crate::mqtt::refusal;

/// Filters of a client that are judged again; deliveries are judged each in any case.
pub(super) const SUBSCRIPTIONS_MAX: usize = 1024;
/// Their bytes, and those of the topics of what is not released.
pub(super) const TOPIC_BYTES_MAX: usize = 64 * 1024;

/// A client's subscriptions that went on.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    filters: BTreeMap<Box<str>, u8>,
    bytes: usize,
}

impl Subscriptions {
    pub(super) fn add(&mut self, filter: &str, qos: u8) {
        self.remove(filter);
        if self.filters.len() < SUBSCRIPTIONS_MAX && self.bytes + filter.len() <= TOPIC_BYTES_MAX {
            self.bytes += filter.len();
            self.filters.insert(filter.into(), qos);
        }
    }

    /// What they take of memory, bytes.
    pub(super) fn memory(&self) -> usize {
        // A map's nodes are half full at least.
        self.bytes + 2 * self.filters.len() * size_of::<(Box<str>, u8)>()
    }

    pub(super) fn remove(&mut self, filter: &str) {
        if self.filters.remove(filter).is_some() {
            self.bytes -= filter.len();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u8)> {
        self.filters.iter().map(|(filter, qos)| (&**filter, *qos))
    }
}

/// A client's publications at QoS 2 that the broker has and that are not released.
#[derive(Debug, Default)]
pub(super) struct UnreleasedPublications {
    /// Identifier, topic, whether retained.
    entries: Vec<(u16, Box<str>, bool)>,
    bytes: usize,
}

impl UnreleasedPublications {
    /// Keeps one; `false`: there are too many.
    pub(super) fn add(&mut self, identifier: u16, topic: &str, retain: bool, limit: usize) -> bool {
        let same =
            |(of, known, kept): &(u16, Box<str>, bool)| (*of, &**known, *kept) == (identifier, topic, retain);
        if self.entries.iter().any(same) {
            return true;
        }
        if self.entries.len() >= limit || self.bytes + topic.len() > TOPIC_BYTES_MAX {
            return false;
        }
        self.bytes += topic.len();
        self.entries.push((identifier, topic.into(), retain));
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What they take of memory, bytes.
    pub(super) fn memory(&self) -> usize {
        self.bytes + self.entries.capacity() * size_of::<(u16, Box<str>, bool)>()
    }

    fn knows(&self, identifier: u16) -> bool {
        self.entries.iter().any(|(of, _, _)| *of == identifier)
    }

    pub(super) fn remove(&mut self, identifier: u16) {
        self.entries.retain(|(of, _, _)| *of != identifier);
        self.bytes = self.entries.iter().map(|(_, topic, _)| topic.len()).sum();
    }

    /// Those that the broker may take for the one of this identifier.
    fn of(&self, identifier: u16) -> impl Iterator<Item = Operation<'_>> {
        let of = move |(known, _, _): &&(u16, Box<str>, bool)| *known == identifier;
        self.entries
            .iter()
            .filter(of)
            .map(|(_, topic, retain)| Operation::Publish {
                topic: (&**topic).into(),
                qos: 2,
                retain: *retain,
            })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &str, bool)> {
        let entries = self.entries.iter();
        entries.map(|(identifier, topic, retain)| (*identifier, &**topic, *retain))
    }

    /// One of this identifier that is not permitted.
    pub(super) fn refused(
        &self,
        identifier: u16,
        rules: &MqttRules,
        client: &Admission,
    ) -> Option<(Operation<'static>, Verdict)> {
        self.of(identifier).find_map(|operation| {
            let verdict = rules.judge_for(client, &operation);
            (!verdict.allows()).then(|| (operation.into_owned(), verdict))
        })
    }
}

fn subscribed(filter: &str, qos: u8) -> Operation<'_> {
    let filter = filter.into();
    Operation::Subscribe { filter, qos }
}

pub(super) fn ended<'a>(what: MqttDeviation, done: bool) -> Output<'a> {
    Output::Deviation {
        what: what.into(),
        effect: Effect::Ended,
        done,
    }
}

impl Mqtt {
    /// The rules are others, or the terms: what does the client have that they do not permit?
    ///
    /// Of a client whose CONNECT was not seen, what is enforced takes nothing for granted; what observes does not hold
    /// it against the client.
    pub(super) fn judge_again(&mut self, rules: &MqttRules) {
        self.admission = match (self.identity.first(), self.terms.mode) {
            (Some(Operation::Connect { client_id, user }), _) => rules.admit(client_id, user.as_deref()),
            (_, Mode::Enforce) => rules.admit_unknown(),
            (_, Mode::Observe) => MqttRules::admit_all(),
        };
        let refuses = |operation: &Operation<'_>| !rules.judge_for(&self.admission, operation).allows();
        let mut identity = self.identity.iter();
        self.taken = if identity.next().is_some_and(&refuses) {
            Some(Revocation::Connection)
        } else if identity.any(&refuses) {
            Some(Revocation::Will)
        } else if self
            .subscriptions
            .iter()
            .any(|(filter, qos)| refuses(&subscribed(filter, qos)))
        {
            Some(Revocation::Subscription)
        } else if self.client.passing.as_deref().is_some_and(&refuses) {
            Some(Revocation::Publication)
        } else if self.server.passing.as_deref().is_some_and(&refuses) {
            Some(Revocation::Delivery)
        } else {
            None
        };
        let mut passing = [&self.client, &self.server]
            .into_iter()
            .filter_map(|half| half.passing.as_deref());
        self.is_passing_permitted = !passing.any(&refuses);
        self.will_permitted = self.identity.get(1).is_some_and(|will| !refuses(will));
        self.is_revocation_told &= self.taken.is_some();
    }

    /// Ends the connection if the policy took something away.
    pub(super) fn end_if_taken(&mut self, out: &mut Sink<'_>) -> Option<FeedEnd> {
        let taken = self.taken?;
        let done = self.terms.mode == Mode::Enforce;
        if done && self.waits_for_the_end(taken) {
            return None;
        }
        if done || !self.is_revocation_told {
            out(ended(MqttDeviation::Revoked(taken), done));
        }
        self.is_revocation_told = true;
        done.then(|| self.part(out))
    }

    /// Whether a publication is held until it is whole: only between two packets can the broker be told that its client's
    /// will is void.
    pub(super) fn goes_on_whole(&self, from: Sender, header: &Header) -> bool {
        let has_will = self.identity.len() > 1;
        has_will && from == Sender::Client && header.remaining <= self.terms.limits.control_bytes_max
    }

    /// Whether a DISCONNECT in its time can keep the will from being published, and the client may go on until then.
    fn waits_for_the_end(&self, taken: Revocation) -> bool {
        taken == Revocation::Will && self.client.is_passing_on() && self.is_passing_permitted
    }

    /// The end of what was passing is what a client waited for that is to be cut off.
    pub(super) fn parts_at_the_end(&mut self, out: &mut Sink<'_>) -> Option<FeedEnd> {
        match self.terms.mode {
            Mode::Enforce => self.end_if_taken(out),
            Mode::Observe => None,
        }
    }

    /// The client is gone: what it leaves that was to be taken back.
    pub(super) fn vanished(&mut self, out: &mut Sink<'_>) {
        if let Some(taken) = self.taken
            && self.terms.mode == Mode::Enforce
            && self.waits_for_the_end(taken)
        {
            out(ended(MqttDeviation::Revoked(taken), true));
            out(ended(MqttDeviation::WillRemains, true));
            self.taken = None;
        }
    }

    /// Takes leave of both sides, as far as packets to them are whole.
    pub(super) fn part(&mut self, out: &mut Sink<'_>) -> FeedEnd {
        let whole = !self.client.is_within_passing();
        let has_will = self.identity.len() > 1;
        if self.stage == super::Stage::Connect {
            // The broker knows nothing of the client.
        } else if whole {
            let packet = refusal::farewell(self.version, has_will && self.will_permitted);
            pass(Sender::Client, packet, out);
        } else if self.identity.is_empty() {
            out(ended(MqttDeviation::WillUnknown, true));
        } else if has_will && !self.will_permitted {
            out(ended(MqttDeviation::WillRemains, true));
        }
        let ending = self.disconnect(out);
        if whole {
            ending
        } else {
            FeedEnd::Close { reset: true }
        }
    }

    /// PUBREL of a client: what the broker would publish by it is judged by the rules of now. `None`: it goes on.
    ///
    /// Of a session that goes on from before, what it is may not be known: then it was judged when it was published, and goes on if
    /// the client may publish anything in this way at all.
    pub(super) fn release(&mut self, rules: &MqttRules, identifier: u16, out: &mut Sink<'_>) -> Option<Fate> {
        let unfinished = self.unfinished.lock();
        let refused = unfinished.refused(identifier, rules, &self.admission);
        let is_unknown = self.is_resumed && !unfinished.knows(identifier);
        drop(unfinished);
        let observe = self.terms.mode == Mode::Observe;
        if let Some((operation, verdict)) = refused {
            self.unconfirmed.passed(1);
            operations::judged(operation, verdict, observe, out);
        } else if is_unknown && !rules.may_release(&self.admission) {
            out(Output::Deviation {
                what: MqttDeviation::Release(identifier).into(),
                effect: Effect::Withheld,
                done: !observe,
            });
        } else {
            return None;
        }
        // It stays with the broker, which would take another of this identifier for the same.
        (!observe).then(|| self.answer_release(identifier, out))
    }

    /// The broker lets the client in: what is known of its session counts, if it goes on with it.
    pub(super) fn welcomed(&mut self, session_present: bool) {
        self.is_resumed = session_present;
        let (Some((sessions, broker, client)), Some(Operation::Connect { client_id, .. })) =
            (&self.sessions, self.identity.first())
        else {
            return;
        };
        // One has no name, or its part already.
        if client_id.is_empty() || self.membership.is_some() {
            return;
        }
        let (shared, membership) = sessions.join(*broker, *client, client_id);
        let mut known = shared.lock();
        if !session_present {
            known.clear();
        }
        for (identifier, topic, retain) in self.unfinished.lock().iter() {
            let _within = known.add(
                identifier,
                topic,
                retain,
                self.terms.limits.refused_publications_max,
            );
        }
        drop(known);
        (self.unfinished, self.membership) = (shared, Some(membership));
    }

    /// The verdict on a publication at QoS 2 whose identifier is that of one that stays with the broker.
    pub(super) fn hides(&self, rules: &MqttRules, identifier: u16) -> Option<Verdict> {
        self.unfinished
            .lock()
            .refused(identifier, rules, &self.admission)?;
        Some(Verdict::Refuse(Refusal {
            why: objection::UNFINISHED,
            nearest: None,
        }))
    }
}

impl super::Half {
    /// Whether a publication of this side is passing.
    pub(super) fn is_passing_on(&self) -> bool {
        self.payload.is_some_and(|payload| payload.forward)
    }

    /// Whether a packet of this side has begun to reach its receiver, or a publication of it falls.
    pub(super) fn is_begun(&self) -> bool {
        self.payload.is_some() || self.held.passed() > 0
    }

    /// Whether a packet of this side has gone on in part: nothing else may come before its end.
    pub(super) fn is_within_passing(&self) -> bool {
        self.is_passing_on() || self.held.passed() > 0
    }
}
