//! From a plan to the elements of the kernel's maps. Pure.
//!
//! Order of precedence, the same as in `penstock_policy::verdict`: a tuple that is exactly one source, one
//! destination and one port wins over every range; among equals the first rule of the plan wins. The kernel looks
//! exact tuples up first, and the ranges are cut so that none overlaps another.
//!
//! Invariant: the blocks of a lowered plan that are not exact are pairwise disjoint, and there are at most
//! [`ELEMENTS_MAX`] of all; a plan that would need more is refused whole.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use penstock_policy::ids::FlowId;
use penstock_policy::plan::{Plan, Rule, Transport};

use super::block::{Address, Block, Carrier, Span};

/// The most elements that one gateway loads: what was measured to load in seconds, and a stop to products of
/// overlapping ranges that grow without bound.
pub const ELEMENTS_MAX: usize = 500_000;

/// What the kernel's maps hold for one plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elements {
    /// IPv4.
    pub v4: BTreeMap<Block<Ipv4Addr>, FlowId>,
    /// IPv6.
    pub v6: BTreeMap<Block<Ipv6Addr>, FlowId>,
    /// The numbers of all flows: an ICMP error passes if its connection was let through by one of these.
    pub live: BTreeSet<FlowId>,
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
pub fn lower(plan: &Plan) -> Result<Elements, LowerError> {
    let mut budget = ELEMENTS_MAX;
    Ok(Elements {
        v4: family::<Ipv4Addr>(plan, &mut budget)?,
        v6: family::<Ipv6Addr>(plan, &mut budget)?,
        live: plan.rules.iter().map(|rule| rule.id).collect(),
    })
}

fn family<A: Address>(plan: &Plan, budget: &mut usize) -> Result<BTreeMap<Block<A>, FlowId>, LowerError> {
    let mut placed = BTreeMap::new();
    let mut ranges = Vec::new();
    for rule in &plan.rules {
        for block in blocks::<A>(rule) {
            if !block.is_exact() {
                ranges.push((block, rule));
            } else if let Entry::Vacant(free) = placed.entry(block) {
                spend(budget, rule)?;
                free.insert(rule.id);
            }
        }
    }
    let mut covered = Covered::default();
    let (mut pieces, mut rest) = (Vec::new(), Vec::new());
    for (block, rule) in ranges {
        pieces.clear();
        pieces.push(block);
        for earlier in covered.overlapping(&block) {
            for piece in pieces.drain(..) {
                piece.minus(&earlier, &mut rest);
            }
            std::mem::swap(&mut pieces, &mut rest);
            if pieces.len() > *budget {
                return Err(too_many(rule));
            }
        }
        if !pieces.is_empty() {
            covered.add(block);
        }
        for piece in &pieces {
            spend(budget, rule)?;
            // A piece of one tuple goes to the exact map, where a rule that names that very tuple stays.
            placed.entry(*piece).or_insert(rule.id);
        }
    }
    Ok(placed)
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

/// The ranges so far, found by their destination.
///
/// Destinations are networks, so two of them are equal, nested or apart: those that overlap a given one either
/// begin within it, or are one of the few larger networks that contain it.
#[derive(Debug)]
struct Covered<A> {
    by_destination: BTreeMap<Span<A>, Vec<Block<A>>>,
    /// Prefix lengths that occur, so that only those are looked for.
    lengths: BTreeSet<u8>,
}

impl<A> Default for Covered<A> {
    fn default() -> Self {
        Self {
            by_destination: BTreeMap::new(),
            lengths: BTreeSet::new(),
        }
    }
}

impl<A: Address> Covered<A> {
    fn add(&mut self, block: Block<A>) {
        self.lengths.insert(A::prefix_length(block.destination));
        self.by_destination
            .entry(block.destination)
            .or_default()
            .push(block);
    }

    fn overlapping(&self, block: &Block<A>) -> Vec<Block<A>> {
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

#[cfg(test)]
mod tests;
