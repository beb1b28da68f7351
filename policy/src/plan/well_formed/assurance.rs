//! What must hold of what a plan binds and denies for the sake of assurance.

use std::collections::{BTreeMap, BTreeSet};

use super::requires;
use crate::ids::{ConduitId, FlowId, FlowName};
use crate::plan::{Capability, Hardware, Plan, WeakEnd};

/// Only an agent that holds packets to MAC addresses may take a plan that asks for it; each address has one; and what is denied says why.
pub(super) fn check(plan: &Plan) -> Result<(), String> {
    let needed = Capability::ASSURANCE;
    if plan.weighs() && !requires(plan, needed) {
        return Err(format!(
            "it asks for an assurance of identity, but does not require `{needed}`"
        ));
    }
    for (interface, bound) in &plan.bound {
        if !plan.interfaces.iter().any(|side| side.name == *interface) {
            return Err(format!(
                "it binds addresses on {interface}, which it does not guard"
            ));
        }
        let one_each = |pair: &[Hardware]| matches!(pair, [one, next] if one.address < next.address);
        if bound.is_empty() || !bound.windows(2).all(one_each) {
            return Err(format!(
                "interface {interface} binds nothing, or an address twice or out of order"
            ));
        }
    }
    let mut numbers: BTreeMap<FlowId, (&ConduitId, &FlowName)> = plan
        .rules
        .iter()
        .map(|rule| (rule.id, (&rule.conduit, &rule.flow)))
        .chain(plan.bridges.iter().map(|one| (one.id, (&one.conduit, &one.flow))))
        .collect();
    let mut names = BTreeSet::new();
    for denied in &plan.unproven {
        let own = (&denied.conduit, &denied.flow);
        let name = format!("{}/{}", denied.conduit, denied.flow);
        if !names.insert(own) || *numbers.entry(denied.id).or_insert(own) != own {
            return Err(format!(
                "the denial of {name} stands twice, or bears another flow's number"
            ));
        }
        let too_weak = |weak: &WeakEnd| weak.proof.assurance() < denied.minimum;
        if denied.weak.is_empty() || !denied.weak.iter().all(too_weak) {
            return Err(format!("flow {name} is denied, but none of its ends is too weak"));
        }
    }
    Ok(())
}
