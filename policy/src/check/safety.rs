//! `PC014x`: who can reach a safety zone, and with what.
//!
//! A zone that people or strangers are in (enterprise, external, remote access, transient, wireless) has no business
//! in the safety system; and what has business there should only read, and stop rather than pass uninspected.

use super::{Findings, Severity};
use crate::functions::modbus_function;
use crate::model::{MqttOperation, OnAgentLoss, Operations, Plant, ZoneKind};
use crate::reach::{Way, reach};

pub(super) fn check(plant: &Plant, findings: &mut Findings) {
    let of = |wanted: fn(ZoneKind) -> bool| {
        plant
            .zones
            .iter()
            .filter(move |(_, zone)| wanted(zone.kind))
            .map(|(id, _)| id)
    };
    for safety in of(|kind| kind == ZoneKind::Safety) {
        for outside in of(exposed) {
            let Ok(reach) = reach(plant, outside, safety) else {
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
            let words = format!(
                "zone {outside} can act on the safety zone {safety} in {} steps: {outside} → {}",
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
        for (name, flow) in &conduit.flows {
            let into_safety = flow.destinations.iter().any(|end| {
                let zone = match end {
                    crate::model::FlowEnd::Asset(asset, _) => {
                        plant.assets.get(asset).map(|asset| &asset.zone)
                    }
                    crate::model::FlowEnd::Zone(zone, _) => Some(zone),
                };
                zone.and_then(|zone| plant.zones.get(zone))
                    .is_some_and(|zone| zone.kind == ZoneKind::Safety)
            });
            if into_safety && flow.service.protocol.is_some() && flow.operations.is_none() {
                findings.warning(
                    "PC0143",
                    format!(
                        "flow {id}/{name} may do anything in a safety zone that {} can do",
                        flow.service.name
                    ),
                    "list the operations that it needs under `allow`",
                );
            }
            let inspected = flow.operations.is_some() && !flow.is_bridge();
            if into_safety && inspected && conduit.on_agent_loss == OnAgentLoss::Pass {
                findings.warning(
                    "PC0144",
                    format!(
                        "flow {id}/{name} would pass into a safety zone uninspected while no agent lives"
                    ),
                    "set `on_agent_loss: block` for this conduit",
                );
            }
        }
    }
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
fn only_reads(way: &Way) -> bool {
    match way {
        Way::Flow {
            operations: Some(Operations::ModbusTcp(operations)),
            ..
        } => operations.iter().all(|operation| {
            operation.function == "read-only"
                || modbus_function(&operation.function)
                    .is_some_and(|function| function.reads && !function.writes)
        }),
        Way::Flow {
            operations: Some(Operations::Mqtt(operations)),
            ..
        } => operations.iter().all(|operation| match operation {
            MqttOperation::Publish { .. } => false,
            MqttOperation::Subscribe { .. } | MqttOperation::Connect { .. } => true,
        }),
        Way::Flow { operations: None, .. } | Way::Observed { .. } => false,
    }
}
