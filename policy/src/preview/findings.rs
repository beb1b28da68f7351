//! What `check` finds in the new plant and not in the old one, and what it no longer finds.
//!
//! A finding is known if it is said in the same words: one whose numbers change is a new one, and an old one that is gone.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::check::{Finding, check};
use crate::ids::GatewayId;
use crate::model::Plant;
use crate::plan::Plan;

type Plans = BTreeMap<GatewayId, Plan>;

/// Findings apart from those that were there before; gravest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FindingChanges {
    /// Of the new plant alone, what it loses against the plans in force included.
    pub new: Vec<Finding>,
    /// Of the old plant alone.
    pub gone: Vec<Finding>,
    /// Of both.
    pub known: Vec<Finding>,
}

impl FindingChanges {
    pub(super) fn between(old: Option<(&Plant, &Plans)>, (new, plans): (&Plant, &Plans)) -> Self {
        // Those in force are not judged against what was in force before them.
        let before: BTreeSet<Finding> = old
            .map(|(plant, plans)| check(plant, plans, None))
            .into_iter()
            .flatten()
            .collect();
        let after = check(new, plans, old.map(|(_, plans)| plans));
        let still: BTreeSet<&Finding> = after.iter().collect();
        let gone = before.iter().filter(|finding| !still.contains(finding));
        let gone = gone.cloned().collect();
        let (known, new) = after.into_iter().partition(|finding| before.contains(finding));
        Self { new, gone, known }
    }
}
