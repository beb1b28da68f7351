//! A release as it rests in the store.

use std::collections::BTreeMap;

use penstock_policy::ids::{ApproverId, Digest, GatewayId, OperatorId, ZoneId};
use serde::{Deserialize, Serialize};

use crate::health::Boundary;

/// A release as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRecord {
    /// The statement's exact text.
    pub statement: String,
    /// Signatures by approver: hexadecimal, after the algorithm and a colon where that is not `ed25519`.
    pub signatures: BTreeMap<ApproverId, String>,
    /// The document's files: name and digest of the content.
    pub documents: Vec<(String, Digest)>,
    /// Where its [`Detail`] lies, which grows with the plant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Digest>,
    /// Where that lies which it carries beside the policy (`carried`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Digest>,
    /// Of records made before details lay apart: digest of each gateway's plan.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plans: BTreeMap<GatewayId, Digest>,
    /// Of records made before details lay apart: boundaries of the zones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub zones: BTreeMap<ZoneId, Boundary>,
    /// When it was proposed, milliseconds since 1970.
    pub proposed_ms: u64,
    /// When the threshold was met; `None`: it waits.
    pub approved_ms: Option<u64>,
    /// How it ended without becoming current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<ProposalEnd>,
}

/// What a release holds for each gateway and zone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detail {
    /// Digest of each gateway's plan.
    pub plans: BTreeMap<GatewayId, Digest>,
    /// Boundaries of the zones, for health.
    pub zones: BTreeMap<ZoneId, Boundary>,
}

/// How a proposal ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposalEnd {
    /// Which way.
    pub how: ProposalEndKind,
    /// By whom.
    pub by: OperatorId,
    /// Why.
    pub reason: String,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
}

/// The ways in which a proposal ends that does not become current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProposalEndKind {
    /// An approver said no.
    Rejected,
    /// Its author took it back.
    Withdrawn,
}

impl ProposalEndKind {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Withdrawn => "withdrawn",
        }
    }
}
