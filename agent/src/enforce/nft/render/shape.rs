//! The sets that tell interfaces, pairs of them and sides, which both tables have, and the rules that ask a side.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv6Addr;

use penstock_policy::terms::Mac;

use super::bound;
use super::granted;
use super::legs;
use super::lines::list;
pub(super) use super::lines::{escaped, name};
use crate::enforce::nft::names::{GRANTED, MACS, MARK_FLOW, TABLE};
use crate::enforce::shape::block::{Address, Span};
use crate::enforce::shape::spans::merged;
use crate::enforce::shape::structure::Structure;

const INTERFACE: &str = "type ifname";
const PAIR: &str = "type ifname . ifname";
const ADDRESSES: [&str; 2] = ["type ipv4_addr; flags interval", "type ipv6_addr; flags interval"];
/// IPv6 addresses as they stand in neighbour discovery, where the `nft` program takes them for numbers.
const TARGETS: &str = "typeof @th,64,128; flags interval";

/// A set: its type and its elements.
type Set = (&'static str, BTreeSet<String>);

/// All sets of a structure in the table of a family, by name.
fn sets(family: &str, structure: &Structure) -> BTreeMap<String, Set> {
    let pair = |(a, b): &(String, String)| format!("\"{a}\" . \"{b}\"");
    let names = |names: &BTreeSet<String>| names.iter().map(|name| format!("\"{name}\"")).collect();
    let pairs = |pairs: &BTreeSet<(String, String)>| pairs.iter().map(pair).collect();
    let mut sets = BTreeMap::from([
        ("guarded".to_owned(), (INTERFACE, names(&structure.guarded))),
        ("enforcers".to_owned(), (INTERFACE, names(&structure.enforcers))),
        ("same_zone".to_owned(), (PAIR, pairs(&structure.same_zone))),
    ]);
    let spans4 = structure.passive4.iter().map(ToString::to_string).collect();
    let spans6 = structure.passive6.iter().map(ToString::to_string).collect();
    sets.insert("passive4".to_owned(), (ADDRESSES[0], spans4));
    sets.insert("passive6".to_owned(), (ADDRESSES[1], spans6));
    let [plant4, plant6] = plants(structure);
    sets.insert(PLANT.to_owned() + "4", (ADDRESSES[0], plant4));
    sets.insert(PLANT.to_owned() + "6", (ADDRESSES[1], plant6));
    for (set, sides4, sides6) in [
        ("side", &structure.sides4, &structure.sides6),
        ("router", &structure.routers4, &structure.routers6),
        ("observing", &structure.observing4, &structure.observing6),
    ] {
        sets.extend(sides(set, ADDRESSES[0], sides4));
        sets.extend(sides(set, ADDRESSES[1], sides6));
    }
    if family == "inet" {
        let legs = legs::sets(structure).into_iter();
        sets.extend(legs.map(|(name, kind, elements)| (name, (kind, elements))));
    }
    sets.extend(bound::sets(family, structure));
    if family == "bridge" {
        neighbours(&mut sets, structure);
    } else if granted::is_needed(structure) {
        let limited = structure.limited.iter().map(|flow| flow.0.to_string()).collect();
        sets.insert(granted::LIMITED.to_owned(), ("type mark", limited));
        // Its elements come and go by themselves.
        let none = BTreeSet::new();
        sets.insert(GRANTED.to_owned(), ("type mark; flags timeout", none));
    }
    sets
}

/// The name of the sets of all addresses that belong to any side.
const PLANT: &str = "plant";

/// The addresses of all sides.
fn plants(structure: &Structure) -> [BTreeSet<String>; 2] {
    fn of<A: Address>(sides: &BTreeMap<String, Vec<Span<A>>>) -> BTreeSet<String> {
        let all = sides.values().flatten().copied().collect();
        merged(all).iter().map(ToString::to_string).collect()
    }
    [of(&structure.sides4), of(&structure.sides6)]
}

/// The chain `around` of a family: what carries an address of one side to one of another gets a verdict, by whether all that may
/// show those addresses observe; the rest is accepted.
pub(super) fn around(
    script: &mut String,
    structure: &Structure,
    (family, ip): (char, &str),
    [observed, refused]: [&str; 2],
) {
    let _ = writeln!(
        script,
        "chain around{family} {{
         {ip} saddr != @{PLANT}{family} accept
         {ip} daddr != @{PLANT}{family} accept"
    );
    for interface in &structure.guarded {
        let side = side(family, interface);
        let _ = writeln!(script, "{ip} saddr @{side} {ip} daddr @{side} accept");
    }
    let _ = writeln!(
        script,
        "{ip} saddr @passive{family} {ip} daddr @passive{family} {observed}
         {refused}
         }}"
    );
}

/// The sets of what an override lets pass of a side whose zones all enforce: there only while one does.
pub(super) const EXCEPTED: &str = "excepted";

/// The sets that tell neighbours.
fn neighbours(sets: &mut BTreeMap<String, Set>, structure: &Structure) {
    let known = &structure.neighbours;
    for (set, sides4, sides6) in [
        ("near", &known.v4.near, &known.v6.near),
        ("far", &known.v4.far, &known.v6.far),
        ("hop", &known.v4.hops, &known.v6.hops),
        (EXCEPTED, &known.v4.excepted, &BTreeMap::new()),
    ] {
        sets.extend(sides(set, ADDRESSES[0], sides4));
        sets.extend(sides(set, ADDRESSES[1], sides6));
    }
    for (set, spans) in [
        ("nearnd", &known.v6.near),
        ("farnd", &known.v6.far),
        ("hopnd", &known.v6.hops),
        ("sidend", &structure.sides6),
        ("routernd", &structure.routers6),
        (EXCEPTED, &known.v6.excepted),
    ] {
        for (interface, spans) in spans {
            let spans = spans.iter().map(number).collect();
            sets.insert(name((set, '6'), interface), (TARGETS, spans));
        }
    }
    let pairs4 = "type ipv4_addr . ipv4_addr";
    let pairs6 = "typeof @nh,64,128 . @th,64,128";
    pairs(sets, ("meet4", pairs4), &known.v4.pairs, ToString::to_string);
    pairs(sets, ("meet6", pairs6), &known.v6.pairs, number);
    for (interface, macs) in &known.macs {
        let twice = macs
            .iter()
            .map(|mac| format!("{0} . {0}", mac_number(*mac)))
            .collect();
        sets.insert(name(("macs", '2'), interface), (MACS, twice));
    }
    for (interface, hardware) in &known.v4.hardware {
        let addresses = hardware.iter().map(|(address, _)| address.to_string()).collect();
        let bound = hardware
            .iter()
            .map(|(address, mac)| format!("{address} . {}", mac_number(*mac)));
        sets.insert(name(("declared", '4'), interface), ("type ipv4_addr", addresses));
        sets.insert(
            name(("hardware", '4'), interface),
            ("typeof arp saddr ip . @nh,64,48", bound.collect()),
        );
    }
    for (interface, hardware) in &known.v6.hardware {
        let number = |address: &Ipv6Addr| number(&Span::one(*address));
        let addresses = hardware.iter().map(|(address, _)| number(address)).collect();
        let bound = hardware
            .iter()
            .map(|(address, mac)| format!("{} . {}", number(address), mac_number(*mac)));
        sets.insert(
            name(("declarednd", '6'), interface),
            ("typeof @th,64,128", addresses),
        );
        sets.insert(
            name(("hardware", '6'), interface),
            ("typeof @th,64,128 . @th,208,48", bound.collect()),
        );
    }
}

/// A set of pairs of single addresses, and one of pairs of ranges.
fn pairs<A: Address>(
    sets: &mut BTreeMap<String, Set>,
    (set, kind): (&'static str, &'static str),
    pairs: &BTreeSet<(Span<A>, Span<A>)>,
    text: impl Fn(&Span<A>) -> String,
) {
    let (single, ranges): (Vec<_>, Vec<_>) = pairs
        .iter()
        .partition(|(one, other)| one.is_one() && other.is_one());
    let texts = |pairs: Vec<&(Span<A>, Span<A>)>| {
        pairs
            .into_iter()
            .map(|(one, other)| format!("{} . {}", text(one), text(other)))
            .collect()
    };
    let (family, of_ranges) = match kind {
        kind if kind.contains("ipv4") => ('4', "type ipv4_addr . ipv4_addr; flags interval"),
        _ => ('6', "typeof @nh,64,128 . @th,64,128; flags interval"),
    };
    sets.insert(set.to_owned(), (kind, texts(single)));
    sets.insert(format!("meet_ranges{family}"), (of_ranges, texts(ranges)));
}

/// A span of IPv6 addresses as numbers.
fn number(span: &Span<Ipv6Addr>) -> String {
    let number = |address: Ipv6Addr| format!("{:#034x}", address.to_bits());
    match span.is_one() {
        true => number(span.first),
        false => format!("{}-{}", number(span.first), number(span.last)),
    }
}

fn mac_number(mac: Mac) -> String {
    let number = mac
        .0
        .iter()
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{number:#014x}")
}

/// A set for each side: one that held all sides would be asked by interface and address together, which takes the
/// kernel ten times as long.
fn sides<A: Address>(
    set: &'static str,
    kind: &'static str,
    sides: &BTreeMap<String, Vec<Span<A>>>,
) -> impl Iterator<Item = (String, Set)> {
    sides.iter().map(move |(interface, spans)| {
        let spans = spans.iter().map(ToString::to_string).collect();
        (name((set, A::FAMILY), interface), (kind, spans))
    })
}

/// The name of a side's set, and the end of its chains' names.
pub(super) fn side(family: char, interface: &str) -> String {
    name(("side", family), interface)
}

/// The guarded interfaces with a number that a mark's low bits hold.
pub(super) fn numbered(structure: &Structure) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(structure.guarded.iter().map(String::as_str))
}

/// Rules that give `verdict` to what comes in (`way` is `iifname`) or goes out (`oifname`) by a guarded interface and
/// whose address is, or is not, in that side's `set`; `asked` is the address and, for `is not`, `!=`. The kernel asks them
/// one after another: for what few packets come to.
pub(super) fn by_side(
    structure: &Structure,
    set: (&str, char),
    way: &str,
    asked: &str,
    verdict: &str,
) -> String {
    structure
        .guarded
        .iter()
        .map(|interface| {
            let set = name(set, interface);
            format!("{way} \"{interface}\" {asked} @{set} {verdict}\n")
        })
        .collect()
}

/// As [`by_side`], of what a bridge's packet came in by, where only the number in its mark tells.
pub(super) fn by_number(structure: &Structure, set: (&str, char), asked: &str, verdict: &str) -> String {
    numbered(structure)
        .map(|(number, interface)| {
            let set = name(set, interface);
            format!("meta mark & {MARK_FLOW:#x} == {number} {asked} @{set} {verdict}\n")
        })
        .collect()
}

/// Chains with a packet's interface in their names, for what most packets come to: however many sides there are, the
/// kernel asks one. Writes the chains of `family`, with what `rules` gives for a side's set in each, and gives the rule
/// that leads to them what comes in or goes out by a guarded interface.
pub(super) fn chains_by_side(
    script: &mut String,
    structure: &Structure,
    family: char,
    (chain, way): (&str, &str),
    rules: impl Fn(&str) -> String,
) -> String {
    let mut ways = Vec::new();
    for interface in &structure.guarded {
        let side = side(family, interface);
        let _ = writeln!(script, "chain {chain}_{side} {{\n{}}}", rules(&side));
        ways.push(format!("\"{interface}\" : jump {chain}_{side}"));
    }
    if ways.is_empty() {
        return String::new();
    }
    format!("{way} vmap {{ {} }}\n", ways.join(", "))
}

/// The names of those chains, of both families.
pub(super) fn names_by_side<'a>(
    structure: &'a Structure,
    chain: &'a str,
) -> impl Iterator<Item = String> + 'a {
    let sides = |family| {
        structure
            .guarded
            .iter()
            .map(move |interface| side(family, interface))
    };
    ['4', '6']
        .into_iter()
        .flat_map(sides)
        .map(move |side| format!("{chain}_{side}"))
}

/// The definitions of all sets.
pub(super) fn define(script: &mut String, family: &str, structure: &Structure) {
    lead(script, family, &BTreeMap::new(), &sets(family, structure));
}

/// Makes the sets that only the new structure has, and leads the elements of all to the new ones.
pub(super) fn restructure(script: &mut String, family: &str, old: &Structure, new: &Structure) {
    let (mut before, after) = (sets(family, old), sets(family, new));
    let places = |structure: &Structure| {
        (
            structure.sides4.clone(),
            structure.sides6.clone(),
            structure.neighbours.macs.clone(),
        )
    };
    if places(old) != places(new) {
        // Who may be where has changed: where MAC addresses were seen counts no more.
        for (name, (_, elements)) in before.iter_mut().filter(|(name, _)| name.starts_with("macs2_")) {
            let _ = writeln!(script, "flush set {family} {TABLE} {name}");
            elements.clear();
        }
    }
    lead(script, family, &before, &after);
}

/// Removes the sets that only the old structure has. No rule may ask them any more.
pub(super) fn clear(script: &mut String, family: &str, old: &Structure, new: &Structure) {
    let staying = sets(family, new);
    for name in sets(family, old)
        .keys()
        .filter(|name| !staying.contains_key(*name))
    {
        let _ = writeln!(script, "delete set {family} {TABLE} {name}");
    }
}

fn lead(script: &mut String, family: &str, old: &BTreeMap<String, Set>, new: &BTreeMap<String, Set>) {
    let none = BTreeSet::new();
    for (name, (kind, after)) in new {
        let before = old.get(name).map_or(&none, |(_, elements)| elements);
        if !old.contains_key(name) {
            let _ = writeln!(script, "add set {family} {TABLE} {name} {{ {kind}; }}");
        }
        list(script, "delete", family, name, before.difference(after).cloned());
        list(script, "add", family, name, after.difference(before).cloned());
    }
}

/// A family's tuple in the direction of the connection's opener, and in the other.
pub(super) fn tuples(ip: &str) -> [(&'static str, String); 2] {
    [
        (
            "original",
            format!("{ip} saddr . {ip} daddr . meta l4proto . th dport"),
        ),
        (
            "reply",
            format!("{ip} daddr . {ip} saddr . meta l4proto . th sport"),
        ),
    ]
}
