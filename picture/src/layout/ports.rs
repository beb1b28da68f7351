//! Where wires meet their nodes: ports on the edges of boxes and cards.
//!
//! Ports are spread as columns are, so that most wires run straight. Where a wire of a channel ends just above the beginning of
//! another, its port moves a little, while there is room.

use std::collections::BTreeMap;

use super::channel::APART;
use super::columns::spread;
use super::{NodeIx, Rows};

/// Between ports on one edge.
pub(in super::super) const PORT_GAP: f64 = 18.0;
/// From a box's corner to its first port.
pub(in super::super) const PORT_MARGIN: f64 = 20.0;
/// Nearest that a port may come to a corner when it gives way.
const CORNER: f64 = 10.0;
/// Steps of two pixels that a port may move to either side.
const STEPS: i64 = 40;

/// One end of a wire at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pin {
    /// A link's upper end, at the lower edge of its node.
    Upper(usize),
    /// Its lower end.
    Lower(usize),
    /// A trunk's, at its box.
    Trunk(usize),
    /// A track's, at its card.
    Track(usize),
}

/// The columns of all ports.
#[derive(Debug, Clone, Default)]
pub(super) struct Ports {
    /// Of each link: at its upper and at its lower node.
    pub(super) links: Vec<(f64, f64)>,
    /// Of each trunk.
    pub(super) trunks: Vec<f64>,
    /// Of each track.
    pub(super) tracks: Vec<f64>,
}

impl Ports {
    fn get(&self, pin: Pin) -> f64 {
        let x = match pin {
            Pin::Upper(ix) => self.links.get(ix).map(|ends| ends.0),
            Pin::Lower(ix) => self.links.get(ix).map(|ends| ends.1),
            Pin::Trunk(ix) => self.trunks.get(ix).copied(),
            Pin::Track(ix) => self.tracks.get(ix).copied(),
        };
        x.unwrap_or(0.0)
    }

    fn set(&mut self, pin: Pin, x: f64) {
        let slot = match pin {
            Pin::Upper(ix) => self.links.get_mut(ix).map(|ends| &mut ends.0),
            Pin::Lower(ix) => self.links.get_mut(ix).map(|ends| &mut ends.1),
            Pin::Trunk(ix) => self.trunks.get_mut(ix),
            Pin::Track(ix) => self.tracks.get_mut(ix),
        };
        if let Some(slot) = slot {
            *slot = x;
        }
    }

    /// The other end of a pin's wire; what runs beside the rows does so at the far right.
    fn other(&self, pin: Pin, right: f64) -> f64 {
        match pin {
            Pin::Upper(ix) => self.get(Pin::Lower(ix)),
            Pin::Lower(ix) => self.get(Pin::Upper(ix)),
            Pin::Trunk(_) | Pin::Track(_) => right,
        }
    }
}

/// The pins at each node: at its lower edge, then at its upper one.
pub(super) fn edges(rows: &Rows) -> Vec<Vec<Pin>> {
    let mut edges: Vec<Vec<Pin>> = vec![Vec::new(); 2 * rows.nodes.len()];
    let mut add = |node: NodeIx, upper_edge: bool, pin| {
        if let Some(pins) = edges.get_mut(2 * node + usize::from(upper_edge)) {
            pins.push(pin);
        }
    };
    for (ix, link) in rows.links.iter().enumerate() {
        add(link.upper, false, Pin::Upper(ix));
        add(link.lower, true, Pin::Lower(ix));
    }
    for (ix, trunk) in rows.trunks.iter().enumerate() {
        add(trunk.node, trunk.upper_edge, Pin::Trunk(ix));
    }
    for (ix, track) in rows.tracks.iter().enumerate() {
        add(track.card, rows.arrives_above(track), Pin::Track(ix));
    }
    edges
}

/// The column of every port.
pub(super) fn ports(rows: &Rows, sizes: &[(f64, f64)], centres: &[f64]) -> Ports {
    let x = |node: NodeIx| centres.get(node).copied().unwrap_or(0.0);
    let mut ports = Ports {
        links: rows
            .links
            .iter()
            .map(|link| (x(link.upper), x(link.lower)))
            .collect(),
        trunks: rows.trunks.iter().map(|trunk| x(trunk.node)).collect(),
        tracks: rows.tracks.iter().map(|track| x(track.card)).collect(),
    };
    let right = centres.iter().copied().fold(0.0, f64::max);
    let edges = edges(rows);
    // A card's only wire by an edge comes straight out of a lane where it can.
    let from_lane = |pin: Pin| {
        let link = |ix: usize| rows.links.get(ix);
        match pin {
            Pin::Upper(ix) => link(ix).is_some_and(|link| rows.is_lane(link.lower)),
            Pin::Lower(ix) => link(ix).is_some_and(|link| rows.is_lane(link.upper)),
            Pin::Trunk(_) | Pin::Track(_) => false,
        }
    };
    // Cards first, then boxes: a box has space to move its ports to where the cards are.
    for boxes in [false, true] {
        for node in 0..rows.nodes.len() {
            if rows.is_lane(node) || rows.is_box(node) != boxes {
                continue;
            }
            let (centre, w) = (x(node), sizes.get(node).map_or(0.0, |size| size.0));
            let (low, high) = (centre - w / 2.0 + PORT_MARGIN, centre + w / 2.0 - PORT_MARGIN);
            for pins in edges.get(2 * node..2 * node + 2).unwrap_or_default() {
                let mut pins: Vec<(f64, Pin)> =
                    pins.iter().map(|pin| (ports.other(*pin, right), *pin)).collect();
                pins.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                let count = pins.len();
                let wanted: Vec<(f64, f64)> = pins
                    .iter()
                    .enumerate()
                    .map(|(at, (other, pin))| {
                        let target = if boxes || (count == 1 && from_lane(*pin)) {
                            *other
                        } else {
                            centre + (at as f64 - (count as f64 - 1.0) / 2.0) * 2.0 * PORT_GAP
                        };
                        (target.clamp(low, high.max(low)), 1.0)
                    })
                    .collect();
                let steps = vec![PORT_GAP; count.saturating_sub(1)];
                for ((_, pin), x) in pins.iter().zip(spread(&wanted, &steps, low, high)) {
                    ports.set(*pin, x.round());
                }
            }
        }
    }
    part(&mut ports, rows, &edges, sizes, centres);
    ports
}

/// Which columns of each channel are taken, and how often.
#[derive(Default)]
struct Taken(BTreeMap<(usize, i64), usize>);

impl Taken {
    fn put(&mut self, channel: usize, x: f64) {
        *self.0.entry((channel, x.round() as i64)).or_default() += 1;
    }

    fn lift(&mut self, channel: usize, x: f64) {
        let key = (channel, x.round() as i64);
        match self.0.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.0.remove(&key)),
        }
    }

    fn is_free(&self, channel: usize, x: f64) -> bool {
        let (x, apart) = (x.round() as i64, APART as i64);
        self.0
            .range((channel, x - apart + 1)..(channel, x + apart))
            .next()
            .is_none()
    }
}

/// Moves ports at boxes and cards a little where a wire of one channel ends just above the beginning of another.
///
/// Lanes stay where they are, and where a box is full so do its ports: what remains is the channel's to settle.
fn part(ports: &mut Ports, rows: &Rows, edges: &[Vec<Pin>], sizes: &[(f64, f64)], centres: &[f64]) {
    let mut pins: Vec<(Pin, NodeIx, usize)> = Vec::new();
    let mut taken = Taken::default();
    for (ix, edge) in edges.iter().enumerate() {
        let (node, upper_edge) = (ix / 2, ix % 2 == 1);
        let channel = rows.channel(node, upper_edge);
        for pin in edge {
            taken.put(channel, ports.get(*pin));
            pins.push((*pin, node, channel));
        }
    }
    pins.sort_unstable();
    for (pin, node, channel) in pins {
        if rows.is_lane(node) {
            continue;
        }
        let x = ports.get(pin);
        let own = match pin {
            Pin::Upper(_) | Pin::Lower(_) => Some(ports.other(pin, x)),
            Pin::Trunk(_) | Pin::Track(_) => None,
        };
        if own.is_some_and(|other| (other - x).abs() <= 0.5) {
            // A straight wire is moved only as a whole, and it is the others that give way.
            continue;
        }
        for x in own.into_iter().chain([x]) {
            taken.lift(channel, x);
        }
        let centre = centres.get(node).copied().unwrap_or(0.0);
        let w = sizes.get(node).map_or(0.0, |size| size.0);
        let (low, high) = (centre - w / 2.0 + CORNER, centre + w / 2.0 - CORNER);
        let moved = (0..STEPS)
            .flat_map(|n| [2 * n, -2 * n])
            .map(|by| x + by as f64)
            .find(|x| taken.is_free(channel, *x) && *x >= low && *x <= high)
            .unwrap_or(x);
        ports.set(pin, moved);
        for x in own.into_iter().chain([moved]) {
            taken.put(channel, x);
        }
    }
}
