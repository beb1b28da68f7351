//! The text of `table bridge penstock`: what a bump in the wire must decide before IP is looked at.
//!
//! Only IPv4, IPv6 and ARP frames cross a guarded pair of ports, and what the plan permits beside them, by EtherType (`frames`).
//! Everything else, tagged IP above all, would not be shown to the `inet` table and is refused here. Ports exist only here, so the binding of
//! addresses to ports is checked here and carried on in the packet's mark.
//!
//! A packet leaves by a guarded port only if the `inet` table has judged it: it takes [`MARK_GUARDED`] off, and
//! the last chain drops what still has it. So a gateway whose `bridge-nf-call-*` parameters are switched off fails
//! closed, not open.
//!
//! A port that is not in the plan is no way around it: no rule can permit a frame between it and a guarded port, nor, between two
//! such ports, one from an address of one side to an address of another; and it takes no side's MAC address. Nor is
//! routing: a bridged gateway has no address on its guarded side, so what comes in by a guarded port to be routed, or is
//! routed and would leave by one, is refused ([`MARK_ROUTED`]); what the gateway itself sends is not.
//!
//! What goes to the inspector and what it sends is decided in the `inet` table; here it is only told which port a frame
//! came in by ([`MARK_ENTERED`]), and that it leaves by the port where its destination belongs ([`MARK_SENT`]).

use std::fmt::Write;

use super::lines::{log, within_limit};
use super::{
    frames, icmp, intercept, mode, neighbours,
    shape::{self, by_side, chains_by_side},
};
use crate::enforce::nft::names::{
    MARK_ENTERED, MARK_GUARDED, MARK_MISPLACED, MARK_OBSERVED, MARK_ROUTED, MARK_SENT, MARK_STRAY,
    MARKS_KEPT, TABLE, prefix,
};
use crate::enforce::shape::structure::Structure;
use crate::intercept::MARK_INTERCEPTED_BITS;

/// Chains of every structure.
const CHAINS: [&str; 16] = [
    "enter",
    "frames",
    "legs",
    "forward",
    "half",
    "around",
    "around4",
    "around6",
    "own",
    "sent",
    "inspected",
    "judge4",
    "judge6",
    "observe",
    "other",
    "deny",
];

/// Chains that have one for each side.
const CHAINS_BY_SIDE: [&str; 3] = ["entered", "from", "to"];

/// The chains that a structure has: what a change of structure writes anew.
pub(super) fn chains_of(structure: &Structure) -> Vec<String> {
    let by_side = CHAINS_BY_SIDE
        .into_iter()
        .flat_map(|chain| shape::names_by_side(structure, chain));
    let chains = CHAINS.into_iter().chain(icmp::CHAINS_BRIDGED);
    let chains = chains.map(str::to_owned).chain(by_side);
    let chains = chains.chain(mode::chains_of(structure));
    chains.chain(neighbours::chains_of(structure)).collect()
}

/// Counters and sets, which stay when the structure changes.
pub(super) fn objects(script: &mut String, structure: &Structure) {
    let _ = writeln!(script, "table bridge {TABLE} {{");
    for counter in [
        "denied",
        "denied_told",
        "would_deny",
        "would_deny_told",
        "uninspected",
        "unresolved",
        "stray",
        "logged",
    ] {
        let _ = writeln!(script, "counter {counter} {{ }}");
    }
    neighbours::objects(script);
    script.push_str("}\n");
    shape::define(script, "bridge", structure);
}

/// The chains with their rules.
pub(super) fn chains(script: &mut String, structure: &Structure, group: u16) {
    let misplaced = format!("meta mark set meta mark | {MARK_MISPLACED:#x} accept");
    let entered = format!("meta mark set {MARK_ENTERED:#x} accept");
    icmp::bridged(script, structure, &misplaced);
    let admitted = neighbours::chains(script, structure, group);
    let _ = writeln!(script, "table bridge {TABLE} {{");
    let refused = MARK_GUARDED | MARK_MISPLACED;
    let came = refused | MARK_ROUTED;
    let (judged, all) = (MARK_GUARDED | MARK_OBSERVED, refused | MARK_OBSERVED);
    let observed = format!("meta mark set meta mark | {MARK_OBSERVED:#x}");
    mode::chains(script, structure, true, &observed);
    frames::chain(script, structure, neighbours::bind);
    let to_inspector = intercept::intercepted();
    let [[entered4, from4, to4], [entered6, from6, to6]] = [('4', "ip"), ('6', "ip6")].map(|(family, ip)| {
        [
            ("entered", "iifname", "saddr", &entered),
            ("from", "iifname", "saddr !=", &misplaced),
            ("to", "oifname", "daddr !=", &misplaced),
        ]
        .map(|(chain, way, asked, verdict)| {
            let rules = |side: &str| format!("{ip} {asked} @{side} {verdict}\n");
            chains_by_side(script, structure, family, (chain, way), rules)
        })
    });
    for family in [('4', "ip"), ('6', "ip6")] {
        let mark = |mark: u32| format!("meta mark set {mark:#x} accept");
        let verdicts = [mark(refused | MARK_OBSERVED), mark(refused)];
        let [observed, refused] = verdicts.each_ref().map(String::as_str);
        shape::around(script, structure, family, [observed, refused]);
    }
    let _ = write!(
        script,
        "chain around {{
         @ll,96,16 0x0800 goto around4
         @ll,96,16 0x86dd goto around6
         accept
         }}
         chain deny {{
         counter name denied
         {within_limit} counter name denied_told {deny}
         drop
         }}
         chain other {{
         iifname . oifname @same_zone meta mark set 0 accept
         meta mark & {MARK_OBSERVED:#x} != 0 goto observe
         goto deny
         }}
         chain observe {{
         counter name would_deny
         {within_limit} counter name would_deny_told {would_deny}
         meta mark set 0 accept
         }}
         chain judge4 {{
         {errors4} goto error4
         {from4}{to4}iifname . oifname @same_zone meta mark set 0
         accept
         }}
         chain judge6 {{
         icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert }} \
             ip6 hoplimit 255 goto discover
         icmpv6 type {{ mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report }} \
             ip6 saddr {{ ::, fe80::/10 }} ip6 hoplimit 1 goto report
         {errors6} goto error6
         {from6}{to6}iifname . oifname @same_zone meta mark set 0
         accept
         }}
         chain half {{
         iifname != @guarded oifname != @guarded goto around
         meta mark set {refused:#x}
         jump observes
         @ll,96,16 {{ 0x0800, 0x86dd }} accept
         @ll,96,16 0x0806 meta mark & {MARK_OBSERVED:#x} != 0 accept
         @ll,96,16 0x0806 counter name unresolved drop
         goto other
         }}
         chain enter {{
         type filter hook prerouting priority -300; policy accept;
         iifname != @guarded goto outsider
         {admitted}meta mark set meta mark & {MARKS_KEPT:#x}
         {errors4} goto error_entered4
         {errors6} goto error_entered6
         {entered4}{entered6}}}
         chain legs {{
         {sent4}{sent6}counter name stray drop
         }}
         chain forward {{
         type filter hook forward priority -200; policy accept;
         {to_inspector} accept
         iifname != @guarded goto half
         oifname != @guarded goto half
         meta mark set {MARK_GUARDED:#x}
         jump observes
         @ll,96,16 0x0800 goto judge4
         @ll,96,16 0x86dd goto judge6
         @ll,96,16 0x0806 goto resolve
         jump frames
         goto other
         }}
         chain own {{
         type filter hook input priority -200; policy accept;
         {to_inspector} accept
         iifname != @guarded accept
         meta mark set {came:#x}
         jump observes
         {numbers}}}
         chain sent {{
         type filter hook output priority -200; policy accept;
         meta mark & {MARK_INTERCEPTED_BITS:#x} == {MARK_SENT:#x} goto legs
         meta mark & {MARK_INTERCEPTED_BITS:#x} == {MARK_STRAY:#x} oifname @guarded counter name stray drop
         meta mark & {MARK_ROUTED:#x} == 0 accept
         oifname != @guarded accept
         jump observes
         meta mark & {MARK_OBSERVED:#x} != 0 goto observe
         goto deny
         }}
         chain inspected {{
         type filter hook postrouting priority 300; policy accept;
         {to_inspector} counter name uninspected drop
         oifname @guarded meta protocol {{ ip, ip6 }} meta mark & {judged:#x} == {MARK_GUARDED:#x} \
             counter name uninspected drop
         meta protocol {{ ip, ip6 }} meta mark & {all:#x} == {refused:#x} counter name uninspected drop
         }}
         }}
        ",
        numbers = icmp::number_sides(structure),
        errors4 = icmp::errors('4'),
        errors6 = icmp::errors('6'),
        deny = log(prefix::DENY, group),
        would_deny = log(prefix::WOULD_DENY, group),
        within_limit = within_limit(),
        sent4 = by_side(
            structure,
            ("side", '4'),
            "oifname",
            "ip daddr",
            "meta mark set 0 accept"
        ),
        sent6 = by_side(
            structure,
            ("side", '6'),
            "oifname",
            "ip6 daddr",
            "meta mark set 0 accept"
        ),
    );
}
