//! The maps of tuples in `table inet`: which there are, which hold a block, and what one has that another has not.

use std::collections::BTreeMap;

use crate::enforce::shape::block::{Address, Block, Carrier};
use crate::enforce::shape::lower::{Course, Disposition};

/// A map, or a set, of tuples in `table inet`; there is one per family, named with the family's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::enforce) struct Map {
    /// Its name without the family's number.
    pub(in crate::enforce) name: &'static str,
    /// Whether its entries lead to flow numbers.
    pub(in crate::enforce) flows: bool,
    /// Whether its entries are pairs of addresses alone.
    pub(in crate::enforce) pairs: bool,
    /// Whether its entries are intervals.
    pub(in crate::enforce) intervals: bool,
}

impl Map {
    const fn of_flows(name: &'static str, intervals: bool) -> Self {
        Self {
            name,
            flows: true,
            pairs: false,
            intervals,
        }
    }

    /// What an entry leads to, as the kernel has it: marks are in the byte order of the machine.
    pub(in crate::enforce) fn data(&self, placed: Disposition) -> Vec<u8> {
        if self.flows {
            placed.flow.0.to_ne_bytes().to_vec()
        } else {
            Vec::new()
        }
    }

    const fn of_echo(name: &'static str, intervals: bool) -> Self {
        Self {
            pairs: true,
            ..Self::of_flows(name, intervals)
        }
    }

    /// The same keys, without what they lead to.
    const fn as_set(self) -> Self {
        Self { flows: false, ..self }
    }

    const fn of_tuples(name: &'static str, intervals: bool) -> Self {
        Self {
            flows: false,
            ..Self::of_flows(name, intervals)
        }
    }
}

/// Tuples that are forwarded.
const EXACT: Map = Map::of_flows("exact", false);
const RANGES: Map = Map::of_flows("ranges", true);
const ECHO: Map = Map::of_echo("echo", false);
const ECHO_RANGES: Map = Map::of_echo("echo_ranges", true);
/// Tuples that go to the inspector.
const INSPECTED: Map = Map::of_tuples("inspected", false);
const INSPECTED_RANGES: Map = Map::of_tuples("inspected_ranges", true);
/// Tuples amid inspected ranges that do not.
const SPARED: Map = Map::of_tuples("spared", false);
/// Tuples that go to the inspector, and are forwarded while there is none.
const UNATTENDED: Map = Map::of_flows("unattended", false);
const UNATTENDED_RANGES: Map = Map::of_flows("unattended_ranges", true);

/// All maps of a family.
pub(in crate::enforce) const MAPS: [Map; 9] = [
    EXACT,
    RANGES,
    ECHO,
    ECHO_RANGES,
    INSPECTED,
    INSPECTED_RANGES,
    SPARED,
    UNATTENDED,
    UNATTENDED_RANGES,
];

/// The maps that a plan in its shadow is asked for, as sets: which of its flows permits a packet makes no difference there.
pub(in crate::enforce) const MAPS_SHADOWED: [Map; 6] = [
    EXACT.as_set(),
    RANGES.as_set(),
    ECHO.as_set(),
    ECHO_RANGES.as_set(),
    INSPECTED,
    INSPECTED_RANGES,
];

/// The maps that hold a block.
pub(in crate::enforce) fn maps_of<A: Address>(block: &Block<A>, course: Course) -> &'static [Map] {
    match (block.carrier, block.is_exact(), course) {
        (Carrier::Echo, true, Course::Forward | Course::ForwardAmid) => &[ECHO],
        (Carrier::Echo, false, Course::Forward | Course::ForwardAmid) => &[ECHO_RANGES],
        // No inspector reads them, and without one they are not permitted.
        (Carrier::Echo, ..) => &[],
        (_, true, Course::Forward) => &[EXACT],
        (_, true, Course::ForwardAmid) => &[EXACT, SPARED],
        (_, true, Course::Inspect) => &[INSPECTED],
        (_, true, Course::InspectOrForward) => &[INSPECTED, UNATTENDED],
        (_, false, Course::Forward | Course::ForwardAmid) => &[RANGES],
        (_, false, Course::Inspect) => &[INSPECTED_RANGES],
        (_, false, Course::InspectOrForward) => &[INSPECTED_RANGES, UNATTENDED_RANGES],
    }
}

/// What one map has and the other has not, in one walk along both: a change of one flow among many must be quick.
pub(in crate::enforce) fn only_in<'a, A: Address>(
    these: &'a BTreeMap<Block<A>, Disposition>,
    those: &BTreeMap<Block<A>, Disposition>,
) -> Vec<(&'a Block<A>, &'a Disposition)> {
    let mut others = those.iter().peekable();
    let missing = |entry: &(&Block<A>, &Disposition)| {
        while others.next_if(|other| other < entry).is_some() {}
        others.peek() != Some(entry)
    };
    these.iter().filter(missing).collect()
}
