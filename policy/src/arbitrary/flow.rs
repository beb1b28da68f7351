//! Flows of random plants, from recipes of small numbers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;

use super::operations;
use crate::document::services::services;
use crate::ids::{AssetId, GatewayId, ZoneId};
use crate::model::{Asset, BridgeSource, Flow, FlowEnd, Plant, Service};
use crate::protocol::mqtt::{MQTT, MqttOperation};
use crate::protocol::{Carrier, NamedService, Operations, Protocol};
use crate::terms::{Answers, GatewayMode, NumberRange, OnRefusal, PortRange, Tls, Transport};

/// How many kinds of service there are; those from [`BRIDGED`] on are bridges where one can stand.
const SERVICES: u8 = 11;
const INSPECTED_FIRST: u8 = 3;
const INSPECTED_LAST: u8 = 6;
const BRIDGED: u8 = 9;
/// Where clients of flows with roles connect to, and where their servers listen in the plain.
const SECURED: u16 = 802;
const SECURED_SERVER: u16 = 1502;

/// Per flow: direction, ends, service, ports, limits.
#[derive(Debug, Clone)]
pub(super) struct FlowRecipe {
    reversed: bool,
    sources: [u8; 3],
    destinations: [u8; 3],
    service: u8,
    ports: Vec<(u8, u8)>,
    limits: u8,
    must_flow: bool,
}

pub(super) fn recipes() -> impl Strategy<Value = FlowRecipe> {
    (
        any::<bool>(),
        any::<[u8; 3]>(),
        any::<[u8; 3]>(),
        any::<u8>(),
        prop::collection::vec(any::<(u8, u8)>(), 1..4),
        any::<u8>(),
        any::<bool>(),
    )
        .prop_map(
            |(reversed, sources, destinations, service, ports, limits, must_flow)| FlowRecipe {
                reversed,
                sources,
                destinations,
                service,
                ports,
                limits,
                must_flow,
            },
        )
}

/// The flow that a recipe means, between two zones that each have networks, over these gateways.
pub(super) fn build(
    plant: &Plant,
    from: &ZoneId,
    to: &ZoneId,
    via: &BTreeSet<GatewayId>,
    recipe: &FlowRecipe,
) -> Flow {
    let (opener, opened) = if recipe.reversed { (to, from) } else { (from, to) };
    let lone = match via.iter().collect::<Vec<_>>().as_slice() {
        [only] => plant.gateways.get(*only),
        _ => None,
    };
    let routed = lone.is_some_and(|gateway| gateway.mode == GatewayMode::Routed);
    if let (true, BRIDGED.., Some(source), Some(destination)) = (
        routed,
        recipe.service % SERVICES,
        broker(plant, opener, recipe.sources),
        broker(plant, opened, recipe.destinations),
    ) {
        return bridge(source, destination, recipe);
    }
    let (service, operations) = service(recipe);
    let on_refusal = match (&operations, recipe.limits % 12) {
        (Some(operations), 0)
            if operations
                .protocol
                .refusals
                .words
                .contains(&OnRefusal::Acknowledge) =>
        {
            OnRefusal::Acknowledge
        }
        (Some(_), 2) => OnRefusal::Disconnect,
        (Some(_), 4) => OnRefusal::Reset,
        (Some(_), 6) => OnRefusal::Drop,
        _ => OnRefusal::Answer,
    };
    let destinations = ends(plant, opened, recipe.destinations);
    // Two gateways on the way cannot both end the same TLS, nor one before a server that it cannot name: there it passes
    // encrypted.
    let encrypted = service.name == "mqtts";
    let named = destinations.iter().all(|end| matches!(end, FlowEnd::Asset(..)));
    let ends_here = lone.is_some() && named;
    let operations = operations.filter(|_| !encrypted || ends_here);
    let roles = operations
        .as_ref()
        .filter(|operations| ends_here && operations.protocol.has_roles && recipe.limits / 2 % 3 == 1)
        .map(|operations| operations::roles(operations.protocol, recipe.limits));
    // Clients show their role within TLS, which ends before a server that speaks none: beside those in the plain, at another port.
    let (service, tls) = match &roles {
        Some(_) => secured(service),
        None => {
            let tls = (encrypted && operations.is_some()).then(Tls::default);
            (service, tls)
        }
    };
    Flow {
        title: None,
        sources: ends(plant, opener, recipe.sources),
        destinations,
        service,
        must_flow: recipe.must_flow,
        on_refusal: if operations.is_some() {
            on_refusal
        } else {
            OnRefusal::Answer
        },
        answers: match operations {
            Some(ref operations)
                if operations.protocol.matches_answers && recipe.limits.is_multiple_of(5) =>
            {
                Answers::InOrder
            }
            _ => Answers::Strict,
        },
        tls,
        bridge_source: None,
        roles,
        operations,
    }
}

/// The service where its clients' TLS ends, at the gateway, before a server in the plain.
fn secured(service: Service) -> (Service, Option<Tls>) {
    let name = service.name.split(':').next().unwrap_or_default();
    let service = Service {
        name: format!("{name}:{SECURED}"),
        transport: Transport::Tcp(vec![PortRange::single(SECURED)]),
        ..service
    };
    let tls = Tls {
        plain_port: Some(SECURED_SERVER),
        ..Tls::default()
    };
    (service, Some(tls))
}

fn bridge(source: FlowEnd, destination: FlowEnd, recipe: &FlowRecipe) -> Flow {
    let service = |inside_tls: bool, other_port: bool| {
        let (name, port) = if inside_tls {
            ("mqtts-bridge", 8883)
        } else {
            ("mqtt-bridge", 1883)
        };
        let port = port + u16::from(other_port);
        (
            mqtt(&format!("{name}:{port}"), port),
            inside_tls.then(Tls::default),
        )
    };
    let bit = |bit: u8| recipe.limits & bit != 0;
    let ((from, from_tls), (to, to_tls)) = (service(bit(1), bit(16)), service(bit(2), bit(32)));
    Flow {
        title: None,
        sources: vec![source],
        destinations: vec![destination],
        service: to,
        operations: Some(publications(recipe)),
        roles: None,
        must_flow: recipe.must_flow,
        on_refusal: OnRefusal::Answer,
        answers: Answers::Strict,
        tls: to_tls,
        bridge_source: Some(BridgeSource {
            service: from,
            tls: from_tls,
        }),
    }
}

/// An asset of the zone with one IPv4 address, if it has one.
fn broker(plant: &Plant, zone: &ZoneId, [_, first, _]: [u8; 3]) -> Option<FlowEnd> {
    let fit: Vec<(&AssetId, &Asset)> = plant
        .assets
        .iter()
        .filter(|(_, asset)| asset.zone == *zone && matches!(asset.addresses.as_slice(), [IpAddr::V4(_)]))
        .collect();
    let (id, asset) = fit.get(usize::from(first).checked_rem(fit.len())?)?;
    Some(FlowEnd::Asset((*id).clone(), asset.addresses.clone()))
}

/// Up to three assets of the zone, or the zone as a whole.
fn ends(plant: &Plant, zone: &ZoneId, numbers: [u8; 3]) -> Vec<FlowEnd> {
    let assets: Vec<(&AssetId, &Asset)> = plant
        .assets
        .iter()
        .filter(|(_, asset)| asset.zone == *zone)
        .collect();
    let whole = || {
        let networks = plant.zones.get(zone).map(|zone| zone.networks.clone());
        FlowEnd::Zone(zone.clone(), networks.unwrap_or_default())
    };
    let [count, first, with_zone] = numbers;
    if assets.is_empty() || with_zone % 4 == 0 {
        return vec![whole()];
    }
    let mut ends: Vec<FlowEnd> = assets
        .iter()
        .cycle()
        .skip(usize::from(first) % assets.len())
        .take(1 + usize::from(count) % assets.len())
        .map(|(id, asset)| FlowEnd::Asset((*id).clone(), asset.addresses.clone()))
        .collect();
    if with_zone % 4 == 1 {
        ends.push(whole());
    }
    ends
}

/// Few ports, so that flows overlap, and the two ends of what a port can be.
fn port_ranges(ports: &[(u8, u8)]) -> Vec<PortRange> {
    ports
        .iter()
        .map(|(first, length)| match first % 12 {
            0 => PortRange {
                first: 1,
                last: 1 + u16::from(length % 3),
            },
            1 => PortRange {
                first: 65535 - u16::from(length % 3),
                last: 65535,
            },
            near => PortRange {
                first: 500 + u16::from(near),
                last: 500 + u16::from(near) + u16::from(length % 5),
            },
        })
        .collect()
}

fn service(recipe: &FlowRecipe) -> (Service, Option<Operations>) {
    let plain = |name: &str, transport| Service {
        name: name.to_owned(),
        protocol: None,
        transport,
    };
    match recipe.service % SERVICES {
        0 => (plain("icmp-echo", Transport::IcmpEcho), None),
        1 | 2 => (plain("udp", Transport::Udp(port_ranges(&recipe.ports))), None),
        INSPECTED_FIRST..=INSPECTED_LAST => inspected(recipe),
        _ => (plain("tcp", Transport::Tcp(port_ranges(&recipe.ports))), None),
    }
}

/// A service whose operations differ, limited or not.
fn inspected(recipe: &FlowRecipe) -> (Service, Option<Operations>) {
    let known: Vec<(NamedService, Protocol)> = services()
        .filter(|known| !known.bridged && known.carrier == Carrier::Tcp)
        .filter_map(|known| Some((known, known.protocol?)))
        .collect();
    let chosen = known.iter().cycle().nth(usize::from(recipe.service / SERVICES));
    let Some((known, protocol)) = chosen.copied() else {
        unreachable!("there are services whose operations differ");
    };
    let service = Service {
        name: known.name.to_owned(),
        protocol: Some(protocol),
        transport: Transport::Tcp(vec![PortRange::single(known.port)]),
    };
    let limited = recipe.limits.is_multiple_of(2);
    (
        service,
        limited.then(|| operations::some(protocol, recipe.limits)),
    )
}

fn mqtt(name: &str, port: u16) -> Service {
    Service {
        name: name.to_owned(),
        protocol: Some(MQTT),
        transport: Transport::Tcp(vec![PortRange::single(port)]),
    }
}

fn publications(recipe: &FlowRecipe) -> Operations {
    Operations::from(vec![MqttOperation::Publish {
        topics: vec![format!("works/line{}/+", recipe.limits % 4)],
        qos: NumberRange { first: 0, last: 1 },
        retain: recipe.limits.is_multiple_of(4),
    }])
}
