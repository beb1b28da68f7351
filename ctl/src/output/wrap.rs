//! Where a line ends on a terminal: between words, never within one. Colours take no room and go on below.

/// Spaces at the beginning of a line.
pub(super) fn indent(line: &str) -> usize {
    line.chars().take_while(|c| *c == ' ').count()
}

/// How many columns a text takes; colours take none.
pub(crate) fn columns(text: &str) -> usize {
    let mut columns: usize = 0;
    let mut in_colour = false;
    for character in text.chars() {
        match (in_colour, character) {
            (false, '\u{1b}') => in_colour = true,
            (true, 'm') => in_colour = false,
            (true, _) => {}
            (false, _) => columns = columns.saturating_add(1),
        }
    }
    columns
}

/// `line` as lines of at most `width` columns, of which all but the first begin with `hang` spaces. A word that is wider than
/// that stands on a line of its own, unbroken.
pub(super) fn lines(line: &str, width: usize, hang: usize) -> Vec<String> {
    if columns(line) <= width {
        return vec![line.to_owned()];
    }
    // Spaces that would leave too little room for words help nobody.
    let hang = if hang.saturating_mul(2) > width { 0 } else { hang };
    let mut lines = Vec::new();
    let mut current = String::new();
    let mut holds_a_word = false;
    for word in line.split_inclusive(' ') {
        let bare = word.trim_end_matches(' ');
        if holds_a_word && !bare.is_empty() && columns(&current).saturating_add(columns(bare)) > width {
            lines.push(current.trim_end().to_owned());
            current = " ".repeat(hang);
            holds_a_word = false;
        }
        holds_a_word |= !bare.is_empty();
        current.push_str(word);
    }
    lines.push(current.trim_end().to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_that_fits_stays_as_it_is() {
        assert_eq!(lines("  a  b ", 10, 4), ["  a  b "]);
    }

    #[test]
    fn a_long_line_goes_on_below_and_colours_take_no_room() {
        let red = "\u{1b}[31mred words\u{1b}[0m";
        assert_eq!(columns(red), 9);
        assert_eq!(
            lines(&format!("  zone {red} here"), 12, 4),
            ["  zone \u{1b}[31mred", "    words\u{1b}[0m", "    here"]
        );
    }

    proptest! {
        #[test]
        fn no_word_is_broken_lost_or_moved_and_only_single_words_are_too_wide(
            words in proptest::collection::vec("[a-z]{1,24}", 1..20), width in 10..60_usize, hang in 0..8_usize
        ) {
            let text = words.join(" ");
            let wrapped = lines(&text, width, hang);
            let back: Vec<&str> = wrapped.iter().flat_map(|line| line.split_whitespace()).collect();
            prop_assert_eq!(back, words.iter().map(String::as_str).collect::<Vec<_>>());
            for line in &wrapped {
                prop_assert!(columns(line) <= width || line.split_whitespace().count() == 1, "{line:?}");
            }
        }
    }
}
