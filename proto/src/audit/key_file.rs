//! The file of a source's seal keys: read when they are needed first, replaced behind each seal ([`keys`](super::keys) says what holds whatever step the
//! machine stops at).
//!
//! Not here: when a trail is sealed, and what a person is shown where a key cannot be kept (agent and coordinator, each its own way).

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;

use super::keys::{NoRandom, SealKeys};
use crate::whole::{NotWritten, Writing};

/// Far larger than any.
const BYTES_MAX: u64 = 1024;

/// Why keys cannot be had, or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// None can be made.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    /// The file cannot be read or replaced.
    #[error(transparent)]
    File(#[from] NotWritten),
}

/// The keys of the next seal, and their file.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    held: Option<Arc<SealKeys>>,
}

impl KeyFile {
    /// At this path; nothing is read yet.
    pub fn at(path: PathBuf) -> Self {
        Self { path, held: None }
    }

    /// The number of the next seal; `None`: there are no keys, or they are damaged.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn number(&mut self) -> Result<Option<u64>, KeyFileError> {
        self.read()?;
        Ok(self.held.as_ref().map(|keys| keys.number()))
    }

    /// The keys of the next seal. Where there are none, or they are damaged, new ones begin: a verifier says so.
    ///
    /// # Errors
    /// The file cannot be read, or new keys cannot be made or kept.
    pub fn keys(&mut self) -> Result<Arc<SealKeys>, KeyFileError> {
        self.read()?;
        match &self.held {
            Some(keys) => Ok(keys.clone()),
            None => self.keep(SealKeys::begin()?),
        }
    }

    /// New keys, in the place of those that are there.
    ///
    /// # Errors
    /// They cannot be made or kept; the ones before stay.
    pub fn begin_again(&mut self) -> Result<(), KeyFileError> {
        self.keep(SealKeys::begin()?).map(drop)
    }

    /// The seal is durable: the key that signed it is erased.
    ///
    /// # Errors
    /// The key after the next one cannot be made or kept. The next seal is by the same key then, which a verifier takes.
    pub fn advance(&mut self) -> Result<(), KeyFileError> {
        let Some(keys) = &self.held else { return Ok(()) };
        let advanced = keys.advanced()?;
        self.keep(advanced).map(drop)
    }

    fn keep(&mut self, keys: SealKeys) -> Result<Arc<SealKeys>, KeyFileError> {
        Writing::of_service(0o600).replace(&self.path, keys.to_text().as_bytes())?;
        Ok(self.held.insert(Arc::new(keys)).clone())
    }

    fn read(&mut self) -> Result<(), KeyFileError> {
        if self.held.is_some() {
            return Ok(());
        }
        let failed = |source| NotWritten {
            verb: "read",
            path: self.path.clone(),
            source,
        };
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(failed)?,
        };
        // Where it need not grow, no copy of the keys stays in memory.
        let mut bytes = Vec::with_capacity(2 * BYTES_MAX as usize);
        file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        self.held = SealKeys::from_bytes(bytes).map(Arc::new);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_kept_for_their_owner_alone_advance_in_their_file_and_begin_again_where_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.keys");
        let mut file = KeyFile::at(path.clone());
        assert_eq!(file.number().unwrap(), None);
        let first = file.keys().unwrap().to_text();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        file.advance().unwrap();
        file.advance().unwrap();
        let mut again = KeyFile::at(path.clone());
        assert_eq!(again.number().unwrap(), Some(2));
        assert_eq!(*again.keys().unwrap().to_text(), *file.keys().unwrap().to_text());
        assert!(
            !std::fs::read_to_string(&path)
                .unwrap()
                .contains(first.split(' ').nth(2).unwrap())
        );
        for damaged in [b"penstock-seal-keys/1 2".to_vec(), vec![b'x'; 5000]] {
            std::fs::write(&path, damaged).unwrap();
            let mut file = KeyFile::at(path.clone());
            assert_eq!(file.number().unwrap(), None);
            assert_eq!(file.keys().unwrap().number(), 0);
        }
        let mut nowhere = KeyFile::at(folder.path().join("gone/seal.keys"));
        assert!(nowhere.keys().is_err());
        let mut folder_instead = KeyFile::at(folder.path().to_owned());
        assert!(folder_instead.number().is_err());
    }
}
