//! Which row each zone and conduit stands in, and in which order within the row.
//!
//! Rows of zones by layer, top to bottom, and between them rows of conduits. A conduit's card is a node of its
//! own, wired to its two zones; a wire that has to pass a row takes a *lane* there, a narrow node, so that no
//! wire ever needs to cross a box. Order within rows is by repeated barycentres, the best of all passes kept
//! (Sugiyama, Tagawa and Toda 1981). Everything is deterministic: ties fall back to names.

use std::collections::BTreeMap;

use penstock_policy::ids::{ConduitId, ZoneId};
use penstock_policy::model::{Plant, ZoneKind};

/// Most zones side by side; more of one layer go into a further row.
const ZONES_PER_ROW_MAX: usize = 6;
/// Most conduit cards side by side; more go into further rows, staggered.
const CARDS_PER_ROW_MAX: usize = 7;
/// Barycentre passes; the best order of all is kept.
const PASSES: usize = 24;
/// Most wires for which neighbours are also exchanged one by one, whose cost grows with the cube.
const SWAP_LINKS_MAX: usize = 500;

/// What stands in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// A zone's room.
    Zone(ZoneId),
    /// A conduit's card.
    Card(ConduitId),
    /// Where a conduit's wire passes this row.
    Lane(ConduitId),
}

/// Index into [`Rows::nodes`].
pub(super) type NodeIx = usize;

/// A wire between nodes of adjacent rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// In the upper row.
    pub(super) upper: NodeIx,
    /// In the row below it.
    pub(super) lower: NodeIx,
    /// The conduit whose wire it is.
    pub(super) conduit: ConduitId,
    /// Which half of the conduit: from its source zone to the card, or from the card to its target zone.
    pub(super) half: Half,
}

/// The two halves of a conduit's wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Half {
    /// From the zone that opens flows to the card.
    Out,
    /// From the card to the zone that is reached; it ends in an arrowhead.
    In,
}

/// Zones, conduits and lanes in rows.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    /// Every node.
    pub(super) nodes: Vec<Node>,
    /// Nodes of each row, left to right.
    pub(super) rows: Vec<Vec<NodeIx>>,
    /// The layer of each row of zones; `None` for rows of conduits.
    pub(super) layers: Vec<Option<Layer>>,
    /// Wires between adjacent rows.
    pub(super) links: Vec<Link>,
}

/// A layer of the picture, top to bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    /// What is not the plant's own.
    Outside,
    /// Offices.
    Enterprise,
    /// Between offices and plant.
    Dmz,
    /// Control rooms, and what comes and goes with people.
    Operations,
    /// Controllers.
    Control,
    /// Safety systems.
    Safety,
}

impl Layer {
    /// The layer that a kind of zone belongs to.
    pub(super) fn of(kind: ZoneKind) -> Self {
        match kind {
            ZoneKind::External => Self::Outside,
            ZoneKind::Enterprise => Self::Enterprise,
            ZoneKind::Dmz | ZoneKind::RemoteAccess => Self::Dmz,
            ZoneKind::Operations | ZoneKind::Wireless | ZoneKind::Transient => Self::Operations,
            ZoneKind::Control => Self::Control,
            ZoneKind::Safety => Self::Safety,
        }
    }

    /// The words at the layer's side.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Outside => "OUTSIDE",
            Self::Enterprise => "ENTERPRISE",
            Self::Dmz => "DMZ",
            Self::Operations => "OPERATIONS",
            Self::Control => "CONTROL",
            Self::Safety => "SAFETY",
        }
    }
}

/// Puts a plant's zones and conduits into rows.
pub(super) fn arrange(plant: &Plant) -> Rows {
    let (zone_rows, row_of_zone) = zone_rows(plant);
    let mut rows = Rows {
        nodes: Vec::new(),
        rows: Vec::new(),
        layers: Vec::new(),
        links: Vec::new(),
    };
    let gaps = assign_gaps(plant, &row_of_zone, zone_rows.len());
    // Cards of gap g stand above zone row g; gap `zone_rows.len()` is below the last.
    let mut final_row_of_zone: BTreeMap<ZoneId, usize> = BTreeMap::new();
    let mut row_of_card: BTreeMap<ConduitId, usize> = BTreeMap::new();
    let mut index_of_zone: BTreeMap<ZoneId, NodeIx> = BTreeMap::new();
    let mut index_of_card: BTreeMap<ConduitId, NodeIx> = BTreeMap::new();
    for gap in 0..=zone_rows.len() {
        let cards: Vec<&ConduitId> = gaps.iter().filter(|(_, g)| **g == gap).map(|(c, _)| c).collect();
        let sub_rows = cards.len().div_ceil(CARDS_PER_ROW_MAX);
        for sub in 0..sub_rows {
            let mut row = Vec::new();
            for conduit in cards.iter().skip(sub).step_by(sub_rows) {
                row_of_card.insert((*conduit).clone(), rows.rows.len());
                index_of_card.insert((*conduit).clone(), rows.nodes.len());
                row.push(rows.nodes.len());
                rows.nodes.push(Node::Card((*conduit).clone()));
            }
            rows.rows.push(row);
            rows.layers.push(None);
        }
        if let Some((layer, zones)) = zone_rows.get(gap) {
            let mut row = Vec::new();
            for zone in zones {
                final_row_of_zone.insert(zone.clone(), rows.rows.len());
                index_of_zone.insert(zone.clone(), rows.nodes.len());
                row.push(rows.nodes.len());
                rows.nodes.push(Node::Zone(zone.clone()));
            }
            rows.rows.push(row);
            rows.layers.push(Some(*layer));
        }
    }
    for (id, conduit) in &plant.conduits {
        let (Some(card), Some(card_row)) = (index_of_card.get(id), row_of_card.get(id)) else {
            continue;
        };
        for (zone, half) in [(&conduit.from, Half::Out), (&conduit.to, Half::In)] {
            if let (Some(node), Some(row)) = (index_of_zone.get(zone), final_row_of_zone.get(zone)) {
                rows.wire(id, half, (*node, *row), (*card, *card_row));
            }
        }
    }
    rows.untangle();
    rows
}

/// Zones that stand side by side, and the layer that they belong to.
type ZoneRow = (Layer, Vec<ZoneId>);

/// Zones by layer, at most [`ZONES_PER_ROW_MAX`] in a row, and the row of each.
fn zone_rows(plant: &Plant) -> (Vec<ZoneRow>, BTreeMap<ZoneId, usize>) {
    let mut layers: BTreeMap<Layer, Vec<ZoneId>> = BTreeMap::new();
    for (id, zone) in &plant.zones {
        layers.entry(Layer::of(zone.kind)).or_default().push(id.clone());
    }
    let mut rows: Vec<ZoneRow> = Vec::new();
    let mut row_of = BTreeMap::new();
    for (layer, zones) in layers {
        let per_row = zones
            .len()
            .div_ceil(zones.len().div_ceil(ZONES_PER_ROW_MAX).max(1))
            .max(1);
        for chunk in zones.chunks(per_row) {
            for zone in chunk {
                row_of.insert(zone.clone(), rows.len());
            }
            rows.push((layer, chunk.to_vec()));
        }
    }
    (rows, row_of)
}

/// The gap between zone rows in which each conduit's card stands: between its zones, where there is most room.
fn assign_gaps(
    plant: &Plant,
    row_of: &BTreeMap<ZoneId, usize>,
    zone_rows: usize,
) -> BTreeMap<ConduitId, usize> {
    let mut load: BTreeMap<usize, usize> = BTreeMap::new();
    let mut gaps = BTreeMap::new();
    for (id, conduit) in &plant.conduits {
        let (Some(a), Some(b)) = (row_of.get(&conduit.from), row_of.get(&conduit.to)) else {
            continue;
        };
        let (top, bottom) = (*a.min(b), *a.max(b));
        let candidates: Vec<usize> = if top != bottom {
            (top + 1..=bottom).collect()
        } else if top == 0 {
            vec![1]
        } else if bottom + 1 == zone_rows {
            vec![top]
        } else {
            vec![top + 1, top]
        };
        let gap = candidates
            .into_iter()
            .min_by_key(|gap| load.get(gap).copied().unwrap_or(0))
            .unwrap_or(0);
        *load.entry(gap).or_default() += 1;
        gaps.insert(id.clone(), gap);
    }
    gaps
}

impl Rows {
    /// Links a zone with a card, by lanes through the rows between.
    fn wire(&mut self, conduit: &ConduitId, half: Half, zone: (NodeIx, usize), card: (NodeIx, usize)) {
        let (upper, lower) = if zone.1 < card.1 {
            (zone, card)
        } else {
            (card, zone)
        };
        let mut above = upper.0;
        for row in upper.1 + 1..=lower.1 {
            let below = if row == lower.1 {
                lower.0
            } else {
                let lane = self.nodes.len();
                self.nodes.push(Node::Lane(conduit.clone()));
                if let Some(members) = self.rows.get_mut(row) {
                    members.push(lane);
                }
                lane
            };
            self.links.push(Link {
                upper: above,
                lower: below,
                conduit: conduit.clone(),
                half,
            });
            above = below;
        }
    }

    /// Orders the rows so that few wires cross.
    fn untangle(&mut self) {
        let mut best = (self.crossings(), self.rows.clone());
        for pass in 0..PASSES {
            let downwards = pass % 2 == 0;
            let order: Vec<usize> = if downwards {
                (0..self.rows.len()).collect()
            } else {
                (0..self.rows.len()).rev().collect()
            };
            for row in order {
                // In the later passes both neighbours count, which settles what one side leaves open.
                self.sort_row(
                    row,
                    downwards || pass > PASSES / 2,
                    !downwards || pass > PASSES / 2,
                );
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.rows.clone());
            }
        }
        self.rows = best.1;
        if self.links.len() <= SWAP_LINKS_MAX {
            self.swap_neighbours();
        }
    }

    /// Exchanges neighbours while that lowers the number of crossings.
    fn swap_neighbours(&mut self) {
        let mut now = self.crossings();
        for _ in 0..4 {
            let before = now;
            for row in 0..self.rows.len() {
                let length = self.rows.get(row).map_or(0, Vec::len);
                for at in 1..length {
                    self.swap(row, at);
                    let then = self.crossings();
                    if then < now {
                        now = then;
                    } else {
                        self.swap(row, at);
                    }
                }
            }
            if now == before {
                break;
            }
        }
    }

    fn swap(&mut self, row: usize, at: usize) {
        if let Some(members) = self.rows.get_mut(row) {
            members.swap(at - 1, at);
        }
    }

    /// Position of every node within its row, from 0 to 1.
    fn positions(&self) -> Vec<f64> {
        let mut positions = vec![0.0; self.nodes.len()];
        for row in &self.rows {
            for (at, node) in row.iter().enumerate() {
                if let Some(position) = positions.get_mut(*node) {
                    *position = (at as f64 + 0.5) / row.len() as f64;
                }
            }
        }
        positions
    }

    fn sort_row(&mut self, row: usize, by_above: bool, by_below: bool) {
        let positions = self.positions();
        let at = |node: NodeIx| positions.get(node).copied().unwrap_or(0.0);
        let Some(members) = self.rows.get(row) else {
            return;
        };
        let mut keyed: Vec<(f64, NodeIx)> = members
            .iter()
            .map(|node| {
                let mut seen: Vec<f64> = Vec::new();
                for link in &self.links {
                    if by_above && link.lower == *node {
                        seen.push(at(link.upper));
                    }
                    if by_below && link.upper == *node {
                        seen.push(at(link.lower));
                    }
                }
                let key = if seen.is_empty() {
                    at(*node)
                } else {
                    seen.iter().sum::<f64>() / seen.len() as f64
                };
                (key, *node)
            })
            .collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
        if let Some(members) = self.rows.get_mut(row) {
            *members = keyed.into_iter().map(|(_, node)| node).collect();
        }
    }

    /// How many pairs of wires cross between adjacent rows.
    pub(super) fn crossings(&self) -> usize {
        let mut place = vec![(0_usize, 0_usize); self.nodes.len()];
        for (row, members) in self.rows.iter().enumerate() {
            for (at, node) in members.iter().enumerate() {
                if let Some(slot) = place.get_mut(*node) {
                    *slot = (row, at);
                }
            }
        }
        let mut by_row: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        for link in &self.links {
            if let (Some((row, upper)), Some((_, lower))) = (place.get(link.upper), place.get(link.lower)) {
                by_row.entry(*row).or_default().push((*upper, *lower));
            }
        }
        by_row
            .values()
            .map(|links| {
                let mut count = 0;
                for (at, a) in links.iter().enumerate() {
                    for b in links.iter().skip(at + 1) {
                        if (a.0 < b.0 && a.1 > b.1) || (a.0 > b.0 && a.1 < b.1) {
                            count += 1;
                        }
                    }
                }
                count
            })
            .sum()
    }
}
