//! The chains of `table bridge penstock` about neighbours: who may claim which MAC and IP address on which port, and whose
//! questions for a neighbour, and answers to them, cross.
//!
//! What can be refused is refused in prerouting, before the bridge learns where a MAC address is (it learns when that hook is
//! done): the claim of an address that belongs to another side, ARP and neighbour discovery that are longer than they need to
//! be or contradict themselves, advertisements of routers that are not declared, and from a *closed* side (all of whose zones
//! enforce) whatever is no flow's end. What an override lets pass of such a side is admitted as a flow's end is, and may have another MAC
//! address than it is declared to have, which is recorded; the rest of that side stays as it is.
//!
//! A MAC address belongs to the side on which an end of a flow, a router or the sender of a frame that is permitted beside IP (`frames`) was
//! first seen with it, or on which the document declares it, and cannot move to another before [`BOUND`] without a word of it (ARP, neighbour
//! discovery, such a frame). It may move
//! freely within a side, and between sides that are one zone, as the address of a redundant pair does. Each side has room for
//! 4,096; when that is full, MAC addresses that are not known there are refused from a closed side, and not bound from
//! another. That a frame says the same address twice (its own and that in its ARP) is asked of the same set, which holds each
//! address as a pair with itself: the kernel cannot compare two fields. A port that is not in the plan may claim none of these
//! addresses.
//!
//! Questions and answers cross between pairs that a flow joins, between a flow's end and a declared router of the other side,
//! and as announcements of a flow's end to the sides that it speaks with (a failover needs those). All others stay where they
//! are: silently where they are for their own side, else as a denial. What two observing sides would be refused passes, and is
//! recorded.

mod claims;

use std::fmt::Write;

use super::bound;
use super::frames::{self, BESIDE_IP, FRAMED};
use super::lines::of_side;
use super::shape::{EXCEPTED, name};
use crate::enforce::nft::names::{MARK_OBSERVED, TABLE};
use crate::enforce::shape::structure::Structure;

/// How long a MAC address stays bound to its side.
const BOUND: &str = "15m";
/// Bytes of an ARP packet and the padding of the shortest frame.
const ARP_BYTES_MAX: u32 = 46;
/// Bytes of a neighbour's solicitation or advertisement, with its address and a nonce.
const SOLICITATION_BYTES_MAX: u32 = 40;
/// Bytes of a router's solicitation, and of its advertisement.
const ROUTER_SOLICITATION_BYTES_MAX: u32 = 24;
const ROUTER_ADVERTISEMENT_BYTES_MAX: u32 = 512;
/// Bytes of a report of multicast groups.
const REPORT_BYTES_MAX: u32 = 512;

/// A frame's sender, twice: what stands in the sets of MAC addresses.
const SENDER: &str = "@ll,48,48 . @ll,48,48";
/// A frame's sender, and the sender that its ARP names.
const ARP_SENDER: &str = "@ll,48,48 . @nh,64,48";
/// A frame's sender, and the MAC address in the first option of its neighbour discovery.
const ND_SENDER: &str = "@ll,48,48 . @th,208,48";
/// The address that a neighbour's solicitation or advertisement is about.
const TARGET: &str = "@th,64,128";
/// Messages of neighbour discovery, ...
const DISCOVERY: &str = "ip6 nexthdr icmpv6 icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, \
                         nd-neighbor-advert, nd-redirect }";
/// ... and such in a fragment, or behind another header, where no host takes them (RFC 6980).
const HIDDEN_DISCOVERY: &str = "ip6 nexthdr != icmpv6 icmpv6 type { nd-router-solicit, nd-router-advert, \
                                nd-neighbor-solicit, nd-neighbor-advert, nd-redirect }";

/// Chains of every structure; those by side come on top.
const CHAINS: [&str; 5] = ["resolve", "stays", "discover", "report", "outsider"];
/// Chains that there are for each side.
const CHAINS_BY_SIDE: [&str; 8] = [
    "admit", "claims", "arp", "nd", "stranger", "refresh", BESIDE_IP, FRAMED,
];

/// The chains that a structure has.
pub(super) fn chains_of(structure: &Structure) -> Vec<String> {
    let by_side = CHAINS_BY_SIDE.iter().flat_map(|chain| {
        let sides = structure.guarded.iter();
        sides.map(move |interface| of_side(chain, interface))
    });
    CHAINS
        .iter()
        .map(|chain| (*chain).to_owned())
        .chain(claims::chains_of())
        .chain(by_side)
        .chain(bound::chains_of(structure))
        .collect()
}

/// The set that tells whether an ARP asks for its own sender; elements come with packets.
pub(super) fn objects(script: &mut String) {
    script.push_str(
        "set announcing { type ipv4_addr . ipv4_addr; size 4096; flags dynamic,timeout; timeout 15m; }\n",
    );
}

/// The chains with their rules. Gives what leads to them from prerouting.
pub(super) fn chains(script: &mut String, structure: &Structure, group: u16) -> String {
    let _ = writeln!(script, "table bridge {TABLE} {{");
    claims::chains(script, group);
    bound::bridged(script, structure);
    let mut ways = Vec::new();
    for interface in &structure.guarded {
        admit(script, structure, interface);
        ways.push(format!("\"{interface}\" : jump {}", of_side("admit", interface)));
    }
    outsider(script, structure);
    resolve(script, structure);
    discover(script, structure);
    script.push_str("}\n");
    match ways.is_empty() {
        true => String::new(),
        false => format!("iifname vmap {{ {} }}\n", ways.join(", ")),
    }
}

/// Rules that lead claims of what belongs to other sides to where they are refused, or recorded where both sides observe.
fn of_others(structure: &Structure, interface: &str, claim: &str, asked: impl Fn(&str) -> String) -> String {
    let others = structure.guarded.iter().filter(|other| *other != interface);
    let pair = |other: &String| (interface.to_owned(), other.clone());
    others
        .filter(|other| !structure.same_zone.contains(&pair(other)))
        .map(|other| {
            let verdict = match structure.neighbours.observed.contains(&pair(other)) {
                true => format!("jump recorded_{claim}"),
                false => format!("goto refused_{claim}"),
            };
            format!("{} {verdict}\n", asked(other))
        })
        .collect()
}

/// The rules about an address that is declared to have another MAC address than it has (`wrong` asks that, `address` is where it stands):
/// refused as `forged` says; of what an override excepts only recorded.
fn of_other_hardware(excepted: Option<String>, address: &str, wrong: &str, forged: &str) -> String {
    let Some(excepted) = excepted else {
        return format!("{wrong} {forged}");
    };
    format!("{address} @{excepted} {wrong} jump recorded_forged\n{address} != @{excepted} {wrong} {forged}")
}

/// Binds a frame's sender to a side, or does not match where there is no room.
pub(super) fn bind(interface: &str) -> String {
    let macs = name(("macs", '2'), interface);
    format!("update @{macs} {{ {SENDER} timeout {BOUND} }}")
}

/// Drops frames from ports that are not in the plan before the bridge learns from them: else it could take a side's MAC address,
/// and with it the packets for that one.
fn outsider(script: &mut String, structure: &Structure) {
    let of_side = |interface: &String| {
        let observed = (interface.clone(), interface.clone());
        let verdict = match structure.neighbours.observed.contains(&observed) {
            true => "jump recorded_moved",
            false => "goto refused_moved",
        };
        format!("{SENDER} @{} {verdict}\n", name(("macs", '2'), interface))
    };
    let claims: String = structure.guarded.iter().map(of_side).collect();
    let _ = write!(script, "chain outsider {{\n{claims}accept\n}}\n");
}

/// What comes in by a port, before the bridge learns of it.
fn admit(script: &mut String, structure: &Structure, interface: &str) {
    let closed = structure.neighbours.closed.contains(interface);
    let set = |set: &'static str, family| name((set, family), interface);
    let [macs, near4, near6, near_nd] = [
        set("macs", '2'),
        set("near", '4'),
        set("near", '6'),
        set("nearnd", '6'),
    ];
    let [claims, stranger, arp, nd, refresh] =
        ["claims", "stranger", "arp", "nd", "refresh"].map(|chain| of_side(chain, interface));
    let bind = bind(interface);
    let moved = of_others(structure, interface, "moved", |other| {
        format!("{SENDER} @{}", name(("macs", '2'), other))
    });
    let (foreign, unknown) = match closed {
        true => ("goto stranger_refused", "goto stranger_refused"),
        false => ("return", "return"),
    };
    let to = |claim: &str| match closed {
        true => format!("goto refused_{claim}"),
        false => format!("jump recorded_{claim}"),
    };
    let (malformed, forged, advertised) = (to("malformed"), to("forged"), to("advertised"));
    // A closed side's own affairs: what is for the gateway itself, and what its hosts ask one another.
    let _ = write!(
        script,
        "chain {admit} {{
         {bound}@ll,96,16 != {{ 0x0800, 0x86dd, 0x0806 }} goto {beside}
         {HIDDEN_DISCOVERY} {malformed}
         {SENDER} @{macs} goto {claims}
         {moved}arp saddr ip @{near4} {bind} goto {claims}
         ip saddr @{near4} {bind} goto {claims}
         ip6 saddr @{near6} {bind} goto {claims}
         icmpv6 type nd-neighbor-advert {TARGET} @{near_nd} {bind} goto {claims}
         ip6 saddr :: icmpv6 type nd-neighbor-solicit {TARGET} @{near_nd} {bind} goto {claims}
         goto {stranger}
         }}
         chain {stranger} {{
         @ll,96,16 0x0806 goto {claims}
         {DISCOVERY} goto {claims}
         meta pkttype host return
         ip6 saddr {{ ::, fe80::/10 }} meta l4proto icmpv6 return
         {errors4} return
         {errors6} return
         udp sport . udp dport {{ 67 . 68, 547 . 546 }} return
         {unknown}
         }}
         {framed}
         chain {claims} {{
         @ll,96,16 0x0806 goto {arp}
         {DISCOVERY} goto {nd}
         }}
         chain {refresh} {{
         {SENDER} @{macs} {bind}
         }}
        ",
        admit = of_side("admit", interface),
        bound = bound::admission(structure, interface),
        beside = of_side(BESIDE_IP, interface),
        framed = frames::admission(structure, interface, [&moved, foreign]),
        errors4 = super::icmp::errors('4'),
        errors6 = super::icmp::errors('6'),
    );
    let of_others4 = of_others(structure, interface, "forged", |other| {
        format!("arp saddr ip @{}", name(("side", '4'), other))
    });
    let _ = write!(
        script,
        "chain {arp} {{
         arp htype != 1 {malformed}
         arp ptype != ip {malformed}
         arp hlen != 6 {malformed}
         arp plen != 4 {malformed}
         arp operation != {{ request, reply }} {malformed}
         meta length > {ARP_BYTES_MAX} {malformed}
         {of_others4}{other_hardware4}
         arp saddr ip @{near4} {ARP_SENDER} != @{macs} {forged}
         arp saddr ip @{near4} update @announcing {{ arp saddr ip . arp saddr ip }}
         goto {refresh}
         }}
        ",
        other_hardware4 = of_other_hardware(
            structure
                .neighbours
                .v4
                .excepted
                .contains_key(interface)
                .then(|| set(EXCEPTED, '4')),
            "arp saddr ip",
            &format!(
                "arp saddr ip @{} arp saddr ip . @nh,64,48 != @{}",
                set("declared", '4'),
                set("hardware", '4')
            ),
            &forged,
        ),
    );
    let of_others6 = [
        "icmpv6 type nd-neighbor-advert",
        "ip6 saddr :: icmpv6 type nd-neighbor-solicit",
    ]
    .map(|message| {
        of_others(structure, interface, "forged", |other| {
            format!("{message} {TARGET} @{}", name(("sidend", '6'), other))
        })
    })
    .concat();
    let sent_by_others6 = of_others(structure, interface, "forged", |other| {
        format!("ip6 saddr @{}", name(("side", '6'), other))
    });
    // The first option of an advertisement is the target's MAC address (2), that of a solicitation the sender's (1), or a
    // nonce (14).
    let _ = write!(
        script,
        "chain {nd} {{
         ip6 hoplimit != 255 {malformed}
         icmpv6 type nd-redirect {advertised}
         icmpv6 type nd-router-advert ip6 saddr != @{hops} {advertised}
         icmpv6 type nd-router-advert ip6 length > {ROUTER_ADVERTISEMENT_BYTES_MAX} {malformed}
         icmpv6 type nd-router-advert goto {refresh}
         {sent_by_others6}icmpv6 type nd-router-solicit ip6 length > {ROUTER_SOLICITATION_BYTES_MAX} {malformed}
         icmpv6 type nd-router-solicit goto {refresh}
         {of_others6}ip6 length > {SOLICITATION_BYTES_MAX} {malformed}
         ip6 length != {{ 24, 32, 40 }} {malformed}
         icmpv6 type nd-neighbor-advert ip6 length > 32 {malformed}
         icmpv6 type nd-neighbor-advert ip6 length 32 @th,192,16 != 0x0201 {malformed}
         icmpv6 type nd-neighbor-solicit ip6 length 32 @th,192,16 != {{ 0x0101, 0x0e01 }} {malformed}
         icmpv6 type nd-neighbor-solicit ip6 length 40 @th,192,16 != 0x0101 {malformed}
         icmpv6 type nd-neighbor-solicit ip6 length 40 @th,256,16 != 0x0e01 {malformed}
         {other_hardware6}
         {SENDER} @{macs} @th,192,16 {{ 0x0101, 0x0201 }} ip6 length {{ 32, 40 }} {ND_SENDER} != @{macs} {forged}
         goto {refresh}
         }}
        ",
        hops = set("hop", '6'),
        other_hardware6 = of_other_hardware(
            structure.neighbours.v6.excepted.contains_key(interface).then(|| set(EXCEPTED, '6')),
            TARGET,
            &format!(
                "icmpv6 type nd-neighbor-advert ip6 length 32 {TARGET} @{} {TARGET} . @th,208,48 != @{}",
                set("declarednd", '6'),
                set("hardware", '6')
            ),
            &forged,
        ),
    );
}

/// What a frame that is to cross is known by if both of its ends observe.
fn observed() -> String {
    format!("meta mark & {MARK_OBSERVED:#x} != 0")
}

/// Rules for each side, by its place: `by` writes one for an interface.
fn each(structure: &Structure, by: impl Fn(&str) -> String) -> String {
    structure
        .guarded
        .iter()
        .map(|interface| by(interface) + "\n")
        .collect()
}

/// What crosses of ARP.
fn resolve(script: &mut String, structure: &Structure) {
    let set = |set: &'static str, interface: &str| name((set, '4'), interface);
    let announced = each(structure, |to| {
        format!(
            "oifname \"{to}\" arp saddr ip @{} arp saddr ip . arp daddr ip @announcing accept",
            set("far", to)
        )
    });
    let elsewhere = each(structure, |to| {
        format!(
            "oifname \"{to}\" arp daddr ip != @{} goto stays",
            set("router", to)
        )
    });
    let mut joined = String::new();
    for pairs in ["meet4", "meet_ranges4"] {
        let _ = writeln!(joined, "arp saddr ip . arp daddr ip @{pairs} accept");
        let _ = writeln!(joined, "arp daddr ip . arp saddr ip @{pairs} accept");
    }
    let to_router = each(structure, |to| {
        format!(
            "oifname \"{to}\" arp saddr ip @{} arp daddr ip @{} accept",
            set("far", to),
            set("hop", to)
        )
    });
    let of_router = each(structure, |from| {
        format!(
            "iifname \"{from}\" arp saddr ip @{} arp daddr ip @{} accept",
            set("hop", from),
            set("far", from)
        )
    });
    let _ = write!(
        script,
        "chain stays {{
         {observed} meta mark set 0 accept
         counter name unresolved drop
         }}
         chain resolve {{
         iifname . oifname @same_zone accept
         arp saddr ip 0.0.0.0 goto stays
         {announced}{elsewhere}{joined}{to_router}{of_router}{observed} jump recorded_unjoined
         {observed} meta mark set 0 accept
         goto refused_unjoined
         }}
        ",
        observed = observed(),
    );
}

/// What crosses of neighbour discovery, and of reports of multicast groups.
fn discover(script: &mut String, structure: &Structure) {
    let set = |set: &'static str, interface: &str| name((set, '6'), interface);
    let passes = "meta mark set 0 accept";
    let known = each(structure, |from| {
        format!(
            "iifname \"{from}\" {SENDER} @{} ip6 length <= {REPORT_BYTES_MAX} {passes}",
            name(("macs", '2'), from)
        )
    });
    // A router is looked for only where there is one.
    let routers: String = structure
        .neighbours
        .v6
        .hops
        .iter()
        .filter(|(_, hops)| !hops.is_empty())
        .map(|(to, _)| format!("oifname \"{to}\" icmpv6 type nd-router-solicit {passes}\n"))
        .collect();
    let asked = "icmpv6 type nd-neighbor-solicit";
    let answered = "icmpv6 type nd-neighbor-advert";
    let elsewhere = each(structure, |to| {
        format!(
            "oifname \"{to}\" {asked} {TARGET} != @{} goto stays",
            set("routernd", to)
        )
    });
    let mut joined = String::new();
    for pairs in ["meet6", "meet_ranges6"] {
        for (message, other) in [(asked, "@nh,64,128"), (answered, "@nh,192,128")] {
            let _ = writeln!(joined, "{message} {other} . {TARGET} @{pairs} {passes}");
            let _ = writeln!(joined, "{message} {TARGET} . {other} @{pairs} {passes}");
        }
    }
    // Hosts ask from, and announce to, addresses that tell nothing: then what they ask for tells.
    let local = each(structure, |from| {
        format!(
            "iifname \"{from}\" {asked} ip6 saddr fe80::/10 {SENDER} @{} {TARGET} @{} {passes}",
            name(("macs", '2'), from),
            set("farnd", from)
        )
    });
    let announced = each(structure, |to| {
        format!(
            "oifname \"{to}\" {answered} ip6 daddr {{ fe80::/10, ff02::1 }} {TARGET} @{} {passes}",
            set("farnd", to)
        )
    });
    let to_router = each(structure, |to| {
        format!(
            "oifname \"{to}\" {asked} ip6 saddr @{far} {TARGET} @{hop} {passes}\n\
             oifname \"{to}\" {asked} ip6 saddr fe80::/10 {TARGET} @{hop} {passes}\n\
             oifname \"{to}\" {answered} ip6 daddr @{to_hop} {passes}",
            far = set("far", to),
            hop = set("hopnd", to),
            to_hop = set("hop", to),
        )
    });
    let of_router = each(structure, |from| {
        format!(
            "iifname \"{from}\" {asked} ip6 saddr @{hop} {TARGET} @{far} {passes}\n\
             iifname \"{from}\" {answered} {TARGET} @{hop_nd} {passes}",
            hop = set("hop", from),
            far = set("farnd", from),
            hop_nd = set("hopnd", from),
        )
    });
    let _ = write!(
        script,
        "chain report {{
         iifname . oifname @same_zone {passes}
         {observed} {passes}
         {known}counter name unresolved drop
         }}
         chain discover {{
         ip6 nexthdr != icmpv6 {observed} {passes}
         ip6 nexthdr != icmpv6 goto refused_malformed
         iifname . oifname @same_zone {passes}
         icmpv6 type nd-router-advert {passes}
         {routers}icmpv6 type nd-router-solicit goto stays
         {asked} ip6 saddr :: goto stays
         {elsewhere}{joined}{local}{announced}{to_router}{of_router}\
         {observed} jump recorded_unjoined
         {observed} {passes}
         goto refused_unjoined
         }}
        ",
        observed = observed(),
    );
}
