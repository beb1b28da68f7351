//! What the seals of a trail prove, block by block: one judgement for the gateway's own check, for the coordinator as blocks come in, and for
//! whoever holds an export.
//!
//! A block is never refused for its seals: what does not fit is evidence, and is reported ([`SealFinding`]); the trail goes on. So whoever
//! forges seals under a gateway's name can stop nothing of it.
//!
//! Invariants:
//! - a seal counts only in a block whose place and predecessor it names, signed by the key that it names;
//! - seal *n + 1* is signed by the key that seal *n* announced; else the keys began again, which is never silent;
//! - what the identity key vouches for, it vouches for up to the seal whose text it signed; keys that it does not vouch for
//!   within [`UNVOUCHED_MAX`] seals, and later within [`UNVOUCHED_AGAIN_MAX`], are reported;
//! - a fault ends by a word for what came after it; one that shows other keys or a copy ends only once a person has acknowledged it
//!   ([`SealFault::needs_person`]).
//!
//! Pure: no clock, no disk, no randomness. Not here: whether blocks follow one another ([`Head::accept`]).

mod checked;
mod finding;
mod unsealed;

use std::borrow::Cow;
use std::collections::VecDeque;

use penstock_policy::ids::PlantId;
use penstock_policy::text;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use self::checked::CheckedSeal;
pub use self::checked::CheckedSeals;
pub use self::finding::SealFinding;
pub use self::unsealed::{UNSEALED_MAX, UNSEALED_MS_MAX, UnsealedRun};
use super::Head;
use super::seal::SealText;
use crate::v1::audit_event::Kind;
use crate::v1::{AuditBlock, AuditBlockBody, SealEvent};

/// Seals and words that one block has at most: a source makes one of each with a commit, and verifying them costs signatures.
const SEALS_MAX: usize = 4;

/// Seals by new keys, or since a fault, without the identity key's word, until that is reported.
pub const UNVOUCHED_MAX: u64 = 64;
/// Seals since the identity key's last word, until that is reported: it gives one each hour, and a source seals each second at most.
pub const UNVOUCHED_AGAIN_MAX: u64 = 16_384;
/// For so many of the last seals, the identity key's word may still come.
pub const VOUCHABLE_MAX: usize = 16;

/// The longest text of a fault, which may be made of several sentences, in bytes.
const WORDS_MAX: usize = 4096;
/// What of a source's own text is kept, in bytes: as much as an alarm shows.
const REPORTED_MAX: usize = 512;

/// A place in a trail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Chain number.
    pub epoch: u64,
    /// Block within it.
    pub sequence: u64,
}

/// The place that a head has behind it.
pub(super) fn place_of(head: &Head) -> Place {
    Place {
        epoch: head.epoch,
        sequence: head.next_sequence,
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.epoch, self.sequence)
    }
}

/// By what seals are judged.
#[derive(Debug, Clone)]
pub struct SealTrust<'a> {
    /// The plant.
    pub plant: &'a PlantId,
    /// Whose trail it is: a gateway's name, or `coordinator/NAME`.
    pub source: Cow<'a, str>,
    /// The plant's roots.
    pub roots: &'a [CertificateDer<'static>],
}

/// What is known of a source's seals up to some place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealChain {
    /// The newest seal that counts.
    last: Option<LastSeal>,
    /// Where the first one stands that was met.
    began: Option<Place>,
    /// The newest seals that the identity key may vouch for, the oldest first.
    vouchable: VecDeque<VouchableSeal>,
    /// Up to where the identity key vouches.
    vouched: Option<Place>,
    /// Seals since the keys began, or since a fault, which the identity key has not vouched for; `None`: it has.
    unvouched: Option<u64>,
    /// From which seal on it has to.
    #[serde(default)]
    unvouched_from: Option<Place>,
    /// Seals since the last one that it vouched for.
    #[serde(default)]
    since_word: u64,
    /// What does not fit, until the identity key vouches for what comes after it, or a person acknowledged it.
    fault: Option<SealFault>,
}

/// What does not fit, for as long as it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "FaultForm")]
pub struct SealFault {
    /// Of the block in which it is.
    pub at: Place,
    /// In a sentence.
    pub words: String,
    /// Whether only a person ends it: the identity key is on the same machine as the seal keys, and would vouch for a copy all the same.
    pub needs_person: bool,
}

/// As it is kept; older software kept the sentence alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum FaultForm {
    Words(String),
    Whole {
        at: Place,
        words: String,
        needs_person: bool,
    },
}

impl From<FaultForm> for SealFault {
    fn from(form: FaultForm) -> Self {
        let (at, words, needs_person) = match form {
            FaultForm::Words(words) => (Place::default(), words, false),
            FaultForm::Whole {
                at,
                words,
                needs_person,
            } => (at, words, needs_person),
        };
        Self {
            at,
            words,
            needs_person,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LastSeal {
    at: Place,
    number: u64,
    time_ms: u64,
    key: [u8; 32],
    next_key: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VouchableSeal {
    at: Place,
    text_digest: [u8; 32],
}

/// The seals in a block.
pub fn seals(body: &AuditBlockBody) -> impl Iterator<Item = &SealEvent> {
    body.events.iter().filter_map(|event| match &event.kind {
        Some(Kind::Seal(seal)) => Some(seal),
        _ => None,
    })
}

impl SealChain {
    /// Takes the next block of the trail, which follows the ones before it, and its body.
    pub fn take(
        &mut self,
        trust: &SealTrust<'_>,
        block: &AuditBlock,
        body: &AuditBlockBody,
    ) -> Vec<SealFinding> {
        self.follow(&CheckedSeals::of(trust, block, body))
    }

    /// The same of a block whose seals were looked at by themselves.
    pub fn follow(&mut self, checked: &CheckedSeals) -> Vec<SealFinding> {
        let at = checked.at;
        let mut findings = Vec::new();
        for seal in &checked.seals {
            match seal {
                Ok(CheckedSeal::Seal(text)) => self.take_seal(at, text, &mut findings),
                Ok(CheckedSeal::Word { named, text_digest }) => {
                    if let Err(why) = self.take_word(at, *named, text_digest) {
                        findings.push(SealFinding::WrongWord { at, why });
                    }
                }
                Err(found) => findings.push(found.clone()),
            }
        }
        for found in &findings {
            self.note(found);
        }
        findings
    }

    /// What was known before this block is lost: that is a fault like others.
    pub fn forgotten(&mut self, at: Place) -> SealFinding {
        let found = SealFinding::Forgotten { at };
        self.note(&found);
        found
    }

    /// Up to this place, so many blocks behind the newest seal have none: a fault, where the trail was sealed before.
    pub fn unsealed(&mut self, at: Place, blocks: u64) -> Option<SealFinding> {
        let after = self.sealed()?;
        let found = SealFinding::Unsealed { at, after, blocks };
        self.note(&found);
        Some(found)
    }

    /// At this place the source itself reports something that only a person ends: its disk was set back, or the coordinator's trails do not begin with what
    /// it saw. That it ends at the source ends it here for nobody.
    pub fn reported(&mut self, at: Place, words: String) -> SealFinding {
        let words = text::shortened(&words, REPORTED_MAX).into_owned();
        let found = SealFinding::Reported { at, words };
        self.note(&found);
        found
    }

    /// A person has acknowledged the fault that needs one; whether there was such a fault.
    pub fn acknowledge(&mut self) -> bool {
        self.fault.take_if(|fault| fault.needs_person).is_some()
    }

    /// Everything before this place is sealed.
    pub fn sealed(&self) -> Option<Place> {
        self.last.as_ref().map(|last| last.at)
    }

    /// By the source's clock, when the newest seal was made, milliseconds since 1970.
    pub fn sealed_ms(&self) -> Option<u64> {
        self.last.as_ref().map(|last| last.time_ms)
    }

    /// For everything before this place the identity key vouches.
    pub fn vouched(&self) -> Option<Place> {
        self.vouched
    }

    /// What did not fit, while it counts.
    pub fn fault(&self) -> Option<&SealFault> {
        self.fault.as_ref()
    }

    /// A grave finding is a fault. One that needs a person gives way to no lesser one, and its words stay beside those of the next one that does:
    /// whoever acknowledges it saw both. What it says already changes nothing.
    fn note(&mut self, found: &SealFinding) {
        if !found.is_alarm() {
            return;
        }
        let found_words = found.to_string();
        let mut words = text::shortened(&found_words, WORDS_MAX / 2).into_owned();
        let needs_person = found.needs_person();
        if let Some(held) = self.fault.as_ref().filter(|held| held.needs_person) {
            if !needs_person || held.words.contains(&words) {
                return;
            }
            words = merged(&words, &held.words);
        }
        self.fault = Some(SealFault {
            at: found.at(),
            words,
            needs_person,
        });
    }

    fn take_seal(&mut self, at: Place, text: &SealText, findings: &mut Vec<SealFinding>) {
        if let Some(number) = self.went_back(text) {
            findings.push(SealFinding::WentBack {
                at,
                number: text.number,
                last: number,
            });
            // What it writes from now on is followed, since it may be the only one.
            self.begin_unvouched(at);
        } else {
            self.succeed(at, text, findings);
        }
        self.keep(at, text, findings);
    }

    /// From this seal on, the identity key has to vouch for the keys.
    fn begin_unvouched(&mut self, at: Place) {
        (self.unvouched, self.unvouched_from) = (Some(0), Some(at));
    }

    /// The number of the newest seal, if this one does not come after it. One that was made twice, since the machine stopped before the key was
    /// erased, announces the same key, and does.
    fn went_back(&self, text: &SealText) -> Option<u64> {
        let last = self.last.as_ref()?;
        let is_same = text.number == last.number && text.key == last.key;
        // In another epoch it is a copy of the machine that does so.
        let is_again = is_same && text.next_key == last.next_key && text.head.epoch == last.at.epoch;
        // Other keys begin with number 0.
        let is_new = text.number == 0 && text.key != last.key;
        (text.number <= last.number && !is_again && !is_new).then_some(last.number)
    }

    /// How this seal follows the one before it.
    fn succeed(&mut self, at: Place, text: &SealText, findings: &mut Vec<SealFinding>) {
        let Some(last) = &self.last else {
            self.began = Some(at);
            self.begin_unvouched(at);
            findings.push(SealFinding::Began { at });
            return;
        };
        if text.time_ms < last.time_ms {
            findings.push(SealFinding::ClockBack {
                at,
                back_ms: last.time_ms.saturating_sub(text.time_ms),
            });
        }
        let is_next = text.number == last.number.saturating_add(1);
        if text.number == 0 && text.key != last.key {
            findings.push(if at.epoch > last.at.epoch {
                SealFinding::BeganWithEpoch { at }
            } else {
                SealFinding::BeganAgain { at, after: last.at }
            });
            self.begin_unvouched(at);
        } else if is_next && text.key != last.next_key {
            findings.push(SealFinding::OtherKey { at });
            self.begin_unvouched(at);
        } else if text.number > last.number && !is_next {
            let count = text.number.saturating_sub(last.number).saturating_sub(1);
            findings.push(SealFinding::Skipped { at, count });
            self.begin_unvouched(at);
        }
    }

    fn keep(&mut self, at: Place, text: &SealText, findings: &mut Vec<SealFinding>) {
        let (seals, max) = match &mut self.unvouched {
            Some(seals) => (seals, UNVOUCHED_MAX),
            None => (&mut self.since_word, UNVOUCHED_AGAIN_MAX),
        };
        *seals = seals.saturating_add(1);
        if *seals == max {
            findings.push(SealFinding::Unvouched { at, seals: *seals });
        }
        self.vouchable.push_back(VouchableSeal {
            at,
            text_digest: sha2::Sha256::digest(text.to_string()).into(),
        });
        if self.vouchable.len() > VOUCHABLE_MAX {
            self.vouchable.pop_front();
        }
        self.last = Some(LastSeal {
            at,
            number: text.number,
            time_ms: text.time_ms,
            key: text.key,
            next_key: text.next_key,
        });
    }

    /// Takes the identity key's word for the seal of this text, which names this place.
    fn take_word(&mut self, at: Place, named: Place, text_digest: &[u8; 32]) -> Result<(), &'static str> {
        let known = self
            .vouchable
            .iter()
            .find(|seal| seal.text_digest == *text_digest);
        let Some(sealed) = known.map(|seal| seal.at) else {
            // Of a seal that was given up, or whose block moved to this epoch: it says nothing of what is here.
            if self.began.is_none_or(|began| named < began) || named.epoch < at.epoch {
                return Ok(());
            }
            return Err("it is about a seal that is not among the last ones here");
        };
        self.vouched = Some(sealed);
        // It may be said again.
        self.vouchable.retain(|seal| seal.at >= sealed);
        self.since_word = self.vouchable.len().saturating_sub(1) as u64;
        if self.unvouched_from.is_none_or(|from| sealed >= from) {
            (self.unvouched, self.unvouched_from) = (None, None);
        }
        // What it says of a seal before the fault ends nothing.
        self.fault
            .take_if(|fault| !fault.needs_person && sealed >= fault.at);
        Ok(())
    }
}

/// The newest words first. Of too many, those in the middle go: the first that were held stay to be seen.
fn merged(newer: &str, held: &str) -> String {
    let both = format!("{newer}; {held}");
    if both.len() <= WORDS_MAX {
        return both;
    }
    let (_, oldest) = both.split_at(both.ceil_char_boundary(both.len().saturating_sub(WORDS_MAX / 2)));
    let newest = text::shortened(&both, WORDS_MAX.saturating_sub(oldest.len()));
    format!("{newest}{oldest}")
}

#[cfg(test)]
mod tests;
