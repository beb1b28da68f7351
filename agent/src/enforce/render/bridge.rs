//! The text of `table bridge penstock`: what a bump in the wire must decide before IP is looked at.
//!
//! Only IPv4, IPv6 and ARP frames cross a guarded pair of ports. Everything else, tagged frames above all, would not
//! be shown to the `inet` table and is refused here. Ports exist only here, so the binding of addresses to ports is
//! checked here and carried on in the packet's mark.
//!
//! A packet leaves by a guarded port only if the `inet` table has judged it: it takes [`MARK_GUARDED`] off, and
//! the last chain drops what still has it. So a gateway whose `bridge-nf-call-*` parameters are switched off fails
//! closed, not open.

use std::fmt::Write;

use super::{LOG_PER_SECOND, MARK_GUARDED, MARK_MISPLACED, MARK_OBSERVED, TABLE, log, prefix, shape};
use crate::enforce::structure::Structure;

/// All chains: what a change of structure writes anew.
pub(super) const CHAINS: [&str; 9] = [
    "forward",
    "own",
    "inspected",
    "judge4",
    "judge6",
    "neighbour",
    "resolve",
    "observe",
    "other",
];

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
    ] {
        let _ = writeln!(script, "counter {counter} {{ }}");
    }
    script.push_str(&shape(structure));
    script.push_str("}\n");
}

/// The chains with their rules.
pub(super) fn chains(script: &mut String, group: u16) {
    let _ = writeln!(script, "table bridge {TABLE} {{");
    let judged = MARK_GUARDED | MARK_OBSERVED;
    let _ = write!(
        script,
        "chain other {{
         iifname . oifname @same_zone meta mark set 0 accept
         iifname . oifname @observed goto observe
         counter name denied
         limit rate {LOG_PER_SECOND}/second counter name denied_told {deny}
         drop
         }}
         chain observe {{
         counter name would_deny
         limit rate {LOG_PER_SECOND}/second counter name would_deny_told {would_deny}
         meta mark set 0 accept
         }}
         chain resolve {{
         iifname . oifname @same_zone accept
         arp saddr ip != 0.0.0.0 iifname . arp saddr ip != @sides4 goto other
         oifname . arp daddr ip @sides4 accept
         iifname . arp daddr ip @sides4 accept
         iifname . oifname @observed accept
         counter name unresolved drop
         }}
         chain neighbour {{
         ip6 saddr {{ ::, fe80::/10 }} meta mark set 0 accept
         iifname . ip6 saddr @sides6 meta mark set 0 accept
         goto other
         }}
         chain judge4 {{
         iifname . ip saddr != @sides4 meta mark set meta mark | {MARK_MISPLACED:#x} accept
         oifname . ip daddr != @sides4 meta mark set meta mark | {MARK_MISPLACED:#x} accept
         iifname . oifname @same_zone meta mark set 0
         accept
         }}
         chain judge6 {{
         icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert }} \
             ip6 hoplimit 255 goto neighbour
         icmpv6 type {{ mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report }} \
             ip6 hoplimit 1 goto neighbour
         iifname . ip6 saddr != @sides6 meta mark set meta mark | {MARK_MISPLACED:#x} accept
         oifname . ip6 daddr != @sides6 meta mark set meta mark | {MARK_MISPLACED:#x} accept
         iifname . oifname @same_zone meta mark set 0
         accept
         }}
         chain forward {{
         type filter hook forward priority -200; policy accept;
         iifname != @guarded accept
         oifname != @guarded accept
         meta mark set {MARK_GUARDED:#x}
         iifname . oifname @observed meta mark set {judged:#x}
         @ll,96,16 0x0800 goto judge4
         @ll,96,16 0x86dd goto judge6
         @ll,96,16 0x0806 goto resolve
         goto other
         }}
         chain own {{
         type filter hook input priority -200; policy accept;
         iifname @guarded meta mark set {MARK_GUARDED:#x}
         }}
         chain inspected {{
         type filter hook postrouting priority 300; policy accept;
         oifname @guarded meta protocol {{ ip, ip6 }} meta mark & {judged:#x} == {MARK_GUARDED:#x} \
             counter name uninspected drop
         }}
         }}
        ",
        deny = log(prefix::DENY, group),
        would_deny = log(prefix::WOULD_DENY, group),
    );
}
