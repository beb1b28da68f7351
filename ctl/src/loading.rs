//! From the files of a document to a plant, or to all that is wrong with them.

use std::path::Path;

use penstock_policy::LoadedDocument;
use penstock_policy::diagnostics::{Diagnostics, SourceFile, Style};
use penstock_policy::document::Expanded;
use penstock_policy::ids::Digest;
use penstock_policy::model::Plant;

use crate::documents::Documents;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::{times, words};

/// A plant with the document it was read from.
#[derive(Debug, Clone)]
pub struct LoadedPlant {
    /// The plant.
    pub plant: Plant,
    /// Its files.
    pub documents: Documents,
    /// Their digest.
    pub digest: Digest,
    /// Warnings; there are no errors.
    pub diagnostics: Diagnostics,
}

/// How diagnostics are drawn on a stream: `out.style` for standard output, `out.error` for a failure's.
pub fn drawing(stream: output::Style) -> Style {
    Style::Graphical {
        colour: stream.color,
        width: stream.width,
    }
}

/// Reads a plant from disk; one with errors is a failure that tells them all.
pub(crate) fn load(path: &Path, out: &Output) -> Result<LoadedPlant, Failure> {
    judge(Documents::read(path)?, out)
}

/// Judges files that were read.
pub(crate) fn judge(documents: Documents, out: &Output) -> Result<LoadedPlant, Failure> {
    let LoadedDocument {
        plant, diagnostics, ..
    } = examine(&documents)?;
    match plant {
        Some(plant) => {
            times::settle_by_plant(&plant);
            Ok(LoadedPlant {
                plant,
                digest: documents.digest(),
                documents,
                diagnostics,
            })
        }
        None => Err(bad_document(&documents, &diagnostics, out)),
    }
}

/// The plant, if there are no errors, all diagnostics, and where things are defined.
///
/// # Errors
/// A file is not UTF-8. What is wrong with the documents themselves is in the diagnostics.
pub fn examine(documents: &Documents) -> Result<LoadedDocument, Failure> {
    Ok(penstock_policy::load(&sources(documents)?, words::today()))
}

/// A document that was loaded, with its templates filled in.
pub(crate) fn expanded(loaded: &LoadedPlant) -> Result<Expanded, Failure> {
    penstock_policy::document::expanded(&sources(&loaded.documents)?).ok_or_else(|| {
        Failure::new(
            Exit::BadDocument,
            "not-expanded",
            "the document cannot be written out",
        )
        .help("`penstock check` says what is wrong with it")
    })
}

fn sources(documents: &Documents) -> Result<Vec<SourceFile>, Failure> {
    let read = documents.files.iter().map(|file| {
        SourceFile::from_bytes(file.shown.clone(), file.content.clone())
            .map_err(|error| Failure::new(Exit::BadDocument, "not-utf8", error.to_string()))
    });
    read.collect()
}

/// A document with errors as a failure.
pub fn bad_document(documents: &Documents, diagnostics: &Diagnostics, out: &Output) -> Failure {
    let errors = diagnostics.errors().count();
    let named = match documents.files.as_slice() {
        [only] => only.shown.clone(),
        several => words::count(several.len(), "file"),
    };
    let mut failure = Failure::new(
        Exit::BadDocument,
        "document-errors",
        format!(
            "the plant document ({named}) has {}",
            words::count(errors, "error")
        ),
    )
    .help("`penstock explain CODE` says more about a code; nothing was compiled or changed");
    if out.for_people() {
        failure.drawn = Some(diagnostics.render(drawing(out.error)).into());
    }
    failure.diagnostics = serde_json::to_value(diagnostics).ok().map(Box::new);
    failure
}
