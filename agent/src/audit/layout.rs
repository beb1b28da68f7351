//! What the spool writes into sled, byte for byte.
//!
//! One tree, so that one batch is atomic over everything:
//!
//! ```text
//! "m"                                  → Meta: the head of the chain and the accounts
//! "b" epoch (8, BE) sequence (8, BE)   → a block: its facts, the digest before it, its body
//! "i" severity (1) epoch sequence      → the facts again, so that shedding finds its victim without reading bodies
//! ```
//!
//! Every value ends in the first 8 bytes of the SHA-256 of its key and content, since the engine below is
//! not trusted to notice a flipped bit.

use penstock_proto::audit::Head;
use sha2::Digest as _;

/// A place in the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Chain number.
    pub epoch: u64,
    /// Block within it.
    pub sequence: u64,
}

/// The key of the one [`Meta`] record.
pub(crate) const META_KEY: &[u8] = b"m";

const META_VERSION: u8 = 1;

/// Bytes that a block costs beyond its value: two keys, the index value and the engine's own overhead.
pub(crate) const BLOCK_OVERHEAD_BYTES: u64 = 160;

pub(crate) fn block_key(at: Position) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.push(b'b');
    key.extend_from_slice(&at.epoch.to_be_bytes());
    key.extend_from_slice(&at.sequence.to_be_bytes());
    key
}

pub(crate) fn read_block_key(key: &[u8]) -> Option<Position> {
    let mut read = Reader(key.strip_prefix(b"b")?);
    let at = Position {
        epoch: read.u64()?,
        sequence: read.u64()?,
    };
    read.end(at)
}

pub(crate) fn index_key(severity: u8, at: Position) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.extend_from_slice(&[b'i', severity]);
    key.extend_from_slice(&at.epoch.to_be_bytes());
    key.extend_from_slice(&at.sequence.to_be_bytes());
    key
}

pub(crate) fn read_index_key(key: &[u8]) -> Option<(u8, Position)> {
    let (severity, rest) = key.strip_prefix(b"i")?.split_first()?;
    let mut read = Reader(rest);
    let at = Position {
        epoch: read.u64()?,
        sequence: read.u64()?,
    };
    read.end((*severity, at))
}

/// What shedding has to know of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockFacts {
    /// The severity that all its events share.
    pub(crate) severity: u8,
    /// What it costs against the quota, in bytes.
    pub(crate) cost: u64,
    /// Its events, without loss records.
    pub(crate) events: u64,
    /// Events and blocks that its loss records account for: shedding it must not forget them.
    pub(crate) carried_events: u64,
    pub(crate) carried_blocks: u64,
    /// Time of its first and last event.
    pub(crate) first_ms: u64,
    pub(crate) last_ms: u64,
}

const FACTS_BYTES: usize = 1 + 6 * 8;

impl BlockFacts {
    /// What is lost when the block goes.
    pub(crate) fn loss(&self) -> Loss {
        Loss {
            events: self.events.saturating_add(self.carried_events),
            blocks: self.carried_blocks.saturating_add(1),
            first_ms: self.first_ms,
            last_ms: self.last_ms,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.severity);
        for number in [
            self.cost,
            self.events,
            self.carried_events,
            self.carried_blocks,
            self.first_ms,
            self.last_ms,
        ] {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }

    fn read(read: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            severity: read.u8()?,
            cost: read.u64()?,
            events: read.u64()?,
            carried_events: read.u64()?,
            carried_blocks: read.u64()?,
            first_ms: read.u64()?,
            last_ms: read.u64()?,
        })
    }
}

/// What a block of `body_bytes` costs against the quota.
pub(crate) fn cost_of(body_bytes: usize) -> u64 {
    (FACTS_BYTES + 32 + 8 + body_bytes) as u64 + BLOCK_OVERHEAD_BYTES
}

/// A stored block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockRecord {
    pub(crate) facts: BlockFacts,
    pub(crate) previous: [u8; 32],
    pub(crate) body: Vec<u8>,
}

impl BlockRecord {
    pub(crate) fn to_bytes(&self, at: Position) -> Vec<u8> {
        let mut out = Vec::with_capacity(FACTS_BYTES + 40 + self.body.len());
        self.facts.write(&mut out);
        out.extend_from_slice(&self.previous);
        out.extend_from_slice(&self.body);
        guard(&block_key(at), out)
    }

    pub(crate) fn from_bytes(at: Position, bytes: &[u8]) -> Option<Self> {
        let mut read = Reader(guarded(&block_key(at), bytes)?);
        Some(Self {
            facts: BlockFacts::read(&mut read)?,
            previous: read.digest()?,
            body: read.0.to_vec(),
        })
    }

    /// The value of the block's index entry.
    pub(crate) fn index_bytes(&self, at: Position) -> Vec<u8> {
        let mut out = Vec::with_capacity(FACTS_BYTES + 8);
        self.facts.write(&mut out);
        guard(&index_key(self.facts.severity, at), out)
    }
}

pub(crate) fn read_index(key: &[u8], bytes: &[u8]) -> Option<BlockFacts> {
    let mut read = Reader(guarded(key, bytes)?);
    let facts = BlockFacts::read(&mut read)?;
    read.end(facts)
}

/// Why events are missing from the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The quota was used up by events at least as severe.
    SpoolFull,
    /// The disk was full, or refused.
    DiskError,
    /// Events came faster than the queue to the spool could take them.
    QueueFull,
    /// The spool itself was lost, damaged or rolled back.
    SpoolLost,
}

impl Cause {
    /// Every cause, in the order of their accounts.
    pub(crate) const ALL: [Self; 4] = [Self::SpoolFull, Self::DiskError, Self::QueueFull, Self::SpoolLost];

    /// As it stands in a loss record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SpoolFull => "spool-full",
            Self::DiskError => "disk-error",
            Self::QueueFull => "queue-full",
            Self::SpoolLost => "spool-lost",
        }
    }
}

/// Events lost to one cause and not yet told in the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Loss {
    pub(crate) events: u64,
    pub(crate) blocks: u64,
    pub(crate) first_ms: u64,
    pub(crate) last_ms: u64,
}

impl Loss {
    pub(crate) fn is_none(&self) -> bool {
        self.events == 0 && self.blocks == 0
    }

    pub(crate) fn add(&mut self, other: &Self) {
        if other.is_none() {
            return;
        }
        self.first_ms = if self.is_none() {
            other.first_ms
        } else {
            self.first_ms.min(other.first_ms)
        };
        self.last_ms = self.last_ms.max(other.last_ms);
        self.events = self.events.saturating_add(other.events);
        self.blocks = self.blocks.saturating_add(other.blocks);
    }
}

/// The spool's accounts; rewritten in the same batch as what they count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) head: Head,
    /// Sum of the stored blocks' costs.
    pub(crate) bytes: u64,
    /// Everything before is durable at the coordinator.
    pub(crate) acked: Position,
    /// All events ever lost.
    pub(crate) lost_events: u64,
    /// Losses that no loss record tells yet, by [`Cause::ALL`].
    pub(crate) untold: [Loss; 4],
    /// Blocks of earlier epochs from here on have to be moved to this epoch's chain, since another trail took
    /// their places at the coordinator.
    pub(crate) moving_from: Option<Position>,
}

impl Meta {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![META_VERSION];
        let mut numbers = vec![
            self.head.epoch,
            self.head.next_sequence,
            self.bytes,
            self.acked.epoch,
            self.acked.sequence,
            self.lost_events,
        ];
        for loss in &self.untold {
            numbers.extend([loss.events, loss.blocks, loss.first_ms, loss.last_ms]);
        }
        let moving = self.moving_from.unwrap_or(Position {
            epoch: u64::MAX,
            sequence: u64::MAX,
        });
        numbers.extend([moving.epoch, moving.sequence]);
        out.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        out.extend_from_slice(&self.head.digest);
        guard(META_KEY, out)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader(guarded(META_KEY, bytes)?);
        if read.u8()? != META_VERSION {
            return None;
        }
        let (epoch, next_sequence, bytes) = (read.u64()?, read.u64()?, read.u64()?);
        let acked = Position {
            epoch: read.u64()?,
            sequence: read.u64()?,
        };
        let lost_events = read.u64()?;
        let mut untold = [Loss::default(); 4];
        for loss in &mut untold {
            *loss = Loss {
                events: read.u64()?,
                blocks: read.u64()?,
                first_ms: read.u64()?,
                last_ms: read.u64()?,
            };
        }
        let moving = Position {
            epoch: read.u64()?,
            sequence: read.u64()?,
        };
        let digest = read.digest()?;
        read.end(Self {
            head: Head {
                epoch,
                next_sequence,
                digest,
            },
            bytes,
            acked,
            lost_events,
            untold,
            moving_from: (moving.epoch != u64::MAX).then_some(moving),
        })
    }
}

fn check(key: &[u8], content: &[u8]) -> [u8; 8] {
    let mut hash = sha2::Sha256::new();
    hash.update(key);
    hash.update(content);
    let digest: [u8; 32] = hash.finalize().into();
    let (short, _) = digest.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    *short
}

fn guard(key: &[u8], mut content: Vec<u8>) -> Vec<u8> {
    let sum = check(key, &content);
    content.extend_from_slice(&sum);
    content
}

fn guarded<'a>(key: &[u8], bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (content, sum) = bytes.split_last_chunk::<8>()?;
    (check(key, content) == *sum).then_some(content)
}

/// Takes numbers off the front of a slice; `None` when it is too short.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn digest(&mut self) -> Option<[u8; 32]> {
        self.take()
    }

    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    fn position() -> impl Strategy<Value = Position> {
        (any::<u64>(), any::<u64>()).prop_map(|(epoch, sequence)| Position { epoch, sequence })
    }

    #[test]
    fn a_spool_that_was_written_when_the_form_was_made_is_read_and_written_the_same_today() {
        let at = Position {
            epoch: 2,
            sequence: 5,
        };
        let facts = BlockFacts {
            severity: 3,
            cost: 400,
            events: 4,
            carried_events: 1,
            carried_blocks: 2,
            first_ms: 1_790_000_000_000,
            last_ms: 1_790_000_000_100,
        };
        let record = BlockRecord {
            facts,
            previous: [7; 32],
            body: b"a block".to_vec(),
        };
        let kept = |name, bytes: &[u8]| crate::fixture::kept(name, bytes);
        assert_eq!(read_block_key(&kept("spool-key.hex", &block_key(at))), Some(at));
        let block = kept("spool-block.hex", &record.to_bytes(at));
        assert_eq!(BlockRecord::from_bytes(at, &block), Some(record.clone()));
        let index = kept("spool-index.hex", &record.index_bytes(at));
        assert_eq!(read_index(&index_key(3, at), &index), Some(facts));
        for (name, moving_from) in [("spool-meta-1.hex", None), ("spool-meta-1-moving.hex", Some(at))] {
            let meta = Meta {
                head: Head {
                    epoch: 2,
                    next_sequence: 6,
                    digest: [9; 32],
                },
                bytes: 400,
                acked: at,
                lost_events: 3,
                untold: [Loss {
                    events: 1,
                    blocks: 1,
                    first_ms: 5,
                    last_ms: 6,
                }; 4],
                moving_from,
            };
            assert_eq!(Meta::from_bytes(&kept(name, &meta.to_bytes())), Some(meta));
        }
    }

    proptest! {
        #[test]
        fn keys_sort_as_positions_do_and_read_back(a in position(), b in position()) {
            prop_assert_eq!(block_key(a).cmp(&block_key(b)), a.cmp(&b));
            prop_assert_eq!(read_block_key(&block_key(a)), Some(a));
            prop_assert_eq!(read_index_key(&index_key(3, a)), Some((3, a)));
        }

        #[test]
        fn a_stored_block_reads_back_and_a_flipped_bit_is_noticed(
            at in position(), previous: [u8; 32], numbers: [u64; 6],
            body in proptest::collection::vec(any::<u8>(), 0..100),
            place: proptest::sample::Index, flip in 1u8..,
        ) {
            let facts = BlockFacts {
                severity: 2, cost: numbers[0], events: numbers[1], carried_events: numbers[2],
                carried_blocks: numbers[3], first_ms: numbers[4], last_ms: numbers[5],
            };
            let record = BlockRecord { facts, previous, body };
            let bytes = record.to_bytes(at);
            prop_assert_eq!(BlockRecord::from_bytes(at, &bytes), Some(record.clone()));
            prop_assert_eq!(read_index(&index_key(2, at), &record.index_bytes(at)), Some(facts));
            let mut flipped = bytes.clone();
            flipped[place.index(bytes.len())] ^= flip;
            prop_assert_eq!(BlockRecord::from_bytes(at, &flipped), None);
        }

        #[test]
        fn the_accounts_read_back(numbers: [u64; 6], digest: [u8; 32], moving in proptest::option::of(0u64..9)) {
            let [epoch, next_sequence, bytes, e, s, lost_events] = numbers;
            let mut untold = [Loss::default(); 4];
            untold[1] = Loss { events: e, blocks: s, first_ms: 1, last_ms: 2 };
            let meta = Meta {
                head: Head { epoch, next_sequence, digest }, bytes,
                acked: Position { epoch: e, sequence: s }, lost_events, untold,
                moving_from: moving.map(|epoch| Position { epoch, sequence: 4 }),
            };
            prop_assert_eq!(Meta::from_bytes(&meta.to_bytes()), Some(meta));
        }
    }
}
