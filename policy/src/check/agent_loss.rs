//! `PC0161`: what must flow does not stop with the agent.
//!
//! A flow that names operations is read by the agent, so that it depends on the agent's life: `on_agent_loss` says what
//! becomes of it, and `block` is the default. A flow that names none is the kernel's alone.

use super::{Findings, Severity};
use crate::model::{Conduit, Plant};
use crate::terms::{Enforcement, OnAgentLoss};

pub(super) fn check(plant: &Plant, findings: &mut Findings) {
    for (id, conduit) in &plant.conduits {
        for (name, flow) in &conduit.flows {
            if !flow.must_flow {
                continue;
            }
            if flow.is_bridge() {
                findings.add(
                    Severity::Note,
                    "PC0161",
                    format!(
                        "flow {id}/{name} must flow, but the agent itself carries it: while no agent lives, its messages \
                         do not cross"
                    ),
                    "make sure that the process can wait for them, or forward a flow in place of the bridge",
                );
            } else if flow.plain_port().is_some() {
                findings.warning(
                    "PC0161",
                    format!(
                        "flow {id}/{name} must flow, but stops while no agent lives: its clients' TLS ends at the gateway, and its \
                         server speaks none"
                    ),
                    "make sure that the process can do without it for as long, or place a redundant pair of gateways",
                );
            } else if flow.operations.is_some()
                && conduit.on_agent_loss == OnAgentLoss::Block
                && enforced(plant, conduit)
            {
                findings.warning(
                    "PC0161",
                    format!(
                        "flow {id}/{name} must flow, but stops while no agent lives: its operations are limited, and its \
                         conduit has `on_agent_loss: block`, which is the default"
                    ),
                    "set `on_agent_loss: pass` for the conduit, so that the flow passes unread meanwhile; or take \
                     `must_flow` away, if the process can do without it for as long",
                );
            }
        }
    }
}

/// Between two zones that both observe nothing is stopped.
fn enforced(plant: &Plant, conduit: &Conduit) -> bool {
    [&conduit.from, &conduit.to].into_iter().any(|zone| {
        plant
            .zones
            .get(zone)
            .is_none_or(|zone| zone.enforcement == Enforcement::Enforce)
    })
}
