//! "Did you mean …?": the nearest of the possible words, if one is near enough to be meant.
//!
//! Documents may be hostile and large, so both the words compared and their length are bounded.

/// Longer words are neither compared nor suggested.
const WORD_LENGTH_MAX: usize = 64;
/// At most so many words of about the right length are compared.
const COMPARED_MAX: usize = 500;
/// More than this many words are not listed.
const LISTED_MAX: usize = 24;

/// The word of `known` that `wrong` was most likely to be. Ties go to the first in order.
pub(crate) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['_', ' '], "-");
    if wrong.len() > WORD_LENGTH_MAX {
        return None;
    }
    let wanted = plain(wrong);
    // One slip in a short word, about one in three letters in a long one.
    let limit = (wanted.chars().count() / 3).clamp(1, 4);
    known
        .into_iter()
        .filter(|word| word.len() <= WORD_LENGTH_MAX && word.len().abs_diff(wanted.len()) <= limit)
        .take(COMPARED_MAX)
        .map(|word| (strsim::osa_distance(&wanted, &plain(word)), word))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// The help for a word that is not among `known`: the nearest of these, else some of them.
pub fn help<'a>(wrong: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    if let Some(word) = nearest(wrong, known.clone()) {
        return format!("did you mean `{word}`?");
    }
    let listed: Vec<String> = known
        .clone()
        .take(LISTED_MAX)
        .map(|word| format!("`{word}`"))
        .collect();
    match known.count() {
        0 => "none is defined yet".to_owned(),
        n if n <= LISTED_MAX => format!("possible here: {}", listed.join(", ")),
        n => format!("possible here: {} … ({n} in all)", listed.join(", ")),
    }
}
