//! A template: its parameters, its sections with placeholders, and how both become a station's things.
//!
//! What can be said of a template alone is said once, at its placeholders: unknown parameters, parameters without use, names that would be
//! the same at every station. What needs a station's values is said with the station.

use std::collections::{BTreeMap, BTreeSet};

use super::parameter::{self, Given, Kind, Parameter, Value};
use super::placeholder::{self, Piece};
use super::{Budget, SECTIONS, STATION, Section, TEMPLATE};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::limits::TEXT_LENGTH_MAX;
use crate::document::node::{Entry, Kind as Written, Node, excerpt};
use crate::document::read::{Record, wrong_shape};
use crate::document::scalars::Text;
use crate::document::suggest;
use crate::ids::check_name;

/// The keys of a template.
const KEYS: [&str; 9] = [
    "title",
    "parameters",
    "sites",
    "gateways",
    "zones",
    "assets",
    "conduits",
    "compensating_controls",
    "groups",
];

/// A template that can be filled in.
#[derive(Debug)]
pub(super) struct Template {
    parameters: BTreeMap<String, Parameter>,
    /// The sections that it has, `groups` among them.
    sections: Vec<Entry>,
    place: Place,
}

/// The values of a station, by the names of parameters, its own name among them.
pub(super) type Values = BTreeMap<String, Given>;

/// What a template becomes for a station.
#[derive(Debug, Default)]
pub(super) struct Filled {
    pub(super) sections: Vec<(&'static str, Entry)>,
    /// Members of groups, by the group's name.
    pub(super) groups: Vec<(Entry, Node)>,
}

/// The templates of a document, by name; `None` for one that is faulty.
pub(super) fn read(section: Option<&Section>, faults: &mut Faults) -> BTreeMap<String, Option<Template>> {
    let mut templates = BTreeMap::new();
    for entry in section.into_iter().flat_map(|section| &section.things) {
        if let Err(error) = check_name(&entry.key) {
            faults.add(Fault::new(Code::BadName, entry.key_place, error.to_string()));
        }
        let template = Template::read(entry, faults);
        templates.insert(entry.key.clone(), template);
    }
    templates
}

/// Warns of templates from which nothing is made: nothing in them was judged.
pub(super) fn unused(
    templates: &BTreeMap<String, Option<Template>>,
    stations: &[Entry],
    faults: &mut Faults,
) {
    let used: BTreeSet<&str> = stations.iter().filter_map(named_template).collect();
    for (name, template) in templates {
        if let Some(template) = template.as_ref().filter(|_| !used.contains(name.as_str())) {
            faults.add(
                Fault::new(
                    Code::TemplateUnused,
                    template.place,
                    format!("no station is made from the template `{name}`"),
                )
                .label("nothing in it is checked or enforced")
                .help("add a station with this template under `stations`, or remove the template"),
            );
        }
    }
}

fn named_template(station: &Entry) -> Option<&str> {
    let Written::Mapping(given) = &station.value.kind else {
        return None;
    };
    let written = given.iter().find(|entry| entry.key == TEMPLATE)?;
    match &written.value.kind {
        Written::Scalar { text, .. } => Some(text),
        _ => None,
    }
}

impl Template {
    fn read(entry: &Entry, faults: &mut Faults) -> Option<Self> {
        let before = faults.errors();
        let record = Record::open(&entry.value, "a template", &KEYS, faults)?;
        record.optional::<Text>("title", "", faults);
        let parameters = record
            .written("parameters")
            .map_or_else(|| Some(BTreeMap::new()), |node| parameters(node, faults))?;
        let Written::Mapping(entries) = &entry.value.kind else {
            return None;
        };
        let is_section = |key: &str| key == "groups" || SECTIONS.contains(&key);
        let sections: Vec<Entry> = entries
            .iter()
            .filter(|entry| is_section(&entry.key))
            .cloned()
            .collect();
        if sections.is_empty() {
            faults.add(
                Fault::new(Code::MissingKey, entry.value.place, "the template makes nothing")
                    .label("no section")
                    .help("add `zones`, `assets`, `conduits` … as in the document, with placeholders such as `$(station)`"),
            );
        }
        let template = Self {
            parameters,
            sections,
            place: entry.key_place,
        };
        template.judge(faults);
        (faults.errors() == before).then_some(template)
    }

    /// What is wrong with the placeholders, whatever the stations give.
    fn judge(&self, faults: &mut Faults) {
        let mut used = BTreeSet::new();
        for section in &self.sections {
            let Written::Mapping(things) = &section.value.kind else {
                wrong_shape(&section.value, "a mapping of names", faults);
                continue;
            };
            for thing in things {
                let names = self.judge_text(&thing.key, thing.key_place, faults);
                if section.key != "groups" && !names.contains(STATION) {
                    faults.add(
                        Fault::new(
                            Code::SameAtEveryStation,
                            thing.key_place,
                            format!(
                                "`{}` would be called the same at every station",
                                excerpt(&thing.key)
                            ),
                        )
                        .label("no `$(station)` in it")
                        .help(format!(
                            "write for instance `$(station)-{}`, or define it outside the template, once",
                            excerpt(&thing.key)
                        )),
                    );
                }
                used.extend(names);
                self.judge_node(&thing.value, &mut used, faults);
            }
        }
        for (name, parameter) in &self.parameters {
            if !used.contains(name) {
                faults.add(
                    Fault::new(
                        Code::ParameterUnused,
                        parameter.place,
                        format!("the template does not use its parameter `{name}`"),
                    )
                    .label(format!("`$({name})` stands nowhere"))
                    .help("use it, or remove it here and at the stations"),
                );
            }
        }
    }

    fn judge_node(&self, node: &Node, used: &mut BTreeSet<String>, faults: &mut Faults) {
        match &node.kind {
            Written::Scalar { text, .. } => used.extend(self.judge_text(text, node.place, faults)),
            Written::List(items) => {
                for item in items {
                    self.judge_node(item, used, faults);
                }
            }
            Written::Mapping(entries) => {
                for entry in entries {
                    used.extend(self.judge_text(&entry.key, entry.key_place, faults));
                    self.judge_node(&entry.value, used, faults);
                }
            }
            Written::Broken => {}
        }
    }

    /// The parameters that a text names.
    fn judge_text(&self, text: &str, place: Place, faults: &mut Faults) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let pieces = match placeholder::pieces(text) {
            Ok(pieces) => pieces,
            Err(reason) => {
                faults.add(
                    Fault::new(Code::BadPlaceholder, place, reason)
                        .label("expected: `$(name)`, `$(name + 5)` or `$(name.length)`")
                        .help("for the two characters `$(` themselves write `$$(`"),
                );
                return names;
            }
        };
        for piece in pieces {
            let Piece::Placeholder { name, wanted } = piece else {
                continue;
            };
            let kind = match self.parameters.get(&name) {
                Some(parameter) => Some(parameter.kind),
                None => (name == STATION).then_some(Kind::Text),
            };
            match kind {
                Some(kind) => {
                    if let Some(reason) = placeholder::unfit(&name, kind, wanted) {
                        faults.add(
                            Fault::new(Code::BadPlaceholder, place, reason).label("in this placeholder"),
                        );
                    }
                }
                None => {
                    let known = self.parameters.keys().map(String::as_str).chain([STATION]);
                    faults.add(
                        Fault::new(
                            Code::BadPlaceholder,
                            place,
                            format!("the template has no parameter `{name}`"),
                        )
                        .label("unknown parameter")
                        .help(suggest::help(&name, known)),
                    );
                }
            }
            names.insert(name);
        }
        names
    }

    /// What a station gives, and what holds by default. `None` if something is missing, wrong or too much.
    pub(super) fn values(&self, station: &str, written: &Node, faults: &mut Faults) -> Option<Values> {
        let before = faults.errors();
        let known: Vec<&str> = self
            .parameters
            .keys()
            .map(String::as_str)
            .chain([TEMPLATE])
            .collect();
        let record = Record::open(written, format!("the station `{station}`"), &known, faults)?;
        let mut values = Values::new();
        values.insert(
            STATION.to_owned(),
            Given {
                value: Value::Text(station.to_owned()),
                plain: true,
            },
        );
        for (name, parameter) in &self.parameters {
            let given = match (record.written(name), &parameter.default) {
                (Some(node), _) => Given::read(parameter.kind, node, faults),
                (None, Some(default)) => Some(default.clone()),
                (None, None) => {
                    faults.add(
                        Fault::new(
                            Code::MissingKey,
                            written.place,
                            format!("the station `{station}` has no `{name}`"),
                        )
                        .label(format!("`{name}` is missing"))
                        .related(parameter.place, "the template asks for it here")
                        .help(format!("add `{name}`: {}", parameter.kind.with_article())),
                    );
                    None
                }
            };
            if let Some(given) = given {
                values.insert(name.clone(), given);
            }
        }
        (faults.errors() == before).then_some(values)
    }

    /// The sections with the station's values. `None` if there is no room for them.
    pub(super) fn fill(
        &self,
        station: usize,
        values: &Values,
        budget: &mut Budget,
        faults: &mut Faults,
    ) -> Option<Filled> {
        let mut filled = Filled::default();
        let mut filling = Filling {
            station,
            values,
            budget,
            faults,
        };
        for section in &self.sections {
            match SECTIONS.iter().find(|name| **name == section.key) {
                Some(name) => filled.sections.push((*name, filling.entry(section)?)),
                None => {
                    let Written::Mapping(groups) = &section.value.kind else {
                        continue;
                    };
                    for group in groups {
                        let entry = filling.entry(group)?;
                        let members = entry.value.clone();
                        filled.groups.push((entry, members));
                    }
                }
            }
        }
        Some(filled)
    }
}

fn parameters(node: &Node, faults: &mut Faults) -> Option<BTreeMap<String, Parameter>> {
    let Written::Mapping(entries) = &node.kind else {
        wrong_shape(node, "a mapping of parameters, such as `net: network`", faults);
        return None;
    };
    let mut parameters = BTreeMap::new();
    let mut whole = true;
    for entry in entries {
        if let Some(reason) = parameter::bad_name(&entry.key) {
            faults.add(Fault::new(Code::BadName, entry.key_place, reason));
            whole = false;
        }
        match Parameter::read(&entry.value, entry.key_place, faults) {
            Some(parameter) => {
                parameters.insert(entry.key.clone(), parameter);
            }
            None => whole = false,
        }
    }
    whole.then_some(parameters)
}

/// A template while it is filled in for one station.
struct Filling<'a> {
    station: usize,
    values: &'a Values,
    budget: &'a mut Budget,
    faults: &'a mut Faults,
}

impl Filling<'_> {
    fn entry(&mut self, entry: &Entry) -> Option<Entry> {
        let key_place = entry.key_place.filled_for(self.station);
        let (key, key_plain) = self.text(&entry.key, entry.key_plain, key_place)?;
        Some(Entry {
            key,
            key_plain,
            key_place,
            value: self.node(&entry.value)?,
        })
    }

    fn node(&mut self, node: &Node) -> Option<Node> {
        let place = node.place.filled_for(self.station);
        let kind = match &node.kind {
            Written::Scalar { text, plain } => {
                let (text, plain) = self.text(text, *plain, place)?;
                Written::Scalar { text, plain }
            }
            Written::List(items) => {
                self.budget.take(0)?;
                Written::List(items.iter().map(|item| self.node(item)).collect::<Option<_>>()?)
            }
            Written::Mapping(entries) => {
                self.budget.take(0)?;
                let mut filled: Vec<Entry> = Vec::with_capacity(entries.len());
                let mut keys = BTreeMap::new();
                for entry in entries {
                    let entry = self.entry(entry)?;
                    if let Some(first) = keys.insert(entry.key.clone(), entry.key_place) {
                        self.faults.add(
                            Fault::new(
                                Code::DuplicateKey,
                                entry.key_place,
                                format!("the key `{}` is given twice", excerpt(&entry.key)),
                            )
                            .label("again here, filled in")
                            .related(first, "first given here")
                            .help("keep one of the two, or let the placeholders differ"),
                        );
                        continue;
                    }
                    filled.push(entry);
                }
                Written::Mapping(filled)
            }
            Written::Broken => Written::Broken,
        };
        Some(Node { place, kind })
    }

    /// The text with its placeholders filled in, and whether all of it was written without quotes.
    fn text(&mut self, text: &str, plain: bool, place: Place) -> Option<(String, bool)> {
        // Judged before: what is wrong with the placeholder itself leaves no template to fill.
        let pieces = placeholder::pieces(text).unwrap_or_default();
        let (mut filled, mut all_plain) = (String::new(), plain);
        for piece in pieces {
            match piece {
                Piece::Text(text) => filled.push_str(&text),
                Piece::Placeholder { name, wanted } => {
                    let Some(given) = self.values.get(&name) else {
                        continue;
                    };
                    match placeholder::fill(&name, &given.value, wanted) {
                        Ok(text) => filled.push_str(&text),
                        Err(reason) => self.faults.add(
                            Fault::new(Code::OutsideParameter, place, reason)
                                .label("outside")
                                .help("correct the number here, or what the station gives"),
                        ),
                    }
                    all_plain &= given.plain;
                }
            }
            // There are never more characters than bytes.
            if filled.len() > TEXT_LENGTH_MAX && filled.chars().nth(TEXT_LENGTH_MAX).is_some() {
                let message = format!("filled in, the text has more than {TEXT_LENGTH_MAX} characters");
                self.faults.add(
                    Fault::new(Code::TooLarge, place, message).help("shorten it here, or at the station"),
                );
                // It was work all the same.
                self.budget.take(filled.len())?;
                filled.clear();
                break;
            }
        }
        self.budget.take(filled.len())?;
        Some((filled, all_plain))
    }
}
