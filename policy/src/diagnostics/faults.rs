//! The collector that every reading and checking function is given: it takes faults in any order and number,
//! and hands them out sorted, bounded and with their places resolved.
//!
//! What is wrong in a template is wrong at each of its stations. Such a fault is listed once, with the first station in its
//! sentence and the others counted: a hundred stations would otherwise hide everything else.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::codes::Code;
use super::source::{Place, Sources};
use super::{Diagnostic, Diagnostics, Location, RelatedPlace, Severity};

/// How many errors are kept, and as many warnings; the rest is counted and said in one more.
pub(crate) const FAULTS_MAX: usize = 1000;

/// One fault as it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    code: Code,
    place: Option<Place>,
    message: String,
    label: String,
    help: Option<String>,
    related: Vec<(Place, String)>,
}

impl Fault {
    pub(crate) fn new(code: Code, place: impl Into<Option<Place>>, message: impl Into<String>) -> Self {
        Self {
            code,
            place: place.into(),
            message: message.into(),
            label: "here".to_owned(),
            help: None,
            related: Vec::new(),
        }
    }

    /// The words that stand at the place.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// What to do.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Another place, with what is there.
    pub(crate) fn related(mut self, place: Place, note: impl Into<String>) -> Self {
        self.related.push((place, note.into()));
        self
    }
}

/// A station that was made from a template, to be named beside a fault in the template.
#[derive(Debug, Clone)]
pub(crate) struct StationPlace {
    pub(crate) name: String,
    pub(crate) place: Place,
}

/// The same code at the same place of a template.
type InTemplate = (usize, usize, usize, Code);

/// The stations at which one place of a template is faulty.
#[derive(Debug)]
struct AtStations {
    /// Whose faults are listed.
    first: usize,
    others: BTreeSet<usize>,
}

impl AtStations {
    fn first(first: usize) -> Self {
        Self {
            first,
            others: BTreeSet::new(),
        }
    }
}

/// All faults so far.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    found: Vec<Fault>,
    /// By their numbers ([`Place::station`]).
    stations: Vec<StationPlace>,
    /// Where in a template faults were found, each with its stations.
    in_templates: HashMap<InTemplate, AtStations>,
    dropped: usize,
    errors: usize,
    warnings: usize,
}

impl Faults {
    /// Takes one more.
    pub(crate) fn add(&mut self, fault: Fault) {
        if let Some((place, station)) = fault.place.and_then(|place| Some((place, place.station?))) {
            let known = self
                .in_templates
                .entry(in_template(place, fault.code))
                .or_insert_with(|| AtStations::first(station));
            if known.first != station {
                known.others.insert(station);
                return;
            }
        }
        let count = match fault.code.severity() {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= FAULTS_MAX {
            self.found.push(fault);
        } else {
            self.dropped += 1;
        }
    }

    /// Whether further errors are only counted.
    pub(crate) fn full(&self) -> bool {
        self.errors >= FAULTS_MAX
    }

    /// Errors so far, those dropped included.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// Forgets those whose code is not wanted.
    pub(crate) fn retain(&mut self, wanted: impl Fn(Code) -> bool) {
        self.found.retain(|fault| wanted(fault.code));
    }

    /// Says which stations the places in templates are about.
    pub(crate) fn name_stations(&mut self, stations: Vec<StationPlace>) {
        self.stations = stations;
    }

    /// The names of those stations, by their numbers.
    pub(crate) fn stations(&self) -> impl Iterator<Item = &str> {
        self.stations.iter().map(|station| station.name.as_str())
    }

    /// Takes all of another collection, which knows of no station.
    pub(crate) fn take_over(&mut self, other: Self) {
        self.dropped += other.dropped;
        for fault in other.found {
            self.add(fault);
        }
    }

    /// Sorted by place and code, each once, with lines and columns.
    pub(crate) fn finish(mut self, sources: Arc<Sources>) -> Diagnostics {
        let key = |fault: &Fault| (fault.place, fault.code);
        self.found
            .sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message)));
        self.found.dedup();
        if self.dropped > 0 {
            let message = format!(
                "there are {} more faults than the {FAULTS_MAX} listed",
                self.dropped
            );
            self.found.push(
                Fault::new(Code::TooManyFaults, None, message).help("fix these first, then check again"),
            );
        }
        let named = std::mem::take(&mut self.found);
        let items = named
            .into_iter()
            .map(|fault| resolve(self.with_its_stations(fault), &sources))
            .collect();
        Diagnostics::new(items, sources)
    }

    /// The fault with its station in its sentence, if it was found in a template.
    fn with_its_stations(&self, mut fault: Fault) -> Fault {
        let Some(place) = fault.place.filter(|place| place.station.is_some()) else {
            return fault;
        };
        let all = self.in_templates.get(&in_template(place, fault.code));
        let named = place.station.and_then(|number| self.stations.get(number));
        if let (Some(station), Some(all)) = (named, all) {
            let others = match all.others.len() {
                0 => String::new(),
                1 => ", and at 1 other".to_owned(),
                n => format!(", and at {n} others"),
            };
            let at = format!(" (at the station `{}`{others})", station.name);
            fault.message.push_str(&at);
            fault = fault.related(station.place, format!("the station `{}`", station.name));
        }
        fault
    }
}

fn in_template(place: Place, code: Code) -> InTemplate {
    (place.file, place.start, place.end, code)
}

fn resolve(fault: Fault, sources: &Sources) -> Diagnostic {
    let locate = |place: Place| -> Option<Location> { sources.locate(place) };
    Diagnostic {
        code: fault.code,
        severity: fault.code.severity(),
        message: fault.message,
        location: fault.place.and_then(locate),
        label: fault.label,
        help: fault.help,
        related: fault
            .related
            .into_iter()
            .filter_map(|(place, note)| locate(place).map(|location| RelatedPlace { location, note }))
            .collect(),
    }
}
