//! A key in a PEM file that only its owner may read. Its bytes are read, written and copied here, and leave by no other way.
//!
//! A file is written whole or not at all: beside its place first, with mode 0600 from the beginning, synced with its folder.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use super::{KeyError, KeyHolder, KeyKind};

/// Longest file of a key, bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A key that is in a file, or on its way there.
pub struct FileKey {
    pair: KeyPair,
    kind: KeyKind,
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKey")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl FileKey {
    /// A new key, in memory until it is stored.
    ///
    /// # Errors
    /// The system provides no random numbers.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(kind.named())?;
        Ok(Self { pair, kind })
    }

    /// From PEM; `what` names it in errors.
    ///
    /// # Errors
    /// It is not a private key, or one of another kind.
    pub fn from_pem(pem: &[u8], what: &str) -> Result<Self, KeyError> {
        let form = || KeyError::Form(what.to_owned());
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| form())?;
        let pair = KeyPair::try_from(&der).map_err(|_| form())?;
        Self::of(pair).ok_or_else(|| KeyError::Kind(what.to_owned()))
    }

    /// A key that is at hand already; `None`: it is of another kind.
    pub fn of(pair: KeyPair) -> Option<Self> {
        let kind = KeyKind::of(pair.algorithm())?;
        Some(Self { pair, kind })
    }

    /// The one in the file, whoever else may read it; `None`: there is no file.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn find(path: &Path) -> Result<Option<Self>, KeyError> {
        match File::open(path) {
            Ok(file) => Self::from_file(file, path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("open", path)(error)),
        }
    }

    /// The one in the file, which nobody but its owner may read.
    ///
    /// # Errors
    /// Others may read the file; it cannot be read, or holds something else.
    pub fn open_private(path: &Path) -> Result<Self, KeyError> {
        let file = File::open(path).map_err(failed("read", path))?;
        // Of the file that was opened: its name may become another's in between.
        let mode = file
            .metadata()
            .map_err(failed("read", path))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed {
                path: path.to_owned(),
                mode: mode & 0o777,
            });
        }
        Self::from_file(file, path)
    }

    fn from_file(file: File, path: &Path) -> Result<Self, KeyError> {
        Self::from_pem(&content(file, path)?, &path.display().to_string())
    }

    /// Stores it where no file may be yet.
    ///
    /// # Errors
    /// There is a file, or it cannot be written.
    pub fn create(&self, path: &Path) -> Result<(), KeyError> {
        if let Err(error) = written(path, self.pair.serialize_pem().as_bytes()) {
            // Half a key is none; what was there before is not ours.
            if error.kind() != io::ErrorKind::AlreadyExists {
                let _ = std::fs::remove_file(path);
            }
            return Err(failed("write", path)(error));
        }
        synced(path).map_err(failed("write", path))
    }

    /// Stores it in the place of the one that may be there.
    ///
    /// # Errors
    /// It cannot be written; the file before is as it was.
    pub fn replace(&self, path: &Path) -> Result<(), KeyError> {
        replaced(path, self.pair.serialize_pem().as_bytes())
    }
}

impl KeyHolder for FileKey {
    fn kind(&self) -> KeyKind {
        self.kind
    }

    fn public_key(&self) -> &[u8] {
        self.pair.der_bytes()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.pair
            .sign(message)
            .map_err(|error| KeyError::Sign(error.to_string()))
    }
}

/// Copies a key's file as it is, in the place of one that may be there; only the owner may read the copy.
///
/// # Errors
/// One of the two cannot be read or written.
pub fn copy(from: &Path, to: &Path) -> Result<(), KeyError> {
    let file = File::open(from).map_err(failed("read", from))?;
    replaced(to, &content(file, from)?)
}

fn content(file: File, path: &Path) -> Result<Vec<u8>, KeyError> {
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(failed("read", path))?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(KeyError::Form(path.display().to_string()));
    }
    Ok(content)
}

fn replaced(path: &Path, pem: &[u8]) -> Result<(), KeyError> {
    let mut beside = OsString::from(path);
    beside.push(".new");
    let beside = Path::new(&beside);
    // What an attempt before left behind.
    let _ = std::fs::remove_file(beside);
    if let Err(error) = written(beside, pem) {
        let _ = std::fs::remove_file(beside);
        return Err(failed("write", beside)(error));
    }
    std::fs::rename(beside, path)
        .and_then(|()| synced(path))
        .map_err(failed("replace", path))
}

fn written(path: &Path, pem: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(pem)?;
    file.sync_all()
}

fn synced(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn failed<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> KeyError + 'a {
    move |source| KeyError::File {
        verb,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_and_a_stored_one_is_read_by_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Ed25519] {
            let made = FileKey::generate(kind).unwrap();
            made.replace(&path).unwrap();
            assert_eq!(mode(&path), 0o600);
            let read = FileKey::open_private(&path).unwrap();
            assert_eq!((read.kind(), read.public_key()), (kind, made.public_key()));
        }
        for exposed in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(exposed)).unwrap();
            let refused = FileKey::open_private(&path).unwrap_err();
            assert!(
                matches!(refused, KeyError::Exposed { mode, .. } if mode == exposed),
                "{refused}"
            );
        }
        let other = folder.path().join("copy.pem");
        copy(&path, &other).unwrap();
        assert_eq!(mode(&other), 0o600);
        assert!(
            FileKey::generate(KeyKind::Ed25519)
                .unwrap()
                .create(&other)
                .is_err()
        );
        assert!(FileKey::find(&folder.path().join("none")).unwrap().is_none());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_not_a_key_or_one_of_another_kind_is_refused_by_name_and_shows_no_secret() {
        let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)
            .unwrap()
            .serialize_pem();
        let refused = FileKey::from_pem(rsa.as_bytes(), "that key").unwrap_err();
        assert!(matches!(refused, KeyError::Kind(_)) && refused.to_string().contains("that key"));
        for torn in [
            "",
            "-----BEGIN PRIVATE KEY-----\nMII",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        ] {
            assert!(
                matches!(FileKey::from_pem(torn.as_bytes(), "it"), Err(KeyError::Form(_))),
                "{torn}"
            );
        }
        let key = KeyPair::generate().unwrap();
        let shown = format!(
            "{:?}",
            FileKey::from_pem(key.serialize_pem().as_bytes(), "it").unwrap()
        );
        assert_eq!(shown, "FileKey { kind: EcdsaP256, .. }");
    }
}
