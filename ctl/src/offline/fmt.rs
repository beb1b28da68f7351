//! `fmt`: the files of a plant document in the one layout, comments and all.
//!
//! How a text is laid out is `penstock_policy`'s; here files are read and replaced. A file that would say something else is left alone, and so is
//! each of the others.

use std::path::Path;

use penstock_policy::document::format::{FormatError, formatted};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args;
use crate::documents::{BYTES_MAX, Documents, File};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// What became of the files.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Formatted {
    /// Only looked at, and nothing written.
    pub checked: bool,
    /// How many files the document has.
    pub files: usize,
    /// Those whose layout differs: they were written, or with `--check` would be.
    pub changed: Vec<String>,
}

impl Report for Formatted {
    const SCHEMA: &'static str = "penstock.fmt/1";
    fn page(&self, page: &mut Page) {
        for file in &self.changed {
            let (mark, words) = if self.checked {
                (page.paint(Tone::Warn, "▲"), "would be laid out differently")
            } else {
                (page.paint(Tone::Good, "✓"), "laid out")
            };
            let file = page.paint(Tone::Name, file);
            page.line(format!("{mark} {file} {words}"));
        }
        let rest = self.files - self.changed.len();
        if rest > 0 {
            page.line(format!("  {} as they should be", words::count(rest, "file")));
        }
    }
}

/// `penstock fmt`.
pub(crate) fn fmt(out: &Output, args: &args::Fmt) -> Result<Exit, Failure> {
    let from_stdin = args.path.as_os_str() == "-";
    let documents = if from_stdin {
        Documents::from_stdin()?
    } else {
        Documents::read(&args.path)?
    };
    // All are read before the first is written: a folder is not left half in another layout because of one file.
    let laid_out = documents
        .files
        .iter()
        .map(|file| Ok((file, layout(file)?)))
        .collect::<Result<Vec<_>, Failure>>()?;
    if from_stdin && !args.check {
        for (_, text) in &laid_out {
            out.text(text)?;
        }
        return Ok(Exit::Done);
    }
    let mut report = Formatted {
        checked: args.check,
        files: laid_out.len(),
        changed: Vec::new(),
    };
    for (file, text) in laid_out {
        if text.as_bytes() == file.content {
            continue;
        }
        if !args.check {
            put(Path::new(&file.shown), &file.content, &text)?;
        }
        report.changed.push(file.shown.clone());
    }
    out.show(&report)?;
    Ok(if args.check && !report.changed.is_empty() {
        Exit::Findings
    } else {
        Exit::Done
    })
}

fn layout(file: &File) -> Result<String, Failure> {
    let text = std::str::from_utf8(&file.content).map_err(|_| FormatError::Faulty);
    text.and_then(formatted).map_err(|error| {
        let (exit, code) = match error {
            FormatError::Faulty => (Exit::BadDocument, "not-formatted"),
            FormatError::Altered => (Exit::Local, "format-alters"),
        };
        Failure::new(exit, code, format!("{} is left as it is", file.shown))
            .because(error.to_string())
            .help("no file was written")
    })
}

/// Takes the place of the file that had this content, where a link leads and with the rights that it had.
fn put(path: &Path, before: &[u8], text: &str) -> Result<(), Failure> {
    let shown = path.display();
    let real = std::fs::canonicalize(path).map_err(|error| {
        Failure::local("file-unwritable", format!("{shown} cannot be found again")).caused_by(&error)
    })?;
    if files::read(&real, BYTES_MAX)? != before {
        let words = format!("{shown} was changed meanwhile, and is left as it is");
        return Err(Failure::local("file-changed", words).help("lay it out again"));
    }
    let rights = std::fs::metadata(&real).map(|found| found.permissions());
    // Never wider than it was, also if this ends here.
    files::replace(&real, text.as_bytes(), Mode::Secret)?;
    if let Ok(rights) = rights {
        std::fs::set_permissions(&real, rights).map_err(|error| {
            Failure::local(
                "file-unwritable",
                format!(
                    "{} was written, and could not be given its old rights",
                    real.display()
                ),
            )
            .caused_by(&error)
        })?;
    }
    Ok(())
}
