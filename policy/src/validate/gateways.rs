//! Gateways: their sides, their addresses, the way in for people, windows and pairs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, assets, each, interlock, resolve, resolves, tunnels};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::addresses::InterfaceAddress;
use crate::document::grammar;
use crate::document::names::InterfaceName;
use crate::document::read::{At, Field};
use crate::ids::{GatewayId, ZoneId};
use crate::model::{Gateway, Interface, ManagementAccess, Window};
use crate::terms::{GatewayMode, OnDrift};

pub(super) fn gateways(context: &Context<'_>, faults: &mut Faults) -> Option<BTreeMap<GatewayId, Gateway>> {
    if matches!(context.document.gateways, Field::Faulty) {
        return None;
    }
    let table = context.document.gateways.value();
    for (name, named, gateway) in table.into_iter().flat_map(|table| table.readable()) {
        sides(name, named.key_place, gateway, faults);
        if gateway.management.is_absent() {
            faults.add(
                Fault::new(
                    Code::NoManagement,
                    named.key_place,
                    format!("the gateway `{name}` has no declared way in"),
                )
                .label("no `management`")
                .help("add `management: { interface: eth0, peers: [ADDRESS] }`"),
            );
        }
        pair(name, gateway, context, faults);
    }
    each(table, |name, gateway| gateway_of(name, gateway, context, faults))
}

fn gateway_of(
    name: &GatewayId,
    gateway: &grammar::Gateway,
    context: &Context<'_>,
    faults: &mut Faults,
) -> Option<Gateway> {
    let document = context.document;
    let site = resolve(&gateway.site, document.sites.value(), "site", faults);
    let mode = gateway.mode.value().copied();
    let interfaces = each(gateway.interfaces.value(), |interface, it| {
        interface_of(
            &format!("the interface `{interface}` of `{name}`"),
            it,
            mode,
            context,
            faults,
        )
    });
    let labels = each(gateway.labels.value(), |_, label| Some(label.0.clone()))?;
    let made = Gateway {
        site: site?,
        mode: mode?,
        labels: labels.into_iter().map(|(key, label)| (key.0, label)).collect(),
        interfaces: interfaces?
            .into_iter()
            .map(|(interface, it)| (interface.0, it))
            .collect(),
        management: gateway.management.value().and_then(management),
        windows: windows(gateway, faults),
        safe_to_change: None,
        redundant_with: resolve(
            &gateway.redundant_with,
            document.gateways.value(),
            "gateway",
            faults,
        ),
        on_drift: gateway.on_drift.value().copied().unwrap_or(OnDrift::Repair),
        tunnel: gateway.tunnel.value().and_then(tunnels::end),
        tunnels: BTreeMap::new(),
    };
    let safe_to_change = gateway
        .safe_to_change
        .get()
        .and_then(|condition| interlock::safe_to_change(name, condition, &made, context, faults));
    Some(Gateway {
        safe_to_change,
        ..made
    })
}

fn interface_of(
    who: &str,
    it: &grammar::Interface,
    mode: Option<GatewayMode>,
    context: &Context<'_>,
    faults: &mut Faults,
) -> Option<Interface> {
    let zones = context.document.zones.value();
    let zone = resolve(&it.zone, zones, "zone", faults);
    let mut behind = Vec::new();
    for further in it.behind.value().into_iter().flat_map(|list| &list.0) {
        if Some(&further.value) == it.zone.value() {
            faults.add(
                Fault::new(
                    Code::RepeatedItem,
                    further.place,
                    format!("{who} has the zone `{}` attached already", further.value),
                )
                .help("remove it from `behind`"),
            );
        } else if resolves(further, zones, "zone", faults) {
            behind.push(further.value.clone());
        }
    }
    let mut addresses = Vec::new();
    for address in it.address.value().into_iter().flat_map(|list| &list.0) {
        addresses.push(address.value.0);
        own_address(who, address, mode, zone.as_ref(), context, faults);
    }
    if mode == Some(GatewayMode::Routed)
        && it.address.is_absent()
        && let Some(zone) = it.zone.get()
    {
        faults.add(
            Fault::new(
                Code::RoutedWithoutAddress,
                zone.place,
                format!("{who} has no address, but the gateway is routed"),
            )
            .label("routes for this zone")
            .help("add `address: ADDRESS/PREFIX`, or say `mode: bridged`"),
        );
    }
    Some(Interface {
        zone: zone?,
        behind,
        routers: it
            .routers
            .value()
            .into_iter()
            .flat_map(|list| list.0.iter().map(|at| at.value.0))
            .collect(),
        addresses,
    })
}

/// An address of the gateway itself: of a host, in the attached zone, and on a routed gateway.
fn own_address(
    who: &str,
    address: &At<InterfaceAddress>,
    mode: Option<GatewayMode>,
    zone: Option<&ZoneId>,
    context: &Context<'_>,
    faults: &mut Faults,
) {
    let net = address.value.0;
    let edge = assets::edge_of(net, net.addr());
    if mode == Some(GatewayMode::Bridged) {
        faults.add(
            Fault::new(
                Code::AddressOnBridge,
                address.place,
                format!("{who} has an address, but the gateway is bridged"),
            )
            .help("remove `address`, or say `mode: routed`"),
        );
    } else if let Some(reason) = edge {
        faults.add(
            Fault::new(
                Code::NotAHostAddress,
                address.place,
                format!("{who} cannot have the address {net}"),
            )
            .label(reason)
            .help("give it the address of a single machine"),
        );
    } else {
        let at = At {
            value: net.addr(),
            place: address.place,
        };
        assets::belongs(who, at, zone, context, Code::InterfaceOutsideZone, faults);
    }
}

/// The zones of each interface of a gateway.
pub(super) fn zones_by_interface(gateway: &grammar::Gateway) -> BTreeMap<&InterfaceName, BTreeSet<&ZoneId>> {
    gateway
        .interfaces
        .value()
        .into_iter()
        .flat_map(|table| table.readable())
        .map(|(name, _, it)| {
            let behind = it
                .behind
                .value()
                .into_iter()
                .flat_map(|list| list.0.iter().map(|at| &at.value));
            (name, it.zone.value().into_iter().chain(behind).collect())
        })
        .collect()
}

/// A gateway has at least two sides, and they do not lead to the same zone among others.
fn sides(name: &GatewayId, key_place: Place, gateway: &grammar::Gateway, faults: &mut Faults) {
    let Some(table) = gateway.interfaces.value() else {
        return;
    };
    let sides = zones_by_interface(gateway);
    if sides.len() < table.0.len() {
        return; // One of them could not be read: nothing can be said about all.
    }
    let distinct: BTreeSet<&BTreeSet<&ZoneId>> = sides.values().collect();
    if distinct.len() < 2 {
        faults.add(
            Fault::new(
                Code::TooFewSides,
                key_place,
                format!("the gateway `{name}` does not stand between two zones"),
            )
            .label("only one side")
            .help("add the interface on its other side"),
        );
    }
    let mut first: BTreeMap<&ZoneId, (&InterfaceName, &BTreeSet<&ZoneId>)> = BTreeMap::new();
    for (interface, zones) in &sides {
        for zone in zones {
            match first.get(zone) {
                Some((other, others)) if zones.len() > 1 || others.len() > 1 => {
                    let place = |name: &InterfaceName| table.0.get(name).map(|named| named.key_place);
                    let message = format!(
                        "the zone `{zone}` is reached through `{other}` and `{interface}` of `{name}`"
                    );
                    let fault = Fault::new(Code::ZoneOnTwoSides, place(interface), message)
                        .label("this side")
                        .help("take it off one of the two interfaces");
                    faults.add(match place(other) {
                        Some(place) => fault.related(place, "and that side"),
                        None => fault,
                    });
                }
                Some(_) => {}
                None => {
                    first.insert(zone, (interface, zones));
                }
            }
        }
    }
}

fn management(management: &grammar::Management) -> Option<ManagementAccess> {
    Some(ManagementAccess {
        interface: management.interface.value()?.0.clone(),
        peers: management.peers.value()?.0.iter().map(|at| at.value.0).collect(),
    })
}

/// The windows in the order of the week, each once.
fn windows(gateway: &grammar::Gateway, faults: &mut Faults) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for written in gateway.window.value().into_iter().flat_map(|list| &list.0) {
        for window in &written.value.0 {
            let overlaps = windows.iter().any(|other| {
                other.weekday == window.weekday
                    && other.start_minute < window.end_minute
                    && window.start_minute < other.end_minute
            });
            if overlaps {
                faults.add(
                    Fault::new(
                        Code::RepeatedItem,
                        written.place,
                        "this window overlaps another of the gateway",
                    )
                    .label("overlaps")
                    .help("make one window of the two"),
                );
                break;
            }
            windows.push(window.clone());
        }
    }
    windows.sort_by_key(|window| (window.weekday, window.start_minute));
    windows
}

/// The two of a redundant pair name each other and stand at one site.
fn pair(name: &GatewayId, gateway: &grammar::Gateway, context: &Context<'_>, faults: &mut Faults) {
    let Some(At {
        value: other_name,
        place,
    }) = gateway.redundant_with.get()
    else {
        return;
    };
    let Some(other) = context
        .document
        .gateways
        .value()
        .and_then(|table| table.get(other_name))
    else {
        return;
    };
    let complaint = if other_name == name {
        "it names itself".to_owned()
    } else if matches!(other.redundant_with, Field::Faulty) {
        return;
    } else if other.redundant_with.value() != Some(name) {
        format!("`{other_name}` does not name `{name}` in return")
    } else if other.site.value() != gateway.site.value() {
        "the two stand at different sites".to_owned()
    } else {
        return;
    };
    faults.add(
        Fault::new(
            Code::NotMutual,
            *place,
            format!("`{name}` and `{other_name}` are not a redundant pair: {complaint}"),
        )
        .label("not a pair")
        .help(format!(
            "write `redundant_with: {name}` at `{other_name}`, or remove it here"
        )),
    );
}
