//! Flows: their ends lie in the conduit's zones and can meet, and what they may do is said.

use std::net::IpAddr;

use super::{Between, Context, assets, inside, resolves, roles, text};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::grammar::{self, Allow, End};
use crate::document::operations;
use crate::document::read::{At, Field, OneOrMany};
use crate::document::services::services;
use crate::ids::{FlowName, ZoneId};
use crate::model::{Flow, FlowEnd, Service};
use crate::protocol::Operations;
use crate::terms::{PortRange, Transport};
use crate::words;

pub(super) fn flow(
    name: &FlowName,
    flow: &grammar::Flow,
    between: &Between<'_>,
    context: &Context<'_>,
    faults: &mut Faults,
) -> Option<Flow> {
    let (source_zone, destination_zone) = direction(flow, between, context);
    let sources = ends(&flow.source, source_zone, between, context, faults);
    let destinations = ends(&flow.destination, destination_zone, between, context, faults);
    let before = faults.errors();
    families(&sources, &destinations, "destination", faults);
    if faults.errors() == before {
        families(&destinations, &sources, "source", faults);
    }
    if !inside::only_bridges_have_two(flow, faults) {
        return None;
    }
    let operations = allowed(name, flow, faults);
    let ends = [
        (&flow.source, sources.as_slice()),
        (&flow.destination, destinations.as_slice()),
    ];
    let inside = operations.as_ref().and_then(|operations| {
        inside::inside(name, flow, operations.as_ref(), ends, between, context, faults)
    });
    if let Some(At {
        value: service,
        place,
    }) = flow.service.get()
        && any_port(&service.destination().value)
    {
        faults.add(
            Fault::new(
                Code::AnyPort,
                *place,
                format!("the flow `{name}` leaves every port open"),
            )
            .label("all 65535 ports")
            .help("name the ports that are needed, such as `tcp/8080` or `tcp/5000-5010`"),
        );
    }
    let roles = match (&operations, &inside) {
        (Some(operations), Some(inside)) => {
            let ends_tls = inside.tls.is_some() && inside.bridge_source.is_none();
            roles::roles(name, flow, operations.as_ref(), ends_tls, faults)
        }
        _ => None,
    };
    let inside = inside?;
    Some(Flow {
        title: text(&flow.title),
        sources: sources.into_iter().map(|(end, _)| end).collect(),
        destinations: destinations.into_iter().map(|(end, _)| end).collect(),
        service: flow.service.value()?.destination().value.clone(),
        operations: operations?,
        roles: roles?,
        must_flow: flow.must_flow.value().copied().unwrap_or(false),
        on_refusal: inside.on_refusal,
        answers: inside.answers,
        tls: inside.tls,
        bridge_source: inside.bridge_source,
    })
}

/// The zones that the flow's sources and destinations must lie in. A conduit's flows may be opened from either of
/// its zones; the first end that lies in one of them tells which way this one goes.
fn direction<'a>(
    flow: &grammar::Flow,
    between: &Between<'a>,
    context: &Context<'_>,
) -> (Option<&'a ZoneId>, Option<&'a ZoneId>) {
    let first = |field: &Field<OneOrMany<End>>| {
        let ends = field.value().into_iter().flat_map(|list| &list.0);
        ends.filter_map(|end| zone_of(&end.value, context))
            .find(|zone| [between.from, between.to].contains(&Some(*zone)))
            .cloned()
    };
    let backwards = match first(&flow.source) {
        Some(zone) => Some(&zone) == between.to,
        None => first(&flow.destination).is_some_and(|zone| Some(&zone) == between.from),
    };
    if backwards {
        (between.to, between.from)
    } else {
        (between.from, between.to)
    }
}

/// The zone that an end lies in, if the end exists.
fn zone_of<'a>(end: &'a End, context: &Context<'a>) -> Option<&'a ZoneId> {
    match end {
        End::Asset(asset) => context.document.assets.value()?.get(asset)?.zone.value(),
        End::Zone(zone) => Some(zone),
    }
}

/// The ends that hold: they exist, lie in the conduit's zone, and have addresses.
fn ends(
    field: &Field<OneOrMany<End>>,
    zone: Option<&ZoneId>,
    between: &Between<'_>,
    context: &Context<'_>,
    faults: &mut Faults,
) -> Vec<(FlowEnd, Place)> {
    let mut found = Vec::new();
    for At { value: end, place } in field.value().into_iter().flat_map(|list| &list.0) {
        let (what, lies_in, end) = match end {
            End::Asset(asset) => {
                let table = context.document.assets.value();
                if !resolves(
                    &At {
                        value: asset.clone(),
                        place: *place,
                    },
                    table,
                    "asset",
                    faults,
                ) {
                    continue;
                }
                let Some(record) = table.and_then(|table| table.get(asset)) else {
                    continue;
                };
                // A faulty address or zone was said already; nothing more follows from it.
                if matches!(record.address, Field::Faulty) || matches!(record.addresses, Field::Faulty) {
                    continue;
                }
                let addresses = assets::addresses(record).iter().map(|at| at.value).collect();
                (
                    format!("the asset `{asset}`"),
                    record.zone.value(),
                    FlowEnd::Asset(asset.clone(), addresses),
                )
            }
            End::Zone(name) => {
                let table = context.document.zones.value();
                if !resolves(
                    &At {
                        value: name.clone(),
                        place: *place,
                    },
                    table,
                    "zone",
                    faults,
                ) {
                    continue;
                }
                if table
                    .and_then(|table| table.get(name))
                    .is_none_or(|zone| matches!(zone.networks, Field::Faulty))
                {
                    continue;
                }
                let networks = context.networks.of(name).to_vec();
                (
                    format!("the zone `{name}`"),
                    Some(name),
                    FlowEnd::Zone(name.clone(), networks),
                )
            }
        };
        if let (Some(wanted), Some(lies_in)) = (zone, lies_in)
            && wanted != lies_in
        {
            let (message, help) = if [between.from, between.to].contains(&Some(lies_in)) {
                (
                    format!(
                        "{what} lies in `{lies_in}` like the flow's other end, or unlike the ends beside it"
                    ),
                    format!("a flow leads from one zone to the other: name something in `{wanted}`"),
                )
            } else {
                (
                    format!(
                        "{what} lies in `{lies_in}`, which the conduit `{}` does not join",
                        between.conduit
                    ),
                    format!("name something in `{wanted}`, or write a conduit of its own for `{lies_in}`"),
                )
            };
            faults.add(
                Fault::new(Code::EndOutsideConduit, *place, message)
                    .label(format!("in the zone `{lies_in}`"))
                    .help(help),
            );
            continue;
        }
        let empty = match &end {
            FlowEnd::Asset(_, addresses) => addresses.is_empty(),
            FlowEnd::Zone(_, networks) => networks.is_empty(),
        };
        if empty {
            faults.add(
                Fault::new(Code::NoAddress, *place, format!("{what} has no address to match"))
                    .label("no address")
                    .help("give the asset its `address`, the zone its `networks`"),
            );
            continue;
        }
        found.push((end, *place));
    }
    found
}

/// Whether the end has IPv4 and IPv6 addresses.
fn has_families(end: &FlowEnd) -> (bool, bool) {
    let of = |addresses: &mut dyn Iterator<Item = IpAddr>| {
        addresses.fold((false, false), |(v4, v6), address| {
            (v4 || address.is_ipv4(), v6 || address.is_ipv6())
        })
    };
    match end {
        FlowEnd::Asset(_, addresses) => of(&mut addresses.iter().copied()),
        FlowEnd::Zone(_, networks) => of(&mut networks.iter().map(|net| net.addr())),
    }
}

/// Every one of `ends` can meet at least one of `others`.
fn families(ends: &[(FlowEnd, Place)], others: &[(FlowEnd, Place)], role: &str, faults: &mut Faults) {
    if others.is_empty() {
        return;
    }
    for (end, place) in ends {
        let (v4, v6) = has_families(end);
        let meets = others.iter().any(|(other, _)| {
            let (other_v4, other_v6) = has_families(other);
            (v4 && other_v4) || (v6 && other_v6)
        });
        if !meets {
            let family = if v4 { "IPv4" } else { "IPv6" };
            faults.add(
                Fault::new(
                    Code::MixedFamilies,
                    *place,
                    format!("this end has only {family} addresses, and no {role} has one"),
                )
                .label(format!("only {family}"))
                .help("give one of the two an address of the other's family"),
            );
        }
    }
}

fn any_port(service: &Service) -> bool {
    let all = PortRange {
        first: 1,
        last: u16::MAX,
    };
    matches!(&service.transport, Transport::Tcp(ports) | Transport::Udp(ports) if ports.contains(&all))
}

/// What the flow may do: `Some(None)` if it is not limited, `None` if that cannot be told.
fn allowed(name: &FlowName, flow: &grammar::Flow, faults: &mut Faults) -> Option<Option<Operations>> {
    let At { value, place } = flow.service.get()?;
    // Both ends of a bridge speak the same protocol.
    let service = &value.destination().value;
    match (service.protocol, &flow.allow) {
        (_, Field::Faulty) => None,
        (Some(protocol), Field::Absent) => {
            let any = if inside::is_bridge(service) {
                ""
            } else {
                ", or `allow: any` if really all are meant"
            };
            faults.add(
                Fault::new(
                    Code::MissingAllow,
                    *place,
                    format!("the flow `{name}` does not say which operations it allows"),
                )
                .label("this service has operations")
                .help(format!("write for instance {}{any}", protocol.example)),
            );
            None
        }
        (
            None,
            Field::Given(At {
                value: Allow::Operations(_),
                place: allow,
            }),
        ) => {
            let read = services().filter(|known| known.protocol.is_some() && !known.bridged);
            let read = words::and(read.map(|known| format!("`{}`", known.name)));
            faults.add(
                Fault::new(
                    Code::AllowWithoutOperations,
                    *allow,
                    format!("`{}` has no operations to choose from", service.name),
                )
                .label("nobody checks this")
                .help(format!("remove `allow`; only {read} are read inside so far")),
            );
            None
        }
        (None, Field::Absent)
        | (
            _,
            Field::Given(At {
                value: Allow::Any, ..
            }),
        ) => Some(None),
        (
            Some(protocol),
            Field::Given(At {
                value: Allow::Operations(entries),
                ..
            }),
        ) => operations::read(protocol, entries, faults).map(Some),
    }
}
