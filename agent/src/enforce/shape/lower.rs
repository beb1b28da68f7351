//! From a plan to the elements of the kernel's maps. Pure.
//!
//! Order of precedence, the same as in `penstock_policy::verdict`: a tuple that is exactly one source, one
//! destination and one port wins over every range; among equals the first rule of the plan wins. The kernel looks
//! exact tuples up first, and the ranges are cut so that none overlaps another.
//!
//! A tuple is inspected if all rules that permit it name operations, or end its TLS (`penstock_policy::verdict::permitted`): a rule
//! with neither lets it through unread, whichever of them its flow number is. While no inspector lives, an inspected
//! tuple is forwarded if all of its rules say so.
//!
//! Rules whose conduit no grant of remote access opens now are not there. What a grant opens is added to what stands open, and takes
//! nothing over from it (`granted`).
//!
//! Invariant: the blocks of a lowered plan that are not exact are pairwise disjoint, and there are at most
//! [`ELEMENTS_MAX`] of all; a plan that would need more is refused whole.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use penstock_policy::ids::FlowId;
use penstock_policy::plan::{Plan, Rule};
use penstock_policy::terms::{OnAgentLoss, Transport};

use self::block_index::BlockIndex;
use super::block::{Address, Block, Carrier, Span};

pub(in crate::enforce) mod block_index;
mod granted;

/// The most elements that one gateway loads: what was measured to load in seconds, and a stop to products of
/// overlapping ranges that grow without bound.
pub const ELEMENTS_MAX: usize = 500_000;

/// What becomes of a tuple's packets. Of two rules, the lesser course is the tuple's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Course {
    /// Forwarded.
    Forward,
    /// Forwarded: a single tuple amid a range that is inspected.
    ForwardAmid,
    /// To the inspector, and nowhere while there is none.
    Inspect,
    /// To the inspector, and forwarded while there is none.
    InspectOrForward,
}

impl Course {
    fn of(rule: &Rule) -> Self {
        match (rule.is_carried(), rule.on_agent_loss) {
            (false, _) => Self::Forward,
            (true, OnAgentLoss::Block) => Self::Inspect,
            (true, OnAgentLoss::Pass) => Self::InspectOrForward,
        }
    }
}

/// What a block of tuples comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disposition {
    /// The flow that permits it.
    pub flow: FlowId,
    /// What becomes of it.
    pub course: Course,
}

/// What the kernel's maps hold for one plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elements {
    /// IPv4.
    pub v4: BTreeMap<Block<Ipv4Addr>, Disposition>,
    /// IPv6.
    pub v6: BTreeMap<Block<Ipv6Addr>, Disposition>,
}

/// Why a plan cannot be lowered.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LowerError {
    /// Overlapping ranges or products of lists come to too many elements.
    #[error(
        "the plan needs more than {ELEMENTS_MAX} kernel entries (reached at flow {flow}): name networks instead of \
         lists of hosts, or let ranges of different flows not overlap"
    )]
    TooMany {
        /// The flow at which the limit was reached.
        flow: String,
    },
}

/// Lowers all rules of `plan`.
///
/// # Errors
/// The rules come to more entries than the kernel is given; the error names the flow at which the limit was reached.
pub fn lower(plan: &Plan) -> Result<Elements, LowerError> {
    let mut budget = ELEMENTS_MAX;
    Ok(Elements {
        v4: family::<Ipv4Addr>(plan, &mut budget)?,
        v6: family::<Ipv6Addr>(plan, &mut budget)?,
    })
}

fn family<A: Address>(
    plan: &Plan,
    budget: &mut usize,
) -> Result<BTreeMap<Block<A>, Disposition>, LowerError> {
    let (granted, standing): (Vec<&Rule>, Vec<&Rule>) = plan
        .open_rules()
        .partition(|rule| plan.grants.contains_key(&rule.conduit));
    let mut placed = disjoint(&standing, budget)?;
    if !granted.is_empty() {
        granted::add(&mut placed, &standing, &granted, budget)?;
    }
    // It is kept for as long as the plan is in force: collected again from what is in order, it has no spare room.
    Ok(placed.into_iter().collect())
}

/// What rules come to that all hold at the same time.
fn disjoint<A: Address>(
    rules: &[&Rule],
    budget: &mut usize,
) -> Result<BTreeMap<Block<A>, Disposition>, LowerError> {
    let mut placed: BTreeMap<Block<A>, Disposition> = BTreeMap::new();
    let mut ranges = Vec::new();
    for rule in rules {
        let course = Course::of(rule);
        for block in blocks::<A>(rule) {
            if !block.is_exact() {
                ranges.push((block, *rule));
            } else if let Some(there) = placed.get_mut(&block) {
                there.course = there.course.min(course);
            } else {
                spend(budget, rule)?;
                let flow = rule.id;
                placed.insert(block, Disposition { flow, course });
            }
        }
    }
    let courses = Courses::of(rules, &ranges);
    courses.settle(&mut placed);
    let mut covered = BlockIndex::default();
    let mut pieces = Vec::new();
    for (block, rule) in ranges {
        uncovered(&covered, block, rule, &mut pieces, *budget)?;
        if !pieces.is_empty() {
            covered.add(block);
        }
        for (piece, course) in courses.part(&block, &pieces, rule, *budget)? {
            spend(budget, rule)?;
            // A piece of one tuple goes to the exact map, where a rule that names that very tuple stays.
            let flow = rule.id;
            placed.entry(piece).or_insert(Disposition { flow, course });
        }
    }
    Ok(placed)
}

/// The pieces of a rule's block that no earlier one covers.
fn uncovered<A: Address>(
    covered: &BlockIndex<A>,
    block: Block<A>,
    rule: &Rule,
    pieces: &mut Vec<Block<A>>,
    budget: usize,
) -> Result<(), LowerError> {
    let mut rest = Vec::new();
    pieces.clear();
    pieces.push(block);
    for earlier in covered.overlapping(&block) {
        for piece in pieces.drain(..) {
            piece.minus(&earlier, &mut rest);
        }
        std::mem::swap(pieces, &mut rest);
        if pieces.len() > budget {
            return Err(too_many(rule));
        }
    }
    Ok(())
}

/// The ranges of rules, by what becomes of them.
struct Courses<A> {
    /// What is forwarded.
    free: BlockIndex<A>,
    /// What is inspected, and blocked without an inspector.
    strict: BlockIndex<A>,
    /// All that is inspected.
    inspected: BlockIndex<A>,
}

impl<A: Address> Courses<A> {
    fn of(rules: &[&Rule], ranges: &[(Block<A>, &Rule)]) -> Self {
        let mut courses = Self {
            free: BlockIndex::default(),
            strict: BlockIndex::default(),
            inspected: BlockIndex::default(),
        };
        if !rules.iter().any(|rule| rule.is_carried()) {
            return courses;
        }
        for (block, rule) in ranges {
            match Course::of(rule) {
                Course::Forward | Course::ForwardAmid => courses.free.add(*block),
                Course::Inspect => {
                    courses.strict.add(*block);
                    courses.inspected.add(*block);
                }
                Course::InspectOrForward => courses.inspected.add(*block),
            }
        }
        courses
    }

    /// Gives single tuples the course that ranges around them give them.
    fn settle(&self, placed: &mut BTreeMap<Block<A>, Disposition>) {
        for (tuple, Disposition { course, .. }) in placed {
            if *course > Course::Forward && self.free.overlaps(tuple) {
                *course = Course::Forward;
            } else if *course > Course::Inspect && self.strict.overlaps(tuple) {
                *course = Course::Inspect;
            }
            if *course == Course::Forward && self.inspected.overlaps(tuple) {
                *course = Course::ForwardAmid;
            }
        }
    }

    /// Cuts the pieces of one of a rule's ranges where other rules give them another course.
    fn part(
        &self,
        range: &Block<A>,
        pieces: &[Block<A>],
        rule: &Rule,
        budget: usize,
    ) -> Result<Vec<(Block<A>, Course)>, LowerError> {
        let course = Course::of(rule);
        let mut parts: Vec<_> = pieces.iter().map(|piece| (*piece, course)).collect();
        for (others, lesser) in [(&self.free, Course::Forward), (&self.strict, Course::Inspect)] {
            if course <= lesser {
                break;
            }
            for other in others.overlapping(range) {
                let (mut cut, mut rest) = (Vec::with_capacity(parts.len()), Vec::new());
                for (part, course) in parts {
                    if course <= lesser {
                        cut.push((part, course));
                        continue;
                    }
                    cut.extend(part.meet(&other).map(|within| (within, lesser)));
                    part.minus(&other, &mut rest);
                    cut.extend(rest.drain(..).map(|outside| (outside, course)));
                }
                parts = cut;
                if parts.len() > budget {
                    return Err(too_many(rule));
                }
            }
        }
        Ok(parts)
    }
}

fn spend(budget: &mut usize, rule: &Rule) -> Result<(), LowerError> {
    *budget = budget.checked_sub(1).ok_or_else(|| too_many(rule))?;
    Ok(())
}

fn too_many(rule: &Rule) -> LowerError {
    LowerError::TooMany {
        flow: format!("{}/{}", rule.conduit, rule.flow),
    }
}

/// The blocks of one rule in one family: sources × destinations × ports.
fn blocks<A: Address>(rule: &Rule) -> impl Iterator<Item = Block<A>> {
    let none = Span::one(0);
    let (carrier, ports): (Carrier, Vec<Span<u16>>) = match &rule.transport {
        Transport::Tcp(list) => (
            Carrier::Tcp,
            list.iter()
                .map(|p| Span {
                    first: p.first,
                    last: p.last,
                })
                .collect(),
        ),
        Transport::Udp(list) => (
            Carrier::Udp,
            list.iter()
                .map(|p| Span {
                    first: p.first,
                    last: p.last,
                })
                .collect(),
        ),
        Transport::IcmpEcho => (Carrier::Echo, vec![none]),
    };
    let sources: Vec<Span<A>> = rule
        .sources
        .iter()
        .filter_map(|end| A::span(end.network))
        .collect();
    let destinations: Vec<Span<A>> = rule
        .destinations
        .iter()
        .filter_map(|end| A::span(end.network))
        .collect();
    sources.into_iter().flat_map(move |source| {
        let ports = ports.clone();
        destinations.clone().into_iter().flat_map(move |destination| {
            let ports = ports.clone();
            ports.into_iter().map(move |ports| Block {
                source,
                destination,
                carrier,
                ports,
            })
        })
    })
}

#[cfg(test)]
mod tests;
