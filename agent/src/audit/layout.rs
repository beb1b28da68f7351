//! What the records of the audit spool hold, byte for byte; how they stand in segments is the log's ([`crate::log::frame`]).
//!
//! Blocks of one severity stand in one log, in the order of the trail:
//!
//! ```text
//! segment:  start, block …
//! start:    1 | place | totals | time of the first event (8)
//! block:    2 | place | totals | severity (1) | facts (5 × 8) | digest before it (32) | body
//! place:    epoch (8) | sequence (8)
//! totals:   what was put into this log before: blocks | events | events and blocks carried | last time (8 each)
//! ```
//!
//! The totals number the blocks of a log without a gap. So whoever reads past a damaged or a missing place sees how many blocks
//! and events are not there.

use penstock_proto::audit::block_digest;

use crate::log::frame::{FRAME_BYTES, HEADER_BYTES};

/// A place in the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Chain number.
    pub epoch: u64,
    /// Block within it.
    pub sequence: u64,
}

impl Position {
    /// The place behind this one.
    pub(super) fn after(self) -> Self {
        Self {
            sequence: self.sequence.saturating_add(1),
            ..self
        }
    }
}

/// What shedding has to know of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BlockFacts {
    /// The severity that all its events share.
    pub(crate) severity: u8,
    /// Its events, without loss records and seals.
    pub(crate) events: u64,
    /// Events and blocks that its loss records account for: shedding it must not forget them.
    pub(crate) carried_events: u64,
    pub(crate) carried_blocks: u64,
    /// Time of its first and last event.
    pub(crate) first_ms: u64,
    pub(crate) last_ms: u64,
}

impl BlockFacts {
    /// Whether it holds nothing but seals, which need none.
    pub(super) fn is_of_seals(&self) -> bool {
        (self.events, self.carried_events, self.carried_blocks) == (0, 0, 0)
    }

    /// The block, counted.
    fn sum(&self) -> Sum {
        Sum {
            blocks: 1,
            events: self.events,
            carried_events: self.carried_events,
            carried_blocks: self.carried_blocks,
        }
    }

    /// What is lost when the block goes.
    pub(super) fn loss(&self) -> Loss {
        self.sum().loss(self.first_ms, self.last_ms)
    }
}

/// Some blocks of one log, counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sum {
    pub(crate) blocks: u64,
    /// As in [`BlockFacts`].
    pub(crate) events: u64,
    pub(crate) carried_events: u64,
    pub(crate) carried_blocks: u64,
}

impl Sum {
    /// These without `others`.
    pub(super) fn without(&self, others: &Self) -> Self {
        Self {
            blocks: self.blocks.saturating_sub(others.blocks),
            events: self.events.saturating_sub(others.events),
            carried_events: self.carried_events.saturating_sub(others.carried_events),
            carried_blocks: self.carried_blocks.saturating_sub(others.carried_blocks),
        }
    }

    /// These and `others`.
    pub(super) fn with(&self, others: &Self) -> Self {
        Self {
            blocks: self.blocks.saturating_add(others.blocks),
            events: self.events.saturating_add(others.events),
            carried_events: self.carried_events.saturating_add(others.carried_events),
            carried_blocks: self.carried_blocks.saturating_add(others.carried_blocks),
        }
    }

    /// What is lost when they go.
    pub(super) fn loss(&self, first_ms: u64, last_ms: u64) -> Loss {
        Loss {
            events: self.events.saturating_add(self.carried_events),
            blocks: self.blocks.saturating_add(self.carried_blocks),
            first_ms,
            last_ms,
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put(
            out,
            &[self.blocks, self.events, self.carried_events, self.carried_blocks],
        );
    }

    pub(super) fn read(read: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            blocks: read.u64()?,
            events: read.u64()?,
            carried_events: read.u64()?,
            carried_blocks: read.u64()?,
        })
    }
}

/// All that was put into a log up to some place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) sum: Sum,
    /// Time of the last event.
    pub(crate) last_ms: u64,
}

impl Totals {
    /// With one more block.
    pub(super) fn with(&self, facts: &BlockFacts) -> Self {
        Self {
            sum: self.sum.with(&facts.sum()),
            last_ms: self.last_ms.max(facts.last_ms),
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        self.sum.write(out);
        put(out, &[self.last_ms]);
    }

    pub(super) fn read(read: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            sum: Sum::read(read)?,
            last_ms: read.u64()?,
        })
    }
}

/// How a segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    /// The place of its first block.
    pub(crate) at: Position,
    /// What the log had taken before.
    pub(crate) before: Totals,
    /// Time of its first event.
    pub(crate) first_ms: u64,
}

/// A stored block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredBlock {
    pub(crate) at: Position,
    /// What its log had taken before it.
    pub(crate) before: Totals,
    pub(crate) facts: BlockFacts,
    /// The digest of the block before it in the chain.
    pub(crate) previous: [u8; 32],
    pub(crate) body: Vec<u8>,
}

/// A record of a severity's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Start(Start),
    Block(StoredBlock),
}

/// What a segment takes beside its blocks.
pub(super) const START_BYTES: u64 = (HEADER_BYTES + FRAME_BYTES + 1 + 16 + 40 + 8) as u64;

/// What a block of `body_bytes` takes in a segment.
pub(super) fn cost_of(body_bytes: usize) -> u64 {
    (FRAME_BYTES + 1 + 16 + 40 + 41 + 32 + body_bytes) as u64
}

impl Start {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut out = vec![1];
        put(&mut out, &[self.at.epoch, self.at.sequence]);
        self.before.write(&mut out);
        put(&mut out, &[self.first_ms]);
        out
    }
}

impl StoredBlock {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(130_usize.saturating_add(self.body.len()));
        out.push(2);
        put(&mut out, &[self.at.epoch, self.at.sequence]);
        self.before.write(&mut out);
        let facts = &self.facts;
        out.push(facts.severity);
        put(
            &mut out,
            &[
                facts.events,
                facts.carried_events,
                facts.carried_blocks,
                facts.first_ms,
                facts.last_ms,
            ],
        );
        out.extend_from_slice(&self.previous);
        out.extend_from_slice(&self.body);
        out
    }

    /// How a segment begins that begins with it.
    pub(super) fn start(&self) -> Start {
        Start {
            at: self.at,
            before: self.before,
            first_ms: self.facts.first_ms,
        }
    }

    /// Its digest in the chain.
    pub(super) fn digest(&self) -> [u8; 32] {
        block_digest(&self.previous, self.at.epoch, self.at.sequence, &self.body)
    }

    /// What its log had taken with it.
    pub(super) fn after(&self) -> Totals {
        self.before.with(&self.facts)
    }
}

impl Record {
    /// The record with this body; `None`: it is none that is known here.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader(bytes);
        let kind = read.u8()?;
        let at = read.position()?;
        let before = Totals::read(&mut read)?;
        match kind {
            1 => {
                let first_ms = read.u64()?;
                read.end(Self::Start(Start { at, before, first_ms }))
            }
            2 => {
                let facts = BlockFacts {
                    severity: read.u8()?,
                    events: read.u64()?,
                    carried_events: read.u64()?,
                    carried_blocks: read.u64()?,
                    first_ms: read.u64()?,
                    last_ms: read.u64()?,
                };
                Some(Self::Block(StoredBlock {
                    at,
                    before,
                    facts,
                    previous: read.digest()?,
                    body: read.0.to_vec(),
                }))
            }
            _ => None,
        }
    }
}

pub(super) fn put(out: &mut Vec<u8>, numbers: &[u64]) {
    out.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
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

/// Events lost to one cause and not yet reported in the trail.
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

impl Loss {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put(out, &[self.events, self.blocks, self.first_ms, self.last_ms]);
    }

    pub(super) fn read(read: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            events: read.u64()?,
            blocks: read.u64()?,
            first_ms: read.u64()?,
            last_ms: read.u64()?,
        })
    }
}

/// Takes numbers off the front of a slice; `None` when it is too short.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn digest(&mut self) -> Option<[u8; 32]> {
        self.take()
    }

    pub(super) fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }

    pub(super) fn position(&mut self) -> Option<Position> {
        Some(Position {
            epoch: self.u64()?,
            sequence: self.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    fn totals(numbers: [u64; 5]) -> Totals {
        let [blocks, events, carried_events, carried_blocks, last_ms] = numbers;
        let sum = Sum {
            blocks,
            events,
            carried_events,
            carried_blocks,
        };
        Totals { sum, last_ms }
    }

    fn block(at: Position, before: Totals, numbers: [u64; 5], body: Vec<u8>) -> StoredBlock {
        let [events, carried_events, carried_blocks, first_ms, last_ms] = numbers;
        let facts = BlockFacts {
            severity: 3,
            events,
            carried_events,
            carried_blocks,
            first_ms,
            last_ms,
        };
        StoredBlock {
            at,
            before,
            facts,
            previous: [7; 32],
            body,
        }
    }

    #[test]
    fn records_that_were_written_when_the_form_was_made_are_read_and_written_the_same_today() {
        let at = Position {
            epoch: 2,
            sequence: 5,
        };
        let before = totals([9, 30, 1, 2, 1_790_000_000_000]);
        let block = block(
            at,
            before,
            [4, 1, 2, 1_790_000_000_000, 1_790_000_000_100],
            b"a block".to_vec(),
        );
        let kept = crate::fixture::kept("trail-block.hex", &block.to_bytes());
        assert_eq!(Record::from_bytes(&kept), Some(Record::Block(block.clone())));
        let kept = crate::fixture::kept("trail-start.hex", &block.start().to_bytes());
        assert_eq!(Record::from_bytes(&kept), Some(Record::Start(block.start())));
    }

    proptest! {
        #[test]
        fn a_record_reads_back_and_costs_what_it_takes(
            place: [u64; 2], before: [u64; 5], facts: [u64; 5], body in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let [epoch, sequence] = place;
            let block = block(Position { epoch, sequence }, totals(before), facts, body);
            let bytes = block.to_bytes();
            prop_assert_eq!((bytes.len() + FRAME_BYTES) as u64, cost_of(block.body.len()));
            prop_assert_eq!(Record::from_bytes(&bytes), Some(Record::Block(block.clone())));
            let start = block.start().to_bytes();
            prop_assert_eq!((start.len() + FRAME_BYTES + HEADER_BYTES) as u64, START_BYTES);
            prop_assert_eq!(Record::from_bytes(&start), Some(Record::Start(block.start())));
            prop_assert_eq!(Record::from_bytes(&start[1..]), None);
        }
    }
}
