//! From packets to what is worth telling: follows connections, keeps what is new, and decides when to tell it. Pure.
//!
//! News (an operation, a wider range, a topic, a client) is told at the next interval. What is known already is only
//! counted, and its counts are told at doubling distance, so that a plant that goes its daily way fills no spool.
//!
//! Memory, at most: what waits to be put in order or to become whole [`HELD_BYTES_MAX`]; about 2 KB for each of
//! [`CONNECTIONS_MAX`]; twice (what is known, what is not told yet) [`TEXTS_BYTES_MAX`] and about 450 bytes for each of
//! [`THINGS_MAX`]. Together with the packet that is read and the kernel's own buffer that is below 4 MB. What finds no
//! room is counted, and told.

use std::collections::HashMap;
use std::time::Duration;

use penstock_inspect::capture::{Frame, flows, link, reassembly};
use penstock_inspect::connection;
use penstock_inspect::learn::{Ends, LearnLimits, Learned, Learner, Talk, talk};
use penstock_proto::v1::LearnedEvent;
use tokio::time::Instant;

use super::legs::OwnLegs;
use super::scope::TapScope;
use super::trail;

/// Connections followed at a time.
pub const CONNECTIONS_MAX: usize = 256;
/// A connection that was silent this long makes room for another.
const SILENT_AFTER: Duration = Duration::from_secs(60);
/// Bytes of all connections that wait.
pub const HELD_BYTES_MAX: usize = 288 * 1024;
/// Pairs of ends.
const TALKS_MAX: usize = 512;
/// Distinct operations, ranges, topics and clients.
pub const THINGS_MAX: usize = 2048;
/// Bytes of one topic or client identifier; longer ones are counted.
const TEXT_BYTES_MAX: usize = 512;
/// Bytes of all topics and client identifiers.
pub const TEXTS_BYTES_MAX: usize = 160 * 1024;
/// The longest distance between two tellings of the same counts.
const COUNTS_DISTANCE_MAX: Duration = Duration::from_secs(3600);
/// Events told at one time; the others wait for the next.
const EVENTS_MAX: usize = 256;

/// Gathers what crosses observing sides.
#[derive(Debug)]
pub struct Gather {
    scope: TapScope,
    legs: OwnLegs,
    interval: Duration,
    learner: Learner<'static>,
    /// What was told already; its counts mean nothing.
    known: Learned,
    paces: HashMap<Ends, Pace>,
    look_at: Instant,
}

/// When the counts of a talk are told again.
#[derive(Debug, Clone, Copy)]
struct Pace {
    due: Instant,
    distance: Duration,
}

fn limits() -> LearnLimits {
    LearnLimits {
        flows: flows::FlowLimits {
            flows_max: CONNECTIONS_MAX,
            silent_after: Some(SILENT_AFTER),
            stream: reassembly::ReassemblyLimits {
                waiting_bytes_max: 32 * 1024,
                remembered_bytes_max: 512,
            },
            remembered_bytes_max: HELD_BYTES_MAX,
        },
        connection: connection::ConnectionLimits {
            aliases: connection::AliasLimits {
                aliases_max: 32,
                topic_bytes_max: 1024,
            },
            control_bytes_max: 16 * 1024,
            // Payloads pass by and take no memory; this is all that the protocol can say.
            packet_bytes_max: 268_435_455,
            ..connection::ConnectionLimits::default()
        },
        held_bytes_max: HELD_BYTES_MAX,
        // Answers are not waited for: that would take memory for each request of each connection.
        waiting_max: 0,
        learned: kept(),
    }
}

fn kept() -> talk::TalkLimits {
    talk::TalkLimits {
        talks_max: TALKS_MAX,
        distinct_max: THINGS_MAX,
        things_max: THINGS_MAX,
        text_bytes_max: TEXT_BYTES_MAX,
        texts_bytes_max: TEXTS_BYTES_MAX,
        // The trail has no words for it, and it would take the room of what it has words for.
        keeps_apart: false,
    }
}

impl Gather {
    /// Nothing gathered yet; news is told every `interval`.
    pub fn new((scope, legs): (TapScope, OwnLegs), interval: Duration, now: Instant) -> Self {
        Self {
            scope,
            legs,
            interval,
            learner: Learner::within(limits(), None),
            known: Learned::within(kept()),
            paces: HashMap::new(),
            look_at: now + interval,
        }
    }

    /// The plan in force has other sides, or ends TLS before other servers.
    pub fn set_scope(&mut self, (scope, legs): (TapScope, OwnLegs)) {
        self.scope = scope;
        self.legs.replace(legs);
    }

    /// Takes an Ethernet frame, `wire_bytes` long before it was cut.
    pub fn frame(&mut self, at: Duration, bytes: &[u8], wire_bytes: usize) {
        let frame = Frame {
            number: 0,
            link_type: 1,
            at,
            bytes,
            wire_bytes,
        };
        let Ok(segment) = link::segment_on_the_wire(&frame) else {
            return;
        };
        let (source, destination) = (segment.source, segment.destination);
        if self.scope.crosses(source.ip(), destination.ip()) && !self.legs.own(source, destination) {
            self.learner.segment(at, &segment);
        }
    }

    /// Packets and talks that found no room so far.
    pub fn left_out(&self) -> u64 {
        self.learner.left_out()
    }

    /// What is to be told at `now`: news and due counts, or `all`.
    pub fn due(&mut self, now: Instant, all: bool) -> Vec<LearnedEvent> {
        if now < self.look_at && !all {
            return Vec::new();
        }
        self.look_at = now + self.interval;
        let (known, paces) = (&self.known, &self.paces);
        let mut events = 0;
        let taken = self.learner.learned().take(|ends, talk| {
            let told = !known.lacks(ends, talk) || (known.is_full() && paces.contains_key(ends));
            let wanted = all || !told || paces.get(ends).is_none_or(|pace| now >= pace.due);
            let room = all || events < EVENTS_MAX;
            events += usize::from(wanted && room);
            wanted && room
        });
        let mut out = Vec::new();
        for (ends, talk) in taken {
            self.set_pace(ends, &talk, now);
            out.extend(trail::events(&ends, &talk));
            self.known.add(ends, talk);
        }
        out
    }

    fn set_pace(&mut self, ends: Ends, talk: &Talk, now: Instant) {
        let news = self.known.lacks(&ends, talk);
        let before = self.paces.get(&ends).filter(|_| !news);
        let distance = before.map_or(self.interval, |pace| pace.distance * 2);
        let distance = distance.min(COUNTS_DISTANCE_MAX.max(self.interval));
        if self.paces.len() >= TALKS_MAX && !self.paces.contains_key(&ends) {
            // Whoever was due longest ago has not talked since.
            let oldest = self.paces.iter().min_by_key(|(_, pace)| pace.due);
            if let Some(oldest) = oldest.map(|(ends, _)| *ends) {
                self.paces.remove(&oldest);
            }
        }
        let due = now + distance;
        self.paces.insert(ends, Pace { due, distance });
    }
}
