//! Whose signatures a gateway obeys, as its status shows them.

use std::collections::BTreeMap;

use penstock_policy::model::ApproverSet;
use serde::Serialize;

/// Whose signatures a gateway obeys, and how many a release needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Approvers {
    /// How many.
    pub threshold: u8,
    /// The keys by their owners' names.
    pub people: BTreeMap<String, String>,
}

impl From<&ApproverSet> for Approvers {
    fn from(set: &ApproverSet) -> Self {
        let people = set.people.iter();
        Self {
            threshold: set.threshold,
            people: people
                .map(|(name, approver)| (name.to_string(), String::from(approver.key)))
                .collect(),
        }
    }
}
