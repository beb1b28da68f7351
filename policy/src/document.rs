//! The plant document: from the text of one file or of a folder of them to the grammar's records.
//!
//! [`load`] is the way in. The files are parsed one by one (`parse`), joined (`merge`), templates and groups are written out
//! (`expand`), and what they come to is read strictly against the grammar (`grammar`, `read`), and judged as a whole by [`crate::validate`]. Every stage goes on after a
//! fault, so that all of them come at once; none of them returns a plant if there was any error.

pub(crate) mod addresses;
pub(crate) mod break_glass;
pub mod definitions;
pub(crate) mod expand;
pub mod files;
pub mod format;
pub(crate) mod frames;
pub(crate) mod grammar;
pub mod limits;
mod merge;
pub(crate) mod names;
pub(crate) mod node;
pub(crate) mod numbers;
pub(crate) mod operations;
pub(crate) mod parse;
pub(crate) mod per_end;
pub(crate) mod read;
pub(crate) mod scalars;
pub mod services;
pub mod suggest;
#[cfg(test)]
mod tests;
pub(crate) mod times;
pub(crate) mod tls;
mod vocabulary;

use std::sync::Arc;

use jiff::civil::Date;

use self::definitions::Definitions;
use self::limits::{DOCUMENT_BYTES_MAX, FILES_MAX};
use self::node::Node;
use self::read::Term;
pub use self::scalars::taken_for;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::{Place, Sources};
use crate::diagnostics::{Diagnostics, SourceFile};
use crate::model::Plant;
use crate::validate::validate;

/// What came of a document.
#[derive(Debug, Clone)]
pub struct LoadedDocument {
    /// The plant, unless there was any error.
    pub plant: Option<Plant>,
    /// All errors and warnings.
    pub diagnostics: Diagnostics,
    /// Where what is in the plant is defined; nothing, if there is none.
    pub definitions: Definitions,
}

/// Reads and judges a plant document. `today` decides what has expired; the same input gives the same output.
///
/// Files are taken in the order of their names, whatever the order in `files`.
///
/// ```
/// use jiff::civil::date;
/// use penstock_policy::diagnostics::SourceFile;
///
/// let file = SourceFile::new("plant.yaml", "plant: works\nzonse: {}\n");
/// let loaded = penstock_policy::load(&[file], date(2026, 12, 1));
/// assert!(loaded.plant.is_none());
/// let said: Vec<_> = loaded.diagnostics.iter().map(|one| one.message.clone()).collect();
/// assert!(said.iter().any(|message| message.contains("`zonse`")), "{said:?}");
/// ```
pub fn load(files: &[SourceFile], today: Date) -> LoadedDocument {
    let sources = Arc::new(Sources::new(files));
    let mut faults = Faults::default();
    let read = read(&sources, today, &mut faults).filter(|_| faults.errors() == 0);
    let (plant, definitions) = match read {
        Some((plant, document)) => (Some(plant), Definitions::of(&document, Arc::clone(&sources))),
        None => (None, Definitions::none(Arc::clone(&sources))),
    };
    LoadedDocument {
        plant,
        diagnostics: faults.finish(sources),
        definitions,
    }
}

fn read(sources: &Sources, today: Date, faults: &mut Faults) -> Option<(Plant, grammar::Document)> {
    let bytes: usize = sources.files.iter().map(|file| file.text.len()).sum();
    if bytes > DOCUMENT_BYTES_MAX || sources.files.len() > FILES_MAX {
        let message = format!(
            "the document has {bytes} bytes in {} files; {}",
            sources.files.len(),
            limits::in_words()
        );
        faults.add(Fault::new(Code::TooLarge, None, message).help("divide it into several plants"));
        return None;
    }
    let mut nodes = 0;
    let mut roots = Vec::new();
    let mut whole = true;
    for (number, file) in sources.files.iter().enumerate() {
        let before = faults.errors();
        if let Some(secret) = &file.secret {
            let place = Place::new(number, secret.at, secret.at);
            let message = format!("{} stands here, and no plant document holds one", secret.what);
            faults.add(
                Fault::new(Code::SecretInText, place, message)
                    .help("name another file, or take the secret out and replace it; nothing of this file was read or shown"),
            );
            whole = false;
            continue;
        }
        match parse::parse(number, &file.text, &mut nodes, faults) {
            Some(root) => roots.push(root),
            // An empty file among others says nothing and needs nothing.
            None => whole &= faults.errors() == before,
        }
    }
    let root = merge::merge(roots, faults);
    let Some(root) = root else {
        if whole && faults.errors() == 0 {
            faults.add(
                Fault::new(Code::EmptyDocument, None, "there is no plant in what was read")
                    .help("a plant document begins with `plant: NAME`; `penstock init` writes a first one"),
            );
        }
        return None;
    };
    // With a part of the text unread, what is missing or unknown cannot be told from what was not reached.
    if !whole {
        let mut aside = Faults::default();
        std::mem::swap(faults, &mut aside);
        if let Some(root) = expand::expand(root, nodes, &mut Faults::default()) {
            grammar::Document::read(&root, faults);
        }
        faults.retain(|code| !matches!(code, Code::MissingKey));
        faults.take_over(aside);
        return None;
    }
    let root = expand::expand(root, nodes, faults)?;
    let document = grammar::Document::read(&root, faults)?;
    debug_assert!(
        document.templates.is_absent() && document.stations.is_absent() && document.groups.is_absent(),
        "what is written out holds none of these"
    );
    let plant = validate(&document, today, faults)?;
    Some((plant, document))
}

/// A document with its templates filled in and its groups written out.
#[derive(Debug)]
pub struct Expanded {
    root: Node,
    /// The stations, by their numbers.
    stations: Vec<String>,
}

impl Expanded {
    /// The document as somebody would have written it by hand: one file, without comments.
    pub fn text(&self) -> String {
        expand::written::written(&self.root, None)
    }

    /// What one station came to, section by section; `None` if there is none of that name.
    pub fn station(&self, name: &str) -> Option<String> {
        let number = self.stations.iter().position(|station| station == name)?;
        Some(expand::written::written(&self.root, Some(number)))
    }

    /// The names of all stations, in the order of the text.
    pub fn stations(&self) -> impl Iterator<Item = &str> {
        self.stations.iter().map(String::as_str)
    }
}

/// Fills in the templates of a document and writes out its groups. `None` if it cannot be read that far; [`load`] says why.
pub fn expanded(files: &[SourceFile]) -> Option<Expanded> {
    let sources = Sources::new(files);
    let mut faults = Faults::default();
    let mut nodes = 0;
    let mut roots = Vec::new();
    for (number, file) in sources.files.iter().enumerate() {
        roots.extend(parse::parse(number, &file.text, &mut nodes, &mut faults));
    }
    let root = merge::merge(roots, &mut faults)?;
    let root = expand::expand(root, nodes, &mut faults)?;
    (faults.errors() == 0).then(|| Expanded {
        stations: faults.stations().map(str::to_owned).collect(),
        root,
    })
}
