//! A record in a file, sealed: truncation, a flipped bit, or one record put in another's place is noticed.
//!
//! ```text
//! "PSC1" | generation (8, BE) | length (8, BE) | payload | SHA-256 of name 00 and all before (32)
//! ```

use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::{RECORD_BYTES_MAX, SECOND};
use crate::durable;

const MAGIC: &[u8; 4] = b"PSC1";

/// What a file holds of a record.
#[derive(Debug, Default)]
pub struct Copy {
    /// Its generation and payload, if it is whole.
    pub found: Option<(u64, Vec<u8>)>,
    /// Why there is something and it is not used.
    pub fault: Option<String>,
    /// It was read, and is not what was written: another whole copy may take its place.
    pub(super) damaged: bool,
}

impl Copy {
    /// There is nothing that may be whole and newer than what was read elsewhere.
    pub(super) fn is_replaceable(&self) -> bool {
        self.fault.is_none() || self.damaged
    }

    pub(super) fn generation(&self) -> Option<u64> {
        self.found.as_ref().map(|(generation, _)| *generation)
    }
}

pub(super) fn copy_path(folder: &Path, record: &str) -> PathBuf {
    folder.join("copies").join(record)
}

/// Reads only what files hold of a record, as other programs may while the agent has the database: the newer of the copy and,
/// for a large record, the second one.
pub fn read_copy(folder: &Path, record: &'static str) -> Copy {
    let copy = read_sealed(&copy_path(folder, record), record);
    let second = read_sealed(&folder.join(SECOND).join(record), record);
    if second.generation() > copy.generation() {
        return Copy {
            found: second.found,
            ..copy
        };
    }
    copy
}

pub(super) fn read_sealed(path: &Path, record: &str) -> Copy {
    let fault = |fault: String, damaged| Copy {
        found: None,
        fault: Some(fault),
        damaged,
    };
    let bytes = match durable::read(path, RECORD_BYTES_MAX) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Copy::default(),
        Err(error) => {
            let why =
                std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            return fault(format!("{error}{why}"), false);
        }
    };
    match unseal(record, &bytes) {
        Some((generation, payload)) => Copy {
            found: Some((generation, payload.to_vec())),
            ..Copy::default()
        },
        None => fault(format!("{} is damaged", path.display()), true),
    }
}

fn checksum(name: &str, sealed: &[u8]) -> [u8; 32] {
    let mut hash = sha2::Sha256::new();
    hash.update(name.as_bytes());
    hash.update([0]);
    hash.update(sealed);
    hash.finalize().into()
}

/// Wraps `payload` as the `generation`th content of the record `name`.
pub(super) fn seal(name: &str, generation: u64, payload: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(payload.len() + 52);
    sealed.extend_from_slice(MAGIC);
    sealed.extend_from_slice(&generation.to_be_bytes());
    sealed.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    sealed.extend_from_slice(payload);
    let sum = checksum(name, &sealed);
    sealed.extend_from_slice(&sum);
    sealed
}

/// The generation and payload of the record `name`, or `None` if the bytes are not what [`seal`] wrote for it.
pub(super) fn unseal<'a>(name: &str, bytes: &'a [u8]) -> Option<(u64, &'a [u8])> {
    let (sealed, sum) = bytes.split_last_chunk::<32>()?;
    if checksum(name, sealed) != *sum {
        return None;
    }
    let (magic, rest) = sealed.split_first_chunk::<4>()?;
    let (generation, rest) = rest.split_first_chunk::<8>()?;
    let (length, payload) = rest.split_first_chunk::<8>()?;
    (magic == MAGIC && u64::from_be_bytes(*length) == payload.len() as u64)
        .then_some((u64::from_be_bytes(*generation), payload))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sealed_record_returns_whole_and_no_other_bytes_do(
            payload in proptest::collection::vec(any::<u8>(), 0..200), generation: u64,
            at: proptest::sample::Index, flip in 1u8.., cut: proptest::sample::Index,
        ) {
            let sealed = seal("policy", generation, &payload);
            prop_assert_eq!(unseal("policy", &sealed), Some((generation, payload.as_slice())));
            prop_assert_eq!(unseal("trust", &sealed), None);
            let mut flipped = sealed.clone();
            flipped[at.index(sealed.len())] ^= flip;
            prop_assert_eq!(unseal("policy", &flipped), None);
            prop_assert_eq!(unseal("policy", &sealed[..cut.index(sealed.len())]), None);
        }
    }

    #[test]
    fn a_record_that_was_sealed_when_the_form_was_made_is_read_and_sealed_the_same_today() {
        let kept = crate::fixture::kept("record-PSC1.hex", &seal("policy-a", 7, b"what it holds"));
        assert_eq!(unseal("policy-a", &kept), Some((7, &b"what it holds"[..])));
    }
}
