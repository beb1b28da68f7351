//! Flows of random plants, from recipes of small numbers.

use proptest::prelude::*;

use crate::ids::{AssetId, ZoneId};
use crate::model::{
    Asset, Flow, FlowEnd, ModbusOperation, MqttOperation, NumberRange, Operations, Plant, Protocol, Service,
};
use crate::plan::{PortRange, Transport};

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

/// The flow that a recipe means, between two zones that each have networks.
pub(super) fn build(plant: &Plant, from: &ZoneId, to: &ZoneId, recipe: &FlowRecipe) -> Flow {
    let (opener, opened) = if recipe.reversed { (to, from) } else { (from, to) };
    let (service, operations) = service(recipe);
    Flow {
        title: None,
        sources: ends(plant, opener, recipe.sources),
        destinations: ends(plant, opened, recipe.destinations),
        service,
        operations,
        must_flow: recipe.must_flow,
        on_refusal: crate::model::OnRefusal::default(),
        tls: None,
        bridged: false,
    }
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
    let limited = recipe.limits.is_multiple_of(2);
    match recipe.service % 8 {
        0 => (plain("icmp-echo", Transport::IcmpEcho), None),
        1 | 2 => (plain("udp", Transport::Udp(port_ranges(&recipe.ports))), None),
        3 | 4 => (
            Service {
                name: "modbus-tcp".to_owned(),
                protocol: Some(Protocol::ModbusTcp),
                transport: Transport::Tcp(vec![PortRange::single(502)]),
            },
            limited.then(|| {
                let last = u32::from(recipe.limits);
                Operations::ModbusTcp(vec![ModbusOperation {
                    function: "read-holding-registers".to_owned(),
                    units: Some(vec![NumberRange { first: 1, last: 1 }]),
                    addresses: Some(vec![NumberRange { first: 0, last }]),
                    read_addresses: None,
                    values: None,
                    sub_functions: None,
                }])
            }),
        ),
        5 => (
            Service {
                name: "mqtt".to_owned(),
                protocol: Some(Protocol::Mqtt),
                transport: Transport::Tcp(vec![PortRange::single(1883)]),
            },
            limited.then(|| {
                Operations::Mqtt(vec![MqttOperation::Publish {
                    topics: vec![format!("works/line{}/+", recipe.limits % 4)],
                    qos: NumberRange { first: 0, last: 1 },
                    retain: recipe.limits.is_multiple_of(4),
                }])
            }),
        ),
        _ => (plain("tcp", Transport::Tcp(port_ranges(&recipe.ports))), None),
    }
}
