//! The passphrase of an approver's key: from a file for programs, else asked of the person at the terminal, without an echo.
//!
//! Where neither is possible it is refused in words; a passphrase is never an argument, which other users of a machine see.

use std::fmt;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use pkcs8::der::zeroize::Zeroizing;

use super::{KeyError, guarded};
use crate::failure::Failure;
use crate::files::{self, FileError, quoted};
use crate::output::{Output, clean};

/// Longest passphrase, bytes.
const BYTES_MAX: usize = 1024;

/// A passphrase, which is never shown, not even to a debugger's print.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<String>);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// The file that holds it.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is exposed.
    #[error(transparent)]
    Exposed(Box<KeyError>),
    /// Nothing in it.
    #[error("the passphrase is empty")]
    Empty,
    /// Too long.
    #[error("the passphrase has more than {BYTES_MAX} bytes")]
    TooLong,
    /// Not text.
    #[error("{} holds no passphrase: it is not UTF-8 text", .0.display())]
    NotText(PathBuf),
    /// Typed differently the second time.
    #[error("the two passphrases differ")]
    Differ,
    /// Nobody can be asked.
    #[error("{} is locked by a passphrase, and nobody can be asked for it here", .0.display())]
    NobodyToAsk(PathBuf),
    /// Nobody can be asked for another one.
    #[error("no new passphrase was given, and nobody can be asked for one here; the key is as it was")]
    NobodyToAskForNew,
    /// The terminal.
    #[error("the passphrase cannot be read from the terminal")]
    Terminal(#[source] std::io::Error),
}

impl From<PassphraseError> for Failure {
    fn from(error: PassphraseError) -> Self {
        let message = error.to_string();
        match error {
            PassphraseError::File(error) => error.into(),
            PassphraseError::Exposed(error) => (*error).into(),
            PassphraseError::NobodyToAsk(_) => Self::local("key-locked", message)
                .help("name a file that holds it with --passphrase-file FILE, or PENSTOCK_PASSPHRASE_FILE"),
            PassphraseError::NobodyToAskForNew => Self::local("no-passphrase", message).help(
                "name a file that holds it with --new-passphrase-file FILE; --no-passphrase takes the lock away",
            ),
            PassphraseError::Terminal(source) => Self::local("no-answer", message).caused_by(&source),
            PassphraseError::Empty
            | PassphraseError::TooLong
            | PassphraseError::NotText(_)
            | PassphraseError::Differ => Self::local("passphrase-unusable", message),
        }
    }
}

impl Passphrase {
    /// A passphrase as it was typed.
    ///
    /// # Errors
    /// When it is empty or too long.
    pub fn new(text: impl Into<String>) -> Result<Self, PassphraseError> {
        let text = Zeroizing::new(text.into());
        match text.len() {
            0 => Err(PassphraseError::Empty),
            length if length > BYTES_MAX => Err(PassphraseError::TooLong),
            _ => Ok(Self(text)),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The first line of a file, which is its owner's alone; `-` is standard input.
    ///
    /// # Errors
    /// When the file cannot be read, others may read it, or it holds no passphrase.
    pub fn from_file(path: &Path) -> Result<Self, PassphraseError> {
        let path = match path.to_str() {
            Some("-") => Path::new("/dev/stdin"),
            _ => path,
        };
        guarded(path, true).map_err(|error| PassphraseError::Exposed(Box::new(error)))?;
        let bytes = Zeroizing::new(files::read(path, BYTES_MAX as u64 + 8)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| PassphraseError::NotText(path.to_owned()))?;
        let text = text.trim_start_matches('\u{feff}');
        Self::new(text.lines().next().unwrap_or_default())
    }
}

/// Whether a person can be asked: a program that reads JSON, or whose input is elsewhere, is not held up by a question.
fn can_ask(out: &Output) -> bool {
    out.for_people() && std::io::stdin().is_terminal()
}

fn ask(question: &str) -> Result<String, PassphraseError> {
    rpassword::prompt_password(clean(question)).map_err(PassphraseError::Terminal)
}

/// The passphrase of the key in `key`: from `file` if there is one, else from the person.
///
/// # Errors
/// When neither gives one.
pub fn existing(out: &Output, key: &Path, file: Option<&Path>) -> Result<Passphrase, PassphraseError> {
    match file {
        Some(file) => Passphrase::from_file(file),
        None if can_ask(out) => Passphrase::new(ask(&format!("Passphrase of {}: ", quoted(key)))?),
        None => Err(PassphraseError::NobodyToAsk(key.to_owned())),
    }
}

/// A passphrase for a key that is made: from `file`, else from the person, who types it twice. None if the person types none,
/// or where nobody can be asked.
///
/// # Errors
/// When the file holds none, or the person types two different ones.
pub fn fresh(out: &Output, file: Option<&Path>) -> Result<Option<Passphrase>, PassphraseError> {
    match file {
        None if !can_ask(out) => Ok(None),
        file => another(out, file),
    }
}

/// A passphrase for a key that is there already, as [`fresh`]; but a lock is only taken away where a person says so.
///
/// # Errors
/// As [`fresh`], and where nobody can be asked.
pub fn another(out: &Output, file: Option<&Path>) -> Result<Option<Passphrase>, PassphraseError> {
    if let Some(file) = file {
        return Passphrase::from_file(file).map(Some);
    }
    if !can_ask(out) {
        return Err(PassphraseError::NobodyToAskForNew);
    }
    let first = Zeroizing::new(ask("New passphrase for the key (empty for none): ")?);
    if first.is_empty() {
        return Ok(None);
    }
    let second = Zeroizing::new(ask("The same once more: ")?);
    if first != second {
        return Err(PassphraseError::Differ);
    }
    Passphrase::new(first.as_str()).map(Some)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_gives_its_first_line_and_only_if_it_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passphrase");
        for text in [
            "correct horse\n",
            "correct horse",
            "\u{feff}correct horse\r\nsecond line",
        ] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(Passphrase::from_file(&path).unwrap().bytes(), b"correct horse");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            Passphrase::from_file(&path),
            Err(PassphraseError::Exposed(_))
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(
            Passphrase::from_file(&path),
            Err(PassphraseError::Empty)
        ));
        std::fs::write(&path, "x".repeat(BYTES_MAX + 1)).unwrap();
        assert!(matches!(
            Passphrase::from_file(&path),
            Err(PassphraseError::TooLong)
        ));
    }

    #[test]
    fn a_passphrase_is_not_shown_when_it_is_printed_for_a_programmer() {
        let shown = format!("{:?}", Passphrase::new("correct horse").unwrap());
        assert!(!shown.contains("horse"), "{shown}");
    }
}
