//! What permits the steps into one zone, and from which zones of the other plant something covers it.
//!
//! Most of what permits a step stands word for word in both plants, which is found at once. Whether something else covers it is
//! asked only where that is not enough: it compares with all that led there, and each comparison reads two lists of operations.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::diff::{Effect, covers_ports, diff_operations};
use crate::plan::Grant;
use crate::reach::Permit;
use crate::terms::Transport;

/// So many steps looked at take about as long as one comparison.
const COMPARISON: usize = 500;

/// How much was looked at, and how much may be.
#[derive(Debug)]
pub(super) struct Looks {
    pub(super) done: usize,
    pub(super) max: usize,
}

impl Looks {
    /// Whether the end is reached: what was found since is not all.
    pub(super) fn are_over(&self) -> bool {
        self.done > self.max
    }
}

/// The steps into one zone.
pub(super) struct WaysIn<'a> {
    pub(super) steps: Vec<Step<'a>>,
    /// All of the zone, as flows name it.
    whole: String,
    /// Zones of the old plant from which the same led here, word for word: sets that differ from one another.
    sets: Vec<BTreeSet<usize>>,
    /// What led here in the old plant, and from where.
    known: Vec<(&'a Permit, BTreeSet<usize>)>,
    by_name: BTreeMap<&'a str, Vec<usize>>,
    /// What leads here in the new one, each once.
    acts: Vec<Act<'a>>,
}

/// What permits a step.
pub(super) struct Step<'a> {
    pub(super) from: usize,
    /// By the set of zones from which the same led here: most have just the one where the step starts.
    pub(super) ways: BTreeMap<usize, Vec<Way<'a>>>,
}

pub(super) struct Way<'a> {
    pub(super) permit: &'a Permit,
    act: usize,
}

/// All that is permitted in the same words but for who may do it.
struct Act<'a> {
    permit: &'a Permit,
    set: usize,
    /// Zones from which something covered it, once that was asked.
    covered: OnceCell<BTreeSet<usize>>,
}

impl<'a> WaysIn<'a> {
    /// `to` is the zone's name.
    pub(super) fn of(to: &str, old: &[(usize, &'a [Permit])], new: &[(usize, &'a [Permit])]) -> Self {
        let mut into = Self {
            steps: Vec::new(),
            whole: format!("{WHOLE}{to}"),
            sets: Vec::new(),
            known: Vec::new(),
            by_name: BTreeMap::new(),
            acts: Vec::new(),
        };
        let known = into.know(old);
        let mut numbers: BTreeMap<BTreeSet<usize>, usize> = BTreeMap::new();
        let mut acts: BTreeMap<String, usize> = BTreeMap::new();
        for (from, permits) in new {
            let mut step = Step {
                from: *from,
                ways: BTreeMap::new(),
            };
            for permit in *permits {
                let essence = essence(permit);
                let same = known.get(&essence).and_then(|known| into.known.get(*known));
                let act = *acts.entry(essence).or_insert_with(|| {
                    let zones = same.map(|(_, zones)| zones.clone()).unwrap_or_default();
                    let next = numbers.len();
                    into.acts.push(Act {
                        permit,
                        set: *numbers.entry(zones).or_insert(next),
                        covered: OnceCell::new(),
                    });
                    into.acts.len() - 1
                });
                let Some(set) = into.acts.get(act).map(|act| act.set) else {
                    continue;
                };
                step.ways.entry(set).or_default().push(Way { permit, act });
            }
            into.steps.push(step);
        }
        let mut sets = vec![BTreeSet::new(); numbers.len()];
        for (set, number) in numbers {
            if let Some(place) = sets.get_mut(number) {
                *place = set;
            }
        }
        Self { sets, ..into }
    }

    /// Takes what led here, each once, with its place by its words.
    fn know(&mut self, old: &[(usize, &'a [Permit])]) -> BTreeMap<String, usize> {
        let mut places = BTreeMap::new();
        for (from, permits) in old {
            for permit in *permits {
                let place = *places.entry(essence(permit)).or_insert_with(|| {
                    self.known.push((permit, BTreeSet::new()));
                    self.known.len() - 1
                });
                if let Some((_, zones)) = self.known.get_mut(place) {
                    zones.insert(*from);
                }
            }
        }
        for (place, (permit, _)) in self.known.iter().enumerate() {
            match permit {
                Permit::Frames { .. } | Permit::Observed { .. } | Permit::Elsewhere { .. } => {
                    self.by_name.entry(WHOLE).or_default().push(place)
                }
                // What covers names all destinations of what it covers, or the whole zone.
                Permit::Flow { destinations, .. } => {
                    for name in destinations {
                        let name = if *name == self.whole { WHOLE } else { name };
                        self.by_name.entry(name).or_default().push(place);
                    }
                }
            }
        }
        places
    }

    /// Zones of the old plant from which what stands in this set led here too, word for word.
    pub(super) fn same(&self, set: usize) -> &BTreeSet<usize> {
        static NONE: BTreeSet<usize> = BTreeSet::new();
        self.sets.get(set).unwrap_or(&NONE)
    }

    /// All zones of the old plant from which something covered it; `None`: there is too much to look at.
    pub(super) fn covering(&self, way: &Way<'_>, looks: &mut Looks) -> Option<&BTreeSet<usize>> {
        let act = self.acts.get(way.act)?;
        if act.covered.get().is_none() {
            let name = match act.permit {
                Permit::Flow { destinations, .. } => destinations.first().map_or(WHOLE, String::as_str),
                Permit::Frames { .. } | Permit::Observed { .. } | Permit::Elsewhere { .. } => WHOLE,
            };
            let mut covered = self.same(act.set).clone();
            for place in BTreeSet::from([WHOLE, name])
                .into_iter()
                .filter_map(|name| self.by_name.get(name))
                .flatten()
            {
                let Some((old, zones)) = self.known.get(*place) else {
                    continue;
                };
                if zones.is_subset(&covered) {
                    continue;
                }
                if looks.are_over() {
                    return None;
                }
                looks.done += COMPARISON;
                if covers(&self.whole, old, act.permit) {
                    covered.extend(zones);
                }
            }
            let _ = act.covered.set(covered);
        }
        act.covered.get()
    }

    /// Whether a step permits anything that the same step did not, as far as was looked.
    pub(super) fn gains(&self, step: &Step<'_>, looks: &mut Looks) -> bool {
        let mut covered = |way: &Way<'_>| {
            let zones = self.covering(way, looks);
            zones.is_some_and(|zones| zones.contains(&step.from))
        };
        let all = |(set, ways): (&usize, &Vec<Way<'_>>)| {
            self.same(*set).contains(&step.from) || ways.iter().all(&mut covered)
        };
        !step.ways.iter().all(all)
    }
}

/// How the name of a whole zone as the end of a flow begins.
pub(super) const WHOLE: &str = "zone:";

/// All of it that decides whether one covers another.
fn essence(way: &Permit) -> String {
    match way {
        Permit::Observed { .. } | Permit::Elsewhere { .. } => WHOLE.to_owned(),
        Permit::Frames { frames, .. } => format!("{WHOLE} {frames:?}"),
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
        return match (old, new) {
            // Anything passes between zones that only observe, and where no gateway enforces.
            (Permit::Observed { .. } | Permit::Elsewhere { .. }, _) => true,
            (Permit::Frames { frames: old, .. }, Permit::Frames { frames, .. }) => old.cover(frames),
            _ => false,
        };
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
