//! What the records of a bridge's queue hold, byte for byte; how they stand in segments is the log's ([`frame`]).
//!
//! ```text
//! body:     1 | message: seq (8) time_ms (8) expires_ms (8) origin (2) flags (1) length of topic (2) topic payload
//!           2 | released: packet identifier (2)      3 | received: seq (8)      4 | finished: seq (8)
//!           5 | sender forgot    7 | receiver forgot  6 | snapshot: next (8) finished (8) count (2) unreleased… count (2) received…
//!           8 | the same, but each unreleased: packet identifier (2) digest (4) expires_s (4)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use sha2::Digest as _;

use crate::log::frame;

/// What binds a queue to its bridge: a digest of its names.
pub type QueueId = crate::log::LogId;

const RETAIN: u8 = 4;
/// By so much may two clocks, and the rounding of seconds, differ in when a message expires.
const EXPIRED_AFTER_MS: u64 = 5000;

/// Of so many messages at QoS 2 the packet identifiers are remembered: eight times what a broker may have under way to us. One that
/// never releases any makes no segment begin with more, and may have what it repeats twice.
pub(super) const UNRELEASED_MAX: usize = 1024;

/// One stored publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its place in the queue, from 1.
    pub seq: u64,
    /// When it came, milliseconds since 1970.
    pub time_ms: u64,
    /// When it is worth nothing any more; 0: never.
    pub expires_ms: u64,
    /// The packet identifier that it came with at QoS 2; else 0.
    pub origin: u16,
    /// Quality of service, 0–2.
    pub qos: u8,
    /// Retained.
    pub retain: bool,
    /// Topic name.
    pub topic: String,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Message {
    /// What it takes on disk.
    pub fn cost(&self) -> u64 {
        (frame::FRAME_BYTES + 30 + self.topic.len() + self.payload.len()) as u64
    }

    /// What tells it from another under its packet identifier.
    pub fn mark(&self) -> Unreleased {
        let mut digest = sha2::Sha256::new();
        digest.update(self.topic.as_bytes());
        digest.update([0xff, u8::from(self.retain)]);
        digest.update(&self.payload);
        let whole: [u8; 32] = digest.finalize().into();
        let short = whole.first_chunk().map_or(0, |first| u32::from_be_bytes(*first));
        Unreleased {
            digest: short.max(1),
            expires_s: u32::try_from(self.expires_ms.div_ceil(1000)).unwrap_or(0),
        }
    }
}

/// What is remembered of a message at QoS 2 that was taken and whose PUBREL has not come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unreleased {
    /// Of topic, retained flag and payload; 0: unknown.
    pub digest: u32,
    /// When it is worth nothing any more, seconds since 1970; 0: never, or unknown.
    pub expires_s: u32,
}

impl Unreleased {
    /// Whether `message`, under the same packet identifier, is this one once more. One that has expired does not come again: a
    /// broker gives up what it has under way then, and its packet identifier to another message.
    pub fn is(&self, message: &Message) -> bool {
        let expired_ms = u64::from(self.expires_s) * 1000 + EXPIRED_AFTER_MS;
        let gone = self.expires_s != 0 && message.time_ms > expired_ms;
        !gone && (self.digest == 0 || self.digest == message.mark().digest)
    }
}

/// What stands in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueRecord {
    /// A publication.
    Message(Message),
    /// The far end of a QoS 2 hand-over: the sender's PUBREL came for this packet identifier.
    Released(u16),
    /// The receiving broker's PUBREC came for this message.
    Received(u64),
    /// Everything below is done.
    Finished(u64),
    /// The sending broker's session is new: no packet identifier of the old one means anything.
    SenderForgot,
    /// The receiving broker's session is new: it has nothing that was not completed.
    ReceiverForgot,
    /// Where a segment begins.
    Snapshot(Snapshot),
}

/// All that is not messages, at one point.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The sequence that the next message gets.
    pub next: u64,
    /// Everything below is done.
    pub finished: u64,
    /// Packet identifiers that came at QoS 2 and were not released yet.
    pub unreleased: BTreeMap<u16, Unreleased>,
    /// Messages that the receiving broker has, but for our PUBREL.
    pub received: BTreeSet<u64>,
}

impl Snapshot {
    /// Forgets the packet identifier that is the oldest where they are given in turn: the next behind the newest.
    fn forget_oldest(&mut self, newest: u16) {
        let behind = newest
            .checked_add(1)
            .and_then(|next| self.unreleased.range(next..).next());
        let oldest = behind.or_else(|| self.unreleased.first_key_value());
        if let Some(oldest) = oldest.map(|(identifier, _)| *identifier) {
            self.unreleased.remove(&oldest);
        }
    }

    /// What the state is after this record.
    pub(super) fn apply(&mut self, record: &QueueRecord) {
        match record {
            QueueRecord::Message(message) => {
                self.next = message.seq.saturating_add(1);
                if message.origin != 0 {
                    self.unreleased.insert(message.origin, message.mark());
                    if self.unreleased.len() > UNRELEASED_MAX {
                        self.forget_oldest(message.origin);
                    }
                }
            }
            QueueRecord::Released(identifier) => {
                self.unreleased.remove(identifier);
            }
            QueueRecord::Received(seq) => {
                self.received.insert(*seq);
            }
            QueueRecord::Finished(seq) => {
                self.finished = self.finished.max(*seq);
                self.received.retain(|received| received >= seq);
            }
            QueueRecord::SenderForgot => self.unreleased.clear(),
            QueueRecord::ReceiverForgot => self.received.clear(),
            QueueRecord::Snapshot(snapshot) => self.clone_from(snapshot),
        }
    }
}

/// A record's body.
pub(super) fn encode(record: &QueueRecord) -> Vec<u8> {
    let mut out = Vec::new();
    match record {
        QueueRecord::Message(message) => {
            out.reserve(30 + message.topic.len() + message.payload.len());
            out.push(1);
            for number in [message.seq, message.time_ms, message.expires_ms] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            out.extend_from_slice(&message.origin.to_be_bytes());
            out.push(message.qos | if message.retain { RETAIN } else { 0 });
            out.extend_from_slice(&u16::try_from(message.topic.len()).unwrap_or(0).to_be_bytes());
            out.extend_from_slice(message.topic.as_bytes());
            out.extend_from_slice(&message.payload);
        }
        QueueRecord::Released(identifier) => {
            out.push(2);
            out.extend_from_slice(&identifier.to_be_bytes());
        }
        QueueRecord::Received(seq) => {
            out.push(3);
            out.extend_from_slice(&seq.to_be_bytes());
        }
        QueueRecord::Finished(seq) => {
            out.push(4);
            out.extend_from_slice(&seq.to_be_bytes());
        }
        QueueRecord::SenderForgot => out.push(5),
        QueueRecord::ReceiverForgot => out.push(7),
        QueueRecord::Snapshot(snapshot) => {
            let marked = snapshot
                .unreleased
                .values()
                .any(|one| *one != Unreleased::default());
            out.push(if marked { 8 } else { 6 });
            out.extend_from_slice(&snapshot.next.to_be_bytes());
            out.extend_from_slice(&snapshot.finished.to_be_bytes());
            let count = |length| u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
            out.extend_from_slice(&count(snapshot.unreleased.len()));
            for (identifier, one) in &snapshot.unreleased {
                out.extend_from_slice(&identifier.to_be_bytes());
                if marked {
                    out.extend_from_slice(&one.digest.to_be_bytes());
                    out.extend_from_slice(&one.expires_s.to_be_bytes());
                }
            }
            out.extend_from_slice(&count(snapshot.received.len()));
            for seq in &snapshot.received {
                out.extend_from_slice(&seq.to_be_bytes());
            }
        }
    }
    out
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }
    fn long(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_be_bytes)
    }
    fn number(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_be_bytes)
    }
    fn word(&mut self) -> Option<u16> {
        self.chunk().map(u16::from_be_bytes)
    }
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(first)
    }
}

/// The record with this body; `None`: it is none that is known here.
pub(super) fn decode(body: &[u8]) -> Option<QueueRecord> {
    let (kind, rest) = body.split_first()?;
    let mut fields = Fields(rest);
    let record = match kind {
        1 => {
            let (seq, time_ms, expires_ms) = (fields.long()?, fields.long()?, fields.long()?);
            let origin = fields.word()?;
            let [flags] = fields.chunk()?;
            let length = usize::from(fields.word()?);
            let topic = String::from_utf8(fields.take(length)?.to_vec()).ok()?;
            let payload = std::mem::take(&mut fields.0).to_vec();
            QueueRecord::Message(Message {
                seq,
                time_ms,
                expires_ms,
                origin,
                qos: flags & 3,
                retain: flags & RETAIN != 0,
                topic,
                payload,
            })
        }
        2 => QueueRecord::Released(fields.word()?),
        3 => QueueRecord::Received(fields.long()?),
        4 => QueueRecord::Finished(fields.long()?),
        5 => QueueRecord::SenderForgot,
        7 => QueueRecord::ReceiverForgot,
        6 | 8 => {
            let (next, finished) = (fields.long()?, fields.long()?);
            let count = fields.word()?;
            let mut one = || {
                let identifier = fields.word()?;
                let mark = if *kind == 8 {
                    Unreleased {
                        digest: fields.number()?,
                        expires_s: fields.number()?,
                    }
                } else {
                    Unreleased::default()
                };
                Some((identifier, mark))
            };
            let unreleased = (0..count).map(|_| one()).collect::<Option<_>>()?;
            let count = fields.word()?;
            let received = (0..count).map(|_| fields.long()).collect::<Option<_>>()?;
            QueueRecord::Snapshot(Snapshot {
                next,
                finished,
                unreleased,
                received,
            })
        }
        _ => return None,
    };
    fields.0.is_empty().then_some(record)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

    use proptest::prelude::*;

    use super::*;
    use crate::log::frame::FrameOutcome;

    fn any_mark() -> impl Strategy<Value = Unreleased> {
        let any_mark = any::<[u32; 2]>().prop_map(|[digest, expires_s]| Unreleased { digest, expires_s });
        prop_oneof![Just(Unreleased::default()), any_mark]
    }

    fn any_record() -> impl Strategy<Value = QueueRecord> {
        let message = (
            any::<[u64; 3]>(),
            any::<u16>(),
            0u8..3,
            any::<bool>(),
            "[a-z/é]{0,30}",
        )
            .prop_flat_map(|head| (Just(head), proptest::collection::vec(any::<u8>(), 0..200)))
            .prop_map(
                |(([seq, time_ms, expires_ms], origin, qos, retain, topic), payload)| {
                    QueueRecord::Message(Message {
                        seq,
                        time_ms,
                        expires_ms,
                        origin,
                        qos,
                        retain,
                        topic,
                        payload,
                    })
                },
            );
        let snapshot = (
            any::<[u64; 2]>(),
            proptest::collection::btree_map(any::<u16>(), any_mark(), 0..9),
            proptest::collection::btree_set(any::<u64>(), 0..9),
        )
            .prop_map(|([next, finished], unreleased, received)| {
                QueueRecord::Snapshot(Snapshot {
                    next,
                    finished,
                    unreleased,
                    received,
                })
            });
        prop_oneof![
            message,
            snapshot,
            any::<u16>().prop_map(QueueRecord::Released),
            any::<u64>().prop_map(QueueRecord::Received),
            any::<u64>().prop_map(QueueRecord::Finished),
            Just(QueueRecord::SenderForgot),
            Just(QueueRecord::ReceiverForgot),
        ]
    }

    #[test]
    fn of_packet_identifiers_that_are_never_released_the_newest_are_remembered() {
        let mut state = Snapshot::default();
        let mut given = (1..=u16::MAX).cycle().skip(65_000);
        for _ in 0..2000 {
            state.apply(&QueueRecord::Message(Message {
                seq: 1,
                time_ms: 1,
                expires_ms: 0,
                origin: given.next().unwrap(),
                qos: 2,
                retain: false,
                topic: "works/a".to_owned(),
                payload: Vec::new(),
            }));
        }
        let next = given.next().unwrap();
        let newest = (1..=UNRELEASED_MAX).map(|back| next - u16::try_from(back).unwrap());
        assert_eq!(
            state.unreleased.keys().copied().collect::<BTreeSet<_>>(),
            newest.collect()
        );
    }

    #[test]
    fn a_segment_that_was_written_when_the_form_was_made_is_read_and_written_the_same_today() {
        let snapshot = |mark| {
            QueueRecord::Snapshot(Snapshot {
                next: 9,
                finished: 4,
                unreleased: BTreeMap::from([3, 5].map(|identifier| (identifier, mark))),
                received: BTreeSet::from([6]),
            })
        };
        let marked = Unreleased {
            digest: 0x0102_0304,
            expires_s: 1_790_000_000,
        };
        segment_is_kept("bridge-segment-PSQ1-marked.hex", &[snapshot(marked)]);
        let records = [
            snapshot(Unreleased::default()),
            QueueRecord::Message(Message {
                seq: 9,
                time_ms: 1_790_000_000_000,
                expires_ms: 0,
                origin: 5,
                qos: 2,
                retain: true,
                topic: "plant/pump-1/é".to_owned(),
                payload: vec![0, 1, 255],
            }),
            QueueRecord::Released(5),
            QueueRecord::Received(9),
            QueueRecord::Finished(10),
            QueueRecord::SenderForgot,
            QueueRecord::ReceiverForgot,
        ];
        segment_is_kept("bridge-segment-PSQ1.hex", &records);
    }

    fn segment_is_kept(name: &str, records: &[QueueRecord]) {
        let identity = [7; 16];
        let mut written = frame::header(&identity, 12);
        for record in records {
            frame::put(&mut written, &identity, 12, 0, &encode(record));
        }
        let kept = crate::fixture::kept(name, &written);
        assert_eq!(frame::read_header(&kept), Some((identity, 12)));
        let mut at = frame::HEADER_BYTES;
        for record in records {
            let FrameOutcome::Whole(body, bytes) = frame::read(&identity, 12, at as u64, &kept[at..]) else {
                panic!("{record:?} is not read");
            };
            assert_eq!(decode(body).as_ref(), Some(record));
            at += bytes;
        }
        assert_eq!(at, kept.len());
    }

    proptest! {
        #[test]
        fn a_record_reads_back_at_its_own_place_and_no_flipped_bit_or_other_place_does(
            record in any_record(), number: u64, base in 0u64..1 << 40, at: proptest::sample::Index, flip in 1u8..,
        ) {
            let identity = [7; 16];
            let mut bytes = Vec::new();
            let body = encode(&record);
            prop_assert_eq!(decode(&body), Some(record));
            frame::put(&mut bytes, &identity, number, base, &body);
            prop_assert_eq!(frame::read(&identity, number, base, &bytes), FrameOutcome::Whole(&body, bytes.len()));
            let elsewhere = frame::read(&identity, number, base + 1, &bytes);
            prop_assert!(matches!(elsewhere, FrameOutcome::Damaged(_)), "{elsewhere:?}");
            let cut = frame::read(&identity, number, base, &bytes[..bytes.len() - 1]);
            prop_assert!(matches!(cut, FrameOutcome::Needs(_)), "{cut:?}");
            let place = at.index(bytes.len());
            bytes[place] ^= flip;
            let flipped = frame::read(&identity, number, base, &bytes);
            prop_assert!(!matches!(flipped, FrameOutcome::Whole(..)), "{flipped:?}");
        }
    }
}
