//! Which row each box and each card stands in, and which rows a wire passes by lanes.
//!
//! A rank's boxes stand side by side, in rows of about the square root of their number, but of six at least. A card stands between its two
//! boxes, where there is most room; where these are far apart, beside the one that has fewer wires.

use std::collections::BTreeMap;

use super::{Chain, Diagram, Half, Link, Node, NodeIx, Rows, Track, Trunk};

/// So many boxes stand side by side in any case.
const BOXES_PER_ROW: usize = 6;
/// So many cards do; more go into further rows, staggered.
const CARDS_PER_ROW: usize = 7;
/// Rows of boxes between two that count as far apart.
const FAR: usize = 6;
/// Most rows that a wire passes by lanes.
const LANES_MAX: usize = 12;
/// Most wires at one edge of a box that may pass rows by lanes.
const PASSING_MAX: usize = 16;

/// Puts boxes and cards into rows, and wires them.
pub(super) fn rows(diagram: &Diagram) -> Rows {
    let box_rows = box_rows(&diagram.ranks);
    let boxes = diagram.ranks.len();
    let mut by_gap: Vec<Vec<NodeIx>> = vec![Vec::new(); box_rows.len() + 1];
    for (gate, gap) in gaps(diagram, &box_rows).into_iter().enumerate() {
        if let Some(cards) = by_gap.get_mut(gap) {
            cards.push(boxes + gate);
        }
    }
    let mut rows = Rows {
        nodes: (0..boxes)
            .map(Node::Box)
            .chain((0..diagram.gates.len()).map(Node::Card))
            .collect(),
        ..Rows::default()
    };
    rows.row_of = vec![0; rows.nodes.len()];
    let widest = box_rows.iter().map(|(_, row)| row.len()).max().unwrap_or(0);
    let cards_max = CARDS_PER_ROW.max(widest * CARDS_PER_ROW / BOXES_PER_ROW);
    // The cards of gap g stand above row g of boxes; the last gap is below all of them.
    for (gap, cards) in by_gap.iter().enumerate() {
        let sub_rows = cards.len().div_ceil(cards_max);
        for sub in 0..sub_rows {
            rows.push(cards.iter().skip(sub).step_by(sub_rows).copied().collect(), None);
        }
        if let Some((rank, row)) = box_rows.get(gap) {
            rows.push(row.clone(), Some(*rank));
        }
    }
    rows.connect(diagram);
    rows
}

/// Boxes by rank, in rows.
fn box_rows(ranks: &[usize]) -> Vec<(usize, Vec<NodeIx>)> {
    let mut by_rank: BTreeMap<usize, Vec<NodeIx>> = BTreeMap::new();
    for (node, rank) in ranks.iter().enumerate() {
        by_rank.entry(*rank).or_default().push(node);
    }
    let mut rows = Vec::new();
    for (rank, boxes) in by_rank {
        let most = BOXES_PER_ROW.max((boxes.len() as f64).sqrt().ceil() as usize);
        let per_row = boxes.len().div_ceil(boxes.len().div_ceil(most).max(1)).max(1);
        rows.extend(boxes.chunks(per_row).map(|row| (rank, row.to_vec())));
    }
    rows
}

/// The gap between rows of boxes in which each gate's card stands.
fn gaps(diagram: &Diagram, box_rows: &[(usize, Vec<NodeIx>)]) -> Vec<usize> {
    let mut row_of = vec![0; diagram.ranks.len()];
    for (row, (_, boxes)) in box_rows.iter().enumerate() {
        for node in boxes {
            if let Some(slot) = row_of.get_mut(*node) {
                *slot = row;
            }
        }
    }
    let mut wires = vec![0_usize; diagram.ranks.len()];
    for node in diagram.gates.iter().flat_map(|(from, to)| [from, to]) {
        if let Some(count) = wires.get_mut(*node) {
            *count += 1;
        }
    }
    let at = |list: &[usize], node: NodeIx| list.get(node).copied().unwrap_or(0);
    let mut load = vec![0_usize; box_rows.len() + 1];
    let mut gaps = Vec::with_capacity(diagram.gates.len());
    for (from, to) in &diagram.gates {
        let (upper, lower) = if at(&row_of, *from) <= at(&row_of, *to) {
            (*from, *to)
        } else {
            (*to, *from)
        };
        let (top, bottom) = (at(&row_of, upper), at(&row_of, lower));
        let candidates = if bottom - top > FAR {
            let gap = if at(&wires, upper) < at(&wires, lower) {
                top + 1
            } else {
                bottom
            };
            vec![gap]
        } else if top != bottom {
            (top + 1..=bottom).collect()
        } else if top == 0 {
            vec![1]
        } else if bottom + 1 == box_rows.len() {
            vec![top]
        } else {
            vec![top + 1, top]
        };
        let gap = candidates
            .into_iter()
            .min_by_key(|gap| at(&load, *gap))
            .unwrap_or(0);
        if let Some(count) = load.get_mut(gap) {
            *count += 1;
        }
        gaps.push(gap);
    }
    gaps
}

impl Rows {
    fn push(&mut self, row: Vec<NodeIx>, rank: Option<usize>) {
        for node in &row {
            if let Some(slot) = self.row_of.get_mut(*node) {
                *slot = self.rows.len();
            }
        }
        self.rows.push(row);
        self.ranks.push(rank);
    }

    /// Wires each card with its two boxes.
    fn connect(&mut self, diagram: &Diagram) {
        let boxes = diagram.ranks.len();
        let halves = diagram.gates.iter().enumerate();
        let halves: Vec<(usize, Half, NodeIx)> = halves
            .flat_map(|(gate, (from, to))| [(gate, Half::Out, *from), (gate, Half::In, *to)])
            .collect();
        let mut crowd: BTreeMap<(NodeIx, bool), usize> = BTreeMap::new();
        for (gate, _, node) in &halves {
            let upper_edge = self.row(boxes + gate) < self.row(*node);
            *crowd.entry((*node, upper_edge)).or_default() += 1;
        }
        let mut trunks: BTreeMap<(NodeIx, bool), usize> = BTreeMap::new();
        for (gate, half, node) in halves {
            let card = boxes + gate;
            let (row, card_row) = (self.row(node), self.row(card));
            let upper_edge = card_row < row;
            let passed = row.abs_diff(card_row).saturating_sub(1);
            let crowded = crowd
                .get(&(node, upper_edge))
                .is_some_and(|count| *count > PASSING_MAX);
            if passed > LANES_MAX || (passed > 0 && crowded) {
                let trunk = *trunks.entry((node, upper_edge)).or_insert_with(|| {
                    self.trunks.push(Trunk { node, upper_edge });
                    self.trunks.len() - 1
                });
                self.tracks.push(Track {
                    gate,
                    half,
                    card,
                    trunk,
                });
            } else {
                self.chain(gate, half, node, card);
            }
        }
    }

    /// Links a box with a card, by lanes through the rows between.
    fn chain(&mut self, gate: usize, half: Half, node: NodeIx, card: NodeIx) {
        let box_above = self.row(node) < self.row(card);
        let (upper, last) = if box_above { (node, card) } else { (card, node) };
        let first = self.links.len();
        let mut above = upper;
        for row in self.row(upper) + 1..=self.row(last) {
            let below = if row == self.row(last) {
                last
            } else {
                self.lane(row)
            };
            self.links.push(Link {
                upper: above,
                lower: below,
            });
            above = below;
        }
        self.chains.push(Chain {
            gate,
            half,
            links: first..self.links.len(),
            box_above,
        });
    }

    fn lane(&mut self, row: usize) -> NodeIx {
        let lane = self.nodes.len();
        self.nodes.push(Node::Lane);
        self.row_of.push(row);
        if let Some(members) = self.rows.get_mut(row) {
            members.push(lane);
        }
        lane
    }
}
