//! What was learned of two ends, as events of a bounded size. Pure.

use std::time::Duration;

use penstock_inspect::learn::{Ends, MessagesSeen, ModbusKey, ModbusSeen, PortCarrier, Talk};
use penstock_inspect::modbus::Span;
use penstock_proto::v1::{LearnedEvent, LearnedMessages, LearnedModbus, LearnedRange};

/// Operations, ranges, topics and client identifiers of one event.
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
        application: talk
            .protocol
            .map_or("", |protocol| protocol.vocabulary().word)
            .to_owned(),
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
    for (key, seen) in &talk.modbus {
        out.modbus(key, seen);
    }
    for (topic, seen) in &talk.published {
        out.event(1, topic.len()).published.push(messages(topic, seen));
    }
    for (filter, seen) in &talk.subscribed {
        out.event(1, filter.len()).subscribed.push(messages(filter, seen));
    }
    for id in &talk.client_ids {
        out.event(1, id.len()).client_ids.push(id.clone());
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
    fn modbus(&mut self, key: &ModbusKey, seen: &ModbusSeen) {
        let mut one = LearnedModbus {
            unit: u32::from(key.unit),
            function: key.function.clone(),
            count: seen.seen.count,
            first_ms: ms(seen.seen.first),
            last_ms: ms(seen.seen.last),
            values: seen.values.iter().copied().map(range).collect(),
            ..LearnedModbus::default()
        };
        let mut parts = seen
            .write
            .iter()
            .map(|span| Part::Write(range(*span)))
            .chain(seen.read.iter().map(|span| Part::Read(range(*span))))
            .chain(
                seen.sub_functions
                    .iter()
                    .map(|sub| Part::SubFunction(u32::from(*sub))),
            )
            .peekable();
        loop {
            let mut things = 1;
            while things < THINGS_MAX
                && let Some(part) = parts.next()
            {
                things += 1;
                match part {
                    Part::Read(range) => one.read.push(range),
                    Part::Write(range) => one.write.push(range),
                    Part::SubFunction(sub) => one.sub_functions.push(sub),
                }
            }
            let next = LearnedModbus {
                count: 0,
                read: Vec::new(),
                // Where values are known, the place belongs to what they are kept by.
                write: key.written.map(range).into_iter().collect(),
                sub_functions: Vec::new(),
                ..one.clone()
            };
            self.event(things, 0).modbus.push(one);
            if parts.peek().is_none() {
                return;
            }
            one = next;
        }
    }
}

enum Part {
    Read(LearnedRange),
    Write(LearnedRange),
    SubFunction(u32),
}

fn messages(topic: &str, seen: &MessagesSeen) -> LearnedMessages {
    LearnedMessages {
        topic: topic.to_owned(),
        count: seen.seen.count,
        first_ms: ms(seen.seen.first),
        last_ms: ms(seen.seen.last),
        qos_least: u32::from(seen.qos.0),
        qos_greatest: u32::from(seen.qos.1),
        retain: seen.retain,
    }
}

fn range(span: Span) -> LearnedRange {
    LearnedRange {
        first: u32::from(span.first),
        last: u32::from(span.last),
    }
}

fn ms(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
