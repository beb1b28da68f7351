//! Events on their way to their block: as the bytes that will stand there, with what the spool has to know of each. So what waits takes what it will take on
//! the disk, and is bounded by bytes, whatever an event is made of.

use penstock_proto::audit::BODY_BYTES_MAX;
use penstock_proto::v1::{AuditEvent, Severity, audit_event::Kind};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::accounts::SEVERITY_MAX;
use super::layout::BlockFacts;

/// The number of `events` in a block's body.
const EVENTS_FIELD: u32 = 1;
/// What the field's key and length add to an event, at most.
const FIELD_BYTES_MAX: usize = 6;

/// An event that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingEvent {
    /// Its own time.
    pub(super) time_ms: u64,
    /// The severity as which it is kept.
    kept_as: u8,
    /// It waits no longer than it has to for its seal.
    is_grave: bool,
    counts: Counts,
    bytes: Box<[u8]>,
}

/// What of an event is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Event,
    /// A seal, or a word for one, which needs none itself.
    Seal,
    /// Events and blocks that a loss record accounts for.
    Loss {
        events: u64,
        blocks: u64,
    },
}

impl From<AuditEvent> for WaitingEvent {
    fn from(event: AuditEvent) -> Self {
        let counts = match &event.kind {
            Some(Kind::Seal(_)) => Counts::Seal,
            Some(Kind::Loss(loss)) => Counts::Loss {
                events: loss.events,
                blocks: loss.blocks,
            },
            _ => Counts::Event,
        };
        Self {
            time_ms: event.time_ms,
            // Seals, which are nothing grave, go last.
            kept_as: match counts {
                Counts::Seal => SEVERITY_MAX,
                _ => u8::try_from(event.severity).unwrap_or(0).min(SEVERITY_MAX),
            },
            is_grave: event.severity >= Severity::Warning.into(),
            counts,
            bytes: event.encode_to_vec().into(),
        }
    }
}

impl WaitingEvent {
    /// The severity as which it is kept.
    pub(super) fn kept_as(&self) -> u8 {
        self.kept_as
    }

    /// Whether it waits no longer than it has to for its seal.
    pub(super) fn is_grave(&self) -> bool {
        self.is_grave
    }

    /// Whether it wants to be sealed.
    pub(super) fn is_to_be_sealed(&self) -> bool {
        self.counts != Counts::Seal
    }

    /// What it takes in memory.
    pub(super) fn held_bytes(&self) -> usize {
        size_of::<Self>().saturating_add(self.bytes.len())
    }
}

/// Cuts events, sorted by severity, into bodies of one severity each.
pub(super) fn cut(events: Vec<WaitingEvent>, block_bytes: usize) -> Vec<(BlockFacts, Vec<u8>)> {
    let bytes_max = block_bytes.min(BODY_BYTES_MAX);
    let mut blocks: Vec<(BlockFacts, Vec<u8>)> = Vec::new();
    for event in events {
        let bytes = event.bytes.len().saturating_add(FIELD_BYTES_MAX);
        let takes = |(facts, body): &&mut (BlockFacts, Vec<u8>)| {
            facts.severity == event.kept_as && body.len().saturating_add(bytes) <= bytes_max
        };
        match blocks.last_mut().filter(takes) {
            Some((facts, body)) => {
                count(facts, &event);
                put(body, &event.bytes);
            }
            None => {
                let mut facts = BlockFacts {
                    severity: event.kept_as,
                    first_ms: u64::MAX,
                    ..BlockFacts::default()
                };
                count(&mut facts, &event);
                let mut body = Vec::new();
                put(&mut body, &event.bytes);
                blocks.push((facts, body));
            }
        }
    }
    blocks
}

fn put(body: &mut Vec<u8>, event: &[u8]) {
    encode_key(EVENTS_FIELD, WireType::LengthDelimited, body);
    encode_varint(event.len() as u64, body);
    body.extend_from_slice(event);
}

fn count(facts: &mut BlockFacts, event: &WaitingEvent) {
    facts.first_ms = facts.first_ms.min(event.time_ms);
    facts.last_ms = facts.last_ms.max(event.time_ms);
    match event.counts {
        Counts::Event => facts.events = facts.events.saturating_add(1),
        Counts::Seal => {}
        Counts::Loss { events, blocks } => {
            facts.carried_events = facts.carried_events.saturating_add(events);
            facts.carried_blocks = facts.carried_blocks.saturating_add(blocks);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use penstock_proto::event::AgentStep;
    use penstock_proto::v1::{AuditBlockBody, LossEvent, SealEvent};
    use proptest::prelude::*;

    use super::super::record;
    use super::*;

    fn event() -> impl Strategy<Value = AuditEvent> {
        let kind = prop_oneof![
            (0_usize..300).prop_map(|bytes| record::agent(AgentStep::Started, &"x".repeat(bytes))),
            (any::<u64>(), any::<u64>()).prop_map(|(events, blocks)| {
                Kind::Loss(LossEvent {
                    events,
                    blocks,
                    ..LossEvent::default()
                })
            }),
            Just(Kind::Seal(SealEvent::default())),
        ];
        (0_u64..100, 0_i32..6, kind).prop_map(|(time_ms, severity, kind)| AuditEvent {
            time_ms,
            severity,
            revision: 1,
            kind: Some(kind),
        })
    }

    proptest! {
        #[test]
        fn bodies_are_those_of_their_events_whole_in_their_order_and_of_one_severity_each(
            mut events in proptest::collection::vec(event(), 0..60), block_bytes in 1_usize..2_000,
        ) {
            events.sort_by_key(|event| std::cmp::Reverse(WaitingEvent::from(event.clone()).kept_as()));
            let waiting = events.iter().cloned().map(WaitingEvent::from).collect();
            let mut whole = Vec::new();
            for (facts, bytes) in cut(waiting, block_bytes) {
                let body = AuditBlockBody::decode(bytes.as_slice()).unwrap();
                prop_assert_eq!(body.encode_to_vec(), bytes.clone(), "as it was always encoded");
                prop_assert!(bytes.len() <= block_bytes || body.events.len() == 1);
                let of = |event: &AuditEvent| WaitingEvent::from(event.clone());
                prop_assert!(body.events.iter().all(|event| of(event).kept_as() == facts.severity));
                let times = || body.events.iter().map(|event| event.time_ms);
                prop_assert_eq!((facts.first_ms, facts.last_ms), (times().min().unwrap(), times().max().unwrap()));
                let is_event = |event: &&AuditEvent| !matches!(event.kind, Some(Kind::Loss(_) | Kind::Seal(_)));
                prop_assert_eq!(facts.events, body.events.iter().filter(is_event).count() as u64);
                whole.extend(body.events);
            }
            prop_assert_eq!(whole, events);
        }
    }
}
