//! What is recorded beside the flows: remote access, compensating controls, the risk assessment.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::ids::{ApproverId, AssetId, ConduitId, ZoneId};

/// A time-boxed grant of remote access.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RemoteAccess {
    /// Who.
    pub person: String,
    /// The conduit it opens.
    pub conduit: ConduitId,
    /// Why.
    pub reason: String,
    /// From, RFC 3339.
    pub from: String,
    /// Until, RFC 3339.
    pub until: String,
    /// From, milliseconds since 1970.
    #[serde(skip)]
    pub from_ms: u64,
    /// Until, milliseconds since 1970.
    #[serde(skip)]
    pub until_ms: u64,
    /// Who approved it.
    pub approved_by: ApproverId,
}

/// A compensating control: never without a reason and an expiry.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CompensatingControl {
    /// Zone it stands in.
    pub zone: Option<ZoneId>,
    /// Asset it stands for.
    pub asset: Option<AssetId>,
    /// Conduit it stands for.
    pub conduit: Option<ConduitId>,
    /// Requirement of IEC 62443-3-3 (`SR 1.2`) or 62443-4-2 (`CR 1.2`).
    pub requirement: String,
    /// Why the requirement itself is not met.
    pub reason: String,
    /// What is done instead.
    pub measure: String,
    /// Who approved it.
    pub approved_by: ApproverId,
    /// Last day it holds, `YYYY-MM-DD`.
    pub expires: String,
    /// That day had passed when the document was read: the control counts no more.
    #[serde(skip)]
    pub expired: bool,
}

/// A finding of `check` that people live with: never without a name, a reason and an expiry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Acceptance {
    /// The finding's code.
    pub code: String,
    /// All that the finding names.
    #[serde(rename = "where")]
    pub names: BTreeSet<String>,
    /// Words that its sentence has to hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// The approver who accepted it.
    pub by: ApproverId,
    /// Why.
    pub reason: String,
    /// Last day on which it counts, `YYYY-MM-DD`.
    pub expires: String,
    /// That day had passed when the document was read: the finding stands as any other.
    #[serde(skip)]
    pub expired: bool,
}

/// One line of the risk assessment (IEC 62443-3-2 ZCR 5).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Risk {
    /// Threat in words.
    pub threat: String,
    /// Zone or conduit it concerns.
    pub zone: Option<ZoneId>,
    /// Conduit it concerns.
    pub conduit: Option<ConduitId>,
    /// Likelihood 1–5.
    pub likelihood: u8,
    /// Impact 1–5.
    pub impact: u8,
    /// Likelihood × impact after countermeasures, if assessed.
    pub residual: Option<u8>,
    /// Countermeasures in words.
    pub countermeasures: Vec<String>,
}
