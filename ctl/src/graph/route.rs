//! Wires within a channel: which level each takes, so that none runs upon another and few cross.

use super::order::{Node, Rows};

/// Least distance of two wires that run side by side.
const APART: f64 = 7.0;
/// What it costs to run upon another wire, in crossings.
const UPON_COST: usize = 1000;
/// Most wires of a channel whose order is improved one exchange at a time.
const IMPROVE_MAX: usize = 120;

/// For wires from x above to x below: the level of each, from the top, and how many levels there are.
///
/// A wire that runs straight down needs no level and is given 0.
pub(super) fn levels(wires: &[(f64, f64)]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..wires.len()).filter(|ix| bends(wires, *ix)).collect();
    // Those that go right: the rightmost first. Those that go left: the leftmost first. Then nothing crosses
    // within either kind, and exchanges settle the rest.
    order.sort_by(|a, b| {
        let key = |ix: usize| {
            let (top, bottom) = wires.get(ix).copied().unwrap_or((0.0, 0.0));
            if bottom > top {
                -top.max(bottom)
            } else {
                top.min(bottom)
            }
        };
        key(*a).total_cmp(&key(*b)).then(a.cmp(b))
    });
    if order.len() <= IMPROVE_MAX {
        improve(wires, &mut order);
    }
    let mut level_of = vec![0; wires.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut count = 0;
    for ix in order {
        let level = placed
            .iter()
            .filter(|other| meet(wires, ix, **other))
            .map(|other| level_of.get(*other).copied().unwrap_or(0) + 1)
            .max()
            .unwrap_or(0);
        if let Some(slot) = level_of.get_mut(ix) {
            *slot = level;
        }
        count = count.max(level + 1);
        placed.push(ix);
    }
    (level_of, count)
}

fn bends(wires: &[(f64, f64)], ix: usize) -> bool {
    wires
        .get(ix)
        .is_some_and(|(top, bottom)| (top - bottom).abs() > 0.5)
}

/// Whether the two may not share a level.
fn meet(wires: &[(f64, f64)], a: usize, b: usize) -> bool {
    let span = |ix: usize| wires.get(ix).map_or((0.0, 0.0), |(t, b)| (t.min(*b), t.max(*b)));
    let ((a_low, a_high), (b_low, b_high)) = (span(a), span(b));
    a_low <= b_high + APART && b_low <= a_high + APART
}

/// What it costs that `upper` lies on a level above `lower`.
fn cost(upper: (f64, f64), lower: (f64, f64)) -> usize {
    let within = |x: f64, wire: (f64, f64)| wire.0.min(wire.1) < x && x < wire.0.max(wire.1);
    // The lower one's way down from the top passes the upper one's level; the upper one's way to the bottom
    // passes the lower one's level.
    let mut cost = usize::from(within(lower.0, upper)) + usize::from(within(upper.1, lower));
    // Both ways at nearly the same x would lie upon one another.
    if (lower.0 - upper.1).abs() < APART {
        cost += UPON_COST;
    }
    cost
}

/// Exchanges neighbours while that makes the order cheaper.
fn improve(wires: &[(f64, f64)], order: &mut [usize]) {
    let wire = |ix: usize| wires.get(ix).copied().unwrap_or((0.0, 0.0));
    for _ in 0..order.len() {
        let mut changed = false;
        for at in 1..order.len() {
            if let [upper, lower] = order.get(at - 1..=at).unwrap_or_default()
                && cost(wire(*lower), wire(*upper)) < cost(wire(*upper), wire(*lower))
            {
                order.swap(at - 1, at);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
}

/// Moves ports at rooms and cards a little where a wire of one channel ends just above the beginning of another.
///
/// After this no two wires of a channel have ends within [`APART`] of each other, unless it is the same wire.
pub(super) fn part(ports: &mut [(f64, f64)], rows: &Rows, sizes: &[(f64, f64)], centres: &[f64]) {
    let mut row_of = vec![0; rows.nodes.len()];
    for (row, members) in rows.rows.iter().enumerate() {
        for node in members {
            if let Some(slot) = row_of.get_mut(*node) {
                *slot = row;
            }
        }
    }
    let channel_of: Vec<usize> = rows
        .links
        .iter()
        .map(|link| row_of.get(link.upper).copied().unwrap_or(0))
        .collect();
    for ix in 0..ports.len() {
        let (Some(link), Some(channel)) = (rows.links.get(ix), channel_of.get(ix)) else {
            continue;
        };
        for upper in [true, false] {
            let node = if upper { link.upper } else { link.lower };
            if matches!(rows.nodes.get(node), Some(Node::Lane(_))) {
                continue;
            }
            let (Some(centre), Some((w, _)), Some(port)) =
                (centres.get(node), sizes.get(node), ports.get(ix).copied())
            else {
                continue;
            };
            let x = if upper { port.0 } else { port.1 };
            if (port.0 - port.1).abs() <= 0.5 {
                // A straight wire is moved only as a whole, and it is the others that give way.
                continue;
            }
            let taken: Vec<f64> = ports
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != ix && channel_of.get(*other) == Some(channel))
                .flat_map(|(_, (a, b))| [*a, *b])
                .collect();
            let free = |x: f64| taken.iter().all(|other| (other - x).abs() >= APART);
            let (low, high) = (centre - w / 2.0 + 10.0, centre + w / 2.0 - 10.0);
            let moved = (0..40)
                .flat_map(|n| [f64::from(n), -f64::from(n)])
                .map(|by| x + by * 2.0)
                .find(|x| free(*x) && *x >= low && *x <= high);
            if let (Some(moved), Some(slot)) = (moved, ports.get_mut(ix)) {
                let end = if upper { &mut slot.0 } else { &mut slot.1 };
                *end = moved;
            }
        }
    }
}

/// The same way without points that lie between their neighbours on a straight line.
pub(super) fn simplify(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for point in points {
        if kept.last() == Some(point) {
            continue;
        }
        if let [.., a, b] = kept.as_slice()
            && ((a.0 == b.0 && b.0 == point.0) || (a.1 == b.1 && b.1 == point.1))
        {
            kept.pop();
        }
        kept.push(*point);
    }
    kept
}

/// The way as SVG path data, its corners rounded.
pub(super) fn path(points: &[(f64, f64)], radius_max: f64) -> String {
    let mut d = String::new();
    for (at, point) in points.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| points.get(at));
        let after = points.get(at + 1);
        match (before, after) {
            (None, _) => d.push_str(&format!("M{} {}", point.0, point.1)),
            (Some(_), None) => d.push_str(&format!("L{} {}", point.0, point.1)),
            (Some(before), Some(after)) => {
                let reach = |other: &(f64, f64)| (other.0 - point.0).abs() + (other.1 - point.1).abs();
                let radius = radius_max.min(reach(before) / 2.0).min(reach(after) / 2.0);
                let toward = |other: &(f64, f64)| {
                    let length = reach(other).max(1.0);
                    (
                        point.0 + (other.0 - point.0) / length * radius,
                        point.1 + (other.1 - point.1) / length * radius,
                    )
                };
                let (start, end) = (toward(before), toward(after));
                d.push_str(&format!(
                    "L{} {}Q{} {} {} {}",
                    start.0, start.1, point.0, point.1, end.0, end.1
                ));
            }
        }
    }
    d
}
