//! Wires within a channel: which level each takes, so that none runs upon another and few cross.
//!
//! Where one wire comes down from the very column that another goes down by, the first has to leave it above the
//! other: a hard order. Where such orders run in a circle, one wire of it takes a detour by a column of its own.

use super::order::{Node, Rows};

/// Least distance of two wires that run side by side.
const APART: f64 = 7.0;
/// What it costs to run upon another wire, in crossings.
const UPON_COST: usize = 1000;
/// Most wires of a channel whose order is improved one exchange at a time.
const IMPROVE_MAX: usize = 120;

/// How a wire passes its channel.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ChannelRoute {
    /// The level on which it goes sideways, from the top.
    pub(super) level: usize,
    /// On that level it only goes to this column, and from there on a second level to its end.
    pub(super) detour: Option<(f64, usize)>,
}

/// A wire's part that goes sideways on one level.
#[derive(Debug, Clone, Copy)]
struct Run {
    wire: usize,
    from: f64,
    to: f64,
    /// The second part of a detour.
    second: bool,
}

/// For wires from x above to x below: the way of each, and how many levels there are.
///
/// A wire that runs straight down needs no level and is given 0. Ends above must be [`APART`] from one another, and
/// ends below too.
pub(super) fn ways(wires: &[(f64, f64)]) -> (Vec<ChannelRoute>, usize) {
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
    let mut ways = vec![ChannelRoute::default(); wires.len()];
    let mut placed: Vec<(Run, usize)> = Vec::new();
    let mut count = 0;
    for run in in_sequence(wires, &order) {
        let level = placed
            .iter()
            .filter(|(other, _)| meet(&run, other))
            .map(|(_, level)| level + 1)
            .max()
            .unwrap_or(0);
        if let Some(way) = ways.get_mut(run.wire) {
            if run.second {
                way.detour = Some((run.from, level));
            } else {
                way.level = level;
            }
        }
        count = count.max(level + 1);
        placed.push((run, level));
    }
    (ways, count)
}

/// The runs from the top, as near to `order` as it goes, each after all that have to be above it.
fn in_sequence(wires: &[(f64, f64)], order: &[usize]) -> Vec<Run> {
    let mut waiting: Vec<Run> = order
        .iter()
        .filter_map(|ix| {
            let (from, to) = *wires.get(*ix)?;
            Some(Run {
                wire: *ix,
                from,
                to,
                second: false,
            })
        })
        .collect();
    let mut columns: Vec<f64> = wires.iter().flat_map(|(top, bottom)| [*top, *bottom]).collect();
    let mut sequence = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        // Whichever stands first and waits for nothing; else one of a circle, which a detour opens.
        let free = (0..waiting.len()).find(|at| awaited(&waiting, *at).is_none());
        if let Some(at) = free {
            sequence.push(waiting.remove(at));
            continue;
        }
        let mut at = 0;
        // As many steps as there are runs lead into the circle from wherever one begins.
        for _ in 0..waiting.len() {
            at = awaited(&waiting, at).unwrap_or(at);
        }
        let Some(run) = waiting.get_mut(at) else { break };
        let column = free_column(&mut columns, run);
        sequence.push(Run { to: column, ..*run });
        (run.from, run.second) = (column, true);
    }
    sequence
}

/// A waiting run that has to be above the one at `at`: it comes down by the column that this one goes down by.
fn awaited(waiting: &[Run], at: usize) -> Option<usize> {
    let run = waiting.get(at)?;
    waiting
        .iter()
        .enumerate()
        .position(|(other, above)| other != at && (above.from - run.to).abs() < APART)
}

/// A column that no wire of the channel has an end in: in the middle of the nearest gap that is wide enough, or of
/// the widest.
fn free_column(columns: &mut Vec<f64>, run: &Run) -> f64 {
    columns.sort_by(f64::total_cmp);
    let away = |column: f64| (column - run.from).abs() + (column - run.to).abs();
    let gaps = columns.iter().zip(columns.iter().skip(1)).map(|(left, right)| {
        let (wide, column) = (right - left, (left + right) / 2.0);
        (wide.min(2.0 * APART), column)
    });
    let column = gaps
        .max_by(|a, b| a.0.total_cmp(&b.0).then(away(b.1).total_cmp(&away(a.1))))
        .map_or(run.from, |(_, column)| column);
    columns.push(column);
    column
}

fn bends(wires: &[(f64, f64)], ix: usize) -> bool {
    wires
        .get(ix)
        .is_some_and(|(top, bottom)| (top - bottom).abs() > 0.5)
}

/// Whether the two may not share a level.
fn meet(a: &Run, b: &Run) -> bool {
    let span = |run: &Run| (run.from.min(run.to), run.from.max(run.to));
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
/// Lanes stay where they are, and where a box is full so do its ports: [`ways`] sees to what remains.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    /// Each wire's vertical parts as (column, first level, last level); -1 and 1000 are the channel's edges.
    fn verticals(wires: &[(f64, f64)]) -> Vec<Vec<(f64, i32, i32)>> {
        let (ways, count) = ways(wires);
        let level = |level: usize| i32::try_from(level).unwrap_or(i32::MAX);
        wires
            .iter()
            .zip(&ways)
            .map(|((top, bottom), way)| {
                assert!(way.level < count.max(1), "{way:?} of {count}");
                let Some((column, second)) = way.detour else {
                    return vec![(*top, -1, level(way.level)), (*bottom, level(way.level), 1000)];
                };
                assert!(way.level < second && second < count, "{way:?} of {count}");
                vec![
                    (*top, -1, level(way.level)),
                    (column, level(way.level), level(second)),
                    (*bottom, level(second), 1000),
                ]
            })
            .collect()
    }

    fn assert_apart(wires: &[(f64, f64)]) {
        let parts = verticals(wires);
        for (at, one) in parts.iter().enumerate() {
            for other in &parts[at + 1..] {
                for a in one {
                    for b in other {
                        let upon = (a.0 - b.0).abs() < 1.0 && a.1 <= b.2 && b.1 <= a.2;
                        assert!(!upon, "{a:?} lies upon {b:?} in {wires:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn wires_that_change_places_do_not_lie_upon_one_another() {
        assert_apart(&[(0.0, 100.0), (100.0, 0.0)]);
        assert_apart(&[(0.0, 100.0), (100.0, 200.0), (200.0, 0.0), (300.0, 18.0)]);
        assert!(
            ways(&[(0.0, 100.0), (100.0, 0.0)])
                .0
                .iter()
                .any(|way| way.detour.is_some())
        );
    }

    #[test]
    fn a_wire_takes_a_detour_only_where_there_is_no_other_way() {
        let (ways, _) = ways(&[(0.0, 100.0), (100.0, 200.0), (200.0, 300.0)]);
        assert!(ways.iter().all(|way| way.detour.is_none()), "{ways:?}");
    }

    proptest! {
        #[test]
        fn no_wires_of_a_channel_lie_upon_one_another(
            (tops, bottoms) in (1..20_usize).prop_flat_map(|n| {
                let columns = || proptest::sample::subsequence((0..24_u32).collect::<Vec<_>>(), n).prop_shuffle();
                (columns(), columns())
            })
        ) {
            let x = |column: &u32| f64::from(*column) * 18.0;
            let wires: Vec<(f64, f64)> = tops.iter().zip(&bottoms).map(|(t, b)| (x(t), x(b))).collect();
            assert_apart(&wires);
        }
    }
}
