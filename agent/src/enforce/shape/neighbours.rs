//! What a bridged gateway knows of neighbours: who may speak on which side, who may look for whom, and whose MAC address is
//! where. Pure.
//!
//! Routed gateways need none of it: they are a router to each side, and answer for nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use penstock_policy::plan::{Endpoint, Observing, Plan, PlanInterface};
use penstock_policy::terms::Mac;

use super::block::{Address, Block, Carrier, Span};
use super::lower::block_index::BlockIndex;

/// What of a plan concerns neighbours on a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Neighbours {
    /// Sides from which nothing undeclared can go anywhere: all their zones enforce, and no other side is the same zone. What an
    /// override lets pass for a while opens its own ends there ([`Family::excepted`]), and not the side.
    pub closed: BTreeSet<String>,
    /// Pairs of sides all of whose zones observe.
    pub observed: BTreeSet<(String, String)>,
    /// What concerns IPv4.
    pub v4: Family<Ipv4Addr>,
    /// What concerns IPv6.
    pub v6: Family<Ipv6Addr>,
    /// MAC addresses that assets of each side are declared to have.
    pub macs: BTreeMap<String, BTreeSet<Mac>>,
}

/// One family's part, by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family<A> {
    /// Who has something to say to others than its own side: ends of flows, routers, and who speaks with the gateway itself.
    pub near: BTreeMap<String, Vec<Span<A>>>,
    /// Ends on other sides of flows that have an end on this one.
    pub far: BTreeMap<String, Vec<Span<A>>>,
    /// Declared routers.
    pub hops: BTreeMap<String, Vec<Span<A>>>,
    /// The MAC addresses that addresses are declared to have.
    pub hardware: BTreeMap<String, BTreeSet<(A, Mac)>>,
    /// What an override lets pass of a closed side: who is there is admitted, and what is recorded of it is not refused.
    pub excepted: BTreeMap<String, Vec<Span<A>>>,
    /// Pairs that a flow joins, opener first; disjoint.
    pub pairs: BTreeSet<(Span<A>, Span<A>)>,
}

impl<A> Default for Family<A> {
    fn default() -> Self {
        Self {
            near: BTreeMap::new(),
            far: BTreeMap::new(),
            hops: BTreeMap::new(),
            hardware: BTreeMap::new(),
            excepted: BTreeMap::new(),
            pairs: BTreeSet::new(),
        }
    }
}

impl Neighbours {
    /// Of a plan for a bridged gateway.
    pub(in crate::enforce) fn of(plan: &Plan) -> Self {
        let twin = |side: &&PlanInterface| {
            plan.interfaces
                .iter()
                .any(|other| other.name != side.name && other.zone == side.zone)
        };
        let closed = plan
            .interfaces
            .iter()
            .filter(|side| side.observing == Observing::Nothing || plan.excepted.contains_key(&side.name))
            .filter(|side| !twin(side))
            .map(|side| side.name.clone())
            .collect();
        let observing = |side: &&PlanInterface| side.observing == Observing::Everything;
        let observing: Vec<&String> = plan
            .interfaces
            .iter()
            .filter(observing)
            .map(|side| &side.name)
            .collect();
        let observed: BTreeSet<_> = observing
            .iter()
            .flat_map(|one| {
                observing
                    .iter()
                    .map(move |other| ((*one).clone(), (*other).clone()))
            })
            .collect();
        let macs = plan
            .interfaces
            .iter()
            .map(|side| {
                (
                    side.name.clone(),
                    side.hardware.iter().map(|one| one.mac).collect(),
                )
            })
            .collect();
        let v4 = |address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        };
        let v6 = |address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        };
        Self {
            observed,
            v4: Family::of(plan, &closed, v4),
            v6: Family::of(plan, &closed, v6),
            closed,
            macs,
        }
    }
}

impl<A: Address> Family<A> {
    fn of(plan: &Plan, closed: &BTreeSet<String>, own: impl Fn(IpAddr) -> Option<A>) -> Self {
        let sides = crate::enforce::shape::spans::sides::<A>(plan, |side| Some([&side.networks, &[]]));
        let mut family = Self::default();
        for side in &plan.interfaces {
            let hops: Vec<_> = side.routers.iter().filter_map(|net| A::span(*net)).collect();
            // Of a plan that does not know its routers (any address may be one), none is known by its address.
            let known = side.routers.iter().filter(|net| net.prefix_len() > 0);
            family
                .near
                .insert(side.name.clone(), known.filter_map(|net| A::span(*net)).collect());
            family.hops.insert(side.name.clone(), hops);
            family.far.insert(side.name.clone(), Vec::new());
            let hardware = side.hardware.iter();
            let hardware = hardware.filter_map(|one| Some((own(one.address)?, one.mac)));
            family.hardware.insert(side.name.clone(), hardware.collect());
        }
        for (side, networks) in plan.excepted.iter().filter(|(side, _)| closed.contains(*side)) {
            let spans: Vec<_> = networks.iter().filter_map(|net| A::span(*net)).collect();
            if let Some(near) = family.near.get_mut(side).filter(|_| !spans.is_empty()) {
                near.extend(&spans);
                family.excepted.insert(side.clone(), spans);
            }
        }
        // Who speaks with the gateway itself.
        let peers = plan
            .management
            .iter()
            .flat_map(|management| management.peers.iter().copied());
        let brokers = plan.bridges.iter().flat_map(|bridge| [&bridge.from, &bridge.to]);
        let own_peers = peers.chain(brokers.map(|broker| IpNet::from(broker.address)));
        for peer in own_peers.filter_map(A::span) {
            family.speaks(&sides, peer, None);
        }
        let mut ranges = Vec::new();
        for rule in &plan.rules {
            let spans = |ends: &[Endpoint]| -> Vec<Span<A>> {
                ends.iter().filter_map(|end| A::span(end.network)).collect()
            };
            let (sources, destinations) = (spans(&rule.sources), spans(&rule.destinations));
            for (these, those) in [(&sources, &destinations), (&destinations, &sources)] {
                let others: BTreeSet<&String> = those
                    .iter()
                    .flat_map(|end| of_sides(&sides, *end))
                    .map(|(side, _)| side)
                    .collect();
                for end in these {
                    for other in &others {
                        family.speaks(&sides, *end, Some(other));
                    }
                }
            }
            for source in &sources {
                for destination in &destinations {
                    if source.is_one() && destination.is_one() {
                        family.pairs.insert((*source, *destination));
                    } else {
                        ranges.push((*source, *destination));
                    }
                }
            }
        }
        family.cover(ranges);
        for spans in family
            .near
            .values_mut()
            .chain(family.far.values_mut())
            .chain(family.hops.values_mut())
        {
            *spans = crate::enforce::shape::spans::merged(std::mem::take(spans));
        }
        family
    }

    /// Notes that `end`, as far as it is on a side, speaks with `other` (with the gateway itself, if there is none).
    fn speaks(&mut self, sides: &BTreeMap<String, Vec<Span<A>>>, end: Span<A>, other: Option<&String>) {
        for (side, part) in of_sides(sides, end) {
            if other == Some(side) {
                continue;
            }
            if let Some(near) = self.near.get_mut(side) {
                near.push(part);
            }
            if let Some(far) = other.and_then(|other| self.far.get_mut(other)) {
                far.push(part);
            }
        }
    }

    /// Adds pairs of networks, each cut by those before it, so that they are disjoint.
    fn cover(&mut self, mut ranges: Vec<(Span<A>, Span<A>)>) {
        ranges.sort_unstable();
        ranges.dedup();
        let mut covered = BlockIndex::default();
        let (mut pieces, mut rest) = (Vec::new(), Vec::new());
        for (source, destination) in ranges {
            let block = Block {
                source,
                destination,
                carrier: Carrier::Echo,
                ports: Span::one(0),
            };
            pieces.clear();
            pieces.push(block);
            for earlier in covered.overlapping(&block) {
                for piece in pieces.drain(..) {
                    Block::minus(piece, &earlier, &mut rest);
                }
                std::mem::swap(&mut pieces, &mut rest);
            }
            if !pieces.is_empty() {
                covered.add(block);
            }
            self.pairs
                .extend(pieces.iter().map(|piece| (piece.source, piece.destination)));
        }
    }
}

/// The parts of `wanted` that are on sides.
fn of_sides<A: Address>(
    sides: &BTreeMap<String, Vec<Span<A>>>,
    wanted: Span<A>,
) -> impl Iterator<Item = (&String, Span<A>)> {
    sides.iter().flat_map(move |(side, spans)| {
        let begin = spans.partition_point(|span| span.last < wanted.first);
        let rest = spans.get(begin..).unwrap_or_default().iter();
        rest.map_while(move |span| span.meet(wanted))
            .map(move |part| (side, part))
    })
}

#[cfg(test)]
mod tests {
    use penstock_policy::overrides::{Effect, overridden};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]
        #[test]
        fn two_addresses_are_joined_exactly_if_a_flow_joins_them_and_pairs_do_not_overlap(
            plan in penstock_policy::arbitrary::plans(),
        ) {
            let pairs = Neighbours::of(&plan).v4.pairs;
            let ends = |ends: &[Endpoint]| -> Vec<Span<Ipv4Addr>> {
                ends.iter().filter_map(|end| Address::span(end.network)).collect()
            };
            let rules: Vec<_> = plan.rules.iter().map(|rule| (ends(&rule.sources), ends(&rule.destinations))).collect();
            let some: BTreeSet<Ipv4Addr> = rules
                .iter()
                .flat_map(|(sources, destinations)| sources.iter().chain(destinations))
                .flat_map(|span| [span.first, span.last])
                .collect();
            for one in &some {
                for other in &some {
                    let holds = |spans: &[Span<Ipv4Addr>], address: &Ipv4Addr| {
                        spans.iter().any(|span| (span.first..=span.last).contains(address))
                    };
                    let joined = rules.iter().any(|(from, to)| holds(from, one) && holds(to, other));
                    let found: Vec<_> = pairs
                        .iter()
                        .filter(|(from, to)| holds(&[*from], one) && holds(&[*to], other))
                        .collect();
                    prop_assert_eq!(joined, !found.is_empty(), "{} {}", one, other);
                    let ranges = found.iter().filter(|(from, to)| !(from.is_one() && to.is_one()));
                    prop_assert!(ranges.count() <= 1, "{:?}", found);
                }
            }
        }

        #[test]
        fn what_an_override_observes_closes_and_opens_no_side_and_admits_nobody_but_whom_it_names(
            plan in penstock_policy::arbitrary::plans(),
        ) {
            let [one, other] = [plan.interfaces.first(), plan.interfaces.last()]
                .map(|side| side.and_then(|side| side.networks.first()).copied());
            let Some((one, other)) = one.zip(other) else { return Ok(()) };
            let after = overridden(&plan, &[Effect::Observe { one, other }]);
            let (before, after) = (Neighbours::of(&plan), Neighbours::of(&after));
            prop_assert_eq!(&before.closed, &after.closed);
            prop_assert_eq!(&before.v4.hardware, &after.v4.hardware);
            for (side, spans) in &after.v4.near {
                let was = &before.v4.near[side];
                prop_assert!(after.closed.contains(side) || spans == was);
                for address in spans.iter().flat_map(|span| [span.first, span.last]) {
                    let is_named = [one, other].iter().any(|net| net.contains(&IpAddr::V4(address)));
                    let was_near = was.iter().any(|span| (span.first..=span.last).contains(&address));
                    prop_assert!(is_named || was_near, "{} on {}", address, side);
                }
            }
        }
    }
}
