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
//!   within [`UNVOUCHED_MAX`] seals are reported.
//!
//! Pure: no clock, no disk, no randomness. Not here: whether blocks follow one another ([`Head::accept`]).

use std::borrow::Cow;
use std::collections::VecDeque;

use penstock_policy::ids::PlantId;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::Head;
use super::note::{Note, NoteError};
use super::seal::{SealText, signer_name};
use crate::peer::{PeerIdentity, Subject};
use crate::tls::issuers;
use crate::v1::audit_event::Kind;
use crate::v1::{AuditBlock, AuditBlockBody, SealEvent};

/// Seals without the identity key's word, until that is reported.
pub const UNVOUCHED_MAX: u64 = 64;
/// For so many of the last seals, the identity key's word may still come.
pub const VOUCHABLE_MAX: usize = 16;

/// A place in a trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// Seals since the keys began, which the identity key has not vouched for; `None`: it has.
    unvouched: Option<u64>,
    /// What does not fit, until the identity key vouches for what comes after it.
    fault: Option<String>,
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

/// What a seal shows beyond that it fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealFinding {
    /// The first one.
    #[error("the trail is sealed from {at} on")]
    Began {
        /// Of its block.
        at: Place,
    },
    /// New keys in a new epoch: the spool or its keys were lost, or the gateway was enrolled again.
    #[error("the seal keys began again with the new epoch, at {at}")]
    BeganWithEpoch {
        /// Of its block.
        at: Place,
    },
    /// New keys amid an epoch.
    #[error(
        "the seal keys began again at {at}, amid an epoch: they were lost, or somebody rewrote what was sealed after {after}; compare it with the \
         coordinator's copy"
    )]
    BeganAgain {
        /// Of its block.
        at: Place,
        /// The last seal by the keys before.
        after: Place,
    },
    /// Seals are missing in between.
    #[error("{count} seals before {at} are missing: their blocks were shed or taken out")]
    Skipped {
        /// Of the next one.
        at: Place,
        /// How many.
        count: u64,
    },
    /// The identity key does not vouch for the keys.
    #[error(
        "at {at}, the identity key has vouched for none of the last {seals} seals: nothing proves whose they are"
    )]
    Unvouched {
        /// Of the newest one.
        at: Place,
        /// How many.
        seals: u64,
    },
    /// The source's clock.
    #[error("by the seals, the source's clock went back by {back_ms} ms before {at}")]
    ClockBack {
        /// Of the seal with the earlier time.
        at: Place,
        /// By how much.
        back_ms: u64,
    },
    /// A note or its text has another form.
    #[error("the seal at {at} cannot be read")]
    Unreadable {
        /// Of its block.
        at: Place,
    },
    /// It is another's.
    #[error("the seal at {at} is of the trail of {named}: somebody put another trail's block here")]
    Foreign {
        /// Of its block.
        at: Place,
        /// Whose it says to be.
        named: String,
    },
    /// It was made for other blocks.
    #[error("the seal at {at} was made for {named}, or for other blocks before it: the trail was altered")]
    Misplaced {
        /// Of its block.
        at: Place,
        /// Where it says to be.
        named: Place,
    },
    /// Its key did not sign it.
    #[error("the seal at {at} is not signed by the key that it names: it was forged or altered")]
    Forged {
        /// Of its block.
        at: Place,
    },
    /// The key is another one than was announced.
    #[error(
        "the seal at {at} is signed by another key than the seal before it announced: somebody else seals in the source's name"
    )]
    OtherKey {
        /// Of its block.
        at: Place,
    },
    /// Its key had signed already.
    #[error(
        "the seal at {at} has number {number}, and number {last} was there already: the gateway's disk was set back to an earlier state, or \
         copied"
    )]
    WentBack {
        /// Of its block.
        at: Place,
        /// Its number.
        number: u64,
        /// The greatest so far.
        last: u64,
    },
    /// More than a source makes.
    #[error(
        "the block at {at} has {count} seals, and a source makes one with each commit: only the first {SEALS_MAX} were looked at"
    )]
    TooMany {
        /// Of the block.
        at: Place,
        /// How many.
        count: usize,
    },
    /// The reader's own memory is lost.
    #[error(
        "what was known of the seals before {at} cannot be read any more: they begin again there, and nothing here shows that they go on from the ones before"
    )]
    Forgotten {
        /// Of the first block behind it.
        at: Place,
    },
    /// What the identity key is said to vouch for does not count.
    #[error("the identity key's word at {at} does not count: {why}")]
    WrongWord {
        /// Of its block.
        at: Place,
        /// Why.
        why: &'static str,
    },
}

/// Seals and words that one block has at most: a source makes one of each with a commit, and verifying them costs signatures.
const SEALS_MAX: usize = 4;

impl SealFinding {
    /// Whether it is grave: not how a trail begins and goes on of which nothing was lost.
    pub fn is_alarm(&self) -> bool {
        !matches!(self, Self::Began { .. } | Self::ClockBack { .. })
    }

    /// Of the block in which it is.
    pub fn at(&self) -> Place {
        match self {
            Self::Began { at }
            | Self::BeganWithEpoch { at }
            | Self::BeganAgain { at, .. }
            | Self::Skipped { at, .. }
            | Self::Unvouched { at, .. }
            | Self::ClockBack { at, .. }
            | Self::Unreadable { at }
            | Self::Foreign { at, .. }
            | Self::Misplaced { at, .. }
            | Self::Forged { at }
            | Self::OtherKey { at }
            | Self::WentBack { at, .. }
            | Self::WrongWord { at, .. }
            | Self::TooMany { at, .. }
            | Self::Forgotten { at } => *at,
        }
    }
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
        let mut findings = Vec::new();
        for seal in seals(body).take(SEALS_MAX) {
            self.take_seal(trust, block, seal, &mut findings);
        }
        let count = seals(body).count();
        if count > SEALS_MAX {
            let at = Place {
                epoch: block.epoch,
                sequence: block.sequence,
            };
            findings.push(SealFinding::TooMany { at, count });
        }
        if let Some(grave) = findings.iter().rfind(|found| found.is_alarm()) {
            self.fault = Some(grave.to_string());
        }
        findings
    }

    /// What was known before this block is lost: that is a fault like others.
    pub fn forgotten(&mut self, block: &AuditBlock) -> SealFinding {
        let at = Place {
            epoch: block.epoch,
            sequence: block.sequence,
        };
        let found = SealFinding::Forgotten { at };
        self.fault = Some(found.to_string());
        found
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

    /// What did not fit, until the identity key vouches for what came after it.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    fn take_seal(
        &mut self,
        trust: &SealTrust<'_>,
        block: &AuditBlock,
        seal: &SealEvent,
        findings: &mut Vec<SealFinding>,
    ) {
        let at = Place {
            epoch: block.epoch,
            sequence: block.sequence,
        };
        let read = Note::parse(&seal.note).ok();
        let read = read.and_then(|note| Some((SealText::parse(&note.text)?, note)));
        let Some((text, note)) = read else {
            findings.push(SealFinding::Unreadable { at });
            return;
        };
        if text.name != signer_name(trust.plant.as_str(), &trust.source) {
            findings.push(SealFinding::Foreign { at, named: text.name });
            return;
        }
        if !seal.certificates.is_empty() {
            if let Err(why) = self.take_word(trust, at, &note, &text, &seal.certificates) {
                findings.push(SealFinding::WrongWord { at, why });
            }
            return;
        }
        if let Err(error) = note.verify_ed25519(&text.name, &text.key) {
            findings.push(match error {
                NoteError::Form => SealFinding::Unreadable { at },
                NoteError::Unsigned | NoteError::Signature => SealFinding::Forged { at },
            });
            return;
        }
        let named = place_of(&text.head);
        if named.epoch < at.epoch {
            // Its block moved to this epoch from one that another trail took the places of. It seals nothing here.
            return;
        }
        if named != at || text.head.digest != *block.previous_digest {
            findings.push(SealFinding::Misplaced { at, named });
            return;
        }
        if let Some(number) = self.went_back(&text) {
            findings.push(SealFinding::WentBack {
                at,
                number: text.number,
                last: number,
            });
            // What it writes from now on is followed, since it may be the only one.
            self.unvouched = Some(0);
        } else {
            self.follow(at, &text, findings);
        }
        self.keep(at, text, findings);
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
    fn follow(&mut self, at: Place, text: &SealText, findings: &mut Vec<SealFinding>) {
        let Some(last) = &self.last else {
            (self.unvouched, self.began) = (Some(0), Some(at));
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
            self.unvouched = Some(0);
        } else if is_next && text.key != last.next_key {
            findings.push(SealFinding::OtherKey { at });
            self.unvouched = Some(0);
        } else if text.number > last.number && !is_next {
            let count = text.number.saturating_sub(last.number).saturating_sub(1);
            findings.push(SealFinding::Skipped { at, count });
            self.unvouched = Some(0);
        }
    }

    fn keep(&mut self, at: Place, text: SealText, findings: &mut Vec<SealFinding>) {
        if let Some(seals) = &mut self.unvouched {
            *seals = seals.saturating_add(1);
            if *seals == UNVOUCHED_MAX {
                findings.push(SealFinding::Unvouched { at, seals: *seals });
            }
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

    /// Takes the identity key's word for a seal.
    fn take_word(
        &mut self,
        trust: &SealTrust<'_>,
        at: Place,
        note: &Note,
        text: &SealText,
        certificates: &[prost::bytes::Bytes],
    ) -> Result<(), &'static str> {
        let chain: Vec<_> = certificates
            .iter()
            .map(|der| CertificateDer::from(der.to_vec()))
            .collect();
        let leaf = chain.first().ok_or("it has no certificate")?;
        let named = PeerIdentity::from_certificate(leaf).map_err(|_| "its certificate cannot be read")?;
        let subject = match &named.subject {
            Subject::Gateway(name) => name.to_string(),
            Subject::Coordinator(_) => named.subject.to_string(),
            Subject::Operator(_) | Subject::Device(_) => return Err("its certificate is not a gateway's"),
        };
        if named.plant != *trust.plant || subject != *trust.source {
            return Err("its certificate names somebody else");
        }
        issuers(trust.plant, &chain, trust.roots)
            .ok_or("none of the plant's roots issued its certificate")?;
        note.verify_certified(&text.name, leaf)
            .map_err(|_| "the certificate's key did not sign it")?;
        let digest: [u8; 32] = sha2::Sha256::digest(&note.text).into();
        let known = self.vouchable.iter().find(|seal| seal.text_digest == digest);
        let Some(sealed) = known.map(|seal| seal.at) else {
            let named = place_of(&text.head);
            // Of a seal that was given up, or whose block moved to this epoch: it says nothing of what is here.
            if self.began.is_none_or(|began| named < began) || named.epoch < at.epoch {
                return Ok(());
            }
            return Err("it is about a seal that is not among the last ones here");
        };
        self.vouched = Some(sealed);
        // It may be said again.
        self.vouchable.retain(|seal| seal.at >= sealed);
        self.unvouched = None;
        self.fault = None;
        Ok(())
    }
}
