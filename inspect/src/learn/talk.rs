//! What one address does to a port of another, and all such talks together, bounded by what is kept of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use penstock_policy::protocol::Protocol;

use super::entry::{EntryKey, EntrySeen, Lesson};
use super::macs::SeenMacs;
use crate::capture::SkipReason;
pub use crate::capture::direction::PortCarrier;
use crate::operation::Operation;
use crate::protocols;
use crate::replay::Occurrences;

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
    /// Under which names clients opened sessions.
    pub names: BTreeSet<String>,
    /// Distinct things that were not kept.
    pub further: u64,
    /// Bytes that could not be read as the protocol of the port: then no operation can be proposed.
    pub unread: bool,
    /// Answers under other identifiers than their requests': such a flow needs `answers: in-order`.
    pub in_order: bool,
    /// Answers that fit no request, which no flow can permit.
    pub misfits: bool,
    /// Of how many of its connections or packets it is a guess who opened them.
    pub guessed: u64,
    /// Distinct things in it, as counted by [`Learned::add`].
    things: usize,
}

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TalkLimits {
    /// Pairs of ends.
    pub talks_max: usize,
    /// Distinct things of one pair: operations, separate ranges, topics, names of clients.
    pub distinct_max: usize,
    /// Distinct things of all pairs together.
    pub things_max: usize,
    /// Bytes of one topic or name.
    pub text_bytes_max: usize,
    /// Bytes of all of them.
    pub texts_bytes_max: usize,
}

impl Default for TalkLimits {
    fn default() -> Self {
        Self {
            talks_max: 65_536,
            distinct_max: 10_000,
            things_max: 1_000_000,
            text_bytes_max: 65_535,
            texts_bytes_max: 64 << 20,
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
    /// Packets read.
    pub packets: u64,
    /// Packets left aside, and why: nothing is proposed for what they carry.
    pub skipped: BTreeMap<SkipReason, u64>,
    /// What found no place in [`Learned::talks`], or whose connection was not followed.
    pub left_out: u64,
    /// Sentences that a reader of the proposal should know.
    pub remarks: Vec<String>,
    /// Which MAC addresses were seen behind which addresses.
    pub macs: SeenMacs,
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
        unread.map(|(_, count)| count).sum::<u64>() + self.left_out
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

    /// Adds one operation.
    pub(super) fn operation(
        &mut self,
        ends: Ends,
        protocol: Option<Protocol>,
        at: Duration,
        operation: &Operation<'_>,
    ) {
        let mut one = Talk::new(at, protocol);
        one.operation(at, operation);
        self.add(ends, one);
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

/// What is left of the limits.
struct TalkRoom<'r> {
    limits: TalkLimits,
    things: &'r mut usize,
    texts_bytes: &'r mut usize,
}

impl TalkRoom<'_> {
    /// Takes room for `things` more of a talk that has `distinct`, and for a text; whether there was.
    fn take(&mut self, distinct: &mut usize, things: usize, text_bytes: usize) -> bool {
        let fits = *distinct + things <= self.limits.distinct_max
            && *self.things + things <= self.limits.things_max
            && text_bytes <= self.limits.text_bytes_max
            && *self.texts_bytes + text_bytes <= self.limits.texts_bytes_max;
        if fits {
            *distinct += things;
            *self.things += things;
            *self.texts_bytes += text_bytes;
        }
        fits
    }

    fn give(&mut self, distinct: &mut usize, things: usize) {
        *distinct = distinct.saturating_sub(things);
        *self.things = self.things.saturating_sub(things);
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
            names: BTreeSet::new(),
            further: 0,
            unread: false,
            in_order: false,
            misfits: false,
            guessed: 0,
            things: 0,
        }
    }

    /// Whether operations were read in it.
    pub fn has_operations(&self) -> bool {
        !self.operations.is_empty()
    }

    fn texts_bytes(&self) -> usize {
        let names = self.names.iter().map(String::len);
        let entries = self.operations.iter();
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
        self.unread |= more.unread;
        self.in_order |= more.in_order;
        self.misfits |= more.misfits;
        self.guessed = self.guessed.saturating_add(more.guessed);
        for (key, seen) in more.operations {
            self.add_entry(key, &seen, room);
        }
        for name in more.names {
            if self.names.contains(&name) {
                continue;
            }
            if room.take(&mut self.things, 1, name.len()) {
                self.names.insert(name);
            } else {
                self.further += 1;
            }
        }
    }

    fn add_entry(&mut self, key: EntryKey, seen: &EntrySeen, room: &mut TalkRoom<'_>) {
        let known = self.operations.get_mut(&key);
        let (before, texts_before) = match &known {
            Some(known) => (known.things(), key.texts_bytes() + known.texts_bytes()),
            None => (0, 0),
        };
        let together = match known {
            Some(known) if known.holds(seen) => {
                known.seen = known.seen.and(seen.seen);
                return;
            }
            Some(known) => known.and(seen),
            None => seen.in_order(),
        };
        let after = together.things();
        let text_bytes = (key.texts_bytes() + together.texts_bytes()).saturating_sub(texts_before);
        if !room.take(&mut self.things, after.saturating_sub(before), text_bytes) {
            self.further += 1;
            return;
        }
        // Ranges that were separate have met.
        room.give(&mut self.things, before.saturating_sub(after));
        self.operations.insert(key.compact(), together.compact());
    }

    fn operation(&mut self, at: Duration, operation: &Operation<'_>) {
        let Some(inspector) = protocols::of(operation.protocol) else {
            return;
        };
        match inspector.learn(operation) {
            Lesson::Entry(key, sets) => {
                let seen = Occurrences::once(at);
                self.operations.insert(key, EntrySeen { seen, sets });
            }
            Lesson::Name(name) => {
                self.names.insert(name);
            }
            Lesson::Nothing => {}
        }
    }
}
