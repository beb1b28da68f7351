//! `PC010x`: people must always be able to get at a gateway.

use super::Findings;
use super::spans::Spans;
use crate::plan::Plan;
use crate::terms::GatewayMode;

pub(super) fn check(plan: &Plan, findings: &mut Findings) {
    let Some(management) = &plan.management else {
        findings.error(
            "PC0101",
            "no management access is declared: nobody could reach the gateway except at its own console"
                .to_owned(),
            "declare `management` with the interface and the peers that may use it",
        );
        return;
    };
    if management.peers.is_empty() {
        findings.error(
            "PC0102",
            "management access names no peers: nobody could reach the gateway".to_owned(),
            "name the addresses from which the gateway is managed",
        );
    }
    let guarded = plan
        .interfaces
        .iter()
        .find(|side| side.name == management.interface);
    if let Some(side) = guarded {
        findings.warning(
            "PC0103",
            format!(
                "management comes in by {}, the guarded side of zone {}: a fault in that zone takes it along",
                side.name, side.zone
            ),
            "give management an interface of its own",
        );
    }
    if let Some(side) = guarded
        && plan.mode == GatewayMode::Bridged
    {
        findings.error(
            "PC0105",
            format!(
                "management comes in by {}, a port of the bridge, where the gateway itself has no address: nobody could reach the gateway",
                side.name
            ),
            "give management an interface of its own",
        );
        return;
    }
    for peer in &management.peers {
        for side in &plan.interfaces {
            let elsewhere = side.name != management.interface;
            if elsewhere && Spans::of(side.networks.iter().copied()).touch(peer) {
                findings.error(
                    "PC0104",
                    format!(
                        "management peer {peer} lives on the side of {} (zone {}), but management is only \
                         open on {}: its packets come in where they are not accepted",
                        side.name, side.zone, management.interface
                    ),
                    "name a peer that is reached through the management interface, or correct the interface",
                );
            }
        }
    }
}
