//! Why a key on a token cannot be used now: what happened, where, and what a person can do.

use std::path::PathBuf;

use penstock_policy::ids::Digest;
use penstock_proto::keys::KeyError;

/// Why a key on a token cannot be used now. Cloned to whoever asks meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The module is not a PKCS #11 module, or not there.
    #[error("the PKCS #11 module {} cannot be loaded: {why}. Install it, or mend module-path in `authority.keys`", path.display())]
    Module {
        /// The module.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The module does not answer.
    #[error(
        "the PKCS #11 module {} has not answered for more than 5 s: look at its token, its reader and its service; restart the coordinator if it stays so",
        .0.display()
    )]
    Silent(PathBuf),
    /// More is asked of the module than it does in time.
    #[error("the PKCS #11 module {} has more to sign than it does in time; it is tried again", .0.display())]
    Busy(PathBuf),
    /// The token is not there.
    #[error("the {token} is not there ({} sees {others}): plug it in, or start the service that serves it", path.display())]
    Absent {
        /// Which one.
        token: String,
        /// By which module.
        path: PathBuf,
        /// What the module has instead.
        others: String,
    },
    /// More than one is meant.
    #[error("{count} tokens are a {token}: say serial=NUMBER or slot-id=NUMBER in `authority.keys`, too")]
    Several {
        /// Which one.
        token: String,
        /// How many.
        count: usize,
    },
    /// There is no PIN to show.
    #[error(
        "the {0} asks for a PIN: name the file that holds it in `authority.keys`, as pin-source=file:/PATH"
    )]
    NoPin(String),
    /// The PIN's file.
    #[error("the {token} asks for its PIN, and {why}")]
    PinFile {
        /// Which token.
        token: String,
        /// What is wrong with the file.
        why: String,
    },
    /// The PIN is wrong.
    #[error(
        "the {token} refuses the PIN in {}. It was tried once and is not tried again, so that the token does not lock itself, until that file holds another one",
        file.display()
    )]
    PinRefused {
        /// Which token.
        token: String,
        /// Where the PIN stands.
        file: PathBuf,
    },
    /// One more wrong PIN would lock the token.
    #[error(
        "the {0} has one try for its PIN left, which is kept for a person: log in by hand once (pkcs11-tool --login --test), and see that the PIN's file is right"
    )]
    PinLastTry(String),
    /// The token has locked itself.
    #[error(
        "the {0} has locked its PIN after wrong ones: its security officer sets a new one (pkcs11-tool --init-pin)"
    )]
    PinLocked(String),
    /// The key is not there.
    #[error("the {token} holds no {key}: was it deleted, or is it another token of that name?")]
    NoKey {
        /// Which token.
        token: String,
        /// Which key.
        key: String,
    },
    /// More than one key is meant.
    #[error(
        "the {token} holds {count} private keys that are a {key} (identifiers {ids}): say which by id=… in `authority.keys`; it may be another coordinator's"
    )]
    Ambiguous {
        /// Which token.
        token: String,
        /// Which key.
        key: String,
        /// How many.
        count: usize,
        /// Their identifiers.
        ids: String,
    },
    /// It is a key that signs nothing here.
    #[error("the {key} on the {token} {why}; use ECDSA P-256, P-384 or Ed25519")]
    Kind {
        /// Which token.
        token: String,
        /// Which key.
        key: String,
        /// What it is.
        why: String,
    },
    /// Its public half is not there.
    #[error(
        "the {token} holds no public key object beside the {key}, with the same identifier: it is written by whatever made the key, for instance pkcs11-tool --write-object … --type pubkey"
    )]
    NoPublicHalf {
        /// Which token.
        token: String,
        /// Which key.
        key: String,
    },
    /// The key can leave the token.
    #[error(
        "the {key} on the {token} can be taken off it (it is extractable, or not sensitive, or the module does not say), so that nobody knows who has a copy: name one that is not there yet, and it is made there"
    )]
    Exportable {
        /// Which token.
        token: String,
        /// Which key.
        key: String,
    },
    /// It is not the key that was certified.
    #[error(
        "the issuing certificate is for the key {certified}, and the {key} on the {token} is {found} (SHA-256 of the public keys): name the key that was certified in `authority.keys`, or have this one certified (`penstock-coordinator authority request`)"
    )]
    OtherKey {
        /// Which token.
        token: String,
        /// Which key.
        key: String,
        /// The certificate's.
        certified: Digest,
        /// The token's.
        found: Digest,
    },
    /// The token signs with another key than its public half says.
    #[error(
        "what the {key} on the {token} signs does not verify by the public key beside it: the two do not belong together"
    )]
    WrongSignature {
        /// Which token.
        token: String,
        /// Which key.
        key: String,
    },
    /// The module refused.
    #[error("the {token} failed to {what}: {why}")]
    Failed {
        /// Which token, or module.
        token: String,
        /// What was tried.
        what: &'static str,
        /// By the module's words.
        why: String,
    },
}

impl From<TokenError> for KeyError {
    fn from(error: TokenError) -> Self {
        Self::Sign(error.to_string())
    }
}
