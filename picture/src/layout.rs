//! Where boxes and wires of a diagram stand: rows, lanes, columns, channels. It knows no plant, and draws nothing.
//!
//! ```text
//! Diagram ─ rows (which row, which lanes) ─ untangle (order) ─▶ Rows ─ columns ─ ports ─ channel ─ wires ─▶ Places
//! ```
//!
//! Layered, after Sugiyama, Tagawa and Toda (1981): boxes in rows by rank; between them rows of cards, one for each gate, wired
//! to the gate's two boxes; what has to pass a row takes a *lane* there. A wire that would pass many rows, or is one of very many
//! at its box, runs beside all rows instead, on a *track*: those of one edge of a box share a *trunk*. So each wire has a bounded
//! number of parts, rows are about as long as there are rows, and every step takes n log n. Deterministic: ties fall back to the order of boxes
//! and gates, which is that of their names. Neither sizes nor titles have a part in the order.

mod channel;
mod columns;
mod ports;
mod rows;
mod tracks;
mod untangle;
mod wires;

use std::ops::Range;

pub(super) use ports::{PORT_GAP, PORT_MARGIN};
pub(super) use wires::path;

use super::shape::Area;

/// What is to be laid out.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Diagram {
    /// The rank of each box, from the top.
    pub(super) ranks: Vec<usize>,
    /// The two boxes of each gate, which are never the same one.
    pub(super) gates: Vec<(usize, usize)>,
}

/// What stands in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    /// A box of the diagram.
    Box(usize),
    /// A gate's card.
    Card(usize),
    /// Where a gate's wire passes this row.
    Lane,
}

/// Index into [`Rows::nodes`].
pub(super) type NodeIx = usize;

/// The two halves of a gate's wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Half {
    /// Between the gate's first box and its card.
    Out,
    /// Between its card and its second box.
    In,
}

/// A part of a wire between nodes of adjacent rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    upper: NodeIx,
    lower: NodeIx,
}

/// Half a wire that passes rows by lanes: its links from the top.
#[derive(Debug, Clone, PartialEq)]
struct Chain {
    gate: usize,
    half: Half,
    links: Range<usize>,
    /// The box is at its upper end, and the card at its lower one.
    box_above: bool,
}

/// What the tracks of one edge of a box share on their way beside the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trunk {
    node: NodeIx,
    upper_edge: bool,
}

/// Half a wire that runs beside the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Track {
    gate: usize,
    half: Half,
    card: NodeIx,
    trunk: usize,
}

/// Boxes, cards and lanes in rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    /// Every node: the boxes, then the cards, then lanes.
    pub(super) nodes: Vec<Node>,
    /// The rank of each row of boxes; `None` for rows of cards.
    pub(super) ranks: Vec<Option<usize>>,
    /// Nodes of each row, left to right.
    rows: Vec<Vec<NodeIx>>,
    row_of: Vec<usize>,
    links: Vec<Link>,
    chains: Vec<Chain>,
    trunks: Vec<Trunk>,
    tracks: Vec<Track>,
}

/// Half a wire, at its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wire {
    /// The gate.
    pub(super) gate: usize,
    /// Which half.
    pub(super) half: Half,
    /// Corners from the card to the box, each segment horizontal or vertical.
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

/// Puts a diagram's boxes and gates into rows, so that few wires cross.
pub(super) fn arrange(diagram: &Diagram) -> Rows {
    let mut rows = rows::rows(diagram);
    untangle::untangle(&mut rows);
    rows
}

/// How many wires leave each node by its fuller edge.
pub(super) fn port_counts(rows: &Rows) -> Vec<usize> {
    let edges = ports::edges(rows);
    edges
        .chunks(2)
        .map(|pair| pair.iter().map(Vec::len).max().unwrap_or(0))
        .collect()
}

/// Places nodes of the given sizes; a lane's does not matter.
pub(super) fn place(rows: &Rows, sizes: &[(f64, f64)]) -> Places {
    let centres = columns::columns(rows, sizes);
    let ports = ports::ports(rows, sizes, &centres);
    wires::wires(rows, sizes, &centres, &ports)
}

impl Rows {
    fn row(&self, node: NodeIx) -> usize {
        self.row_of.get(node).copied().unwrap_or(0)
    }

    fn is_lane(&self, node: NodeIx) -> bool {
        matches!(self.nodes.get(node), Some(Node::Lane))
    }

    fn is_box(&self, node: NodeIx) -> bool {
        matches!(self.nodes.get(node), Some(Node::Box(_)))
    }

    /// The channel beyond an edge of a node: channel 3 lies below row 3.
    fn channel(&self, node: NodeIx, upper_edge: bool) -> usize {
        self.row(node).saturating_sub(usize::from(upper_edge))
    }

    /// The edge of its card by which a track arrives: towards the box, which lies that way.
    fn arrives_above(&self, track: &Track) -> bool {
        self.trunks
            .get(track.trunk)
            .is_some_and(|trunk| !trunk.upper_edge)
    }

    /// The nodes that each is linked with, in the row above and in the row below.
    fn linked(&self) -> (Vec<Vec<NodeIx>>, Vec<Vec<NodeIx>>) {
        let mut above = vec![Vec::new(); self.nodes.len()];
        let mut below = above.clone();
        for link in &self.links {
            if let Some(list) = above.get_mut(link.lower) {
                list.push(link.upper);
            }
            if let Some(list) = below.get_mut(link.upper) {
                list.push(link.lower);
            }
        }
        (above, below)
    }

    /// How many pairs of links cross.
    #[cfg(test)]
    pub(super) fn crossings(&self) -> usize {
        untangle::Order::of(self).crossings(self)
    }
}
