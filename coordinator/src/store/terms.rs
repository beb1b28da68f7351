//! The index of the trails by terms: the interface that an engine implements.
//!
//! A term is a number for something that an event names: an asset, a conduit, three letters of its text. The index holds, for
//! each *segment* of consecutive blocks, which of them have a term. Several things may share a number, so that a block that has the
//! term may hold what is asked for; one that does not have it does not hold it. Whoever asks looks into the blocks that are
//! left.
//!
//! The index covers the trails from their oldest block up to a place, and grows behind what is stored, so that no append waits for it. What it does
//! not cover is looked at block by block. It can be lost: it is made again from the blocks, and never holds anything else.
//!
//! Not here: which terms an event has (`query`).

use std::collections::HashMap;

use super::trail::StoredBlock;
pub use super::trail::Term;
use super::{Pending, StoreError};

/// Terms below this stand for three bytes of text each; there the index knows [`TEXT_BLOCKS`] blocks at once, and not each of
/// them.
pub const TEXT_TERMS: Term = 1 << 24;
/// Blocks of a segment, at most.
pub const SEGMENT_BLOCKS_MAX: usize = 1024;
/// With this many bytes in its blocks a segment has enough.
pub const SEGMENT_BYTES: u64 = 4 << 20;
/// Blocks that a term of text does not tell apart.
pub const TEXT_BLOCKS: usize = SEGMENT_BLOCKS_MAX / 16;

/// Some of the blocks of a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Members([u64; SEGMENT_BLOCKS_MAX / 64]);

impl Members {
    /// With the block at this place in the segment.
    pub fn insert(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    /// Their places, ascending.
    pub fn places(self) -> impl DoubleEndedIterator<Item = usize> {
        (0..SEGMENT_BLOCKS_MAX).filter(move |place| {
            self.0
                .get(place / 64)
                .is_some_and(|word| word >> (place % 64) & 1 == 1)
        })
    }

    /// Those that are also in `other`.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(one, other)| *one &= other);
        self
    }

    /// Those that are in either.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        self.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(one, other)| *one |= other);
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// As the index keeps those that have `term`: single ones as their places, many as bits, and of text only which groups.
    pub(super) fn encode(&self, term: Term) -> Vec<u8> {
        if term < TEXT_TERMS {
            let groups = self
                .places()
                .fold(0_u16, |groups, place| groups | 1 << (place / TEXT_BLOCKS));
            return groups.to_le_bytes().to_vec();
        }
        let mut bits: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        bits.truncate(
            bits.iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1),
        );
        let single: Vec<u8> = self
            .places()
            .filter_map(|place| u16::try_from(place).ok())
            .flat_map(u16::to_le_bytes)
            .collect();
        if single.len() < bits.len() {
            std::iter::once(0).chain(single).collect()
        } else {
            std::iter::once(1).chain(bits).collect()
        }
    }

    /// What was kept.
    pub(super) fn decode(term: Term, kept: &[u8]) -> Self {
        let mut members = Self::default();
        let pair = |pair: &[u8]| pair.try_into().map_or(0, u16::from_le_bytes);
        if term < TEXT_TERMS {
            let groups = pair(kept);
            for place in (0..SEGMENT_BLOCKS_MAX).filter(|place| groups >> (place / TEXT_BLOCKS) & 1 == 1) {
                members.insert(place);
            }
            return members;
        }
        match kept.split_first() {
            Some((0, single)) => single
                .chunks(2)
                .for_each(|place| members.insert(pair(place).into())),
            Some((_, bits)) => {
                for (byte, at) in bits.iter().zip(0..) {
                    for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                        members.insert(at * 8 + bit);
                    }
                }
            }
            None => {}
        }
        members
    }
}

/// Consecutive blocks behind all that the index covers.
#[derive(Debug, Clone)]
pub struct Unindexed {
    /// With their places in the segment to be.
    pub blocks: Vec<(usize, StoredBlock)>,
    pub(super) bounds: SegmentBounds,
}

/// From where to where a segment goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct SegmentBounds {
    /// Number of its first block, and of its last one.
    pub(super) blocks: (i64, i64),
    /// Times of its events, by their sources' clocks.
    pub(super) source_ms: (i64, i64),
    /// When its blocks came.
    pub(super) received_ms: (i64, i64),
    /// Digest of its last block: in another store another block has that number.
    pub(super) digest: [u8; 32],
}

/// Which blocks of a segment have which terms.
#[derive(Debug, Clone)]
pub struct Segment {
    pub(super) bounds: SegmentBounds,
    pub(super) postings: HashMap<Term, Members>,
}

impl Unindexed {
    /// With the terms of its blocks.
    pub fn with(&self, postings: HashMap<Term, Members>) -> Segment {
        Segment {
            bounds: self.bounds,
            postings,
        }
    }
}

/// An index by terms. An engine may be without one: then every block is looked at.
pub trait TermIndex {
    /// Opens the index, whose terms are made by the rules `form`; what was made by other rules, or of another store, is made again. Before
    /// that nothing is looked up in it.
    fn open_index<'a>(&'a self, _form: &'a str) -> Pending<'a, ()> {
        nothing()
    }

    /// The next `blocks_max` blocks, or fewer that have enough bytes for a segment; `None`: there are not so many yet.
    fn unindexed(&self, _blocks_max: usize) -> Pending<'_, Option<Unindexed>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Adds a segment. If another one was added since its blocks were read, nothing happens.
    fn index(&self, _segment: Segment) -> Pending<'_, ()> {
        nothing()
    }

    /// Removes what the index has of blocks that retention removed.
    fn prune_index(&self) -> Pending<'_, ()> {
        nothing()
    }
}

fn nothing<'a>() -> Pending<'a, ()> {
    Box::pin(std::future::ready(Ok::<(), StoreError>(())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 16))]
        #[test]
        fn what_is_kept_of_a_term_is_its_blocks_and_of_text_never_fewer(
            places in prop::collection::btree_set(0..SEGMENT_BLOCKS_MAX, 0..60),
            whole in any::<bool>(),
        ) {
            let mut members = Members::default();
            let all = 0..if whole { SEGMENT_BLOCKS_MAX } else { 0 };
            places.iter().copied().chain(all).for_each(|place| members.insert(place));
            let again = Members::decode(TEXT_TERMS, &members.encode(TEXT_TERMS));
            prop_assert_eq!(again, members);
            let text = Members::decode(7, &members.encode(7));
            prop_assert_eq!(text.and(&members), members);
            let group = |place: usize| place / TEXT_BLOCKS;
            prop_assert!(text.places().all(|place| members.places().any(|own| group(own) == group(place))));
        }
    }
}
