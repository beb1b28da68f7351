//! What of `table inet penstock` hears the inspector's sign of life (`crate::inspector::pulse`).

use std::fmt::Write;

use crate::intercept::{ALIVE_S, MARK_BEAT};

/// The set that holds it. Room for elements that ended and are not yet cleared away.
pub(super) const OBJECTS: &str = "set alive { type inet_proto; flags dynamic,timeout; size 16; }\n";
/// What matches while there is none: the key of its one element is the same of every packet.
pub(super) const NONE: &str = "meta l4proto & 0 != @alive";

/// Takes the inspector for alive until it should have been heard.
pub(super) fn start(script: &mut String, table: &str) {
    let _ = writeln!(
        script,
        "add element inet {table} alive {{ 0 timeout {ALIVE_S}s }}"
    );
}

/// The rules of what this machine sends that is not TCP.
pub(super) fn beat() -> String {
    format!(
        "meta l4proto udp meta mark {MARK_BEAT:#x} update @alive {{ meta l4proto & 0 timeout {ALIVE_S}s }} drop"
    )
}
