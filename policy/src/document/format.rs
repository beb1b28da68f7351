//! One file of a document in the one layout: what `penstock fmt` writes.
//!
//! Indentation is two spaces for each level, lists stand two further in than their key, brackets of mappings have a space inside and those of
//! lists none, two blank lines are one, and no line ends in white space. Comments, the order of keys, quotes, line breaks within a value and columns that
//! somebody lined up stay: a layout is not worth a diff that nobody can read.
//!
//! What comes out is read again and compared with what went in, value by value; if it differed, nothing would be written. So a fault
//! here costs a layout and never a meaning. Formatting twice changes nothing more.

mod flow;
mod layout;

use super::node::{Kind, Node};
use super::parse::parse;
use crate::diagnostics::faults::Faults;

/// Why a file is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It cannot be read as YAML of the plain kind that documents are.
    #[error("it has faults of form: `penstock check` says which")]
    Faulty,
    /// What would be written means something else. That is a fault of Penstock's.
    #[error("it could not be laid out without a change of what it says: please report the file")]
    Altered,
}

/// The text in the one layout.
///
/// ```
/// use penstock_policy::document::format::formatted;
///
/// let text = "zones:\n    office:   # where people sit\n        networks: [ 10.1.0.0/24 ]\n";
/// assert_eq!(formatted(text).unwrap(), "zones:\n  office:   # where people sit\n    networks: [10.1.0.0/24]\n");
/// ```
///
/// # Errors
/// The text has faults of form, or could not be laid out without a change of what it says.
pub fn formatted(text: &str) -> Result<String, FormatError> {
    let text = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .replace("\r\n", "\n");
    let before = tree(&text)?;
    let spaced = flow::spaced(&text).ok_or(FormatError::Faulty)?;
    let laid_out = layout::indented(&spaced).ok_or(FormatError::Faulty)?;
    let after = tree(&laid_out).map_err(|_| FormatError::Altered)?;
    let same = match (&before, &after) {
        (Some(before), Some(after)) => means_the_same(before, after),
        (before, after) => before.is_none() && after.is_none(),
    };
    if same {
        Ok(laid_out)
    } else {
        Err(FormatError::Altered)
    }
}

/// What the text says; nothing, if it holds only comments.
fn tree(text: &str) -> Result<Option<Node>, FormatError> {
    let mut faults = Faults::default();
    let root = parse(0, text, &mut 0, &mut faults);
    if faults.errors() == 0 {
        Ok(root)
    } else {
        Err(FormatError::Faulty)
    }
}

fn means_the_same(one: &Node, other: &Node) -> bool {
    match (&one.kind, &other.kind) {
        (
            Kind::Scalar { text, plain },
            Kind::Scalar {
                text: other,
                plain: other_plain,
            },
        ) => (text, plain) == (other, other_plain),
        (Kind::List(items), Kind::List(others)) => {
            items.len() == others.len() && items.iter().zip(others).all(|(a, b)| means_the_same(a, b))
        }
        (Kind::Mapping(entries), Kind::Mapping(others)) => {
            entries.len() == others.len()
                && entries.iter().zip(others).all(|(a, b)| {
                    (&a.key, a.key_plain) == (&b.key, b.key_plain) && means_the_same(&a.value, &b.value)
                })
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const WATERWORKS: &str = include_str!("../../../deploy/examples/waterworks/plant.yaml");
    const STATIONS: &str = include_str!("../../../deploy/examples/pumping-stations/plant.yaml");
    const BASE: &str = include_str!("tests/base.yaml");

    #[test]
    fn each_rule_of_the_layout() {
        for (from, to) in [
            (
                "a:\n    b: 1\n    c:\n        d: 2\n",
                "a:\n  b: 1\n  c:\n    d: 2\n",
            ),
            ("a:\n- 1\n- 2\nb: 3\n", "a:\n  - 1\n  - 2\nb: 3\n"),
            (
                "a:\n   -   b: 1\n       c: 2\n   - d: 3\n",
                "a:\n  - b: 1\n    c: 2\n  - d: 3\n",
            ),
            ("a:\n - - 1\n   - 2\n - - 3\n", "a:\n  - - 1\n    - 2\n  - - 3\n"),
            ("a: {b: 1,c: [ 1,2 ]}\n", "a: { b: 1, c: [1, 2] }\n"),
            ("a: {}\nb: { }\n", "a: {}\nb: {}\n"),
            ("\n\na: 1\n\n\n\nb: 2   \n\n", "a: 1\n\nb: 2\n"),
            ("a: 1\r\nb: 2", "a: 1\nb: 2\n"),
            ("\u{feff}a: 1\n", "a: 1\n"),
            (
                "# head\na:\n    # of b\n    b: 1   # beside\n    # after\nc: 2\n# end\n",
                "# head\na:\n  # of b\n  b: 1   # beside\n  # after\nc: 2\n# end\n",
            ),
            (
                "a:\n    text: |\n        one\n\n          two\n    b: 1\n",
                "a:\n  text: |\n      one\n\n        two\n  b: 1\n",
            ),
            (
                "a:\n    long: one\n        two\n    list: [1,\n        2]\n",
                "a:\n  long: one\n      two\n  list: [1,\n      2]\n",
            ),
            (
                "a:   { b: \"x,y: [1]\",   c: d }\n",
                "a:   { b: \"x,y: [1]\",   c: d }\n",
            ),
            ("a: see [1],[2] and {3}\n", "a: see [1],[2] and {3}\n"),
            (
                "gw-$(station): { address: $(net + 1)/24 }\n",
                "gw-$(station): { address: $(net + 1)/24 }\n",
            ),
            ("# nothing but this\n", "# nothing but this\n"),
        ] {
            assert_eq!(formatted(from).as_deref(), Ok(to), "{from}");
            assert_eq!(formatted(to).as_deref(), Ok(to), "again: {to}");
        }
    }

    #[test]
    fn what_has_faults_of_form_is_left_alone() {
        for text in [
            "a: [1\n",
            "a: 1\na: 2\n",
            "a: &x 1\n",
            "a:\n\tb: 1\n",
            "---\na: 1\n---\nb: 2\n",
        ] {
            assert_eq!(formatted(text), Err(FormatError::Faulty), "{text}");
        }
    }

    #[test]
    fn the_examples_are_laid_out_like_this() {
        for text in [WATERWORKS, STATIONS, BASE] {
            assert_eq!(formatted(text).as_deref(), Ok(text));
        }
    }

    /// The text with each level of indentation as wide as is said for it.
    fn widened(text: &str, widths: &[usize]) -> String {
        let spaces = |depth: usize| {
            (0..depth)
                .map(|level| widths.iter().cycle().nth(level).unwrap())
                .sum()
        };
        let lines = text.lines().map(|line| {
            let bare = line.trim_start();
            let depth: usize = spaces((line.len() - bare.len()) / 2);
            format!("{:depth$}{bare}\n", "")
        });
        lines.collect()
    }

    proptest! {
        #[test]
        fn however_far_somebody_indents_it_comes_out_the_same(
            widths in prop::collection::vec(2_usize..7, 1..4),
            which in prop::sample::select(vec![BASE, STATIONS]),
            blank: bool,
        ) {
            let text = widened(which, &widths);
            let text = if blank { text.replace('\n', "  \n").replace("\nzones", "\n\n\n\nzones") } else { text };
            let once = formatted(&text).unwrap();
            let wanted = if blank && !which.contains("\n\nzones") { which.replace("\nzones", "\n\nzones") } else { which.to_owned() };
            prop_assert_eq!(&once, &wanted);
            prop_assert_eq!(formatted(&once).unwrap(), once);
        }

        #[test]
        fn any_text_is_refused_or_says_the_same_and_formatting_twice_changes_nothing_more(
            lines in prop::collection::vec((0_usize..9, prop::sample::select(vec![
                "a: 1", "b:", "c: {x: 1,y: [ 2,3 ]}", "- d", "- e: 1", "-   f:", "# note", "", "g: |", "text", "h: \"q: [", "r\"", "- - 1", "i: [1,", "2]", "j: x # y", "k:  >-",
            ])), 0..12),
        ) {
            let text: String = lines.iter().map(|(depth, line)| format!("{:depth$}{line}\n", "")).collect();
            match formatted(&text) {
                Err(error) => prop_assert_eq!(error, FormatError::Faulty, "{}", text),
                Ok(once) => {
                    let again = formatted(&once);
                    prop_assert_eq!(again.as_ref(), Ok(&once), "{}", text);
                    for note in text.lines().filter(|line| line.trim() == "# note") {
                        prop_assert!(once.contains(note.trim()));
                    }
                }
            }
        }
    }
}
