//! Addresses whose packets count only if they come from one MAC address, since a conduit asks for more than an address: the chains
//! `bound` of a routed gateway, and what a bridged one asks before it admits a frame.
//!
//! It is asked first of all that comes in: ahead of connection tracking and of the inspector, for what goes to the gateway itself too,
//! and on a bridge before that learns anything. What two observing zones would be refused passes, and is recorded; which end an
//! address has on the other side is not known there, so an address observes only if it does wherever it may be; one that the plan does not
//! know (a group of a multicast, a broadcast) has no say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use penstock_policy::plan::Hardware;
use penstock_policy::terms::GatewayMode;

use super::families::FAMILIES;
use super::lines::{escaped, log, name, within_limit};
use crate::enforce::nft::names::prefix;
use crate::enforce::shape::structure::Structure;

/// Chains of a gateway that binds anything, but for those of each side; and that of a routed one, from which they are reached.
const CHAINS: [&str; 2] = ["unbound4", "unbound6"];
const CHAINS_ROUTED: [&str; 3] = ["bound", "recorded_bound", "refused_bound"];

/// The chains that a structure has in the table that asks.
pub(super) fn chains_of(structure: &Structure) -> Vec<String> {
    if structure.bound.is_empty() {
        return Vec::new();
    }
    let mut chains: Vec<String> = CHAINS.map(str::to_owned).to_vec();
    chains.extend(structure.bound.keys().map(|interface| of_side(interface)));
    if structure.mode == GatewayMode::Routed {
        chains.extend(CHAINS_ROUTED.map(str::to_owned));
    }
    chains
}

fn of_side(interface: &str) -> String {
    format!("bound_{}", escaped(interface))
}

/// The sets of the table that asks: which addresses are bound on a side, and to what.
pub(super) fn sets(
    family: &str,
    structure: &Structure,
) -> impl Iterator<Item = (String, (&'static str, BTreeSet<String>))> {
    let asks = match structure.mode {
        GatewayMode::Routed => "inet",
        GatewayMode::Bridged => "bridge",
    };
    let mut sets = BTreeMap::new();
    for (interface, bound) in structure.bound.iter().filter(|_| family == asks) {
        for (number, address, pair) in [
            ('4', "type ipv4_addr", "type ipv4_addr . ether_addr"),
            ('6', "type ipv6_addr", "type ipv6_addr . ether_addr"),
        ] {
            let of_family = |one: &&Hardware| matches!(one.address, IpAddr::V4(_)) == (number == '4');
            let here = || bound.iter().filter(of_family);
            let addresses = here().map(|one| one.address.to_string()).collect();
            let pairs = here()
                .map(|one| format!("{} . {}", one.address, one.mac))
                .collect();
            sets.insert(name(("bound", number), interface), (address, addresses));
            sets.insert(name(("bind", number), interface), (pair, pairs));
        }
    }
    sets.into_iter()
}

/// The chains of both modes, within a table.
fn asked(script: &mut String, structure: &Structure) {
    for interface in structure.bound.keys() {
        let _ = writeln!(script, "chain {} {{", of_side(interface));
        for family in &FAMILIES {
            let (n, ip) = (family.number, family.header);
            let [bound, bind] = ["bound", "bind"].map(|set| name((set, n), interface));
            let _ = writeln!(
                script,
                "{ip} saddr @{bound} {ip} saddr . ether saddr != @{bind} jump unbound{n}"
            );
        }
        script.push_str("}\n");
    }
}

/// What becomes of a packet from another MAC address.
fn unbound(script: &mut String) {
    for family in &FAMILIES {
        let (n, ip) = (family.number, family.header);
        let _ = write!(
            script,
            "chain unbound{n} {{
             {ip} saddr @passive{n} {ip} daddr @passive{n} goto recorded_bound
             {ip} saddr @passive{n} {ip} daddr != @plant{n} goto recorded_bound
             goto refused_bound
             }}
            "
        );
    }
}

/// The chains of a routed gateway, within its table; nothing where nothing is bound.
pub(super) fn routed(script: &mut String, structure: &Structure, group: u16) {
    if structure.bound.is_empty() || structure.mode != GatewayMode::Routed {
        return;
    }
    let _ = write!(
        script,
        "chain refused_bound {{
         counter name denied
         {within_limit} counter name denied_told {deny} drop
         drop
         }}
         chain recorded_bound {{
         counter name would_deny
         {within_limit} counter name would_deny_told {would_deny} return
         counter name would_deny_untold
         }}
        ",
        within_limit = within_limit(),
        deny = log(&format!("{}{}", prefix::DENY, prefix::UNBOUND), group),
        would_deny = log(&format!("{}{}", prefix::WOULD_DENY, prefix::UNBOUND), group),
    );
    unbound(script);
    asked(script, structure);
    let _ = write!(
        script,
        "chain bound {{
         type filter hook prerouting priority -290; policy accept;
         {}}}
        ",
        by_way_in(structure)
    );
}

/// What leads to the chain of the side by which a packet comes in.
fn by_way_in(structure: &Structure) -> String {
    let sides = structure.bound.keys();
    let ways = sides.map(|interface| format!("\"{interface}\" : jump {}", of_side(interface)));
    format!("iifname vmap {{ {} }}\n", ways.collect::<Vec<_>>().join(", "))
}

/// The chains by which a shadow counts what would come from another MAC address, and what leads to them from what a routed gateway forwards. On a
/// bridge only the rules of the bridge itself know the port that a frame came in by.
pub(super) fn shadowed(script: &mut String, structure: &Structure) -> String {
    if structure.bound.is_empty() || structure.mode != GatewayMode::Routed {
        return String::new();
    }
    script.push_str(
        "chain refused_bound {
         meta l4proto tcp ct state established update @cut { ct id . meta mark }
         goto refused_again
         }
        ",
    );
    for family in &FAMILIES {
        let (n, ip) = (family.number, family.header);
        let _ = write!(
            script,
            "chain unbound{n} {{
             {ip} saddr @passive{n} {ip} daddr @passive{n} return
             {ip} saddr @passive{n} {ip} daddr != @plant{n} return
             goto refused_bound
             }}
            "
        );
    }
    asked(script, structure);
    by_way_in(structure)
}

/// The chains of a bridged gateway, within its table, behind those of its claims.
pub(super) fn bridged(script: &mut String, structure: &Structure) {
    if !structure.bound.is_empty() {
        unbound(script);
        asked(script, structure);
    }
}

/// What a bridged gateway asks of what comes in by `interface`.
pub(super) fn admission(structure: &Structure, interface: &str) -> String {
    match structure.bound.contains_key(interface) {
        true => format!("jump {}\n", of_side(interface)),
        false => String::new(),
    }
}
