//! Where everything stands: columns by isotonic regression, wires through channels between the rows.
//!
//! Every node of a row gets the place nearest to its neighbours' that order and spacing permit (pool adjacent
//! violators: exact, and linear in the row). Ports on a room's edge are placed the same way, so that most
//! wires run straight. What has to go sideways does so in the channel between two rows, on a level of its own.

use std::collections::BTreeMap;

use penstock_policy::ids::ConduitId;

use super::order::{Half, Node, NodeIx, Rows};
use super::route;
use super::shape::Area;

/// Between boxes of a row.
const GAP: f64 = 34.0;
/// A lane's width.
const LANE_W: f64 = 2.0;
/// Between a lane and what stands beside it.
const LANE_GAP: f64 = 16.0;
/// Between ports on one edge.
pub(super) const PORT_GAP: f64 = 18.0;
/// From a box's corner to its first port.
pub(super) const PORT_MARGIN: f64 = 20.0;
/// Sweeps over all rows.
const SWEEPS: usize = 16;
/// Free height at either end of a channel; an arrowhead and a band's edge fit into it.
const CHANNEL_END: f64 = 26.0;
/// Height of a level within a channel.
const LEVEL_H: f64 = 11.0;

/// A conduit's wire, from its beginning to its end.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wire {
    /// The conduit.
    pub(super) conduit: ConduitId,
    /// Which half.
    pub(super) half: Half,
    /// Corners, each segment horizontal or vertical.
    pub(super) points: Vec<(f64, f64)>,
}

/// Places of nodes and wires; the origin is the upper left corner of the first row.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// Area of each node; a lane's spans its row.
    pub(super) nodes: Vec<Area>,
    /// Wires.
    pub(super) wires: Vec<Wire>,
    /// Upper edge and height of each row.
    pub(super) rows: Vec<(f64, f64)>,
    /// Total width.
    pub(super) w: f64,
    /// Total height.
    pub(super) h: f64,
}

/// How many wires leave a node by each edge: upper, lower.
pub(super) fn port_counts(rows: &Rows) -> Vec<(usize, usize)> {
    let mut counts = vec![(0, 0); rows.nodes.len()];
    for link in &rows.links {
        if let Some(count) = counts.get_mut(link.upper) {
            count.1 += 1;
        }
        if let Some(count) = counts.get_mut(link.lower) {
            count.0 += 1;
        }
    }
    counts
}

/// Places nodes of the given sizes.
pub(super) fn place(rows: &Rows, sizes: &[(f64, f64)]) -> Places {
    let centres = columns(rows, sizes);
    let at = |values: &[f64], ix: NodeIx| values.get(ix).copied().unwrap_or(0.0);
    let size = |ix: NodeIx| sizes.get(ix).copied().unwrap_or((0.0, 0.0));

    let ports = ports(rows, sizes, &centres);
    // Channels: one below each row but the last.
    let mut wires_of_channel: Vec<Vec<usize>> = vec![Vec::new(); rows.rows.len()];
    let mut row_of = vec![0; rows.nodes.len()];
    for (row, members) in rows.rows.iter().enumerate() {
        for node in members {
            if let Some(slot) = row_of.get_mut(*node) {
                *slot = row;
            }
        }
    }
    for (ix, link) in rows.links.iter().enumerate() {
        let row = row_of.get(link.upper).copied().unwrap_or(0);
        if let Some(channel) = wires_of_channel.get_mut(row) {
            channel.push(ix);
        }
    }
    let mut way_of = vec![route::ChannelRoute::default(); rows.links.len()];
    let mut channel_h = Vec::new();
    for channel in &wires_of_channel {
        let ends: Vec<(f64, f64)> = channel.iter().filter_map(|ix| ports.get(*ix).copied()).collect();
        let (ways, count) = route::ways(&ends);
        for (ix, way) in channel.iter().zip(ways) {
            if let Some(slot) = way_of.get_mut(*ix) {
                *slot = way;
            }
        }
        channel_h.push(2.0 * CHANNEL_END + count.saturating_sub(1) as f64 * LEVEL_H);
    }

    let mut extents = Vec::new();
    let mut y = 0.0;
    for (row, members) in rows.rows.iter().enumerate() {
        let h = members.iter().map(|ix| size(*ix).1).fold(0.0, f64::max);
        extents.push((y, h));
        y += h;
        if row + 1 < rows.rows.len() {
            y += channel_h.get(row).copied().unwrap_or(0.0);
        }
    }
    let extent = |row: usize| extents.get(row).copied().unwrap_or((0.0, 0.0));

    let mut nodes = Vec::with_capacity(rows.nodes.len());
    for (ix, node) in rows.nodes.iter().enumerate() {
        let (w, h) = size(ix);
        let (top, row_h) = extent(row_of.get(ix).copied().unwrap_or(0));
        let h = if matches!(node, Node::Lane(_)) { row_h } else { h };
        nodes.push(Area::new((at(&centres, ix) - w / 2.0).round(), top, w, h));
    }

    let mut parts: BTreeMap<(ConduitId, Half), Vec<(f64, f64)>> = BTreeMap::new();
    let mut order: Vec<usize> = (0..rows.links.len()).collect();
    order.sort_by_key(|ix| {
        rows.links
            .get(*ix)
            .map(|link| row_of.get(link.upper).copied().unwrap_or(0))
    });
    let mut downwards: BTreeMap<(ConduitId, Half), bool> = BTreeMap::new();
    for ix in order {
        let (Some(link), Some((from, to))) = (rows.links.get(ix), ports.get(ix)) else {
            continue;
        };
        let (Some(upper), Some(lower)) = (nodes.get(link.upper), nodes.get(link.lower)) else {
            continue;
        };
        let (row_top, row_h) = extent(row_of.get(link.upper).copied().unwrap_or(0));
        let way = way_of.get(ix).copied().unwrap_or_default();
        let height = |level: usize| row_top + row_h + CHANNEL_END + level as f64 * LEVEL_H;
        let points = parts.entry((link.conduit.clone(), link.half)).or_default();
        points.extend([(*from, upper.y + upper.h), (*from, height(way.level))]);
        let mut y = height(way.level);
        if let Some((column, level)) = way.detour {
            y = height(level);
            points.extend([(column, height(way.level)), (column, y)]);
        }
        points.extend([(*to, y), (*to, lower.y)]);
        // The half runs downwards if its zone end (Out) or its card end (In) is the upper one.
        let key = (link.conduit.clone(), link.half);
        let upper_is_start = match (rows.nodes.get(link.upper), link.half) {
            (Some(Node::Zone(_)), half) => Some(half == Half::Out),
            (Some(Node::Card(_)), half) => Some(half == Half::In),
            _ => None,
        };
        if let Some(down) = upper_is_start {
            downwards.insert(key, down);
        }
    }
    let wires = parts
        .into_iter()
        .map(|((conduit, half), mut points)| {
            if downwards.get(&(conduit.clone(), half)) == Some(&false) {
                points.reverse();
            }
            Wire {
                conduit,
                half,
                points: route::simplify(&points),
            }
        })
        .collect();
    let w = nodes.iter().map(|area| area.x + area.w).fold(0.0, f64::max);
    Places {
        nodes,
        wires,
        rows: extents,
        w,
        h: y,
    }
}

/// The spacing of two neighbours, centre to centre.
fn spacing(rows: &Rows, sizes: &[(f64, f64)], left: NodeIx, right: NodeIx) -> f64 {
    let lane = |ix: NodeIx| matches!(rows.nodes.get(ix), Some(Node::Lane(_)));
    let w = |ix: NodeIx| {
        if lane(ix) {
            LANE_W
        } else {
            sizes.get(ix).map_or(0.0, |s| s.0)
        }
    };
    let gap = if lane(left) || lane(right) { LANE_GAP } else { GAP };
    (w(left) + w(right)) / 2.0 + gap
}

/// The centre of every node; the leftmost edge of all is 0.
fn columns(rows: &Rows, sizes: &[(f64, f64)]) -> Vec<f64> {
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
    let mut neighbours: Vec<Vec<NodeIx>> = vec![Vec::new(); rows.nodes.len()];
    for link in &rows.links {
        for (a, b) in [(link.upper, link.lower), (link.lower, link.upper)] {
            if let Some(list) = neighbours.get_mut(a) {
                list.push(b);
            }
        }
    }
    for sweep in 0..SWEEPS {
        let order: Vec<usize> = if sweep % 2 == 0 {
            (0..rows.rows.len()).collect()
        } else {
            (0..rows.rows.len()).rev().collect()
        };
        for row in order.iter().filter_map(|row| rows.rows.get(*row)) {
            let mut wanted = Vec::new();
            let mut steps = Vec::new();
            for (at, node) in row.iter().enumerate() {
                let near = neighbours.get(*node).map_or(&[] as &[NodeIx], Vec::as_slice);
                let own = centres.get(*node).copied().unwrap_or(0.0);
                let mean = if near.is_empty() {
                    own
                } else {
                    near.iter().filter_map(|n| centres.get(*n)).sum::<f64>() / near.len() as f64
                };
                // Lanes count more, so that long wires stay straight.
                let weight = if matches!(rows.nodes.get(*node), Some(Node::Lane(_))) {
                    4.0
                } else {
                    1.0
                };
                wanted.push((mean, weight));
                if let Some(before) = at.checked_sub(1).and_then(|at| row.get(at)) {
                    steps.push(spacing(rows, sizes, *before, *node));
                }
            }
            for (node, x) in row
                .iter()
                .zip(spread(&wanted, &steps, f64::NEG_INFINITY, f64::INFINITY))
            {
                if let Some(slot) = centres.get_mut(*node) {
                    *slot = x;
                }
            }
        }
    }
    let left = rows
        .rows
        .iter()
        .flatten()
        .filter_map(|ix| Some(centres.get(*ix)? - sizes.get(*ix)?.0 / 2.0))
        .fold(f64::INFINITY, f64::min);
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

/// For every link its port's x at the upper and at the lower node.
fn ports(rows: &Rows, sizes: &[(f64, f64)], centres: &[f64]) -> Vec<(f64, f64)> {
    let mut ports: Vec<(f64, f64)> = rows
        .links
        .iter()
        .map(|link| {
            let x = |ix: NodeIx| centres.get(ix).copied().unwrap_or(0.0);
            (x(link.upper), x(link.lower))
        })
        .collect();
    let is_zone = |ix: NodeIx| matches!(rows.nodes.get(ix), Some(Node::Zone(_)));
    // A card's only wire by an edge comes straight out of a lane where it can.
    let from_lane = |ix: usize, upper_edge: bool| {
        rows.links.get(ix).is_some_and(|link| {
            let other = if upper_edge { link.upper } else { link.lower };
            matches!(rows.nodes.get(other), Some(Node::Lane(_)))
        })
    };
    // Cards first, then rooms: a room has space to move its ports to where the cards are.
    for zones in [false, true] {
        for (node, kind) in rows.nodes.iter().enumerate() {
            if matches!(kind, Node::Lane(_)) || is_zone(node) != zones {
                continue;
            }
            for upper_edge in [true, false] {
                let mut links: Vec<(f64, usize)> = rows
                    .links
                    .iter()
                    .enumerate()
                    .filter(|(_, link)| {
                        if upper_edge {
                            link.lower == node
                        } else {
                            link.upper == node
                        }
                    })
                    .filter_map(|(ix, _)| {
                        let (upper, lower) = ports.get(ix)?;
                        Some((if upper_edge { *upper } else { *lower }, ix))
                    })
                    .collect();
                links.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                let (Some(centre), Some((w, _))) = (centres.get(node), sizes.get(node)) else {
                    continue;
                };
                let (low, high) = (centre - w / 2.0 + PORT_MARGIN, centre + w / 2.0 - PORT_MARGIN);
                let count = links.len();
                let wanted: Vec<(f64, f64)> = links
                    .iter()
                    .enumerate()
                    .map(|(at, (other, ix))| {
                        let target = if zones || (count == 1 && from_lane(*ix, upper_edge)) {
                            *other
                        } else {
                            centre + (at as f64 - (count as f64 - 1.0) / 2.0) * 2.0 * PORT_GAP
                        };
                        (target.clamp(low, high.max(low)), 1.0)
                    })
                    .collect();
                let steps = vec![PORT_GAP; count.saturating_sub(1)];
                for ((_, ix), x) in links.iter().zip(spread(&wanted, &steps, low, high)) {
                    if let Some(port) = ports.get_mut(*ix) {
                        let end = if upper_edge { &mut port.1 } else { &mut port.0 };
                        *end = x.round();
                    }
                }
            }
        }
    }
    route::part(&mut ports, rows, sizes, centres);
    ports
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
