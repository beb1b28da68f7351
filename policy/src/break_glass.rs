//! Who may override what a gateway enforces, and for how long at most: the part of a signed plan that an override is judged by.
//!
//! What an override is, and how it is judged, is [`overrides`](crate::overrides)'.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ApproverId, Digest};
use crate::model::PublicKey;

/// How many different people have to sign.
pub const PEOPLE_NEEDED: usize = 2;
/// The longest that any override may last.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// The shortest.
pub const SHORTEST: Duration = Duration::from_secs(60);

/// Who may override what a gateway enforces; stands in its signed plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlass {
    /// The longest that an override may last, seconds; from [`SHORTEST`] to [`LONGEST`].
    pub longest_s: u32,
    /// The people of whom two may do it together, with their keys.
    pub people: BTreeMap<ApproverId, PublicKey>,
    /// The digests of codes that may do it once each ([`Code::digest`](crate::overrides::Code::digest)).
    pub codes: BTreeSet<Digest>,
}

impl BreakGlass {
    /// Whether these are enough people, or any code.
    pub fn permits_somebody(&self) -> bool {
        self.people.len() >= PEOPLE_NEEDED || !self.codes.is_empty()
    }

    /// Why this permits nobody anything, in words.
    pub(crate) fn fault(&self) -> Option<String> {
        let longest = Duration::from_secs(self.longest_s.into());
        if !(SHORTEST..=LONGEST).contains(&longest) {
            return Some("its overrides may last too short or too long a time".to_owned());
        }
        let keys: BTreeSet<_> = self.people.values().map(PublicKey::point).collect();
        if keys.len() < self.people.len() {
            return Some("two people who may override it have the same key".to_owned());
        }
        (!self.permits_somebody())
            .then(|| "nobody may override it: that takes two people or a sealed code".to_owned())
    }
}
