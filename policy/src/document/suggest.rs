//! "Did you mean …?": the nearest of the possible words, if one is near enough to be meant.

/// The word of `known` that `wrong` was most likely to be. Ties go to the first in order.
pub(crate) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['_', ' '], "-");
    let wanted = plain(wrong);
    // One slip in a short word, about one in three letters in a long one.
    let limit = (wanted.chars().count() / 3).clamp(1, 4);
    // Words are bounded, so that a hostile document cannot make the comparison expensive.
    if wanted.len() > 100 {
        return None;
    }
    known
        .into_iter()
        .filter(|word| word.len() <= 100)
        .map(|word| (strsim::damerau_levenshtein(&wanted, &plain(word)), word))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// The help for a word that is not among `known`.
pub(crate) fn help<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    /// More than this many words are not listed.
    const LISTED: usize = 24;
    if let Some(word) = nearest(wrong, known.clone()) {
        return format!("did you mean `{word}`?");
    }
    let words: Vec<String> = known.into_iter().map(|word| format!("`{word}`")).collect();
    match words.len() {
        0 => "none is defined yet".to_owned(),
        n if n <= LISTED => format!("possible here: {}", words.join(", ")),
        n => format!(
            "possible here: {} … ({n} in all)",
            words.get(..LISTED).unwrap_or_default().join(", ")
        ),
    }
}
