//! The people: who owns the plant, and whose keys a release needs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::PublicKey;
use crate::ids::{ApproverId, Digest};

/// Who owns the plant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// Organisation.
    pub organisation: String,
    /// Where to ask.
    pub contact: Option<String>,
}

/// The people whose signatures make a release valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproverSet {
    /// Signatures needed, by different people, none of them the author. At least 1.
    pub threshold: u8,
    /// The same for an emergency, which waits for no window and is watched by nobody before it goes everywhere; `None`: there are
    /// no emergencies. Higher than `threshold`, or all of them where `threshold` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency_threshold: Option<u8>,
    /// Their keys.
    pub people: BTreeMap<ApproverId, Approver>,
}

impl ApproverSet {
    /// How many have to sign; `None`: nobody can, since these approvers have no emergencies.
    pub fn needed(&self, emergency: bool) -> Option<u8> {
        // A set that was stored with threshold 0 must still not mean "nobody has to sign", nor may an emergency need fewer.
        let threshold = self.threshold.max(1);
        match emergency {
            false => Some(threshold),
            true => self.emergency_threshold.map(|more| more.max(threshold)),
        }
    }

    /// What a gateway that enrols and the coordinator compare: these people with these keys and thresholds, as JSON, always the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings, numbers and maps with string keys cannot fail to be JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The digest of [these bytes](Self::to_bytes).
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }
}

/// One approver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approver {
    /// Their public key.
    pub key: PublicKey,
    /// What the person is in the plant.
    pub role: Option<String>,
}
