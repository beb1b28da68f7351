//! Approvers' keys as files: Ed25519 in PKCS #8 PEM or in OpenSSH's form, readable only by their owner, locked by a passphrase if
//! there is one. A key that no program holds (in hardware, in an SSH agent) is named by OpenSSH's file of it, and `ssh-keygen` signs.
//!
//! The secret half never leaves this machine and is never shown; what is printed is the public half, in the words of the
//! plant document. Files are written as RFC 5208 has them (the first version of the format, without the public half), which
//! OpenSSL reads; with a passphrase as its encrypted form (PBES2: scrypt, AES-256). Read are those too, what OpenSSL makes,
//! and the second version of the format, which earlier versions of this program wrote.

mod openssh;
pub mod passphrase;
pub mod signer;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::KeypairBytes;
use penstock_policy::model::PublicKey;
use penstock_policy::release::signing::ApproverKey;
use pkcs8::der::zeroize::Zeroizing;
use pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, LineEnding};

use self::openssh::OpenSshError;
use self::passphrase::{Passphrase, PassphraseError};
pub use self::signer::Signer;
use crate::failure::Failure;
use crate::files::{self, FileError, Mode};

/// A key's PEM file has about 120 bytes, a locked one 350.
const KEY_BYTES_MAX: u64 = 16 * 1024;
/// How a key that a passphrase locks begins.
const LOCKED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";

/// Why a key cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not an Ed25519 key.
    #[error("{path} holds no Ed25519 key in PKCS #8 PEM or in OpenSSH's form")]
    Form {
        /// The file.
        path: PathBuf,
    },
    /// OpenSSH's form, and nothing to use.
    #[error("the OpenSSH key in {path} cannot be used: {source}")]
    OpenSsh {
        /// The file.
        path: PathBuf,
        /// Why.
        source: OpenSshError,
    },
    /// OpenSSH's form, which is not written here.
    #[error("{path} is OpenSSH's, whose passphrase `ssh-keygen` changes; the key is as it was")]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// Others may read it.
    #[error("{path} can be read by others (mode {mode:o}): {}", if *.passphrase { "a passphrase is for you alone" } else { "who has the file can sign in your name" })]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// It is the file of a passphrase.
        passphrase: bool,
    },
    /// The passphrase.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// Another passphrase, or not what was written.
    #[error("the passphrase does not open {path}, or the file is damaged")]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// No randomness.
    #[error("the system provided no random numbers to make a key from: {0}")]
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
            KeyError::Exposed {
                path,
                passphrase: true,
                ..
            } => {
                Self::local("passphrase-exposed", message).help(format!("chmod 600 {}", files::quoted(&path)))
            }
            KeyError::Exposed { path, .. } => Self::local("key-exposed", message).help(format!(
                "chmod 600 {}; if somebody may have read it, make a new key and release its public half",
                files::quoted(&path)
            )),
            KeyError::OpenSsh { .. } => Self::local("key-unusable", message),
            KeyError::NotOurs { path } => Self::local("key-unusable", message)
                .help(format!("ssh-keygen -p -f {}", files::quoted(&path))),
            KeyError::Passphrase(error) => error.into(),
            KeyError::WrongPassphrase { .. } => Self::local("key-locked", message),
            KeyError::Random(_) | KeyError::Encode => Self::local("key-unmade", message),
        }
    }
}

/// Makes a new key in a new file.
///
/// # Errors
/// When the file is there already or cannot be written, or there is no randomness.
pub fn make(path: &Path, passphrase: Option<&Passphrase>) -> Result<Signer, KeyError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(KeyError::Random)?;
    let pem = written(&seed, passphrase)?;
    files::create(path, pem.as_bytes(), Mode::Secret)?;
    Ok(held(&seed))
}

/// Reads a key; one that others may read is refused. `ask` gives the passphrase of one that is locked. A file that only names a key
/// (OpenSSH's of one in hardware, or a `.pub` file) gives the tool that signs with it.
///
/// # Errors
/// When there is no such key, it is exposed, or the passphrase does not open it.
pub fn read(
    path: &Path,
    ask: impl FnOnce() -> Result<Passphrase, PassphraseError>,
) -> Result<Signer, KeyError> {
    let text = text(path)?;
    if let Some(public) = public_half(&text) {
        return Ok(Signer::Tool {
            file: path.to_owned(),
            public,
        });
    }
    guarded(path, false)?;
    let is_openssh = text.contains(openssh::BEGIN);
    let seed = match is_openssh {
        false => seed(path, &text, ask)?,
        true => match openssh::read(&text, ask) {
            Ok(openssh::Held::Seed(seed)) => seed,
            Ok(openssh::Held::Hardware(public)) => {
                return Ok(Signer::Tool {
                    file: path.to_owned(),
                    public,
                });
            }
            Err(error) => return Err(unusable(path, error)),
        },
    };
    Ok(Signer::Here {
        key: ApproverKey::from_seed(&seed),
        is_openssh,
    })
}

fn unusable(path: &Path, error: OpenSshError) -> KeyError {
    let path = path.to_owned();
    match error {
        OpenSshError::Passphrase(error) => error.into(),
        OpenSshError::WrongPassphrase => KeyError::WrongPassphrase { path },
        source => KeyError::OpenSsh { path, source },
    }
}

/// The key of a `.pub` file, whose secret half an SSH agent may have, or hardware.
fn public_half(text: &str) -> Option<PublicKey> {
    let line = text.trim();
    let key = PublicKey::try_from(line.to_owned()).ok()?;
    // Penstock's own form stands in documents, and is the name of no file's key.
    (!line.contains('\n') && !key.is_plain()).then_some(key)
}

fn text(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let bytes = Zeroizing::new(files::read(path, KEY_BYTES_MAX)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| KeyError::Form {
        path: path.to_owned(),
    })?;
    Ok(Zeroizing::new(text.trim_start_matches('\u{feff}').to_owned()))
}

/// Locks a key by another passphrase, or by none; the file is replaced in one step, where a link leads to it, too: what it
/// leads to would else keep the old lock.
///
/// # Errors
/// As [`read`] and [`make`].
pub fn relock(
    path: &Path,
    ask: impl FnOnce() -> Result<Passphrase, PassphraseError>,
    new: impl FnOnce() -> Result<Option<Passphrase>, PassphraseError>,
) -> Result<Signer, KeyError> {
    let path = std::fs::canonicalize(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    let text = text(&path)?;
    guarded(&path, false)?;
    if text.contains(openssh::BEGIN) {
        return Err(KeyError::NotOurs { path });
    }
    let seed = seed(&path, &text, ask)?;
    let pem = written(&seed, new()?.as_ref())?;
    files::replace(&path, pem.as_bytes(), Mode::Secret)?;
    Ok(held(&seed))
}

/// Refuses a file with a secret that others than its owner may read.
fn guarded(path: &Path, passphrase: bool) -> Result<(), KeyError> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o077 != 0 => Err(KeyError::Exposed {
            path: path.to_owned(),
            mode: found.permissions().mode() & 0o777,
            passphrase,
        }),
        _ => Ok(()),
    }
}

fn written(seed: &[u8; 32], passphrase: Option<&Passphrase>) -> Result<Zeroizing<String>, KeyError> {
    let key = KeypairBytes {
        secret_key: *seed,
        public_key: None,
    };
    let written = match passphrase {
        None => key.to_pkcs8_pem(LineEnding::LF),
        Some(passphrase) => key.to_pkcs8_encrypted_pem(passphrase.bytes(), LineEnding::LF),
    };
    written.map_err(|_| KeyError::Encode)
}

fn seed(
    path: &Path,
    pem: &str,
    ask: impl FnOnce() -> Result<Passphrase, PassphraseError>,
) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let path = || path.to_owned();
    let key = if pem.contains(LOCKED) {
        let passphrase = ask()?;
        SigningKey::from_pkcs8_encrypted_pem(pem, passphrase.bytes())
            .map_err(|_| KeyError::WrongPassphrase { path: path() })?
    } else {
        SigningKey::from_pkcs8_pem(pem).map_err(|_| KeyError::Form { path: path() })?
    };
    Ok(Zeroizing::new(key.to_bytes()))
}

fn held(seed: &[u8; 32]) -> Signer {
    Signer::Here {
        key: ApproverKey::from_seed(seed),
        is_openssh: false,
    }
}

/// The public half as it stands in a plant document.
pub fn public_words(key: &Signer) -> String {
    String::from(key.public())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::Command;

    fn nobody_asks() -> Result<Passphrase, PassphraseError> {
        panic!("nobody asks for the passphrase of a key that has none")
    }

    fn openssl(arguments: &[&str]) -> String {
        let output = Command::new("openssl").args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "openssl {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The public half as OpenSSL prints it, in the document's words.
    fn public_by_openssl(path: &Path, passphrase: &str) -> String {
        let (file, pass) = (path.to_str().unwrap(), format!("pass:{passphrase}"));
        let text = openssl(&["pkey", "-in", file, "-passin", &pass, "-noout", "-text_pub"]);
        let (_, digits) = text.split_once("pub:").unwrap();
        let digits: String = digits.chars().filter(char::is_ascii_hexdigit).collect();
        format!("ed25519:{digits}")
    }

    #[test]
    fn a_key_reads_back_as_it_was_made_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        let made = make(&path, None).unwrap();
        assert_eq!(read(&path, nobody_asks).unwrap().public(), made.public());
        assert!(matches!(
            make(&path, None),
            Err(KeyError::File(FileError::Exists { .. }))
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            read(&path, nobody_asks),
            Err(KeyError::Exposed { mode: 0o640, .. })
        ));
    }

    #[test]
    fn a_locked_key_opens_with_its_passphrase_alone_and_the_passphrase_can_be_changed_and_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        let [first, second] = ["correct horse", "battery staple"].map(|text| Passphrase::new(text).unwrap());
        let made = make(&path, Some(&first)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(LOCKED), "{text}");
        assert_eq!(read(&path, || Ok(first.clone())).unwrap().public(), made.public());
        assert!(matches!(
            read(&path, || Ok(second.clone())),
            Err(KeyError::WrongPassphrase { .. })
        ));
        relock(&path, || Ok(first.clone()), || Ok(Some(second.clone()))).unwrap();
        assert!(read(&path, || Ok(first)).is_err());
        relock(&path, || Ok(second), || Ok(None)).unwrap();
        assert_eq!(read(&path, nobody_asks).unwrap().public(), made.public());
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_key_that_a_link_leads_to_is_locked_itself_and_the_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a.key"), folder.path().join("link.key"));
        make(&path, None).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let passphrase = Passphrase::new("correct horse").unwrap();
        relock(&link, nobody_asks, || Ok(Some(passphrase))).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert!(std::fs::read_to_string(&path).unwrap().starts_with(LOCKED));
    }

    #[test]
    fn openssl_reads_what_is_written_here_with_and_without_a_passphrase() {
        let folder = tempfile::tempdir().unwrap();
        for (name, passphrase) in [
            ("plain", None),
            ("locked", Some(Passphrase::new("correct horse").unwrap())),
        ] {
            let path = folder.path().join(name);
            let made = make(&path, passphrase.as_ref()).unwrap();
            assert_eq!(
                public_by_openssl(&path, "correct horse"),
                public_words(&made),
                "{name}"
            );
        }
    }

    #[test]
    fn keys_that_openssl_made_are_read_with_and_without_a_passphrase() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let file = |name: &str| path(name).to_str().unwrap().to_owned();
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", &file("plain")]);
        let lock = [
            "pkcs8",
            "-topk8",
            "-passout",
            "pass:correct horse",
            "-in",
            &file("plain"),
            "-out",
        ];
        openssl(&[&lock[..], &[&file("pbkdf2")]].concat());
        openssl(&[&lock[..], &[&file("scrypt"), "-scrypt"]].concat());
        let passphrase = || Passphrase::new("correct horse");
        for name in ["plain", "pbkdf2", "scrypt"] {
            std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
            let read = read(&path(name), passphrase).unwrap();
            assert_eq!(
                public_words(&read),
                public_by_openssl(&path("plain"), ""),
                "{name}"
            );
        }
    }

    #[test]
    fn a_key_in_the_form_that_earlier_versions_wrote_is_still_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.key");
        let old = SigningKey::from_bytes(&[7; 32]);
        let pem = old.to_pkcs8_pem(LineEnding::LF).unwrap();
        files::create(&path, format!("\u{feff}{}", &*pem).as_bytes(), Mode::Secret).unwrap();
        let read = read(&path, nobody_asks).unwrap();
        assert_eq!(read.public().point(), old.verifying_key().as_bytes());
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
        assert!(matches!(read(&path, nobody_asks), Err(KeyError::Form { .. })));
    }
}
