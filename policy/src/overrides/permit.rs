//! Whether an override is permitted, and by whom.

use std::collections::BTreeSet;
use std::fmt;

use super::{
    BYTES_MAX, BreakGlass, Code, Effect, Fit, Override, OverrideError, PAYLOAD_TYPE, PEOPLE_NEEDED, fit,
};
use crate::ids::{ApproverId, Digest};
use crate::model::PublicKey;
use crate::plan::Plan;
use crate::release::signing::ApproverKey;
use crate::release::{EnvelopeError, Signable, Signature, envelope};
use crate::times::Span;

/// An override with its signatures so far, as it rests in a file: the standard's JSON envelope (DSSE).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The exact bytes of the override.
    pub payload: Vec<u8>,
    /// Signatures so far; may be none yet.
    pub signatures: Vec<Signature>,
}

impl Signed {
    /// As JSON, to be written to a file.
    pub fn to_json(&self) -> String {
        envelope::written(PAYLOAD_TYPE, &self.payload, &self.signatures)
    }

    /// Reads a file. Neither override nor signatures are judged here.
    ///
    /// # Errors
    /// The text is no envelope, or holds something else.
    pub fn from_json(text: &str) -> Result<Self, EnvelopeError> {
        let (payload, signatures) = envelope::opened(text, PAYLOAD_TYPE, BYTES_MAX)?;
        Ok(Self { payload, signatures })
    }

    /// Whether `key` made this signature over it.
    pub fn verifies(&self, signature: &Signature, key: &PublicKey) -> bool {
        signature.verifies(&self.signable(), key)
    }

    /// Signs it, in place of an earlier signature of the same person; nobody signs what is no override.
    ///
    /// # Errors
    /// What it holds is no override.
    pub fn sign(&mut self, person: ApproverId, key: &ApproverKey) -> Result<(), OverrideError> {
        Override::from_bytes(&self.payload)?;
        let signature = key.sign_payload(person, &self.signable());
        self.add(signature);
        Ok(())
    }

    /// What is signed.
    pub fn signable(&self) -> Signable<'_> {
        Signable::new(PAYLOAD_TYPE, &self.payload)
    }

    /// Puts a signature in, in place of an earlier one of the same person.
    pub fn add(&mut self, signature: Signature) {
        envelope::put(&mut self.signatures, signature);
    }
}

/// By what an override is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Warrant<'a> {
    /// People's signatures.
    Signatures(&'a [Signature]),
    /// A code from a sealed envelope.
    Code(&'a Code),
}

/// Who permitted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// These people, by their signatures.
    People(Vec<ApproverId>),
    /// The code of this digest, which is spent with it.
    Code(Digest),
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::People(people) => {
                let names: Vec<_> = people.iter().map(ToString::to_string).collect();
                f.write_str(&names.join(" and "))
            }
            Self::Code(digest) => write!(f, "the sealed code {:.12}", hex::encode(digest.0)),
        }
    }
}

/// Why an override is not permitted.
#[derive(Debug, thiserror::Error)]
pub enum OverrideRefused {
    /// What was asked for is no override.
    #[error(transparent)]
    Unreadable(#[from] OverrideError),
    /// The plan permits none.
    #[error("the plan in force permits no overrides: its document has no `break_glass` for this gateway")]
    NotPermitted,
    /// For another plant or gateway.
    #[error("it is for the gateway {0}")]
    OtherGateway(String),
    /// Asked for on another release.
    #[error("another release is in force than when it was asked for: ask again, and have it signed again")]
    OtherRelease,
    /// Longer than the document permits.
    #[error("it would last {}, and the document permits {} at most", length(*.asked), length(*.longest))]
    TooLong {
        /// Asked for, seconds.
        asked: u32,
        /// Permitted, seconds.
        longest: u32,
    },
    /// Not enough people.
    #[error("it takes two people of the document's `break_glass`, {}", signed_by(.0))]
    TooFew(Vec<ApproverId>),
    /// The code is none of this gateway's.
    #[error("this code does not belong to this gateway, or is not in the release in force")]
    WrongCode,
    /// It was used.
    #[error("this code was used before, and is good for one override")]
    SpentCode,
    /// An effect changes nothing.
    #[error("it changes nothing: {0}")]
    NoEffect(String),
}

fn length(seconds: u32) -> Span {
    Span::seconds(seconds.into())
}

/// Those whose signatures hold, and are not enough.
fn signed_by(people: &[ApproverId]) -> String {
    match people {
        [] => "and none of them has signed it".to_owned(),
        [one] => format!("and only {one} has signed it"),
        several => {
            let names: Vec<_> = several.iter().map(ToString::to_string).collect();
            format!("and {} have signed it with one key", names.join(" and "))
        }
    }
}

impl OverrideRefused {
    /// A stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::NotPermitted => "not-permitted",
            Self::OtherGateway(_) => "other-gateway",
            Self::OtherRelease => "other-release",
            Self::TooLong { .. } => "too-long",
            Self::TooFew(_) => "too-few",
            Self::WrongCode => "wrong-code",
            Self::SpentCode => "spent-code",
            Self::NoEffect(_) => "no-effect",
        }
    }
}

impl BreakGlass {
    /// Judges what is asked for by the plan in force, which `release` brought; `spent` are the codes that were used here.
    ///
    /// Whether the gateway made the override's number, and took it already, is for the caller to say.
    ///
    /// # Errors
    /// It is not permitted, and why.
    pub fn permits(
        (plan, release): (&Plan, Digest),
        payload: &[u8],
        warrant: Warrant<'_>,
        spent: &BTreeSet<Digest>,
    ) -> Result<(Override, Authority), OverrideRefused> {
        let asked = Override::from_bytes(payload)?;
        if (&asked.plant, &asked.gateway) != (&plan.plant, &plan.gateway) {
            return Err(OverrideRefused::OtherGateway(format!(
                "{}/{}",
                asked.plant, asked.gateway
            )));
        }
        let permitting = plan.break_glass.as_ref().ok_or(OverrideRefused::NotPermitted)?;
        if asked.release != release {
            return Err(OverrideRefused::OtherRelease);
        }
        if asked.seconds > permitting.longest_s {
            return Err(OverrideRefused::TooLong {
                asked: asked.seconds,
                longest: permitting.longest_s,
            });
        }
        let authority = match warrant {
            Warrant::Signatures(signatures) => permitting.signed(payload, signatures)?,
            Warrant::Code(code) => {
                let digest = code.digest(&plan.plant, &plan.gateway);
                if !permitting.codes.contains(&digest) {
                    return Err(OverrideRefused::WrongCode);
                }
                if spent.contains(&digest) {
                    return Err(OverrideRefused::SpentCode);
                }
                Authority::Code(digest)
            }
        };
        let idle = asked
            .effects
            .iter()
            .find_map(|effect: &Effect| match fit(plan, effect) {
                Fit::Changes => None,
                Fit::Already => Some(format!("{effect} by the plan in force already")),
                Fit::Nothing(why) => Some(why),
            });
        match idle {
            Some(why) => Err(OverrideRefused::NoEffect(why)),
            None => Ok((asked, authority)),
        }
    }

    fn signed(&self, payload: &[u8], signatures: &[Signature]) -> Result<Authority, OverrideRefused> {
        let asked = Signable::new(PAYLOAD_TYPE, payload);
        let holds = |signature: &&Signature| {
            let key = self.people.get(&signature.approver);
            key.is_some_and(|key| signature.verifies(&asked, key))
        };
        let people: BTreeSet<_> = signatures
            .iter()
            .filter(holds)
            .map(|one| one.approver.clone())
            .collect();
        // Two names with one key are one person.
        let keys: BTreeSet<_> = people
            .iter()
            .filter_map(|person| self.people.get(person))
            .map(PublicKey::point)
            .collect();
        let is_enough = keys.len() >= PEOPLE_NEEDED;
        let people = people.into_iter().collect();
        if is_enough {
            Ok(Authority::People(people))
        } else {
            Err(OverrideRefused::TooFew(people))
        }
    }
}
