//! The rules of ICMP errors, in both tables: an error crosses by a right of its own, which is that of the connection it is about.
//!
//! It passes only if all of this holds: it is an error (never a redirect or a source quench, which would send packets another way
//! or stop them); it is no longer than its RFC has it, so that it carries no data; its source is an address of its side, or a
//! router there; it comes from the side of the far end of the connection that it quotes, and goes to the near end; connection
//! tracking knows that connection, and the plan in force permits it. Errors to the gateway itself and to the inspector's sockets
//! are held to the same.
//!
//! On a bridge the `inet` table does not see ports: there the bridge table leaves the number of the side that an error came in
//! by in the low bits of its mark ([`number_sides`]).

use std::fmt::Write;

use penstock_policy::terms::GatewayMode;

use super::families::Family;
use super::legs;
use super::shape::{by_number, by_side, numbered};
use crate::enforce::nft::names::{MARK_ENTERED, MARK_OPENED, MARK_TURNED, TABLE};
use crate::enforce::shape::structure::Structure;

/// The longest ICMP error: RFC 792 with RFC 1812 4.3.2.3.
pub(in crate::enforce) const ERROR4_BYTES_MAX: u16 = 576;
/// The longest ICMPv6 error: RFC 4443 2.4 (c).
pub(in crate::enforce) const ERROR6_BYTES_MAX: u16 = 1280;
/// An IPv6 header's own bytes, which its length field leaves out.
const HEADER6_BYTES: u16 = 40;
/// Echo requests a second that the gateway answers one address, and how many at once.
pub(in crate::enforce) const ECHOES_PER_SECOND: u32 = 10;
const ECHOES_AT_ONCE: u32 = 20;
/// Addresses whose echo requests are counted at once; those of further ones are refused.
const ECHOING_MAX: u32 = 4096;

/// The errors of a family.
pub(super) fn errors(family: char) -> &'static str {
    match family {
        '4' => "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
        _ => "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }",
    }
}

/// What would send packets another way, or stop them.
fn misleading(family: char) -> &'static str {
    match family {
        '4' => "icmp type { redirect, source-quench, router-advertisement }",
        _ => "icmpv6 type nd-redirect",
    }
}

/// Rules that give `verdict` to an error of a family that is none, too long, not of a host or router of the side that it came in
/// by, or not from the side of its connection's far end.
pub(super) fn unfounded(structure: &Structure, family: &Family, verdict: &str) -> String {
    let Family {
        number: n,
        header: ip,
        icmp,
        ..
    } = family;
    let too_long = match n {
        '4' => format!("ip length > {ERROR4_BYTES_MAX}"),
        _ => format!("ip6 length > {}", ERROR6_BYTES_MAX - HEADER6_BYTES),
    };
    let (errors, sent) = (
        errors(*n).replace("type {", "type != {"),
        format!("{ip} saddr !="),
    );
    let (of_opener, of_answerer) = (
        format!("ct direction original ct original {ip} saddr !="),
        format!("ct direction reply ct original {ip} daddr !="),
    );
    // It begins at once: what stands behind an extension header is no error that a router sent.
    let begins = match n {
        '4' => format!("meta l4proto != {icmp}"),
        _ => format!("ip6 nexthdr != {icmp}"),
    };
    let mut rules = format!("{begins} {verdict}\n{errors} {verdict}\n{too_long} {verdict}\n");
    for (set, asked) in [("router", &sent), ("side", &of_opener), ("side", &of_answerer)] {
        rules += &match structure.mode {
            GatewayMode::Routed => by_side(structure, (set, *n), "iifname", asked, verdict),
            GatewayMode::Bridged => by_number(structure, (set, *n), asked, verdict),
        };
    }
    rules
}

/// What is asked about the connection that a forwarded error quotes.
pub(super) struct Quoted<'a> {
    /// The maps of TCP and UDP, each with the chain that it leads to. The first two are also asked by the tuple turned round.
    pub(super) maps: [(&'a str, &'a str); 4],
    /// Those of echo, with the verdict.
    pub(super) echo: &'a str,
    /// How a rule asks whether such a map has a tuple.
    pub(super) asks: fn(&str, &str) -> String,
}

/// What the rules in force ask: the flow's number becomes the packet's mark.
const IN_FORCE: Quoted<'static> = Quoted {
    maps: [
        ("exact", "goto hit"),
        ("ranges", "goto hit"),
        ("unattended", "goto unattended"),
        ("unattended_ranges", "goto unattended"),
    ],
    echo: "goto hit",
    asks: |tuple, map| format!("meta mark set {tuple} map @{map}"),
};

/// The chain of a family's forwarded errors: permitted are those about a connection whose tuple is.
pub(super) fn related(script: &mut String, structure: &Structure, family: &Family) {
    let Family {
        number: n,
        header: ip,
        ..
    } = family;
    let mut rules = unfounded(structure, family, "goto miss");
    if structure.mode == GatewayMode::Routed {
        let asked = format!("{ip} daddr !=");
        rules += &by_side(structure, ("side", *n), "oifname", &asked, "goto miss");
        rules += "iifname . oifname @same_zone accept\n";
    }
    rules += &about(family, &IN_FORCE);
    let _ = writeln!(script, "chain related{n} {{\n{rules}goto miss\n}}");
}

/// The rules of errors by what the connection that they quote is.
pub(super) fn about(family: &Family, quoting: &Quoted<'_>) -> String {
    let Family {
        number: n,
        header: ip,
        nfproto,
        ..
    } = family;
    let Quoted { maps, echo, asks } = quoting;
    let mut rules = String::new();
    for protocol in ["tcp", "udp"] {
        for (map, verdict) in maps {
            let _ = writeln!(
                rules,
                "meta nfproto {nfproto} ct original protocol {protocol} {} {verdict}",
                asks(&quoted(ip), &format!("{map}{n}")),
            );
        }
    }
    // Of a connection that is tracked the wrong way round, the tuple turned round is the flow's.
    for (protocol, turned) in [
        ("tcp", format!("ct mark & {MARK_OPENED:#x} == 0")),
        ("udp", format!("ct mark & {MARK_TURNED:#x} != 0")),
    ] {
        for (map, verdict) in maps.iter().take(2) {
            let _ = writeln!(
                rules,
                "meta nfproto {nfproto} ct original protocol {protocol} {turned} {} {verdict}",
                asks(&quoted_turned(ip), &format!("{map}{n}")),
            );
        }
    }
    for map in ["echo", "echo_ranges"] {
        let pair = format!("ct original {ip} saddr . ct original {ip} daddr");
        let _ = writeln!(
            rules,
            "ct original protocol {{ icmp, icmpv6 }} {} {echo}",
            asks(&pair, &format!("{map}{n}")),
        );
    }
    rules
}

/// The tuple of the connection that an error is about. Its ports can be asked for where its protocol is known.
fn quoted(ip: &str) -> String {
    format!("ct original {ip} saddr . ct original {ip} daddr . ct original protocol . ct original proto-dst")
}

/// The same turned round.
fn quoted_turned(ip: &str) -> String {
    format!("ct original {ip} daddr . ct original {ip} saddr . ct original protocol . ct original proto-src")
}

/// The rules of an error about a leg of the inspector: `verdict` if the plan permits the leg's tuple, or only observes it.
pub(super) fn about_leg(structure: &Structure, family: &Family, verdict: &str) -> String {
    let Family {
        number: n,
        header: ip,
        nfproto,
        ..
    } = family;
    let asked = format!("meta nfproto {nfproto} ct original protocol tcp");
    let tuple = quoted(ip);
    let mut rules = String::new();
    for set in ["inspected", "inspected_ranges"] {
        let _ = writeln!(rules, "{asked} {tuple} @{set}{n} {verdict}");
    }
    for map in ["exact", "ranges"] {
        let _ = writeln!(rules, "{asked} meta mark set {tuple} map @{map}{n} {verdict}");
    }
    rules += &legs::quoted(structure, family, verdict);
    let ends = ["saddr", "daddr"].map(|end| format!("ct original {ip} {end} @passive{n}"));
    let _ = writeln!(rules, "{asked} {} {verdict}", ends.join(" "));
    rules
}

/// The sets of those whose echo requests are counted.
pub(super) fn objects(script: &mut String) {
    for (family, address) in [('4', "ipv4_addr"), ('6', "ipv6_addr")] {
        let _ = writeln!(
            script,
            "set echoing{family} {{ type {address}; size {ECHOING_MAX}; flags dynamic,timeout; timeout 10s; }}"
        );
    }
}

/// The chains of both families for what comes to the gateway itself.
pub(super) const CHAINS_INPUT: [&str; 5] = ["own_error4", "own_error6", "own_echo4", "own_echo6", "own_icmp"];

/// Those chains. `own_icmp` is for what came in by a guarded interface; what it lets go on is no error, nor an echo request.
pub(super) fn input(script: &mut String, structure: &Structure, families: &[Family]) {
    let mut ways = String::new();
    for family in families {
        let Family {
            number: n,
            header: ip,
            icmp,
            ..
        } = family;
        let unfounded = unfounded(structure, family, "goto refuse");
        let forged = match structure.mode {
            GatewayMode::Routed => by_side(
                structure,
                ("side", *n),
                "iifname",
                &format!("{ip} saddr !="),
                "goto refuse",
            ),
            GatewayMode::Bridged => {
                by_number(structure, ("side", *n), &format!("{ip} saddr !="), "goto refuse")
            }
        };
        let _ = write!(
            script,
            "chain own_error{n} {{
             ct state != related goto refuse
             {unfounded}accept
             }}
             chain own_echo{n} {{
             {forged}update @echoing{n} {{ {ip} saddr limit rate {ECHOES_PER_SECOND}/second burst {ECHOES_AT_ONCE} \
                 packets }} accept
             goto refuse
             }}
            "
        );
        let (errors, misleading) = (errors(*n), misleading(*n));
        let _ = write!(
            ways,
            "{misleading} goto refuse
             {errors} goto own_error{n}
             {icmp} type echo-request goto own_echo{n}
            "
        );
    }
    let _ = writeln!(script, "chain own_icmp {{\n{ways}}}");
}

/// Bridge table: rules that leave the number of the side by which a packet came in, in the low bits of its mark.
pub(super) fn number_sides(structure: &Structure) -> String {
    numbered(structure)
        .map(|(number, interface)| format!("iifname \"{interface}\" meta mark set meta mark | {number}\n"))
        .collect()
}

/// Bridge table: the chains of errors that are to cross, and of those that may be for the inspector.
pub(super) fn bridged(script: &mut String, structure: &Structure, misplaced: &str) {
    let entered = &format!("meta mark set meta mark | {MARK_ENTERED:#x} accept");
    let _ = writeln!(script, "table bridge {TABLE} {{");
    for (n, ip) in [('4', "ip"), ('6', "ip6")] {
        let from = by_side(
            structure,
            ("router", n),
            "iifname",
            &format!("{ip} saddr !="),
            misplaced,
        );
        let to = by_side(
            structure,
            ("side", n),
            "oifname",
            &format!("{ip} daddr !="),
            misplaced,
        );
        let enters = by_side(
            structure,
            ("router", n),
            "iifname",
            &format!("{ip} saddr"),
            entered,
        );
        let _ = writeln!(
            script,
            "chain error{n} {{
             {numbers}{from}{to}iifname . oifname @same_zone meta mark set 0
             accept
             }}
             chain error_entered{n} {{
             meta mark set 0
             {numbers}{enters}}}",
            numbers = number_sides(structure),
        );
    }
    script.push_str("}\n");
}

/// Those chains.
pub(super) const CHAINS_BRIDGED: [&str; 4] = ["error4", "error6", "error_entered4", "error_entered6"];
