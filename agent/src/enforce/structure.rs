//! The part of a plan that shapes the rule set itself: interfaces, sides, pairs, management. Pure.
//!
//! While two plans have the same structure they differ in map elements alone, and the kernel is changed by
//! differences. Where the structure differs, the rules are written anew around the standing maps, in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use penstock_policy::model::{Enforcement, GatewayMode};
use penstock_policy::plan::{Plan, PlanInterface};

use super::block::{Address, Span};
use super::intercept::InspectorPorts;

/// The most guarded interfaces of one gateway: pairs of them are enumerated.
pub const INTERFACES_MAX: usize = 64;

/// Longest interface name that the kernel has, in bytes.
const INTERFACE_NAME_MAX: usize = 15;

/// Everything but the flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    /// Routed or bridged.
    pub mode: GatewayMode,
    /// The guarded interfaces.
    pub guarded: BTreeSet<String>,
    /// IPv4 addresses that may be seen on each side, by guarded interface, in order.
    pub sides4: BTreeMap<String, Vec<Span<Ipv4Addr>>>,
    /// IPv6 addresses that may be seen on each side, by guarded interface, in order.
    pub sides6: BTreeMap<String, Vec<Span<Ipv6Addr>>>,
    /// Pairs between which nothing is a crossing.
    pub same_zone: BTreeSet<(String, String)>,
    /// Those of the guarded interfaces that only observe.
    pub observers: BTreeSet<String>,
    /// Pairs whose zones all only observe.
    pub observed: BTreeSet<(String, String)>,
    /// Who may reach the gateway itself; `None` leaves its input open, so that nobody is locked out.
    pub input: Option<Input>,
    /// Where the inspector listens; `None` if there is none, so that what would be inspected goes nowhere.
    pub inspector: Option<InspectorPorts>,
}

/// The guard of the gateway's own input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The management interface.
    pub interface: String,
    /// IPv4 peers.
    pub peers4: BTreeSet<IpNet>,
    /// IPv6 peers.
    pub peers6: BTreeSet<IpNet>,
}

/// Something that a person should know about a plan that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable code.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
}

/// Why a plan has no structure that the kernel could hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StructureError {
    /// A name that is no kernel interface name.
    #[error("`{0}` is not an interface name: the kernel's have 1 to 15 of letters, digits and `.-_@:`")]
    InterfaceName(String),
    /// More than [`INTERFACES_MAX`].
    #[error("the plan guards {0} interfaces, at most {INTERFACES_MAX} are supported on one gateway")]
    TooManyInterfaces(usize),
}

/// Takes the structure out of `plan`; `exists` tells whether this machine has an interface of that name.
pub fn structure(
    plan: &Plan,
    inspector: Option<InspectorPorts>,
    exists: impl Fn(&str) -> bool,
) -> Result<(Structure, Vec<Finding>), StructureError> {
    if plan.interfaces.len() > INTERFACES_MAX {
        return Err(StructureError::TooManyInterfaces(plan.interfaces.len()));
    }
    let named = plan
        .interfaces
        .iter()
        .map(|i| &i.name)
        .chain(plan.management.iter().map(|m| &m.interface));
    for name in named {
        if !is_interface_name(name) {
            return Err(StructureError::InterfaceName(name.clone()));
        }
    }
    let mut findings: Vec<Finding> = plan
        .interfaces
        .iter()
        .filter(|interface| !exists(&interface.name))
        .map(|interface| Finding {
            code: "interface-missing",
            message: format!(
                "this gateway has no interface {} (zone {}): the plan guards it as soon as it appears",
                interface.name, interface.zone
            ),
        })
        .collect();
    let input = input(plan, &exists, &mut findings);
    let pairs = |holds: &dyn Fn(&PlanInterface, &PlanInterface) -> bool| -> BTreeSet<(String, String)> {
        let all = plan
            .interfaces
            .iter()
            .flat_map(|a| plan.interfaces.iter().map(move |b| (a, b)));
        all.filter(|(a, b)| holds(a, b))
            .map(|(a, b)| (a.name.clone(), b.name.clone()))
            .collect()
    };
    let structure = Structure {
        mode: plan.mode,
        guarded: plan.interfaces.iter().map(|i| i.name.clone()).collect(),
        sides4: sides(plan),
        sides6: sides(plan),
        same_zone: pairs(&|a, b| a.zone == b.zone && a.behind.is_empty() && b.behind.is_empty()),
        observers: plan
            .interfaces
            .iter()
            .filter(|i| i.enforcement == Enforcement::Observe)
            .map(|i| i.name.clone())
            .collect(),
        observed: pairs(&|a, b| [a, b].iter().all(|i| i.enforcement == Enforcement::Observe)),
        input,
        inspector,
    };
    Ok((structure, findings))
}

fn input(plan: &Plan, exists: impl Fn(&str) -> bool, findings: &mut Vec<Finding>) -> Option<Input> {
    let mut open = |message: String| {
        findings.push(Finding {
            code: "management-open",
            message,
        });
        None
    };
    let Some(management) = &plan.management else {
        return open(
            "the plan names no management access, so the gateway's own input is left open to all interfaces: give \
             the gateway a `management` interface and its peers"
                .to_owned(),
        );
    };
    if !exists(&management.interface) {
        return open(format!(
            "the management interface {} does not exist here, so the gateway's own input is left open, to lock \
             nobody out",
            management.interface
        ));
    }
    let (peers4, peers6): (BTreeSet<_>, BTreeSet<_>) = IpNet::aggregate(&management.peers)
        .into_iter()
        .partition(|net| matches!(net, IpNet::V4(_)));
    if peers4.is_empty() && peers6.is_empty() {
        return open(
            "the plan's management access names no peers, so the gateway's own input is left open".to_owned(),
        );
    }
    Some(Input {
        interface: management.interface.clone(),
        peers4,
        peers6,
    })
}

/// The spans of all sides, merged where networks touch or overlap, as interval sets want them.
fn sides<A: Address>(plan: &Plan) -> BTreeMap<String, Vec<Span<A>>> {
    let mut sides = BTreeMap::new();
    for interface in &plan.interfaces {
        let mut spans: Vec<Span<A>> = interface
            .networks
            .iter()
            .filter_map(|net| A::span(*net))
            .collect();
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
        sides.insert(interface.name.clone(), merged);
    }
    sides
}

/// A wildcard (`*`), a quote or a space in a name would change the meaning of the script it is written into.
pub(super) fn is_interface_name(name: &str) -> bool {
    (1..=INTERFACE_NAME_MAX).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | ':'))
}
