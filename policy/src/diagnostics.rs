//! What is wrong with a document, where, and what to do about it: all of it at once, in a fixed order.
//!
//! [`codes`] holds the table of codes, [`source`] turns byte offsets into lines and columns, [`faults`]
//! collects while a document is read, [`render`] draws for a person. A [`Diagnostic`] itself is plain data
//! that serialises to JSON; its order is by file, place and code, so the same document gives the same bytes.

pub mod codes;
pub(crate) mod faults;
pub mod render;
pub mod source;

use std::sync::Arc;

use serde::Serialize;

pub use self::codes::{Code, Severity};
pub use self::render::Style;
use self::source::Sources;
pub use self::source::{NotUtf8, SourceFile};

/// One thing that is wrong or doubtful.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Stable code; `penstock explain CODE` says more.
    pub code: Code,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, with the names it is about.
    pub message: String,
    /// Where. `None` only where no file has anything to point at.
    pub location: Option<Location>,
    /// A few words to stand at the place.
    pub label: String,
    /// What to do.
    pub help: Option<String>,
    /// Other places that belong to it.
    pub related: Vec<RelatedPlace>,
}

/// Another place that belongs to a diagnostic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RelatedPlace {
    /// Where.
    pub location: Location,
    /// What is there.
    pub note: String,
}

/// A stretch of text in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Location {
    /// The file's name as it was given.
    pub file: String,
    /// Line of the first character, from 1.
    pub line: usize,
    /// Column of the first character, in characters from 1.
    pub column: usize,
    /// Line on which it ends, from 1.
    pub end_line: usize,
    /// Column after the last character, in characters from 1.
    pub end_column: usize,
    /// First byte, from 0.
    pub offset: usize,
    /// Length in bytes.
    pub length: usize,
}

/// All diagnostics of one document, errors and warnings, in the order of the text.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    items: Vec<Diagnostic>,
    sources: Arc<Sources>,
}

impl Diagnostics {
    pub(crate) fn new(items: Vec<Diagnostic>, sources: Arc<Sources>) -> Self {
        Self { items, sources }
    }

    /// One of them alone, with the same files.
    #[cfg(test)]
    pub(crate) fn only(all: &Self, one: &Diagnostic) -> Self {
        Self {
            items: vec![one.clone()],
            sources: Arc::clone(&all.sources),
        }
    }

    /// Each of them, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.items.iter()
    }

    /// Nothing is wrong and nothing doubtful.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many there are, errors and warnings together.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The errors.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.items.iter().filter(|item| item.severity == Severity::Error)
    }

    /// The warnings.
    pub fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.items
            .iter()
            .filter(|item| item.severity == Severity::Warning)
    }

    /// Whether any is an error.
    pub fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }

    /// All of them as text for a person, each with its snippet.
    pub fn render(&self, style: Style) -> String {
        self.items
            .iter()
            .map(|item| render::render(item, &self.sources, style))
            .collect()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Serialize for Diagnostics {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.items.serialize(serializer)
    }
}
