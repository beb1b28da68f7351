//! Plants from recipes of small numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::{GRANTED_MS, flow};
use crate::ids::{ApproverId, ConduitId, Digest, FlowName, GatewayId, GrantId, NameError, SiteId, ZoneId};
use crate::model::{
    Approver, ApproverSet, Asset, Conduit, Flow, FrameFlow, Gateway, Interface, ManagementAccess, Overrider,
    Overriders, Plant, PublicKey, RemoteAccess, Site, SlVector, Zone, ZoneKind,
};
use crate::plan::moment;
use crate::terms::{Enforcement, EtherType, Frames, GatewayMode, OnAgentLoss, OnDrift};

/// Small numbers from which a plant is built; any numbers give a valid one.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    /// Per zone: networks, assets, kind, enforcement, target level.
    zones: Vec<[u8; 5]>,
    /// Per gateway: number of sides, first zone, mode, zone behind, which side.
    gateways: Vec<[u8; 5]>,
    /// Per conduit: gateway, side, other side, zone on each, agent loss, and its flows.
    conduits: Vec<([u8; 6], Vec<flow::FlowRecipe>)>,
    /// Who may override gateways: nobody, people, codes; where the people may, and for how long.
    break_glass: [u8; 3],
}

pub(super) fn recipes() -> impl Strategy<Value = Recipe> {
    (
        prop::collection::vec(any::<[u8; 5]>(), 2..7),
        prop::collection::vec(any::<[u8; 5]>(), 1..4),
        prop::collection::vec(
            (any::<[u8; 6]>(), prop::collection::vec(flow::recipes(), 1..4)),
            0..9,
        ),
        any::<[u8; 3]>(),
    )
        .prop_map(|(zones, gateways, conduits, break_glass)| Recipe {
            zones,
            gateways,
            conduits,
            break_glass,
        })
}

/// A name that is well formed because it was made so here.
fn name<T: TryFrom<String, Error = NameError>>(text: String) -> T {
    match T::try_from(text) {
        Ok(name) => name,
        Err(error) => unreachable!("names made by the generator are well formed: {error}"),
    }
}

/// The plant that a recipe means.
pub(super) fn build(recipe: &Recipe) -> Plant {
    let mut plant = Plant {
        id: name("random-plant".to_owned()),
        title: "A random plant".to_owned(),
        owner: None,
        approvers: approvers(),
        sites: BTreeMap::from([(
            name::<SiteId>("works".to_owned()),
            Site {
                title: "Works".to_owned(),
                timezone: "Europe/Berlin".to_owned(),
            },
        )]),
        gateways: BTreeMap::new(),
        zones: BTreeMap::new(),
        assets: BTreeMap::new(),
        conduits: BTreeMap::new(),
        remote_access: BTreeMap::new(),
        break_glass: None,
        compensating_controls: BTreeMap::new(),
        risk: Vec::new(),
        accepted: Vec::new(),
    };
    for (index, numbers) in (0_u8..).zip(&recipe.zones) {
        add_zone(&mut plant, index, numbers);
    }
    for (index, numbers) in (0_u8..).zip(&recipe.gateways) {
        add_gateway(&mut plant, index, numbers);
    }
    for (index, (numbers, flows)) in recipe.conduits.iter().enumerate() {
        add_conduit(&mut plant, index, numbers, flows);
    }
    plant.break_glass = break_glass(&plant, &recipe.break_glass);
    plant
}

/// RFC 8032, section 7.1, tests 1 and 2.
const KEYS: [PublicKey; 2] = [
    PublicKey::ed25519([
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e,
        0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
    ]),
    PublicKey::ed25519([
        0x3d, 0x40, 0x17, 0xc3, 0xe8, 0x43, 0x89, 0x5a, 0x92, 0xb7, 0x0a, 0xa7, 0x4d, 0x1b, 0x7e, 0xbc, 0x9c,
        0x98, 0x2c, 0xcf, 0x2e, 0xc4, 0x96, 0x8c, 0xc0, 0xcd, 0x55, 0xf1, 0x2a, 0xf4, 0x66, 0x0c,
    ]),
];

/// In most plants somebody may override some gateway.
fn break_glass(plant: &Plant, [who, sites, longest]: &[u8; 3]) -> Option<Overriders> {
    let people = KEYS.iter().zip(["kim", "lee"]).map(|(key, person)| {
        let sites = (sites % 2 == 0).then(|| BTreeSet::from([name::<SiteId>("works".to_owned())]));
        (name(person.to_owned()), Overrider { key: *key, sites })
    });
    let codes = plant.gateways.keys().take(usize::from(who / 4 % 3));
    let codes = codes.map(|gateway| {
        (
            gateway.clone(),
            BTreeSet::from([Digest::of(gateway.as_str().as_bytes())]),
        )
    });
    let made = Overriders {
        longest_s: 60 + u32::from(*longest),
        people: if who % 4 > 1 {
            people.collect()
        } else {
            BTreeMap::new()
        },
        sealed: if who % 2 == 0 {
            BTreeMap::new()
        } else {
            codes.collect()
        },
    };
    (!made.people.is_empty() || !made.sealed.is_empty()).then_some(made)
}

/// One approver.
fn approvers() -> ApproverSet {
    let [key, _] = KEYS;
    ApproverSet {
        emergency_threshold: None,
        threshold: 1,
        people: BTreeMap::from([(
            name::<ApproverId>("approver".to_owned()),
            Approver { key, role: None },
        )]),
    }
}

fn v4(zone: u8, third: u8, fourth: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(
        Ipv4Addr::new(10, zone + 1, third, fourth),
        prefix,
    ))
}

fn v6_host(zone: u8, host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, u16::from(zone) + 1, 0, 0, 0, 0, 0, u16::from(host))
}

/// Networks of zone `index`: disjoint from every other zone's, and of four shapes.
fn networks(index: u8, shape: u8) -> Vec<IpNet> {
    let v6 = |prefix| IpNet::V6(Ipv6Net::new_assert(v6_host(index, 0), prefix));
    match shape % 4 {
        0 => vec![v4(index, 0, 0, 24)],
        1 => vec![v4(index, 0, 0, 25), v4(index, 1, 0, 25)],
        2 => vec![v4(index, 0, 16, 28), v6(64)],
        _ => vec![v4(index, 0, 4, 30), v6(120)],
    }
}

fn add_zone(plant: &mut Plant, index: u8, [shape, assets, kind, enforcement, level]: &[u8; 5]) {
    let id: ZoneId = name(format!("zone{index}"));
    let kinds = [
        ZoneKind::Enterprise,
        ZoneKind::Dmz,
        ZoneKind::Operations,
        ZoneKind::Control,
        ZoneKind::Safety,
        ZoneKind::Wireless,
    ];
    let level = level % 5;
    plant.zones.insert(
        id.clone(),
        Zone {
            title: format!("Zone {index}"),
            kind: pick(&kinds, *kind).copied().unwrap_or(ZoneKind::Control),
            parent: None,
            sl_target: (level > 0).then_some(SlVector {
                iac: level,
                uc: level,
                si: level,
                dc: level,
                rdf: level,
                tre: level,
                ra: level,
            }),
            networks: networks(index, *shape),
            consequence: None,
            accountable: None,
            boundary: None,
            requirements: Vec::new(),
            assumptions: Vec::new(),
            enforcement: if enforcement % 2 == 0 {
                Enforcement::Observe
            } else {
                Enforcement::Enforce
            },
        },
    );
    let first_host = match shape % 4 {
        0 | 1 => 10,
        2 => 17,
        _ => 5,
    };
    for host in 0..assets % 4 {
        let mut addresses = vec![IpAddr::V4(if host == 2 {
            // One that lives outside its zone's networks.
            Ipv4Addr::new(192, 168, index, 7)
        } else {
            Ipv4Addr::new(10, index + 1, 0, first_host + host)
        })];
        if shape % 4 >= 2 && host != 1 {
            addresses.push(IpAddr::V6(v6_host(index, first_host + host)));
        }
        plant.assets.insert(
            name(format!("asset{index}-{host}")),
            Asset {
                title: None,
                tag: None,
                zone: id.clone(),
                addresses,
                mac: None,
                role: None,
                vendor: None,
                model: None,
                firmware: None,
                criticality: None,
                sl_capability: None,
                identity: None,
            },
        );
    }
}

fn add_gateway(plant: &mut Plant, index: u8, [sides, first, mode, behind, which]: &[u8; 5]) {
    let zones: Vec<ZoneId> = plant.zones.keys().cloned().collect();
    let mode = if mode % 2 == 0 {
        GatewayMode::Routed
    } else {
        GatewayMode::Bridged
    };
    let sides = 2 + usize::from(*sides) % zones.len().saturating_sub(1).clamp(1, 2);
    let mut order = zones
        .iter()
        .cycle()
        .skip(usize::from(*first) % zones.len())
        .cloned();
    let mut interfaces: BTreeMap<String, Interface> = BTreeMap::new();
    for (side, zone) in (1..=sides).zip(order.by_ref()) {
        interfaces.insert(
            format!("eth{side}"),
            Interface {
                zone,
                behind: Vec::new(),
                routers: Vec::new(),
                addresses: Vec::new(),
            },
        );
    }
    // Up to two more zones behind the sides, where there are any left.
    if behind % 3 != 1 {
        for (at, zone) in order.take((zones.len() - sides).min(2)).enumerate() {
            let side = format!(
                "eth{}",
                1 + (usize::from(*which) + at * usize::from(*which / 3)) % sides
            );
            if let Some(interface) = interfaces.get_mut(&side) {
                interface.behind.push(zone);
            }
        }
    }
    // A bridge may have two ports into the same zone.
    if mode == GatewayMode::Bridged
        && behind % 3 == 1
        && let Some(zone) = interfaces.get("eth1").map(|interface| interface.zone.clone())
    {
        interfaces.insert(
            "eth8".to_owned(),
            Interface {
                zone,
                behind: Vec::new(),
                routers: Vec::new(),
                addresses: Vec::new(),
            },
        );
    }
    plant.gateways.insert(
        name(format!("gw{index}")),
        Gateway {
            site: name("works".to_owned()),
            mode,
            labels: BTreeMap::new(),
            interfaces,
            management: Some(ManagementAccess {
                interface: "eth0".to_owned(),
                peers: vec![IpNet::from(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)))],
            }),
            windows: Vec::new(),
            safe_to_change: None,
            redundant_with: None,
            on_drift: OnDrift::Repair,
            tunnel: None,
            tunnels: BTreeMap::new(),
        },
    );
}

/// Every zone on one side of a gateway.
fn side(interface: &Interface) -> impl Iterator<Item = &ZoneId> {
    std::iter::once(&interface.zone).chain(&interface.behind)
}

/// Every gateway that has both zones, on two different sides.
fn between(plant: &Plant, from: &ZoneId, to: &ZoneId) -> BTreeSet<GatewayId> {
    plant
        .gateways
        .iter()
        .filter(|(_, gateway)| {
            gateway.interfaces.iter().any(|(a, near)| {
                gateway.interfaces.iter().any(|(b, far)| {
                    a != b && side(near).any(|zone| zone == from) && side(far).any(|zone| zone == to)
                })
            })
        })
        .map(|(id, _)| id.clone())
        .collect()
}

fn add_conduit(plant: &mut Plant, index: usize, numbers: &[u8; 6], flows: &[flow::FlowRecipe]) {
    let [gateway, near, far, near_zone, far_zone, loss] = numbers;
    let Some(gateway) = plant
        .gateways
        .values()
        .nth(usize::from(*gateway) % plant.gateways.len())
    else {
        return;
    };
    let interfaces: Vec<&Interface> = gateway.interfaces.values().collect();
    let near = usize::from(*near) % interfaces.len();
    let far = (near + 1 + usize::from(*far) % (interfaces.len() - 1)) % interfaces.len();
    let zone_on = |at: usize, number: u8| {
        let zones: Vec<&ZoneId> = interfaces
            .get(at)
            .map(|interface| side(interface).collect())
            .unwrap_or_default();
        pick(&zones, number).map(|zone| (*zone).clone())
    };
    let (Some(from), Some(to)) = (zone_on(near, *near_zone), zone_on(far, *far_zone)) else {
        return;
    };
    if from == to {
        return; // Two ports of a bridge in one zone: nothing to cross.
    }
    let via = between(plant, &from, &to);
    let flows: BTreeMap<FlowName, Flow> = flows
        .iter()
        .enumerate()
        .map(|(number, recipe)| {
            (
                name(format!("flow{number}")),
                flow::build(plant, &from, &to, &via, recipe),
            )
        })
        .collect();
    let bridged = flows.values().any(Flow::is_bridge);
    // What ends TLS before a server in the plain never passes without an agent.
    let in_plain = flows.values().any(|flow| flow.plain_port().is_some());
    let id = name::<ConduitId>(format!("conduit{index}"));
    // Some hang on a grant that lasts at `GRANTED_MS`, some on one that does not, some on none.
    let only_by_grant = !bridged && loss / 2 % 8 > 5;
    if !bridged && loss / 2 % 8 > 4 && loss / 16 % 3 > 0 {
        let from_ms = if loss / 16 % 3 == 1 {
            GRANTED_MS - 1000
        } else {
            GRANTED_MS
        };
        let (from_ms, until_ms) = (from_ms + u64::from(loss / 48 % 2), from_ms + 1000);
        plant.remote_access.insert(
            name::<GrantId>(format!("grant{index}")),
            RemoteAccess {
                person: "Carla".to_owned(),
                conduit: id.clone(),
                reason: "maintenance".to_owned(),
                from: moment(from_ms),
                until: moment(until_ms),
                from_ms,
                until_ms,
                approved_by: name("approver".to_owned()),
            },
        );
    }
    let granted = only_by_grant || plant.remote_access.values().any(|access| access.conduit == id);
    let frames = match granted {
        true => BTreeMap::new(),
        false => frames(plant, (&from, &to), &via, *loss),
    };
    plant.conduits.insert(
        id,
        Conduit {
            title: format!("Conduit {index}"),
            from,
            to,
            via,
            enforced_by: crate::model::Enforcer::default(),
            sl_target: None,
            on_agent_loss: if loss % 2 == 0 || in_plain {
                OnAgentLoss::Block
            } else {
                OnAgentLoss::Pass
            },
            tunnel: false,
            only_by_grant,
            minimum_assurance: None,
            accountable: None,
            flows,
            frames,
        },
    );
}

/// Frames other than IP, where all gateways between are bridges on which each of the two zones has its sides to itself.
fn frames(
    plant: &Plant,
    (from, to): (&ZoneId, &ZoneId),
    via: &BTreeSet<GatewayId>,
    number: u8,
) -> BTreeMap<FlowName, FrameFlow> {
    let is_alone = |interface: &Interface| {
        !side(interface).any(|zone| zone == from || zone == to) || interface.behind.is_empty()
    };
    let bridged = |id: &GatewayId| {
        let gateway = plant.gateways.get(id);
        gateway.is_some_and(|gateway| {
            gateway.mode == GatewayMode::Bridged && gateway.interfaces.values().all(is_alone)
        })
    };
    if via.is_empty() || !via.iter().all(bridged) {
        return BTreeMap::new();
    }
    let kinds = [0x8892_u16, 0x88b8, 0x88f7];
    let kind = pick(&kinds, number / 4).and_then(|kind| EtherType::try_from(*kind).ok());
    let frames = kind.map(|ether_type| FrameFlow {
        title: None,
        from: if number & 1 == 0 { from.clone() } else { to.clone() },
        to: if number & 1 == 0 { to.clone() } else { from.clone() },
        both: number & 2 == 0,
        frames: Frames {
            ether_type,
            vlans: if number & 8 == 0 { vec![0] } else { vec![0, 10] },
            destinations: None,
            appids: None,
        },
    });
    frames
        .map(|flow| (name("frames".to_owned()), flow))
        .into_iter()
        .collect()
}

fn pick<T>(items: &[T], number: u8) -> Option<&T> {
    items.get(usize::from(number).checked_rem(items.len())?)
}
