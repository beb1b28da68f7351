//! Sets of addresses and of ports as sorted spans of numbers: the checker's own arithmetic.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::terms::PortRange;

/// Addresses from a first to a last, of one family (`true`: IPv4).
type Span = (bool, u128, u128);

/// A set of addresses; equal sets are equal values, however they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spans(Vec<Span>);

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn span(network: &IpNet) -> Span {
    let free_bits = u32::from(network.max_prefix_len() - network.prefix_len());
    let ones = u128::MAX.checked_shr(128 - free_bits).unwrap_or(0);
    let address = number(network.addr());
    (network.addr().is_ipv4(), address & !ones, address | ones)
}

impl Spans {
    /// All addresses of these networks.
    pub(super) fn of(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let mut spans: Vec<Span> = networks.into_iter().map(|network| span(&network)).collect();
        spans.sort_unstable();
        let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
        for (family, first, last) in spans {
            match merged.last_mut() {
                Some((of, _, end)) if *of == family && first <= end.saturating_add(1) => {
                    *end = (*end).max(last)
                }
                _ => merged.push((family, first, last)),
            }
        }
        Self(merged)
    }

    /// Whether the whole network is in the set.
    pub(super) fn hold(&self, network: &IpNet) -> bool {
        let (family, first, last) = span(network);
        self.last_from(family, first).is_some_and(|end| last <= end)
    }

    /// Whether any address of the network is in the set.
    pub(super) fn touch(&self, network: &IpNet) -> bool {
        self.touches(span(network))
    }

    fn touches(&self, (family, first, last): Span) -> bool {
        self.last_from(family, last).is_some_and(|end| first <= end)
    }

    /// Where the last span of a family ends that begins no later than at `number`: of sorted spans without overlap no earlier one
    /// reaches as far.
    fn last_from(&self, family: bool, number: u128) -> Option<u128> {
        let after = self
            .0
            .partition_point(|(of, begin, _)| (*of, *begin) <= (family, number));
        let (of, _, end) = self.0.get(after.checked_sub(1)?)?;
        (*of == family).then_some(*end)
    }

    /// Whether the two sets have an address in common.
    pub(super) fn meet(&self, other: &Self) -> bool {
        let (fewer, more) = if self.0.len() < other.0.len() {
            (self, other)
        } else {
            (other, self)
        };
        fewer.0.iter().any(|span| more.touches(*span))
    }
}

/// Ports as sorted spans without overlap.
pub(super) fn ports(ranges: &[PortRange]) -> Vec<(u16, u16)> {
    let mut spans: Vec<(u16, u16)> = ranges.iter().map(|range| (range.first, range.last)).collect();
    spans.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::with_capacity(spans.len());
    for (first, last) in spans {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Networks in a few addresses of both families, so that they often touch.
    fn networks() -> impl Strategy<Value = Vec<IpNet>> {
        let network = (any::<bool>(), 0_u8..32, 27_u8..=32).prop_filter_map("", |(v4, host, length)| {
            let text = match v4 {
                true => format!("10.0.0.{host}/{length}"),
                false => format!("fd00::{host:x}/{}", length + 96),
            };
            text.parse::<IpNet>().ok().map(|network| network.trunc())
        });
        prop::collection::vec(network, 0..8)
    }

    proptest! {
        #[test]
        fn spans_hold_touch_and_meet_as_their_addresses_do(ones in networks(), others in networks()) {
            let addresses = |list: &[IpNet]| -> std::collections::BTreeSet<IpAddr> {
                list.iter().flat_map(|network| (0..=u128::from(u8::MAX)).filter_map(|host| {
                    let first: u128 = number(network.network());
                    let address: IpAddr = match network {
                        IpNet::V4(_) => u32::try_from(first + host).map(std::net::Ipv4Addr::from).ok()?.into(),
                        IpNet::V6(_) => std::net::Ipv6Addr::from(first + host).into(),
                    };
                    network.contains(&address).then_some(address)
                })).collect()
            };
            let (spans, all) = (Spans::of(ones.iter().copied()), addresses(&ones));
            for network in &others {
                let of_it = addresses(&[*network]);
                prop_assert_eq!(spans.hold(network), of_it.is_subset(&all));
                prop_assert_eq!(spans.touch(network), !of_it.is_disjoint(&all));
            }
            let meet = !addresses(&others).is_disjoint(&all);
            prop_assert_eq!(spans.meet(&Spans::of(others.iter().copied())), meet);
        }
    }
}
