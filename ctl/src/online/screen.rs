//! The part of a terminal that is drawn over: views that are watched.

use crate::failure::Failure;
use crate::output::{Output, columns};

/// What was drawn last, by its rows.
#[derive(Debug)]
pub(super) struct Screen {
    lines: usize,
    /// Whether it is drawn over; else views are told apart by lines.
    pub(super) live: bool,
}

impl Screen {
    /// Nothing is drawn yet.
    pub(super) fn new(out: &Output) -> Self {
        Self {
            lines: 0,
            live: out.live && out.for_people(),
        }
    }

    /// Draws a page in place of the last one.
    pub(super) fn draw(&mut self, out: &Output, page: &str) -> Result<(), Failure> {
        // Up to where the last page began, and clear from there: the scroll-back stays as it was.
        let up = if self.lines > 0 {
            format!("\u{1b}[{}A\u{1b}[J", self.lines)
        } else {
            String::new()
        };
        self.lines = page.lines().map(|line| rows(line, out.style.width)).sum();
        out.text(&format!("{up}{page}"))
    }
}

/// How many rows of the terminal a line takes.
fn rows(line: &str, width: usize) -> usize {
    columns(line).max(1).div_ceil(width.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_takes_as_many_rows_as_its_letters_need() {
        assert_eq!(rows("", 10), 1);
        assert_eq!(rows("\u{1b}[1m0123456789\u{1b}[0m", 10), 1);
        assert_eq!(rows("0123456789x", 10), 2);
    }
}
