//! `PC015x`: zones and the sides of gateways.

use super::spans::Spans;
use super::{Findings, Severity};
use crate::model::{Plant, SlVector};
use crate::neighbours::neighbours;
use crate::plan::Plan;
use crate::terms::Enforcement;

/// From this target level on (IEC 62443-1-1: intentional violation), observing is not protecting.
const OBSERVED_LEVEL_MAX: u8 = 1;

/// The requirement that an observing boundary does not meet (IEC 62443-3-3: zone boundary protection).
const BOUNDARY_PROTECTION: &str = "SR 5.2";

pub(super) fn check(plant: &Plant, findings: &mut Findings) {
    let beside = neighbours(plant);
    for (id, zone) in &plant.zones {
        let target = zone.sl_target.map_or(0, highest);
        if zone.enforcement == Enforcement::Enforce || target <= OBSERVED_LEVEL_MAX {
            continue;
        }
        // Adoption goes zone by zone: a reason, a measure and an expiry on record make it a stage, not a gap.
        let recorded = plant.compensating_controls.iter().find(|(_, control)| {
            control.zone.as_ref() == Some(id)
                && control.requirement.starts_with(BOUNDARY_PROTECTION)
                && !control.expired
        });
        let (severity, until) = match recorded {
            Some((name, control)) => (
                Severity::Note,
                format!("; {name} stands in until {}", control.expires),
            ),
            None => (Severity::Warning, String::new()),
        };
        let undeclared = beside
            .get(id)
            .map(|beside| format!(": {}", beside.undeclared(zone.enforcement)))
            .unwrap_or_default();
        findings.add(
            severity,
            "PC0151",
            format!(
                "zone {id} only observes, while its target security level is {target}{until}{undeclared}"
            ),
            "set `enforcement: enforce` once its recorded would-denials are understood; until then, record a \
             compensating control for SR 5.2 with its measure and expiry",
        );
    }
}

fn highest(vector: SlVector) -> u8 {
    let SlVector {
        iac,
        uc,
        si,
        dc,
        rdf,
        tre,
        ra,
    } = vector;
    [iac, uc, si, dc, rdf, tre, ra].into_iter().max().unwrap_or(0)
}

/// An address lives on one side of a gateway, unless both sides are the same zone.
pub(super) fn sides(plan: &Plan, findings: &mut Findings) {
    let sides: Vec<_> = plan
        .interfaces
        .iter()
        .map(|side| (side, Spans::of(side.networks.iter().copied())))
        .collect();
    for (place, (side, spans)) in sides.iter().enumerate() {
        for (other, other_spans) in sides.iter().skip(place + 1) {
            let same = side.zone == other.zone && side.behind == other.behind;
            if !same && spans.meet(other_spans) {
                findings.warning(
                    "PC0152",
                    format!(
                        "interfaces {} and {} have addresses in common, so that a forged sender is not known by its side",
                        side.name, other.name
                    ),
                    "divide the networks of their zones, so that each address lives in one of them",
                );
            }
        }
    }
}
