//! The text of the files that make up a document, and where in it an offset is.
//!
//! The pure crate reads no files: whoever does hands over names and texts. Order does not matter, since
//! [`Sources::new`] sorts by name, so a folder gives the same diagnostics however the disk lists it.

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

use super::Location;
use crate::secrets::{self, Secret};

/// One file of a plant document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Name for messages: a path as the person gave it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A file that is not text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} is not UTF-8 text: line {line} holds the byte 0x{byte:02x}, which cannot stand there; save the file as UTF-8"
)]
pub struct NotUtf8 {
    /// The file.
    pub name: String,
    /// Line of the first wrong byte, from 1.
    pub line: usize,
    /// Its offset, from 0.
    pub offset: usize,
    /// The byte.
    pub byte: u8,
}

impl SourceFile {
    /// A file with its text.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }

    /// A file from the bytes that were read, which must be UTF-8.
    ///
    /// # Errors
    /// The bytes are not UTF-8; the error names the line and the byte.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Result<Self, NotUtf8> {
        let name = name.into();
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { name, text }),
            Err(error) => {
                let offset = error.utf8_error().valid_up_to();
                let before = error.as_bytes().get(..offset).unwrap_or_default();
                let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
                let byte = error.as_bytes().get(offset).copied().unwrap_or_default();
                Err(NotUtf8 {
                    name,
                    line,
                    offset,
                    byte,
                })
            }
        }
    }
}

/// Lines with more bytes than this are not drawn: a wall of text would hide the sentence it is about.
const LINE_SHOWN_MAX: usize = 400;

/// Where in the files something stands: bytes `start..end` of file number `file`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) file: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The station, by its number, for which a template's text at this place was filled in.
    pub(crate) station: Option<usize>,
}

impl Place {
    /// What stands there as written.
    pub(crate) fn new(file: usize, start: usize, end: usize) -> Self {
        Self {
            file,
            start,
            end,
            station: None,
        }
    }

    /// What stands there in a template, filled in for a station.
    pub(crate) fn filled_for(self, station: usize) -> Self {
        Self {
            station: Some(station),
            ..self
        }
    }
}

/// All files of a document, by name.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) files: Vec<IndexedFile>,
}

impl Sources {
    pub(crate) fn new(files: &[SourceFile]) -> Self {
        let mut sorted: Vec<&SourceFile> = files.iter().collect();
        sorted.sort_by(|a, b| (&a.name, &a.text).cmp(&(&b.name, &b.text)));
        Self {
            files: sorted.into_iter().map(IndexedFile::new).collect(),
        }
    }

    /// The place as lines and columns.
    pub(crate) fn locate(&self, place: Place) -> Option<Location> {
        let file = self.files.get(place.file)?;
        let (line, column) = file.position(place.start);
        let (end_line, end_column) = file.position(place.end.max(place.start));
        Some(Location {
            file: file.name.clone(),
            line,
            column,
            end_line,
            end_column,
            offset: place.start,
            length: place.end.saturating_sub(place.start),
        })
    }

    pub(crate) fn file(&self, name: &str) -> Option<&IndexedFile> {
        self.files.iter().find(|file| file.name == name)
    }
}

/// A file with the offsets at which its lines begin.
#[derive(Debug)]
pub(crate) struct IndexedFile {
    pub(crate) name: String,
    pub(crate) text: String,
    /// A secret in it: no line of the file is shown then.
    pub(crate) secret: Option<Secret>,
    line_starts: Vec<usize>,
}

impl IndexedFile {
    fn new(file: &SourceFile) -> Self {
        let after_breaks = file
            .text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| at + 1);
        Self {
            name: file.name.clone(),
            text: file.text.clone(),
            secret: secrets::find(&file.text),
            line_starts: std::iter::once(0).chain(after_breaks).collect(),
        }
    }

    /// Number of the line (from 0) that holds the byte `offset`, and where that line starts.
    fn line_of(&self, offset: usize) -> (usize, usize) {
        let line = self
            .line_starts
            .partition_point(|start| *start <= offset)
            .saturating_sub(1);
        (line, self.line_starts.get(line).copied().unwrap_or(0))
    }

    /// Whether a line (from 0) may be shown to a person: short enough, with nothing in it that a terminal obeys, and from a
    /// file without a secret.
    fn shown(&self, line: usize) -> bool {
        if self.secret.is_some() {
            return false;
        }
        let start = self.line_starts.get(line).copied().unwrap_or(0);
        let end = self.line_starts.get(line + 1).copied().unwrap_or(self.text.len());
        let line = self.text.get(start..end).unwrap_or_default().trim_end();
        line.len() <= LINE_SHOWN_MAX && !line.contains(crate::text::is_hidden)
    }

    /// Whether the line that holds the byte `offset` may be shown to a person.
    pub(crate) fn shown_at(&self, offset: usize) -> bool {
        self.shown(self.line_of(offset).0)
    }

    /// Line and column of the byte `offset`, both from 1, the column in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let offset = offset.min(self.text.len());
        let (line, start) = self.line_of(offset);
        let column = self
            .text
            .get(start..offset)
            .map_or(1, |before| before.chars().count() + 1);
        (line + 1, column)
    }
}

/// Miette's own search counts lines from the top for every label; with an index a long file stays cheap.
impl SourceCode for IndexedFile {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let end = span
            .offset()
            .checked_add(span.len())
            .ok_or(MietteError::OutOfBounds)?;
        if end > self.text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let (mut first, mut last) = (self.line_of(span.offset()).0, self.line_of(end).0);
        for _ in 0..lines_before {
            first = first
                .checked_sub(1)
                .filter(|line| self.shown(*line))
                .unwrap_or(first);
        }
        for _ in 0..lines_after {
            let next = last + 1;
            last = if next < self.line_starts.len() && self.shown(next) {
                next
            } else {
                last
            };
        }
        let after = last + 1;
        let stop = self.line_starts.get(after).copied().unwrap_or(self.text.len());
        // Without context lines miette wants the contents to begin at the span itself, with its column.
        let (start, column) = if lines_before == 0 {
            (span.offset(), self.position(span.offset()).1 - 1)
        } else {
            (self.line_starts.get(first).copied().unwrap_or(0), 0)
        };
        let data = self
            .text
            .as_bytes()
            .get(start..stop)
            .ok_or(MietteError::OutOfBounds)?;
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            data,
            (start, data.len()).into(),
            first,
            column,
            after - first,
        )))
    }
}
