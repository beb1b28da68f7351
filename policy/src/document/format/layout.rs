//! Indentation, blank lines and the ends of lines.
//!
//! A line either begins something (a key, an item), and then its depth decides how far in it stands; or it goes on with what an earlier line began
//! (a text of several lines, a list in brackets), and then it moves with that line; or it is a comment, which stands with what follows it.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::super::parse::Offsets;

/// Spaces for each level.
const STEP: usize = 2;

/// The text with two spaces for each level. `None` if it is not YAML.
pub(super) fn indented(text: &str) -> Option<String> {
    let continued = continued(text)?;
    let mut lines = Lines::default();
    for (number, line) in text.lines().enumerate() {
        if continued.get(number).copied().unwrap_or(false) {
            lines.go_on(line);
        } else {
            lines.begin(line);
        }
    }
    Some(lines.finish())
}

/// For each line whether it goes on with what an earlier one began.
fn continued(text: &str) -> Option<Vec<bool>> {
    let offsets = Offsets::new(text);
    let starts: Vec<usize> = std::iter::once(0)
        .chain(text.match_indices('\n').map(|(at, _)| at + 1))
        .collect();
    let line_of = |byte: usize| starts.partition_point(|start| *start <= byte).saturating_sub(1);
    let mut continued = vec![false; starts.len()];
    let mut mark = |first: usize, last: usize| {
        for line in continued.iter_mut().take(last + 1).skip(first) {
            *line = true;
        }
    };
    let mut open: Vec<Option<usize>> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, Span { start, end }) = event.ok()?;
        let (start, end) = (offsets.byte(text, start.index()), offsets.byte(text, end.index()));
        match event {
            Event::Scalar(_, style, ..) => {
                // What follows the last line end belongs to the next line; a line of spaces is a part of a block of text.
                let written = text.get(start..end)?.trim_end_matches(' ').trim_end_matches('\n');
                let last = line_of(start + written.len().saturating_sub(1));
                let first = match style {
                    // The text begins below the line with the sign, wherever the parser says that it does.
                    ScalarStyle::Literal | ScalarStyle::Folded => header(text, &starts, line_of(start)) + 1,
                    _ => line_of(start) + 1,
                };
                if first <= last {
                    mark(first, last);
                }
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                let bracketed = text.get(start..).is_some_and(|rest| rest.starts_with(['{', '[']));
                open.push(bracketed.then_some(start));
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Some(start)) = open.pop() {
                    let (first, last) = (line_of(start) + 1, line_of(end.saturating_sub(1)));
                    if first <= last {
                        mark(first, last);
                    }
                }
            }
            _ => {}
        }
    }
    Some(continued)
}

/// The line with the `|` or `>` of a block of text that begins on or below it.
fn header(text: &str, starts: &[usize], from: usize) -> usize {
    let is_header = |number: &usize| {
        let start = starts.get(*number).copied().unwrap_or(text.len());
        let line = text
            .get(start..)
            .and_then(|rest| rest.lines().next())
            .unwrap_or_default();
        let line = line.split(" #").next().unwrap_or(line).trim_end();
        line.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-'))
            .ends_with(['|', '>'])
    };
    (0..=from).rev().find(is_header).unwrap_or(from)
}

/// A mapping or list that is open: at which column it stands, and at which it is to stand.
#[derive(Debug, Clone, Copy)]
struct Level {
    old: usize,
    new: usize,
    list: bool,
}

#[derive(Debug, Default)]
struct Lines {
    out: String,
    levels: Vec<Level>,
    /// Comments and blank lines that wait for what follows them: the column, and the text.
    waiting: Vec<(usize, String)>,
    /// How far the last line that began something was moved.
    moved: isize,
}

impl Lines {
    fn begin(&mut self, line: &str) {
        let line = line.trim_end();
        let bare = line.trim_start_matches(' ');
        let column = line.len() - bare.len();
        if bare.is_empty() || bare.starts_with('#') {
            self.waiting.push((column, bare.to_owned()));
            return;
        }
        let before = self.levels.clone();
        let is_item = |text: &str| text == "-" || text.starts_with("- ");
        let new = self.level(column, is_item(bare));
        self.comments(&before, column, new);
        self.moved = new.cast_signed() - column.cast_signed();
        let mut text = String::new();
        let (mut rest, mut old, mut at) = (bare, column, new);
        while is_item(rest) {
            let after = rest.get(1..).unwrap_or_default();
            let inner = after.trim_start_matches(' ');
            text.push('-');
            if inner.is_empty() {
                rest = "";
                break;
            }
            text.push(' ');
            old += rest.len() - inner.len();
            at += STEP;
            rest = inner;
            self.levels.push(Level {
                old,
                new: at,
                list: is_item(rest),
            });
        }
        text.push_str(rest);
        self.write(new, &text);
    }

    /// A line that moves with the one that it goes on with.
    fn go_on(&mut self, line: &str) {
        let bare = line.trim_start_matches(' ');
        let column = (line.len() - bare.len()).saturating_add_signed(self.moved);
        if line.is_empty() {
            self.write(0, "");
        } else {
            self.write(column, bare);
        }
    }

    /// Where a line at this column stands that begins a key or an item.
    fn level(&mut self, column: usize, list: bool) -> usize {
        while let Some(top) = self.levels.last() {
            if top.old > column || (top.old == column && top.list && !list) {
                self.levels.pop();
            } else {
                break;
            }
        }
        let new = match self.levels.last() {
            None => 0,
            Some(top) if top.old == column && top.list == list => return top.new,
            Some(top) => top.new + STEP,
        };
        self.levels.push(Level {
            old: column,
            new,
            list,
        });
        new
    }

    /// Writes the comments that waited: each where what stood at its column stands now, else with what follows.
    fn comments(&mut self, before: &[Level], column: usize, new: usize) {
        for (old, text) in std::mem::take(&mut self.waiting) {
            if text.is_empty() {
                self.blank();
                continue;
            }
            let level = before.iter().rev().find(|level| level.old == old);
            let at = match level {
                Some(level) if old != column => level.new,
                _ => new,
            };
            self.write(at, &text);
        }
    }

    /// One blank line between two others, none at the beginning.
    fn blank(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    fn write(&mut self, column: usize, text: &str) {
        self.out.extend(std::iter::repeat_n(' ', column));
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn finish(mut self) -> String {
        let before = std::mem::take(&mut self.levels);
        let outermost = usize::MAX;
        self.comments(&before, outermost, 0);
        let kept = self.out.trim_end_matches('\n').len();
        if kept == 0 {
            return String::new();
        }
        // A block of text that keeps the blank lines at its end would lose them: that is seen when both are compared.
        self.out.truncate(kept);
        self.out.push('\n');
        self.out
    }
}
