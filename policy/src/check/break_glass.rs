//! `PC018x`: who may override a gateway in front of it, and whether anybody may where it is needed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Severity};
use crate::ids::{ApproverId, Digest};
use crate::model::{Gateway, Plant, PublicKey};
use crate::plan::{BreakGlass, Capability, Plan};

const RECOMPILE: &str =
    "compile the plans again; if the finding stays, it is a fault in Penstock: please report it";

/// Whether a plan names just those who the document lets override its gateway, and requires an agent that ends what they do.
pub(super) fn check(plant: &Plant, plan: &Plan, findings: &mut Findings) {
    let Some(gateway) = plant.gateways.get(&plan.gateway) else {
        return; // Said as PC0112.
    };
    let declared = declared(plant, plan, gateway);
    let planned = plan.break_glass.as_ref().map(as_it_stands);
    if declared != planned {
        let words = "others could override the gateway, or for longer, than `break_glass` says".to_owned();
        findings.error("PC0181", words, RECOMPILE);
    }
    let required = plan
        .requires
        .iter()
        .any(|capability| capability.0 == Capability::OVERRIDES);
    if planned.is_some() && !required {
        let words =
            "people may override the gateway, but the plan does not require an agent that ends what they do";
        findings.error("PC0117", words.to_owned(), RECOMPILE);
    }
    if declared.is_none()
        && let Some(asked) = &gateway.safe_to_change
    {
        findings.add(
            Severity::Note,
            "PC0182",
            format!(
                "it changes only while {asked}, and nobody may override it: while {} is gone or stays silent, no release \
                 gets in force here",
                asked.asset
            ),
            "name under `break_glass` who may go on without the answer: two people, or a sealed code",
        );
    }
}

/// Longest time, people and codes.
type Permitted = (u32, BTreeMap<ApproverId, PublicKey>, BTreeSet<Digest>);

fn as_it_stands(planned: &BreakGlass) -> Permitted {
    (planned.longest_s, planned.people.clone(), planned.codes.clone())
}

/// By the document: those with no sites, or this one's; and the codes of this gateway. Nobody, if that is one person alone.
fn declared(plant: &Plant, plan: &Plan, gateway: &Gateway) -> Option<Permitted> {
    let written = plant.break_glass.as_ref()?;
    let mut people = BTreeMap::new();
    for (name, person) in &written.people {
        let here = match &person.sites {
            None => true,
            Some(sites) => sites.iter().any(|site| *site == gateway.site),
        };
        if here {
            people.insert(name.clone(), person.key);
        }
    }
    let codes: BTreeSet<Digest> = written
        .sealed
        .get(&plan.gateway)
        .into_iter()
        .flatten()
        .copied()
        .collect();
    if people.len() < 2 && codes.is_empty() {
        return None;
    }
    Some((written.longest_s, people, codes))
}
