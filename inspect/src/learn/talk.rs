//! What one address does to a port of another, and all such talks together, bounded by what is kept of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use penstock_policy::protocol::Protocol;

use super::ranges::{few, merge};
use crate::capture::SkipReason;
pub use crate::capture::direction::PortCarrier;
use crate::modbus::{self, Span};
use crate::mqtt;
use crate::operation::Operation;
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
    /// Modbus operations.
    pub modbus: BTreeMap<ModbusKey, ModbusSeen>,
    /// MQTT publications by topic, wills included.
    pub published: BTreeMap<String, MessagesSeen>,
    /// MQTT subscriptions by filter.
    pub subscribed: BTreeMap<String, MessagesSeen>,
    /// MQTT client identifiers.
    pub client_ids: BTreeSet<String>,
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

/// Operations that one line of a document can say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModbusKey {
    /// Unit.
    pub unit: u8,
    /// Function by name.
    pub function: String,
    /// Where it writes, if its values are known: a rule limits both together, so they are kept together.
    pub written: Option<Span>,
}

/// What was seen of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModbusSeen {
    /// How often.
    pub seen: Occurrences,
    /// Addresses read, merged.
    pub read: Vec<Span>,
    /// Addresses (of file functions: files) written, or of a function that does one thing, touched.
    pub write: Vec<Span>,
    /// Sub-functions of diagnostics.
    pub sub_functions: BTreeSet<u16>,
    /// Values written, merged: at most 16 separate ranges, of more those that are closest become one.
    pub values: Vec<Span>,
}

/// Messages by topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagesSeen {
    /// How often.
    pub seen: Occurrences,
    /// Least and greatest quality of service.
    pub qos: (u8, u8),
    /// Some were retained.
    pub retain: bool,
}

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TalkLimits {
    /// Pairs of ends.
    pub talks_max: usize,
    /// Distinct things of one pair: operations, separate ranges, topics, client identifiers.
    pub distinct_max: usize,
    /// Distinct things of all pairs together.
    pub things_max: usize,
    /// Bytes of one topic or client identifier.
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
        operation: Operation<'_>,
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
    /// Takes room for `things` more of a talk that has `distinct`, and for `text`; whether there was.
    fn take(&mut self, distinct: &mut usize, things: usize, text: &str) -> bool {
        let fits = *distinct + things <= self.limits.distinct_max
            && *self.things + things <= self.limits.things_max
            && text.len() <= self.limits.text_bytes_max
            && *self.texts_bytes + text.len() <= self.limits.texts_bytes_max;
        if fits {
            *distinct += things;
            *self.things += things;
            *self.texts_bytes += text.len();
        }
        fits
    }

    fn give(&mut self, distinct: &mut usize, things: usize) {
        *distinct = distinct.saturating_sub(things);
        *self.things = self.things.saturating_sub(things);
    }
}

impl ModbusSeen {
    fn things(&self) -> usize {
        1 + self.read.len() + self.write.len() + self.sub_functions.len()
    }

    /// The same, its ranges sorted and joined whoever made them.
    fn in_order(&self) -> Self {
        let joined = |spans: &[Span]| {
            let mut list = Vec::new();
            spans.iter().for_each(|span| merge(&mut list, *span));
            list
        };
        Self {
            read: joined(&self.read),
            write: joined(&self.write),
            values: {
                let mut values = joined(&self.values);
                few(&mut values);
                values
            },
            ..self.clone()
        }
    }

    /// Whether `more` brings nothing but its counts.
    fn holds(&self, more: &Self) -> bool {
        let within = |spans: &[Span], span: &Span| {
            spans
                .iter()
                .any(|known| known.first <= span.first && span.last <= known.last)
        };
        more.read.iter().all(|span| within(&self.read, span))
            && more.write.iter().all(|span| within(&self.write, span))
            && more.sub_functions.is_subset(&self.sub_functions)
            && more.values.iter().all(|span| within(&self.values, span))
    }

    /// Both together.
    pub(super) fn and(&self, more: &Self) -> Self {
        let mut both = self.clone();
        both.seen = self.seen.and(more.seen);
        more.read.iter().for_each(|span| merge(&mut both.read, *span));
        more.write.iter().for_each(|span| merge(&mut both.write, *span));
        both.sub_functions.extend(&more.sub_functions);
        more.values.iter().for_each(|span| merge(&mut both.values, *span));
        few(&mut both.values);
        both
    }
}

impl MessagesSeen {
    fn and(&self, more: &Self) -> Self {
        Self {
            seen: self.seen.and(more.seen),
            qos: (self.qos.0.min(more.qos.0), self.qos.1.max(more.qos.1)),
            retain: self.retain || more.retain,
        }
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
            modbus: BTreeMap::new(),
            published: BTreeMap::new(),
            subscribed: BTreeMap::new(),
            client_ids: BTreeSet::new(),
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
        !(self.modbus.is_empty() && self.published.is_empty() && self.subscribed.is_empty())
    }

    fn texts_bytes(&self) -> usize {
        self.published
            .keys()
            .chain(self.subscribed.keys())
            .chain(&self.client_ids)
            .map(String::len)
            .sum()
    }

    fn lacks(&self, talk: &Self) -> bool {
        let modbus = talk.modbus.iter().any(|(key, seen)| {
            let known = self.modbus.get(key);
            known.is_none_or(|known| !known.holds(seen))
        });
        let messages = |known: &BTreeMap<String, MessagesSeen>, told: &BTreeMap<String, MessagesSeen>| {
            told.iter().any(|(topic, seen)| {
                known.get(topic).is_none_or(|known| {
                    let together = known.and(seen);
                    (together.qos, together.retain) != (known.qos, known.retain)
                })
            })
        };
        modbus
            || messages(&self.published, &talk.published)
            || messages(&self.subscribed, &talk.subscribed)
            || !talk.client_ids.is_subset(&self.client_ids)
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
        for (key, seen) in more.modbus {
            self.add_modbus(key, &seen, room);
        }
        for (list, more) in [
            (&mut self.published, more.published),
            (&mut self.subscribed, more.subscribed),
        ] {
            for (topic, seen) in more {
                if let Some(known) = list.get_mut(&topic) {
                    *known = known.and(&seen);
                } else if room.take(&mut self.things, 1, &topic) {
                    list.insert(topic, seen);
                } else {
                    self.further += 1;
                }
            }
        }
        for id in more.client_ids {
            if self.client_ids.contains(&id) {
                continue;
            }
            if room.take(&mut self.things, 1, &id) {
                self.client_ids.insert(id);
            } else {
                self.further += 1;
            }
        }
    }

    fn add_modbus(&mut self, key: ModbusKey, seen: &ModbusSeen, room: &mut TalkRoom<'_>) {
        let known = self.modbus.get_mut(&key);
        let before = known.as_ref().map_or(0, |known| known.things());
        let together = match known {
            Some(known) if known.holds(seen) => {
                known.seen = known.seen.and(seen.seen);
                return;
            }
            Some(known) => known.and(seen),
            None => seen.in_order(),
        };
        let after = together.things();
        if let Some(fewer) = before.checked_sub(after) {
            // Ranges that were separate have met.
            room.give(&mut self.things, fewer);
        } else if !room.take(&mut self.things, after - before, "") {
            self.further += 1;
            return;
        }
        self.modbus.insert(key, together);
    }

    fn operation(&mut self, at: Duration, operation: Operation<'_>) {
        match operation {
            Operation::Modbus(operation) => self.modbus(at, operation),
            Operation::Mqtt(operation) => self.mqtt(at, operation),
        }
    }

    fn modbus(&mut self, at: Duration, operation: modbus::Operation) {
        let key = ModbusKey {
            unit: operation.unit,
            function: operation.function(),
            written: operation.write.filter(|_| operation.values.is_some()),
        };
        let both = operation.read.is_some() && operation.write.is_some();
        let write = operation.write.or(operation.read).or(operation.files);
        let seen = ModbusSeen {
            seen: Occurrences::once(at),
            read: operation.read.filter(|_| both).into_iter().collect(),
            write: write.into_iter().collect(),
            sub_functions: operation
                .sub_function
                .filter(|_| operation.code == 8)
                .into_iter()
                .collect(),
            values: operation.values.into_iter().collect(),
        };
        self.modbus.insert(key, seen);
    }

    fn mqtt(&mut self, at: Duration, operation: mqtt::Operation<'_>) {
        let (list, topic, qos, retain) = match operation {
            mqtt::Operation::Publish { topic, qos, retain }
            | mqtt::Operation::Will { topic, qos, retain } => (&mut self.published, topic, qos, retain),
            mqtt::Operation::Subscribe { filter, qos } => (&mut self.subscribed, filter, qos, false),
            mqtt::Operation::Connect { client_id, .. } => {
                self.client_ids.insert(client_id.into_owned());
                return;
            }
            // A delivery follows from its subscription, an end of one needs no rule.
            mqtt::Operation::Unsubscribe { .. } | mqtt::Operation::Deliver { .. } => return,
        };
        let seen = MessagesSeen {
            seen: Occurrences::once(at),
            qos: (qos, qos),
            retain,
        };
        list.insert(topic.into_owned(), seen);
    }
}
