//! From structure and elements to the script that `nft -f -` loads. Pure.
//!
//! [`whole`] replaces the tables in one transaction; [`difference`] changes elements alone. Both are one
//! transaction: the kernel shows packets either what was before or what comes after.
//!
//! Not here: what tables, sets and marks are called (`names`), and which map holds what (`maps`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use penstock_policy::ids::FlowId;
use penstock_policy::terms::GatewayMode;

use self::lines::list;
use crate::enforce::nft::maps::{MAPS, Map, maps_of, only_in};
use crate::enforce::nft::names::{FAMILY_NAMES, TABLE, TABLE_BESIDE};
use crate::enforce::shape::block::{Address, Block, Carrier};
use crate::enforce::shape::lower::{Disposition, Elements};
use crate::enforce::shape::structure::Structure;

mod alive;
mod bound;
mod bridge;
mod families;
mod frames;
mod granted;
pub(in crate::enforce) mod icmp;
mod inet;
mod intercept;
mod legs;
mod lines;
mod mode;
pub(in crate::enforce) mod neighbours;
mod own;
mod shadow;
mod shape;
mod standing;
mod tunnel;
mod turned;
mod witness;

pub(in crate::enforce) use granted::LEFT_MAX;
pub use granted::hold;
pub(in crate::enforce) use shadow::{remove_shadow, shadow};
pub(in crate::enforce) use witness::{remove_witness, witness};

pub(in crate::enforce) use self::inet::{ANSWERS, LEASES, from_management, peers};

/// The elements of a table: of its maps, and how long the flows that hang on grants and are open may still pass. Both are there before
/// its rules judge: a flow whose grant lasts is not refused for a moment because tables were exchanged.
#[derive(Debug, Clone, Copy)]
pub struct TableElements<'a> {
    /// Of the maps.
    pub flows: &'a Elements,
    /// What is left of grants.
    pub left: &'a BTreeMap<FlowId, Duration>,
}

/// The script that puts exactly this into the kernel, whatever was there.
pub fn whole(structure: &Structure, elements: TableElements<'_>, log_group: u16) -> String {
    remove_judging() + &contents(structure, elements) + &rules(structure, log_group)
}

/// What the rules ask: counters, sets and maps with their elements.
fn contents(
    structure: &Structure,
    TableElements {
        flows: elements,
        left,
    }: TableElements<'_>,
) -> String {
    let mut script = String::new();
    inet::objects(&mut script, structure);
    if structure.mode == GatewayMode::Bridged {
        bridge::objects(&mut script, structure);
    }
    family(&mut script, "add", elements.v4.iter(), &MAPS);
    family(&mut script, "add", elements.v6.iter(), &MAPS);
    granted::open(&mut script, structure, left);
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
    (
        new,
        TableElements {
            flows: new_elements,
            left,
        },
    ): (&Structure, TableElements<'_>),
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
    if granted::is_needed(old) && granted::is_needed(new) {
        script.push_str(&granted::renewed());
    }
    granted::open(&mut script, new, left);
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
pub fn succession(
    structure: &Structure,
    elements: TableElements<'_>,
    log_group: u16,
    old: &[&str],
) -> [String; 6] {
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
    elements: TableElements<'_>,
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
    named(script, TABLE_BESIDE)
}

/// A script of our tables as one of tables of this name.
fn named(script: &str, table: &str) -> String {
    FAMILY_NAMES.iter().fold(script.to_owned(), |script, family| {
        script.replace(&format!("{family} {TABLE}"), &format!("{family} {table}"))
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

/// The script that removes our tables, that of a shadow too, and succeeds where there are none.
pub fn remove() -> String {
    remove_judging() + &remove_shadow()
}

/// The script that removes those of them that judge.
fn remove_judging() -> String {
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
    family(
        &mut script,
        "delete",
        only_in(&old.v4, &new.v4).into_iter(),
        &MAPS,
    );
    family(
        &mut script,
        "delete",
        only_in(&old.v6, &new.v6).into_iter(),
        &MAPS,
    );
    family(&mut script, "add", only_in(&new.v4, &old.v4).into_iter(), &MAPS);
    family(&mut script, "add", only_in(&new.v6, &old.v6).into_iter(), &MAPS);
    script
}

fn family<'a, A: Address + 'a>(
    script: &mut String,
    verb: &str,
    blocks: impl Iterator<Item = (&'a Block<A>, &'a Disposition)> + Clone,
    maps: &[Map],
) {
    for map in maps {
        let elements = blocks
            .clone()
            .filter(|(block, placed)| maps_of(block, placed.course).iter().any(|of| of.name == map.name))
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

#[cfg(test)]
mod tests;
