//! From structure and elements to the script that `nft -f -` loads. Pure.
//!
//! [`whole`] replaces the tables in one transaction; [`difference`] changes elements alone. Both are one
//! transaction: the kernel shows packets either what was before or what comes after.
//!
//! Marks: the low 28 bits of a packet's or connection's mark are the flow's number. On packets of a bridge the bits
//! above carry what the bridge table found to the `inet` table (which sees the bridge, not its ports):
//! [`MARK_GUARDED`], [`MARK_OBSERVED`], [`MARK_MISPLACED`], and back to it [`MARK_ROUTED`]. On connections
//! [`MARK_TOLD`] says that its would-deny was logged (set by the rules that log it, never ahead of them),
//! [`MARK_PASSED`] that observation let it through, [`MARK_LEG`] that the inspector has a part in it, and one bit, of a leg, that
//! one of its sockets was seen to send on it ([`MARK_CARRIED`]) and one that it opened it ([`MARK_OWN`]), of other TCP, that its opening was seen ([`MARK_OPENED`]), of
//! UDP, that it is judged turned round ([`MARK_TURNED`]; see [`turned`]). Where a packet is on its way to or from the inspector, those four bits of
//! its mark are one of [`crate::intercept::MARK_INTERCEPTED`] (both modes), [`MARK_ENTERED`], [`MARK_SENT`] and
//! [`MARK_STRAY`] (bridges), none of which the first four come to together.

use std::collections::BTreeMap;
use std::fmt::Write;

use penstock_policy::ids::FlowId;
use penstock_policy::terms::GatewayMode;

use crate::enforce::shape::block::{Address, Block, Carrier, Span};
use crate::enforce::shape::lower::{Course, Disposition, Elements};
use crate::enforce::shape::structure::Structure;
use crate::intercept::MARK_INTERCEPTED_BITS;

mod alive;
mod bridge;
mod granted;
pub(in crate::enforce) mod icmp;
mod inet;
mod intercept;
mod mode;
pub(in crate::enforce) mod neighbours;
mod shape;
mod standing;
mod turned;

pub(in crate::enforce) use granted::LEFT_MAX;
pub use granted::{GRANTED, hold};
pub use turned::{STARTING, STARTING_S};

pub(in crate::enforce) use self::inet::{ANSWERS, LEASES, from_management, peers};

/// The name of our tables, in the families `inet` and `bridge`.
pub const TABLE: &str = "penstock";
/// Their name while they take the place of others.
pub(in crate::enforce) const TABLE_BESIDE: &str = "penstock_beside";
/// The families.
pub(in crate::enforce) const FAMILY_NAMES: [&str; 2] = ["inet", "bridge"];
/// Bits of a mark that hold a flow's number.
pub const MARK_FLOW: u32 = FlowId::MAX;
/// Packet mark: crosses a guarded port and was not judged yet.
pub const MARK_GUARDED: u32 = 0x8000_0000;
/// Packet mark: both its ends only observe.
pub const MARK_OBSERVED: u32 = 0x4000_0000;
/// Packet mark: an end does not belong to its side, or one of the ports is not in the plan: no rule can permit it.
pub const MARK_MISPLACED: u32 = 0x2000_0000;
/// Packet mark, on bridged gateways: it does not stay on the bridge, but came to the gateway or is routed by it.
pub const MARK_ROUTED: u32 = 0x1000_0000;
/// Connection mark: its would-deny was logged.
pub const MARK_TOLD: u32 = 0x1000_0000;
/// Connection mark: it was let through by observation alone.
pub const MARK_PASSED: u32 = 0x2000_0000;
/// Connection mark: one of the two legs of an inspected connection.
pub const MARK_LEG: u32 = 0x8000_0000;
/// Connection mark, on routed gateways, of a leg: a socket of the inspector carries it.
pub const MARK_CARRIED: u32 = 0x4000_0000;
/// Connection mark, of a leg: the inspector opened it, towards a server, so that nothing comes from its client's side.
pub const MARK_OWN: u32 = 0x1000_0000;
/// Connection mark, of TCP that is no leg: its opening was seen, so the tracked direction is its own.
pub const MARK_OPENED: u32 = 0x4000_0000;
/// Connection mark, of UDP: its client has spoken against the tracked direction.
pub const MARK_TURNED: u32 = 0x4000_0000;
/// Packet mark, on bridged gateways: it came in by the guarded port where its source belongs.
pub const MARK_ENTERED: u32 = 0x5000_0000;
/// Packet mark, on bridged gateways: the inspector sent it. Its port must be the one where its destination belongs.
pub const MARK_SENT: u32 = 0x6000_0000;
/// Packet mark, on bridged gateways: sent with a foreign address, and not by the inspector.
pub const MARK_STRAY: u32 = 0x2000_0000;
/// The bits of a packet's mark that are left to others where ours are taken off.
const MARKS_KEPT: u32 = !MARK_INTERCEPTED_BITS;
/// How many log messages a second the kernel sends per kind; what is above is counted only.
pub const LOG_PER_SECOND: u32 = 2000;
/// How many it sends at once: half of what is followed at once, a fifth of what the log's socket keeps unread. Unless it is
/// named, the kernel's limit is 5.
pub const LOG_BURST: u32 = 4096;
/// Bytes of a logged packet that are copied: an IPv6 header with some extensions, and ports.
const LOG_SNAP_BYTES: u32 = 128;
/// Elements per line of the script: bounds the length of a line, not of a transaction.
const ELEMENTS_PER_LINE: usize = 500;

/// Prefixes of log messages: what the kernel decided.
pub mod prefix {
    /// First packet of an allowed connection.
    pub const ALLOW: &str = "ps:a";
    /// Dropped.
    pub const DENY: &str = "ps:d";
    /// Passed, would be dropped.
    pub const WOULD_DENY: &str = "ps:w";
    /// First packet of a connection that was forwarded unread, since there is no inspector.
    pub const UNATTENDED: &str = "ps:u";
    /// As [`UNATTENDED`], of the answering side.
    pub const UNATTENDED_REPLY: &str = "ps:ur";
    /// As [`ALLOW`], seen first on a packet of the answering side.
    pub const ALLOW_REPLY: &str = "ps:ar";
    /// As [`ALLOW_REPLY`], of a server whose client has not spoken while the tables are new.
    pub const ASSUMED: &str = "ps:s";
    /// Reset, since what an inspector would have to read has begun before.
    pub const CUT: &str = "ps:c";
    /// As [`CUT`], of the answering side.
    pub const CUT_REPLY: &str = "ps:cr";
    /// As [`DENY`], of the answering side.
    pub const DENY_REPLY: &str = "ps:dr";
    /// As [`WOULD_DENY`], of the answering side.
    pub const WOULD_DENY_REPLY: &str = "ps:wr";
    /// Dropped on its way to the gateway itself.
    pub const INPUT: &str = "ps:i";
    /// Dropped: opens a connection in a client's name where the inspector's own stands.
    pub const SWEPT: &str = "ps:y";
    /// Behind [`DENY`] or [`WOULD_DENY`]: a MAC address that belongs to another side.
    pub const MOVED: &str = "m";
    /// The same: ARP or neighbour discovery of a form that no host needs.
    pub const MALFORMED: &str = "l";
    /// The same: the claim of an address that is another's.
    pub const FORGED: &str = "f";
    /// The same: a question or an answer between neighbours that no flow joins.
    pub const UNJOINED: &str = "j";
    /// The same: an advertisement of a router that is not declared, or a redirect.
    pub const ADVERTISED: &str = "v";
}

/// The script that puts exactly this into the kernel, whatever was there.
pub fn whole(structure: &Structure, elements: &Elements, log_group: u16) -> String {
    remove() + &contents(structure, elements) + &rules(structure, log_group)
}

/// What the rules ask: counters, sets and maps with their elements.
fn contents(structure: &Structure, elements: &Elements) -> String {
    let mut script = String::new();
    inet::objects(&mut script, structure);
    if structure.mode == GatewayMode::Bridged {
        bridge::objects(&mut script, structure);
    }
    family(&mut script, "add", elements.v4.iter());
    family(&mut script, "add", elements.v6.iter());
    turned::start(&mut script, TABLE);
    alive::start(&mut script, TABLE);
    script
}

fn rules(structure: &Structure, log_group: u16) -> String {
    let mut script = String::new();
    inet::chains(&mut script, structure, log_group);
    if structure.mode == GatewayMode::Bridged {
        bridge::chains(&mut script, structure, log_group);
    }
    script
}

/// The script that leads from one structure and its elements to another of the same mode.
///
/// The tables and their maps stay, only rules are written anew: a packet that is judged at the moment of the swap finds
/// the flows where they were. Where they cannot stay, see [`succession`].
pub fn restructure(
    (old, old_elements): (&Structure, &Elements),
    (new, new_elements): (&Structure, &Elements),
    log_group: u16,
) -> String {
    let of_inet = |structure| [inet::chains_of(structure), intercept::chains_of(structure)].concat();
    let mut families = vec![("inet", of_inet(old), of_inet(new))];
    if new.mode == GatewayMode::Bridged {
        families.push(("bridge", bridge::chains_of(old), bridge::chains_of(new)));
    }
    let mut script = String::new();
    for (family, chains, _) in &families {
        for chain in chains {
            let _ = writeln!(script, "flush chain {family} {TABLE} {chain}");
        }
    }
    let _ = writeln!(script, "delete chain inet {TABLE} seal");
    for (family, ..) in &families {
        shape::restructure(&mut script, family, old, new);
    }
    if old.inspector.is_none() {
        alive::start(&mut script, TABLE);
    }
    inet::chains(&mut script, new, log_group);
    if new.mode == GatewayMode::Bridged {
        bridge::chains(&mut script, new, log_group);
    }
    for (family, chains, staying) in &families {
        for chain in chains.iter().filter(|chain| !staying.contains(chain)) {
            let _ = writeln!(script, "delete chain {family} {TABLE} {chain}");
        }
        shape::clear(&mut script, family, old, new);
    }
    script + &difference(old_elements, new_elements)
}

/// How tables take the place of others that carry traffic, without a packet lost: scripts, each one transaction.
///
/// When a table is deleted, the kernel runs its rules for a moment on maps that are emptied already; and when one is made, its
/// rules for a moment before its maps of ranges are filled. So the same tables are made beside the old ones first, under
/// another name, maps ahead of rules, and the old ones' chains are emptied in the transaction that makes the rules. The tables
/// under their own name follow in the same way; what is deleted judges nothing any more. `old` are the families of the
/// tables that are there. Where an agent was killed at this, see [`succession_goes_on`].
///
/// A transaction takes effect between two chains of a packet, so the order of the chains matters: one that the first table does not
/// judge any more must not have passed the second before that one judged. Those beside come after those under our own name, by a
/// priority one higher. What took over judges last then; and where those under our own name come back, both judge for a moment,
/// with the same rules, before those beside are emptied.
pub fn succession(structure: &Structure, elements: &Elements, log_group: u16, old: &[&str]) -> [String; 6] {
    let (contents, rules) = (contents(structure, elements), rules(structure, log_group));
    let [under_own_name, rules_moved, emptied, rest] =
        succession_goes_on(structure, elements, log_group, families_of(structure.mode));
    let created = format!("create table inet {TABLE_BESIDE}\n");
    [
        created + &beside(&contents),
        beside(&after(&rules)) + &flush(old, TABLE),
        under_own_name,
        rules_moved,
        emptied,
        rest,
    ]
}

/// The rest of a [`succession`] where only the tables beside judge, whoever made them and for whichever plan: the tables under their
/// own name follow. `families` are those of the tables beside.
pub fn succession_goes_on(
    structure: &Structure,
    elements: &Elements,
    log_group: u16,
    families: &[&str],
) -> [String; 4] {
    [
        removal(TABLE) + &contents(structure, elements),
        rules(structure, log_group),
        empty_beside(families),
        remove_beside(),
    ]
}

/// A script of our tables as one of the tables beside.
fn beside(script: &str) -> String {
    FAMILY_NAMES.iter().fold(script.to_owned(), |script, family| {
        script.replace(&format!("{family} {TABLE}"), &format!("{family} {TABLE_BESIDE}"))
    })
}

/// Rules whose chains come just after those of the same rules, and leave to the inspector what those gave it.
fn after(rules: &str) -> String {
    let later = |line: &str| {
        let (head, rest) = line.strip_prefix("type ")?.split_once(" priority ")?;
        let (priority, rest) = rest.split_once(';')?;
        let priority = match priority.parse::<i32>() {
            Ok(number) => (number + 1).to_string(),
            Err(_) => format!("{priority} + 1"),
        };
        Some(format!("type {head} priority {priority};{rest}"))
    };
    let lines = rules
        .lines()
        .map(|line| later(line.trim_start()).unwrap_or_else(|| line.to_owned()) + "\n");
    let [unmarks, leaves] = intercept::marked_before();
    lines.collect::<String>().replace(&unmarks, &leaves)
}

/// The script that ends the judgement of the tables beside, of these families.
pub fn empty_beside(families: &[&str]) -> String {
    flush(families, TABLE_BESIDE)
}

fn families_of(mode: GatewayMode) -> &'static [&'static str] {
    match mode {
        GatewayMode::Routed => &["inet"],
        GatewayMode::Bridged => &FAMILY_NAMES,
    }
}

fn flush(families: &[&str], table: &str) -> String {
    let line = |family: &&str| format!("flush table {family} {table}\n");
    families.iter().map(line).collect()
}

/// The script that removes the tables beside ours, and succeeds where there are none.
pub fn remove_beside() -> String {
    removal(TABLE_BESIDE)
}

/// The script that removes our tables, and succeeds where there are none.
pub fn remove() -> String {
    removal(TABLE) + &removal(TABLE_BESIDE)
}

fn removal(table: &str) -> String {
    let mut script = String::new();
    for family in FAMILY_NAMES {
        // Adding first makes the deletion succeed where there is no table.
        let _ = writeln!(
            script,
            "add table {family} {table}\ndelete table {family} {table}"
        );
    }
    script
}

/// The script that leads from one set of elements to another; empty if there is no difference.
pub fn difference(old: &Elements, new: &Elements) -> String {
    let mut script = String::new();
    // Deletions come first, so that what takes a freed place does not overlap it.
    family(&mut script, "delete", only_in(&old.v4, &new.v4).into_iter());
    family(&mut script, "delete", only_in(&old.v6, &new.v6).into_iter());
    family(&mut script, "add", only_in(&new.v4, &old.v4).into_iter());
    family(&mut script, "add", only_in(&new.v6, &old.v6).into_iter());
    script
}

/// A map, or a set, of tuples in `table inet`; there is one per family, named with the family's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Map {
    /// Its name without the family's number.
    pub name: &'static str,
    /// Whether its entries lead to flow numbers.
    pub flows: bool,
    /// Whether its entries are pairs of addresses alone.
    pub pairs: bool,
    /// Whether its entries are intervals.
    pub intervals: bool,
}

impl Map {
    const fn of_flows(name: &'static str, intervals: bool) -> Self {
        Self {
            name,
            flows: true,
            pairs: false,
            intervals,
        }
    }

    /// What an entry leads to, as the kernel has it: marks are in the byte order of the machine.
    pub(in crate::enforce) fn data(&self, placed: Disposition) -> Vec<u8> {
        if self.flows {
            placed.flow.0.to_ne_bytes().to_vec()
        } else {
            Vec::new()
        }
    }

    const fn of_echo(name: &'static str, intervals: bool) -> Self {
        Self {
            pairs: true,
            ..Self::of_flows(name, intervals)
        }
    }

    const fn of_tuples(name: &'static str, intervals: bool) -> Self {
        Self {
            flows: false,
            ..Self::of_flows(name, intervals)
        }
    }
}

/// Tuples that are forwarded.
const EXACT: Map = Map::of_flows("exact", false);
const RANGES: Map = Map::of_flows("ranges", true);
const ECHO: Map = Map::of_echo("echo", false);
const ECHO_RANGES: Map = Map::of_echo("echo_ranges", true);
/// Tuples that go to the inspector.
const INSPECTED: Map = Map::of_tuples("inspected", false);
const INSPECTED_RANGES: Map = Map::of_tuples("inspected_ranges", true);
/// Tuples amid inspected ranges that do not.
const SPARED: Map = Map::of_tuples("spared", false);
/// Tuples that go to the inspector, and are forwarded while there is none.
const UNATTENDED: Map = Map::of_flows("unattended", false);
const UNATTENDED_RANGES: Map = Map::of_flows("unattended_ranges", true);

/// All maps of a family.
pub const MAPS: [Map; 9] = [
    EXACT,
    RANGES,
    ECHO,
    ECHO_RANGES,
    INSPECTED,
    INSPECTED_RANGES,
    SPARED,
    UNATTENDED,
    UNATTENDED_RANGES,
];

/// The maps that hold a block.
pub fn maps_of<A: Address>(block: &Block<A>, course: Course) -> &'static [Map] {
    match (block.carrier, block.is_exact(), course) {
        (Carrier::Echo, true, Course::Forward | Course::ForwardAmid) => &[ECHO],
        (Carrier::Echo, false, Course::Forward | Course::ForwardAmid) => &[ECHO_RANGES],
        // No inspector reads them, and without one they are not permitted.
        (Carrier::Echo, ..) => &[],
        (_, true, Course::Forward) => &[EXACT],
        (_, true, Course::ForwardAmid) => &[EXACT, SPARED],
        (_, true, Course::Inspect) => &[INSPECTED],
        (_, true, Course::InspectOrForward) => &[INSPECTED, UNATTENDED],
        (_, false, Course::Forward | Course::ForwardAmid) => &[RANGES],
        (_, false, Course::Inspect) => &[INSPECTED_RANGES],
        (_, false, Course::InspectOrForward) => &[INSPECTED_RANGES, UNATTENDED_RANGES],
    }
}

/// What one map has and the other has not, in one walk along both: a change of one flow among many must be quick.
pub(in crate::enforce) fn only_in<'a, A: Address>(
    these: &'a BTreeMap<Block<A>, Disposition>,
    those: &BTreeMap<Block<A>, Disposition>,
) -> Vec<(&'a Block<A>, &'a Disposition)> {
    let mut others = those.iter().peekable();
    let missing = |entry: &(&Block<A>, &Disposition)| {
        while others.next_if(|other| other < entry).is_some() {}
        others.peek() != Some(entry)
    };
    these.iter().filter(missing).collect()
}

fn family<'a, A: Address + 'a>(
    script: &mut String,
    verb: &str,
    blocks: impl Iterator<Item = (&'a Block<A>, &'a Disposition)> + Clone,
) {
    for map in MAPS {
        let elements = blocks
            .clone()
            .filter(|(block, placed)| maps_of(block, placed.course).contains(&map))
            .map(|(block, placed)| {
                if map.flows {
                    format!("{} : {}", key(block), placed.flow.0)
                } else {
                    key(block)
                }
            });
        list(
            script,
            verb,
            "inet",
            &format!("{}{}", map.name, A::FAMILY),
            elements,
        );
    }
}

fn key<A: Address>(block: &Block<A>) -> String {
    let Block {
        source,
        destination,
        carrier,
        ports,
    } = block;
    match carrier {
        Carrier::Tcp => format!("{source} . {destination} . tcp . {ports}"),
        Carrier::Udp => format!("{source} . {destination} . udp . {ports}"),
        Carrier::Echo => format!("{source} . {destination}"),
    }
}

fn list(script: &mut String, verb: &str, family: &str, set: &str, elements: impl Iterator<Item = String>) {
    let mut elements = elements.peekable();
    while elements.peek().is_some() {
        let _ = write!(script, "{verb} element {family} {TABLE} {set} {{ ");
        for (place, element) in elements.by_ref().take(ELEMENTS_PER_LINE).enumerate() {
            if place > 0 {
                script.push_str(", ");
            }
            script.push_str(&element);
        }
        script.push_str(" }\n");
    }
}

/// What a rule asks before it logs.
fn within_limit() -> String {
    format!("limit rate {LOG_PER_SECOND}/second burst {LOG_BURST} packets")
}

fn log(prefix: &str, group: u16) -> String {
    format!("counter name logged log prefix \"{prefix}\" group {group} snaplen {LOG_SNAP_BYTES}")
}

#[cfg(test)]
mod tests;
