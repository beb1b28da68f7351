//! What a plan does about ends of flows that prove less than their conduit asks for: it binds them where the gateway can, and permits
//! nothing of those that stay too weak, but for what would stop between zones that only observe ([`Plant::spares`](crate::model::Plant::spares)).
//!
//! Bound is only what a conduit asks for. So a document without `minimum_assurance` holds nobody to a MAC address by it, and a plan of
//! such a document asks nothing more of an agent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Compiler;
use crate::ids::{AssetId, ConduitId, FlowName};
use crate::model::{Asset, Gateway, Interface};
use crate::plan::{Bridge, Broker, Endpoint, FlowSide, Hardware, Plan, Rule, Unproven, WeakEnd};
use crate::terms::{Assurance, GatewayMode, Mac, PortRange, Transport};

impl Compiler<'_> {
    /// Binds what can be bound, and takes out of `plan` what proves too little all the same.
    pub(super) fn weigh(&self, gateway: &Gateway, plan: &mut Plan) {
        let asked = |conduit: &ConduitId| self.plant.conduits.get(conduit)?.minimum_assurance;
        let asks = |conduit: &ConduitId| asked(conduit).is_some_and(|minimum| minimum > Assurance::D0);
        if !plan.rules.iter().any(|rule| asks(&rule.conduit))
            && !plan.bridges.iter().any(|bridge| asks(&bridge.conduit))
        {
            return;
        }
        self.bind(gateway, plan, &asked);
        let mut unproven = Vec::new();
        let mut rules = std::mem::take(&mut plan.rules);
        rules.retain_mut(|rule| {
            let Some(minimum) = asked(&rule.conduit) else {
                return true;
            };
            let weak = plan.weak_ends(rule, minimum);
            if weak.is_empty() {
                return true;
            }
            unproven.push(Unproven {
                id: rule.id,
                conduit: rule.conduit.clone(),
                flow: rule.flow.clone(),
                minimum,
                sources: rule.sources.clone(),
                destinations: rule.destinations.clone(),
                transport: rule.transport.clone(),
                must_flow: rule.must_flow,
                bridged: false,
                weak: weak.iter().cloned().collect(),
            });
            self.spares(&rule.conduit, &rule.flow) || strong(rule, &weak)
        });
        plan.rules = rules;
        let mut bridges = std::mem::take(&mut plan.bridges);
        bridges.retain(|bridge| {
            let refused = asked(&bridge.conduit).and_then(|minimum| weak_bridge(plan, bridge, minimum));
            let stays = refused.is_none() || self.spares(&bridge.conduit, &bridge.flow);
            unproven.extend(refused);
            stays
        });
        plan.bridges = bridges;
        unproven.sort_by(|one, other| (&one.conduit, &one.flow).cmp(&(&other.conduit, &other.flow)));
        plan.unproven = unproven;
    }

    fn spares(&self, conduit: &ConduitId, flow: &FlowName) -> bool {
        let conduit = self.plant.conduits.get(conduit);
        let flow = conduit.and_then(|conduit| Some((conduit, conduit.flows.get(flow)?)));
        flow.is_some_and(|(conduit, flow)| self.plant.spares(conduit, flow))
    }

    /// Binds the addresses of assets that are ends of flows of which D1 is asked and which nothing better proves: here, where their
    /// packets come from the assets themselves, or by the gateway at the other end of their tunnel.
    fn bind(&self, gateway: &Gateway, plan: &mut Plan, asked: &impl Fn(&ConduitId) -> Option<Assurance>) {
        let wanted = |conduit: &ConduitId| asked(conduit) == Some(Assurance::D1);
        let of_rules = plan.rules.iter().filter(|rule| wanted(&rule.conduit));
        let of_rules = of_rules.flat_map(|rule| plan.weak_ends(rule, Assurance::D1));
        let of_bridges = plan.bridges.iter().filter(|bridge| wanted(&bridge.conduit));
        let of_bridges = of_bridges.filter_map(|bridge| weak_bridge(plan, bridge, Assurance::D1));
        let weak = of_rules.chain(of_bridges.flat_map(|refused| refused.weak));
        let ends: BTreeSet<Endpoint> = weak.map(|weak| weak.end).filter(|end| !end.is_zone()).collect();
        let mut bound: BTreeMap<String, BTreeSet<Hardware>> = BTreeMap::new();
        let mut vouched: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        for end in ends {
            let address = end.network.addr();
            let Some(asset) = end
                .name
                .parse()
                .ok()
                .and_then(|id: AssetId| self.plant.assets.get(&id))
            else {
                continue;
            };
            for (name, mac) in binding(gateway, asset, address) {
                bound
                    .entry(name.to_owned())
                    .or_default()
                    .insert(Hardware { address, mac });
            }
            for (device, peer) in &gateway.tunnels {
                let here = gateway.interfaces.get(device);
                if here.is_some_and(|side| lives_on(side, asset)) && self.vouches(peer, asset, address) {
                    vouched.entry(device.clone()).or_default().insert(address);
                }
            }
        }
        plan.bound = bound
            .into_iter()
            .map(|(name, hardware)| (name, hardware.into_iter().collect()))
            .collect();
        for tunnel in plan.tunnels.iter_mut().flat_map(|tunnels| &mut tunnels.peers) {
            let addresses = vouched.remove(&tunnel.device).unwrap_or_default();
            tunnel.vouched = addresses.into_iter().collect();
        }
    }

    /// Whether the gateway at the other end of a tunnel binds an address, for the same conduit.
    fn vouches(&self, peer: &crate::ids::GatewayId, asset: &Asset, address: IpAddr) -> bool {
        let Some(peer) = self.plant.gateways.get(peer) else {
            return false;
        };
        let alone = |side: &Interface| {
            let zones = std::iter::once(&side.zone).chain(&side.behind);
            let living: Vec<&IpNet> = zones
                .filter_map(|zone| self.networks.get(zone))
                .flatten()
                .collect();
            living == [&IpNet::from(address)]
        };
        let own = peer
            .interfaces
            .iter()
            .filter(|(name, _)| !peer.tunnels.contains_key(*name));
        let mut own = own.filter(|(_, side)| lives_on(side, asset)).peekable();
        let bound: BTreeSet<&str> = binding(peer, asset, address).map(|(name, _)| name).collect();
        own.peek().is_some() && own.all(|(name, side)| bound.contains(name.as_str()) || alone(side))
    }
}

fn lives_on(side: &Interface, asset: &Asset) -> bool {
    side.zone == asset.zone || side.behind.contains(&asset.zone)
}

/// The interfaces of a gateway on which packets of an asset's address come from the asset itself, and bear its MAC address.
fn binding<'a>(
    gateway: &'a Gateway,
    asset: &'a Asset,
    address: IpAddr,
) -> impl Iterator<Item = (&'a str, Mac)> {
    let mac: Option<Mac> = asset.mac.as_ref().and_then(|mac| mac.parse().ok());
    let near = gateway.interfaces.iter().filter(move |(name, side)| {
        let on_link = match gateway.mode {
            GatewayMode::Bridged => true,
            GatewayMode::Routed => side.addresses.iter().any(|own| own.contains(&address)),
        };
        side.zone == asset.zone && on_link && !gateway.tunnels.contains_key(*name)
    });
    near.filter_map(move |(name, _)| Some((name.as_str(), mac?)))
}

/// Takes the weak ends out of a rule; whether anything is left of it.
fn strong(rule: &mut Rule, weak: &BTreeSet<WeakEnd>) -> bool {
    let is_weak =
        |side: FlowSide, end: &Endpoint| weak.iter().any(|weak| weak.side == side && weak.end == *end);
    rule.sources.retain(|end| !is_weak(FlowSide::Source, end));
    rule.destinations
        .retain(|end| !is_weak(FlowSide::Destination, end));
    let four = |end: &Endpoint| end.network.addr().is_ipv4();
    rule.sources
        .iter()
        .any(|source| rule.destinations.iter().any(|end| four(end) == four(source)))
}

/// Why a bridge is not carried, if one of its brokers proves too little.
fn weak_bridge(plan: &Plan, bridge: &Bridge, minimum: Assurance) -> Option<Unproven> {
    let endpoint = |broker: &Broker| Endpoint {
        name: broker.asset.as_str().into(),
        network: IpNet::from(broker.address),
    };
    let ends = [
        (FlowSide::Source, &bridge.from),
        (FlowSide::Destination, &bridge.to),
    ];
    let ends = ends.map(|(side, broker)| WeakEnd {
        side,
        end: endpoint(broker),
        proof: plan.broker_proof(broker),
    });
    let weak: Vec<WeakEnd> = ends
        .into_iter()
        .filter(|end| end.proof.assurance() < minimum)
        .collect();
    (!weak.is_empty()).then(|| Unproven {
        id: bridge.id,
        conduit: bridge.conduit.clone(),
        flow: bridge.flow.clone(),
        minimum,
        sources: vec![endpoint(&bridge.from)],
        destinations: vec![endpoint(&bridge.to)],
        transport: Transport::Tcp(vec![PortRange {
            first: bridge.to.port,
            last: bridge.to.port,
        }]),
        must_flow: bridge.must_flow,
        bridged: true,
        weak,
    })
}

#[cfg(test)]
mod tests;
