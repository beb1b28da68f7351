//! What permits the steps into one zone, and from which zones of the other plant something covers it.

use std::collections::{BTreeMap, BTreeSet};

use crate::diff::{Effect, covers_ports, diff_operations};
use crate::plan::Grant;
use crate::reach::Permit;
use crate::terms::Transport;

/// The steps into one zone.
#[derive(Default)]
pub(super) struct WaysIn<'a> {
    /// Zones of the old plant from which something covers the same: sets that differ from one another.
    pub(super) sets: Vec<BTreeSet<usize>>,
    pub(super) steps: Vec<Step<'a>>,
}

/// What permits a step.
pub(super) struct Step<'a> {
    pub(super) from: usize,
    /// By the set of zones from which it was covered: most have just the one where the step starts.
    pub(super) ways: BTreeMap<usize, Vec<&'a Permit>>,
}

impl<'a> WaysIn<'a> {
    /// `whole` is how all of the zone is named as an end.
    pub(super) fn of(whole: &str, old: &[(usize, &'a [Permit])], new: &[(usize, &'a [Permit])]) -> Self {
        // What permits the same from many sources, or by many flows, is compared once.
        let mut known: BTreeMap<String, (&Permit, BTreeSet<usize>)> = BTreeMap::new();
        for (from, ways) in old {
            for way in *ways {
                let (_, zones) = known.entry(essence(way)).or_insert((way, BTreeSet::new()));
                zones.insert(*from);
            }
        }
        // What covers names all destinations of what it covers, or the whole zone.
        let mut by_name: BTreeMap<&str, Vec<(&Permit, &BTreeSet<usize>)>> = BTreeMap::new();
        for (way, zones) in known.values() {
            match way {
                Permit::Observed { .. } => by_name.entry(whole).or_default().push((way, zones)),
                Permit::Flow { destinations, .. } => {
                    for name in destinations {
                        by_name.entry(name).or_default().push((way, zones));
                    }
                }
            }
        }
        let covered = |way: &Permit| -> BTreeSet<usize> {
            let name = match way {
                Permit::Flow { destinations, .. } => destinations.first().map_or(whole, String::as_str),
                Permit::Observed { .. } => whole,
            };
            let names: BTreeSet<&str> = BTreeSet::from([whole, name]);
            let may = names.iter().filter_map(|name| by_name.get(name)).flatten();
            let covering = may.filter(|(old, _)| covers(whole, old, way));
            covering.flat_map(|(_, zones)| zones.iter().copied()).collect()
        };
        let mut numbers: BTreeMap<BTreeSet<usize>, usize> = BTreeMap::new();
        let mut compared: BTreeMap<String, usize> = BTreeMap::new();
        let mut steps = Vec::new();
        for (from, ways) in new {
            let mut step = Step {
                from: *from,
                ways: BTreeMap::new(),
            };
            for way in *ways {
                let set = *compared.entry(essence(way)).or_insert_with(|| {
                    let next = numbers.len();
                    *numbers.entry(covered(way)).or_insert(next)
                });
                step.ways.entry(set).or_default().push(way);
            }
            steps.push(step);
        }
        let mut sets = vec![BTreeSet::new(); numbers.len()];
        for (set, number) in numbers {
            if let Some(place) = sets.get_mut(number) {
                *place = set;
            }
        }
        Self { sets, steps }
    }

    pub(super) fn set(&self, number: usize) -> impl Iterator<Item = usize> {
        self.sets.get(number).into_iter().flatten().copied()
    }

    /// Whether a step permits anything that the same step did not.
    pub(super) fn gains(&self, step: &Step<'_>) -> bool {
        let covered = |set: &usize| self.sets.get(*set).is_some_and(|set| set.contains(&step.from));
        !step.ways.keys().all(covered)
    }
}

/// How the name of a whole zone as the end of a flow begins.
pub(super) const WHOLE: &str = "zone:";

/// All of it that decides whether one covers another.
fn essence(way: &Permit) -> String {
    match way {
        Permit::Observed { .. } => WHOLE.to_owned(),
        Permit::Flow {
            destinations,
            transport,
            operations,
            bridged,
            granted,
            ..
        } => format!("{destinations:?} {transport:?} {operations:?} {bridged} {granted:?}"),
    }
}

/// Whether `old` permits all that `new` does to the same zone. Whoever holds one asset of a zone is taken to hold it all, so
/// who opens it makes no difference.
fn covers(whole: &str, old: &Permit, new: &Permit) -> bool {
    let (
        Permit::Flow {
            destinations: old_destinations,
            transport: old_transport,
            operations: old_operations,
            bridged: old_bridged,
            granted: old_granted,
            ..
        },
        Permit::Flow {
            destinations,
            transport,
            operations,
            bridged,
            granted,
            ..
        },
    ) = (old, new)
    else {
        // Anything passes between zones that only observe.
        return matches!(old, Permit::Observed { .. });
    };
    let all = || old_destinations.iter().any(|name| name == whole);
    let named = || destinations.iter().all(|name| old_destinations.contains(name));
    let carried = match (old_transport, transport) {
        (Transport::Tcp(old), Transport::Tcp(new)) | (Transport::Udp(old), Transport::Udp(new)) => {
            covers_ports(old, new)
        }
        (old, new) => old == new,
    };
    let limited = || match (old_operations, operations) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(old), Some(new)) => {
            old == new || matches!(diff_operations(old, new).0, Effect::Narrowed | Effect::Recorded)
        }
    };
    let lasts = match (old_granted, granted) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(old), Some(new)) => new.iter().all(|new| old.iter().any(|old| outlasts(old, new))),
    };
    old_bridged == bridged && carried && lasts && (all() || named()) && limited()
}

fn outlasts(old: &Grant, new: &Grant) -> bool {
    old.from_ms <= new.from_ms && new.until_ms <= old.until_ms
}
