//! The text of `table inet penstock_shadow`: which packets that the rules in force let pass would the next plan refuse?
//!
//! It judges as the tables in force do, by the same sets, behind them (a later priority of the same hooks), so that it sees what
//! passed. Its chains count and accept: there is no verdict in them that drops, redirects or logs, nothing sets a mark, and no
//! set is written but its own. What it reads of others' is the packet's mark, which is the number of the flow in force that
//! carries the packet (0: none, it is only observed), and of the connection's mark what was seen of its opening.
//!
//! What a flow carries that the next plan has alike, between the same places, needs no second look (`kept`). That is most, as a
//! rule, and costs one lookup.
//!
//! What was judged of a connection holds for its further packets (`passing`, `refusing`): the plan stays the same while its shadow is
//! there, and no packet of a connection that is under way is judged otherwise than the one before.
//!
//! Not judged here: what the inspector carries (it passes none of these hooks), what goes to it from the next plan on
//! (`unread`: counted, and standing connections that would be reset for it), what only the tables of a bridge know: the port
//! that a frame came in by, the MAC address that it should have there, and neighbours' questions.

use std::collections::BTreeSet;
use std::fmt::Write;

use penstock_policy::ids::FlowId;
use penstock_policy::terms::GatewayMode;

use super::families::{FAMILIES, Family};
use super::icmp::{self, Quoted};
use super::inet::{ANSWERS, LEASES, from_management, peers};
use super::lines::list;
use super::shape::{self, by_side, chains_by_side};
use super::turned::OPENING;
use super::{bound, family, intercept, mode, named, own, removal};
use crate::enforce::nft::maps::MAPS_SHADOWED;
use crate::enforce::nft::names::{MARK_OPENED, MARK_ROUTED, TABLE, TABLE_SHADOW};
use crate::enforce::shape::lower::Elements;
use crate::enforce::shape::structure::Structure;

/// Flows of the policy in force that are counted apart; what is above is counted in the total alone.
const FLOWS_MAX: u32 = 4096;
/// Connections that are counted: each once.
const CONNECTIONS_MAX: u32 = 65_536;

/// Packets of connections of which all further ones are judged alike: the first packets of TCP say who opened it, and ICMP that is about a
/// connection is judged apart from it.
const UNDER_WAY: [&str; 2] = [
    "meta l4proto tcp ct state established",
    "meta l4proto udp ct state { new, established }",
];

/// What leads on from a tuple that the next plan permits, limits to operations, or does not have.
const QUOTED: Quoted<'static> = Quoted {
    maps: [
        ("exact", "accept"),
        ("ranges", "accept"),
        ("inspected", "goto unread"),
        ("inspected_ranges", "goto unread"),
    ],
    echo: "accept",
    asks: |tuple, map| format!("{tuple} @{map}"),
};

/// The scripts that put it beside the rules in force, whatever shadow was there: sets ahead of rules, each one transaction.
/// While a table is made, the kernel runs its rules for a moment on ranges that are not filled yet.
pub(in crate::enforce) fn shadow(
    structure: &Structure,
    elements: &Elements,
    kept: &BTreeSet<FlowId>,
) -> [String; 2] {
    let mut contents = objects();
    shape::define(&mut contents, "inet", structure);
    let kept_numbers = kept.iter().map(|flow| flow.0.to_string());
    list(&mut contents, "add", "inet", "kept", kept_numbers);
    family(&mut contents, "add", elements.v4.iter(), &MAPS_SHADOWED);
    family(&mut contents, "add", elements.v6.iter(), &MAPS_SHADOWED);
    [
        remove_shadow() + &named(&contents, TABLE_SHADOW),
        named(&chains(structure), TABLE_SHADOW),
    ]
}

/// The script that removes it, and succeeds where there is none.
pub(in crate::enforce) fn remove_shadow() -> String {
    removal(TABLE_SHADOW)
}

fn objects() -> String {
    let mut script = format!("table inet {TABLE} {{\n");
    for counter in ["judged", "would_deny", "would_deny_input"] {
        let _ = writeln!(script, "counter {counter} {{ }}");
    }
    script.push_str("set kept { type mark; }\n");
    for set in ["refused", "unread"] {
        let _ = writeln!(
            script,
            "set {set} {{ type mark; size {FLOWS_MAX}; flags dynamic; }}"
        );
    }
    for set in ["cut", "midway", "passing", "refusing"] {
        let _ = writeln!(
            script,
            "set {set} {{ typeof ct id . meta mark; size {CONNECTIONS_MAX}; flags dynamic; }}"
        );
    }
    for Family {
        number: n, address, ..
    } in &FAMILIES
    {
        let pair = format!("{address} . {address}");
        let tuple = format!("{pair} . inet_proto . inet_service");
        for map in MAPS_SHADOWED {
            let kind = if map.pairs { &pair } else { &tuple };
            let flags = if map.intervals { " flags interval;" } else { "" };
            let _ = writeln!(script, "set {}{n} {{ type {kind};{flags} }}", map.name);
        }
    }
    script + "}\n"
}

fn chains(structure: &Structure) -> String {
    let bridged = structure.mode == GatewayMode::Bridged;
    let mut script = format!("table inet {TABLE} {{\n");
    let observed = if bridged {
        // Its ports are not known here; so only addresses that observe on whichever side they are count.
        [('4', "ip"), ('6', "ip6")]
            .map(|(n, ip)| format!("{ip} saddr @passive{n} {ip} daddr @passive{n} accept\n"))
            .concat()
    } else {
        mode::chains(&mut script, structure, false, "accept");
        "jump observes\n".to_owned()
    };
    // Each ends the judgement: a chain that was jumped to would be gone on after it. What stands and is to be read from the next plan on
    // is reset, unless its zones only observe.
    let [refusing, passing] = ["refusing", "passing"].map(remembered);
    let [tcp, udp] = UNDER_WAY;
    let _ = write!(
        script,
        "chain refused {{
         meta l4proto tcp ct state established update @cut {{ ct id . meta mark }}
         {refusing}goto refused_again
         }}
         chain refused_again {{
         counter name would_deny
         update @refused {{ meta mark counter }}
         accept
         }}
         chain permitted {{
         {passing}accept
         }}
         chain known {{
         ct id . meta mark @passing accept
         ct id . meta mark @refusing goto refused_again
         }}
         chain unread {{
         update @unread {{ meta mark counter }}
         ip saddr @passive4 ip daddr @passive4 accept
         ip6 saddr @passive6 ip6 daddr @passive6 accept
         meta l4proto tcp ct state established update @midway {{ ct id . meta mark }}
         accept
         }}
         chain miss {{
         {observed}goto refused
         }}
         chain refused_around {{
         counter name would_deny accept
         }}
        "
    );
    if !bridged {
        for Family {
            number: n, header, ..
        } in &FAMILIES
        {
            let verdicts = ["accept", "goto refused_around"];
            shape::around(&mut script, structure, (*n, header), verdicts);
        }
        script.push_str(
            "chain from_unguarded {
             oifname @guarded goto miss
             meta nfproto ipv4 goto around4
             meta nfproto ipv6 goto around6
             }
            ",
        );
    }
    for family in &FAMILIES {
        judge(&mut script, family, structure);
    }
    // Of each packet: one under way may come from elsewhere than the one before.
    let by_mac = bound::shadowed(&mut script, structure);
    let bound = if bridged {
        // It stays on its side, or on the gateway.
        format!("meta mark & {MARK_ROUTED:#x} != 0 accept\n")
    } else {
        "iifname != @guarded goto from_unguarded\noifname != @guarded goto miss\n".to_owned()
    };
    let _ = write!(
        script,
        "chain forward {{
         type filter hook forward priority filter + 2; policy accept;
         counter name judged
         {by_mac}meta mark @kept accept
         {tcp} jump known
         {udp} jump known
         {bound}meta nfproto ipv4 goto judge4
         meta nfproto ipv6 goto judge6
         goto miss
         }}
        "
    );
    input(&mut script, structure);
    script + "}\n"
}

/// Keeps in `set` what was judged of a connection that is under way.
fn remembered(set: &str) -> String {
    UNDER_WAY
        .map(|under_way| format!("{under_way} update @{set} {{ ct id . meta mark }}\n"))
        .concat()
}

/// The judgement of one family, as `inet` has it for the rules in force.
fn judge(script: &mut String, family: &Family, structure: &Structure) {
    let Family {
        number: n,
        header: ip,
        icmp,
        plain,
        ..
    } = family;
    let asked = |tuple: &str| {
        let ask = |(map, verdict): &(&str, &str)| {
            let verdict = verdict.replace("accept", "goto permitted");
            format!("{tuple} @{map}{n} {verdict}\n")
        };
        QUOTED.maps.iter().map(ask).collect::<String>()
    };
    let [(_, of_client), (_, of_server)] = shape::tuples(ip);
    // UDP that passed has its direction from the rules in force, or they are too new to know it.
    let _ = write!(
        script,
        "chain original{n} {{
         {client}goto turned_original{n}
         }}
         chain turned_original{n} {{
         meta l4proto tcp ct mark & {MARK_OPENED:#x} != 0 goto miss
         {OPENING} goto miss
         {server}goto miss
         }}
         chain reply{n} {{
         {OPENING} goto turned_reply{n}
         {server}goto turned_reply{n}
         }}
         chain turned_reply{n} {{
         meta l4proto tcp ct mark & {MARK_OPENED:#x} != 0 goto miss
         {client}goto miss
         }}
         chain echo{n} {{
         ct direction original {icmp} type echo-request {ip} saddr . {ip} daddr @echo{n} accept
         ct direction original {icmp} type echo-request {ip} saddr . {ip} daddr @echo_ranges{n} accept
         ct direction reply {icmp} type echo-reply {ip} daddr . {ip} saddr @echo{n} accept
         ct direction reply {icmp} type echo-reply {ip} daddr . {ip} saddr @echo_ranges{n} accept
         goto miss
         }}
        ",
        client = asked(&of_client),
        server = asked(&of_server),
    );
    let mut founded = String::new();
    let mut bound = String::new();
    if structure.mode == GatewayMode::Routed {
        founded = icmp::unfounded(structure, family, "goto miss");
        let asked = format!("{ip} daddr !=");
        founded += &by_side(structure, ("side", *n), "oifname", &asked, "goto miss");
        founded += "iifname . oifname @same_zone accept\n";
        for (chain, way, end) in [("from", "iifname", "saddr"), ("to", "oifname", "daddr")] {
            let rules = |side: &str| format!("{ip} {end} != @{side} goto miss\n");
            bound += &chains_by_side(script, structure, *n, (chain, way), rules);
        }
        bound += "iifname . oifname @same_zone accept\n";
    }
    let _ = write!(
        script,
        "chain related{n} {{
         {founded}{about}goto miss
         }}
         chain judge{n} {{
         {errors} ct state related goto related{n}
         {bound}{plain}meta l4proto {icmp} goto echo{n}
         ct direction original goto original{n}
         ct direction reply goto reply{n}
         goto miss
         }}
        ",
        about = icmp::about(family, &QUOTED),
        errors = icmp::errors(*n),
    );
}

/// Who may still reach the gateway itself.
fn input(script: &mut String, structure: &Structure) {
    let guarded = match structure.mode {
        GatewayMode::Routed => "iifname @guarded goto refused_input\n",
        GatewayMode::Bridged => "",
    };
    let mut own = String::new();
    let of_guarded = match structure.mode {
        GatewayMode::Routed => "iifname @guarded",
        GatewayMode::Bridged => "",
    };
    own::input(&mut own, structure, of_guarded);
    let _ = write!(
        script,
        "chain refused_input {{
         counter name would_deny_input accept
         }}
         chain management {{
         {peers}{LEASES}goto refused_input
         }}
         chain input {{
         type filter hook input priority filter + 2; policy accept;
         {to_inspector} accept
         {own}{ANSWERS}{to_management}{guarded}{LEASES}goto refused_input
         }}
        ",
        peers = peers(&structure.input),
        to_inspector = intercept::intercepted(),
        to_management = from_management(&structure.input, "goto management"),
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::enforce::shape::lower::lower;
    use crate::enforce::shape::structure::structure;

    /// What a rule may do to a packet, to its connection or to others, and to the log.
    const DEEDS: [&str; 13] = [
        " drop", "reject", "mark set", "log ", "queue", "tproxy", "dnat", "snat", "redirect", "dup ", "fwd ",
        "notrack", "reset",
    ];

    proptest! {
        #[test]
        fn whatever_the_plan_its_shadow_only_counts(plan in penstock_policy::arbitrary::plans(), bridged: bool) {
            let mut plan = plan;
            plan.mode = if bridged { GatewayMode::Bridged } else { GatewayMode::Routed };
            let (structure, _) = structure(&plan, None).unwrap();
            let kept = plan.rules.iter().map(|rule| rule.id).collect();
            let [contents, rules] = shadow(&structure, &lower(&plan).unwrap(), &kept);
            for line in contents.lines().chain(rules.lines()) {
                let done: Vec<&&str> = DEEDS.iter().filter(|deed| line.contains(**deed)).collect();
                prop_assert!(done.is_empty(), "{done:?} in {line}");
                prop_assert!(!line.contains("policy ") || line.contains("policy accept"), "{line}");
                let writes = line.contains("update @");
                let own = ["refused", "unread", "cut", "midway", "passing", "refusing"];
                let own = own.map(|set| format!("update @{set} {{"));
                prop_assert!(!writes || own.iter().any(|own| line.contains(own)), "{line}");
                // No word in it is about another table.
                prop_assert!(!line.contains("inet penstock") || line.contains("inet penstock_shadow"), "{line}");
            }
        }
    }
}
