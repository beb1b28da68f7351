//! The sets of the inspector's own connections to servers in the plain, and the rules that ask them. There only where a plan has such.
//!
//! Nothing that is forwarded asks them: who opens such a connection himself is judged by the plan's flows like anybody.

use std::collections::BTreeSet;

use super::families::Family;
use crate::enforce::shape::block::Address;
use crate::enforce::shape::legs::Legs;
use crate::enforce::shape::structure::Structure;

/// The sets' name, without the family.
const LEGS: &str = "legs";
const TYPES: [&str; 2] = [
    "type ipv4_addr . ipv4_addr . inet_service; flags interval",
    "type ipv6_addr . ipv6_addr . inet_service; flags interval",
];

/// Whether any rule asks.
fn is_needed(structure: &Structure) -> bool {
    !structure.legs4.is_empty() || !structure.legs6.is_empty()
}

/// The sets by name, with their types and elements.
pub(super) fn sets(structure: &Structure) -> Vec<(String, &'static str, BTreeSet<String>)> {
    if !is_needed(structure) {
        return Vec::new();
    }
    vec![
        (format!("{LEGS}4"), TYPES[0], elements(&structure.legs4)),
        (format!("{LEGS}6"), TYPES[1], elements(&structure.legs6)),
    ]
}

fn elements<A: Address>(legs: &Legs<A>) -> BTreeSet<String> {
    legs.iter()
        .flat_map(|((server, port), clients)| {
            clients
                .iter()
                .map(move |clients| format!("{clients} . {server} . {port}"))
        })
        .collect()
}

/// The rule that gives `verdict` to what the inspector sends on such a connection (`original`) or gets (`reply`), if there can be any;
/// `asked` stands before.
pub(super) fn rule(
    structure: &Structure,
    (family, ip): (char, &str),
    direction: &str,
    (asked, verdict): (&str, &str),
) -> String {
    if !is_needed(structure) {
        return String::new();
    }
    let tuple = match direction {
        "original" => format!("{ip} saddr . {ip} daddr . th dport"),
        _ => format!("{ip} daddr . {ip} saddr . th sport"),
    };
    format!("{asked}{tuple} @{LEGS}{family} {verdict}\n")
}

/// The rule of ICMP errors about such a connection.
pub(super) fn quoted(structure: &Structure, family: &Family, verdict: &str) -> String {
    if !is_needed(structure) {
        return String::new();
    }
    let Family {
        number: n,
        header: ip,
        nfproto,
        ..
    } = family;
    format!(
        "meta nfproto {nfproto} ct original protocol tcp ct original {ip} saddr . ct original {ip} daddr . ct original proto-dst @{LEGS}{n} {verdict}\n"
    )
}
