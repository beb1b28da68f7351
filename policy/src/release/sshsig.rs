//! Signatures that `ssh-keygen -Y sign` makes (OpenSSH's PROTOCOL.sshsig), over the exact bytes of what is signed.
//!
//! A file of that tool is read once, where a person brings it ([`SshSignature::from_armor`]). What is kept and sent of it is only the
//! signature proper: all else in the file is known to whoever verifies, who builds the one message that counts ([`message`]).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::algorithm::Algorithm;
use crate::model::PublicKey;
use crate::ssh;

/// How such a file, and what is signed, begins.
const MAGIC: &[u8; 6] = b"SSHSIG";
/// The only version that there is.
const VERSION: u32 = 1;
/// The hash that `ssh-keygen` uses where nobody asks for another.
const HASH: &[u8] = b"sha512";
/// The longest file that is read, bytes: one of a hardware key has about 400.
pub const ARMOR_BYTES_MAX: usize = 4096;
/// The lines around it.
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";

/// What an SSH key signs for this payload: the one message that counts in this namespace.
pub(super) fn message(namespace: &str, payload: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    let mut message = MAGIC.to_vec();
    ssh::put(&mut message, namespace.as_bytes());
    ssh::put(&mut message, b"");
    ssh::put(&mut message, HASH);
    ssh::put(&mut message, &sha2::Sha512::digest(payload));
    message
}

/// A signature in the form of `ssh-keygen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSignature {
    /// The key that it says it was made with.
    pub key: PublicKey,
    /// What it was made for.
    pub namespace: String,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its bytes, as many as the algorithm has.
    pub bytes: Vec<u8>,
}

/// Why a file is not such a signature.
#[derive(Debug, thiserror::Error)]
pub enum SshSignatureError {
    /// Not the tool's form.
    #[error("it is not a signature of `ssh-keygen -Y sign`, or it was cut")]
    Form,
    /// By another kind of key.
    #[error("its key cannot be used: {0}")]
    Key(#[from] crate::model::PublicKeyError),
    /// With another hash.
    #[error("it was made with the hash `{0}`, expected is `sha512`: leave `-O hashalg` out")]
    Hash(String),
}

impl SshSignature {
    /// Reads the file that `ssh-keygen -Y sign` writes.
    ///
    /// # Errors
    /// The text is something else, or the key or the hash is of another kind.
    pub fn from_armor(text: &str) -> Result<Self, SshSignatureError> {
        if text.len() > ARMOR_BYTES_MAX {
            return Err(SshSignatureError::Form);
        }
        let inner = text
            .trim()
            .strip_prefix(BEGIN)
            .and_then(|text| text.strip_suffix(END));
        let inner: String = inner.ok_or(SshSignatureError::Form)?.split_whitespace().collect();
        let blob = BASE64.decode(inner).map_err(|_| SshSignatureError::Form)?;
        Self::from_blob(&blob)
    }

    fn from_blob(blob: &[u8]) -> Result<Self, SshSignatureError> {
        let form = || SshSignatureError::Form;
        let mut blob = blob.strip_prefix(MAGIC).ok_or_else(form)?;
        blob = blob.strip_prefix(&VERSION.to_be_bytes()).ok_or_else(form)?;
        let rest = &mut blob;
        let mut next = || ssh::string(rest).ok_or(SshSignatureError::Form);
        let (key, namespace, reserved, hash, signature) = (next()?, next()?, next()?, next()?, next()?);
        if !rest.is_empty() || !reserved.is_empty() {
            return Err(form());
        }
        let key = PublicKey::from_ssh(key)?;
        if hash != HASH {
            let name: String = String::from_utf8_lossy(hash).chars().take(32).collect();
            return Err(SshSignatureError::Hash(name));
        }
        let mut signature = signature;
        let rest = &mut signature;
        let name = ssh::string(rest).ok_or_else(form)?;
        let proper = ssh::string(rest).ok_or_else(form)?;
        // Around the signature proper hardware puts flags and a counter.
        let bytes = [proper, *rest].concat();
        let algorithm = std::str::from_utf8(name).ok().and_then(Algorithm::named);
        let algorithm = algorithm
            .filter(|one| one.as_str() == key.kind())
            .filter(|one| proper.len() == 64 && bytes.len() == one.length())
            .ok_or_else(form)?;
        let namespace = std::str::from_utf8(namespace).map_err(|_| form())?.to_owned();
        Ok(Self {
            key,
            namespace,
            algorithm,
            bytes,
        })
    }
}
