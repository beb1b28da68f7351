//! Sets of addresses and of ports as sorted spans of numbers: the checker's own arithmetic.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::plan::PortRange;

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
        self.0
            .iter()
            .any(|(of, begin, end)| *of == family && *begin <= first && last <= *end)
    }

    /// Whether any address of the network is in the set.
    pub(super) fn touch(&self, network: &IpNet) -> bool {
        let (family, first, last) = span(network);
        self.0
            .iter()
            .any(|(of, begin, end)| *of == family && *begin <= last && first <= *end)
    }

    /// Whether the two sets have an address in common.
    pub(super) fn meet(&self, other: &Self) -> bool {
        self.0.iter().any(|(family, first, last)| {
            other
                .0
                .iter()
                .any(|(of, begin, end)| of == family && begin <= last && first <= end)
        })
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
