//! What one address does to a port of another, and all such talks together, bounded by what is kept of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use penstock_policy::protocol::Protocol;

use super::attempts::Attempts;
use super::claims::Claims;
use super::days::Days;
use super::entry::{EntryKey, EntrySeen, Lesson};
pub use super::entry::{Failure, Standing};
use super::frames::SeenFrames;
use super::macs::SeenMacs;
pub use super::room::TalkLimits;
use super::room::{TalkRoom, add_entry};
use super::sets::LimitSets;
pub use crate::capture::direction::PortCarrier;
use crate::capture::flows::Unopened;
use crate::capture::{Envelope, SkipReason};
use crate::operation::Operation;
use crate::protocols;
use crate::replay::Occurrences;

/// Tags and labels that are counted apart.
const ENVELOPES_MAX: usize = 4_096;

/// Machines in no zone whose addresses are kept.
const STRANGERS_MAX: usize = 16;

/// Who talks to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ends {
    /// Who opened connections.
    pub client: IpAddr,
    /// To whom.
    pub server: SocketAddr,
    /// What carries them.
    pub carrier: PortCarrier,
}

/// What one address does to a port of another.
#[derive(Debug, Clone)]
pub struct Talk {
    /// Connections, of UDP conversations; none of those that stood before and go on, and none that only verdicts tell of.
    pub connections: Occurrences,
    /// Packets, where they were counted: by a gateway's verdicts, and of UDP in recordings.
    pub packets: Option<Occurrences>,
    /// The protocol that could be read in them.
    pub protocol: Option<Protocol>,
    /// Its operations, by what one line of a proposal can say.
    pub operations: BTreeMap<EntryKey, EntrySeen>,
    /// Operations that were asked in vain: none of them is proposed.
    pub failed: BTreeMap<(Failure, EntryKey), EntrySeen>,
    /// Operations that were not seen, and must have been asked before: from what came of them.
    pub inferred: BTreeMap<EntryKey, EntrySeen>,
    /// Under which names clients opened sessions.
    pub names: BTreeSet<String>,
    /// As which users; empty: one named none.
    pub users: BTreeSet<String>,
    /// Distinct things that were not kept.
    pub further: u64,
    /// Its content alone says which protocol it is.
    pub by_content: bool,
    /// Bytes that could not be read as the protocol of the port: then no operation can be proposed.
    pub unread: bool,
    /// Answers under other identifiers than their requests': such a flow needs `answers: in-order`.
    pub in_order: bool,
    /// Answers that fit no request, which no flow can permit.
    pub misfits: bool,
    /// Of how many of its connections or packets it is a guess who opened them.
    pub guessed: u64,
    /// Of how many connections the opening was seen.
    pub opened: u64,
    /// Operations that count as carried out, though their answers are not in the recording.
    pub unconfirmed: u64,
    /// Of how many UDP conversations both ends were heard; `None`: nobody counted.
    pub answered: Option<u64>,
    /// On which days it was seen.
    pub days: Days,
    /// Distinct things in it, as counted by [`Learned::add`].
    things: usize,
}

/// Machines that are in no zone.
#[derive(Debug, Default)]
pub struct Strangers {
    /// Connections and conversations with them.
    pub count: u64,
    /// Some of their addresses.
    pub machines: BTreeSet<IpAddr>,
}

impl Strangers {
    /// One connection more.
    pub(super) fn add(&mut self, machine: IpAddr) {
        self.count += 1;
        if self.machines.len() < STRANGERS_MAX {
            self.machines.insert(machine);
        }
    }
}

/// Talks, within limits.
#[derive(Debug, Default)]
pub struct Learned {
    /// By the two ends.
    pub talks: BTreeMap<Ends, Talk>,
    /// Connections, conversations and operations that the plant permits already.
    pub permitted_already: u64,
    /// Operations of which the plant may permit some, but that have too many separate ranges to ask it for each.
    pub unasked: u64,
    /// Connections and conversations that only grants of remote access permit: nothing is proposed for them.
    pub by_grant: u64,
    /// Connections and conversations with machines that the plant has in no zone, so that no gateway is known to stand between.
    pub strangers: Strangers,
    /// Packets read.
    pub packets: u64,
    /// Packets left aside, and why: nothing is proposed for what they carry.
    pub skipped: BTreeMap<SkipReason, u64>,
    /// Those of further kinds than are counted apart.
    pub further_kinds: u64,
    /// Connections on which nothing was said: nothing is proposed for them.
    pub attempts: BTreeMap<Ends, Attempts>,
    /// Packets that came with tags or labels, by these: what they carry is proposed as if it came without.
    pub enveloped: BTreeMap<Envelope, u64>,
    /// Those with further ones than are counted apart.
    pub further_enveloped: u64,
    /// Days on which anything was seen.
    pub days: Days,
    /// What found no place in [`Learned::talks`], or whose connection was not followed.
    pub left_out: u64,
    /// Sentences that a reader of the proposal should know.
    pub remarks: Vec<String>,
    /// Which MAC addresses were seen behind which addresses.
    pub macs: SeenMacs,
    /// What machines said of themselves, and name services of them.
    pub claims: Claims,
    /// Frames other than IP that a bridged gateway could let pass.
    pub frames: SeenFrames,
    limits: TalkLimits,
    things: usize,
    texts_bytes: usize,
}

impl Learned {
    /// Nothing yet.
    pub fn within(limits: TalkLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Packets that could not be read, or were not followed.
    pub fn unread_packets(&self) -> u64 {
        let unread = self.skipped.iter().filter(|(reason, _)| reason.is_unread());
        unread.map(|(_, count)| count).sum::<u64>() + self.left_out + self.further_kinds
    }

    /// The talk of these ends, begun if need be; `None` if there is no place for one more.
    pub fn talk(&mut self, ends: Ends, at: Duration, protocol: Option<Protocol>) -> Option<&mut Talk> {
        if !self.talks.contains_key(&ends) && self.talks.len() >= self.limits.talks_max {
            self.left_out += 1;
            return None;
        }
        let talk = self.talks.entry(ends).or_insert_with(|| Talk::new(at, protocol));
        talk.protocol = talk.protocol.or(protocol);
        Some(talk)
    }

    /// Adds what is learned from one operation.
    pub(super) fn lesson(
        &mut self,
        ends: Ends,
        protocol: Option<Protocol>,
        at: Duration,
        (lesson, standing): (Lesson, Standing),
    ) {
        let mut one = Talk::new(at, protocol);
        one.lesson(at, lesson, standing);
        self.add(ends, one);
    }

    /// Counts a request that does not have the form that its protocol gives it.
    pub(super) fn malformed(
        &mut self,
        ends: Ends,
        protocol: Protocol,
        at: Duration,
        operation: &Operation<'_>,
    ) {
        let Some(inspector) = protocols::of(protocol) else {
            return;
        };
        let lesson = inspector.learn(operation);
        self.lesson(
            ends,
            Some(protocol),
            at,
            (lesson, Standing::Failed(Failure::Malformed)),
        );
    }

    /// Takes what a packet claims, where what is not proposed is kept at all.
    pub(super) fn claimed(&mut self, take: impl FnOnce(&mut Claims)) {
        if self.limits.keeps_apart {
            take(&mut self.claims);
        }
    }

    /// Counts a packet that came with tags or labels.
    pub(super) fn came_in(&mut self, envelope: Envelope) {
        if envelope.is_plain() {
        } else if self.enveloped.len() < ENVELOPES_MAX || self.enveloped.contains_key(&envelope) {
            *self.enveloped.entry(envelope).or_default() += 1;
        } else {
            self.further_enveloped += 1;
        }
    }

    /// Counts a packet that is left aside; where there are too many kinds, by its kind without tags, or as one of a further
    /// kind.
    pub(super) fn left_aside(&mut self, reason: SkipReason) {
        let plain = reason.without_tags();
        let has_room =
            |kind: &SkipReason| self.skipped.len() < ENVELOPES_MAX || self.skipped.contains_key(kind);
        match [reason, plain].into_iter().find(has_room) {
            Some(kind) => *self.skipped.entry(kind).or_default() += 1,
            None => self.further_kinds += 1,
        }
    }

    /// Counts a connection on which nothing was said.
    pub(super) fn attempt(&mut self, ends: Ends, at: Duration, how: Unopened) {
        if !self.limits.keeps_apart {
            return;
        }
        if let Some(attempts) = self.attempts.get_mut(&ends) {
            attempts.again(at, how);
        } else if self.attempts.len() < self.limits.talks_max {
            self.attempts.insert(ends, Attempts::once(at, how));
        } else {
            self.left_out += 1;
        }
    }

    /// Adds what others gathered of these ends: counts add up, ranges join.
    pub fn add(&mut self, ends: Ends, more: Talk) {
        if self.talk(ends, more.connections.first, more.protocol).is_none() {
            return;
        }
        let Self {
            talks,
            limits,
            things,
            texts_bytes,
            ..
        } = self;
        let limits = *limits;
        if let Some(talk) = talks.get_mut(&ends) {
            talk.add(
                more,
                &mut TalkRoom {
                    limits,
                    things,
                    texts_bytes,
                },
            );
        }
    }

    /// Takes out the talks for which `wanted` says so.
    pub fn take(&mut self, mut wanted: impl FnMut(&Ends, &Talk) -> bool) -> Vec<(Ends, Talk)> {
        let taken: Vec<(Ends, Talk)> = self
            .talks
            .extract_if(.., |ends, talk| wanted(ends, talk))
            .collect();
        for (_, talk) in &taken {
            self.things = self.things.saturating_sub(talk.things);
            self.texts_bytes = self.texts_bytes.saturating_sub(talk.texts_bytes());
        }
        taken
    }

    /// Whether `talk` holds something that is not in here: an operation, a wider range, a topic, a client.
    pub fn lacks(&self, ends: &Ends, talk: &Talk) -> bool {
        self.talks.get(ends).is_none_or(|known| known.lacks(talk))
    }

    /// Whether one more distinct thing may find no place.
    pub fn is_full(&self) -> bool {
        self.talks.len() >= self.limits.talks_max
            || self.things >= self.limits.things_max
            || self.texts_bytes + self.limits.text_bytes_max > self.limits.texts_bytes_max
    }
}

impl Talk {
    /// Of these ends nothing is known yet but that they talk.
    pub fn new(at: Duration, protocol: Option<Protocol>) -> Self {
        Self {
            connections: Occurrences {
                count: 0,
                first: at,
                last: at,
            },
            packets: None,
            protocol,
            operations: BTreeMap::new(),
            failed: BTreeMap::new(),
            inferred: BTreeMap::new(),
            names: BTreeSet::new(),
            users: BTreeSet::new(),
            further: 0,
            by_content: false,
            unread: false,
            in_order: false,
            misfits: false,
            guessed: 0,
            opened: 0,
            unconfirmed: 0,
            answered: None,
            days: Days::default(),
            things: 0,
        }
    }

    /// Whether operations were read in it that a line can permit.
    pub fn has_operations(&self) -> bool {
        !self.operations.is_empty() || !self.inferred.is_empty()
    }

    /// Whether a client opened a session, or anything was read that a line can permit.
    pub fn is_read(&self) -> bool {
        self.has_operations() || !self.names.is_empty()
    }

    fn texts_bytes(&self) -> usize {
        let names = self.names.iter().chain(&self.users).map(String::len);
        let failed = self.failed.iter().map(|((_, key), seen)| (key, seen));
        let entries = self.operations.iter().chain(&self.inferred).chain(failed);
        let of_entries = entries.map(|(key, seen)| key.texts_bytes() + seen.texts_bytes());
        of_entries.chain(names).sum()
    }

    fn lacks(&self, talk: &Self) -> bool {
        let known = |key, seen| {
            let known = self.operations.get(key);
            known.is_some_and(|known| known.holds(seen))
        };
        !talk.operations.iter().all(|(key, seen)| known(key, seen))
            || !talk.names.is_subset(&self.names)
            || !talk.users.is_subset(&self.users)
            || (talk.unread && !self.unread)
            || (talk.in_order && !self.in_order)
            || (talk.misfits && !self.misfits)
    }

    fn add(&mut self, more: Self, room: &mut TalkRoom<'_>) {
        self.connections = match (self.connections.count, more.connections.count) {
            (0, 1..) => more.connections,
            (1.., 0) => self.connections,
            _ => self.connections.and(more.connections),
        };
        self.packets = match (self.packets, more.packets) {
            (Some(one), Some(other)) => Some(one.and(other)),
            (one, other) => one.or(other),
        };
        self.further = self.further.saturating_add(more.further);
        self.by_content |= more.by_content;
        self.unread |= more.unread;
        self.in_order |= more.in_order;
        self.misfits |= more.misfits;
        self.guessed = self.guessed.saturating_add(more.guessed);
        self.opened = self.opened.saturating_add(more.opened);
        self.unconfirmed = self.unconfirmed.saturating_add(more.unconfirmed);
        self.answered = match (self.answered, more.answered) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        self.days.join(&more.days);
        let Self {
            operations,
            failed,
            inferred,
            names,
            users,
            further,
            things,
            ..
        } = self;
        let mut count = |kept: bool| *further += u64::from(!kept);
        let is_kept = room.limits.keeps_apart;
        for (key, seen) in more.operations {
            count(add_entry(operations, key.compact(), &seen, (things, room)));
        }
        for (key, seen) in more.inferred.into_iter().filter(|_| is_kept) {
            count(add_entry(inferred, key.compact(), &seen, (things, room)));
        }
        for ((why, key), seen) in more.failed.into_iter().filter(|_| is_kept) {
            // What is not proposed needs no place: without one it is only not listed.
            add_entry(failed, (why, key.compact()), &seen, (things, room));
        }
        let more_users = if is_kept { more.users } else { BTreeSet::new() };
        for (known, more) in [(names, more.names), (users, more_users)] {
            for name in more {
                if known.contains(&name) {
                    continue;
                }
                let fits = room.take(things, 1, name.len());
                count(fits);
                if fits {
                    known.insert(name);
                }
            }
        }
    }

    fn lesson(&mut self, at: Duration, lesson: Lesson, standing: Standing) {
        let seen = |sets| EntrySeen {
            seen: Occurrences::once(at),
            sets,
        };
        self.unconfirmed += u64::from(standing == Standing::Unconfirmed);
        match (lesson, standing) {
            (Lesson::Entry(key, sets), Standing::Failed(why)) => {
                self.failed.insert((why, key), seen(sets));
            }
            (Lesson::Entry(key, sets), _) => {
                self.operations.insert(key, seen(sets));
            }
            (Lesson::Name { name, .. }, Standing::Failed(why)) => {
                let session = self
                    .protocol
                    .and_then(|protocol| protocol.vocabulary().session.as_ref());
                if let Some(session) = session {
                    let key = EntryKey {
                        operation: session.operation.to_owned(),
                        texts: vec![(session.names, name)],
                        ..EntryKey::default()
                    };
                    self.failed.insert((why, key), seen(LimitSets::default()));
                }
            }
            (Lesson::Inferred(..), Standing::Failed(_)) | (Lesson::Nothing, _) => {}
            (Lesson::Inferred(key, sets), _) => {
                self.inferred.insert(key, seen(sets));
            }
            (Lesson::Name { name, user }, _) => {
                self.names.insert(name);
                self.users.insert(user.unwrap_or_default());
            }
        }
    }
}
