//! The steps of one plant as numbers, and what is reached by them. Zones are numbered alike in both plants.

use std::collections::{BTreeSet, VecDeque};

use crate::ids::ZoneId;
use crate::reach::{Permit, Steps};

/// The steps of a plant, by the numbers that both plants' zones have in common.
pub(super) struct Graph<'a> {
    pub(super) zones: &'a [ZoneId],
    onward: Vec<Vec<usize>>,
    /// From where each zone is entered, and by what.
    pub(super) entered: Vec<Vec<(usize, &'a [Permit])>>,
}

impl<'a> Graph<'a> {
    pub(super) fn none(zones: &'a [ZoneId]) -> Self {
        Self {
            zones,
            onward: vec![Vec::new(); zones.len()],
            entered: vec![Vec::new(); zones.len()],
        }
    }

    pub(super) fn of(zones: &'a [ZoneId], steps: &'a Steps<'_>) -> Self {
        let mut graph = Self::none(zones);
        for (from, to, ways) in steps.each() {
            let number = |zone| zones.binary_search(zone).ok();
            if let (Some(from), Some(to)) = (number(from), number(to))
                && let (Some(onward), Some(entered)) = (graph.onward.get_mut(from), graph.entered.get_mut(to))
            {
                onward.push(to);
                entered.push((from, ways));
            }
        }
        graph
    }

    /// Breadth first from `start`, without entering `avoid`: for each zone reached, the one before it.
    pub(super) fn reached(&self, start: usize, avoid: Option<usize>, looks: &mut usize) -> SearchTree {
        let mut before = vec![None; self.zones.len()];
        let mut next = VecDeque::from([(start, start, 0)]);
        while let Some((zone, previous, steps)) = next.pop_front() {
            *looks += 1;
            match before.get_mut(zone) {
                Some(known @ None) if Some(zone) != avoid => *known = Some((previous, steps)),
                _ => continue,
            }
            let onward = self.onward.get(zone).into_iter().flatten();
            next.extend(onward.map(|onward| (*onward, zone, steps + 1)));
        }
        SearchTree(before)
    }

    /// All zones that lead to one of these, or are one.
    pub(super) fn leading_to(&self, heads: &BTreeSet<usize>) -> Vec<bool> {
        flood(self.zones.len(), heads, |zone| {
            let entered = self.entered.get(zone).into_iter().flatten();
            entered.map(|(from, _)| *from).collect()
        })
    }

    /// All zones that one of these leads to, or that are one.
    pub(super) fn led_from(&self, tails: &BTreeSet<usize>) -> Vec<bool> {
        flood(self.zones.len(), tails, |zone| {
            self.onward.get(zone).cloned().unwrap_or_default()
        })
    }
}

fn flood(zones: usize, start: &BTreeSet<usize>, next: impl Fn(usize) -> Vec<usize>) -> Vec<bool> {
    let mut flooded = vec![false; zones];
    let mut left: Vec<usize> = start.iter().copied().collect();
    while let Some(zone) = left.pop() {
        if let Some(known @ false) = flooded.get_mut(zone) {
            *known = true;
            left.extend(next(zone));
        }
    }
    flooded
}

/// For each zone that a search reached, the zone before it, and how many steps it took.
pub(super) struct SearchTree(Vec<Option<(usize, usize)>>);

impl SearchTree {
    pub(super) fn steps(&self, zone: usize) -> Option<usize> {
        let (_, steps) = self.0.get(zone).copied().flatten()?;
        Some(steps)
    }

    pub(super) fn has(&self, zone: usize) -> bool {
        self.steps(zone).is_some()
    }

    /// Whether it is reached by a path that is known not to enter `avoid`.
    pub(super) fn surely_has(&self, zone: usize, avoid: usize, looks: &mut usize) -> bool {
        let mut at = zone;
        while at != avoid {
            *looks += 1;
            match self.0.get(at).copied().flatten() {
                None => return false,
                Some((previous, _)) if previous == at => return true,
                Some((previous, _)) => at = previous,
            }
        }
        false
    }

    pub(super) fn path(&self, last: usize) -> Vec<usize> {
        let mut path = vec![last];
        let mut at = last;
        while let Some(Some((previous, _))) = self.0.get(at)
            && *previous != at
        {
            path.push(*previous);
            at = *previous;
        }
        path.reverse();
        path
    }
}
