//! Pairs of zones of which one can act on the other where it could not before, or with more; and the other way round.
//!
//! What a zone can do to another is what [`reach`](crate::reach) calls its acts: everything that permits a last step into it,
//! from whichever zones the first reaches without entering the other. A change opens a pair if one of these acts is covered by
//! none of those before (`ways_in`): a flow under another name, or by another path, that permits the same opens nothing.
//!
//! Not all pairs are looked at, only those from a zone that reaches a step that gained something, to a zone that is reached
//! from one. These are all: take a pair with an act that nothing covered before, and the path to it. If every step of
//! that path was there, and what permits the last was covered by what permitted it, then the old plant had the path, and the
//! act was covered. So some step on it is new, or the last one gained; the first zone reaches that step, which leads to the other.
//!
//! Bounded: of more than [`PAIRS_MAX`] pairs the others are counted, after [`LOOKS_MAX`] steps looked at (a comparison of what
//! permits two of them counts as many) the zones from which not every pair was looked for; of what permits an act at most [`WAYS_MAX`] are shown.

mod graph;
mod ways_in;

use std::collections::BTreeSet;

use serde::Serialize;

use self::graph::{Graph, SearchTree};
use self::ways_in::{Looks, WaysIn};
use crate::ids::ZoneId;
use crate::model::Plant;
use crate::reach::{Permit, Steps};

/// Pairs that are shown in each direction.
pub const PAIRS_MAX: usize = 1_000;
/// Flows that are shown of each pair.
pub const WAYS_MAX: usize = 8;
/// Steps that are looked at in each direction.
const LOOKS_MAX: usize = 100_000_000;

/// What a change opens and closes between zones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PathChanges {
    /// One can newly act on the other, or do more to it.
    pub opened: PairChanges,
    /// One can no longer act on the other, or do less to it.
    pub closed: PairChanges,
}

/// The pairs in one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PairChanges {
    /// Those from a zone at which a step changed first, then the others by name.
    pub pairs: Vec<PairChange>,
    /// So many more pairs there are.
    pub further: usize,
    /// From so many zones not every pair was looked for: there would be too much to look at.
    pub unexamined: usize,
}

/// One pair of zones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PairChange {
    /// Who acts.
    pub from: ZoneId,
    /// On whom.
    pub to: ZoneId,
    /// Opened: it could not act at all before. Closed: it no longer can at all.
    pub entirely: bool,
    /// A shortest path to the change, from zone to zone.
    pub path: Vec<ZoneId>,
    /// What permits the last step of it, and had or has no equal.
    pub ways: Vec<Permit>,
    /// So many more there are, by this path or others.
    pub further_ways: usize,
}

impl PathChanges {
    /// Compares two plants; without an old one, everything is opened.
    pub(super) fn between(old: Option<&Plant>, new: &Plant) -> Self {
        let (before, after) = (old.map(Steps::of), Steps::of(new));
        Self::of(before.as_ref(), &after, LOOKS_MAX)
    }

    pub(super) fn of(old: Option<&Steps<'_>>, new: &Steps<'_>, looks_max: usize) -> Self {
        let each = |steps: &Steps<'_>| -> BTreeSet<ZoneId> {
            let zones = steps.each().flat_map(|(from, to, _)| [from, to]);
            zones.cloned().collect()
        };
        let mut zones = each(new);
        zones.extend(old.into_iter().flat_map(each));
        let zones: Vec<ZoneId> = zones.into_iter().collect();
        let before = old.map_or_else(|| Graph::none(&zones), |old| Graph::of(&zones, old));
        let after = Graph::of(&zones, new);
        Self {
            opened: gained(&before, &after, looks_max),
            closed: gained(&after, &before, looks_max),
        }
    }

    /// Whether nothing opens or closes, as far as was looked.
    pub fn is_empty(&self) -> bool {
        [&self.opened, &self.closed]
            .iter()
            .all(|pairs| pairs.pairs.is_empty() && pairs.further == 0 && pairs.unexamined == 0)
    }
}

/// The pairs with an act in `new` that no act in `old` covers.
fn gained(old: &Graph<'_>, new: &Graph<'_>, looks_max: usize) -> PairChanges {
    let mut changes = PairChanges::default();
    let into: Vec<WaysIn<'_>> = old
        .entered
        .iter()
        .zip(&new.entered)
        .zip(new.zones)
        .map(|((old, new), to)| WaysIn::of(to.as_str(), old, new))
        .collect();
    let mut looks = Looks {
        done: 0,
        max: looks_max,
    };
    let (mut tails, mut heads) = (BTreeSet::new(), BTreeSet::new());
    for (to, entered) in into.iter().enumerate() {
        for step in entered
            .steps
            .iter()
            .filter(|step| entered.gains(step, &mut looks))
        {
            tails.insert(step.from);
            heads.insert(to);
        }
    }
    let (sources, targets) = (new.leading_to(&tails), new.led_from(&heads));
    let numbers = |flags: &[bool]| -> Vec<usize> {
        let flags = flags.iter().enumerate();
        flags.filter(|(_, is)| **is).map(|(zone, _)| zone).collect()
    };
    let (mut sources, targets) = (numbers(&sources), numbers(&targets));
    sources.sort_by_key(|zone| !tails.contains(zone));
    let mut search = Search {
        old,
        new,
        into: &into,
        looks,
    };
    for from in sources {
        if !search.from(from, &targets, &mut changes) {
            changes.unexamined += 1;
        }
    }
    changes
}

/// What is looked at, and how much it was.
struct Search<'s, 'a> {
    old: &'s Graph<'a>,
    new: &'s Graph<'a>,
    into: &'s [WaysIn<'a>],
    looks: Looks,
}

impl Search<'_, '_> {
    /// The pairs from one zone; whether all of them were looked for.
    fn from(&mut self, from: usize, targets: &[usize], changes: &mut PairChanges) -> bool {
        if self.looks.are_over() {
            return false;
        }
        let before = self.old.reached(from, None, &mut self.looks.done);
        let after = self.new.reached(from, None, &mut self.looks.done);
        for to in targets.iter().copied().filter(|to| *to != from) {
            if self.looks.are_over() {
                return false;
            }
            if !after.has(to) {
                continue;
            }
            let entirely = !before.has(to);
            if changes.pairs.len() >= PAIRS_MAX && entirely {
                changes.further += 1;
                continue;
            }
            if !entirely && self.surely_covered(to, &before, &after) {
                continue;
            }
            let pair = self.pair(from, to, entirely);
            if self.looks.are_over() {
                // What covers it may not have been found.
                return false;
            }
            let Some(pair) = pair else {
                continue;
            };
            if changes.pairs.len() < PAIRS_MAX {
                changes.pairs.push(pair);
            } else {
                changes.further += 1;
            }
        }
        true
    }

    /// Whether each act that is possible now is covered by one that surely was. Says so for nearly all pairs, with no search of
    /// their own; where a path led through the zone itself, it does not know.
    fn surely_covered(&mut self, to: usize, before: &SearchTree, after: &SearchTree) -> bool {
        let looks = &mut self.looks;
        let Some(entered) = self.into.get(to) else {
            return true;
        };
        let mut steps = entered.steps.iter().filter(|step| after.has(step.from));
        steps.all(|step| {
            looks.done += 1;
            let stood = before.surely_has(step.from, to, &mut looks.done);
            step.ways.iter().all(|(set, ways)| {
                let same = entered.same(*set);
                (stood && same.contains(&step.from))
                    || same
                        .iter()
                        .any(|zone| before.surely_has(*zone, to, &mut looks.done))
                    || ways.iter().all(|way| {
                        let zones = entered.covering(way, looks).into_iter().flatten();
                        let mut zones = zones.copied();
                        zones.any(|zone| before.surely_has(zone, to, &mut looks.done))
                    })
            })
        })
    }

    /// What one zone can do to another that it could not; `None`: nothing.
    fn pair(&mut self, from: usize, to: usize, entirely: bool) -> Option<PairChange> {
        let before = self.old.reached(from, Some(to), &mut self.looks.done);
        let after = self.new.reached(from, Some(to), &mut self.looks.done);
        let mut steps: Vec<(usize, usize, Vec<&Permit>)> = Vec::new();
        let entered = self.into.get(to)?;
        for step in &entered.steps {
            let Some(length) = after.steps(step.from) else {
                continue;
            };
            let mut uncovered: Vec<&Permit> = Vec::new();
            for (set, ways) in &step.ways {
                if !entirely && entered.same(*set).iter().any(|zone| before.has(*zone)) {
                    continue;
                }
                for way in ways {
                    self.looks.done += 1;
                    let mut covering = || entered.covering(way, &mut self.looks).into_iter().flatten();
                    if entirely || !covering().any(|zone| before.has(*zone)) {
                        uncovered.push(way.permit);
                    }
                }
            }
            if !uncovered.is_empty() {
                steps.push((length, step.from, uncovered));
            }
        }
        let all: usize = steps.iter().map(|(_, _, ways)| ways.len()).sum();
        let (_, last, ways) = steps
            .into_iter()
            .min_by_key(|(length, last, _)| (*length, *last))?;
        let shown: Vec<Permit> = ways.into_iter().take(WAYS_MAX).cloned().collect();
        let name = |zone: usize| self.new.zones.get(zone).cloned();
        Some(PairChange {
            from: name(from)?,
            to: name(to)?,
            entirely,
            path: after
                .path(last)
                .into_iter()
                .chain([to])
                .filter_map(name)
                .collect(),
            further_ways: all - shown.len(),
            ways: shown,
        })
    }
}
