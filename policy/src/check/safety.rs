//! `PC014x`: who can reach a safety zone, and with what.
//!
//! A zone that people or strangers are in (enterprise, external, remote access, transient, wireless) has no business
//! in the safety system; and what has business there should only read, and stop rather than pass uninspected.

use std::num::NonZeroUsize;

use super::{Findings, Severity};
use crate::document::services::services;
use crate::ids::ZoneId;
use crate::model::{Flow, FlowEnd, Plant, ZoneKind};
use crate::protocol::vocabulary::Effect;
use crate::protocol::{Carrier, NamedService};
use crate::reach::{Permit, Steps};
use crate::terms::{OnAgentLoss, Transport};

pub(super) fn check(plant: &Plant, findings: &mut Findings) {
    let of = |wanted: fn(ZoneKind) -> bool| {
        plant
            .zones
            .iter()
            .filter(move |(_, zone)| wanted(zone.kind))
            .map(|(id, _)| id)
    };
    let steps = Steps::of(plant);
    for outside in of(exposed) {
        let reached = steps.reached_from(outside);
        for safety in of(|kind| kind == ZoneKind::Safety).filter(|safety| reached.contains(safety)) {
            let Ok(reach) = steps.reach(outside, safety, NonZeroUsize::MIN) else {
                continue;
            };
            let Some(shortest) = reach.paths.first() else {
                continue;
            };
            if shortest.len() == 1 {
                findings.error(
                    "PC0141",
                    format!("zone {outside} reaches the safety zone {safety} directly"),
                    "let it ask a system in between, in a zone of its own, that itself only reads from safety",
                );
                continue;
            }
            let route: Vec<&str> = shortest.iter().map(|step| step.to.as_str()).collect();
            let others = match reach.not_shown {
                Some(_) => "; `penstock reach` shows other paths",
                None => "",
            };
            let words = format!(
                "zone {outside} can act on the safety zone {safety} in {} steps: {outside} → {}{others}",
                shortest.len(),
                route.join(" → ")
            );
            let severity = if reach.acts().all(only_reads) {
                Severity::Note
            } else {
                Severity::Warning
            };
            findings.add(
                severity,
                "PC0142",
                words,
                "limit the last step to operations that read, or cut the path",
            );
        }
    }
    for (id, conduit) in &plant.conduits {
        for (name, flow) in &conduit.frames {
            let into = std::iter::once(&flow.to).chain(flow.both.then_some(&flow.from));
            if into
                .into_iter()
                .any(|zone| kind(plant, zone) == Some(ZoneKind::Safety))
            {
                findings.add(
                    Severity::Note,
                    "PC0143",
                    format!("frames {id}/{name} may do anything in a safety zone: no gateway reads what is in them"),
                    "limit them by `to_mac`, `vlan` and, where they have one, `appid` to what the safety zone needs",
                );
            }
        }
        for (name, flow) in &conduit.flows {
            if !flow.destinations.iter().any(|end| is_safety(plant, end)) {
                continue;
            }
            let flow_name = format!("{id}/{name}");
            match flow.operations {
                None => unlimited(&flow_name, flow, findings),
                Some(_) if !flow.is_bridge() && conduit.on_agent_loss == OnAgentLoss::Pass => {
                    unread(&flow_name, flow, findings);
                }
                Some(_) => {}
            }
        }
    }
}

fn is_safety(plant: &Plant, end: &FlowEnd) -> bool {
    let zone = match end {
        FlowEnd::Asset(asset, _) => plant.assets.get(asset).map(|asset| &asset.zone),
        FlowEnd::Zone(zone, _) => Some(zone),
    };
    zone.and_then(|zone| kind(plant, zone)) == Some(ZoneKind::Safety)
}

fn kind(plant: &Plant, zone: &ZoneId) -> Option<ZoneKind> {
    plant.zones.get(zone).map(|zone| zone.kind)
}

/// Judged by what can pass, not by what the service is called: a port says less than a protocol's name, and is never
/// the quieter way to write the same.
fn unlimited(flow_name: &str, flow: &Flow, findings: &mut Findings) {
    let service = &flow.service;
    if service.transport == Transport::IcmpEcho {
        return;
    }
    let can_be = readable_at(&service.transport);
    let (severity, words, help) = if service.protocol.is_some() {
        (
            Severity::Warning,
            format!(
                "flow {flow_name} may do anything in a safety zone that {} can do",
                service.name
            ),
            "list the operations that it needs under `allow`".to_owned(),
        )
    } else if let Some(protocol) = can_be {
        (
            Severity::Warning,
            format!(
                "flow {flow_name} may do anything in a safety zone by {}, {} among it, and nothing reads it",
                service.name, protocol.title
            ),
            format!(
                "if it is {}, write `service: {}` and list the operations that it needs under `allow`; else leave the \
                 port {} out",
                protocol.title, protocol.name, protocol.port
            ),
        )
    } else if NamedService::of(service).is_none() {
        (
            Severity::Warning,
            format!(
                "flow {flow_name} opens {} into a safety zone, and does not say what it carries: it may do anything \
                 that can be done there",
                service.name
            ),
            "name the service, and list the operations that it needs under `allow` where it has operations"
                .to_owned(),
        )
    } else {
        (
            Severity::Note,
            format!(
                "flow {flow_name} may do anything in a safety zone that {} can do: no gateway reads it yet",
                service.name
            ),
            "keep its ends to the assets that need it, and limit it where it ends".to_owned(),
        )
    };
    findings.add(severity, "PC0143", words, &help);
}

/// The first service whose operations can be told apart and whose own port is open here.
fn readable_at(transport: &Transport) -> Option<NamedService> {
    services().find(|known| {
        let ports = match (transport, known.carrier) {
            (Transport::Tcp(ports), Carrier::Tcp) | (Transport::Udp(ports), Carrier::Udp) => ports,
            _ => return false,
        };
        known.protocol.is_some() && ports.iter().any(|range| range.contains(known.port))
    })
}

/// Limited, but not while no agent lives.
fn unread(flow_name: &str, flow: &Flow, findings: &mut Findings) {
    let (severity, why, help) = if flow.must_flow {
        (
            Severity::Note,
            ", as it must flow",
            "keep the agent's absence short: its zone is degraded meanwhile",
        )
    } else {
        (
            Severity::Warning,
            "",
            "set `on_agent_loss: block` for this conduit",
        )
    };
    let words =
        format!("flow {flow_name} would pass into a safety zone uninspected while no agent lives{why}");
    findings.add(severity, "PC0144", words, help);
}

fn exposed(kind: ZoneKind) -> bool {
    match kind {
        ZoneKind::Enterprise
        | ZoneKind::External
        | ZoneKind::RemoteAccess
        | ZoneKind::Transient
        | ZoneKind::Wireless => true,
        ZoneKind::Dmz | ZoneKind::Operations | ZoneKind::Control | ZoneKind::Safety => false,
    }
}

/// Whether nothing can be changed that way, as far as the operations are known.
fn only_reads(way: &Permit) -> bool {
    match way {
        Permit::Flow {
            operations: Some(operations),
            ..
        } => operations
            .effects()
            .all(|effect| effect.is_some_and(|effect| effect <= Effect::Read)),
        Permit::Flow { operations: None, .. }
        | Permit::Frames { .. }
        | Permit::Observed { .. }
        | Permit::Elsewhere { .. } => false,
    }
}
