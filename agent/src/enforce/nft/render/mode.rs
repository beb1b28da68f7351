//! Whether a packet that no rule permits is only observed: the chains `observes`, which both tables have. They act where the
//! zones of both ends observe, each on its own side, and return where one of them enforces.
//!
//! The packet's own addresses are asked, so an answer has the mode of its connection. A side whose zones all have one mode
//! is known by its interface alone. Of a side of both kinds the set `observing` holds the addresses of the zones that
//! observe; what it does not hold is enforced, and so is a frame without addresses. An error of a router that is declared
//! there has the mode of the end that it is for. An interface that the plan does not name has no say.

use std::fmt::Write;

use super::icmp::errors;
use super::shape::{escaped, name};
use crate::enforce::shape::structure::Structure;

/// Where a side's own end of a packet is asked for: the chain, the interface, the end.
const FROM: (&str, &str, &str) = ("observes_from", "iifname", "saddr");
const TO: (&str, &str, &str) = ("observes_to", "oifname", "daddr");

/// The chains that a structure has.
pub(super) fn chains_of(structure: &Structure) -> Vec<String> {
    let of_sides = [FROM, TO].into_iter().flat_map(|(chain, ..)| {
        let sides = structure.mixed().into_iter();
        sides.map(move |interface| of_side(chain, interface))
    });
    ["observes", "observes_to"]
        .map(str::to_owned)
        .into_iter()
        .chain(of_sides)
        .collect()
}

/// Writes the chains, which give `verdict` to what is only observed.
pub(super) fn chains(script: &mut String, structure: &Structure, bridge: bool, verdict: &str) {
    let to = asks(script, structure, bridge, TO, verdict);
    let _ = write!(script, "chain observes_to {{\n{to}{verdict}\n}}\n");
    let from = asks(script, structure, bridge, FROM, "goto observes_to");
    let _ = write!(
        script,
        "chain observes {{
         iifname @enforcers return
         oifname @enforcers return
         {from}goto observes_to
         }}
        "
    );
}

/// The chains of the sides of both kinds for one end, and the rule that leads to them.
fn asks(
    script: &mut String,
    structure: &Structure,
    bridge: bool,
    (chain, way, end): (&str, &str, &str),
    verdict: &str,
) -> String {
    // A bridge looks at what stands in the frame itself: a tagged one shows no address.
    let (ipv4, ipv6) = if bridge {
        ("@ll,96,16 0x0800 ", "@ll,96,16 0x86dd ")
    } else {
        ("", "")
    };
    let mut ways = Vec::new();
    for interface in structure.mixed() {
        let chain = of_side(chain, interface);
        let _ = writeln!(script, "chain {chain} {{");
        for (frame, ip, n) in [(ipv4, "ip", '4'), (ipv6, "ip6", '6')] {
            let [observing, router, side] =
                ["observing", "router", "side"].map(|set| name((set, n), interface));
            let _ = writeln!(script, "{frame}{ip} {end} @{observing} {verdict}");
            if way == FROM.1 {
                let of_router = format!("{ip} saddr @{router} {ip} saddr != @{side}");
                let _ = writeln!(
                    script,
                    "{frame}{errors} {of_router} {verdict}",
                    errors = errors(n)
                );
            }
        }
        if bridge {
            let observing = name(("observing", '4'), interface);
            let _ = writeln!(script, "@ll,96,16 0x0806 arp {end} ip @{observing} {verdict}");
        }
        script.push_str("}\n");
        ways.push(format!("\"{interface}\" : goto {chain}"));
    }
    if ways.is_empty() {
        return String::new();
    }
    format!("{way} vmap {{ {} }}\n", ways.join(", "))
}

fn of_side(chain: &str, interface: &str) -> String {
    format!("{chain}_{}", escaped(interface))
}
