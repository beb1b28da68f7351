//! Wires from port to port, and the heights that result: of rows, and of the channels between them.

use std::collections::BTreeMap;

use super::channel::{self, ChannelRoute, Net};
use super::columns::width;
use super::ports::Ports;
use super::{Area, NodeIx, Places, Rows, Wire, tracks};

/// Free height at either end of a channel; an arrowhead and a band's edge fit into it.
const CHANNEL_END: f64 = 26.0;
/// Height of a level within a channel.
const LEVEL_H: f64 = 11.0;
/// Between two columns beside the rows.
const TRACK_GAP: f64 = 11.0;
/// Between the widest row and the first of these columns.
const TRACK_MARGIN: f64 = 18.0;

/// The nets of all channels, and where each wire's are among them.
struct Nets {
    /// By channel.
    channels: Vec<Vec<Net>>,
    /// Of each link: its net in the channel below its upper node.
    links: Vec<usize>,
    /// Of each trunk: its net in the channel at its box.
    trunks: Vec<usize>,
    /// Of each track: its net in the channel at its card, which it shares with others of its trunk.
    tracks: Vec<usize>,
    /// Of each trunk: the first and the last channel that it comes to.
    spans: Vec<(usize, usize)>,
}

impl Nets {
    fn of(rows: &Rows, ports: &Ports, far: f64) -> Self {
        let mut channels: Vec<Vec<Net>> = vec![Vec::new(); rows.rows.len()];
        let mut links = Vec::with_capacity(rows.links.len());
        for (link, (upper, lower)) in rows.links.iter().zip(&ports.links) {
            let net = Net {
                ups: vec![*upper],
                downs: vec![*lower],
                far: None,
            };
            links.push(put(&mut channels, rows.row(link.upper), net));
        }
        let mut spans = Vec::with_capacity(rows.trunks.len());
        let mut trunks = Vec::with_capacity(rows.trunks.len());
        for (trunk, x) in rows.trunks.iter().zip(&ports.trunks) {
            let channel = rows.channel(trunk.node, trunk.upper_edge);
            spans.push((channel, channel));
            trunks.push(put(&mut channels, channel, leaving(*x, !trunk.upper_edge, far)));
        }
        let mut known: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        let mut tracks = Vec::with_capacity(rows.tracks.len());
        for (track, x) in rows.tracks.iter().zip(&ports.tracks) {
            let above = rows.arrives_above(track);
            let channel = rows.channel(track.card, above);
            if let Some(span) = spans.get_mut(track.trunk) {
                *span = (span.0.min(channel), span.1.max(channel));
            }
            // The card lies below the channel where the wire arrives at its upper edge.
            let net = leaving(*x, !above, far);
            let ix = match known.get(&(track.trunk, channel)) {
                Some(ix) => *ix,
                None => {
                    let ix = put(&mut channels, channel, Net::default());
                    known.insert((track.trunk, channel), ix);
                    ix
                }
            };
            if let Some(shared) = channels.get_mut(channel).and_then(|nets| nets.get_mut(ix)) {
                shared.ups.extend(net.ups);
                shared.downs.extend(net.downs);
                shared.far = net.far;
            }
            tracks.push(ix);
        }
        Self {
            channels,
            links,
            trunks,
            tracks,
            spans,
        }
    }
}

/// Adds a net to a channel; its index there.
fn put(channels: &mut [Vec<Net>], channel: usize, net: Net) -> usize {
    let Some(nets) = channels.get_mut(channel) else {
        return 0;
    };
    nets.push(net);
    nets.len() - 1
}

/// A net that leaves a channel up or down by one column, and runs on beside the rows.
fn leaving(x: f64, up: bool, far: f64) -> Net {
    let (ups, downs) = if up {
        (vec![x], Vec::new())
    } else {
        (Vec::new(), vec![x])
    };
    Net {
        ups,
        downs,
        far: Some(far),
    }
}

/// Where rows and levels stand, from the top.
struct Heights {
    rows: Vec<(f64, f64)>,
    routes: Vec<Vec<ChannelRoute>>,
    h: f64,
}

impl Heights {
    fn of(rows: &Rows, sizes: &[(f64, f64)], nets: &Nets) -> Self {
        let mut heights = Self {
            rows: Vec::with_capacity(rows.rows.len()),
            routes: Vec::with_capacity(rows.rows.len()),
            h: 0.0,
        };
        for (row, members) in rows.rows.iter().enumerate() {
            let nets = nets.channels.get(row).map_or(&[][..], Vec::as_slice);
            let (routes, levels) = channel::routes(nets);
            heights.routes.push(routes);
            let boxes = members.iter().filter(|node| !rows.is_lane(**node));
            let h = boxes
                .filter_map(|node| sizes.get(*node))
                .map(|size| size.1)
                .fold(0.0, f64::max);
            heights.rows.push((heights.h, h));
            heights.h += h;
            if row + 1 < rows.rows.len() {
                heights.h += 2.0 * CHANNEL_END + levels.saturating_sub(1) as f64 * LEVEL_H;
            }
        }
        heights
    }

    fn row(&self, row: usize) -> (f64, f64) {
        self.rows.get(row).copied().unwrap_or((0.0, 0.0))
    }

    /// The height of a channel's level.
    fn level(&self, channel: usize, level: usize) -> f64 {
        let (y, h) = self.row(channel);
        y + h + CHANNEL_END + level as f64 * LEVEL_H
    }

    fn route(&self, channel: usize, net: usize) -> ChannelRoute {
        let routes = self.routes.get(channel);
        routes
            .and_then(|routes| routes.get(net))
            .copied()
            .unwrap_or_default()
    }
}

/// Gives each node its area and each half of a wire its corners.
pub(super) fn wires(rows: &Rows, sizes: &[(f64, f64)], centres: &[f64], ports: &Ports) -> Places {
    let right = |node: NodeIx| {
        centres
            .get(node)
            .map_or(0.0, |x| x + width(rows, sizes, node) / 2.0)
    };
    let w = (0..rows.nodes.len()).map(right).fold(0.0, f64::max).ceil();
    let nets = Nets::of(rows, ports, w + TRACK_MARGIN);
    let heights = Heights::of(rows, sizes, &nets);
    let (columns, count) = tracks::columns(&nets.spans);
    let column =
        |trunk: usize| w + TRACK_MARGIN + TRACK_GAP * columns.get(trunk).copied().unwrap_or(0) as f64;

    let nodes: Vec<Area> = (0..rows.nodes.len())
        .map(|node| {
            let (top, row_h) = heights.row(rows.row(node));
            let w = width(rows, sizes, node);
            let h = if rows.is_lane(node) {
                row_h
            } else {
                sizes.get(node).map_or(0.0, |size| size.1)
            };
            let centre = centres.get(node).copied().unwrap_or(0.0);
            Area::new((centre - w / 2.0).round(), top, w, h)
        })
        .collect();
    let lower_edge = |node: NodeIx| nodes.get(node).map_or(0.0, |area| area.y + area.h);
    let upper_edge = |node: NodeIx| nodes.get(node).map_or(0.0, |area| area.y);

    let mut wires = Vec::with_capacity(rows.chains.len() + rows.tracks.len());
    for chain in &rows.chains {
        let mut points = Vec::new();
        for ix in chain.links.clone() {
            let (Some(link), Some((from, to))) = (rows.links.get(ix), ports.links.get(ix)) else {
                continue;
            };
            let channel = rows.row(link.upper);
            let route = heights.route(channel, nets.links.get(ix).copied().unwrap_or(0));
            let mut y = heights.level(channel, route.level);
            points.extend([(*from, lower_edge(link.upper)), (*from, y)]);
            if let Some((column, level)) = route.detour {
                points.push((column, y));
                y = heights.level(channel, level);
                points.push((column, y));
            }
            points.extend([(*to, y), (*to, upper_edge(link.lower))]);
        }
        if chain.box_above {
            points.reverse();
        }
        wires.push(Wire {
            gate: chain.gate,
            half: chain.half,
            points: simplify(&points),
        });
    }
    for (ix, track) in rows.tracks.iter().enumerate() {
        let (Some(trunk), Some(from), Some(to)) = (
            rows.trunks.get(track.trunk),
            ports.tracks.get(ix),
            ports.trunks.get(track.trunk),
        ) else {
            continue;
        };
        let above = rows.arrives_above(track);
        let (near, far) = (
            rows.channel(track.card, above),
            rows.channel(trunk.node, trunk.upper_edge),
        );
        let level = |channel: usize, net: Option<&usize>| {
            let route = heights.route(channel, net.copied().unwrap_or(0));
            heights.level(channel, route.level)
        };
        let (begin, end) = (
            level(near, nets.tracks.get(ix)),
            level(far, nets.trunks.get(track.trunk)),
        );
        let edge = |node: NodeIx, upper: bool| if upper { upper_edge(node) } else { lower_edge(node) };
        let beside = column(track.trunk);
        let points = [
            (*from, edge(track.card, above)),
            (*from, begin),
            (beside, begin),
            (beside, end),
            (*to, end),
            (*to, edge(trunk.node, trunk.upper_edge)),
        ];
        wires.push(Wire {
            gate: track.gate,
            half: track.half,
            points: simplify(&points),
        });
    }
    wires.sort_by_key(|wire| (wire.gate, wire.half));
    let beside = if count == 0 {
        0.0
    } else {
        TRACK_MARGIN + TRACK_GAP * count as f64
    };
    Places {
        nodes,
        wires,
        rows: heights.rows,
        w: w + beside,
        h: heights.h,
    }
}

/// The same way without points that lie between their neighbours on a straight line.
fn simplify(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
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
pub(in super::super) fn path(points: &[(f64, f64)], radius_max: f64) -> String {
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
