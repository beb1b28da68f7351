//! Adds what grants of remote access open to what stands open. Pure.
//!
//! The kernel ends a grant by the number of the flow (`render/granted.rs`). So a tuple has the number of a flow that hangs on a grant
//! exactly where those that stand open permit less than it does (nothing, or only what the inspector reads), and the number of one that
//! stands open everywhere else. Then what stands open outlives every grant, and what only a grant permits does not. Where both give a
//! tuple a course, and the grant's is the lesser one, the tuple ends with the grant until an agent comes: without one the inspector is
//! not there either, and what may pass unread without it is what `check` refuses in such company (PC0122).
//!
//! Of several that a grant opens and that permit as much, the one that names the tuple exactly comes first, then the first of the plan:
//! as in `penstock_policy::verdict`. Its grant is then the tuple's: where another lasts longer, the kernel by itself still ends the tuple
//! with the first, and the agent gives it to the other.

use std::collections::BTreeMap;

use penstock_policy::plan::Rule;

use super::block_index::BlockIndex;
use super::{Block, Course, Disposition, LowerError, blocks, spend, uncovered};
use crate::enforce::shape::block::Address;

/// What a tuple has so far, by the blocks of rules.
struct Above<A> {
    free: BlockIndex<A>,
    strict: BlockIndex<A>,
    inspected: BlockIndex<A>,
    /// All of these.
    ranges: BlockIndex<A>,
}

impl<A: Address> Above<A> {
    fn add(&mut self, block: Block<A>, course: Course) {
        self.ranges.add(block);
        match course {
            Course::Forward | Course::ForwardAmid => self.free.add(block),
            Course::Inspect => self.strict.add(block),
            Course::InspectOrForward => self.inspected.add(block),
        }
    }

    /// The least course that ranges give a tuple.
    fn course(&self, tuple: &Block<A>) -> Option<Course> {
        let courses = [
            (&self.free, Course::Forward),
            (&self.strict, Course::Inspect),
            (&self.inspected, Course::InspectOrForward),
        ];
        let mut courses = courses.into_iter();
        courses
            .find(|(ranges, _)| ranges.overlaps(tuple))
            .map(|(_, course)| course)
    }
}

/// Whether `course` lets more pass than what a tuple has.
fn permits_more(course: Course, has: Option<Course>) -> bool {
    let amid = |course| match course {
        Course::ForwardAmid => Course::Forward,
        other => other,
    };
    has.is_none_or(|has| amid(course) < amid(has))
}

pub(super) fn add<A: Address>(
    placed: &mut BTreeMap<Block<A>, Disposition>,
    standing: &[&Rule],
    granted: &[&Rule],
    budget: &mut usize,
) -> Result<(), LowerError> {
    let mut above = Above {
        free: BlockIndex::default(),
        strict: BlockIndex::default(),
        inspected: BlockIndex::default(),
        ranges: BlockIndex::default(),
    };
    // What stands open and is inspected, single tuples too: only there is anything to be changed.
    let mut read = BlockIndex::default();
    for rule in standing {
        let course = Course::of(rule);
        for block in blocks::<A>(rule) {
            if course > Course::Forward {
                read.add(block);
            }
            if !block.is_exact() {
                above.add(block, course);
            }
        }
    }
    let mut parts: Vec<(Course, bool, Block<A>, &Rule)> = granted
        .iter()
        .flat_map(|rule| {
            let part = |block: Block<A>| (Course::of(rule), !block.is_exact(), block, *rule);
            blocks::<A>(rule).map(part)
        })
        .collect();
    // What permits most comes first: whatever comes later finds its place taken.
    parts.sort_by_key(|(course, is_range, ..)| (*course, *is_range));
    let mut pieces = Vec::new();
    for (course, is_range, block, rule) in parts {
        let flow = rule.id;
        let new = Disposition { flow, course };
        if !is_range {
            let has = placed.get(&block).map(|there| there.course);
            let has = has.or_else(|| above.course(&block));
            if permits_more(course, has) {
                spend(budget, rule)?;
                placed.insert(block, new);
            }
            continue;
        }
        if read.overlaps(&block) {
            take_over(placed, &block, new, rule, budget)?;
        }
        uncovered(&above.ranges, block, rule, &mut pieces, *budget)?;
        above.add(block, course);
        for piece in pieces.drain(..) {
            spend(budget, rule)?;
            placed.entry(piece).or_insert(new);
        }
    }
    for (tuple, there) in placed {
        let is_amid = || above.strict.overlaps(tuple) || above.inspected.overlaps(tuple);
        if there.course == Course::Forward && tuple.is_exact() && is_amid() {
            there.course = Course::ForwardAmid;
        }
    }
    Ok(())
}

/// Gives what lies within `block`, and permits less, to `new`.
fn take_over<A: Address>(
    placed: &mut BTreeMap<Block<A>, Disposition>,
    block: &Block<A>,
    new: Disposition,
    rule: &Rule,
    budget: &mut usize,
) -> Result<(), LowerError> {
    let mut ranges = Vec::new();
    for (there, has) in placed.iter_mut() {
        if !permits_more(new.course, Some(has.course)) || !there.overlaps(block) {
            continue;
        }
        if there.is_exact() {
            *has = new;
        } else {
            ranges.push((*there, *has));
        }
    }
    let mut rest = Vec::new();
    for (range, has) in ranges {
        placed.remove(&range);
        range.minus(block, &mut rest);
        let within = range.meet(block).map(|within| (within, new));
        let outside = rest.drain(..).map(|outside| (outside, has));
        for (piece, placing) in within.into_iter().chain(outside) {
            spend(budget, rule)?;
            placed.entry(piece).or_insert(placing);
        }
    }
    Ok(())
}
