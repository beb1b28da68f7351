//! What stands in the log: entries, the effects in them, and the messages that they travel in.
//!
//! An entry names the digest of the one before it, so that a log that was rewritten, or another log, is found out by whoever
//! follows it. It holds what a transaction did, not what was asked: whoever applies it decides nothing.
//!
//! The form is protobuf. Fields and kinds of effects are only ever added; software that meets one that it does not know stops
//! following, since its copy would differ from then on.

use bytes::Bytes;
use penstock_policy::ids::Digest;
use penstock_proto::audit::Head;
use prost::Message as _;

use crate::store::trail::{BlockSummary, NewBlock};

/// Something that a transaction changed.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::store) enum Effect {
    /// A record was written, or removed.
    Record {
        key: String,
        /// `None`: it was removed.
        value: Option<Vec<u8>>,
        /// The store's revision with it.
        revision: u64,
    },
    /// A blob was stored.
    Blob(Vec<u8>),
    /// A blob was removed.
    BlobGone(Digest),
    /// A block was stored, and the head of its trail is behind it.
    Block {
        source: String,
        new: Box<NewBlock>,
        /// Its number in the order in which blocks came.
        number: u64,
    },
    /// The head of a trail was set to another place.
    Head { source: String, head: Head },
    /// All blocks up to and with this number were removed.
    BlocksGone { last: u64 },
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::store) struct Entry {
    /// The digest of the entry before it; of the first one: zeros.
    pub(in crate::store) previous: [u8; 32],
    /// The coordinator that decided it.
    pub(in crate::store) writer: String,
    pub(in crate::store) effects: Vec<Effect>,
}

/// Why an entry cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::store) enum EntryError {
    #[error("it is not in the form of an entry ({0})")]
    Form(String),
    #[error("it has an effect that this software does not know: a newer coordinator wrote it")]
    Newer,
}

impl Entry {
    /// Takes it, since what is in it may be large.
    pub(in crate::store) fn encode(self) -> Vec<u8> {
        let wire = wire::Entry {
            previous: self.previous.to_vec(),
            writer: self.writer,
            effects: self.effects.into_iter().map(wire_effect).collect(),
        };
        wire.encode_to_vec()
    }

    pub(in crate::store) fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let wire = wire::Entry::decode(bytes).map_err(|error| EntryError::Form(error.to_string()))?;
        Ok(Self {
            previous: exactly(&wire.previous)?,
            writer: wire.writer,
            effects: wire.effects.into_iter().map(effect).collect::<Result<_, _>>()?,
        })
    }
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], EntryError> {
    let found = bytes.len();
    bytes
        .try_into()
        .map_err(|_| EntryError::Form(format!("{found} bytes where {N} belong")))
}

fn wire_effect(effect: Effect) -> wire::Effect {
    use wire::effect::Kind;
    let kind = match effect {
        Effect::Record { key, value, revision } => Kind::Record(wire::Record { key, value, revision }),
        Effect::Blob(content) => Kind::Blob(content),
        Effect::BlobGone(digest) => Kind::BlobGone(digest.0.to_vec()),
        Effect::Block { source, new, number } => Kind::Block(wire::Block {
            source,
            block: Some(new.block),
            first_ms: new.summary.first_ms,
            last_ms: new.summary.last_ms,
            kinds: new.summary.kinds,
            decisions: new.summary.decisions,
            severity: new.summary.severity,
            received_ms: new.received_ms,
            number,
        }),
        Effect::Head { source, head } => Kind::Head(wire::TrailHead {
            source,
            epoch: head.epoch,
            next_sequence: head.next_sequence,
            digest: head.digest.to_vec(),
        }),
        Effect::BlocksGone { last } => Kind::BlocksGone(last),
    };
    wire::Effect { kind: Some(kind) }
}

fn effect(wire: wire::Effect) -> Result<Effect, EntryError> {
    use wire::effect::Kind;
    Ok(match wire.kind.ok_or(EntryError::Newer)? {
        Kind::Record(record) => Effect::Record {
            key: record.key,
            value: record.value,
            revision: record.revision,
        },
        Kind::Blob(content) => Effect::Blob(content),
        Kind::BlobGone(digest) => Effect::BlobGone(Digest(exactly(&digest)?)),
        Kind::Block(block) => Effect::Block {
            source: block.source,
            new: Box::new(NewBlock {
                block: block
                    .block
                    .ok_or_else(|| EntryError::Form("a block without its body".to_owned()))?,
                summary: BlockSummary {
                    first_ms: block.first_ms,
                    last_ms: block.last_ms,
                    kinds: block.kinds,
                    decisions: block.decisions,
                    severity: block.severity,
                },
                received_ms: block.received_ms,
            }),
            number: block.number,
        },
        Kind::Head(head) => Effect::Head {
            source: head.source,
            head: Head {
                epoch: head.epoch,
                next_sequence: head.next_sequence,
                digest: exactly(&head.digest)?,
            },
        },
        Kind::BlocksGone(last) => Effect::BlocksGone { last },
    })
}

/// A piece of an encoded entry.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::store) struct Part {
    /// Identifies this attempt to put the entry: pieces of another attempt are not joined with these.
    #[prost(bytes = "bytes", tag = "1")]
    pub(in crate::store) entry: Bytes,
    /// From 0 on.
    #[prost(uint32, tag = "2")]
    pub(in crate::store) index: u32,
    /// How many there are.
    #[prost(uint32, tag = "3")]
    pub(in crate::store) count: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub(in crate::store) bytes: Bytes,
}

/// Largest entry, bytes: the largest blob, and what may be committed with it.
pub(in crate::store) const ENTRY_BYTES_MAX: usize = 256 << 20;
/// What a message takes beside the bytes of its entry, at most.
const PART_BYTES_BESIDE: usize = 64;

impl Part {
    /// The pieces of an entry for messages of at most so many bytes.
    pub(in crate::store) fn all_of(id: [u8; 16], entry: Vec<u8>, message_bytes_max: usize) -> Vec<Self> {
        let entry = Bytes::from(entry);
        let step = message_bytes_max.saturating_sub(PART_BYTES_BESIDE).max(1);
        let count = entry.len().div_ceil(step).max(1);
        (0..count)
            .map(|index| {
                let start = (index * step).min(entry.len());
                let end = start.saturating_add(step).min(entry.len());
                Self {
                    entry: Bytes::copy_from_slice(&id),
                    index: u32::try_from(index).unwrap_or(u32::MAX),
                    count: u32::try_from(count).unwrap_or(u32::MAX),
                    bytes: entry.slice(start..end),
                }
            })
            .collect()
    }
}

/// Entries out of messages. An entry that another one follows before it is whole was given up by its writer, and never was.
#[derive(Debug, Default)]
pub(in crate::store) struct Assembly {
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    entry: Bytes,
    count: u32,
    next: u32,
    bytes: Vec<u8>,
}

impl Assembly {
    /// Takes the next message; answers with the entry that it makes whole.
    pub(in crate::store) fn take(&mut self, payload: &Bytes) -> Result<Option<Vec<u8>>, EntryError> {
        let part = Part::decode(payload.clone()).map_err(|error| EntryError::Form(error.to_string()))?;
        if part.index == 0 {
            self.begun = Some(Begun {
                entry: part.entry.clone(),
                count: part.count,
                next: 0,
                bytes: Vec::new(),
            });
        }
        let continued = |begun: &&mut Begun| {
            (&begun.entry, begun.next, begun.count) == (&part.entry, part.index, part.count)
        };
        let Some(begun) = self.begun.as_mut().filter(continued) else {
            self.begun = None;
            return Ok(None);
        };
        if begun.bytes.len().saturating_add(part.bytes.len()) > ENTRY_BYTES_MAX {
            return Err(EntryError::Form(format!("more than {ENTRY_BYTES_MAX} bytes")));
        }
        begun.bytes.extend_from_slice(&part.bytes);
        begun.next += 1;
        let whole = begun.next >= begun.count;
        Ok(whole
            .then(|| self.begun.take())
            .flatten()
            .map(|begun| begun.bytes))
    }

    /// Whether an entry has begun and is not whole.
    pub(in crate::store) fn is_open(&self) -> bool {
        self.begun.is_some()
    }
}

/// The form on the wire.
mod wire {
    use penstock_proto::v1::AuditBlock;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Entry {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) previous: Vec<u8>,
        #[prost(string, tag = "2")]
        pub(super) writer: String,
        #[prost(message, repeated, tag = "3")]
        pub(super) effects: Vec<Effect>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Effect {
        #[prost(oneof = "effect::Kind", tags = "1, 2, 3, 4, 5, 6")]
        pub(super) kind: Option<effect::Kind>,
    }

    pub(super) mod effect {
        #[derive(Clone, PartialEq, prost::Oneof)]
        pub(in super::super) enum Kind {
            #[prost(message, tag = "1")]
            Record(super::Record),
            #[prost(bytes, tag = "2")]
            Blob(Vec<u8>),
            #[prost(bytes, tag = "3")]
            BlobGone(Vec<u8>),
            #[prost(message, tag = "4")]
            Block(super::Block),
            #[prost(message, tag = "5")]
            Head(super::TrailHead),
            #[prost(uint64, tag = "6")]
            BlocksGone(u64),
        }
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Record {
        #[prost(string, tag = "1")]
        pub(super) key: String,
        #[prost(bytes = "vec", optional, tag = "2")]
        pub(super) value: Option<Vec<u8>>,
        #[prost(uint64, tag = "3")]
        pub(super) revision: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Block {
        #[prost(string, tag = "1")]
        pub(super) source: String,
        #[prost(message, optional, tag = "2")]
        pub(super) block: Option<AuditBlock>,
        #[prost(uint64, tag = "3")]
        pub(super) first_ms: u64,
        #[prost(uint64, tag = "4")]
        pub(super) last_ms: u64,
        #[prost(uint32, tag = "5")]
        pub(super) kinds: u32,
        #[prost(uint32, tag = "6")]
        pub(super) decisions: u32,
        #[prost(int32, tag = "7")]
        pub(super) severity: i32,
        #[prost(uint64, tag = "8")]
        pub(super) received_ms: u64,
        #[prost(uint64, tag = "9")]
        pub(super) number: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TrailHead {
        #[prost(string, tag = "1")]
        pub(super) source: String,
        #[prost(uint64, tag = "2")]
        pub(super) epoch: u64,
        #[prost(uint64, tag = "3")]
        pub(super) next_sequence: u64,
        #[prost(bytes = "vec", tag = "4")]
        pub(super) digest: Vec<u8>,
    }
}

#[cfg(test)]
mod tests {
    use penstock_proto::v1::AuditBlock;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn block() -> impl Strategy<Value = Effect> {
        (
            any::<[u64; 6]>(),
            any::<[u32; 2]>(),
            any::<i32>(),
            vec(any::<u8>(), 0..40),
        )
            .prop_map(
                |(
                    [epoch, sequence, first_ms, last_ms, received_ms, number],
                    [kinds, decisions],
                    severity,
                    body,
                )| {
                    Effect::Block {
                        source: "gw-1".to_owned(),
                        new: Box::new(NewBlock {
                            block: AuditBlock {
                                epoch,
                                sequence,
                                previous_digest: vec![7; 32].into(),
                                body: body.into(),
                            },
                            summary: BlockSummary {
                                first_ms,
                                last_ms,
                                kinds,
                                decisions,
                                severity,
                            },
                            received_ms,
                        }),
                        number,
                    }
                },
            )
    }

    fn effects() -> impl Strategy<Value = Effect> {
        let key = "[a-z/]{0,12}";
        prop_oneof![
            (key, proptest::option::of(vec(any::<u8>(), 0..40)), any::<u64>())
                .prop_map(|(key, value, revision)| Effect::Record { key, value, revision }),
            vec(any::<u8>(), 0..40).prop_map(Effect::Blob),
            any::<[u8; 32]>().prop_map(|digest| Effect::BlobGone(Digest(digest))),
            block(),
            (any::<[u64; 2]>(), any::<[u8; 32]>()).prop_map(|([epoch, next_sequence], digest)| {
                Effect::Head {
                    source: "gw-2".to_owned(),
                    head: Head {
                        epoch,
                        next_sequence,
                        digest,
                    },
                }
            }),
            any::<u64>().prop_map(|last| Effect::BlocksGone { last }),
        ]
    }

    proptest! {
        #[test]
        fn an_entry_comes_out_of_its_messages_as_it_went_in_whatever_was_given_up_before(
            effects in vec(effects(), 0..6), previous: [u8; 32], size in 65_usize..400, given_up in 0_usize..5,
        ) {
            let entry = Entry { previous, writer: "c1".to_owned(), effects };
            let mut assembly = Assembly::default();
            let lost = Part::all_of([1; 16], vec![9; 1000], size);
            for part in lost.iter().take(given_up.min(lost.len() - 1)) {
                prop_assert_eq!(assembly.take(&part.encode_to_vec().into()), Ok(None));
            }
            let parts = Part::all_of([2; 16], entry.clone().encode(), size);
            let (last, before) = parts.split_last().unwrap();
            for part in before {
                prop_assert!(part.encoded_len() <= size);
                prop_assert_eq!(assembly.take(&part.encode_to_vec().into()), Ok(None));
            }
            let whole = assembly.take(&last.encode_to_vec().into()).unwrap().unwrap();
            prop_assert_eq!(Entry::decode(&whole), Ok(entry));
            prop_assert!(!assembly.is_open());
        }

        #[test]
        fn bytes_of_any_kind_are_an_entry_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
            let _ = Entry::decode(&bytes);
            let _ = Assembly::default().take(&bytes.into());
        }
    }

    #[test]
    fn an_effect_that_newer_software_wrote_stops_whoever_does_not_know_it() {
        // Field 3, an effect with a field 15 of 1 byte.
        let bytes = [&[0x0a, 32][..], &[0; 32], &[0x1a, 2, 0x78, 1]].concat();
        assert_eq!(Entry::decode(&bytes), Err(EntryError::Newer));
    }
}
