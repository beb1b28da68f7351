//! Assets and every address that one thing alone may have: the assets' own and the gateways' on their interfaces.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::{Context, each, resolve, text};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::grammar;
use crate::document::node::excerpt;
use crate::document::read::At;
use crate::ids::{AssetId, ZoneId};
use crate::model::Asset;

pub(super) fn assets(context: &Context<'_>, faults: &mut Faults) -> Option<BTreeMap<AssetId, Asset>> {
    if matches!(context.document.assets, crate::document::read::Field::Faulty) {
        return None;
    }
    unique_addresses(context, faults);
    unique_tags(context, faults);
    each(context.document.assets.value(), |name, asset| {
        let zone = resolve(&asset.zone, context.document.zones.value(), "zone", faults);
        let written = addresses(asset);
        for address in &written {
            belongs(
                &format!("the asset `{name}`"),
                address.clone(),
                zone.as_ref(),
                context,
                Code::AddressOutsideZone,
                faults,
            );
        }
        Some(Asset {
            title: text(&asset.title),
            tag: text(&asset.tag),
            zone: zone?,
            addresses: written.iter().map(|at| at.value).collect(),
            mac: asset.mac.value().map(|mac| mac.0.clone()),
            role: text(&asset.role),
            vendor: text(&asset.vendor),
            model: text(&asset.model),
            firmware: text(&asset.firmware),
            criticality: asset
                .criticality
                .value()
                .map(|criticality| criticality.0.to_owned()),
            sl_capability: asset.sl_capability.value().copied(),
            identity: asset.identity.value().copied(),
        })
    })
}

/// All addresses of an asset, whether written as `address` or `addresses`, one by one or in a row.
pub(super) fn addresses(asset: &grammar::Asset) -> Vec<At<IpAddr>> {
    let rows = asset.addresses.value().into_iter().flat_map(|list| &list.0);
    let in_rows = rows.flat_map(|row| {
        row.value.0.iter().map(|address| At {
            value: *address,
            place: row.place,
        })
    });
    asset.address.get().cloned().into_iter().chain(in_rows).collect()
}

/// Refuses a tag that two assets bear: who asks by it would not know which is meant.
fn unique_tags(context: &Context<'_>, faults: &mut Faults) {
    let mut seen: HashMap<&str, (Place, &AssetId)> = HashMap::new();
    let table = context.document.assets.value();
    for (name, _, asset) in table.into_iter().flat_map(|table| table.readable()) {
        let Some(tag) = asset.tag.get() else { continue };
        let namesake = AssetId::new(tag.value.0.as_str())
            .ok()
            .filter(|other| other != name)
            .and_then(|other| table?.0.get_key_value(&other));
        let first = seen.get(tag.value.0.as_str()).copied();
        let taken = first.or(namesake.map(|(other, named)| (named.key_place, other)));
        if let Some((first, other)) = taken {
            faults.add(
                Fault::new(
                    Code::TagTwice,
                    tag.place,
                    format!(
                        "the asset `{name}` has the tag `{}`, by which `{other}` is found already",
                        excerpt(&tag.value.0)
                    ),
                )
                .label("again here")
                .related(first, format!("of `{other}`"))
                .help("correct one of the two"),
            );
        } else {
            seen.insert(&tag.value.0, (tag.place, name));
        }
    }
}

/// Checks that an address can be a machine's own, and lies in its zone.
pub(super) fn belongs(
    who: &str,
    at: At<IpAddr>,
    zone: Option<&ZoneId>,
    context: &Context<'_>,
    outside: Code,
    faults: &mut Faults,
) {
    let At {
        value: address,
        place,
    } = at;
    let holding = context.networks.holding(address);
    let edge = holding.and_then(|(net, _)| edge_of(net, address));
    if let Some(reason) = not_a_host(address).or(edge) {
        faults.add(
            Fault::new(
                Code::NotAHostAddress,
                place,
                format!("{who} cannot have the address {address}"),
            )
            .label(reason)
            .help("give it the address of a single machine"),
        );
        return;
    }
    let Some(zone) = zone else { return };
    let networks = context.networks.of(zone);
    let elsewhere = match holding {
        Some((_, holder)) if holder == zone => return,
        Some((net, holder)) => format!("it lies in {net} of the zone `{holder}`"),
        // A zone without networks consists of its assets' addresses.
        None if networks.is_empty() => return,
        None => "it lies in no zone's networks".to_owned(),
    };
    let help = if networks.is_empty() {
        "correct the address or the zone".to_owned()
    } else {
        let list: Vec<String> = networks.iter().take(4).map(IpNet::to_string).collect();
        format!(
            "the zone has {}; correct the address, the zone, or its `networks`",
            list.join(", ")
        )
    };
    faults.add(
        Fault::new(
            outside,
            place,
            format!("the address {address} of {who} is not in the zone `{zone}`: {elsewhere}"),
        )
        .label("not in the zone")
        .help(help),
    );
}

/// Why an address cannot be one machine's.
fn not_a_host(address: IpAddr) -> Option<&'static str> {
    if address.is_multicast() {
        return Some("a multicast address");
    }
    if address.is_loopback() || address.is_unspecified() {
        return Some("a loopback or unspecified address");
    }
    (address == IpAddr::V4(Ipv4Addr::BROADCAST)).then_some("the broadcast address")
}

/// Which end of an IPv4 network an address is, where a network of this size has ends that no machine can have (RFC 3021).
pub(super) fn edge_of(net: IpNet, address: IpAddr) -> Option<&'static str> {
    if !matches!(net, IpNet::V4(_)) || net.prefix_len() > 30 {
        return None;
    }
    if address == net.network() {
        return Some("the network's own address: the first one");
    }
    (address == net.broadcast()).then_some("the network's broadcast address: the last one")
}

/// Refuses an address that two things have.
fn unique_addresses(context: &Context<'_>, faults: &mut Faults) {
    let mut seen: HashMap<IpAddr, (Place, String)> = HashMap::new();
    let mut take = |address: IpAddr, place: Place, who: String| match seen.get(&address) {
        None => {
            seen.insert(address, (place, who));
        }
        Some((first, other)) => faults.add(
            Fault::new(
                Code::AddressTwice,
                place,
                format!("{who} has the address {address}, which {other} has already"),
            )
            .label("again here")
            .related(*first, format!("of {other}"))
            .help("correct one of the two"),
        ),
    };
    for (name, _, asset) in context
        .document
        .assets
        .value()
        .into_iter()
        .flat_map(|table| table.readable())
    {
        for at in addresses(asset) {
            take(at.value, at.place, format!("the asset `{name}`"));
        }
    }
    for (name, _, gateway) in context
        .document
        .gateways
        .value()
        .into_iter()
        .flat_map(|table| table.readable())
    {
        for (interface, _, it) in gateway
            .interfaces
            .value()
            .into_iter()
            .flat_map(|table| table.readable())
        {
            for at in it.address.value().into_iter().flat_map(|list| &list.0) {
                take(
                    at.value.0.addr(),
                    at.place,
                    format!("the interface `{interface}` of `{name}`"),
                );
            }
        }
    }
}
