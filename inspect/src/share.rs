//! How a part of something is told, so that neither nothing nor all is claimed of what is neither.

/// "12 of 40 packets (30 %)"; what is not nothing is at least 1 %, and what is not all at most 99 %.
pub fn share(part: u64, whole: u64, of: &str) -> String {
    let hundredths = u128::from(part) * 100 / u128::from(whole.max(1));
    let most = if part < whole { 99 } else { 100 };
    let percent = hundredths.clamp(u128::from(part > 0), most);
    format!("{part} of {whole} {of} ({percent} %)")
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_that_is_neither_nothing_nor_all_is_not_rounded_to_either() {
        for (part, whole, expected) in [
            (0, 10, "0 of 10 packets (0 %)"),
            (1, 100_000, "1 of 100000 packets (1 %)"),
            (99_999, 100_000, "99999 of 100000 packets (99 %)"),
            (7, 7, "7 of 7 packets (100 %)"),
            (1, 3, "1 of 3 packets (33 %)"),
            (0, 0, "0 of 0 packets (0 %)"),
        ] {
            assert_eq!(share(part, whole, "packets"), expected);
        }
    }
}
