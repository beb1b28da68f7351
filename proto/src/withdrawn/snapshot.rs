//! All of a list in few bytes, and the authority's word that it is so: how a list travels in a release, and from a gateway back to a
//! coordinator that was restored from a backup.
//!
//! ```text
//! Withdrawn ─ snapshot ─▶ bytes ─ SHA-256 ─▶ Held.digest ◀─ named in a release's statement, which approvers sign
//!                                                        ◀─ named in a SignedHeld, which the plant's authority signs
//! ```
//!
//! The bytes are those of which [`Held::digest`] is the SHA-256: whoever knows that digest from somebody whom they believe needs nothing
//! else to believe the list. A gateway takes lists as differences, each signed, and keeps what they add up to; the signature over
//! how far that goes is what it can show later.

use penstock_policy::ids::{Digest, PlantId};
use penstock_policy::release;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{Entry, Held, ISSUING_BYTES_MAX, ListError, Withdrawn, is_signed};
use crate::keys::{Key, KeyError};
use crate::peer::{Epoch, Subject};

/// What a signature says that it is over.
const PAYLOAD_TYPE: &str = "application/vnd.penstock.withdrawn-held+json";
/// The format of what is signed.
const HELD_FORMAT: &str = "penstock-withdrawn-held/1";
/// With what a snapshot begins.
const BEGIN: &[u8] = b"penstock withdrawn 1\0";
/// A release carries no longer snapshot: room for some 2,500 entries. Of a longer list it names number and digest alone.
pub const SNAPSHOT_BYTES_MAX: usize = 64 * 1024;
/// What is signed of a list is not looked at beyond, bytes.
const PAYLOAD_BYTES_MAX: usize = 4 * 1024;

/// Why bytes are not all of a list.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Others than were named.
    #[error("the list of withdrawn keys is not the one that was named: SHA-256 {found} instead of {named}")]
    Other {
        /// Theirs.
        found: Digest,
        /// The one that was named.
        named: Digest,
    },
    /// Not in the one form.
    #[error("the list of withdrawn keys cannot be read: {0}")]
    Unreadable(&'static str),
}

impl Withdrawn {
    /// All of it, without the numbers at which it was said.
    pub fn snapshot(&self) -> Vec<u8> {
        self.bytes_at(self.number)
    }

    pub(super) fn bytes_at(&self, number: u64) -> Vec<u8> {
        let mut bytes = BEGIN.to_vec();
        for (subject, entry) in self.entries.iter().filter(|(_, entry)| entry.number <= number) {
            bytes.extend(subject.to_string().as_bytes());
            bytes.push(0);
            bytes.extend(entry.from.0.to_be_bytes());
        }
        bytes
    }

    /// The list of which somebody said how far it goes.
    ///
    /// # Errors
    /// These are not the bytes of that list.
    pub fn from_snapshot(bytes: &[u8], named: Held) -> Result<Self, SnapshotError> {
        let found = Digest::of(bytes);
        if found != named.digest {
            return Err(SnapshotError::Other {
                found,
                named: named.digest,
            });
        }
        let mut rest = bytes
            .strip_prefix(BEGIN)
            .ok_or(SnapshotError::Unreadable("it does not begin as one"))?;
        let mut list = Self {
            number: named.number,
            ..Self::default()
        };
        while !rest.is_empty() {
            let (subject, from, after) = entry(rest)?;
            let said = Entry {
                from,
                number: named.number,
            };
            list.entries.insert(subject, said);
            rest = after;
        }
        if list.snapshot() != bytes {
            return Err(SnapshotError::Unreadable("it is not in its one form"));
        }
        Ok(list)
    }

    /// Puts all that another list says to this one, for a gateway. Answers whose earlier lives are over only now.
    pub fn take_snapshot(&mut self, other: &Self) -> Vec<Subject> {
        let number = self.number.max(other.number);
        self.put(other, |_| (number, other.number))
    }

    /// The same for whoever gives it to others: what was not known here is said with a number that is beyond both, so that whoever held this list
    /// hears of it.
    pub fn merge(&mut self, other: &Self) -> Vec<Subject> {
        let number = self.number;
        self.put(other, |is_news| {
            let next = number.saturating_add(u64::from(is_news)).max(other.number);
            (next, next)
        })
    }

    /// `numbers`, by whether anything is new: of the list from then on, and of what is new in it.
    fn put(&mut self, other: &Self, numbers: impl FnOnce(bool) -> (u64, u64)) -> Vec<Subject> {
        let news: Vec<(Subject, Epoch)> = other
            .entries()
            .filter(|(subject, from)| self.from(subject).is_none_or(|known| known < *from))
            .map(|(subject, from)| (subject.clone(), from))
            .collect();
        let (all, number) = numbers(!news.is_empty());
        self.number = all;
        for (subject, from) in &news {
            let from = *from;
            self.entries.insert(subject.clone(), Entry { from, number });
        }
        news.into_iter().map(|(subject, _)| subject).collect()
    }

    /// Whether this is how far the list went at some time, or goes. An earlier one of which something was said anew since is not known again.
    pub fn knows(&self, held: Held) -> bool {
        held.number <= self.number && held.digest == Digest::of(&self.bytes_at(held.number))
    }
}

/// The first entry, and what follows it.
fn entry(bytes: &[u8]) -> Result<(Subject, Epoch, &[u8]), SnapshotError> {
    const CUT: SnapshotError = SnapshotError::Unreadable("it is cut");
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(CUT)?;
    let (subject, rest) = bytes.split_at_checked(end).ok_or(CUT)?;
    let subject = std::str::from_utf8(subject)
        .ok()
        .and_then(|text| text.parse().ok());
    let subject = subject.ok_or(SnapshotError::Unreadable("it names what is not a subject"))?;
    let rest = rest.get(1..).ok_or(CUT)?;
    let (from, rest) = rest.split_first_chunk::<4>().ok_or(CUT)?;
    Ok((subject, Epoch(u32::from_be_bytes(*from)), rest))
}

/// How far a list goes, with the signature of the plant's authority.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHeld {
    /// JSON.
    pub payload: Vec<u8>,
    /// By the authority's key, over the payload with its type (DSSE).
    pub signature: Vec<u8>,
    /// The issuing certificate whose key that is, DER; `None`: it is a root's.
    pub issuing: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    format: String,
    plant: PlantId,
    number: u64,
    digest: Digest,
}

impl SignedHeld {
    /// Signs how far a list of this plant goes.
    ///
    /// # Errors
    /// The key's holder does not sign.
    pub fn sign(held: Held, plant: &PlantId, authority: &Key) -> Result<Self, KeyError> {
        let payload = Payload {
            format: HELD_FORMAT.to_owned(),
            plant: plant.clone(),
            number: held.number,
            digest: held.digest,
        };
        // Names and numbers: nothing that JSON cannot say.
        let payload = serde_json::to_vec(&payload).map_err(|error| KeyError::Sign(error.to_string()))?;
        let signature = authority.sign(&release::encoding(PAYLOAD_TYPE, &payload))?;
        Ok(Self {
            payload,
            signature,
            issuing: None,
        })
    }

    /// How far the list goes, if one of the plant's roots signed that, or the key of an issuing certificate that one of them certified.
    ///
    /// # Errors
    /// It is not signed like that, is none of `plant`, or cannot be read.
    pub fn verify(&self, plant: &PlantId, roots: &[CertificateDer<'static>]) -> Result<Held, ListError> {
        let issuing_bytes = self.issuing.as_ref().map_or(0, Vec::len);
        if self.payload.len() > PAYLOAD_BYTES_MAX || issuing_bytes > ISSUING_BYTES_MAX {
            return Err(ListError::TooLong(
                self.payload.len().saturating_add(issuing_bytes),
            ));
        }
        let signed = release::encoding(PAYLOAD_TYPE, &self.payload);
        is_signed((&signed, &self.signature), self.issuing.as_deref(), plant, roots)?;
        let payload: Payload = serde_json::from_slice(&self.payload).map_err(ListError::Unreadable)?;
        if payload.format != HELD_FORMAT {
            return Err(ListError::Format(payload.format));
        }
        if payload.plant != *plant {
            return Err(ListError::Plant(payload.plant));
        }
        Ok(Held {
            number: payload.number,
            digest: payload.digest,
        })
    }
}

#[cfg(test)]
mod tests;
