//! How a signature was made: each names its algorithm, and the form of the key decides which of them count.
//!
//! | algorithm | signed is | bytes |
//! |---|---|---|
//! | `ed25519` (where none is named) | the DSSE encoding of the payload | Ed25519: 64 |
//! | `ssh-ed25519` | an SSHSIG of the payload ([`sshsig`](super::sshsig)) | Ed25519: 64 |
//! | `sk-ssh-ed25519@openssh.com` | the same, with what FIDO2 hardware puts around it | Ed25519, flags, counter: 69 |
//!
//! Another one, such as for a time after quantum computers, is a variant here with its length, and a form of key that it fits.
//! An algorithm that is unknown is refused by its name and never counts.

use std::fmt;

use crate::model::{KeyForm, PublicKey};

/// The algorithm of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// Ed25519 over the DSSE encoding.
    Ed25519,
    /// Ed25519 over an SSHSIG.
    SshEd25519,
    /// Ed25519 in FIDO2 hardware over an SSHSIG.
    SkSshEd25519,
}

impl Algorithm {
    /// The one with this name; nothing is `ed25519`, as in all signatures from before algorithms had names.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "" => Some(Self::Ed25519),
            name => [Self::Ed25519, Self::SshEd25519, Self::SkSshEd25519]
                .into_iter()
                .find(|one| one.as_str() == name),
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::SshEd25519 => "ssh-ed25519",
            Self::SkSshEd25519 => "sk-ssh-ed25519@openssh.com",
        }
    }

    /// Its name as it is written: nothing for `ed25519`, so that software from before reads those.
    pub fn written(self) -> &'static str {
        match self {
            Self::Ed25519 => "",
            other => other.as_str(),
        }
    }

    /// How many bytes a signature has.
    pub fn length(self) -> usize {
        match self {
            Self::Ed25519 | Self::SshEd25519 => 64,
            Self::SkSshEd25519 => 69,
        }
    }

    /// Whether a key of this form makes such signatures.
    pub fn is_of(self, key: &PublicKey) -> bool {
        Self::all_of(key).contains(&self)
    }

    /// The algorithms whose signatures count for a key.
    pub fn all_of(key: &PublicKey) -> &'static [Self] {
        match key.form() {
            KeyForm::Plain => &[Self::Ed25519],
            KeyForm::Ssh => &[Self::Ed25519, Self::SshEd25519],
            KeyForm::Hardware { .. } => &[Self::SkSshEd25519],
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
