//! Columns by isotonic regression: every node of a row gets the place nearest to its neighbours' that order and spacing permit (pool
//! adjacent violators: exact, and linear in the row).

use super::{NodeIx, Rows};

/// Between boxes of a row.
const GAP: f64 = 34.0;
/// A lane's width.
const LANE_W: f64 = 2.0;
/// Between a lane and what stands beside it.
const LANE_GAP: f64 = 16.0;
/// Sweeps over all rows.
const SWEEPS: usize = 16;

/// The width that a node takes in its row.
pub(super) fn width(rows: &Rows, sizes: &[(f64, f64)], node: NodeIx) -> f64 {
    if rows.is_lane(node) {
        LANE_W
    } else {
        sizes.get(node).map_or(0.0, |size| size.0)
    }
}

/// The spacing of two neighbours, centre to centre.
fn spacing(rows: &Rows, sizes: &[(f64, f64)], left: NodeIx, right: NodeIx) -> f64 {
    let gap = if rows.is_lane(left) || rows.is_lane(right) {
        LANE_GAP
    } else {
        GAP
    };
    (width(rows, sizes, left) + width(rows, sizes, right)) / 2.0 + gap
}

/// The centre of every node; the leftmost edge of all is 0.
pub(super) fn columns(rows: &Rows, sizes: &[(f64, f64)]) -> Vec<f64> {
    let mut centres = vec![0.0; rows.nodes.len()];
    // To begin with every row is packed about the middle.
    for row in &rows.rows {
        let mut x = 0.0;
        let mut places = Vec::new();
        for (at, node) in row.iter().enumerate() {
            if let Some(before) = at.checked_sub(1).and_then(|at| row.get(at)) {
                x += spacing(rows, sizes, *before, *node);
            }
            places.push(x);
        }
        for (node, place) in row.iter().zip(&places) {
            if let Some(slot) = centres.get_mut(*node) {
                *slot = place - x / 2.0;
            }
        }
    }
    let (above, below) = rows.linked();
    for sweep in 0..SWEEPS {
        for at in 0..rows.rows.len() {
            let row = if sweep % 2 == 0 {
                at
            } else {
                rows.rows.len() - 1 - at
            };
            let Some(row) = rows.rows.get(row) else { continue };
            let mut wanted = Vec::new();
            let mut steps = Vec::new();
            for (at, node) in row.iter().enumerate() {
                let near = [&above, &below]
                    .into_iter()
                    .filter_map(|side| side.get(*node))
                    .flatten();
                let (sum, count) = near
                    .filter_map(|other| centres.get(*other))
                    .fold((0.0, 0), |(sum, count), x| (sum + x, count + 1));
                let mean = if count == 0 {
                    centres.get(*node).copied().unwrap_or(0.0)
                } else {
                    sum / f64::from(count)
                };
                // Lanes count more, so that long wires stay straight.
                wanted.push((mean, if rows.is_lane(*node) { 4.0 } else { 1.0 }));
                if let Some(before) = at.checked_sub(1).and_then(|at| row.get(at)) {
                    steps.push(spacing(rows, sizes, *before, *node));
                }
            }
            let places = spread(&wanted, &steps, f64::NEG_INFINITY, f64::INFINITY);
            for (node, x) in row.iter().zip(places) {
                if let Some(slot) = centres.get_mut(*node) {
                    *slot = x;
                }
            }
        }
    }
    let lefts = rows.rows.iter().flatten();
    let lefts = lefts.filter_map(|node| Some(centres.get(*node)? - width(rows, sizes, *node) / 2.0));
    let left = lefts.fold(f64::INFINITY, f64::min);
    let left = if left.is_finite() { left } else { 0.0 };
    centres.iter().map(|x| (x - left).round()).collect()
}

/// The places nearest to those wanted (place, weight) that keep `steps` between neighbours and lie within bounds.
///
/// Least squares under order: after subtracting the steps it is an isotonic regression, which pooling adjacent
/// violators solves exactly.
pub(super) fn spread(wanted: &[(f64, f64)], steps: &[f64], low: f64, high: f64) -> Vec<f64> {
    let mut offsets = vec![0.0];
    for step in steps {
        offsets.push(offsets.last().copied().unwrap_or(0.0) + step);
    }
    // Pools of (sum of weighted targets, weight, members).
    let mut pools: Vec<(f64, f64, usize)> = Vec::new();
    for ((target, weight), offset) in wanted.iter().zip(&offsets) {
        pools.push(((target - offset) * weight, *weight, 1));
        while let [.., before, last] = pools.as_slice()
            && before.0 / before.1 > last.0 / last.1
        {
            let merged = (before.0 + last.0, before.1 + last.1, before.2 + last.2);
            pools.truncate(pools.len() - 2);
            pools.push(merged);
        }
    }
    let length = offsets
        .get(wanted.len().saturating_sub(1))
        .copied()
        .unwrap_or(0.0);
    let means = pools
        .iter()
        .flat_map(|(sum, weight, n)| std::iter::repeat_n(sum / weight, *n));
    // `max` last: where there is not enough room, the lower bound holds.
    means
        .zip(&offsets)
        .map(|(mean, offset)| mean.min(high - length).max(low) + offset)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn spreading_keeps_order_and_spacing_and_leaves_alone_what_already_fits(
            wanted in proptest::collection::vec((-500.0_f64..500.0, 0.5_f64..4.0), 1..12),
            step in 1.0_f64..60.0,
        ) {
            let steps = vec![step; wanted.len() - 1];
            let placed = spread(&wanted, &steps, f64::NEG_INFINITY, f64::INFINITY);
            prop_assert_eq!(placed.len(), wanted.len());
            for pair in placed.windows(2) {
                prop_assert!(pair[1] - pair[0] >= step - 1e-6);
            }
            let again: Vec<(f64, f64)> = placed.iter().map(|x| (*x, 1.0)).collect();
            for (a, b) in spread(&again, &steps, f64::NEG_INFINITY, f64::INFINITY).iter().zip(&placed) {
                prop_assert!((a - b).abs() < 1e-6);
            }
        }

        #[test]
        fn spreading_stays_within_bounds_that_have_room(
            wanted in proptest::collection::vec((-500.0_f64..500.0, 1.0_f64..2.0), 1..8),
        ) {
            let steps = vec![10.0; wanted.len() - 1];
            for x in spread(&wanted, &steps, 0.0, 100.0) {
                prop_assert!((-1e-6..=100.0 + 1e-6).contains(&x));
            }
        }
    }
}
