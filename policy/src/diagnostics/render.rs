//! Diagnostics as a person sees them: the snippet with its marks, or plain sentences for logs and screen readers.

use std::fmt;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NarratableReportHandler, SourceCode};

use super::source::{IndexedFile, Sources};
use super::{Diagnostic, Location, Severity};

/// How to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Snippets with lines and marks, `width` columns wide.
    Graphical {
        /// Use colours (ANSI).
        colour: bool,
        /// Columns of the terminal.
        width: usize,
    },
    /// Sentences without drawing.
    Narrated,
}

/// One diagnostic in the shape that miette draws. Places in other files are reports of their own below it.
struct Report<'a> {
    message: String,
    code: Option<String>,
    severity: miette::Severity,
    help: Option<&'a str>,
    file: Option<&'a IndexedFile>,
    labels: Vec<LabeledSpan>,
    elsewhere: Vec<Report<'a>>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.code
            .as_ref()
            .map(|code| Box::new(code) as Box<dyn fmt::Display>)
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.file.map(|file| file as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        if self.elsewhere.is_empty() {
            return None;
        }
        Some(Box::new(
            self.elsewhere
                .iter()
                .map(|report| report as &dyn miette::Diagnostic),
        ))
    }
}

impl<'a> Report<'a> {
    fn of(diagnostic: &'a Diagnostic, sources: &'a Sources) -> Self {
        let severity = match diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        };
        let mut report = Self {
            message: diagnostic.message.clone(),
            code: Some(diagnostic.code.to_string()),
            severity,
            help: diagnostic.help.as_deref(),
            file: None,
            labels: Vec::new(),
            elsewhere: Vec::new(),
        };
        if let Some(location) = &diagnostic.location {
            report.file = sources
                .file(&location.file)
                .filter(|file| file.shown_at(location.offset));
            if report.file.is_none() {
                let at = format!(" ({}:{}:{})", location.file, location.line, location.column);
                report.message.push_str(&at);
            }
            report.labels.push(LabeledSpan::new_primary_with_span(
                Some(diagnostic.label.clone()),
                span(location),
            ));
        }
        for related in &diagnostic.related {
            let file = sources
                .file(&related.location.file)
                .filter(|file| file.shown_at(related.location.offset));
            let same_file = report.file.zip(file).is_some_and(|(a, b)| a.name == b.name);
            if same_file {
                report.labels.push(LabeledSpan::new_with_span(
                    Some(related.note.clone()),
                    span(&related.location),
                ));
            } else {
                // Without a file of its own it would be drawn in that of the report around it.
                let at = &related.location;
                let message = match file {
                    Some(_) => related.note.clone(),
                    None => format!("{} ({}:{}:{})", related.note, at.file, at.line, at.column),
                };
                let labels = file.map(|_| LabeledSpan::new_primary_with_span(None, span(at)));
                report.elsewhere.push(Self {
                    message,
                    code: None,
                    severity: miette::Severity::Advice,
                    help: None,
                    file,
                    labels: labels.into_iter().collect(),
                    elsewhere: Vec::new(),
                });
            }
        }
        report
    }
}

fn span(location: &Location) -> (usize, usize) {
    (location.offset, location.length)
}

pub(super) fn render(diagnostic: &Diagnostic, sources: &Sources, style: Style) -> String {
    let report = Report::of(diagnostic, sources);
    let mut text = String::new();
    // Writing to a string cannot fail; should miette refuse to draw, the sentence itself still stands.
    let drawn = match style {
        Style::Graphical { colour, width } => {
            let theme = if colour {
                GraphicalTheme::unicode()
            } else {
                GraphicalTheme::unicode_nocolor()
            };
            GraphicalReportHandler::new_themed(theme)
                .with_width(width.max(40))
                .with_links(false)
                .with_break_words(false)
                .with_context_lines(1)
                .render_report(&mut text, &report)
        }
        Style::Narrated => NarratableReportHandler::new()
            .with_context_lines(1)
            .render_report(&mut text, &report),
    };
    if drawn.is_err() {
        text = format!("{}: {}\n", diagnostic.code, diagnostic.message);
    }
    text
}
