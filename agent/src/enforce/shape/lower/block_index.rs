//! Blocks of ranges that are found again by overlap, without a walk over all of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::enforce::shape::block::{Address, Block, Span};

/// Blocks of ranges, found by their destination.
///
/// Destinations are networks, so two of them are equal, nested or apart: those that overlap a given one either
/// begin within it, or are one of the few larger networks that contain it.
#[derive(Debug)]
pub(in crate::enforce) struct BlockIndex<A> {
    by_destination: BTreeMap<Span<A>, Vec<Block<A>>>,
    /// Prefix lengths that occur, so that only those are looked for.
    lengths: BTreeSet<u8>,
}

impl<A> Default for BlockIndex<A> {
    fn default() -> Self {
        Self {
            by_destination: BTreeMap::new(),
            lengths: BTreeSet::new(),
        }
    }
}

impl<A: Address> BlockIndex<A> {
    pub(in crate::enforce) fn add(&mut self, block: Block<A>) {
        self.lengths.insert(A::prefix_length(block.destination));
        self.by_destination
            .entry(block.destination)
            .or_default()
            .push(block);
    }

    /// Whether any overlaps `block`.
    pub(in crate::enforce) fn overlaps(&self, block: &Block<A>) -> bool {
        !self.by_destination.is_empty() && !self.overlapping(block).is_empty()
    }

    /// Those that overlap `block`, whose destination is a network.
    pub(in crate::enforce) fn overlapping(&self, block: &Block<A>) -> Vec<Block<A>> {
        let wanted = block.destination;
        let within = Span::one(wanted.first)..=Span::one(wanted.last);
        // A span sorts by its first address, then its last: the one that begins at the last address is that
        // address alone, and everything that begins in between lies inside.
        let inside = self.by_destination.range(within).map(|(_, blocks)| blocks);
        let length = A::prefix_length(wanted);
        let around = self.lengths.range(..length).filter_map(|length| {
            let network = A::enclosing(wanted.first, *length);
            // Those that begin where the wanted one does, and sort before its end, were found above.
            let found = network.first == wanted.first && network <= Span::one(wanted.last);
            (!found).then(|| self.by_destination.get(&network)).flatten()
        });
        inside
            .chain(around)
            .flatten()
            .filter(|earlier| earlier.overlaps(block))
            .copied()
            .collect()
    }
}
