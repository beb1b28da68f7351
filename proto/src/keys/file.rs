//! A key in a PEM file that only its owner may read. Its bytes are read, written and copied here, and
//! under a lock in `locked`; they leave by no other way.
//!
//! A file is written whole or not at all ([`crate::whole`]), with mode 0600 from the beginning.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use pkcs8::der::zeroize::Zeroizing;
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use super::{KeyError, KeyHolder, KeyKind};
use crate::whole::{NotWritten, Writing};

/// Longest file of a key, bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What PEM calls a key under a lock.
pub(super) const LOCKED: &str = "ENCRYPTED PRIVATE KEY";

/// For its owner alone.
pub(super) const PRIVATE: Writing = Writing::of_service(0o600);

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
        if String::from_utf8_lossy(pem).contains(LOCKED) {
            return Err(KeyError::Locked(what.to_owned()));
        }
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
        Self::from_pem(&private_content(path)?, &path.display().to_string())
    }

    pub(super) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    fn from_file(file: File, path: &Path) -> Result<Self, KeyError> {
        Self::from_pem(&Zeroizing::new(content(file, path)?), &path.display().to_string())
    }

    /// Stores it where no file may be yet.
    ///
    /// # Errors
    /// There is a file, or it cannot be written.
    pub fn create(&self, path: &Path) -> Result<(), KeyError> {
        Ok(PRIVATE.create(path, Zeroizing::new(self.pair.serialize_pem()).as_bytes())?)
    }

    /// Stores it in the place of the one that may be there.
    ///
    /// # Errors
    /// It cannot be written; the file before is as it was.
    pub fn replace(&self, path: &Path) -> Result<(), KeyError> {
        Ok(PRIVATE.replace(path, Zeroizing::new(self.pair.serialize_pem()).as_bytes())?)
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
    Ok(PRIVATE.replace(to, &Zeroizing::new(content_of(from)?))?)
}

/// What is in a key's file.
pub(super) fn content_of(path: &Path) -> Result<Vec<u8>, KeyError> {
    content(File::open(path).map_err(failed("read", path))?, path)
}

/// What is in a file that nobody but its owner may read.
pub(super) fn private_content(path: &Path) -> Result<Vec<u8>, KeyError> {
    let file = File::open(path).map_err(failed("read", path))?;
    // Of the file that was opened: its name may become another's in between.
    let found = file.metadata().map_err(failed("read", path))?;
    let mode = found.permissions().mode();
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    if !is_private(mode, path, credentials.as_deref().map(Path::new)) {
        return Err(KeyError::Exposed {
            path: path.to_owned(),
            mode: mode & 0o777,
        });
    }
    content(file, path)
}

/// Whether nobody but its owner may read a file of this mode. One that the service manager keeps for this service alone (`LoadCredential=`) lies in a
/// folder that nobody else enters; an access list lets the service read it there, which shows as a permission of the group.
fn is_private(mode: u32, path: &Path, credentials: Option<&Path>) -> bool {
    let is_credential =
        credentials.is_some_and(|folder| folder.is_absolute() && path.parent() == Some(folder));
    match mode & 0o077 {
        0 => true,
        0o040 => is_credential,
        _ => false,
    }
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

impl From<NotWritten> for KeyError {
    fn from(error: NotWritten) -> Self {
        let NotWritten { verb, path, source } = error;
        Self::File { verb, path, source }
    }
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
    fn a_credential_of_the_service_manager_is_private_by_its_folder_and_nothing_else_is() {
        let (folder, file) = (
            Path::new("/run/credentials/x.service"),
            Path::new("/run/credentials/x.service/pin"),
        );
        assert!(is_private(0o100_440, file, Some(folder)) && is_private(0o100_400, file, None));
        for (mode, path, credentials) in [
            (0o440, file, None),
            (0o440, file, Some(Path::new(""))),
            (
                0o440,
                Path::new("/run/credentials/x.service/../pin"),
                Some(folder),
            ),
            (0o440, Path::new("/etc/pin"), Some(folder)),
            (0o444, file, Some(folder)),
            (0o460, file, Some(folder)),
        ] {
            assert!(
                !is_private(mode, path, credentials),
                "{mode:o} {}",
                path.display()
            );
        }
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
