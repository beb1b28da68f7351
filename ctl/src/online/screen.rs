//! The part of a terminal that is drawn over: views that are watched.

use crate::failure::Failure;
use crate::output::{Output, columns, terminal_rows};

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
        let page = match terminal_rows() {
            Some(height) => clipped(page, out.style.width, height),
            None => page.to_owned(),
        };
        self.lines = page.lines().map(|line| rows(line, out.style.width)).sum();
        out.text(&format!("{up}{page}"))
    }
}

/// As much of a page as a terminal of this height can draw over again: what scrolled out of it would stay there.
fn clipped(page: &str, width: usize, height: usize) -> String {
    // The cursor stands below the last line, and the line that says how much is left out takes one.
    let whole: usize = page.lines().map(|line| rows(line, width)).sum();
    if whole < height {
        return page.to_owned();
    }
    let mut left = height.saturating_sub(2);
    let mut kept = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let own = rows(line, width);
        if own > left {
            kept.push_str(&format!(
                "… {} more lines than this terminal has\n",
                lines.count() + 1
            ));
            return kept;
        }
        left -= own;
        kept.push_str(line);
        kept.push('\n');
    }
    kept
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

    #[test]
    fn a_page_that_is_taller_than_the_terminal_is_cut_so_that_it_can_be_drawn_over() {
        let page: String = (0..30).map(|line| format!("line {line}\n")).collect();
        assert_eq!(clipped(&page, 80, 31), page);
        for height in 3..30 {
            let cut = clipped(&page, 80, height);
            assert_eq!(cut.lines().count(), height - 1, "{cut}");
            assert!(
                cut.ends_with(&format!("… {} more lines than this terminal has\n", 32 - height)),
                "{cut}"
            );
        }
        let wide = "0123456789x\n".repeat(5);
        assert_eq!(
            clipped(&wide, 10, 6).lines().count(),
            3,
            "two of two rows each, and what is left out"
        );
    }
}
