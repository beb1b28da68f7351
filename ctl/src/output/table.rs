//! Tables: as wide as they are in a pipe, wrapped between words on a terminal, and one row below the other where the
//! terminal has no room for the longest words side by side.

use comfy_table::{Attribute, Cell, ColumnConstraint, ContentArrangement, Table, Width};

use super::{Page, Tone, clean, wrap};

/// Spaces behind each column.
const GAP: usize = 1;

impl Page {
    /// A table: headings and rows of toned texts.
    pub fn table(&mut self, headings: &[&str], rows: &[Vec<(Tone, String)>]) {
        let longest_words: Vec<usize> = headings
            .iter()
            .enumerate()
            .map(|(column, heading)| {
                let cells = rows.iter().filter_map(|row| row.get(column));
                let texts = cells.map(|(_, text)| text.as_str()).chain([*heading]);
                let words = texts.flat_map(str::split_whitespace);
                words.map(|word| clean(word).chars().count()).max().unwrap_or(0)
            })
            .collect();
        let needed = longest_words
            .iter()
            .fold(0_usize, |sum, word| sum.saturating_add(*word).saturating_add(GAP));
        if self.style.wrap && needed > self.style.width {
            self.rows_as_blocks(headings, rows);
            return;
        }
        let mut table = Table::new();
        table.load_preset("                   ");
        if self.style.wrap {
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(u16::try_from(self.style.width).unwrap_or(u16::MAX));
        } else {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        if self.style.color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(
            headings
                .iter()
                .map(|text| Cell::new(text).add_attribute(Attribute::Dim)),
        );
        for row in rows {
            table.add_row(row.iter().map(|(tone, text)| cell(*tone, text)));
        }
        for (column, word) in table.column_iter_mut().zip(longest_words) {
            column.set_padding((0, 1));
            let narrowest = u16::try_from(word.saturating_add(GAP)).unwrap_or(u16::MAX);
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(narrowest)));
        }
        for line in table.lines() {
            self.drawn(line.trim_end());
        }
    }

    fn rows_as_blocks(&mut self, headings: &[&str], rows: &[Vec<(Tone, String)>]) {
        for row in rows {
            self.gap();
            let facts: Vec<_> = headings
                .iter()
                .zip(row)
                .map(|(heading, (tone, text))| (*heading, self.paint(*tone, text)))
                .filter(|(_, text)| wrap::columns(text) > 0)
                .collect();
            self.facts(&facts);
        }
    }
}

fn cell(tone: Tone, text: &str) -> Cell {
    let cell = Cell::new(clean(text));
    match tone {
        Tone::Plain => cell,
        Tone::Strong => cell.add_attribute(Attribute::Bold),
        Tone::Dim => cell.add_attribute(Attribute::Dim),
        Tone::Good => cell.fg(comfy_table::Color::DarkGreen),
        Tone::Warn => cell.fg(comfy_table::Color::DarkYellow),
        Tone::Bad => cell
            .fg(comfy_table::Color::DarkRed)
            .add_attribute(Attribute::Bold),
        Tone::Name => cell.fg(comfy_table::Color::DarkCyan),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Style;
    use super::*;

    fn shown(width: usize, wrap: bool) -> String {
        let mut page = Page::new(Style {
            color: false,
            width,
            wrap,
        });
        let row = |gateway: &str, said: &str| {
            vec![(Tone::Strong, gateway.to_owned()), (Tone::Plain, said.to_owned())]
        };
        page.table(
            &["GATEWAY", "CERTIFICATE ENDS"],
            &[
                row(
                    "gw-works-north",
                    "in ninety days, unless somebody renews it before that",
                ),
                row("gw-b", "never"),
            ],
        );
        page.finish()
    }

    #[test]
    fn in_a_pipe_a_row_is_one_line_however_long_it_is() {
        let text = shown(20, false);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(
            text.lines()
                .any(|line| line.starts_with("gw-works-north in ninety days,")
                    && line.ends_with("before that")),
            "{text}"
        );
    }

    #[test]
    fn on_a_terminal_of_any_width_no_word_is_broken() {
        for width in 20..100 {
            let text = shown(width, true);
            for word in ["gw-works-north", "CERTIFICATE", "somebody", "ninety", "never"] {
                assert!(text.contains(word), "{width}: {word} is broken in\n{text}");
            }
            let too_wide = |line: &&str| line.chars().count() > width;
            // Below that the longest word and the heading beside it have no room.
            assert!(
                width < 32 || !text.lines().any(|line| too_wide(&line)),
                "{width}:\n{text}"
            );
        }
    }
}
