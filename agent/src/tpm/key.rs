//! The gateway's key in a TPM: its public half and its wrapped private one, from a file; signatures, from the TPM.
//!
//! Reading the file asks nothing of the TPM: an agent whose TPM is gone knows who it is, enforces, and shows its certificate as soon as the TPM is back.

use std::io::Read as _;
use std::path::Path;
use std::{fmt, fs, io};

use penstock_proto::keys::{KeyError, KeyHolder, KeyKind};
use sha2::{Digest as _, Sha256};

use super::device::Tpm;
use super::form;
use super::session::TpmError;
use super::wire::{WrappedKey, point};

/// Longest file of a key, bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// A key that lives in a TPM.
pub struct TpmKey {
    tpm: Tpm,
    wrapped: WrappedKey,
    public: Vec<u8>,
}

impl fmt::Debug for TpmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TpmKey")
            .field("tpm", &self.tpm)
            .finish_non_exhaustive()
    }
}

impl TpmKey {
    /// A new key, born in this TPM.
    ///
    /// # Errors
    /// The TPM cannot be reached, does not answer, or refuses.
    pub fn generate(tpm: &Tpm) -> Result<Self, TpmError> {
        let wrapped = tpm.create_key()?;
        Ok(Self {
            tpm: tpm.clone(),
            public: public_of(&wrapped),
            wrapped,
        })
    }

    /// The one in this file, if it is a key in a TPM; `None`: there is no file, or a key of another kind in it. Asks nothing of the TPM.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn find(path: &Path, tpm: &Tpm) -> Result<Option<Self>, KeyError> {
        let failed = |source| KeyError::File {
            verb: "read",
            path: path.to_owned(),
            source,
        };
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut pem = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut pem).map_err(failed)?;
        if !form::is_one(&pem) {
            return Ok(None);
        }
        let wrapped = form::from_pem(&pem).ok_or_else(|| KeyError::Form(path.display().to_string()))?;
        Ok(Some(Self {
            tpm: tpm.clone(),
            public: public_of(&wrapped),
            wrapped,
        }))
    }

    /// Its file.
    pub fn to_pem(&self) -> String {
        form::to_pem(&self.wrapped)
    }
}

/// What is wrapped was held against its form when it was read or made.
fn public_of(wrapped: &WrappedKey) -> Vec<u8> {
    point(&wrapped.public).map(Vec::from).unwrap_or_default()
}

impl KeyHolder for TpmKey {
    fn kind(&self) -> KeyKind {
        KeyKind::EcdsaP256
    }

    fn public_key(&self) -> &[u8] {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.tpm
            .sign(&self.wrapped, Sha256::digest(message).into())
            .map_err(|error| KeyError::Sign(error.to_string()))
    }
}
