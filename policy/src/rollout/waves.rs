//! Which gateway is in which wave: a function of plan and fleet, so that it is never stored.

use std::collections::BTreeSet;

use super::fleet::{Fleet, Member};
use super::plan::{RolloutPlan, Selector};

/// The wave of each gateway, by its place in the fleet; `None`: no wave chooses it.
pub fn assign(plan: &RolloutPlan, fleet: &Fleet) -> Vec<Option<u16>> {
    let mut waves: Vec<Option<u16>> = vec![None; fleet.len()];
    let order = fleet.draw(plan.seed);
    for (number, wave) in (0_u16..).zip(&plan.waves) {
        let free = |at: &u32| waves.get(*at as usize).is_some_and(Option::is_none);
        let chosen: Vec<u32> = match &wave.gateways {
            Selector::Percent(percent) => part(fleet, order.iter().copied().filter(free), *percent),
            Selector::List(ids) => ids.iter().filter_map(|id| fleet.find(id)).filter(free).collect(),
            selector => (0..)
                .zip(fleet.members())
                .filter(|(at, member)| free(at) && chooses(selector, member))
                .map(|(at, _)| at)
                .collect(),
        };
        for at in chosen {
            if let Some(place) = waves.get_mut(at as usize) {
                *place = Some(number);
            }
        }
    }
    waves
}

/// Whether a gateway is meant, by what it is.
pub(super) fn chooses(selector: &Selector, member: &Member) -> bool {
    match selector {
        Selector::All => true,
        Selector::Labels(labels) => labels.iter().all(|(key, value)| {
            let carried = member.labels.get(key);
            carried.is_some_and(|carried| value == "*" || carried == value)
        }),
        Selector::Site(site) => member.site == *site,
        Selector::List(ids) => ids.contains(&member.id),
        Selector::Percent(_) => false,
    }
}

/// The first of those drawn, so many of a hundred of the whole fleet, and at most one of a pair.
fn part(fleet: &Fleet, drawn: impl Iterator<Item = u32>, percent: u32) -> Vec<u32> {
    let count = (fleet.len() * percent.min(100) as usize).div_ceil(100);
    let mut chosen = BTreeSet::new();
    for at in drawn {
        if chosen.len() >= count {
            break;
        }
        if fleet.partner(at).is_none_or(|partner| !chosen.contains(&partner)) {
            chosen.insert(at);
        }
    }
    chosen.into_iter().collect()
}
