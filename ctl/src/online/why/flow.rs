//! The smallest flow that would permit what was refused, as document text: one source, one destination, one service and,
//! of an operation, that one alone.
//!
//! It stands in the conduit between the two zones if there is one, else in a new one. An address that no asset has gets an
//! asset of its own. What no flow can permit is said.

use std::fmt::Write as _;
use std::net::IpAddr;

use penstock_inspect::Operation;
use penstock_inspect::operation::{Fact, VALUES};
use penstock_inspect::query::Query;
use penstock_policy::document::services::services;
use penstock_policy::ids::{AssetId, ConduitId, FlowName, GatewayId, ZoneId};
use penstock_policy::model::{Conduit, Flow, FlowEnd, Gateway, Plant};
use penstock_policy::protocol::Protocol;
use penstock_policy::terms::{NumberRange, PortRange, Transport};
use penstock_policy::verdict::Carried;
use schemars::JsonSchema;
use serde::Serialize;

use super::gather::Group;
use crate::offline::explain::zone_at;

/// Text for the plant document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SmallestFlow {
    /// YAML, from the document's top level on.
    pub text: String,
    /// The conduit that it is added to; absent: the text holds a conduit of its own.
    pub conduit: Option<String>,
    /// What it does not say, because the refusal does not.
    pub remark: Option<String>,
}

/// An end by the current document.
struct EndPlace {
    asset: String,
    zone: ZoneId,
    is_new: bool,
}

/// The conduit between the zones of the two ends that leads over the gateway which refused.
pub(super) fn conduit_between<'p>(plant: &'p Plant, group: &Group) -> Option<(&'p ConduitId, &'p Conduit)> {
    let (from, to) = (
        place(plant, &group.from.address)?,
        place(plant, &group.to.address)?,
    );
    between(plant, &from.zone, &to.zone, &group.gateway)
}

fn between<'p>(
    plant: &'p Plant,
    from: &ZoneId,
    to: &ZoneId,
    gateway: &str,
) -> Option<(&'p ConduitId, &'p Conduit)> {
    let gateway = GatewayId::new(gateway).ok()?;
    let joins = |conduit: &Conduit| {
        let zones = (&conduit.from, &conduit.to);
        (zones == (from, to) || zones == (to, from)) && conduit.via.contains(&gateway)
    };
    // What a grant of remote access opens for a time is no place for what shall pass every day.
    let mut conduits = plant.conduits.iter();
    conduits.find(|(id, conduit)| joins(conduit) && !plant.is_limited(id))
}

/// That an end is a gateway itself: no flow can begin or end there.
pub(super) fn a_gateway_itself(plant: &Plant, group: &Group) -> Option<String> {
    [&group.from.address, &group.to.address].into_iter().find_map(|text| {
        let address: IpAddr = text.parse().ok()?;
        let own = |gateway: &Gateway| own_addresses(gateway).any(|own| own == address);
        let (id, _) = plant.gateways.iter().find(|(_, gateway)| own(gateway))?;
        Some(format!(
            "{address} is {id} itself: no flow can permit it, flows are between assets; who may reach a gateway stands in its \
             `management`"
        ))
    })
}

/// A gateway's own addresses on the sides that it guards.
pub(super) fn own_addresses(gateway: &Gateway) -> impl Iterator<Item = IpAddr> {
    let sides = gateway.interfaces.values();
    sides.flat_map(|side| side.addresses.iter().map(ipnet::IpNet::addr))
}

/// The flow, or why there can be none.
pub(super) fn smallest(plant: &Plant, group: &Group, asked: Option<&Query>) -> Result<SmallestFlow, String> {
    let nowhere = |address: &str| {
        format!(
            "{address} lies in no zone of the current release: no flow can permit it before a zone or an asset has it"
        )
    };
    let from = place(plant, &group.from.address).ok_or_else(|| nowhere(&group.from.address))?;
    let to = place(plant, &group.to.address).ok_or_else(|| nowhere(&group.to.address))?;
    if from.zone == to.zone {
        return Err(format!(
            "both ends are in zone {}: no flow is between them",
            from.zone
        ));
    }
    let transport = match group.carried() {
        Some(carried @ (Carried::Tcp(_) | Carried::Udp(_) | Carried::IcmpEcho)) => carried,
        _ => return Err("no flow can permit this protocol".to_owned()),
    };
    let shared = shared(plant, &group.to.address, transport);
    if let Some((name, _)) = shared
        .as_ref()
        .filter(|(_, flow)| flow.tls.is_some() || flow.is_bridge())
    {
        return Err(format!(
            "it shares its server with {name}, whose TLS ends at the gateway or which is a bridge: write it beside that one"
        ));
    }
    let mut remarks = wider(plant, [&from, &to]);
    let (service, protocol) = service(shared.map(|(_, flow)| flow), transport);
    let allow = match (&group.operation, asked.map(Query::operation), protocol) {
        (Some(_), Some(operation), Some(_)) => {
            remarks.extend(wider_inside(operation, group));
            Some(entry(operation, group).ok_or(NO_ENTRY)?)
        }
        (Some(_), _, _) => return Err(NO_ENTRY.to_owned()),
        (None, _, Some(protocol)) => {
            let vague = &protocol.placeholder;
            remarks.push(format!(
                "the connection was refused before its first {}",
                vague.replace
            ));
            Some(vague.entry.to_owned())
        }
        (None, _, None) => None,
    };
    let conduit = between(plant, &from.zone, &to.zone, &group.gateway);
    let mut text = String::new();
    let new = [(&from, &group.from.address), (&to, &group.to.address)];
    if new.iter().any(|(place, _)| place.is_new) {
        text.push_str("assets:\n");
        for (place, address) in new.iter().filter(|(place, _)| place.is_new) {
            let _ = writeln!(
                text,
                "  {}: {{ zone: {}, address: \"{address}\" }}",
                place.asset, place.zone
            );
        }
    }
    let taken = |name: &FlowName| conduit.is_some_and(|(_, conduit)| conduit.flows.contains_key(name));
    let name = flow_name(&from.asset, &to.asset, group.port, taken);
    match conduit {
        Some((id, _)) => {
            let _ = writeln!(text, "conduits:\n  {id}:\n    flows:");
        }
        None => {
            let id = conduit_name(plant, &from.zone, &to.zone);
            let _ = writeln!(
                text,
                "conduits:\n  {id}:\n    from: {}\n    to: {}\n    via: {}\n    flows:",
                from.zone, to.zone, group.gateway
            );
        }
    }
    let _ = writeln!(
        text,
        "      {name}:\n        source: {}\n        destination: {}\n        service: {service}",
        from.asset, to.asset
    );
    if let Some(allow) = allow {
        let _ = writeln!(text, "        allow:\n          - {allow}");
    }
    Ok(SmallestFlow {
        text,
        conduit: conduit.map(|(id, _)| id.to_string()),
        remark: (!remarks.is_empty()).then(|| remarks.join("; ")),
    })
}

/// What a flow between assets permits beyond the two addresses.
fn wider(plant: &Plant, ends: [&EndPlace; 2]) -> Vec<String> {
    let addresses = |end: &EndPlace| {
        let asset = AssetId::new(&end.asset).ok()?;
        let count = plant.assets.get(&asset)?.addresses.len();
        (count > 1).then(|| {
            format!(
                "{} has {count} addresses, and the flow is for all of them",
                end.asset
            )
        })
    };
    ends.into_iter().filter_map(addresses).collect()
}

/// What an entry permits beyond the operations that were refused, as there is none that permits less.
fn wider_inside(operation: &Operation<'_>, group: &Group) -> Option<String> {
    let unnamed = operation.wider_entry().map(str::to_owned);
    unnamed.or_else(|| {
        let values = operation.numbers(VALUES).and(group.values)?;
        (values.last.abs_diff(values.first) > 1).then(|| {
            format!(
                "which values between {} and {} were refused is not recorded: it permits them all",
                values.first, values.last
            )
        })
    })
}

const NO_ENTRY: &str = "the event does not say the operation exactly enough to write it down";

fn place(plant: &Plant, address: &str) -> Option<EndPlace> {
    let address: IpAddr = address.parse().ok()?;
    let holding = plant
        .assets
        .iter()
        .find(|(_, asset)| asset.addresses.contains(&address));
    if let Some((id, asset)) = holding {
        return Some(EndPlace {
            asset: id.to_string(),
            zone: asset.zone.clone(),
            is_new: false,
        });
    }
    let zone = zone_at(plant, address)?;
    let parts: Vec<String> = match address {
        IpAddr::V4(address) => address.octets().iter().map(ToString::to_string).collect(),
        IpAddr::V6(address) => address
            .segments()
            .iter()
            .map(|part| format!("{part:x}"))
            .collect(),
    };
    let taken = |name: &AssetId| plant.assets.contains_key(name);
    Some(EndPlace {
        asset: free_name(&format!("host-{}", parts.join("-")), |name| {
            AssetId::new(name).is_ok_and(|id| !taken(&id))
        }),
        zone: zone.clone(),
        is_new: true,
    })
}

/// The name, or the first with a number behind it that is free.
fn free_name(base: &str, free: impl Fn(&str) -> bool) -> String {
    let numbered = (2_u32..1_000).map(|number| format!("{base}-{number}"));
    let mut names = std::iter::once(base.to_owned()).chain(numbered);
    names.find(|name| free(name)).unwrap_or_else(|| base.to_owned())
}

/// A flow to the same server and port: flows that share it have to agree on their service.
fn shared<'p>(plant: &'p Plant, server: &str, carried: Carried) -> Option<(String, &'p Flow)> {
    let server: IpAddr = server.parse().ok()?;
    let holds = |end: &FlowEnd| end.networks().iter().any(|network| network.contains(&server));
    let on = |ports: &[PortRange], port| ports.iter().any(|range| range.contains(port));
    let flows = plant.conduits.iter().flat_map(|(id, conduit)| {
        let flows = conduit.flows.iter();
        flows.map(move |(name, flow)| (format!("{id}/{name}"), flow))
    });
    let found: Vec<_> = flows
        .filter(|(_, flow)| {
            flow.destinations.iter().any(holds)
                && match (&flow.service.transport, carried) {
                    (Transport::Tcp(ports), Carried::Tcp(port))
                    | (Transport::Udp(ports), Carried::Udp(port)) => on(ports, port),
                    _ => false,
                }
        })
        .collect();
    let with_operations = found.iter().find(|(_, flow)| flow.service.protocol.is_some());
    with_operations.or(found.first()).cloned()
}

/// The service as it is written, and the protocol whose operations it can be limited to. One without operations is written by
/// its port alone: by its name it might have others.
fn service(shared: Option<&Flow>, carried: Carried) -> (String, Option<Protocol>) {
    if let Some(flow) = shared.filter(|flow| flow.service.protocol.is_some()) {
        return (flow.service.name.clone(), flow.service.protocol);
    }
    let known = match carried {
        Carried::Tcp(port) => services()
            .find(|known| known.port == port && known.protocol.is_some() && !known.tls && !known.bridged),
        _ => None,
    };
    match known {
        Some(known) => (known.name.to_owned(), known.protocol),
        None => (carried.to_string(), None),
    }
}

/// A name of at most 63 characters that the conduit has no flow of.
fn flow_name(from: &str, to: &str, port: u32, taken: impl Fn(&FlowName) -> bool) -> String {
    let tail = |name: &str| {
        let skipped = name.chars().count().saturating_sub(24);
        let tail: String = name.chars().skip(skipped).collect();
        tail.trim_start_matches(['-', '.']).to_owned()
    };
    let base = format!("{}-to-{}-{port}", tail(from), tail(to));
    free_name(&base, |name| FlowName::new(name).is_ok_and(|name| !taken(&name)))
}

fn conduit_name(plant: &Plant, from: &ZoneId, to: &ZoneId) -> String {
    let base: String = format!("{from}-to-{to}").chars().take(58).collect();
    let base = base.trim_end_matches(['-', '.']);
    free_name(base, |name| {
        ConduitId::new(name).is_ok_and(|id| !plant.conduits.contains_key(&id))
    })
}

/// The entry of `allow` that permits exactly this operation.
fn entry(operation: &Operation<'_>, group: &Group) -> Option<String> {
    let protocol = operation.protocol;
    let shape = protocol.shape(operation.name)?;
    let limits = protocol.limits.iter().filter_map(|limit| {
        let fact = operation.fact(limit.name)?;
        let fact = match (fact, group.values) {
            // What one event says of several refusals.
            (Fact::Numbers(_), Some(values)) if limit.name == VALUES => &Fact::Numbers(NumberRange {
                first: values.first,
                last: values.last,
            }),
            (fact, _) => fact,
        };
        Some(shape.takes(limit.name).and_then(|_| limited(limit.name, fact)))
    });
    let limits: Vec<String> = limits.collect::<Option<_>>()?;
    Some(format!("{}: {{ {} }}", operation.name, limits.join(", ")))
}

/// A limit that holds just this. What has no text cannot be named.
fn limited(name: &str, fact: &Fact<'_>) -> Option<String> {
    Some(match fact {
        Fact::Numbers(range) => format!("{name}: {range}"),
        Fact::Flag(is_so) => format!("{name}: {}", if *is_so { "yes" } else { "no" }),
        Fact::Text(text) if text.is_empty() => return None,
        // A JSON string is a YAML string in double quotes, whatever a client put into a topic.
        Fact::Text(text) => format!("{name}: [{}]", serde_json::to_string(text).ok()?),
    })
}
