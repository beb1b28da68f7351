//! Spans of addresses as interval sets want them: in order, merged where they touch or overlap. Pure.

use std::collections::BTreeMap;

use ipnet::IpNet;
use penstock_policy::plan::{Plan, PlanInterface};

use super::block::{Address, Span};

/// The spans of those sides that have such networks, merged where networks touch or overlap, as interval sets want them.
pub(in crate::enforce) fn sides<A: Address>(
    plan: &Plan,
    networks: impl Fn(&PlanInterface) -> Option<[&[IpNet]; 2]>,
) -> BTreeMap<String, Vec<Span<A>>> {
    let mut sides = BTreeMap::new();
    for interface in &plan.interfaces {
        let Some(networks) = networks(interface) else {
            continue;
        };
        let networks = networks.into_iter().flatten();
        let spans = networks.filter_map(|net| A::span(*net)).collect();
        sides.insert(interface.name.clone(), merged(spans));
    }
    sides
}

/// Spans in order, merged where they touch or overlap.
pub(in crate::enforce) fn merged<A: Address>(mut spans: Vec<Span<A>>) -> Vec<Span<A>> {
    spans.sort_unstable();
    let mut merged: Vec<Span<A>> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if last.last.next().is_none_or(|next| span.first <= next) => {
                last.last = last.last.max(span.last);
            }
            _ => merged.push(span),
        }
    }
    merged
}
