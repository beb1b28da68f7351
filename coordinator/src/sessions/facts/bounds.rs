//! How much is remembered of what a gateway says: every text and every list has an end.

use penstock_policy::text;
use penstock_proto::fault::{FLOWS_MAX, ZONES_MAX};
use penstock_proto::v1;

/// Longest text a gateway may have remembered, bytes.
const TEXT_BYTES_MAX: usize = 256;
/// A standing of which no text and no list is longer than may be remembered.
pub(super) fn bounded_standing(standing: &v1::PolicyStanding) -> v1::PolicyStanding {
    use v1::policy_standing::State;
    let mut kept = standing.clone();
    // What is longer is no digest.
    kept.statement_digest.truncate(32);
    match &mut kept.state {
        Some(State::Shadow(shadow)) => {
            let count = shadow.flows.len();
            shadow.flows.truncate(FLOWS_MAX);
            let further = u32::try_from(count - shadow.flows.len()).unwrap_or(u32::MAX);
            shadow.further_flows = shadow.further_flows.saturating_add(further);
            for flow in &mut shadow.flows {
                *flow = bounded(flow);
            }
            shadow.not_judged = bounded(&shadow.not_judged);
        }
        Some(State::Held(held)) => held.message = bounded(&held.message),
        Some(State::Reverted(reverted)) => {
            reverted.code = bounded(&reverted.code);
            reverted.message = bounded(&reverted.message);
        }
        Some(State::Trial(_)) | None => {}
    }
    kept
}

/// A fault of which no text and no list is longer.
pub(super) fn bounded_fault(fault: &v1::Fault) -> v1::Fault {
    let names = |names: &[String], max: usize| {
        names
            .iter()
            .take(max)
            .map(|name| bounded(name))
            .collect::<Vec<_>>()
    };
    let flows = names(&fault.flows, FLOWS_MAX);
    let further = u32::try_from(fault.flows.len() - flows.len()).unwrap_or(u32::MAX);
    v1::Fault {
        code: bounded(&fault.code),
        message: bounded(&fault.message),
        // One that concerns more zones than are kept concerns all.
        zones: if fault.zones.len() > ZONES_MAX {
            Vec::new()
        } else {
            names(&fault.zones, ZONES_MAX)
        },
        flows,
        further_flows: fault.further_flows.saturating_add(further),
    }
}

/// As much of a text as is remembered.
pub(super) fn bounded(text: &str) -> String {
    text::shortened(text, TEXT_BYTES_MAX).into_owned()
}
