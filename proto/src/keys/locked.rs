//! A key in a PEM file that a passphrase locks: PKCS #8 in its encrypted form (PBES2: scrypt, AES-256), which OpenSSL reads and writes
//! too. For keys that a person uses now and then; a service could keep its passphrase only beside the key.

use std::path::Path;

use pkcs8::der::pem::PemLabel as _;
use pkcs8::der::zeroize::Zeroizing;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument};
use rcgen::KeyPair;
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::KeyError;
use super::file::{FileKey, PRIVATE, private_content};

/// Longest passphrase, bytes.
const PASSPHRASE_BYTES_MAX: usize = 1024;

/// A passphrase, which is wiped when it is not needed any more.
pub type Passphrase = Zeroizing<String>;

/// The passphrase in the first line of a file that nobody but its owner may read.
///
/// # Errors
/// Others may read the file; it cannot be read, or its first line is none.
pub fn passphrase_in(path: &Path) -> Result<Passphrase, KeyError> {
    let none = |why| KeyError::NoPassphrase(path.display().to_string(), why);
    let content = Zeroizing::new(private_content(path)?);
    let text = std::str::from_utf8(&content).map_err(|_| none("it is not UTF-8 text"))?;
    match text.lines().next().unwrap_or_default() {
        "" => Err(none("its first line is empty")),
        line if line.len() > PASSPHRASE_BYTES_MAX => Err(none("its first line is longer than 1024 bytes")),
        line => Ok(Zeroizing::new(line.to_owned())),
    }
}

impl FileKey {
    /// Stores it where no file may be yet, locked by a passphrase.
    ///
    /// # Errors
    /// There is a file, or it cannot be written; the system provides no random numbers.
    pub fn create_locked(&self, path: &Path, passphrase: &str) -> Result<(), KeyError> {
        let cannot = |_| KeyError::Form(path.display().to_string());
        let der = Zeroizing::new(self.pair().serialize_der());
        let mut plain = PrivateKeyInfoRef::try_from(der.as_slice())
            .map_err(|_| KeyError::Form(path.display().to_string()))?;
        // The first version of the format, without the public half, is the one that OpenSSL reads.
        plain.public_key = None;
        let locked = plain.encrypt(passphrase).map_err(cannot)?;
        let pem = locked
            .to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF)
            .map_err(|_| KeyError::Form(path.display().to_string()))?;
        Ok(PRIVATE.create(path, pem.as_bytes())?)
    }

    /// The one in the file, which nobody but its owner may read; where a passphrase locks it, `ask` gives that.
    ///
    /// # Errors
    /// Others may read the file; it cannot be read, or holds something else; there is no passphrase, or it does not open the key.
    pub fn open_locked(
        path: &Path,
        ask: impl FnOnce() -> Result<Passphrase, KeyError>,
    ) -> Result<Self, KeyError> {
        let name = || path.display().to_string();
        let content = Zeroizing::new(private_content(path)?);
        let text = std::str::from_utf8(&content).map_err(|_| KeyError::Form(name()))?;
        if !text.contains(EncryptedPrivateKeyInfoRef::PEM_LABEL) {
            return Self::from_pem(text.as_bytes(), &name());
        }
        let (_, locked) = SecretDocument::from_pem(text).map_err(|_| KeyError::Form(name()))?;
        let locked =
            EncryptedPrivateKeyInfoRef::try_from(locked.as_bytes()).map_err(|_| KeyError::Form(name()))?;
        let opened = locked
            .decrypt(ask()?.as_bytes())
            .map_err(|_| KeyError::WrongPassphrase(name()))?;
        let der = PrivatePkcs8KeyDer::from(opened.as_bytes());
        let pair = KeyPair::try_from(&der).map_err(|_| KeyError::WrongPassphrase(name()))?;
        Self::of(pair).ok_or_else(|| KeyError::Kind(name()))
    }
}

/// Copies a key's file, locked, to where no file may be yet.
///
/// # Errors
/// The key cannot be read, or its copy not be written.
pub fn copy_locked(from: &Path, to: &Path, passphrase: &str) -> Result<(), KeyError> {
    FileKey::open_private(from)?.create_locked(to, passphrase)
}

/// Takes the lock off a key's file, in its place; whether there was one.
///
/// # Errors
/// The passphrase does not open it, or the file cannot be read or written; it is as it was then.
pub fn unlock(path: &Path, passphrase: &str) -> Result<bool, KeyError> {
    let mut was_locked = false;
    let key = FileKey::open_locked(path, || {
        was_locked = true;
        Ok(Zeroizing::new(passphrase.to_owned()))
    })?;
    if was_locked {
        key.replace(path)?;
    }
    Ok(was_locked)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;
    use crate::keys::{KeyHolder as _, KeyKind};

    fn passphrase(text: &str) -> Result<Passphrase, KeyError> {
        Ok(Zeroizing::new(text.to_owned()))
    }

    fn nobody_asks() -> Result<Passphrase, KeyError> {
        panic!("nobody asks for the passphrase of a key that has none")
    }

    #[test]
    fn a_locked_key_opens_with_its_passphrase_alone_here_and_in_openssl() {
        let folder = tempfile::tempdir().unwrap();
        for (number, kind) in KeyKind::ALL.into_iter().enumerate() {
            let path = folder.path().join(format!("{number}.key"));
            let made = FileKey::generate(kind).unwrap();
            made.create_locked(&path, "correct horse").unwrap();
            let opened = FileKey::open_locked(&path, || passphrase("correct horse")).unwrap();
            assert_eq!((opened.kind(), opened.public_key()), (kind, made.public_key()));
            let refused = FileKey::open_locked(&path, || passphrase("battery staple"));
            assert!(matches!(refused, Err(KeyError::WrongPassphrase(_))));
            assert!(FileKey::open_private(&path).is_err(), "it is of no use without");
            assert!(made.create_locked(&path, "x").is_err(), "one that is there stays");
            let by_openssl = |pass: &str| {
                let file = path.to_str().unwrap();
                Command::new("openssl")
                    .args(["pkey", "-in", file, "-passin", pass, "-noout"])
                    .output()
                    .unwrap()
            };
            let opened = by_openssl("pass:correct horse");
            assert!(opened.status.success(), "{kind:?}: {opened:?}");
            assert!(!by_openssl("pass:battery staple").status.success());
        }
        let plain = folder.path().join("plain.key");
        FileKey::generate(KeyKind::EcdsaP384)
            .unwrap()
            .create(&plain)
            .unwrap();
        FileKey::open_locked(&plain, nobody_asks).unwrap();
    }

    #[test]
    fn a_passphrase_is_the_first_line_of_a_file_that_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passphrase");
        let write = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write("correct horse\nsecond line\n", 0o600);
        assert_eq!(passphrase_in(&path).unwrap().as_str(), "correct horse");
        write("correct horse\n", 0o640);
        assert!(matches!(
            passphrase_in(&path),
            Err(KeyError::Exposed { mode: 0o640, .. })
        ));
        for none in ["", "\nsecond", &"x".repeat(PASSPHRASE_BYTES_MAX + 1)] {
            write(none, 0o600);
            assert!(matches!(passphrase_in(&path), Err(KeyError::NoPassphrase(..))));
        }
    }

    #[test]
    fn a_key_comes_back_from_under_its_lock_by_its_passphrase_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (own, copy) = (folder.path().join("root.key"), folder.path().join("copy.key"));
        let key = FileKey::generate(KeyKind::EcdsaP384).unwrap();
        key.create(&own).unwrap();
        copy_locked(&own, &copy, "correct horse").unwrap();
        let locked = std::fs::read_to_string(&copy).unwrap();
        let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(FileKey::open_private(&copy), Err(KeyError::Locked(_))));
        let refused = unlock(&copy, "battery staple");
        assert!(matches!(refused, Err(KeyError::WrongPassphrase(_))));
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), locked);
        assert!(unlock(&copy, "correct horse").unwrap());
        let back = FileKey::open_private(&copy).unwrap();
        assert_eq!(back.public_key(), key.public_key());
        assert!(!unlock(&copy, "anything").unwrap());
    }
}
