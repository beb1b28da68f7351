//! The text of `table inet penstock`: judges forwarded packets of routed and bridged gateways, and guards the
//! gateway's own input.
//!
//! A packet is judged by its connection's original tuple, in both directions, at every packet: nothing is accepted
//! merely for being established (DESIGN §5; IEC 62443-3-3 SR 5.2, deny by default, allow by exception). What crosses
//! from or to a guarded interface, while the other one is not in the plan, is refused before any rule is looked at; so is
//! what carries an address of one side to one of another by two interfaces that are not in the plan (`around`; of a bridge, its
//! own table). What else passes between those is not ours.

use std::fmt::Write;

use penstock_policy::terms::GatewayMode;

use super::families::{FAMILIES, Family};
use super::lines::{log, within_limit};
use super::{
    alive, bound, granted, icmp, intercept, mode, own,
    shape::{self, chains_by_side},
    tunnel,
    turned::{self, OPENING},
};
use crate::enforce::nft::maps::MAPS;
use crate::enforce::nft::names::{
    MARK_FLOW, MARK_GUARDED, MARK_MISPLACED, MARK_OBSERVED, MARK_OPENED, MARK_PASSED, MARK_ROUTED, MARK_TOLD,
    TABLE, prefix,
};
use crate::enforce::shape::structure::{Input, Structure};

/// Chains of every structure.
const CHAINS: [&str; 22] = [
    "forward",
    "input",
    "judge4",
    "judge6",
    "related4",
    "related6",
    "original4",
    "original6",
    "reply4",
    "reply6",
    "echo4",
    "echo6",
    "from_unguarded",
    "miss",
    "deny",
    "refuse_told",
    "observe",
    "tell",
    "hit",
    "unattended",
    "management",
    "refuse",
];

/// Chains of routed gateways alone, ...
const CHAINS_ROUTED: [&str; 3] = ["around", "around4", "around6"];
/// ... and those that have one for each side.
const CHAINS_BY_SIDE: [&str; 2] = ["from", "to"];

/// The chains that a structure has, but for the seal and the inspector's: what a change of structure writes anew.
pub(super) fn chains_of(structure: &Structure) -> Vec<String> {
    let mut chains = [CHAINS.as_slice(), &turned::CHAINS, &icmp::CHAINS_INPUT]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    if structure.mode == GatewayMode::Routed {
        chains.extend(mode::chains_of(structure));
        chains.extend(CHAINS_ROUTED.map(str::to_owned));
        for chain in CHAINS_BY_SIDE {
            chains.extend(shape::names_by_side(structure, chain));
        }
        chains.extend(bound::chains_of(structure));
    }
    if granted::is_needed(structure) {
        chains.push(granted::CHAIN.to_owned());
    }
    chains
}

/// Counters, sets and maps, which stay when the structure changes.
pub(super) fn objects(script: &mut String, structure: &Structure) {
    let _ = writeln!(script, "table inet {TABLE} {{");
    for counter in [
        "allowed",
        "denied",
        "denied_told",
        "would_deny",
        "would_deny_told",
        "would_deny_untold",
        "input_denied",
        "input_told",
        "intercepted",
        "unattended",
        "stray",
        "cut_off",
        "logged",
    ] {
        let _ = writeln!(script, "counter {counter} {{ }}");
    }
    script.push_str(turned::OBJECTS);
    script.push_str(alive::OBJECTS);
    icmp::objects(script);
    for Family {
        number: n, address, ..
    } in &FAMILIES
    {
        let tuple = format!("{address} . {address} . inet_proto . inet_service");
        let pair = format!("{address} . {address}");
        for map in MAPS {
            let (kind, name) = (if map.pairs { &pair } else { &tuple }, map.name);
            let flags = if map.intervals { "flags interval; " } else { "" };
            let _ = if map.flows {
                writeln!(script, "map {name}{n} {{ type {kind} : mark; {flags}counter; }}")
            } else {
                writeln!(script, "set {name}{n} {{ type {kind}; {flags}counter; }}")
            };
        }
    }
    script.push_str("}\n");
    shape::define(script, "inet", structure);
}

/// The chains with their rules.
pub(super) fn chains(script: &mut String, structure: &Structure, group: u16) {
    intercept::chains(script, structure, group);
    let bridged = structure.mode == GatewayMode::Bridged;
    let _ = writeln!(script, "table inet {TABLE} {{");
    if !bridged {
        mode::chains(script, structure, bridged, "goto observe");
    }
    // Only what no rule permits asks for the mode. The ports of a bridge are known to its own table alone, which has asked.
    let observed = if bridged {
        format!("meta mark & {MARK_OBSERVED:#x} != 0 goto observe")
    } else {
        "jump observes".to_owned()
    };
    // A bridge's frames leave the judgement without a mark; what is routed off or onto the bridge is still known as such.
    let passed = if bridged {
        format!("meta mark set meta mark & {MARK_ROUTED:#x} accept")
    } else {
        "meta mark set 0 accept".to_owned()
    };
    let _ = write!(
        script,
        "chain hit {{
         {gate}counter name allowed
         ct mark & {MARK_FLOW:#x} != 0 accept
         ct mark set meta mark
         {OPENING} ct mark set ct mark | {MARK_OPENED:#x}
         ct direction reply {allow_reply} accept
         {allow} accept
         }}
         chain unattended {{
         {gate}counter name allowed
         counter name unattended
         ct mark & {MARK_FLOW:#x} != 0 accept
         ct mark set meta mark
         {OPENING} ct mark set ct mark | {MARK_OPENED:#x}
         ct direction reply {unattended_reply} accept
         {unattended} accept
         }}
         chain tell {{
         ct mark set ct mark | {MARK_TOLD:#x}
         ct direction reply {would_deny_reply} {passed}
         {would_deny} {passed}
         }}
         chain observe {{
         counter name would_deny
         ct mark & {MARK_TOLD:#x} != 0 {passed}
         ct mark 0 {OPENING} ct direction original ct mark set ct mark | {MARK_OPENED:#x}
         ct mark set ct mark | {MARK_PASSED:#x}
         {within_limit} counter name would_deny_told goto tell
         counter name would_deny_untold {passed}
         }}
         chain refuse_told {{
         counter name denied_told
         ct direction reply {deny_reply} drop
         {deny} drop
         }}
         chain deny {{
         counter name denied
         {within_limit} goto refuse_told
         drop
         }}
         chain miss {{
         {observed}
         goto deny
         }}
         chain from_unguarded {{
         oifname != @guarded {elsewhere}
         goto miss
         }}
        ",
        gate = granted::gate(structure),
        allow = log(prefix::ALLOW, group),
        allow_reply = log(prefix::ALLOW_REPLY, group),
        unattended = log(prefix::UNATTENDED, group),
        unattended_reply = log(prefix::UNATTENDED_REPLY, group),
        would_deny = log(prefix::WOULD_DENY, group),
        would_deny_reply = log(prefix::WOULD_DENY_REPLY, group),
        deny = log(prefix::DENY, group),
        elsewhere = if bridged { "accept" } else { "goto around" },
        deny_reply = log(prefix::DENY_REPLY, group),
        within_limit = within_limit(),
    );
    if !bridged {
        for family in &FAMILIES {
            let verdicts = ["goto observe", "goto deny"];
            shape::around(script, structure, (family.number, family.header), verdicts);
        }
        script.push_str(
            "chain around {\nmeta nfproto ipv4 goto around4\nmeta nfproto ipv6 goto around6\naccept\n}\n",
        );
    }
    granted::chain(script, structure);
    turned::verdicts(script, &granted::gate(structure), &observed, group);
    for family in &FAMILIES {
        judge(script, family, structure);
    }
    script.push_str("chain forward {\ntype filter hook forward priority filter; policy accept;\n");
    script.push_str(&tunnel::clamp(&structure.tunnels));
    let to_inspector = structure.inspector.is_some().then(intercept::intercepted);
    if bridged {
        if let Some(to_inspector) = to_inspector {
            // It came to be bridged all the same: it is of a connection that stood before the inspector was there.
            let _ = writeln!(script, "{to_inspector} goto cut_off");
        }
        // The ports of what is routed onto the bridge are known only later: the bridge table refuses it there.
        let _ = writeln!(
            script,
            "meta mark & {MARK_GUARDED:#x} == 0 meta mark set meta mark | {MARK_ROUTED:#x} accept"
        );
    } else {
        script.push_str("iifname != @guarded goto from_unguarded\noifname != @guarded goto miss\n");
        if let Some(to_inspector) = to_inspector {
            // The routing rule that makes it the machine's own is lost.
            let _ = writeln!(script, "{to_inspector} goto stray");
        }
    }
    for family in &FAMILIES {
        let _ = writeln!(
            script,
            "meta nfproto {} goto judge{}",
            family.nfproto, family.number
        );
    }
    script.push_str("goto miss\n}\n");
    input(script, structure, bridged, group);
    bound::routed(script, structure, group);
    script.push_str("}\n");
}

/// Maps and chains of one family.
fn judge(script: &mut String, family: &Family, structure: &Structure) {
    let bridged = structure.mode == GatewayMode::Bridged;
    let Family {
        number: n,
        header: ip,
        icmp,
        plain,
        ..
    } = family;
    // What would be inspected comes here only while there is no inspector.
    for (chain, tuple) in shape::tuples(ip) {
        // Nobody opens a connection against its direction.
        let first = if chain == "reply" {
            format!("{OPENING} goto turned_reply{n}\n")
        } else {
            String::new()
        };
        let _ = write!(
            script,
            "chain {chain}{n} {{
             {first}meta mark set {tuple} map @exact{n} goto hit
             meta mark set {tuple} map @ranges{n} goto hit
             meta mark set {tuple} map @unattended{n} goto unattended
             {tuple} @inspected{n} goto miss
             meta mark set {tuple} map @unattended_ranges{n} goto unattended
             goto turned_{chain}{n}
             }}
            "
        );
    }
    turned::judge(script, family);
    let _ = writeln!(script, "chain echo{n} {{");
    for map in ["echo", "echo_ranges"] {
        let _ = write!(
            script,
            "ct direction original {icmp} type echo-request meta mark set {ip} saddr . {ip} daddr map @{map}{n} goto hit
             ct direction reply {icmp} type echo-reply meta mark set {ip} daddr . {ip} saddr map @{map}{n} goto hit
            "
        );
    }
    script.push_str("goto miss\n}\n");
    icmp::related(script, structure, family);
    let errors = icmp::errors(*n);
    let bound = if bridged {
        format!(
            "meta mark & {MARK_MISPLACED:#x} != 0 goto miss
             {errors} ct state related goto related{n}
            "
        )
    } else {
        let [from, to] =
            [("from", "iifname", "saddr"), ("to", "oifname", "daddr")].map(|(chain, way, end)| {
                let rules = |side: &str| format!("{ip} {end} != @{side} goto miss\n");
                chains_by_side(script, structure, *n, (chain, way), rules)
            });
        format!(
            "{errors} ct state related goto related{n}
             {from}{to}iifname . oifname @same_zone accept
            "
        )
    };
    let _ = write!(
        script,
        "chain judge{n} {{
         {bound}{plain}meta l4proto {icmp} goto echo{n}
         ct direction original goto original{n}
         ct direction reply goto reply{n}
         goto miss
         }}
        "
    );
}

/// The gateway's own input: nobody but the management's peers may open anything, and what the gateway itself opened
/// is always answered.
fn input(script: &mut String, structure: &Structure, bridged: bool, group: u16) {
    let guarded = if bridged {
        format!("meta mark & {MARK_GUARDED:#x} != 0")
    } else {
        "iifname @guarded".to_owned()
    };
    let _ = write!(
        script,
        "chain refuse {{
         counter name input_denied
         {within_limit} counter name input_told {log}
         drop
         }}
         chain management {{
         {peers}{LEASES}goto refuse
         }}
        ",
        log = log(prefix::INPUT, group),
        within_limit = within_limit(),
        peers = peers(&structure.input),
    );
    icmp::input(script, structure, &FAMILIES);
    script.push_str("chain input {\ntype filter hook input priority filter; policy accept;\n");
    intercept::input(script, structure);
    own::input(script, structure, &guarded);
    let _ = write!(
        script,
        "{guarded} meta l4proto {{ icmp, icmpv6 }} jump own_icmp
         {ANSWERS}{entrance}{to_management}{guarded} goto refuse
         {LEASES}goto refuse
         }}
        ",
        entrance = tunnel::entrance(&structure.tunnels),
        to_management = from_management(&structure.input, "goto management"),
    );
}

/// What the gateway answers whoever asks, and the answers to what it asked itself.
pub(in crate::enforce) const ANSWERS: &str = "iifname \"lo\" accept
ct direction reply accept
icmp type { echo-request, destination-unreachable, time-exceeded, parameter-problem } accept
icmpv6 type { echo-request, destination-unreachable, packet-too-big, time-exceeded, parameter-problem, \
nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert, mld-listener-query, \
mld-listener-report, mld-listener-done, mld2-listener-report } accept
";

/// Leases of addresses (DHCP), whose answers come from elsewhere than where they were asked for.
pub(in crate::enforce) const LEASES: &str = "udp sport 67 udp dport 68 accept
udp sport 547 udp dport 546 accept
";

/// Accepts the management's peers.
pub(in crate::enforce) fn peers(guard: &Input) -> String {
    let mut rules = String::new();
    for (family, nets) in [("ip", &guard.peers4), ("ip6", &guard.peers6)] {
        let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
        if !nets.is_empty() {
            let _ = writeln!(rules, "{family} saddr {{ {} }} accept", nets.join(", "));
        }
    }
    rules
}

/// Gives `verdict` to what comes in by the management interface; by name, so also once it appears.
pub(in crate::enforce) fn from_management(guard: &Input, verdict: &str) -> String {
    match &guard.interface {
        Some(interface) => format!("iifname \"{interface}\" {verdict}\n"),
        None => String::new(),
    }
}
