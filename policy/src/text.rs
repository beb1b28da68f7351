//! Characters that are not what they seem: which they are, and how text of others is shown without them.
//!
//! Names and messages come from documents, coordinators, gateways, brokers and their clients. A terminal obeys control characters, and
//! people are misled by what reorders or hides text. Documents that hold such characters are refused; what is printed goes through
//! [`printable`] or, as JSON, through [`json`].

use std::borrow::Cow;
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

    proptest! {
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
