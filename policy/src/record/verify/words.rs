//! Digests, counts and lists of names in claims.

use crate::ids::Digest;

/// Names that stand in a claim; further ones are counted.
const NAMES: usize = 6;

/// The first digits.
pub(super) fn short(digest: &Digest) -> String {
    let text = digest.to_string();
    let digits = text.trim_start_matches("sha256:");
    digits.get(..12).unwrap_or(digits).to_owned()
}

/// `1 event`, `2 events`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// So many gateways.
pub(super) fn gateways_of(count: usize) -> String {
    counted(count, "gateway")
}

/// Some names and how many more.
pub(super) fn some_of(names: &[&str]) -> String {
    let shown = names.iter().take(NAMES).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
