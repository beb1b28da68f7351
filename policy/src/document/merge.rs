//! Joining the files of a folder: sections may be continued from file to file, names may not.

use std::collections::HashMap;

use super::node::{Entry, Kind, Node, excerpt};
use super::read::wrong_shape;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;

/// Sections that several files may add names to.
const CONTINUED: [&str; 10] = [
    "sites",
    "gateways",
    "zones",
    "assets",
    "conduits",
    "remote_access",
    "compensating_controls",
    "templates",
    "stations",
    "groups",
];

/// Lists that several files may add to.
const LISTS: [&str; 2] = ["risk", "accepted"];

/// One document out of the roots of all files, in their order. `None` if none of them holds anything.
pub(super) fn merge(roots: Vec<Node>, faults: &mut Faults) -> Option<Node> {
    let mut merged: Vec<Entry> = Vec::new();
    let mut sections: HashMap<String, usize> = HashMap::new();
    let mut names: HashMap<(String, String), Place> = HashMap::new();
    let mut first = None;
    for root in roots {
        if root.is_null() {
            continue;
        }
        let place = root.place;
        let Kind::Mapping(entries) = root.kind else {
            wrong_shape(
                &root,
                "a mapping of sections such as `plant:` and `zones:`",
                faults,
            );
            continue;
        };
        first.get_or_insert(place);
        for mut entry in entries {
            if let Kind::Mapping(things) = &mut entry.value.kind
                && CONTINUED.contains(&entry.key.as_str())
            {
                things.retain(|thing| is_new(&entry.key, thing, &mut names, faults));
            }
            match sections.get(&entry.key).and_then(|at| merged.get_mut(*at)) {
                None => {
                    sections.insert(entry.key.clone(), merged.len());
                    merged.push(entry);
                }
                Some(existing) => join(existing, entry, faults),
            }
        }
    }
    first.map(|place| Node {
        place,
        kind: Kind::Mapping(merged),
    })
}

/// Whether a name is defined for the first time in its section.
fn is_new(
    section: &str,
    thing: &Entry,
    names: &mut HashMap<(String, String), Place>,
    faults: &mut Faults,
) -> bool {
    let key = (section.to_owned(), thing.key.clone());
    if let Some(first) = names.get(&key) {
        faults.add(
            Fault::new(
                Code::DuplicateKey,
                thing.key_place,
                format!("`{}` is defined twice under `{section}`", excerpt(&thing.key)),
            )
            .label("again here")
            .related(*first, "first defined here")
            .help("keep one of the two"),
        );
        return false;
    }
    names.insert(key, thing.key_place);
    true
}

/// Continues a section with what a further file says of it.
fn join(existing: &mut Entry, entry: Entry, faults: &mut Faults) {
    match (&mut existing.value.kind, entry.value.kind) {
        (Kind::Mapping(known), Kind::Mapping(more)) if CONTINUED.contains(&entry.key.as_str()) => {
            known.extend(more)
        }
        (Kind::List(known), Kind::List(more)) if LISTS.contains(&entry.key.as_str()) => known.extend(more),
        _ => faults.add(
            Fault::new(
                Code::DuplicateKey,
                entry.key_place,
                format!("the key `{}` is given in two files", excerpt(&entry.key)),
            )
            .label("again here")
            .related(existing.key_place, "first given here")
            .help(
                "keep one of the two; sections of named things may be continued in other files, this may not",
            ),
        ),
    }
}
