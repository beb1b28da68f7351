//! The seal keys of a source: the one that signs the next seal, and the one that this seal announces.
//!
//! Both are in one file, which is replaced behind each seal: then the key that signed is erased. Whatever step the machine stops at:
//!
//! - before the seal is durable, the file is as it was, and the same seal is made again;
//! - behind it and before the file is replaced, the same key signs once more, with the same announcement: a verifier takes that;
//! - while the file cannot be replaced, likewise.
//!
//! What this does not do: a flash disk may keep old sectors of the file where whoever takes it apart finds them. And what comes behind the newest
//! seal, whoever holds the machine can rewrite.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pkcs8::der::zeroize::Zeroizing;

use super::Head;
use super::seal::{NamedBlocks, SealKey, SealText};
use crate::v1::SealEvent;

const FORM: &str = "penstock-seal-keys/1";

/// The system provides no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no seal key can be made: the system provides no random numbers")]
pub struct NoRandom;

/// The keys of the next seal.
#[derive(Debug)]
pub struct SealKeys {
    number: u64,
    key: SealKey,
    next: SealKey,
}

impl SealKeys {
    /// New ones.
    ///
    /// # Errors
    /// The system provides no random numbers.
    pub fn begin() -> Result<Self, NoRandom> {
        Ok(Self {
            number: 0,
            key: fresh()?,
            next: fresh()?,
        })
    }

    /// Those for the seal after this one.
    ///
    /// # Errors
    /// The system provides no random numbers.
    pub fn advanced(&self) -> Result<Self, NoRandom> {
        Ok(Self {
            number: self.number.saturating_add(1),
            key: SealKey::new(&self.next.secret()),
            next: fresh()?,
        })
    }

    /// The number of the next seal.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Seals `head`, for the block at its place, and names `blocks` before it.
    pub fn seal(&self, name: &str, head: Head, blocks: NamedBlocks, time_ms: u64) -> (SealText, SealEvent) {
        let (text, note) = self.key.seal(SealText {
            name: name.to_owned(),
            head,
            time_ms,
            blocks,
            number: self.number,
            key: self.key.public(),
            next_key: self.next.public(),
        });
        let event = SealEvent {
            note: note.to_bytes().into(),
            certificates: Vec::new(),
        };
        (text, event)
    }

    /// As they stand in their file, which nobody else may read.
    pub fn to_text(&self) -> Zeroizing<String> {
        let encode = |key: &SealKey| Zeroizing::new(BASE64_STANDARD.encode(key.secret().as_slice()));
        Zeroizing::new(format!(
            "{FORM} {} {} {}\n",
            self.number,
            *encode(&self.key),
            *encode(&self.next)
        ))
    }

    /// Those of a file, whose bytes are erased from memory; `None`: it is damaged.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        let bytes = Zeroizing::new(bytes);
        Self::from_text(std::str::from_utf8(&bytes).ok()?)
    }

    /// Those of a text; `None`: it is damaged.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut words = text.strip_suffix('\n')?.split(' ');
        if words.next()? != FORM {
            return None;
        }
        let number = words.next()?.parse().ok()?;
        let mut key = || {
            let secret = Zeroizing::new(BASE64_STANDARD.decode(words.next()?).ok()?);
            Some(SealKey::new(secret.as_slice().try_into().ok()?))
        };
        let (key, next) = (key()?, key()?);
        words.next().is_none().then_some(Self { number, key, next })
    }
}

fn fresh() -> Result<SealKey, NoRandom> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice()).map_err(|_| NoRandom)?;
    Ok(SealKey::new(&secret))
}
