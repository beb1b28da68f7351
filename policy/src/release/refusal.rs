//! Why a gateway does not obey an offer. Each reason has a stable code, which stands in the audit trail and in
//! the message to the coordinator, and a sentence that says what to do.

use crate::ids::{ApproverId, GatewayId, PlantId, Revision};

use super::signature::{EnvelopeError, Misfit};
use super::statement::StatementError;
use crate::plan::PlanError;

/// An offer that was refused whole; the last good policy stays in force.
#[derive(Debug, thiserror::Error)]
pub enum OfferRefused {
    /// Larger than anything honest.
    #[error(
        "the offer's {part} is larger than a gateway reads (at most {max}): the coordinator is at fault or hostile"
    )]
    TooLarge {
        /// Which part.
        part: &'static str,
        /// How much is read.
        max: usize,
    },
    /// The statement is cut, garbled or has unknown fields.
    #[error("the release cannot be read, it was cut or altered on the way: send it again")]
    StatementUnreadable(#[source] StatementError),
    /// The plan is what was signed, but this software cannot read it.
    #[error(
        "the plan of {revision} cannot be read: build the release again with software of this agent's version"
    )]
    PlanUnreadable {
        /// The release.
        revision: Revision,
        /// Why.
        #[source]
        source: PlanError,
    },
    /// The statement or the plan is of a format this software does not know.
    #[error("the offer has format `{0}`, which this agent does not know: update the agent first")]
    UnknownFormat(String),
    /// A signature of a known approver does not fit, or the bytes are not the canonical ones.
    #[error("the release was altered after it was signed ({0}): take the bytes that the approvers signed")]
    Altered(String),
    /// A signature was made by software that is newer than this.
    #[error(
        "the signature of {approver} is of the algorithm `{algorithm}`, which this agent does not know: update the agent first"
    )]
    UnknownAlgorithm {
        /// Whose.
        approver: ApproverId,
        /// How it was made.
        algorithm: String,
    },
    /// A signature by the right key that was not made as the document demands.
    #[error("the signature of {approver} over {revision} {misfit}: they have to sign it again")]
    Unfit {
        /// The release.
        revision: Revision,
        /// Whose.
        approver: ApproverId,
        /// Why it does not count.
        misfit: Misfit,
    },
    /// The statement contradicts itself.
    #[error("the release contradicts itself ({0}): correct it, and have it approved again")]
    Contradictory(String),
    /// No signature at all.
    #[error("{revision} carries no signature: {needed} of the approvers must sign it")]
    Unsigned {
        /// The release.
        revision: Revision,
        /// Signatures needed.
        needed: u8,
    },
    /// Fewer signatures than the threshold.
    #[error(
        "{revision} has {counted} of the {needed} signatures it needs (counted: {signers}): more approvers must sign it"
    )]
    UnderSigned {
        /// The release.
        revision: Revision,
        /// Signatures that count.
        counted: usize,
        /// Signatures needed.
        needed: u8,
        /// Whose count, in words.
        signers: String,
    },
    /// An emergency of a plant that has none.
    #[error(
        "{revision} is an emergency, and the approvers in force have no `emergency_threshold`: propose it without `--emergency`, or release a document first in which `approvers` has one"
    )]
    NoEmergencies {
        /// The release.
        revision: Revision,
    },
    /// Enough signatures only if the author's own were counted.
    #[error(
        "{revision} is signed by its own author {author}, which does not count; {counted} of {needed} others have signed: another approver must sign it"
    )]
    SelfApproved {
        /// The release.
        revision: Revision,
        /// Who proposed it.
        author: String,
        /// Signatures of others.
        counted: usize,
        /// Signatures needed.
        needed: u8,
    },
    /// Not newer than what the gateway has accepted.
    #[error(
        "{revision} is not newer than {floor}, which this gateway has accepted: to go back, release the older policy as a new revision"
    )]
    Older {
        /// The release.
        revision: Revision,
        /// The highest revision accepted.
        floor: Revision,
    },
    /// Another release has the number of the one that is held.
    #[error(
        "this gateway holds another {revision}: a number names one release only; the coordinator was restored from a backup, or is hostile. Propose again under a number that was never used (`penstock release propose --again`)"
    )]
    NumberReused {
        /// The number.
        revision: Revision,
    },
    /// Statements between the release that is held and the one offered are missing.
    #[error(
        "{revision} does not lead back to {floor}, which this gateway holds: statements between the two are missing, or the coordinator follows another history. If it was restored from a backup, propose again with `penstock release propose --again`"
    )]
    ChainMissing {
        /// The release.
        revision: Revision,
        /// The revision the gateway holds.
        floor: Revision,
    },
    /// Its parent is not the release that the gateway holds.
    #[error(
        "{revision} follows another {floor} than the one this gateway holds: two releases were made at once, or the coordinator was restored from a backup. Propose it again on top of the one in force, with `penstock release propose --again`"
    )]
    Forked {
        /// The release.
        revision: Revision,
        /// The revision the gateway holds.
        floor: Revision,
    },
    /// Another plant's release.
    #[error(
        "the release is for plant `{offered}`, this gateway belongs to `{own}`: the coordinator is mistaken"
    )]
    WrongPlant {
        /// Whose it is.
        offered: PlantId,
        /// Whose the gateway is.
        own: PlantId,
    },
    /// Another gateway's plan.
    #[error(
        "the plan is for gateway `{offered}`, this is `{own}`: the coordinator is mistaken, or two gateways have one identity"
    )]
    WrongGateway {
        /// Whose it is.
        offered: GatewayId,
        /// Who this is.
        own: GatewayId,
    },
    /// The plan or its proof does not lead to the signed root.
    #[error(
        "the plan is not part of {revision} as it was signed: it was cut or altered, or its proof is another one's; send it again"
    )]
    PlanNotInRelease {
        /// The release.
        revision: Revision,
    },
    /// The plan needs what the agent cannot do.
    #[error(
        "the plan needs `{missing}`, which this agent cannot do: update the agent, or take that out of the plant document"
    )]
    UnknownCapability {
        /// What is missing, comma separated.
        missing: String,
    },
}

impl OfferRefused {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too-large",
            Self::StatementUnreadable(_) | Self::PlanUnreadable { .. } => "unreadable",
            Self::UnknownFormat(_) => "unknown-format",
            Self::Altered(_) => "altered",
            Self::UnknownAlgorithm { .. } => "unknown-algorithm",
            Self::Unfit { .. } => "unfit-signature",
            Self::Contradictory(_) => "contradictory",
            Self::Unsigned { .. } => "unsigned",
            Self::UnderSigned { .. } => "under-signed",
            Self::NoEmergencies { .. } => "no-emergencies",
            Self::SelfApproved { .. } => "self-approved",
            Self::Older { .. } => "older",
            Self::NumberReused { .. } => "number-reused",
            Self::ChainMissing { .. } => "chain-missing",
            Self::Forked { .. } => "forked",
            Self::WrongPlant { .. } => "wrong-plant",
            Self::WrongGateway { .. } => "wrong-gateway",
            Self::PlanNotInRelease { .. } => "plan-not-in-release",
            Self::UnknownCapability { .. } => "unknown-capability",
        }
    }
}

impl From<StatementError> for OfferRefused {
    fn from(error: StatementError) -> Self {
        match error {
            StatementError::TooLong(_) => Self::TooLarge {
                part: "statement",
                max: super::statement::STATEMENT_BYTES_MAX,
            },
            StatementError::Format(format) => Self::UnknownFormat(format),
            StatementError::NotCanonical => {
                Self::Altered("its statement is not in canonical form".to_owned())
            }
            StatementError::Contradiction(why) => Self::Contradictory(why),
            StatementError::Unreadable(_) => Self::StatementUnreadable(error),
        }
    }
}

impl From<EnvelopeError> for OfferRefused {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::Algorithm { approver, algorithm } => {
                Self::UnknownAlgorithm { approver, algorithm }
            }
            other => Self::Altered(format!("a signature: {other}")),
        }
    }
}

/// Names in a sentence; "nobody" for none.
pub(super) fn in_words(signers: &[ApproverId]) -> String {
    match signers {
        [] => "nobody".to_owned(),
        some => some
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    }
}
