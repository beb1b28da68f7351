//! Text that others made: characters that are not what they seem, and how it is shown without them; its length; and errors with
//! their causes, as one sentence.
//!
//! Names and messages come from documents, coordinators, gateways, brokers and their clients. A terminal obeys control characters, and
//! people are misled by what reorders or hides text. Documents that hold such characters are refused; what is printed goes through
//! [`printable`] or, as JSON, through [`json`].

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;

/// Characters that a reader cannot see, or that a terminal obeys: control characters, those that reorder or break lines, and all
/// that Unicode lets a program show as nothing (`Default_Ignorable_Code_Point`). Line breaks and tabs are not among them, a
/// carriage return is.
pub fn is_hidden(c: char) -> bool {
    match c {
        '\t' | '\n' => false,
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => true,
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
    struct SampleError {
        said: &'static str,
        #[source]
        cause: Option<Box<SampleError>>,
    }

    #[test]
    fn an_error_is_one_line_with_each_of_its_causes_once() {
        let said = |said, cause| SampleError { said, cause };
        let inner = said("no such file", None);
        let repeated = said("cannot open it: no such file", Some(Box::new(inner)));
        let error = said("cannot begin", Some(Box::new(repeated)));
        assert_eq!(sentence(&error), "cannot begin: cannot open it: no such file");
    }

    /// Of Unicode 16's `Default_Ignorable_Code_Point`, `Bidi_Control` and line and paragraph separators, from each range the ends.
    #[test]
    fn what_unicode_shows_as_nothing_or_lets_reorder_is_hidden_and_what_is_beside_it_is_not() {
        let hidden = "\u{ad}\u{34f}\u{61c}\u{115f}\u{1160}\u{17b4}\u{17b5}\u{180b}\u{180f}\u{200b}\u{200f}\u{2028}\u{2029}\u{202a}\
            \u{202e}\u{2060}\u{206f}\u{3164}\u{fe00}\u{fe0f}\u{feff}\u{ffa0}\u{fff0}\u{fffb}\u{1bca0}\u{1bca3}\u{1d173}\u{1d17a}\
            \u{e0000}\u{e0fff}\u{85}\u{9f}\r\u{7f}";
        for c in hidden.chars() {
            assert!(is_hidden(c), "{c:?}");
        }
        let shown = "\t\n aé\u{ac}\u{ae}\u{34e}\u{61b}\u{1161}\u{180a}\u{1810}\u{2010}\u{2027}\u{202f}\u{2070}\u{3165}\u{fdff}\u{fe10}\
            \u{ffa1}\u{fffc}\u{1d17b}\u{e1000}水";
        for c in shown.chars() {
            assert!(!is_hidden(c), "{c:?}");
        }
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
