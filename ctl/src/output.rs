//! What leaves the program: pages for people, JSON for programs.
//!
//! Every answer is a [`Report`]: plain data that serialises to JSON (with its `schema`), and can write itself as
//! a page. Texts that came from elsewhere (documents, coordinator, audit trail) never carry characters to the terminal
//! that it obeys or that mislead ([`text::is_hidden`]): everything that is painted or put into a table goes through
//! [`clean`], every line through [`gate`], which leaves the colours that pages are painted with, and JSON through [`text::json`].

mod table;
mod terminal;
mod wrap;

use std::borrow::Cow;
use std::io::Write as _;
use std::sync::OnceLock;

use owo_colors::OwoColorize as _;
use penstock_policy::text;
use serde::Serialize;

use crate::args::{Color, Format};
use crate::failure::{Failure, PIPE_CLOSED};
use terminal::Surroundings;
pub use terminal::{obeys as terminal_obeys, rows as terminal_rows};
pub(crate) use wrap::columns;

/// A role of text on the page. None is told apart by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// Stands out.
    Strong,
    /// Stands back.
    Dim,
    /// As it should be.
    Good,
    /// Deserves a look.
    Warn,
    /// Is wrong.
    Bad,
    /// A name to find again.
    Name,
}

/// `text` without control characters; line ends become spaces.
pub fn clean(text: &str) -> Cow<'_, str> {
    match text::printable(text) {
        cleaned if cleaned.contains(['\n', '\t']) => Cow::Owned(cleaned.replace(['\n', '\t'], " ")),
        cleaned => cleaned,
    }
}

/// What pages are painted with, behind the escape character; anything else is no doing of ours.
const PAINTS: [&str; 15] = [
    "[0m", "[1m", "[2m", "[22m", "[31m", "[32m", "[33m", "[36m", "[39m", "[38;5;1m", "[38;5;2m", "[38;5;3m",
    "[38;5;6m", "[31;1m", "[1;31m",
];

/// A finished line as it may go to the terminal: with our own paint, and nothing else that it obeys.
fn gate(line: &str) -> Cow<'_, str> {
    if !line.contains(text::is_hidden) {
        return Cow::Borrowed(line);
    }
    let mut gated = String::with_capacity(line.len());
    let mut parts = line.split('\u{1b}');
    gated.push_str(&text::printable(parts.next().unwrap_or_default()));
    for part in parts {
        let painted = PAINTS.iter().any(|paint| part.starts_with(paint));
        gated.push(if painted { '\u{1b}' } else { '\u{fffd}' });
        gated.push_str(&text::printable(part));
    }
    Cow::Owned(gated)
}

/// How pages are drawn.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// ANSI colours.
    pub color: bool,
    /// Columns.
    pub width: usize,
    /// Lines end there: it is a terminal. Elsewhere a line may be as long as it is, so that programs find it in one piece.
    pub wrap: bool,
}

impl Style {
    /// `text`, cleaned and painted.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let text = clean(text);
        if !self.color {
            return text.into_owned();
        }
        match tone {
            Tone::Plain => text.into_owned(),
            Tone::Strong => text.bold().to_string(),
            Tone::Dim => text.dimmed().to_string(),
            Tone::Good => text.green().to_string(),
            Tone::Warn => text.yellow().to_string(),
            Tone::Bad => text.red().bold().to_string(),
            Tone::Name => text.cyan().to_string(),
        }
    }
}

/// A text under construction.
#[derive(Debug)]
pub struct Page {
    text: String,
    /// How it is drawn.
    pub style: Style,
}

impl Page {
    /// An empty page.
    pub fn new(style: Style) -> Self {
        Self {
            text: String::new(),
            style,
        }
    }

    /// `text`, cleaned and painted, to be put into a line.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        self.style.paint(tone, text)
    }

    /// A line; what it holds from elsewhere must have been painted or cleaned. At a terminal's edge it goes on below, two
    /// columns further in than it began.
    pub fn line(&mut self, line: impl AsRef<str>) {
        let line = gate(line.as_ref());
        self.hanging(wrap::indent(&line) + 2, &line);
    }

    /// A line that goes on behind `hang` spaces, if a terminal's edge is in its way.
    fn hanging(&mut self, hang: usize, line: &str) {
        if self.style.wrap {
            for line in wrap::lines(line, self.style.width, hang) {
                self.drawn(&line);
            }
        } else {
            self.drawn(line);
        }
    }

    /// What was laid out already, line by line; what it holds from elsewhere must have been cleaned.
    pub fn drawn(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// An empty line, unless there is one or the page has not begun.
    pub fn gap(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// `name  value` with the names in a column.
    pub fn facts(&mut self, facts: &[(&str, String)]) {
        let width = facts
            .iter()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0);
        for (name, value) in facts {
            let name = self.paint(Tone::Dim, &format!("{name:width$}"));
            self.hanging(width + 2, &gate(&format!("{name}  {value}")));
        }
    }

    /// A paragraph, wrapped to the page's width behind `indent` spaces.
    pub fn paragraph(&mut self, indent: usize, tone: Tone, text: &str) {
        let text = clean(text);
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() {
            return;
        }
        for line in wrap::lines(
            &words.join(" "),
            self.style.width.saturating_sub(indent).max(20),
            0,
        ) {
            let painted = self.paint(tone, &line);
            self.drawn(&format!("{:indent$}{painted}", ""));
        }
    }

    /// The finished text.
    pub fn finish(self) -> String {
        self.text
    }
}

/// An answer of a command.
pub trait Report: Serialize {
    /// Name and version of its JSON form: `penstock.check/1`.
    const SCHEMA: &'static str;
    /// Writes it for people.
    fn page(&self, page: &mut Page);
}

#[derive(Serialize)]
struct Tagged<'a, T: Serialize> {
    schema: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

/// Where remarks go that are shown with `--verbose` alone.
static TELLS_MORE: OnceLock<Output> = OnceLock::new();

/// What else was done, for who asked to know.
pub(crate) fn aside(text: &str) {
    if let Some(out) = TELLS_MORE.get() {
        out.remark(text);
    }
}

/// Where answers go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// For people or for programs.
    pub format: Format,
    /// How pages are drawn on standard output.
    pub style: Style,
    /// How standard error is drawn.
    pub error: Style,
    /// Standard output is a terminal that can be drawn over.
    pub live: bool,
}

impl Output {
    /// Decides by the arguments, and for each stream by where it goes.
    pub fn new(format: Format, color: Color) -> Self {
        let around = Surroundings::of_this_process();
        let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
        Self {
            format,
            style: around.style(&stdout, color),
            error: around.style(&stderr, color),
            live: around.can_be_drawn_over(&stdout),
        }
    }

    /// Whether a person reads.
    pub fn for_people(&self) -> bool {
        self.format == Format::Text
    }

    /// Shows a whole answer.
    pub(crate) fn show<R: Report>(&self, report: &R) -> Result<(), Failure> {
        match self.format {
            Format::Text => self.text(&self.page(report)),
            Format::Json => self.json(report, true),
        }
    }

    /// Shows one of many answers: a line of JSON, or the page without more.
    pub(crate) fn show_next<R: Report>(&self, report: &R) -> Result<(), Failure> {
        match self.format {
            Format::Text => self.text(&self.page(report)),
            Format::Json => self.json(report, false),
        }
    }

    /// The page of a report.
    pub fn page<R: Report>(&self, report: &R) -> String {
        let mut page = Page::new(self.style);
        report.page(&mut page);
        page.finish()
    }

    fn json<R: Report>(&self, report: &R, pretty: bool) -> Result<(), Failure> {
        self.text(&self.json_text(report, pretty)?)
    }

    fn json_text<R: Report>(&self, report: &R, pretty: bool) -> Result<String, Failure> {
        let tagged = Tagged {
            schema: R::SCHEMA,
            body: report,
        };
        let text = if pretty {
            serde_json::to_string_pretty(&tagged)
        } else {
            serde_json::to_string(&tagged)
        };
        let text = text.map_err(|error| {
            Failure::local("internal", "the answer cannot be written as JSON").caused_by(&error)
        })?;
        Ok(format!("{}\n", text::json(&text)))
    }

    /// Writes text to standard output as it is.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| {
                if error.kind() == std::io::ErrorKind::BrokenPipe {
                    Failure::local(PIPE_CLOSED, "")
                } else {
                    Failure::local("output-failed", "standard output cannot be written").caused_by(&error)
                }
            })
    }

    /// From here on [`aside`] is shown.
    pub(crate) fn tell_more(&self) {
        // It is asked for once.
        let _ = TELLS_MORE.set(*self);
    }

    /// A remark for people beside the answer; silent in JSON.
    pub fn remark(&self, text: &str) {
        if self.for_people() {
            // A remark that nobody can see is no reason to fail.
            let mut page = Page::new(self.error);
            page.line(clean(text));
            let _ = std::io::stderr().write_all(page.finish().as_bytes());
        }
    }

    /// What a person has to do elsewhere before the command goes on, by name: on standard error, for programs as one line of JSON.
    pub(crate) fn invite(&self, what: &[(&str, &str)]) {
        if self.for_people() {
            for (name, value) in what {
                self.remark(&format!("{name}: {value}"));
            }
            return;
        }
        let object: serde_json::Map<String, serde_json::Value> = what
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).into()))
            .collect();
        let line = format!("{}\n", text::json(&serde_json::Value::Object(object).to_string()));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    /// Says on standard error why the command failed: in JSON mode as JSON.
    pub fn fail(&self, failure: &Failure) {
        if &*failure.code == PIPE_CLOSED {
            return;
        }
        let text = match self.format {
            Format::Json => {
                #[derive(Serialize)]
                struct Body<'a> {
                    schema: &'static str,
                    exit: u8,
                    error: &'a Failure,
                }
                let body = Body {
                    schema: "penstock.error/1",
                    exit: failure.exit as u8,
                    error: failure,
                };
                let text = serde_json::to_string_pretty(&body).unwrap_or_default();
                text::json(&text).into_owned() + "\n"
            }
            Format::Text => self.failure_page(failure),
        };
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn failure_page(&self, failure: &Failure) -> String {
        let mut page = Page::new(self.error);
        if let Some(drawn) = &failure.drawn {
            page.drawn(drawn.trim_end_matches('\n'));
        }
        let (error, because, help) = (
            page.paint(Tone::Bad, "error:"),
            page.paint(Tone::Dim, "because"),
            page.paint(Tone::Good, "help:"),
        );
        let message = page.paint(Tone::Strong, &failure.message);
        page.line(format!("{error} {message}"));
        for why in &failure.because {
            page.line(format!("  {because} {}", clean(why)));
        }
        for advice in &failure.help {
            page.line(format!("  {help} {}", clean(advice)));
        }
        page.finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_from_elsewhere_cannot_command_the_terminal() {
        let style = Style {
            color: true,
            width: 80,
            wrap: true,
        };
        for tone in [Tone::Plain, Tone::Bad, Tone::Name] {
            let painted = style.paint(tone, "a\u{1b}]0;owned\u{7}b\u{9b}2J\u{202e}c");
            assert!(
                !painted.contains("\u{1b}]") && !painted.contains('\u{9b}'),
                "{painted:?}"
            );
            assert!(!painted.contains('\u{202e}') && !painted.contains('\u{7}'));
        }
        let mut page = Page::new(style);
        page.table(&["name"], &[vec![(Tone::Name, "x\u{1b}[2Jy\nz".to_owned())]]);
        page.paragraph(2, Tone::Plain, "x\u{1b}[2J");
        assert!(!page.finish().contains("\u{1b}[2J"));
    }

    /// What a terminal would obey or hide of what was printed, but for our own paint and the ends of lines.
    fn obeyed(printed: &str) -> String {
        let mut rest = printed.to_owned();
        for paint in PAINTS {
            rest = rest.replace(&format!("\u{1b}{paint}"), "");
        }
        rest.chars().filter(|c| text::is_hidden(*c)).collect()
    }

    #[derive(Serialize)]
    struct Sample {
        held: Vec<String>,
    }

    impl Report for Sample {
        const SCHEMA: &'static str = "penstock.test/1";
        fn page(&self, page: &mut Page) {
            for text in &self.held {
                // As it must not be written, and as it should.
                page.line(format!("unpainted: {text}"));
                let painted = page.paint(Tone::Bad, text);
                page.line(painted);
                page.paragraph(4, Tone::Warn, text);
                page.table(
                    &["text"],
                    &[vec![(Tone::Good, text.clone())], vec![(Tone::Name, text.clone())]],
                );
                page.facts(&[("text", page.paint(Tone::Dim, text))]);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 2))]
        #[test]
        fn whatever_another_party_sent_no_page_and_no_json_carries_a_character_that_a_terminal_obeys_or_hides(
            held in proptest::collection::vec(
                prop_oneof![
                    any::<String>(),
                    "([a-z ]|\u{1b}\\[[0-9;]{0,4}[mHJK]|[\u{0}-\u{1f}\u{7f}-\u{9f}\u{61c}\u{200b}\u{202e}\u{2066}\u{feff}\u{e0041}]){0,12}",
                ],
                1..4,
            ),
            color: bool, wrap: bool,
        ) {
            let report = Sample { held: held.clone() };
            let style = Style { color, width: 80, wrap };
            let output = Output { format: Format::Json, style, error: style, live: false };
            prop_assert_eq!(obeyed(&output.page(&report)), "");
            for pretty in [true, false] {
                let json = output.json_text(&report, pretty).unwrap();
                prop_assert!(!json.contains(text::is_hidden), "{json:?}");
                let read: serde_json::Value = serde_json::from_str(&json).unwrap();
                prop_assert_eq!(&read["held"], &serde_json::json!(held));
            }
            let mut failure = Failure::local("code", held[0].clone());
            failure = failure.because(held[0].clone()).help(held[0].clone());
            prop_assert_eq!(obeyed(&output.failure_page(&failure)), "");
        }
    }

    #[test]
    fn without_colour_there_is_no_escape_sequence_at_all() {
        let mut page = Page::new(Style {
            color: false,
            width: 80,
            wrap: true,
        });
        page.table(
            &["zone", "state"],
            &[vec![(Tone::Name, "office".into()), (Tone::Bad, "stale".into())]],
        );
        page.facts(&[("plant", "riverside".to_owned())]);
        assert!(!page.finish().contains('\u{1b}'));
    }
}
