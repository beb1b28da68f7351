//! Text that others made: characters that are not what they seem, and how it is shown without them; its length; and errors with
//! their causes, as one sentence.
//!
//! Names and messages come from documents, coordinators, gateways, brokers and their clients. A terminal obeys control characters, and
//! people are misled by what reorders or hides text. Documents that hold such characters are refused; what is printed goes through
//! [`printable`] or, as JSON, through [`json`].

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;

/// Characters that a reader cannot see, or that a terminal obeys. Line breaks and tabs are not among them, a
/// carriage return is.
pub fn is_hidden(c: char) -> bool {
    match c {
        '\t' | '\n' => false,
        '\u{61c}'
        | '\u{feff}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => true,
        c => c.is_control(),
    }
}

/// `text` with a mark in the place of each such character; line breaks and tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.chars()
            .map(|c| if is_hidden(c) { '\u{fffd}' } else { c })
            .collect(),
    )
}

/// What of `text` fits into `max` bytes, cut between two characters.
pub fn bounded(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or_default()
}

/// The same; the end of what was cut says so, and fits, too.
pub fn shortened(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    // Of exactly its size: some are kept in numbers.
    let end = "…";
    Cow::Owned([bounded(text, max.saturating_sub(end.len())), end].concat())
}

/// What an error says, and what each of its causes adds: some libraries repeat their cause in their own sentence, once is enough.
pub fn causes(error: &dyn Error) -> Vec<String> {
    let mut said = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let sentence = cause.to_string();
        if !said.iter().any(|said| said.contains(&sentence)) {
            said.push(sentence);
        }
        next = cause.source();
    }
    said
}

/// An error with its causes, as one line.
pub fn sentence(error: &dyn Error) -> String {
    causes(error).join(": ")
}

/// JSON text with each such character as its escape, which a program reads as the same character. Outside of strings JSON has none.
pub fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Said {
        said: &'static str,
        #[source]
        cause: Option<Box<Said>>,
    }

    #[test]
    fn an_error_is_one_line_with_each_of_its_causes_once() {
        let said = |said, cause| Said { said, cause };
        let inner = said("no such file", None);
        let repeated = said("cannot open it: no such file", Some(Box::new(inner)));
        let error = said("cannot begin", Some(Box::new(repeated)));
        assert_eq!(sentence(&error), "cannot begin: cannot open it: no such file");
    }

    proptest! {
        #[test]
        fn what_is_bounded_is_the_beginning_and_within_the_bound(text: String, max in 0..40_usize) {
            let (cut, marked) = (bounded(&text, max), shortened(&text, max));
            prop_assert!(text.starts_with(cut) && cut.len() <= max);
            prop_assert!(marked.len() <= max.max(3));
            match text.len() <= max {
                true => prop_assert_eq!(marked, text.as_str()),
                false => prop_assert!(marked.ends_with('…')),
            }
        }

        #[test]
        fn what_is_shown_has_no_hidden_character_and_json_reads_back_as_it_was(
            text in prop_oneof![any::<String>(), "[\\x00-\\x1f\u{7f}-\u{9f}\u{202e}\u{2066}\u{200b}\u{e0041}\"a]{0,20}"],
        ) {
            prop_assert!(!printable(&text).contains(is_hidden));
            let written = serde_json::to_string(&text).unwrap();
            let escaped = json(&written);
            prop_assert!(!escaped.contains(is_hidden));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }
}
