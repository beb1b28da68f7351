//! The plant document: from the text of one file or of a folder of them to the grammar's records.
//!
//! [`load`] is the way in. The files are parsed one by one (`parse`), joined (`merge`), read strictly against
//! the grammar (`grammar`, `read`), and judged as a whole by [`crate::validate`]. Every stage goes on after a
//! fault, so that all of them come at once; none of them returns a plant if there was any error.

pub(crate) mod addresses;
pub(crate) mod break_glass;
pub mod files;
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
pub(crate) mod suggest;
#[cfg(test)]
mod tests;
pub(crate) mod times;
pub(crate) mod tls;
mod vocabulary;

use std::sync::Arc;

use jiff::civil::Date;

use self::limits::{DOCUMENT_BYTES_MAX, FILES_MAX};
use self::read::Term;
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
    let plant = read(&sources, today, &mut faults);
    let plant = plant.filter(|_| faults.errors() == 0);
    LoadedDocument {
        plant,
        diagnostics: faults.finish(sources),
    }
}

fn read(sources: &Sources, today: Date, faults: &mut Faults) -> Option<Plant> {
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
            let place = Place {
                file: number,
                start: secret.at,
                end: secret.at,
            };
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
        grammar::Document::read(&root, faults);
        faults.retain(|code| !matches!(code, Code::MissingKey));
        faults.take_over(aside);
        return None;
    }
    let document = grammar::Document::read(&root, faults)?;
    validate(&document, today, faults)
}
