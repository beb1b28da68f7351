//! The addresses whose zones only observe, whatever side they are on: between two of them the inspector takes no connection
//! that stood before it. Pure.
//!
//! An address that several sides may show observes only if all of them do.

use ipnet::IpNet;
use penstock_policy::plan::{Observing, Plan, PlanInterface};

use super::block::{Address, Span};

/// As spans, merged where they touch, as interval sets want them.
pub(in crate::enforce) fn spans<A: Address>(plan: &Plan) -> Vec<Span<A>> {
    let networks = plan.interfaces.iter().flat_map(observed);
    let networks = networks.filter(|network| observes(plan, network));
    let mut spans: Vec<Span<A>> = networks.filter_map(|network| A::span(*network)).collect();
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

/// Whether no side that may show an address of `network` enforces it.
pub(crate) fn observes(plan: &Plan, network: &IpNet) -> bool {
    plan.interfaces.iter().all(|side| lets_observe(side, network))
}

/// The networks of a side whose zones observe.
fn observed(side: &PlanInterface) -> &[IpNet] {
    match &side.observing {
        Observing::Nothing => &[],
        Observing::Everything => &side.networks,
        Observing::Only(networks) => networks,
    }
}

/// Whether no address of `network` is one that this side enforces.
fn lets_observe(side: &PlanInterface, network: &IpNet) -> bool {
    let touches = |other: &IpNet| other.contains(network) || network.contains(other);
    !side.networks.iter().any(touches) || observed(side).iter().any(|observed| observed.contains(network))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::Ipv4Addr;

    use super::*;

    fn passive(sides: &[(&[&str], Observing)]) -> Vec<String> {
        let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect();
        let mut plan = penstock_policy::plan::Plan::from_bytes(include_bytes!(
            "../../../../policy/fixtures/plan-format-1.json"
        ))
        .unwrap();
        let side = plan.interfaces[0].clone();
        plan.interfaces = sides
            .iter()
            .map(|(networks, observing)| PlanInterface {
                networks: nets(networks),
                observing: observing.clone(),
                ..side.clone()
            })
            .collect();
        let spans: Vec<Span<Ipv4Addr>> = spans(&plan);
        spans.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_address_is_passive_only_if_no_side_that_may_show_it_enforces_it() {
        let (office, control): (&[&str], &[&str]) = (&["10.1.0.0/24", "10.1.1.0/24"], &["10.2.0.0/16"]);
        let everything = || Observing::Everything;
        assert_eq!(
            passive(&[(office, Observing::Nothing), (control, Observing::Nothing)]),
            [""; 0]
        );
        assert_eq!(
            passive(&[(office, everything()), (control, Observing::Nothing)]),
            ["10.1.0.0-10.1.1.255"]
        );
        let only = Observing::Only(vec!["10.2.3.0/24".parse().unwrap()]);
        assert_eq!(
            passive(&[(office, everything()), (control, only.clone())]),
            ["10.1.0.0-10.1.1.255", "10.2.3.0-10.2.3.255"]
        );
        assert_eq!(
            passive(&[(control, everything()), (control, only)]),
            ["10.2.3.0-10.2.3.255"]
        );
        assert_eq!(
            passive(&[(control, everything()), (&["10.2.9.0/24"], Observing::Nothing)]),
            [""; 0]
        );
    }
}
