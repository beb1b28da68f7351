//! The chains of `table inet penstock` for connections that the inspector carries although their tuple is not inspected any more.

use std::fmt::Write;

use penstock_policy::terms::GatewayMode;

use super::families::Family;
use super::shape::{by_side, tuples};
use crate::enforce::shape::structure::Structure;

/// A packet between two addresses whose zones only observe.
pub(super) fn passive(family: &Family) -> String {
    let Family {
        number: n,
        header: ip,
        ..
    } = family;
    format!("{ip} saddr @passive{n} {ip} daddr @passive{n}")
}

/// Connections that were inspected when they began: while they are permitted, they go on; between zones that only observe, also
/// when their flow is no more.
pub(super) fn standing(script: &mut String, family: &Family, structure: &Structure) {
    let bridged = structure.mode == GatewayMode::Bridged;
    let Family {
        number: n,
        header: ip,
        ..
    } = family;
    let _ = writeln!(script, "chain standing{n} {{");
    if !bridged {
        script.push_str(&by_side(
            structure,
            ("side", *n),
            "iifname",
            &format!("{ip} saddr !="),
            "accept",
        ));
    }
    for (direction, tuple) in tuples(ip) {
        let known = if bridged && direction == "original" {
            "ct status dnat"
        } else {
            "socket transparent 1"
        };
        for map in ["exact", "ranges"] {
            let _ = writeln!(
                script,
                "ct direction {direction} {known} meta mark set {tuple} map @{map}{n} goto taken{n}"
            );
        }
        let _ = writeln!(
            script,
            "ct direction {direction} {known} {passive} goto taken{n}",
            passive = passive(family)
        );
    }
    if bridged {
        // It would be translated, and then be routed to where nobody is.
        script.push_str("ct direction original ct status dnat goto stray\n");
    }
    script.push_str("}\n");
}
