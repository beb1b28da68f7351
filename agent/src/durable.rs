//! Files that are replaced whole or not at all, and that tell when they were altered.
//!
//! [`replace`] leaves either the old or the new content after a power cut (`penstock_proto::whole`). [`seal`] and [`unseal`] wrap a payload so that truncation, a flipped bit, or one
//! record put in another's place is noticed:
//!
//! ```text
//! "PSC1" | generation (8, BE) | length (8, BE) | payload | SHA-256 of name 00 and all before (32)
//! ```

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use penstock_proto::whole::{NotWritten, Writing};
use sha2::Digest as _;

const MAGIC: &[u8; 4] = b"PSC1";

/// A file operation that failed: verb, path and cause, and what one does about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}{}", path.display(), in_brackets(remedy(source)))]
pub struct FileError {
    /// What was tried.
    pub verb: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// What one does about an error of the system; empty: its own words say it.
pub fn remedy(error: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => "make room on its disk",
        Kind::FileTooLarge => "raise the limit on the size of files",
        Kind::ReadOnlyFilesystem => {
            "its file system is read-only, as it becomes after errors of its disk: see the system's log"
        }
        Kind::PermissionDenied => "it must belong to the agent's user",
        Kind::OutOfMemory => "there is not enough memory: see what uses it",
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            "its disk reports an error, which does not mean that what it holds is lost: see the system's log"
        }
        _ => "",
    }
}

fn in_brackets(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" ({text})")
    }
}

fn failed<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError {
        verb,
        path: path.to_owned(),
        source,
    }
}

impl From<NotWritten> for FileError {
    fn from(error: NotWritten) -> Self {
        let NotWritten { verb, path, source } = error;
        Self { verb, path, source }
    }
}

/// Replaces the file at `path` by `content`, durable when this returns. `mode` is the file's permission bits.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    Ok(Writing::of_service(mode).replace(path, content)?)
}

/// As [`replace`], but not durable: for what only shows a present state, again and again.
pub(crate) fn show(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let shown = Writing {
        durable: false,
        ..Writing::of_service(mode)
    };
    Ok(shown.replace(path, content)?)
}

/// Reads a file of at most `bytes_max`; `None` if there is none.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mut content = Vec::new();
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(failed("read", path))?;
    if content.len() as u64 > bytes_max {
        let reason = format!("it is larger than the {bytes_max} bytes that it may have");
        return Err(failed("read", path)(io::Error::new(
            io::ErrorKind::InvalidData,
            reason,
        )));
    }
    Ok(Some(content))
}

/// Creates a folder and its parents, readable by the owner only.
///
/// # Errors
/// The folder or one of its parents cannot be made: no permission, no room, or a file of that name.
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("create", path))
}

fn checksum(name: &str, sealed: &[u8]) -> [u8; 32] {
    let mut hash = sha2::Sha256::new();
    hash.update(name.as_bytes());
    hash.update([0]);
    hash.update(sealed);
    hash.finalize().into()
}

/// Wraps `payload` as the `generation`th content of the record `name`.
pub fn seal(name: &str, generation: u64, payload: &[u8]) -> Vec<u8> {
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
pub fn unseal<'a>(name: &str, bytes: &'a [u8]) -> Option<(u64, &'a [u8])> {
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

    #[test]
    fn a_replaced_file_has_the_new_content_and_the_asked_permissions() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(read(&path, 10).unwrap().unwrap(), b"two");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(read(&path, 2).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
