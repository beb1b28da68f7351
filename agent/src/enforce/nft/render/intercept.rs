//! The chains of `table inet penstock` that bring what is inspected to the inspector, and let nothing else of it by.
//!
//! What goes to the inspector is decided at prerouting, packet by packet, by the connection's original tuple, as the
//! judgement of what is forwarded is. A packet that is taken gets [`MARK_INTERCEPTED`]: a routing rule makes it the
//! machine's own, the guard of its input lets it in. `tproxy` finds the socket; it takes hold only while the inspector
//! listens, so it is also what tells whether one lives. Without one the packet goes on to the judgement.
//!
//! A routed gateway's standing connections go a shorter way. Once a socket of the inspector has sent on one
//! ([`MARK_CARRIED`]), that socket is found by its addresses, as any is: no `tproxy` is needed, nor a route. The judgement is
//! the same; without the socket the packet is answered with a reset. A new connection begins by the long way again, also
//! where connection tracking takes it for the old one.
//!
//! A stopped process has its socket still. So what belongs to no leg is taken only while the inspector gives signs of life
//! (`alive`, [`crate::inspector::pulse`]); otherwise it goes on to the judgement, as without one. Legs never change sides.
//!
//! Between zones that only observe, a connection that stood before the inspector was there is not taken but judged
//! as what is forwarded is (`before`): it passes unread, where enforcing resets it. What belongs to a socket of the
//! inspector goes to it, whatever became of its mark.
//!
//! On a bridge the kernel loses the socket that `tproxy` found, so there it only tells that the inspector lives. A new
//! connection is led to the inspector by its address, and its answers find back by connection tracking. The answers to
//! the inspector's own connection are addressed to it for as long as they are on the bridge (an address that changed is
//! what makes the bridge hand a packet up), and get the client's address back where they come in.
//!
//! A connection that was inspected when it began is the inspector's for as long as it is permitted, inspected or not, and between zones
//! that only observe also when it is not: observing ends nothing.
//!
//! Where a client's TLS ends before a server in the plain at another port, the inspector's connection to the server has a tuple that no flow
//! has: such are in sets of their own (`legs`), which only what the inspector sends, and the answers to that, are looked up in.
//!
//! What the inspector sends has addresses that are not this machine's. It leaves only if its connection's tuple is
//! inspected, or is permitted or observed and was inspected when the connection began ([`MARK_LEG`]), and only to where its
//! destination belongs.

mod stray;

use std::fmt::Write;

use penstock_policy::terms::GatewayMode;

use super::families::{FAMILIES, Family};
use super::shape::{self, by_side, chains_by_side, tuples};
use super::standing::{passive, standing};
use super::{alive, icmp, legs};
use crate::enforce::nft::names::{
    MARK_CARRIED, MARK_ENTERED, MARK_LEG, MARK_OWN, MARK_PASSED, MARK_SENT, MARK_STRAY, MARKS_KEPT, TABLE,
};
use crate::enforce::shape::structure::Structure;
use crate::intercept::{INSPECTOR4, INSPECTOR6, InspectorPorts, MARK_INTERCEPTED, MARK_INTERCEPTED_BITS};

/// Chains of both modes.
const CHAINS: [&str; 31] = [
    "prerouting",
    "intercept4",
    "intercept6",
    "forth4",
    "forth6",
    "back4",
    "back6",
    "take4",
    "take6",
    "before4",
    "before6",
    "taken4",
    "taken6",
    "errors4",
    "errors6",
    "standing4",
    "standing6",
    "output",
    "beat",
    "sent",
    "sent4",
    "sent6",
    "sent_forth4",
    "sent_forth6",
    "sent_back4",
    "sent_back6",
    "foreign",
    "leave4",
    "leave6",
    "stray",
    "swept",
];
/// Chains of bridged gateways alone.
const CHAINS_BRIDGED: [&str; 3] = ["lead", "leaving", "cut_off"];
/// Chains of routed gateways alone, ...
const CHAINS_ROUTED: [&str; 4] = ["carried4", "carried6", "sent_carried4", "sent_carried6"];
/// ... and those that have one for each side.
const CHAINS_BY_SIDE: [&str; 2] = ["carried", "sent_carried"];

/// The chains that a structure has.
pub(super) fn chains_of(structure: &Structure) -> Vec<String> {
    let mut chains = match structure.inspector {
        None => return Vec::new(),
        Some(_) => CHAINS.map(str::to_owned).to_vec(),
    };
    match structure.mode {
        GatewayMode::Bridged => chains.extend(CHAINS_BRIDGED.map(str::to_owned)),
        GatewayMode::Routed => {
            chains.extend(CHAINS_ROUTED.map(str::to_owned));
            for chain in CHAINS_BY_SIDE {
                chains.extend(shape::names_by_side(structure, chain));
            }
        }
    }
    chains
}

/// What a packet for the inspector is known by.
pub(super) fn intercepted() -> String {
    marked(MARK_INTERCEPTED)
}

/// Takes our mark off what comes with it from elsewhere.
fn unmarks() -> String {
    format!("{} meta mark set meta mark & {MARKS_KEPT:#x}", intercepted())
}

/// The rule that takes our mark off what comes with it, and what is in its place where the same rules have judged before: they set it.
pub(super) fn marked_before() -> [String; 2] {
    [unmarks(), format!("{} accept", intercepted())]
}

/// Gives a packet to the inspector.
fn take() -> String {
    format!("meta mark set {MARK_INTERCEPTED:#x} counter name intercepted accept")
}

/// Whether the inspector has a part in the packet's connection: `!=` if so, `==` if not.
fn leg(relation: &str) -> String {
    format!("ct mark & {MARK_LEG:#x} {relation} 0")
}

fn marked(mark: u32) -> String {
    format!("meta mark & {MARK_INTERCEPTED_BITS:#x} == {mark:#x}")
}

/// The chains with their rules; none without an inspector.
pub(super) fn chains(script: &mut String, structure: &Structure, group: u16) {
    let Some(ports) = structure.inspector else {
        return;
    };
    let bridged = structure.mode == GatewayMode::Bridged;
    let entered = if bridged {
        marked(MARK_ENTERED)
    } else {
        "iifname @guarded".to_owned()
    };
    let of_carried = |chain: &str| match bridged {
        true => String::new(),
        false => format!(
            "ct mark & {carried:#x} == {carried:#x} ip protocol tcp jump {chain}4
             ct mark & {carried:#x} == {carried:#x} ip6 nexthdr tcp jump {chain}6
            ",
            carried = MARK_LEG | MARK_CARRIED,
        ),
    };
    // At the output, known legs come first: whether an address is this machine's own takes a route lookup.
    let _ = write!(
        script,
        "table inet {TABLE} {{
         {stray}chain prerouting {{
         type filter hook prerouting priority mangle; policy accept;
         {carried}{unmarks}
         {entered} meta nfproto ipv4 goto intercept4
         {entered} meta nfproto ipv6 goto intercept6
         }}
         chain output {{
         type filter hook output priority filter; policy accept;
         {sent_carried}meta l4proto != tcp goto beat
         oifname \"lo\" accept
         {of_leg} goto sent
         fib saddr type local accept
         goto sent
         }}
         chain beat {{
         {beat}
         }}
         chain sent {{
        ",
        carried = of_carried("carried"),
        sent_carried = of_carried("sent_carried"),
        unmarks = unmarks(),
        of_leg = leg("!="),
        beat = alive::beat(),
        stray = stray::chains(group),
    );
    if bridged {
        // The client's leg shows its true addresses only where they are translated back.
        let _ = write!(
            script,
            "meta mark set {MARK_SENT:#x} accept
             }}
             chain leaving {{
             type filter hook postrouting priority 300; policy accept;
             meta mark & {MARK_INTERCEPTED_BITS:#x} != {MARK_SENT:#x} accept
            "
        );
    }
    // The reset of a connection that cannot be taken up midway is the gateway's own, with the other end's address.
    // Another program's connections with foreign addresses are its own affair where nothing is guarded. A bridge's
    // ports are known only later.
    let foreign = if bridged {
        format!("meta mark set {MARK_STRAY:#x} accept")
    } else {
        format!(
            "oifname != @guarded accept
             tcp flags & (syn | rst) == rst {} accept
             goto stray",
            leg("==")
        )
    };
    let _ = write!(
        script,
        "meta nfproto ipv4 goto sent4
         meta nfproto ipv6 goto sent6
         }}
         chain foreign {{
         {foreign}
         }}
        "
    );
    if bridged {
        let _ = write!(
            script,
            "chain lead {{
             type nat hook prerouting priority dstnat; policy accept;
             {taken} meta nfproto ipv4 meta l4proto tcp dnat ip to {INSPECTOR4}:{v4}
             {taken} meta nfproto ipv6 meta l4proto tcp dnat ip6 to [{INSPECTOR6}]:{v6}
             }}
             chain cut_off {{
             counter name cut_off
             meta l4proto tcp reject with tcp reset
             drop
             }}
            ",
            taken = intercepted(),
            v4 = ports.v4,
            v6 = ports.v6,
        );
    }
    for family in &FAMILIES {
        arriving(script, family, ports, structure);
        if !bridged {
            carried(script, family, structure);
        }
        standing(script, family, structure);
        leaving(script, family, structure);
    }
    script.push_str("}\n");
}

/// What comes in on a guarded side: is it for the inspector?
fn arriving(script: &mut String, family: &Family, ports: InspectorPorts, structure: &Structure) {
    let bridged = structure.mode == GatewayMode::Bridged;
    let Family {
        number: n,
        header: ip,
        icmp,
        ..
    } = family;
    let (plain, inspector, port) = if *n == '4' {
        ("", INSPECTOR4.to_string(), ports.v4)
    } else {
        let plain = "ip6 nexthdr != { tcp, icmpv6 } accept\n";
        (plain, format!("[{INSPECTOR6}]"), ports.v6)
    };
    let _ = write!(
        script,
        "chain intercept{n} {{
         {plain}meta l4proto {icmp} goto errors{n}
         meta l4proto != tcp accept
         ct direction original goto forth{n}
         ct direction reply goto back{n}
         }}
        "
    );
    // Where all only observe, a connection may have been opened from where its source does not belong: so are its
    // answers let pass.
    let observed = format!("ct mark & {MARK_PASSED:#x} != 0 accept\n");
    let directions = [("forth", ""), ("back", &observed)];
    for ((direction, tuple), (chain, first)) in tuples(ip).into_iter().zip(directions) {
        // Only what the inspector opened, and so sent on, has answers there.
        let of_own = match direction {
            "reply" => legs::rule(
                structure,
                (*n, ip),
                direction,
                (&format!("{} ", leg("!=")), &format!("goto take{n}")),
            ),
            _ => String::new(),
        };
        let _ = write!(
            script,
            "chain {chain}{n} {{
             {first}{tuple} @inspected{n} goto take{n}
             {tuple} @inspected_ranges{n} {tuple} != @spared{n} goto take{n}
             {of_own}{of_leg} goto standing{n}
             }}
            ",
            of_leg = leg("!="),
        );
    }
    // The bridge table looks at the side that a source belongs to.
    let (misplaced, of_known_leg, addressed) = if bridged {
        (
            String::new(),
            format!(
                "ct direction reply socket transparent 1 goto taken{n}
                 ct direction original ct status dnat ct mark & {MARK_LEG:#x} != 0 goto taken{n}
                "
            ),
            format!(
                "ct direction reply {ip} daddr set {address}\n",
                address = inspector.trim_matches(['[', ']'])
            ),
        )
    } else {
        (
            by_side(
                structure,
                ("side", *n),
                "iifname",
                &format!("{ip} saddr !="),
                "accept",
            ),
            String::new(),
            String::new(),
        )
    };
    let take = format!("ct mark set ct mark | {MARK_LEG:#x} {}", take());
    // Nobody opens a connection against its direction. An answer of which the inspector knows nothing is reset by it.
    // What ended may leave a connection behind in which the client begins another.
    // A SYN from the client's side within the inspector's own connection to the server is somebody else's in the client's
    // name: answered, it would have that connection taken for closed. Bit and name are those of another mark on
    // connections that are no legs.
    let anew = if bridged {
        String::new()
    } else {
        let own = MARK_LEG | MARK_OWN;
        format!(
            "ct direction original tcp flags & (syn | ack) == syn ct mark & {own:#x} == {own:#x} goto swept
             tcp flags & (syn | ack) == syn ct mark set ct mark & {fresh:#x}
             ct mark & {MARK_LEG:#x} == 0 ct mark set ct mark & {foreign:#x}
            ",
            fresh = !MARK_CARRIED,
            foreign = !MARK_OWN,
        )
    };
    let _ = write!(
        script,
        "chain take{n} {{
         {misplaced}ct direction reply tcp flags & (syn | ack) == syn goto stray
         {anew}{of_known_leg}{no_leg} {dead} goto before{n}
         {no_leg} tcp flags & (syn | ack) != syn {passive} goto before{n}
         meta l4proto tcp tproxy {ip} to {inspector}:{port} {take}
         }}
         chain before{n} {{
         socket transparent 1 goto taken{n}
         accept
         }}
         chain taken{n} {{
         {addressed}{take}
         }}
        ",
        no_leg = leg("=="),
        passive = passive(family),
        dead = alive::NONE,
    );
    // An error about a connection of the inspector belongs to it under the same conditions as any error passes.
    let unfounded = icmp::unfounded(structure, family, "accept");
    let permitted = icmp::about_leg(structure, family, &format!("goto taken{n}"));
    let _ = write!(
        script,
        "chain errors{n} {{
         ct state != related accept
         ct mark & {MARK_LEG:#x} == 0 accept
         {unfounded}{permitted}}}
        "
    );
}

/// The short way of what most packets belong to. A packet that it does not fit goes the long way.
fn carried(script: &mut String, family: &Family, structure: &Structure) {
    let Family {
        number: n,
        header: ip,
        ..
    } = family;
    let taken = format!("tcp flags & syn == 0 {}", take());
    for (chain, way, end, verdict) in [
        ("carried", "iifname", "saddr", taken.as_str()),
        ("sent_carried", "oifname", "daddr", "meta mark set 0 accept"),
    ] {
        let by_direction = |side: &str| {
            let rule = |(direction, tuple)| {
                format!("ct direction {direction} {ip} {end} @{side} {tuple} @inspected{n} {verdict}\n")
            };
            // What the inspector sends on its own connection, or the answers to that.
            let own = match way {
                "iifname" => "reply",
                _ => "original",
            };
            let asked = format!("ct direction {own} {ip} {end} @{side} ");
            tuples(ip).map(rule).concat() + &legs::rule(structure, (*n, ip), own, (&asked, verdict))
        };
        let led = chains_by_side(script, structure, *n, (chain, way), by_direction);
        let _ = writeln!(script, "chain {chain}{n} {{\n{led}}}");
    }
}

/// What this machine sends with addresses that are not its own.
fn leaving(script: &mut String, family: &Family, structure: &Structure) {
    let bridged = structure.mode == GatewayMode::Bridged;
    let Family {
        number: n,
        header: ip,
        ..
    } = family;
    let _ = write!(
        script,
        "chain sent{n} {{
         ct direction original goto sent_forth{n}
         ct direction reply goto sent_back{n}
         goto foreign
         }}
        "
    );
    for ((direction, tuple), way) in tuples(ip).into_iter().zip(["forth", "back"]) {
        let own = match way {
            "forth" => legs::rule(structure, (*n, ip), direction, ("", &format!("goto leave{n}"))),
            _ => String::new(),
        };
        let _ = write!(
            script,
            "chain sent_{way}{n} {{
             {tuple} @inspected{n} goto leave{n}
             {tuple} @inspected_ranges{n} {tuple} != @spared{n} goto leave{n}
             {own}{no_leg} goto foreign
             meta mark set {tuple} map @exact{n} goto leave{n}
             meta mark set {tuple} map @ranges{n} goto leave{n}
             {passive} goto leave{n}
             goto foreign
             }}
            ",
            no_leg = leg("=="),
            passive = passive(family),
        );
    }
    let own_side = if bridged {
        format!(
            "meta oifkind != \"bridge\" goto stray
             ct mark set ct mark | {MARK_LEG:#x}
             meta mark set {MARK_SENT:#x} accept
            "
        )
    } else {
        format!(
            "oifname != @guarded goto stray
             {astray}tcp flags & (syn | rst) == 0 ct mark set ct mark | {MARK_CARRIED:#x}
             ct direction original ct mark set ct mark | {own:#x} meta mark set 0 accept
             ct mark set ct mark | {MARK_LEG:#x}
             meta mark set 0 accept
            ",
            own = MARK_LEG | MARK_OWN,
            astray = by_side(
                structure,
                ("side", *n),
                "oifname",
                &format!("{ip} daddr !="),
                "goto stray"
            ),
        )
    };
    let _ = write!(script, "chain leave{n} {{\n{own_side}}}\n");
}

/// What the guard of the gateway's input lets in.
pub(super) fn input(script: &mut String, structure: &Structure) {
    if structure.inspector.is_none() {
        return;
    }
    if structure.mode == GatewayMode::Bridged {
        let _ = write!(
            script,
            "{taken} ct direction reply ip daddr {INSPECTOR4} ip daddr set ct original ip saddr
             {taken} ct direction reply ip6 daddr {INSPECTOR6} ip6 daddr set ct original ip6 saddr
            ",
            taken = intercepted(),
        );
    }
    let _ = writeln!(script, "{} accept", intercepted());
}
