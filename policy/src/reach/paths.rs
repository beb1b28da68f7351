//! The paths from one zone to another that enter no zone twice, shortest first, within bounds.
//!
//! There can be exponentially many, and to find whether one leads through a given zone is as hard as to list them. So
//! they are looked for by length, one step longer at a time, by a search that turns round as soon as the steps that are
//! left cannot lead to the target; after [`LOOKS_MAX`] steps looked at, or with more paths than wanted, it stops. What is then
//! missing is bounded from above: by each zone that enters the target one path is found breadth first, and other paths lead
//! only through zones that are reached from the one end and reach the other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Steps;

/// Steps that are looked at for one pair of zones.
const LOOKS_MAX: usize = 50_000;

/// Paths by the zones' numbers.
pub(super) struct Paths {
    /// Shortest first.
    pub(super) paths: Vec<Vec<usize>>,
    /// If there are or may be others: zones on none of these, through which they may lead.
    pub(super) through: Option<BTreeSet<usize>>,
}

/// The search ended before it had seen everything.
struct Bounded;

impl Steps<'_> {
    /// The paths from one zone to another, `paths_max` of them and one for each further zone that enters the other.
    pub(super) fn paths(&self, from: usize, to: usize, paths_max: usize) -> Paths {
        let mut paths = Vec::new();
        if from == to {
            return Paths { paths, through: None };
        }
        let left = self.left(from, to);
        if self.search(from, to, &left, paths_max, &mut paths).is_ok() {
            return Paths { paths, through: None };
        }
        let before = self.before(from, Some(to));
        let reached = |zone: usize| before.get(zone).is_some_and(Option::is_some);
        let known: BTreeSet<usize> = paths
            .iter()
            .filter_map(|path| path.iter().rev().nth(1).copied())
            .collect();
        for last in self.back.get(to).into_iter().flatten() {
            if !known.contains(last) && reached(*last) {
                paths.push(path(&before, *last, to));
            }
        }
        // Stable: paths of one length stay in the order of their names.
        paths.sort_by_key(Vec::len);
        let shown: BTreeSet<usize> = paths.iter().flatten().copied().collect();
        let may_lead = |zone: &usize| {
            reached(*zone) && left.get(*zone).is_some_and(Option::is_some) && !shown.contains(zone)
        };
        Paths {
            through: Some((0..self.zones.len()).filter(may_lead).collect()),
            paths,
        }
    }

    /// The zones that a step leads to from `zone`.
    fn onward(&self, zone: usize) -> impl Iterator<Item = &usize> {
        self.onward.get(zone).into_iter().flat_map(BTreeMap::keys)
    }

    /// How many steps at least each zone is from `to`, without passing through `from`.
    fn left(&self, from: usize, to: usize) -> Vec<Option<usize>> {
        let mut left = vec![None; self.zones.len()];
        let mut next = VecDeque::from([(to, 0)]);
        while let Some((zone, steps)) = next.pop_front() {
            match left.get_mut(zone) {
                Some(known @ None) => *known = Some(steps),
                _ => continue,
            }
            if zone != from {
                let back = self.back.get(zone).into_iter().flatten();
                next.extend(back.map(|zone| (*zone, steps + 1)));
            }
        }
        left
    }

    /// Breadth first: for each zone that `from` reaches without entering `avoid`, the zone before it; for `from` itself.
    pub(super) fn before(&self, from: usize, avoid: Option<usize>) -> Vec<Option<usize>> {
        let mut before = vec![None; self.zones.len()];
        let mut next = VecDeque::from([(from, from)]);
        while let Some((zone, previous)) = next.pop_front() {
            match before.get_mut(zone) {
                Some(known @ None) if Some(zone) != avoid => *known = Some(previous),
                _ => continue,
            }
            next.extend(self.onward(zone).map(|onward| (*onward, zone)));
        }
        before
    }

    /// Adds paths to `found`, by length, then by the zones' names.
    fn search(
        &self,
        from: usize,
        to: usize,
        left: &[Option<usize>],
        paths_max: usize,
        found: &mut Vec<Vec<usize>>,
    ) -> Result<(), Bounded> {
        let Some(Some(shortest)) = left.get(from) else {
            return Ok(());
        };
        let mut looks = 0;
        for length in *shortest..self.zones.len() {
            let mut may_be_longer = false;
            let mut entered = vec![false; self.zones.len()];
            // The zones of a path so far, each with the steps that lead on from it and were not looked at yet.
            let mut stack = vec![(from, self.onward(from))];
            while let Some((zone, onward)) = stack.last_mut() {
                let zone = *zone;
                let Some(next) = onward.next().copied() else {
                    stack.pop();
                    entered
                        .get_mut(zone)
                        .into_iter()
                        .for_each(|entered| *entered = false);
                    continue;
                };
                looks += 1;
                if looks > LOOKS_MAX {
                    return Err(Bounded);
                }
                let steps = stack.len();
                let Some(Some(left)) = left.get(next) else {
                    continue;
                };
                if next == from || entered.get(next).is_none_or(|entered| *entered) {
                    continue;
                }
                if steps + left > length {
                    may_be_longer = true;
                } else if next != to {
                    entered
                        .get_mut(next)
                        .into_iter()
                        .for_each(|entered| *entered = true);
                    stack.push((next, self.onward(next)));
                } else if steps == length {
                    if found.len() == paths_max {
                        return Err(Bounded);
                    }
                    found.push(stack.iter().map(|(zone, _)| *zone).chain([to]).collect());
                }
            }
            if !may_be_longer {
                break;
            }
        }
        Ok(())
    }
}

/// The path to `last` along `before`, and on to `to`.
fn path(before: &[Option<usize>], last: usize, to: usize) -> Vec<usize> {
    let mut path = vec![to, last];
    let mut at = last;
    while let Some(Some(previous)) = before.get(at)
        && *previous != at
    {
        path.push(*previous);
        at = *previous;
    }
    path.reverse();
    path
}
