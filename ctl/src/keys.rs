//! Approvers' keys as files: Ed25519 in PKCS #8 PEM, readable only by their owner.
//!
//! The secret half never leaves this machine and is never shown; what is printed is the public half, in the
//! words of the plant document.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use penstock_policy::model::PublicKey;
use penstock_policy::release::signing::ApproverKey;

use crate::failure::Failure;
use crate::files::{self, FileError, Mode};

/// A key's PEM file has about 120 bytes.
const KEY_BYTES_MAX: u64 = 16 * 1024;

/// Why a key cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not an Ed25519 key.
    #[error("{path} holds no Ed25519 key in PKCS #8 PEM")]
    Form {
        /// The file.
        path: PathBuf,
    },
    /// Others may read it.
    #[error("{path} can be read by others (mode {mode:o}): who has the file can sign in your name")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// No randomness.
    #[error("the system gave no random numbers to make a key of: {0}")]
    Random(getrandom::Error),
    /// The library cannot write the key.
    #[error("the key cannot be written as PEM")]
    Encode,
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let message = error.to_string();
        match error {
            KeyError::File(error) => error.into(),
            KeyError::Form { .. } => {
                Self::local("key-unusable", message).help("make one with: penstock key new FILE")
            }
            KeyError::Exposed { path, .. } => Self::local("key-exposed", message).help(format!(
                "chmod 600 {}; if somebody may have read it, make a new key and release its public half",
                path.display()
            )),
            KeyError::Random(_) | KeyError::Encode => Self::local("key-unmade", message),
        }
    }
}

/// Makes a new key in a new file.
pub fn make(path: &Path) -> Result<ApproverKey, KeyError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(KeyError::Random)?;
    let pem = SigningKey::from_bytes(&seed)
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|_| KeyError::Encode)?;
    files::create(path, pem.as_bytes(), Mode::Secret)?;
    Ok(ApproverKey::from_seed(&seed))
}

/// Reads a key; one that others may read is refused.
pub fn read(path: &Path) -> Result<ApproverKey, KeyError> {
    let bytes = files::read(path, KEY_BYTES_MAX)?;
    if let Ok(found) = std::fs::metadata(path) {
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
    }
    let form = || KeyError::Form {
        path: path.to_owned(),
    };
    let pem = std::str::from_utf8(&bytes).map_err(|_| form())?;
    let key = SigningKey::from_pkcs8_pem(pem).map_err(|_| form())?;
    Ok(ApproverKey::from_seed(&key.to_bytes()))
}

/// The public half as it stands in a plant document.
pub fn public_words(key: &ApproverKey) -> String {
    String::from(PublicKey(key.public().0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_reads_back_as_it_was_made_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        let made = make(&path).unwrap();
        assert_eq!(read(&path).unwrap().public(), made.public());
        assert!(matches!(
            make(&path),
            Err(KeyError::File(FileError::Exists { .. }))
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read(&path), Err(KeyError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn what_is_no_key_is_not_taken_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no.key");
        files::create(
            &path,
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            Mode::Secret,
        )
        .unwrap();
        assert!(matches!(read(&path), Err(KeyError::Form { .. })));
    }
}
