//! The form in which SSH writes keys and signatures (RFC 4251 section 5): strings that begin with their length.
//!
//! Reading takes what is there and nothing more; what a length promises and the bytes do not have is `None`.

/// The next string, taken from the front of `rest`.
pub fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (value, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(value)
}

/// Adds a string. None of those that are written here is anywhere near 4 GiB.
pub fn put(into: &mut Vec<u8>, value: &[u8]) {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    into.extend_from_slice(&length.to_be_bytes());
    into.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_cut_is_not() {
        let mut bytes = Vec::new();
        put(&mut bytes, b"ssh-ed25519");
        put(&mut bytes, b"");
        let mut rest = bytes.as_slice();
        assert_eq!(string(&mut rest).unwrap(), b"ssh-ed25519");
        assert_eq!(string(&mut rest).unwrap(), b"");
        assert!(rest.is_empty() && string(&mut rest).is_none());
        for length in 0..bytes.len() - 4 {
            let mut cut = bytes.get(..length).unwrap();
            assert!(string(&mut cut).is_none(), "{length}");
        }
        assert!(string(&mut [0xff, 0xff, 0xff, 0xff, 0].as_slice()).is_none());
    }
}
