//! Which lives of a subject are over: the list by which those who keep no record of others know a key that no longer counts
//! (DESIGN §6; IEC 62443-3-3 SR 1.5, SR 1.9 RE 1).
//!
//! ```text
//! coordinator: a key is withdrawn ─▶ Withdrawn (all of it, numbered) ─ since(number held) ─▶ List ─ the authority's key ─▶ SignedList
//! gateway:     SignedList ─ verify(plant, roots) ─▶ List ─▶ Withdrawn::take ─▶ is_over(device/plc-7, epoch of its certificate)?
//! ```
//!
//! An entry says of a subject from which [`Epoch`] on it counts. Entries only ever grow, so that two lists are put together by
//! the later of each: no order matters, nothing is undone by an old one, and whoever carries lists can at most withhold them. A
//! list that says what changed *since* a number is taken only by who holds the same up to there, which its digest tells.

mod file;
mod live;
mod snapshot;

use std::collections::BTreeMap;

use penstock_policy::ids::{Digest, PlantId};
use penstock_policy::release;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::issuing::{self, NotIssuing};
use crate::keys::{Key, KeyError, has_signed};
use crate::peer::{Epoch, Subject};

pub use self::file::{FILE_BYTES_MAX, FileError};
pub use self::live::{Life, WatchedLife, WithdrawnView};
pub use self::snapshot::{SNAPSHOT_BYTES_MAX, SignedHeld, SnapshotError};

/// What a signature says that it is over.
const PAYLOAD_TYPE: &str = "application/vnd.penstock.withdrawn+json";
/// The format of a list.
pub const LIST_FORMAT: &str = "penstock-withdrawn/1";
/// What an issuing certificate may have, bytes.
const ISSUING_BYTES_MAX: usize = 16 * 1024;
/// A signed list is not looked at beyond: room for some 40,000 entries.
pub const LIST_BYTES_MAX: usize = 4 << 20;

/// From which life on a subject counts, and with which number that was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The first that counts; those before are over.
    pub from: Epoch,
    /// The list's number with it.
    pub number: u64,
}

/// All that is known to be over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdrawn {
    number: u64,
    entries: BTreeMap<Subject, Entry>,
}

/// How far somebody's list goes: compared before a shorter one is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its number.
    pub number: u64,
    /// Of what it says.
    pub digest: Digest,
}

/// A list as it is signed: everything (`since` 0), or what came after a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    format: String,
    plant: PlantId,
    /// When it was made, milliseconds since 1970 by the coordinator's clock.
    pub made_ms: u64,
    number: u64,
    since: u64,
    /// Of what whoever takes it has to hold already.
    base: Digest,
    entries: BTreeMap<Subject, Entry>,
}

/// A list and the signature of the plant's authority over its exact bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignedList {
    /// The list, as JSON.
    pub payload: Vec<u8>,
    /// By the authority's key, over the payload with its type (DSSE).
    pub signature: Vec<u8>,
    /// The issuing certificate whose key that is, DER; `None`: it is a root's.
    pub issuing: Option<Vec<u8>>,
    /// How far whoever takes it holds the list by then, signed by itself: what a gateway can show later. Not in files.
    pub held: Option<SignedHeld>,
}

/// Why a list is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Nobody who may signed it.
    #[error("the list of withdrawn keys is not signed by the plant's authority")]
    Signature,
    /// Signed by a key that a root did not certify for that.
    #[error("the list of withdrawn keys is not signed by the plant's authority: {0}")]
    Issuer(NotIssuing),
    /// It is longer than any.
    #[error("the list of withdrawn keys has {0} bytes, and at most {LIST_BYTES_MAX} are read")]
    TooLong(usize),
    /// It is none.
    #[error("the list of withdrawn keys cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// Of a format that is not known here.
    #[error("the list of withdrawn keys has the format `{0}`; this program reads `{LIST_FORMAT}`")]
    Format(String),
    /// Of another plant.
    #[error("the list of withdrawn keys is of plant {0}")]
    Plant(PlantId),
    /// It builds upon one that is not held.
    #[error(
        "the list of withdrawn keys says what came after number {since}, and what is held up to there is another"
    )]
    Gap {
        /// Upon which it builds.
        since: u64,
    },
}

impl Withdrawn {
    /// Whether this life of the subject is over.
    pub fn is_over(&self, subject: &Subject, epoch: Epoch) -> bool {
        self.entries.get(subject).is_some_and(|entry| epoch < entry.from)
    }

    /// From which life on the subject counts; `None`: nothing was withdrawn of it.
    pub fn from(&self, subject: &Subject) -> Option<Epoch> {
        self.entries.get(subject).map(|entry| entry.from)
    }

    /// How far it goes.
    pub fn held(&self) -> Held {
        Held {
            number: self.number,
            digest: self.digest_at(self.number),
        }
    }

    /// Whom it names, and from which life on each counts.
    pub fn entries(&self) -> impl Iterator<Item = (&Subject, Epoch)> {
        self.entries.iter().map(|(subject, entry)| (subject, entry.from))
    }

    /// How many subjects it names.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it names nobody.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Of what was said up to `number`, as far as nothing later took its place.
    fn digest_at(&self, number: u64) -> Digest {
        Digest::of(&self.bytes_at(number))
    }

    /// From now on the subject counts from `from` on only. Answers whether that is new.
    pub fn withdraw(&mut self, subject: &Subject, from: Epoch) -> bool {
        if self.from(subject).is_some_and(|known| known >= from) {
            return false;
        }
        self.number = self.number.saturating_add(1);
        let entry = Entry {
            from,
            number: self.number,
        };
        self.entries.insert(subject.clone(), entry);
        true
    }

    /// The next entry has a number beyond `number`: somebody holds a list that goes so far, and would take it for one of those.
    pub fn go_past(&mut self, number: u64) {
        self.number = self.number.max(number);
    }

    /// What whoever holds `held` lacks, of `plant`: all of it, unless they hold what was held here up to that number. `None`: nothing.
    pub fn since(&self, held: Held, plant: &PlantId, made_ms: u64) -> Option<List> {
        if held == self.held() {
            return None;
        }
        let is_known = held.number < self.number && held.digest == self.digest_at(held.number);
        let (since, base) = if is_known {
            (held.number, held.digest)
        } else {
            (0, Self::default().digest_at(0))
        };
        Some(List {
            format: LIST_FORMAT.to_owned(),
            plant: plant.clone(),
            made_ms,
            number: self.number,
            since,
            base,
            entries: self
                .entries
                .iter()
                .filter(|(_, entry)| entry.number > since)
                .map(|(subject, entry)| (subject.clone(), *entry))
                .collect(),
        })
    }

    /// Puts a list that was verified to what is known. Answers whose earlier lives are over only now.
    ///
    /// # Errors
    /// It says what came after something that is not held here ([`ListError::Gap`]): all of it is needed.
    pub fn take(&mut self, list: &List) -> Result<Vec<Subject>, ListError> {
        let holds_base =
            list.since == 0 || (self.number >= list.since && self.digest_at(list.since) == list.base);
        if !holds_base {
            return Err(ListError::Gap { since: list.since });
        }
        let mut news = Vec::new();
        for (subject, entry) in &list.entries {
            if self.from(subject).is_none_or(|known| known < entry.from) {
                self.entries.insert(subject.clone(), *entry);
                news.push(subject.clone());
            }
        }
        self.number = self.number.max(list.number);
        Ok(news)
    }
}

impl SignedList {
    /// Signs a list with the key of a root; with another one, which a root certified, [`Self::issuing`] has to say by what.
    ///
    /// # Errors
    /// The key's holder does not sign.
    pub fn sign(list: &List, authority: &Key) -> Result<Self, KeyError> {
        // Names and numbers: nothing that JSON cannot say.
        let payload = serde_json::to_vec(list).map_err(|error| KeyError::Sign(error.to_string()))?;
        let signature = authority.sign(&release::encoding(PAYLOAD_TYPE, &payload))?;
        Ok(Self {
            payload,
            signature,
            issuing: None,
            held: None,
        })
    }

    /// The list, if one of the plant's roots signed it, or the key of an issuing certificate that one of them certified. When that is
    /// valid plays no part: a list only takes away.
    ///
    /// # Errors
    /// It is not signed like that, is none of `plant`, or cannot be read.
    pub fn verify(&self, plant: &PlantId, roots: &[CertificateDer<'static>]) -> Result<List, ListError> {
        let issuing_bytes = self.issuing.as_ref().map_or(0, Vec::len);
        if self.payload.len() > LIST_BYTES_MAX || issuing_bytes > ISSUING_BYTES_MAX {
            return Err(ListError::TooLong(
                self.payload.len().saturating_add(issuing_bytes),
            ));
        }
        let signed = release::encoding(PAYLOAD_TYPE, &self.payload);
        is_signed((&signed, &self.signature), self.issuing.as_deref(), plant, roots)?;
        let list: List = serde_json::from_slice(&self.payload).map_err(ListError::Unreadable)?;
        if list.format != LIST_FORMAT {
            return Err(ListError::Format(list.format));
        }
        if list.plant != *plant {
            return Err(ListError::Plant(list.plant));
        }
        Ok(list)
    }
}

/// Whether one of the plant's roots signed this, or the key of an issuing certificate that one of them certified.
fn is_signed(
    (signed, signature): (&[u8], &[u8]),
    issuing: Option<&[u8]>,
    plant: &PlantId,
    roots: &[CertificateDer<'static>],
) -> Result<(), ListError> {
    let is_signed = match issuing {
        None => roots.iter().any(|root| has_signed(root, signed, signature)),
        Some(issuing) => {
            let issuing = CertificateDer::from(issuing);
            issuing::judge(&issuing, plant, roots).map_err(ListError::Issuer)?;
            has_signed(&issuing, signed, signature)
        }
    };
    match is_signed {
        true => Ok(()),
        false => Err(ListError::Signature),
    }
}

#[cfg(test)]
mod tests;
