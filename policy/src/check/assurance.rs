//! What a plan denies for want of assurance is exactly what proves too little; and `PC0163`: what must flow is not among it.
//!
//! Derived a second time, from the plant and from what the plan binds. What a plan takes for bound beyond a tunnel is compared with the plan of
//! the gateway there: a document cannot make the two differ, but they may have been made by other software.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Findings, Severity};
use crate::ids::{ConduitId, GatewayId};
use crate::model::{Asset, Conduit, Flow, FlowEnd, Plant};
use crate::plan::{FlowSide, Plan, PlanInterface, Unproven};
use crate::terms::{Assurance, Enforcement, OnAgentLoss, Tls};
use crate::words::and;

/// Where the plan denies, or permits, something else than what its conduits ask for; in words.
///
/// `conduits` are the gateway's; `assets_on` are those on one of its sides.
pub(super) fn faults<'a>(
    conduits: &[(&ConduitId, &Conduit)],
    assets_on: impl Fn(&PlanInterface) -> Vec<&'a Asset>,
    plan: &Plan,
) -> Vec<String> {
    let mut faults = Vec::new();
    for (id, conduit) in conduits {
        let minimum = conduit.minimum_assurance.unwrap_or(Assurance::D0);
        for (name, flow) in &conduit.flows {
            let denied = plan
                .unproven
                .iter()
                .find(|one| (&one.conduit, &one.flow) == (*id, name));
            if minimum == Assurance::D0 {
                if denied.is_some() {
                    faults.push(format!(
                        "flow {id}/{name} is denied, though its conduit asks for no assurance"
                    ));
                }
                continue;
            }
            let weak: BTreeSet<(FlowSide, IpNet)> = denied
                .into_iter()
                .flat_map(|denied| &denied.weak)
                .map(|weak| (weak.side, weak.end.network))
                .collect();
            if weak != expected(plan, conduit, flow, minimum) {
                faults.push(format!(
                    "flow {id}/{name} is denied to other ends than prove less than {minimum}"
                ));
            }
        }
    }
    for (interface, bound) in &plan.bound {
        let side = plan.interfaces.iter().find(|side| side.name == *interface);
        let assets = side.map(&assets_on).unwrap_or_default();
        let declared = |address: IpAddr, mac: String| {
            assets.iter().any(|asset| {
                let same = asset
                    .mac
                    .as_ref()
                    .is_some_and(|own| own.eq_ignore_ascii_case(&mac));
                same && asset.addresses.contains(&address)
            })
        };
        if !bound.iter().all(|one| declared(one.address, one.mac.to_string())) {
            faults.push(format!(
                "interface {interface} binds an address to a MAC address that no asset has"
            ));
        }
    }
    faults
}

/// Where the plan takes an address beyond a tunnel for bound, and the plan of the gateway there does not bind it; in words. (Of a gateway without
/// a plan, that is said.)
pub(super) fn taken_on_trust(plan: &Plan, plans: &BTreeMap<GatewayId, Plan>) -> Vec<String> {
    let tunnels = plan.tunnels.iter().flat_map(|tunnels| &tunnels.peers);
    let vouched = tunnels.filter_map(|tunnel| Some((tunnel, plans.get(&tunnel.peer)?)));
    let vouched = vouched.flat_map(|(tunnel, peer)| tunnel.vouched.iter().map(move |at| (tunnel, peer, *at)));
    vouched
        .filter(|(_, peer, address)| !binds(peer, *address))
        .map(|(tunnel, _, address)| {
            format!(
                "{address} counts as bound beyond the tunnel to gateway {}, whose plan does not bind it",
                tunnel.peer
            )
        })
        .collect()
}

/// Whether a gateway binds an address wherever it meets it itself.
fn binds(plan: &Plan, address: IpAddr) -> bool {
    let tunnels = plan.tunnels.iter().flat_map(|tunnels| &tunnels.peers);
    let devices: BTreeSet<&String> = tunnels.map(|tunnel| &tunnel.device).collect();
    let own = plan
        .interfaces
        .iter()
        .filter(|side| !devices.contains(&side.name));
    let mut own = own.filter(|side| side.holds(address)).peekable();
    own.peek().is_some() && own.all(|side| binds_on(plan, side, address))
}

fn binds_on(plan: &Plan, side: &PlanInterface, address: IpAddr) -> bool {
    let mut here = plan.bound.get(&side.name).into_iter().flatten();
    here.any(|one| one.address == address) || side.networks == [IpNet::from(address)]
}

/// Whether nothing of a flow is left when its weak ends are taken out.
pub(super) fn leaves_nothing(conduit: &Conduit, flow: &Flow, denied: &Unproven) -> bool {
    if conduit.minimum_assurance != Some(denied.minimum) {
        return false;
    }
    let left = |side: FlowSide, ends: &[FlowEnd]| -> BTreeSet<bool> {
        let weak = denied.weak.iter().filter(|weak| weak.side == side);
        let weak: BTreeSet<IpNet> = weak.map(|weak| weak.end.network).collect();
        let left = declared_networks(ends);
        left.difference(&weak)
            .map(|network| network.addr().is_ipv4())
            .collect()
    };
    let (sources, destinations) = (
        left(FlowSide::Source, &flow.sources),
        left(FlowSide::Destination, &flow.destinations),
    );
    sources.is_disjoint(&destinations) || (flow.is_bridge() && !denied.weak.is_empty())
}

/// The ends of a flow that prove less than its conduit asks for.
fn expected(plan: &Plan, conduit: &Conduit, flow: &Flow, minimum: Assurance) -> BTreeSet<(FlowSide, IpNet)> {
    let mut weak = BTreeSet::new();
    let always = conduit.on_agent_loss == OnAgentLoss::Block;
    let of_server = |tls: &Tls| match tls.server_authorities {
        Some(_) => Assurance::D3,
        None => Assurance::D4,
    };
    let client = match (&flow.bridge_source, &flow.tls) {
        (Some(bridge), _) => bridge.tls.as_ref().map(of_server),
        (None, Some(_)) if always => Some(Assurance::D4),
        (None, _) => None,
    };
    let server = flow.tls.as_ref().filter(|tls| tls.plain_port.is_none());
    let server = server.filter(|_| always || flow.is_bridge()).map(of_server);
    for (side, ends, others, certificate) in [
        (FlowSide::Source, &flow.sources, &flow.destinations, client),
        (FlowSide::Destination, &flow.destinations, &flow.sources, server),
    ] {
        // An address meets nobody but those of its family.
        let met: BTreeSet<bool> = declared_networks(others)
            .iter()
            .map(|other| other.addr().is_ipv4())
            .collect();
        for end in ends {
            let is_zone = matches!(end, FlowEnd::Zone(..));
            let certificate = certificate.filter(|_| side == FlowSide::Source || !is_zone);
            for network in declared_networks(std::slice::from_ref(end)) {
                let proven = certificate.unwrap_or_else(|| by_address(plan, network));
                if proven < minimum && met.contains(&network.addr().is_ipv4()) {
                    weak.insert((side, network));
                }
            }
        }
    }
    weak
}

fn by_address(plan: &Plan, network: IpNet) -> Assurance {
    let address = network.addr();
    let holding: Vec<_> = plan
        .interfaces
        .iter()
        .filter(|side| side.holds(address))
        .collect();
    let bound = holding.iter().all(|side| {
        let tunnels = plan.tunnels.iter().flat_map(|tunnels| &tunnels.peers);
        let mut tunnels = tunnels.filter(|tunnel| tunnel.device == side.name).peekable();
        if tunnels.peek().is_some() {
            return tunnels.all(|tunnel| tunnel.vouched.contains(&address));
        }
        binds_on(plan, side, address)
    });
    match bound && !holding.is_empty() && network == IpNet::from(address) {
        true => Assurance::D1,
        false => Assurance::D0,
    }
}

/// The networks of a flow's ends.
pub(super) fn declared_networks(ends: &[FlowEnd]) -> BTreeSet<IpNet> {
    let mut networks = BTreeSet::new();
    for end in ends {
        match end {
            FlowEnd::Asset(_, addresses) => {
                networks.extend(addresses.iter().map(|address| IpNet::from(*address)))
            }
            FlowEnd::Zone(_, whole) => networks.extend(whole.iter().map(IpNet::trunc)),
        }
    }
    networks
}

/// Says what must flow and is denied.
pub(super) fn must_flows(plant: &Plant, plan: &Plan, findings: &mut Findings) {
    for denied in plan.unproven.iter().filter(|denied| denied.must_flow) {
        let zones = plant
            .conduits
            .get(&denied.conduit)
            .map(|conduit| [&conduit.from, &conduit.to]);
        let mut zones = zones
            .into_iter()
            .flatten()
            .filter_map(|zone| plant.zones.get(zone));
        let (severity, denies) = match zones.any(|zone| zone.enforcement == Enforcement::Enforce) {
            true => (Severity::Error, "is denied"),
            false => (Severity::Warning, "would be denied if its zones enforced"),
        };
        let weak: BTreeSet<String> = denied.weak.iter().map(ToString::to_string).collect();
        findings.add(
            severity,
            "PC0163",
            format!(
                "flow {}/{} must flow, but {denies}: its conduit asks its ends to prove who they are to {} at least; {}",
                denied.conduit,
                denied.flow,
                denied.minimum,
                and(weak.iter())
            ),
            "let the gateway check more of these ends (`penstock explain PS0618` says how), or lower `minimum_assurance`",
        );
    }
}
