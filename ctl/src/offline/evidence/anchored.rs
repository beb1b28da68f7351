//! Who else than the coordinator holds heads of its trails, as `audit verify` shows it.

use penstock_proto::audit::evidence::{AnchoringRelease, CosignedHead};
use penstock_proto::tls::times::instant;
use schemars::JsonSchema;
use serde::Serialize;

/// A release that names blocks with which the tree begins.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AnchoredBy {
    /// Its number.
    pub revision: u64,
    /// Approvers whose signatures count; empty: those of the first release in the file, whose approvers are not in it.
    pub signers: Vec<String>,
    /// The first blocks of all trails: so many.
    pub blocks: u64,
}

/// A head that an external witness cosigned.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CosignedBy {
    /// The witness.
    pub witness: String,
    /// When, by its clock (RFC 3339, UTC).
    pub at: String,
    /// The first blocks of all trails: so many.
    pub blocks: u64,
}

impl From<CosignedHead> for CosignedBy {
    fn from(head: CosignedHead) -> Self {
        Self {
            witness: head.witness,
            at: instant(head.time_s.saturating_mul(1000)),
            blocks: head.size,
        }
    }
}

/// A release that says that the trails begin again.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BeginsAgain {
    /// It.
    pub release: AnchoredBy,
    /// Heads from before it with which the tree does not begin.
    pub given_up: u64,
}

impl From<AnchoringRelease> for AnchoredBy {
    fn from(release: AnchoringRelease) -> Self {
        Self {
            revision: release.revision.0,
            signers: release.signers.iter().map(ToString::to_string).collect(),
            blocks: release.head.size,
        }
    }
}

impl AnchoredBy {
    /// `release r7, signed by a and b`.
    pub(super) fn named(&self) -> String {
        let by = match self.signers.as_slice() {
            [] => "whose approvers are not in the file".to_owned(),
            signers => format!("signed by {}", signers.join(", ")),
        };
        format!("release r{}, {by},", self.revision)
    }
}
