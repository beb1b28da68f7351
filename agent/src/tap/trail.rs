//! What was learned of two ends, as events of a bounded size. Pure.

use std::time::Duration;

use penstock_inspect::learn::{Ends, EntryKey, EntrySeen, PortCarrier, Talk};
use penstock_inspect::operation::VALUES;
use penstock_policy::protocol::LimitSet;
use penstock_policy::terms::NumberRange;
use penstock_proto::learned::{self, LearnedEntry};
use penstock_proto::v1::LearnedEvent;

/// Operations, ranges, topics and names of clients of one event.
const THINGS_MAX: usize = 64;
/// Bytes of all its texts.
const TEXTS_BYTES_MAX: usize = 4096;

/// The events that tell of `talk`; their counts add up to it.
pub fn events(ends: &Ends, talk: &Talk) -> Vec<LearnedEvent> {
    let empty = LearnedEvent {
        source: ends.client.to_string(),
        destination: ends.server.ip().to_string(),
        protocol: match ends.carrier {
            PortCarrier::Tcp => 6,
            PortCarrier::Udp => 17,
        },
        port: u32::from(ends.server.port()),
        application: talk.protocol.map_or("", |protocol| protocol.word).to_owned(),
        first_ms: ms(talk.connections.first),
        last_ms: ms(talk.connections.last),
        ..LearnedEvent::default()
    };
    let mut out = Events {
        filling: LearnedEvent {
            connections: talk.connections.count,
            further: talk.further,
            unread: talk.unread,
            in_order: talk.in_order,
            misfits: talk.misfits,
            guessed: talk.guessed,
            ..empty.clone()
        },
        empty,
        full: Vec::new(),
        things: 0,
        texts_bytes: 0,
    };
    for (key, seen) in &talk.operations {
        out.operations(key, seen);
    }
    for name in &talk.names {
        out.event(1, name.len()).client_ids.push(name.clone());
    }
    out.full.push(out.filling);
    out.full
}

/// Events that are filled one after another.
struct Events {
    /// What they have in common.
    empty: LearnedEvent,
    filling: LearnedEvent,
    full: Vec<LearnedEvent>,
    things: usize,
    texts_bytes: usize,
}

impl Events {
    /// The event that has room for so much more.
    fn event(&mut self, things: usize, text_bytes: usize) -> &mut LearnedEvent {
        let fits = self.things + things <= THINGS_MAX && self.texts_bytes + text_bytes <= TEXTS_BYTES_MAX;
        if self.things > 0 && !fits {
            let filled = std::mem::replace(&mut self.filling, self.empty.clone());
            self.full.push(filled);
            (self.things, self.texts_bytes) = (0, 0);
        }
        self.things += things;
        self.texts_bytes += text_bytes;
        &mut self.filling
    }

    /// Ranges that do not fit one event are told in several, the counts with the first.
    fn operations(&mut self, key: &EntryKey, seen: &EntrySeen) {
        let mut one = LearnedEntry {
            operation: key.operation.clone(),
            numbers: key.numbers.clone(),
            texts: key.texts.clone(),
            written: key.written,
            sets: (&seen.sets).into(),
            count: seen.seen.count,
            first_ms: ms(seen.seen.first),
            last_ms: ms(seen.seen.last),
        };
        // Values are few, and told with each part of the places.
        let parted = |(name, set): (&&'static str, &mut LimitSet)| match set {
            LimitSet::Numbers(ranges) if *name != VALUES => Some((*name, std::mem::take(ranges))),
            _ => None,
        };
        let ranges: Vec<(&'static str, Vec<NumberRange>)> = one.sets.iter_mut().filter_map(parted).collect();
        let ranges = ranges.into_iter();
        let mut parts = ranges
            .flat_map(|(name, ranges)| ranges.into_iter().map(move |range| (name, range)))
            .peekable();
        loop {
            let next = LearnedEntry {
                count: 0,
                ..one.clone()
            };
            let mut things = 1;
            while things < THINGS_MAX
                && let Some((name, range)) = parts.next()
            {
                things += 1;
                if let Some(LimitSet::Numbers(ranges)) = one.sets.get_mut(name) {
                    ranges.push(range);
                }
            }
            let text_bytes = key.texts.iter().map(|(_, text)| text.len()).sum();
            learned::put(self.event(things, text_bytes), one);
            if parts.peek().is_none() {
                return;
            }
            one = next;
        }
    }
}

fn ms(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
