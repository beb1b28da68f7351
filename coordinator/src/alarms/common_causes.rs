//! What several zones have in common: a flood of alarms is one piece of news, "3 zones: gw-office lost".

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::ids::{GatewayId, ZoneId};

use super::machine::AlarmRecord;
use super::{AlarmKey, Cause};

/// From how many zones on.
const ZONES_MIN: usize = 3;

/// Alarms of one cause that come from one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommonCause {
    pub(crate) cause: Cause,
    pub(crate) gateway: GatewayId,
    pub(crate) zones: BTreeSet<ZoneId>,
}

impl CommonCause {
    /// In words.
    pub(crate) fn words(&self) -> String {
        let what = match self.cause {
            Cause::Stale => "lost",
            Cause::Unprotected => "does not enforce",
            Cause::MustFlow => "lets no must-flow through",
            Cause::Drift => "has rules that somebody else changed",
            Cause::Trail => "has a damaged trail",
            Cause::RefusedWrite => "refuses writes",
            Cause::Rollout => "went back",
        };
        format!("{} zones: {} {what}", self.zones.len(), self.gateway)
    }
}

/// What the alarms that stand have in common, the largest first; an alarm counts for one of them.
pub(crate) fn common_causes(records: &BTreeMap<AlarmKey, AlarmRecord>) -> Vec<CommonCause> {
    let mut groups: BTreeMap<(Cause, &GatewayId), BTreeSet<&ZoneId>> = BTreeMap::new();
    for (key, record) in records.iter().filter(|(_, record)| record.state.stands()) {
        for gateway in &record.gateways {
            let group = groups.entry((key.cause, gateway)).or_default();
            group.extend(&key.zone);
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, zones)| std::cmp::Reverse(zones.len()));
    let mut taken: BTreeSet<(Cause, &ZoneId)> = BTreeSet::new();
    let mut common = Vec::new();
    for ((cause, gateway), zones) in groups {
        let zones: BTreeSet<&ZoneId> = zones
            .into_iter()
            .filter(|zone| !taken.contains(&(cause, zone)))
            .collect();
        if zones.len() < ZONES_MIN {
            continue;
        }
        taken.extend(zones.iter().map(|zone| (cause, *zone)));
        common.push(CommonCause {
            cause,
            gateway: gateway.clone(),
            zones: zones.into_iter().cloned().collect(),
        });
    }
    common
}
