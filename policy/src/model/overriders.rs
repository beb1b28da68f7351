//! Who may override a gateway in front of it (`break_glass`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::PublicKey;
use crate::ids::{ApproverId, Digest, GatewayId, SiteId};

/// How long an override may last where the document does not say, seconds: a shift.
pub const LONGEST_DEFAULT_S: u32 = 8 * 3600;

/// Who may override gateways, and for how long at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overriders {
    /// The longest that an override may last, seconds.
    pub longest_s: u32,
    /// The people of whom any two may do it together.
    pub people: BTreeMap<ApproverId, Overrider>,
    /// The digests of one-time codes, by gateway; none of these lists is empty.
    pub sealed: BTreeMap<GatewayId, BTreeSet<Digest>>,
}

/// One of the people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overrider {
    /// Their public key.
    pub key: PublicKey,
    /// The sites at whose gateways; `None`: everywhere. Never empty.
    pub sites: Option<BTreeSet<SiteId>>,
}

impl Overrider {
    /// Whether at a gateway of this site.
    pub fn may_at(&self, site: &SiteId) -> bool {
        self.sites.as_ref().is_none_or(|sites| sites.contains(site))
    }
}
