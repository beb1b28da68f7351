//! The collector that every reading and checking function is given: it takes faults in any order and number,
//! and hands them out sorted, bounded and with their places resolved.

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

/// All faults so far.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    found: Vec<Fault>,
    dropped: usize,
    errors: usize,
    warnings: usize,
}

impl Faults {
    /// Takes one more.
    pub(crate) fn add(&mut self, fault: Fault) {
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

    /// Takes all of another collection.
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
        let items = self
            .found
            .into_iter()
            .map(|fault| resolve(fault, &sources))
            .collect();
        Diagnostics::new(items, sources)
    }
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
