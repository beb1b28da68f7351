//! Seals: what a source's keys sign of its trail, in the trail itself.
//!
//! A seal is an event (`SealEvent`) whose note names the head of the chain just before the seal's own block:
//!
//! ```text
//! penstock trail 1
//! works/gw-a                    plant and source
//! epoch 3 next 1207             the place that the seal's block has
//! head <base64>                 digest of the block before it
//! time 1790000000000            the source's clock, ms since 1970
//! since 1190                    the blocks from here on are also named apart from one another:
//! blocks 3 12 <base64>          those of severity 3: how many, and the digest of their digests
//! key 17 <base64>               the seal key that signs this
//! next <base64>                 the one that signs the next seal
//! ```
//!
//! **Seal keys** are Ed25519 and sign one seal each: seal *n* announces the public half of key *n + 1*, and then key *n* is erased. So whoever
//! takes the machine cannot sign anew what was sealed before. **The identity key** vouches for seal keys: it signs the text of a seal that
//! stands in the trail already, in an event of its own with its certificates, when it gets to it (a TPM takes its time).
//!
//! A block that is shed leaves a gap, over which the chain of digests proves nothing of the block before it. What is shed is the oldest of the least
//! severe; so a seal names what stands since the last one for each severity apart, and what is kept stays proved.
//!
//! What is made of them, [`chain`](super::chain) says.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use pkcs8::der::zeroize::Zeroizing;
use rustls::pki_types::CertificateDer;

use sha2::Digest as _;

use super::Head;
use super::note::{Note, NoteSignature, ed25519_id};
use crate::keys::{Key, KeyError};
use crate::v1::SealEvent;

const FORM: &str = "penstock trail 1";
/// Names of plants and sources are far shorter.
const NAME_BYTES_MAX: usize = 200;

/// Severities that blocks have.
pub const SEVERITIES: usize = 5;

/// Blocks of one epoch since some place, for each severity apart. Blocks of nothing but seals are none of them.
#[derive(Debug, Clone)]
pub struct BlocksSince {
    sequence: u64,
    classes: [(u64, sha2::Sha256); SEVERITIES],
}

impl BlocksSince {
    /// None yet, since the block at this sequence.
    pub fn new(sequence: u64) -> Self {
        Self {
            sequence,
            classes: std::array::from_fn(|_| (0, sha2::Sha256::new())),
        }
    }

    /// Takes the next block; one of an unknown severity counts with the gravest.
    pub fn take(&mut self, severity: usize, digest: &[u8; 32]) {
        if let Some((blocks, hash)) = self.classes.get_mut(severity.min(SEVERITIES - 1)) {
            *blocks = blocks.saturating_add(1);
            hash.update(digest);
        }
    }

    /// What a seal says of them.
    pub fn named(&self) -> NamedBlocks {
        let classes = (0..).zip(&self.classes).filter(|(_, (blocks, _))| *blocks > 0);
        NamedBlocks {
            since: self.sequence,
            classes: classes
                .map(|(severity, (blocks, hash))| (severity, *blocks, hash.clone().finalize().into()))
                .collect(),
        }
    }
}

/// What a seal says of the blocks before it, apart from the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedBlocks {
    /// The sequence from which they are named.
    pub since: u64,
    /// Severity, how many, and the digest of their digests; the least severity first.
    pub classes: Vec<(u8, u64, [u8; 32])>,
}

/// The name under which the keys of a source sign: its plant and its own.
pub fn signer_name(plant: &str, source: &str) -> String {
    format!("{plant}/{source}")
}

/// The identity key's word for the seal of this text: `key` is the one that the first of `certificates` names.
///
/// # Errors
/// The key's holder cannot sign now, or the certificate cannot be read.
pub fn word(
    text: &str,
    name: &str,
    key: &Key,
    certificates: &[CertificateDer<'_>],
) -> Result<SealEvent, KeyError> {
    let none = || KeyError::Form("the certificate of the key that signs".to_owned());
    let leaf = certificates.first().ok_or_else(none)?;
    let note = Note {
        text: text.to_owned(),
        signatures: vec![NoteSignature::certified(name, key, leaf, text)?],
    };
    let certificates = certificates.iter().map(|der| der.to_vec().into());
    Ok(SealEvent {
        note: note.to_bytes().into(),
        certificates: certificates.collect(),
    })
}

/// What a seal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealText {
    /// [`signer_name`] of whose trail it is.
    pub name: String,
    /// The head that it seals.
    pub head: Head,
    /// The source's clock, milliseconds since 1970.
    pub time_ms: u64,
    /// The blocks before it, apart from the chain.
    pub blocks: NamedBlocks,
    /// The seal's number since the keys began.
    pub number: u64,
    /// The public key that signs it.
    pub key: [u8; 32],
    /// The one that signs the next.
    pub next_key: [u8; 32],
}

impl fmt::Display for SealText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |bytes: &[u8; 32]| BASE64_STANDARD.encode(bytes);
        let Head {
            epoch,
            next_sequence,
            digest,
        } = &self.head;
        writeln!(f, "{FORM}\n{}\nepoch {epoch} next {next_sequence}", self.name)?;
        writeln!(f, "head {}\ntime {}", encode(digest), self.time_ms)?;
        writeln!(f, "since {}", self.blocks.since)?;
        for (severity, blocks, digest) in &self.blocks.classes {
            writeln!(f, "blocks {severity} {blocks} {}", encode(digest))?;
        }
        writeln!(
            f,
            "key {} {}\nnext {}",
            self.number,
            encode(&self.key),
            encode(&self.next_key)
        )
    }
}

impl SealText {
    /// Reads a seal's text in its only form; `None`: it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let decode = |text: &str| <[u8; 32]>::try_from(BASE64_STANDARD.decode(text).ok()?).ok();
        let (mut lines, mut classes) = (text.split('\n'), Vec::new());
        let mut line = |word: &str| lines.next()?.strip_prefix(word);
        line(FORM)?;
        let name = line("")?;
        let (epoch, next_sequence) = line("epoch ")?.split_once(" next ")?;
        let digest = line("head ")?;
        let time_ms = line("time ")?;
        let since = line("since ")?.parse().ok()?;
        let mut next = line("")?;
        while let Some(named) = next
            .strip_prefix("blocks ")
            .filter(|_| classes.len() < SEVERITIES)
        {
            let mut words = named.split(' ');
            let severity: u8 = words.next()?.parse().ok()?;
            classes.push((severity, words.next()?.parse().ok()?, decode(words.next()?)?));
            next = line("")?;
        }
        let (number, key) = next.strip_prefix("key ")?.split_once(' ')?;
        let next_key = line("next ")?;
        let read = Self {
            name: name.to_owned(),
            head: Head {
                epoch: epoch.parse().ok()?,
                next_sequence: next_sequence.parse().ok()?,
                digest: decode(digest)?,
            },
            time_ms: time_ms.parse().ok()?,
            blocks: NamedBlocks { since, classes },
            number: number.parse().ok()?,
            key: decode(key)?,
            next_key: decode(next_key)?,
        };
        let is_bounded = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
        let severities = read
            .blocks
            .classes
            .iter()
            .map(|(severity, ..)| usize::from(*severity));
        let is_ordered = severities.clone().is_sorted_by(|one, next| one < next)
            && severities.max().is_none_or(|greatest| greatest < SEVERITIES);
        // One spelling only: also of numbers.
        (is_bounded && is_ordered && read.to_string() == text).then_some(read)
    }
}

/// A key that signs one seal. Its secret half is erased from memory when it is dropped.
pub struct SealKey(SigningKey);

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SealKey").finish_non_exhaustive()
    }
}

impl SealKey {
    /// The one with this secret.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// Its secret, to be kept until it has signed.
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// Its public half.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The seal's text with this key named, and its note.
    pub fn seal(&self, text: SealText) -> (SealText, Note) {
        let text = SealText {
            key: self.public(),
            ..text
        };
        let signed = text.to_string();
        let signature = NoteSignature {
            name: text.name.clone(),
            key_id: ed25519_id(&text.name, &text.key),
            bytes: self.0.sign(signed.as_bytes()).to_bytes().to_vec(),
        };
        let note = Note {
            text: signed,
            signatures: vec![signature],
        };
        (text, note)
    }
}
