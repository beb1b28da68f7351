//! Public keys of people, and the forms in which they are written.
//!
//! ```text
//! ed25519:<64 hexadecimal digits>                                  a key that `penstock key new` made
//! ssh-ed25519 <base64> [comment]                                   a key that `ssh-keygen` made
//! [verify-required ]sk-ssh-ed25519@openssh.com <base64> [comment]  a key in FIDO2 hardware
//! ```
//!
//! Invariants: a key of this type is a valid point for which nobody but its owner can sign (reading refuses the others), and its
//! form says which signatures of it count. Two forms of one point are one person: whoever counts people counts points.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::ssh;

/// The kind of an Ed25519 key in OpenSSH's form.
pub(crate) const SSH_KIND: &str = "ssh-ed25519";
/// The kind of one in FIDO2 hardware.
pub(crate) const HARDWARE_KIND: &str = "sk-ssh-ed25519@openssh.com";
/// The option before a hardware key that has to ask for a PIN or a fingerprint, as `authorized_keys` writes it.
const VERIFY: &str = "verify-required";
/// The longest name of an application that hardware binds a key to; OpenSSH's own is `ssh:`.
pub const APPLICATION_BYTES_MAX: usize = 64;
/// The longest text that is read as a key: OpenSSH's form with a comment.
const TEXT_BYTES_MAX: usize = 1024;

/// The Ed25519 public key of a person (RFC 8032), with the form in which the document has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey {
    point: [u8; 32],
    form: KeyForm,
}

/// What holds the private half, and so what its signatures look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyForm {
    /// Penstock's own form.
    Plain,
    /// OpenSSH's form: `ssh-keygen` and an agent sign with it, too.
    Ssh,
    /// FIDO2 hardware, which signs for this application and only when it is touched.
    Hardware {
        /// What the hardware bound the key to.
        application: Application,
        /// Whether a signature counts only if the hardware asked for a PIN or a fingerprint.
        verify: bool,
    },
}

/// The name that FIDO2 hardware binds a key to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Application {
    bytes: [u8; APPLICATION_BYTES_MAX],
    length: u8,
}

impl Application {
    /// Of these bytes; `None` if they are too many.
    pub fn new(name: &[u8]) -> Option<Self> {
        let length = u8::try_from(name.len()).ok()?;
        let mut bytes = [0; APPLICATION_BYTES_MAX];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self { bytes, length })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

impl PublicKey {
    /// The key of a secret one that Penstock holds itself.
    pub const fn ed25519(point: [u8; 32]) -> Self {
        Self {
            point,
            form: KeyForm::Plain,
        }
    }

    /// What it is, whatever its form: two keys with one point are one person's.
    pub fn point(&self) -> &[u8; 32] {
        &self.point
    }

    /// Its form.
    pub fn form(&self) -> &KeyForm {
        &self.form
    }

    /// Whether software from before OpenSSH's forms reads it.
    pub fn is_plain(&self) -> bool {
        self.form == KeyForm::Plain
    }

    /// Whether `other` is the same key in the same place: in hardware bound to the same application, or not in hardware. Neither how it
    /// is written nor what is asked of its holder makes it another.
    pub fn is_held_as(&self, other: &Self) -> bool {
        let hardware = |form: &KeyForm| match form {
            KeyForm::Plain | KeyForm::Ssh => None,
            KeyForm::Hardware { application, .. } => Some(*application),
        };
        self.point == other.point && hardware(&self.form) == hardware(&other.form)
    }

    /// The key in the bytes that OpenSSH encodes (RFC 4253 section 6.6, PROTOCOL.u2f).
    ///
    /// # Errors
    /// The bytes are cut, of another kind of key, or a key that anybody could sign for.
    pub fn from_ssh(mut blob: &[u8]) -> Result<Self, PublicKeyError> {
        let rest = &mut blob;
        let kind = ssh::string(rest).ok_or(PublicKeyError::Damaged)?;
        let is_hardware = match kind {
            kind if kind == SSH_KIND.as_bytes() => false,
            kind if kind == HARDWARE_KIND.as_bytes() => true,
            other => return Err(PublicKeyError::of_kind(&String::from_utf8_lossy(other))),
        };
        let point = ssh::string(rest).and_then(|point| point.try_into().ok());
        let point: [u8; 32] = point.ok_or(PublicKeyError::Damaged)?;
        let form = if is_hardware {
            let name = ssh::string(rest).ok_or(PublicKeyError::Damaged)?;
            let application = Application::new(name).ok_or(PublicKeyError::Application(name.len()))?;
            KeyForm::Hardware {
                application,
                verify: false,
            }
        } else {
            KeyForm::Ssh
        };
        if !rest.is_empty() {
            return Err(PublicKeyError::Damaged);
        }
        Self::checked(point, form)
    }

    /// The bytes that OpenSSH encodes it in; one in Penstock's form as OpenSSH would have it.
    pub fn to_ssh(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        ssh::put(&mut blob, self.kind().as_bytes());
        ssh::put(&mut blob, &self.point);
        if let KeyForm::Hardware { application, .. } = &self.form {
            ssh::put(&mut blob, application.as_bytes());
        }
        blob
    }

    /// What OpenSSH calls it.
    pub(crate) fn kind(&self) -> &'static str {
        match self.form {
            KeyForm::Plain | KeyForm::Ssh => SSH_KIND,
            KeyForm::Hardware { .. } => HARDWARE_KIND,
        }
    }

    fn checked(point: [u8; 32], form: KeyForm) -> Result<Self, PublicKeyError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(&point).map_err(|_| PublicKeyError::Point)?;
        // For a key of small order anyone can make signatures that verify.
        if key.is_weak() {
            return Err(PublicKeyError::Point);
        }
        Ok(Self { point, form })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            KeyForm::Plain => return write!(f, "ed25519:{}", hex::encode(self.point)),
            KeyForm::Hardware { verify: true, .. } => write!(f, "{VERIFY} ")?,
            KeyForm::Ssh | KeyForm::Hardware { .. } => {}
        }
        write!(f, "{} {}", self.kind(), BASE64.encode(self.to_ssh()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

impl TryFrom<String> for PublicKey {
    type Error = PublicKeyError;
    fn try_from(text: String) -> Result<Self, PublicKeyError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(PublicKeyError::Form);
        }
        if let Some(digits) = text.strip_prefix("ed25519:") {
            let mut point = [0; 32];
            hex::decode_to_slice(digits, &mut point).map_err(|_| PublicKeyError::Form)?;
            return Self::checked(point, KeyForm::Plain);
        }
        let mut words = text.split_ascii_whitespace().peekable();
        let must_verify = words.next_if_eq(&VERIFY).is_some();
        let (Some(kind), Some(encoded)) = (words.next(), words.next()) else {
            return Err(PublicKeyError::Form);
        };
        if ![SSH_KIND, HARDWARE_KIND].contains(&kind) {
            return Err(PublicKeyError::of_kind(kind));
        }
        let blob = BASE64.decode(encoded).map_err(|_| PublicKeyError::Damaged)?;
        let mut key = Self::from_ssh(&blob)?;
        if key.kind() != kind {
            return Err(PublicKeyError::Damaged);
        }
        match &mut key.form {
            KeyForm::Hardware { verify, .. } => *verify = must_verify,
            KeyForm::Plain | KeyForm::Ssh if must_verify => return Err(PublicKeyError::NothingToVerify),
            KeyForm::Plain | KeyForm::Ssh => {}
        }
        Ok(key)
    }
}

/// A string that is not a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Nothing like one.
    #[error(
        "not a public key: expected `ed25519:` and 64 hexadecimal digits, or OpenSSH's line: `ssh-ed25519 …` or `sk-ssh-ed25519@openssh.com …`"
    )]
    Form,
    /// OpenSSH's form of another kind of key.
    #[error(
        "a key of the kind `{0}` is not supported: expected is `ssh-ed25519` or `sk-ssh-ed25519@openssh.com` (ssh-keygen -t ed25519, ssh-keygen -t ed25519-sk)"
    )]
    Kind(String),
    /// Cut or altered.
    #[error("the public key is damaged: copy the whole line of the `.pub` file again")]
    Damaged,
    /// No point, or a weak one.
    #[error("not a public key: it is not a valid point, or one for which anybody could sign")]
    Point,
    /// A long name.
    #[error("the hardware key's application has {0} bytes, at most {APPLICATION_BYTES_MAX} are read")]
    Application(usize),
    /// The option at a key that has no hardware.
    #[error(
        "`verify-required` is for a key in hardware (`sk-ssh-ed25519@openssh.com`): nothing else asks for a PIN"
    )]
    NothingToVerify,
}

impl PublicKeyError {
    /// Of a word in the place of a kind, where it looks like one.
    fn of_kind(word: &str) -> Self {
        let is_kind =
            word.len() <= 64 && word.contains('-') && word.bytes().all(|byte| byte.is_ascii_graphic());
        match is_kind {
            true => Self::Kind(word.to_owned()),
            false => Self::Form,
        }
    }
}

#[cfg(test)]
mod tests;
