//! Flows that share connections: where source, destination and port of two flows overlap at one gateway, they agree on
//! how the TLS ends there. If they do not, the gateway resets such connections, and somebody should know before. Where a
//! client's TLS ends before a server in the plain, that is also said of a flow that passes as it is: nobody would end the TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::grammar;
use crate::document::read::Table;
use crate::ids::{ConduitId, FlowName, GatewayId};
use crate::model::{Conduit, Flow, FlowEnd};
use crate::terms::{PortRange, Transport};

/// A flow and the gateways that it crosses.
#[derive(Debug, Clone, Copy)]
struct InspectedFlow<'a> {
    via: &'a BTreeSet<GatewayId>,
    flow: &'a Flow,
}

/// Adds a fault for each flow that does not agree with another.
pub(super) fn agree_on_tls(
    conduits: &BTreeMap<ConduitId, Conduit>,
    written: Option<&Table<ConduitId, grammar::Conduit>>,
    faults: &mut Faults,
) {
    let place = |conduit: &ConduitId, flow: &FlowName| -> Option<Place> {
        let flow = written?.get(conduit)?.flows.value()?.get(flow)?;
        let (tls, service) = (flow.tls.get(), flow.service.get());
        tls.map(|at| at.place).or(service.map(|at| at.place))
    };
    let chosen = |wanted: &dyn Fn(&Flow) -> bool| {
        let mut chosen: Vec<(Place, String, InspectedFlow<'_>)> = Vec::new();
        for (id, conduit) in conduits {
            for (name, flow) in &conduit.flows {
                if wanted(flow)
                    && let Some(place) = place(id, name)
                {
                    let via = &conduit.via;
                    chosen.push((place, format!("{id}/{name}"), InspectedFlow { via, flow }));
                }
            }
        }
        // Of two that disagree, the later one in the text is at fault.
        chosen.sort_by_key(|(place, _, _)| *place);
        chosen
    };
    let mut groups = vec![chosen(&Flow::is_carried)];
    let mut all = conduits.values().flat_map(|conduit| conduit.flows.values());
    if all.any(|flow| flow.plain_port().is_some()) {
        let passes = |flow: &Flow| !flow.is_carried() && !flow.is_bridge();
        groups.push(chosen(&|flow| flow.plain_port().is_some() || passes(flow)));
    }
    let mut said = BTreeSet::new();
    for group in groups {
        let flows: Vec<InspectedFlow<'_>> = group.iter().map(|(_, _, flow)| *flow).collect();
        for (earlier, later) in disagreeing(&flows) {
            if let (Some((first, one, _)), Some((place, other, _))) = (group.get(earlier), group.get(later))
                && said.insert((*first, *place))
            {
                disagree((*first, one), (*place, other), faults);
            }
        }
    }
}

fn disagree((first, one): (Place, &str), (place, other): (Place, &str), faults: &mut Faults) {
    faults.add(
        Fault::new(
            Code::TlsDisagrees,
            place,
            format!(
                "the flows `{other}` and `{one}` share connections, but not how their TLS ends at the gateway"
            ),
        )
        .label("differs from the other")
        .related(first, format!("`{one}` has the same ends and port"))
        .help("give both the same `service` and the same `tls`, or take the shared ends out of one of them"),
    );
}

/// Pairs of flows, the earlier first, that share a connection and have other terms for its TLS: not all of them, but of
/// any two such flows at least one stands in a pair.
fn disagreeing(flows: &[InspectedFlow<'_>]) -> BTreeSet<(usize, usize)> {
    let mut said = BTreeSet::new();
    for mut openers in by_server(flows).into_values() {
        openers.sort_unstable();
        openers.dedup();
        // Networks are disjoint or within one another, so those that hold this one are a stack.
        let mut around: Vec<(IpNet, Vec<usize>)> = Vec::new();
        for (network, number) in openers {
            while around.last().is_some_and(|(wide, _)| !wide.contains(&network)) {
                around.pop();
            }
            let same = |other: usize| match (flows.get(number), flows.get(other)) {
                (Some(one), Some(other)) => one.flow.tls == other.flow.tls,
                _ => true,
            };
            let mut others = around.iter().flat_map(|(_, others)| others.iter().copied());
            if let Some(other) = others.find(|other| !same(*other)) {
                said.insert((number.min(other), number.max(other)));
            }
            // One flow with these terms stands for all.
            match around.last_mut() {
                Some((wide, listed)) if *wide == network => {
                    if !listed.iter().any(|other| same(*other)) {
                        listed.push(number);
                    }
                }
                _ => around.push((network, vec![number])),
            }
        }
    }
    said
}

/// A server at a gateway's port, and who may open connections to it by which flow.
type Servers<'a> = BTreeMap<(&'a GatewayId, u16, IpAddr), Vec<(IpNet, usize)>>;

/// For each server before which TLS ends at a gateway.
fn by_server<'a>(flows: &[InspectedFlow<'a>]) -> Servers<'a> {
    let mut servers = Servers::new();
    let mut ports = BTreeSet::new();
    let (ending, passing): (Vec<_>, Vec<_>) = flows
        .iter()
        .enumerate()
        .partition(|(_, read)| read.flow.tls.is_some());
    for (number, read) in ending {
        for (gateway, range) in places(read) {
            // Where TLS ends there is one port.
            let port = range.first;
            ports.insert(port);
            for end in &read.flow.destinations {
                // A whole zone was refused already.
                let FlowEnd::Asset(_, addresses) = end else {
                    continue;
                };
                for address in addresses {
                    let openers = servers.entry((gateway, port, *address)).or_default();
                    openers.extend(openers_of(read, *address).map(|network| (network, number)));
                }
            }
        }
    }
    for (number, read) in passing {
        for (gateway, range) in places(read) {
            for port in ports.range(range.first..=range.last) {
                for network in read.flow.destinations.iter().flat_map(FlowEnd::networks) {
                    let (first, last) = (network.network(), network.broadcast());
                    for ((_, _, address), openers) in
                        servers.range_mut((gateway, *port, first)..=(gateway, *port, last))
                    {
                        openers.extend(openers_of(read, *address).map(|network| (network, number)));
                    }
                }
            }
        }
    }
    servers
}

/// Its TCP ports at the gateways that it crosses.
fn places<'a>(read: &InspectedFlow<'a>) -> impl Iterator<Item = (&'a GatewayId, PortRange)> {
    let ports = match &read.flow.service.transport {
        Transport::Tcp(ports) => ports.as_slice(),
        Transport::Udp(_) | Transport::IcmpEcho => &[],
    };
    let via = read.via;
    ports
        .iter()
        .flat_map(move |port| via.iter().map(move |gateway| (gateway, *port)))
}

/// The flow's sources of the server's family.
fn openers_of<'a>(read: &InspectedFlow<'a>, server: IpAddr) -> impl Iterator<Item = IpNet> + use<'a> {
    let networks = read.flow.sources.iter().flat_map(FlowEnd::networks);
    networks
        .map(|network| network.trunc())
        .filter(move |network| network.addr().is_ipv4() == server.is_ipv4())
}

#[cfg(test)]
mod tests;
