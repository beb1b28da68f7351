//! The order within rows: by repeated barycentres, the best of all passes kept, then by exchanges of neighbours.
//!
//! A pass sorts each row once; crossings are counted as inversions. So a pass takes n log n, and the number of passes is fixed.

use super::{NodeIx, Rows};

/// Barycentre passes; the best order of all is kept.
const PASSES: usize = 24;
/// Rounds in which neighbours are exchanged.
const ROUNDS: usize = 4;

/// Orders the rows so that few wires cross.
pub(super) fn untangle(rows: &mut Rows) {
    let mut order = Order::of(rows);
    let mut best = (order.crossings(rows), rows.rows.clone());
    for pass in 0..PASSES {
        if best.0 == 0 {
            break;
        }
        let downwards = pass % 2 == 0;
        // In the later passes both neighbours count, which settles what one side leaves open.
        let both = pass > PASSES / 2;
        for at in 0..rows.rows.len() {
            let row = if downwards { at } else { rows.rows.len() - 1 - at };
            order.sort(rows, row, downwards || both, !downwards || both);
        }
        let crossings = order.crossings(rows);
        if crossings < best.0 {
            best = (crossings, rows.rows.clone());
        }
    }
    rows.rows = best.1;
    order.take(rows);
    for _ in 0..ROUNDS {
        let mut changed = false;
        for row in 0..rows.rows.len() {
            changed |= order.exchange(rows, row);
        }
        if !changed {
            break;
        }
    }
}

/// Where each node stands in its row, and what it is linked with.
pub(super) struct Order {
    place: Vec<usize>,
    /// The same from 0 to 1.
    share: Vec<f64>,
    above: Vec<Vec<NodeIx>>,
    below: Vec<Vec<NodeIx>>,
    /// The links that leave each row downwards.
    leaving: Vec<Vec<(NodeIx, NodeIx)>>,
}

impl Order {
    /// The order in which the rows are now.
    pub(super) fn of(rows: &Rows) -> Self {
        let (above, below) = rows.linked();
        let mut leaving = vec![Vec::new(); rows.rows.len()];
        for link in &rows.links {
            if let Some(list) = leaving.get_mut(rows.row(link.upper)) {
                list.push((link.upper, link.lower));
            }
        }
        let mut order = Self {
            place: vec![0; rows.nodes.len()],
            share: vec![0.0; rows.nodes.len()],
            above,
            below,
            leaving,
        };
        order.take(rows);
        order
    }

    fn take(&mut self, rows: &Rows) {
        for row in &rows.rows {
            self.take_row(row);
        }
    }

    fn take_row(&mut self, row: &[NodeIx]) {
        for (at, node) in row.iter().enumerate() {
            if let (Some(place), Some(share)) = (self.place.get_mut(*node), self.share.get_mut(*node)) {
                *place = at;
                *share = (at as f64 + 0.5) / row.len() as f64;
            }
        }
    }

    fn place(&self, node: NodeIx) -> usize {
        self.place.get(node).copied().unwrap_or(0)
    }

    /// Sorts a row by the middle of what its nodes are linked with.
    fn sort(&mut self, rows: &mut Rows, row: usize, by_above: bool, by_below: bool) {
        let Some(members) = rows.rows.get_mut(row) else {
            return;
        };
        let share = |node: NodeIx| self.share.get(node).copied().unwrap_or(0.0);
        let near = |lists: &[Vec<NodeIx>], node: NodeIx, counts: bool| {
            let list = lists.get(node).filter(|_| counts).map_or(&[][..], Vec::as_slice);
            (list.iter().map(|other| share(*other)).sum::<f64>(), list.len())
        };
        let key = |node: NodeIx| {
            let (above, below) = (
                near(&self.above, node, by_above),
                near(&self.below, node, by_below),
            );
            match above.1 + below.1 {
                0 => share(node),
                count => (above.0 + below.0) / count as f64,
            }
        };
        let mut keyed: Vec<(f64, NodeIx)> = members.iter().map(|node| (key(*node), *node)).collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
        *members = keyed.into_iter().map(|(_, node)| node).collect();
        let members = members.clone();
        self.take_row(&members);
    }

    /// How many pairs of links cross: those between two rows that are in another order above than below.
    pub(super) fn crossings(&self, rows: &Rows) -> usize {
        let mut all = 0;
        for (row, leaving) in self.leaving.iter().enumerate() {
            let mut links: Vec<(usize, usize)> = leaving
                .iter()
                .map(|(upper, lower)| (self.place(*upper), self.place(*lower)))
                .collect();
            links.sort_unstable();
            let mut seen = Counts::new(rows.rows.get(row + 1).map_or(0, Vec::len));
            for (at, (_, lower)) in links.iter().enumerate() {
                all += at - seen.up_to(*lower);
                seen.add(*lower);
            }
        }
        all
    }

    /// Exchanges neighbours in a row while that lowers the number of crossings; whether it did.
    fn exchange(&mut self, rows: &mut Rows, row: usize) -> bool {
        let Some(members) = rows.rows.get_mut(row) else {
            return false;
        };
        let mut changed = false;
        for at in 1..members.len() {
            let (Some(left), Some(right)) = (members.get(at - 1).copied(), members.get(at).copied()) else {
                continue;
            };
            let sides = [&self.above, &self.below];
            let crossings = |one: NodeIx, other: NodeIx| -> usize {
                sides
                    .iter()
                    .map(|side| pairs(&self.places(side, one), &self.places(side, other)))
                    .sum()
            };
            if crossings(right, left) < crossings(left, right) {
                members.swap(at - 1, at);
                changed = true;
                for (node, place) in [(right, at - 1), (left, at)] {
                    if let Some(slot) = self.place.get_mut(node) {
                        *slot = place;
                    }
                }
            }
        }
        changed
    }

    fn places(&self, side: &[Vec<NodeIx>], node: NodeIx) -> Vec<usize> {
        let list = side.get(node).map_or(&[][..], Vec::as_slice);
        let mut places: Vec<usize> = list.iter().map(|other| self.place(*other)).collect();
        places.sort_unstable();
        places
    }
}

/// How many pairs there are of one of `left` that is greater than one of `right`; both are sorted.
fn pairs(left: &[usize], right: &[usize]) -> usize {
    left.iter()
        .map(|one| right.partition_point(|other| other < one))
        .sum()
}

/// How often each number was added (a Fenwick tree).
struct Counts(Vec<usize>);

impl Counts {
    fn new(numbers: usize) -> Self {
        Self(vec![0; numbers + 1])
    }

    fn add(&mut self, number: usize) {
        let mut at = number + 1;
        while let Some(count) = self.0.get_mut(at) {
            *count += 1;
            at += at & at.wrapping_neg();
        }
    }

    /// How many were added that are not greater.
    fn up_to(&self, number: usize) -> usize {
        let (mut at, mut all) = (number + 1, 0);
        while at > 0 {
            all += self.0.get(at).copied().unwrap_or(0);
            at -= at & at.wrapping_neg();
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn crossings_are_those_that_comparing_each_pair_finds(
            links in proptest::collection::vec((0..9_usize, 0..9_usize), 0..40),
        ) {
            let mut rows = Rows {
                rows: vec![(0..9).collect(), (9..18).collect()],
                row_of: (0..18).map(|node| node / 9).collect(),
                nodes: vec![super::super::Node::Lane; 18],
                ..Rows::default()
            };
            rows.links = links.iter().map(|(a, b)| super::super::Link { upper: *a, lower: 9 + b }).collect();
            let mut pairs = 0;
            for (at, a) in links.iter().enumerate() {
                for b in &links[at + 1..] {
                    pairs += usize::from((a.0 < b.0 && a.1 > b.1) || (a.0 > b.0 && a.1 < b.1));
                }
            }
            prop_assert_eq!(Order::of(&rows).crossings(&rows), pairs);
            untangle(&mut rows);
            prop_assert!(rows.crossings() <= pairs);
        }
    }
}
