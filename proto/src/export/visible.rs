//! Texts of events where a format has no escape for characters that readers obey or cannot see.

use std::borrow::Cow;
use std::fmt::Write as _;

use penstock_policy::text::is_hidden;

/// `text` with each control or hidden character, also each line end and tab, as `\u{…}`. A reader shows what is there and
/// obeys none of it.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| is_hidden(c) || matches!(c, '\n' | '\t');
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if obeyed(c) {
            // Writing to a String does not fail.
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}
