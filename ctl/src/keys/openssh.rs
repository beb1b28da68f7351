//! OpenSSH's files of private keys (PROTOCOL.key): Ed25519, locked by a passphrase or not, and the stubs of keys in hardware.
//!
//! A file is read, never written: `ssh-keygen -p` changes its passphrase. A stub holds nothing that could sign: `ssh-keygen` and the
//! hardware do. Everything that a file claims of itself is bounded, also how long its passphrase takes to try.

use aes::Aes256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use penstock_policy::model::{KeyForm, PublicKey, PublicKeyError};
use penstock_policy::ssh;
use pkcs8::der::zeroize::Zeroizing;

use super::passphrase::{Passphrase, PassphraseError};

/// How such a file begins and ends.
pub(super) const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// The cipher that `ssh-keygen` locks a key with, where nobody asks for another.
const CIPHER: &[u8] = b"aes256-ctr";
const KDF: &[u8] = b"bcrypt";
/// The most rounds that are tried: `ssh-keygen` makes 16 to 24; this many take about ten seconds.
const ROUNDS_MAX: u32 = 1000;

/// What a file holds.
pub(super) enum Held {
    /// A secret key.
    Seed(Zeroizing<[u8; 32]>),
    /// The name of one in hardware.
    Hardware(PublicKey),
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum OpenSshError {
    /// Cut, or of another kind altogether.
    #[error("it is damaged")]
    Damaged,
    /// Not Ed25519.
    #[error("{0}")]
    Key(#[from] PublicKeyError),
    /// Locked in another way.
    #[error("it is locked with `{0}`; read is `aes256-ctr`: ssh-keygen -p -Z aes256-ctr -f FILE")]
    Cipher(String),
    /// Locked too well.
    #[error("its passphrase takes {0} rounds, at most {ROUNDS_MAX} are tried: ssh-keygen -p -a 24 -f FILE")]
    Rounds(u32),
    /// The passphrase.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// Another passphrase.
    #[error("the passphrase does not open it")]
    WrongPassphrase,
}

/// Reads a file. `ask` gives the passphrase, if the file holds a secret key that is locked.
pub(super) fn read(
    text: &str,
    ask: impl FnOnce() -> Result<Passphrase, PassphraseError>,
) -> Result<Held, OpenSshError> {
    let inner = text
        .trim()
        .strip_prefix(BEGIN)
        .and_then(|text| text.strip_suffix(END));
    let inner: Zeroizing<String> =
        Zeroizing::new(inner.ok_or(OpenSshError::Damaged)?.split_whitespace().collect());
    let blob = Zeroizing::new(
        BASE64
            .decode(inner.as_bytes())
            .map_err(|_| OpenSshError::Damaged)?,
    );
    let mut rest = blob.strip_prefix(MAGIC).ok_or(OpenSshError::Damaged)?;
    let mut next = || ssh::string(&mut rest).ok_or(OpenSshError::Damaged);
    let (cipher, kdf, options) = (next()?, next()?, next()?);
    let (count, mut after) = rest.split_first_chunk().ok_or(OpenSshError::Damaged)?;
    if u32::from_be_bytes(*count) != 1 {
        return Err(OpenSshError::Damaged);
    }
    let mut next = || ssh::string(&mut after).ok_or(OpenSshError::Damaged);
    let (public, secret) = (PublicKey::from_ssh(next()?)?, next()?);
    if !after.is_empty() {
        return Err(OpenSshError::Damaged);
    }
    if matches!(public.form(), KeyForm::Hardware { .. }) {
        return Ok(Held::Hardware(public));
    }
    match (cipher, kdf) {
        (b"none", b"none") => seed(secret, &public).ok_or(OpenSshError::Damaged),
        (CIPHER, KDF) => {
            let mut options = options;
            let salt = ssh::string(&mut options).ok_or(OpenSshError::Damaged)?;
            let rounds: &[u8; 4] = options.try_into().map_err(|_| OpenSshError::Damaged)?;
            let rounds = u32::from_be_bytes(*rounds);
            if rounds > ROUNDS_MAX {
                return Err(OpenSshError::Rounds(rounds));
            }
            let mut secret = Zeroizing::new(secret.to_vec());
            unlock(&mut secret, &ask()?, salt, rounds).ok_or(OpenSshError::Damaged)?;
            seed(&secret, &public).ok_or(OpenSshError::WrongPassphrase)
        }
        (other, _) => {
            let name: String = String::from_utf8_lossy(other).chars().take(32).collect();
            Err(OpenSshError::Cipher(name))
        }
    }
    .map(Held::Seed)
}

/// Takes the lock away, with whatever passphrase: what comes out says whether it was the right one.
fn unlock(secret: &mut [u8], passphrase: &Passphrase, salt: &[u8], rounds: u32) -> Option<()> {
    let mut derived = Zeroizing::new([0; 48]);
    bcrypt_pbkdf::bcrypt_pbkdf(passphrase.bytes(), salt, rounds, &mut *derived).ok()?;
    let (key, counter) = derived.split_at_checked(32)?;
    let mut cipher = ctr::Ctr128BE::<Aes256>::new_from_slices(key, counter).ok()?;
    cipher.try_apply_keystream(secret).ok()
}

/// The secret of the key `public`, out of the part that a lock covers.
fn seed(mut secret: &[u8], public: &PublicKey) -> Option<Zeroizing<[u8; 32]>> {
    let (first, rest) = secret.split_first_chunk::<4>()?;
    let (second, rest) = rest.split_first_chunk::<4>()?;
    secret = rest;
    let mut next = || ssh::string(&mut secret);
    let (kind, point, pair) = (next()?, next()?, next()?);
    let (seed, half) = pair.split_first_chunk::<32>()?;
    let fits = first == second && kind == b"ssh-ed25519" && point == public.point() && half == point;
    let seed = Zeroizing::new(*seed);
    let made = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
    (fits && made.as_bytes() == public.point()).then_some(seed)
}
