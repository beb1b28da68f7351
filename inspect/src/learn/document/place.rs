//! Where the ends of a proposal belong: in a plant as it says, in a first sketch by what they do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use penstock_policy::ids::AssetId;
use penstock_policy::model::{Asset, Flow, FlowEnd, Plant};
use penstock_policy::terms::{OnAgentLoss, Transport};

use super::{Ends, PortCarrier, Talk};

/// Where an address belongs.
pub(super) struct Place {
    pub(super) zone: String,
    pub(super) asset: String,
    /// The plant does not have it yet.
    pub(super) is_new: bool,
}

/// The places of a plant, by address.
pub(super) struct Places<'p> {
    plant: &'p Plant,
    assets: HashMap<IpAddr, (&'p AssetId, &'p Asset)>,
}

impl<'p> Places<'p> {
    pub(super) fn of(plant: &'p Plant) -> Self {
        let of_asset = |(id, asset): (&'p AssetId, &'p Asset)| {
            asset.addresses.iter().map(move |address| (*address, (id, asset)))
        };
        Self {
            plant,
            assets: plant.assets.iter().flat_map(of_asset).collect(),
        }
    }

    /// An asset, or else the zone whose networks hold the address most closely. `None`: in no zone, or as a
    /// network's broadcast address, which can be no asset's.
    pub(super) fn within(&self, address: IpAddr) -> Option<Place> {
        if let Some((id, asset)) = self.assets.get(&address) {
            return Some(Place {
                zone: asset.zone.to_string(),
                asset: id.to_string(),
                is_new: false,
            });
        }
        self.plant
            .zones
            .iter()
            .filter_map(|(id, zone)| {
                let network = zone
                    .networks
                    .iter()
                    .filter(|network| network.contains(&address))
                    .max_by_key(|network| network.prefix_len())?;
                Some((network, id))
            })
            .max_by_key(|(network, _)| network.prefix_len())
            // A network of two addresses has none.
            .filter(|(network, _)| {
                address.is_ipv6() || network.prefix_len() > 30 || address != network.broadcast()
            })
            .map(|(_, id)| Place {
                zone: id.to_string(),
                asset: asset_name(address),
                is_new: true,
            })
    }
}

impl Place {
    /// In a document that there is no plant for yet.
    pub(super) fn sketched(operating: &BTreeSet<IpAddr>, address: IpAddr) -> Self {
        let zone = if operating.contains(&address) {
            "operations"
        } else {
            "control"
        };
        Self {
            zone: zone.to_owned(),
            asset: asset_name(address),
            is_new: true,
        }
    }
}

/// A name that an address can have.
fn asset_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("host-{}", address.to_string().replace('.', "-")),
        IpAddr::V6(address) => format!("host-{:032x}", u128::from(address)),
    }
}

/// Who is put into zone `operations` of a whole document.
///
/// Whoever is asked by a field protocol is a controller, whatever it opens itself, unless it asks more machines so than ask it. Of the
/// others, whoever opens TCP connections is none, even if it also answers some; but a controller asks for the time and sends its log over
/// UDP. So UDP decides only on those of which no TCP was seen: they operate if they open at least as much as is opened to them.
pub(super) fn operating(talks: &[(&Ends, &Talk)]) -> BTreeSet<IpAddr> {
    let mut tcp: BTreeMap<IpAddr, bool> = BTreeMap::new();
    let mut udp: BTreeMap<IpAddr, (u64, u64)> = BTreeMap::new();
    // By whom a machine is asked in the field, and whom it asks.
    let mut field: BTreeMap<IpAddr, (BTreeSet<IpAddr>, BTreeSet<IpAddr>)> = BTreeMap::new();
    for (ends, talk) in talks {
        let (client, server) = (ends.client, ends.server.ip());
        if is_of_the_field(ends, talk) {
            field.entry(server).or_default().0.insert(client);
            field.entry(client).or_default().1.insert(server);
        }
        match ends.carrier {
            PortCarrier::Tcp => {
                tcp.insert(client, true);
                tcp.entry(server).or_insert(false);
            }
            PortCarrier::Udp => {
                let count = talk
                    .packets
                    .map_or(talk.connections.count, |packets| packets.count);
                let (opened, _) = udp.entry(client).or_default();
                *opened = opened.saturating_add(count);
                let (_, opened_to) = udp.entry(server).or_default();
                *opened_to = opened_to.saturating_add(count);
            }
        }
    }
    let is_controller = |address: &IpAddr| {
        field
            .get(address)
            .is_some_and(|(askers, asked)| !askers.is_empty() && askers.len() >= asked.len())
    };
    let by_udp = udp
        .into_iter()
        .filter(|(address, (opened, opened_to))| !tcp.contains_key(address) && opened >= opened_to)
        .map(|(address, _)| address);
    let by_tcp = tcp
        .iter()
        .filter(|(_, opens)| **opens)
        .map(|(address, _)| *address);
    by_tcp
        .chain(by_udp)
        .filter(|address| !is_controller(address))
        .collect()
}

/// Ports of protocols by which controllers and field devices are asked.
const FIELD_PORTS: [u16; 14] = [
    102, 502, 802, 1089, 1090, 1091, 2222, 2404, 4000, 5094, 9600, 18_245, 20_000, 44_818,
];
/// The same over UDP alone.
const FIELD_PORTS_UDP: [u16; 2] = [34_964, 47_808];

fn is_of_the_field(ends: &Ends, talk: &Talk) -> bool {
    let port = ends.server.port();
    // Between peers of the same port nothing tells who is asked.
    let by_udp = || ends.carrier == PortCarrier::Udp && FIELD_PORTS_UDP.contains(&port);
    let is_read = talk.protocol.is_some_and(|protocol| protocol.session.is_none());
    FIELD_PORTS.contains(&port) || is_read || by_udp()
}

/// Whether a new flow between these ends has to pass while no agent lives, as the inspected flows of the plant do that permit the
/// same connections: these pass only if each of their flows does.
pub(super) fn passes_without_agent(plant: &Plant, ends: &Ends) -> bool {
    let holds = |list: &[FlowEnd], address: IpAddr| {
        list.iter().any(|end| match end {
            FlowEnd::Asset(_, addresses) => addresses.contains(&address),
            FlowEnd::Zone(_, networks) => networks.iter().any(|network| network.contains(&address)),
        })
    };
    let shares = |flow: &Flow| {
        let serves = match (ends.carrier, &flow.service.transport) {
            (PortCarrier::Tcp, Transport::Tcp(ranges)) => {
                ranges.iter().any(|range| range.contains(ends.server.port()))
            }
            _ => false,
        };
        serves
            && flow.is_carried()
            && holds(&flow.sources, ends.client)
            && holds(&flow.destinations, ends.server.ip())
    };
    let mut shared = plant
        .conduits
        .values()
        .filter(|conduit| conduit.flows.values().any(shares))
        .map(|conduit| conduit.on_agent_loss)
        .peekable();
    shared.peek().is_some() && shared.all(|loss| loss == OnAgentLoss::Pass)
}
