//! Tunnels between gateways: where they end, what runs in them, and that nothing of it has another way.
//!
//! A gateway knows what comes from where by its sides. So a tunnel is laid as one more side of it: the zones beyond move from
//! `behind` the interface towards the untrusted network onto the tunnel's device. From then on every part of the program that knows sides
//! keeps them there, in both directions, whether the tunnel stands or not.
//!
//! Not here: who connects to whom (`compile`), and how a tunnel works (the agent).

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::Context;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::grammar;
use crate::ids::{ConduitId, GatewayId, ZoneId};
use crate::model::{Conduit, Gateway, Interface, TunnelEnd};
use crate::terms::{GatewayMode, TUNNEL_PORT, TUNNEL_PREFIX, TUNNELS_MAX, tunnel_device};

/// The zones beyond the tunnels of each gateway, with the gateway through which each is reached.
type Beyond = BTreeMap<GatewayId, BTreeMap<ZoneId, GatewayId>>;

/// The end of a gateway's tunnels, as written.
pub(super) fn end(written: &grammar::TunnelEnd) -> Option<TunnelEnd> {
    Some(TunnelEnd {
        interface: written.interface.value()?.0.clone(),
        address: written.address.value().copied(),
        port: written
            .port
            .value()
            .and_then(|port| u16::try_from(port.0).ok())
            .unwrap_or(TUNNEL_PORT),
    })
}

/// Lays the tunnels that conduits ask for; of what is wrong with one nothing is laid.
pub(super) fn lay(
    gateways: &mut BTreeMap<GatewayId, Gateway>,
    conduits: &BTreeMap<ConduitId, Conduit>,
    context: &Context<'_>,
    faults: &mut Faults,
) {
    let before = faults.errors();
    let mut beyond = Beyond::new();
    for (name, conduit) in conduits.iter().filter(|(_, conduit)| conduit.tunnel) {
        if let Err((why, help)) = ends(conduit, gateways, &mut beyond) {
            faults.add(
                Fault::new(
                    Code::NotTunnelled,
                    written(name, context),
                    format!("the conduit `{name}` cannot run inside a tunnel: {why}"),
                )
                .label("no tunnel for it")
                .help(help),
            );
        }
    }
    for (name, gateway) in gateways.iter() {
        let beyond = beyond.get(name);
        if let Some((why, help)) = unfit(gateway, beyond, gateways, context) {
            faults.add(
                Fault::new(
                    Code::TunnelEndUnfit,
                    place_of(name, context),
                    format!("no tunnel can end at the gateway `{name}`: {why}"),
                )
                .help(help),
            );
        } else if beyond.is_none() && gateway.tunnel.is_some() {
            faults.add(
                Fault::new(
                    Code::TunnelUnused,
                    place_of(name, context),
                    format!("no conduit runs inside a tunnel that ends at the gateway `{name}`"),
                )
                .label("without effect")
                .help("write `tunnel: yes` at a conduit that crosses it, or remove the key"),
            );
        }
    }
    past(conduits, &beyond, context, faults);
    if faults.errors() > before {
        return;
    }
    let laid: Vec<_> = beyond
        .iter()
        .filter_map(|(name, zones)| Some((name.clone(), sides(gateways.get(name)?, zones, gateways))))
        .collect();
    for (name, sides) in laid {
        let Some(gateway) = gateways.get_mut(&name) else {
            continue;
        };
        for (peer, side) in sides {
            for interface in gateway.interfaces.values_mut() {
                interface
                    .behind
                    .retain(|zone| *zone != side.zone && !side.behind.contains(zone));
            }
            let device = tunnel_device(&peer);
            gateway.interfaces.insert(device.clone(), side);
            gateway.tunnels.insert(device, peer);
        }
    }
}

/// The tunnels of a gateway as its sides, by the gateway at the other end.
fn sides(
    gateway: &Gateway,
    zones: &BTreeMap<ZoneId, GatewayId>,
    gateways: &BTreeMap<GatewayId, Gateway>,
) -> BTreeMap<GatewayId, Interface> {
    let mut sides: BTreeMap<GatewayId, Interface> = BTreeMap::new();
    for (zone, peer) in zones {
        match sides.get_mut(peer) {
            Some(side) => side.behind.push(zone.clone()),
            None => {
                // What may report errors from there: the other gateway, and the routers beyond it.
                let other = gateways.get(peer).into_iter().flat_map(|peer| &peer.interfaces);
                let mut routers = BTreeSet::new();
                for (name, interface) in other {
                    routers.extend(interface.addresses.iter().map(|own| IpNet::from(own.addr())));
                    let towards = gateways.get(peer).and_then(|peer| peer.tunnel.as_ref());
                    if towards.is_none_or(|end| end.interface != *name) {
                        routers.extend(interface.routers.iter().copied());
                    }
                }
                let own = gateway.interfaces.values().flat_map(|side| &side.addresses);
                for own in own {
                    routers.remove(&IpNet::from(own.addr()));
                }
                sides.insert(
                    peer.clone(),
                    Interface {
                        zone: zone.clone(),
                        behind: Vec::new(),
                        routers: routers.into_iter().collect(),
                        addresses: Vec::new(),
                    },
                );
            }
        }
    }
    sides
}

/// Finds the two ends of a conduit's tunnel, and what is beyond each; or why there are none, and what to do.
fn ends(
    conduit: &Conduit,
    gateways: &BTreeMap<GatewayId, Gateway>,
    beyond: &mut Beyond,
) -> Result<(), (String, String)> {
    let via: Vec<&GatewayId> = conduit.via.iter().collect();
    let [one, other] = via.as_slice() else {
        let why = format!(
            "a tunnel joins exactly two gateways, and the conduit's way has {}",
            via.len()
        );
        return Err((why, "name the two gateways under `via`".to_owned()));
    };
    if let Some(bridge) = conduit.flows.iter().find(|(_, flow)| flow.is_bridge()) {
        let why = format!("a gateway carries the messages of the flow `{}` itself", bridge.0);
        return Err((why, "put the flow into a conduit of its own".to_owned()));
    }
    let mut addressed = false;
    let mut far = Vec::new();
    for gateway in [one, other] {
        let end = gateways
            .get(*gateway)
            .and_then(|found| Some((found, found.tunnel.as_ref()?)));
        let Some((found, end)) = end else {
            let why = format!("no tunnels end at the gateway `{gateway}`");
            let help = format!("write `tunnel: {{ interface: …, address: … }}` at `{gateway}`");
            return Err((why, help));
        };
        addressed |= end.address.is_some();
        let behind = found.interfaces.get(&end.interface).map(|side| &side.behind);
        let zones = [&conduit.from, &conduit.to];
        let mut zones = zones
            .into_iter()
            .filter(|zone| behind.is_some_and(|behind| behind.contains(zone)));
        let (Some(zone), None) = (zones.next(), zones.next()) else {
            let why = format!(
                "at the gateway `{gateway}` not exactly one of `{}` and `{}` lies behind `{}`",
                conduit.from, conduit.to, end.interface
            );
            let help = format!(
                "at `{gateway}`, write the zone beyond the tunnel `behind` the interface `{}`, and the other one on another interface",
                end.interface
            );
            return Err((why, help));
        };
        far.push(zone);
    }
    if far.first() == far.last() {
        let why = format!("`{}` lies beyond the tunnel at both ends", conduit.from);
        return Err((
            why,
            "each of the two zones lies beyond the tunnel at one gateway".to_owned(),
        ));
    }
    if !addressed {
        let why = format!("neither `{one}` nor `{other}` says where it is reached");
        return Err((why, "write `address` under `tunnel` at one of them".to_owned()));
    }
    for ((gateway, peer), zone) in [(one, other), (other, one)].into_iter().zip(far) {
        let zones = beyond.entry((*gateway).clone()).or_default();
        let through = zones.entry(zone.clone()).or_insert_with(|| (*peer).clone());
        if *through != **peer {
            let why = format!(
                "at the gateway `{gateway}`, `{zone}` is reached through the tunnel to `{through}` already"
            );
            return Err((
                why,
                "lead the conduits with this zone through the same two gateways".to_owned(),
            ));
        }
    }
    Ok(())
}

/// Why no tunnel can end at a gateway, and what to do; `None`: it can, or none does.
fn unfit(
    gateway: &Gateway,
    beyond: Option<&BTreeMap<ZoneId, GatewayId>>,
    gateways: &BTreeMap<GatewayId, Gateway>,
    context: &Context<'_>,
) -> Option<(String, &'static str)> {
    if let Some(name) = gateway
        .interfaces
        .keys()
        .find(|name| name.starts_with(TUNNEL_PREFIX))
    {
        return Some((
            format!("its interface `{name}` is called as tunnels are"),
            "give the interface another name",
        ));
    }
    let end = gateway.tunnel.as_ref()?;
    if gateway.mode == GatewayMode::Bridged {
        return Some((
            "it is bridged, and has no address on its sides".to_owned(),
            "remove `tunnel`, or say `mode: routed`",
        ));
    }
    if !gateway.interfaces.contains_key(&end.interface) {
        return Some((
            format!("it has no interface `{}`", end.interface),
            "name the interface towards the untrusted network",
        ));
    }
    let beyond = beyond?;
    let peers: BTreeSet<&GatewayId> = beyond.values().collect();
    if peers.len() > TUNNELS_MAX {
        return Some((
            format!(
                "{} tunnels would end at it, at most {TUNNELS_MAX} can",
                peers.len()
            ),
            "divide its conduits among several gateways",
        ));
    }
    let devices: BTreeSet<String> = peers.iter().map(|peer| tunnel_device(peer)).collect();
    if devices.len() < peers.len() {
        return Some((
            "two of its tunnels would have the same name".to_owned(),
            "give one of the gateways at their other ends another name",
        ));
    }
    let asked = gateway.safe_to_change.as_ref().map(|safe| &safe.asset);
    let assets = context.document.assets.value();
    let asked = asked.and_then(|asset| assets?.get(asset)?.zone.value());
    if let Some(zone) = asked.filter(|zone| beyond.contains_key(*zone)) {
        return Some((
            format!(
                "`safe_to_change` asks an asset of `{zone}`, beyond a tunnel, where the gateway itself has no address"
            ),
            "ask an asset on this side of the tunnel",
        ));
    }
    for peer in peers {
        let address = gateways.get(peer).and_then(|peer| peer.tunnel.as_ref()?.address);
        let holding = address.and_then(|address| Some((address, context.networks.holding(address)?.1)));
        if let Some((address, zone)) = holding.filter(|(_, zone)| beyond.contains_key(*zone)) {
            return Some((
                format!(
                    "{address} of the gateway `{peer}` lies in the zone `{zone}`, which is itself reached through the tunnel"
                ),
                "give the other gateway an address in the network between the two",
            ));
        }
    }
    None
}

/// Conduits with a zone that is reached through a tunnel run inside that tunnel.
fn past(
    conduits: &BTreeMap<ConduitId, Conduit>,
    beyond: &Beyond,
    context: &Context<'_>,
    faults: &mut Faults,
) {
    for (name, conduit) in conduits.iter().filter(|(_, conduit)| !conduit.tunnel) {
        let reached = conduit.via.iter().find_map(|gateway| {
            let zones = beyond.get(gateway)?;
            let zone = [&conduit.from, &conduit.to]
                .into_iter()
                .find(|zone| zones.contains_key(*zone))?;
            Some((gateway, zone, zones.get(zone)?))
        });
        if let Some((gateway, zone, peer)) = reached {
            let message = format!(
                "the conduit `{name}` would reach `{zone}` in the clear, but at the gateway `{gateway}` that zone is reached only through the tunnel to `{peer}`"
            );
            faults.add(
                Fault::new(Code::PastTheTunnel, written(name, context), message)
                    .label("past the tunnel")
                    .help("write `tunnel: yes` at this conduit too"),
            );
        }
    }
}

/// Where a conduit says whether it is tunnelled, or what it leads to.
fn written(name: &ConduitId, context: &Context<'_>) -> Option<Place> {
    let conduit = context.document.conduits.value()?.get(name)?;
    let key = conduit.tunnel.get().map(|at| at.place);
    key.or_else(|| conduit.to.get().map(|at| at.place))
}

/// Where a gateway says where its tunnels end, or its name.
fn place_of(name: &GatewayId, context: &Context<'_>) -> Option<Place> {
    let table = context.document.gateways.value()?;
    let key = table.get(name)?.tunnel.get().map(|at| at.place);
    key.or_else(|| table.0.get(name).map(|named| named.key_place))
}
