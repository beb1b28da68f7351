//! How a release is named on the command line: by its number, and by the first digits of its digest.

/// At least eight hexadecimal digits of a digest.
pub(super) fn digits(text: &str) -> Result<String, String> {
    let found = text.strip_prefix("sha256:").unwrap_or(text);
    if (8..=64).contains(&found.len()) && found.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(found.to_ascii_lowercase());
    }
    Err(format!(
        "`{text}` does not name a release: write at least the first 8 digits of its digest, as `release list` shows it"
    ))
}

/// `4` or `r4`.
pub(super) fn revision(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix('r').unwrap_or(text);
    match digits.parse() {
        Ok(0) | Err(_) => Err(format!(
            "`{text}` is not a revision: write a number from 1, as `release list` shows it"
        )),
        Ok(n) => Ok(n),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_revision_is_written_with_or_without_its_letter() {
        assert_eq!(revision("r4").unwrap(), 4);
        assert_eq!(revision("4").unwrap(), 4);
        assert!(revision("0").is_err() && revision("x").is_err());
    }
}
