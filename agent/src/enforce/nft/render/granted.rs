//! How the kernel itself ends a grant of remote access: a clock of its own, for when no agent lives to close the conduit.
//!
//! The maps hold a flow of such a conduit only while a grant opens it. Beside them the set `limited` has the numbers of all flows
//! that hang on grants, and `granted` those that are open, each element for as long as is left of the grant. What the maps
//! permit, and is limited and not granted any more, is refused as though no rule matched. The time is the kernel's uptime, which
//! nobody sets. Where a plan has no grants there is nothing of this, and no packet is asked for it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use penstock_policy::ids::FlowId;
use penstock_policy::terms::GatewayMode;

use super::lines::list;
use crate::enforce::nft::names::{GRANTED, MARK_OBSERVED, TABLE};
use crate::enforce::shape::structure::Structure;

/// The chain of what is not granted any more.
pub(super) const CHAIN: &str = "expired";
/// The set of all flows that hang on grants.
pub(super) const LIMITED: &str = "limited";

/// Whether a structure has any.
pub(super) fn is_needed(structure: &Structure) -> bool {
    !structure.limited.is_empty()
}

/// What the chains that accept begin with; the packet's mark is its flow's number there.
pub(super) fn gate(structure: &Structure) -> String {
    if is_needed(structure) {
        format!("meta mark @{LIMITED} meta mark != @{GRANTED} goto {CHAIN}\n")
    } else {
        String::new()
    }
}

/// Leads back to where nothing was found.
pub(super) fn chain(script: &mut String, structure: &Structure) {
    if !is_needed(structure) {
        return;
    }
    // The flow's number took the place of what the bridge's own table had found.
    let again = match structure.mode {
        GatewayMode::Routed => String::new(),
        GatewayMode::Bridged => [("ip", '4'), ("ip6", '6')]
            .map(|(ip, n)| {
                format!(
                    "{ip} saddr @passive{n} {ip} daddr @passive{n} meta mark set {MARK_OBSERVED:#x} goto miss\n"
                )
            })
            .concat(),
    };
    let _ = write!(
        script,
        "chain {CHAIN} {{\n{again}meta mark set 0\ngoto miss\n}}\n"
    );
}

/// The longest time that is passed to the kernel: longer ones would not fit its nanoseconds.
pub(in crate::enforce) const LEFT_MAX: Duration = Duration::from_hours(24 * 36_500);

/// The script that lets these flows, and no other that hangs on grants, pass for so long.
pub fn hold(left: &BTreeMap<FlowId, Duration>) -> String {
    let mut script = renewed();
    fill(&mut script, left);
    script
}

/// Takes back what was said of all of them.
pub(super) fn renewed() -> String {
    format!("flush set inet {TABLE} {GRANTED}\n")
}

/// The same for tables that are being made, or get their first flow that hangs on a grant.
pub(super) fn open(script: &mut String, structure: &Structure, left: &BTreeMap<FlowId, Duration>) {
    if is_needed(structure) {
        fill(script, left);
    }
}

fn fill(script: &mut String, left: &BTreeMap<FlowId, Duration>) {
    let elements = left.iter().filter(|(_, left)| left.as_millis() > 0);
    let elements = elements.map(|(flow, left)| format!("{} timeout {}", flow.0, span(*left)));
    list(script, "add", "inet", GRANTED, elements);
}

/// A length of time as the `nft` program reads it: no number in it may have more than eight digits.
fn span(left: Duration) -> String {
    let left = left.min(LEFT_MAX);
    let (days, seconds) = (left.as_secs() / 86_400, left.as_secs() % 86_400);
    format!("{days}d{seconds}s{}ms", left.subsec_millis())
}
