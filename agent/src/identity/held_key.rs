//! The gateway's key, and who holds it: the file itself, or the TPM that wrapped what is in it. The file says which; the configuration says
//! where a new one is made.
//!
//! Either way a key is one file: what puts a new one in the place of the old one does not ask who holds it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use penstock_proto::keys::{FileKey, Key, KeyKind};

use super::{IdentityError, IdentityFolder};
use crate::durable;
use crate::tpm::{KeyPlace, TpmKey};

/// A key, and where it is held: its file says so.
pub(crate) enum HeldKey {
    /// In the file itself.
    File(FileKey),
    /// In the TPM that wrapped it.
    Tpm(TpmKey),
}

impl HeldKey {
    pub(super) fn place(&self) -> KeyPlace {
        match self {
            Self::File(_) => KeyPlace::File,
            Self::Tpm(_) => KeyPlace::Tpm,
        }
    }
}

impl From<HeldKey> for Key {
    fn from(held: HeldKey) -> Self {
        match held {
            HeldKey::File(key) => key.into(),
            HeldKey::Tpm(key) => key.into(),
        }
    }
}

impl IdentityFolder {
    /// The gateway's key; born now if there is none. A repeated enrolment uses the same one, so that a token whose
    /// answer was lost on the way still works.
    ///
    /// # Errors
    /// The key cannot be read, made or stored.
    pub fn key(&self) -> Result<Key, IdentityError> {
        if let Some(key) = self.held()? {
            return Ok(key);
        }
        durable::create_folder(&self.folder)?;
        self.born(&self.path("key.pem"))
    }

    /// Which file its key is in: another one where it has another key.
    pub(crate) fn key_file(&self) -> Option<(u64, u64)> {
        let found = std::fs::metadata(self.path("key.pem")).ok()?;
        Some((found.dev(), found.ino()))
    }

    /// Where its key is held; `None`: it has none.
    ///
    /// # Errors
    /// The key's file cannot be read.
    pub fn key_place(&self) -> Result<Option<KeyPlace>, IdentityError> {
        Ok(self.find(&self.path("key.pem"))?.map(|key| key.place()))
    }

    /// Whether its TPM is asked for the age of its disk: the key is in it, or belongs there by the configuration.
    pub fn counts_on_tpm(&self) -> bool {
        self.place == KeyPlace::Tpm || matches!(self.key_place(), Ok(Some(KeyPlace::Tpm)))
    }

    /// Where its key is held, for people, and what to do if the configuration wants it elsewhere; `None`: it has none, or its file cannot be read.
    pub fn key_in_words(&self) -> Option<String> {
        let place = |place| match place {
            KeyPlace::File => "in a file".to_owned(),
            KeyPlace::Tpm => format!("in the TPM at {}", self.tpm.address()),
        };
        let held = self.key_place().ok()??;
        let elsewhere = (held != self.place).then(|| {
            format!(
                "; by the configuration it belongs {}: to move it, get a token and run `penstock-agent enrol --new-key --token FILE`",
                place(self.place)
            )
        });
        Some(place(held) + &elsewhere.unwrap_or_default())
    }

    /// The gateway's key, if there is one.
    pub(super) fn held(&self) -> Result<Option<Key>, IdentityError> {
        Ok(self.find(&self.path("key.pem"))?.map(Key::from))
    }

    /// The key of this file, wherever the file says that it is held.
    pub(super) fn find(&self, path: &Path) -> Result<Option<HeldKey>, IdentityError> {
        match TpmKey::find(path, &self.tpm)? {
            Some(key) => Ok(Some(HeldKey::Tpm(key))),
            None => Ok(FileKey::find(path)?.map(HeldKey::File)),
        }
    }

    /// A new key in its place, and its file here; durable when this returns.
    pub(super) fn born(&self, path: &Path) -> Result<Key, IdentityError> {
        match self.place {
            KeyPlace::File => {
                let key = FileKey::generate(KeyKind::EcdsaP256)?;
                key.replace(path)?;
                Ok(key.into())
            }
            KeyPlace::Tpm => {
                let key = TpmKey::generate(&self.tpm)?;
                durable::replace(path, key.to_pem().as_bytes(), 0o600)?;
                Ok(key.into())
            }
        }
    }
}
