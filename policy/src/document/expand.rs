//! Templates, stations and groups: what a document says once and means many times, written out before anything is judged.
//!
//! A *template* holds sections like those of the document, with placeholders such as `$(net + 5)`; a *station* is made from one
//! template and gives its parameters. [`expand`] fills each template in for each of its stations and adds what comes out to the
//! document's own sections, then puts the members of *groups* in their places. What is left is the document that somebody could
//! have written by hand, and nothing after this file knows of a template: grammar, validation and compiler see no difference. Each value
//! keeps its place in the template with the station's number, so that faults point there.
//!
//! There is no recursion (a template holds no station), no condition and no loop, and what comes out is bounded like what is written: a
//! small document cannot become a large one without limit. Not here: what a placeholder may say (`placeholder`), parameters
//! (`parameter`), groups (`groups`), and how the result is written for people (`written`).

mod groups;
mod parameter;
mod placeholder;
mod template;
pub(crate) mod written;

use std::collections::{BTreeMap, HashMap};

use self::template::Template;
use super::limits::{DOCUMENT_BYTES_MAX, NODES_MAX, STATIONS_MAX};
use super::node::{Entry, Kind, Node, excerpt};
use super::read::wrong_shape;
use super::suggest;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults, StationPlace};
use crate::diagnostics::source::Place;
use crate::ids::check_name;

/// The key of a station that says from which template it is made.
const TEMPLATE: &str = "template";
/// The placeholder for a station's own name.
const STATION: &str = "station";

/// The sections that a template may hold: those of things that a station has of its own.
pub(super) const SECTIONS: [&str; 6] = [
    "sites",
    "gateways",
    "zones",
    "assets",
    "conduits",
    "compensating_controls",
];

/// The schema of a parameter of a template.
pub(super) fn parameter_schema() -> serde_json::Value {
    parameter::Parameter::schema()
}

/// How much may still be made: a document from templates is no larger than one that is written by hand may be.
pub(super) struct Budget {
    bytes: usize,
    nodes: usize,
}

impl Budget {
    fn new(nodes: usize) -> Self {
        Self {
            bytes: DOCUMENT_BYTES_MAX,
            nodes: NODES_MAX.saturating_sub(nodes),
        }
    }

    /// Takes room for one value with so many bytes of text; `None` if there is none left.
    pub(super) fn take(&mut self, bytes: usize) -> Option<()> {
        // A value costs a line break and some indentation, or a comma and a space, where it is written by hand.
        self.bytes = self.bytes.checked_sub(bytes.saturating_add(2))?;
        self.nodes = self.nodes.checked_sub(1)?;
        Some(())
    }
}

/// The document without templates, stations and groups, but with all that they stand for. `nodes` are the values that were read
/// so far. `None` if something in them is wrong; a fault says what.
pub(crate) fn expand(root: Node, nodes: usize, faults: &mut Faults) -> Option<Node> {
    let before = faults.errors();
    let Node { place, kind } = root;
    let Kind::Mapping(mut entries) = kind else {
        return Some(Node { place, kind });
    };
    let templates = section(&mut entries, "templates", faults);
    let stations = section(&mut entries, "stations", faults);
    let groups = section(&mut entries, "groups", faults);
    let templates = template::read(templates.as_ref(), faults);
    let stations = stations.map_or_else(Vec::new, |section| section.things);
    if stations.len() > STATIONS_MAX {
        let message = format!(
            "there are {} stations; a document has at most {STATIONS_MAX}",
            stations.len()
        );
        faults.add(
            Fault::new(
                Code::TooLarge,
                stations.first().map(|station| station.key_place),
                message,
            )
            .help("divide the plant into several documents"),
        );
        return None;
    }
    let named = stations.iter().map(|station| StationPlace {
        name: excerpt(&station.key),
        place: station.key_place,
    });
    faults.name_stations(named.collect());
    let mut sections = Sections::of(entries);
    let mut groups = groups::Members::of(groups.map_or_else(Vec::new, |section| section.things), faults);
    let mut budget = Budget::new(nodes);
    for (number, station) in stations.iter().enumerate() {
        let Some(template) = template_of(station, &templates, faults) else {
            continue;
        };
        let Some(values) = template.values(&station.key, &station.value, faults) else {
            continue;
        };
        let filled = template.fill(number, &values, &mut budget, faults);
        let Some(filled) = filled else {
            faults.add(
                Fault::new(
                    Code::TooLarge,
                    station.key_place,
                    format!(
                        "with the station `{}` the document is larger, written out, than {}",
                        excerpt(&station.key),
                        super::limits::in_words()
                    ),
                )
                .label("no room for this one and what follows")
                .help("divide the plant into several documents"),
            );
            return None;
        };
        for (section, things) in filled.sections {
            sections.add(section, things, faults);
        }
        for (group, members) in filled.groups {
            groups.add(&group, members, faults);
        }
    }
    template::unused(&templates, &stations, faults);
    let mut entries = sections.entries;
    // Where a station could not be made, groups lack what it would have added.
    if faults.errors() == before {
        groups.put(&mut entries, &mut budget, faults);
    }
    (faults.errors() == before).then_some(Node {
        place,
        kind: Kind::Mapping(entries),
    })
}

/// A section of named things, taken out of the document.
pub(super) struct Section {
    pub(super) things: Vec<Entry>,
}

fn section(entries: &mut Vec<Entry>, name: &str, faults: &mut Faults) -> Option<Section> {
    let at = entries.iter().position(|entry| entry.key == name)?;
    let entry = entries.remove(at);
    match entry.value.kind {
        Kind::Mapping(things) if things.is_empty() => {
            faults.add(
                Fault::new(Code::EmptyList, entry.value.place, "the mapping is empty")
                    .label("nothing in it")
                    .help("fill it, or remove the key"),
            );
            None
        }
        Kind::Mapping(things) => Some(Section { things }),
        _ => {
            wrong_shape(&entry.value, "a mapping of names", faults);
            None
        }
    }
}

/// The template that a station names.
fn template_of<'a>(
    station: &Entry,
    templates: &'a BTreeMap<String, Option<Template>>,
    faults: &mut Faults,
) -> Option<&'a Template> {
    if let Err(error) = check_name(&station.key) {
        faults.add(Fault::new(Code::BadName, station.key_place, error.to_string()));
        return None;
    }
    let Kind::Mapping(given) = &station.value.kind else {
        wrong_shape(
            &station.value,
            "a mapping with the station's `template` and its parameters",
            faults,
        );
        return None;
    };
    let Some(written) = given.iter().find(|entry| entry.key == TEMPLATE) else {
        faults.add(
            Fault::new(
                Code::MissingKey,
                station.value.place,
                format!("the station `{}` has no `template`", station.key),
            )
            .label("`template` is missing")
            .help("add `template`: the name under `templates` from which the station is made"),
        );
        return None;
    };
    let name = super::read::scalar(&written.value, "the name of a template", faults)?;
    match templates.get(name) {
        // What is wrong with the template was said where it stands.
        Some(template) => template.as_ref(),
        None => {
            faults.add(
                Fault::new(
                    Code::UnknownName,
                    written.value.place,
                    format!("there is no template `{}`", excerpt(name)),
                )
                .label("unknown template")
                .help(suggest::help(name, templates.keys().map(String::as_str))),
            );
            None
        }
    }
}

/// The document's sections while stations are added to them.
struct Sections {
    entries: Vec<Entry>,
    /// Where each name of a section is defined first.
    defined: HashMap<(&'static str, String), Place>,
}

impl Sections {
    fn of(entries: Vec<Entry>) -> Self {
        let mut defined = HashMap::new();
        for entry in &entries {
            let section = SECTIONS.iter().find(|section| **section == entry.key);
            if let (Some(section), Kind::Mapping(things)) = (section, &entry.value.kind) {
                let places = things
                    .iter()
                    .map(|thing| ((*section, thing.key.clone()), thing.key_place));
                defined.extend(places);
            }
        }
        Self { entries, defined }
    }

    /// Adds a station's things to a section. A name that is there already is refused: no two things ever become one.
    fn add(&mut self, section: &'static str, filled: Entry, faults: &mut Faults) {
        let Kind::Mapping(things) = filled.value.kind else {
            return;
        };
        let mut new = Vec::new();
        for thing in things {
            match self.defined.get(&(section, thing.key.clone())) {
                None => {
                    self.defined.insert((section, thing.key.clone()), thing.key_place);
                    new.push(thing);
                }
                Some(first) => faults.add(
                    Fault::new(
                        Code::DuplicateKey,
                        thing.key_place,
                        format!("`{}` is defined twice under `{section}`", excerpt(&thing.key)),
                    )
                    .label("again here")
                    .related(*first, "first defined here")
                    .help("rename the station, or what is called so already"),
                ),
            }
        }
        match self.entries.iter_mut().find(|entry| entry.key == section) {
            None => self.entries.push(Entry {
                value: Node {
                    place: filled.value.place,
                    kind: Kind::Mapping(new),
                },
                ..filled
            }),
            Some(entry) => {
                // A section that is not a mapping is the grammar's to refuse.
                if let Kind::Mapping(known) = &mut entry.value.kind {
                    known.extend(new);
                }
            }
        }
    }
}
