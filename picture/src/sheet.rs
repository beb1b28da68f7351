//! What of a plant stands on one sheet: which zones as rooms, which sites and zones as cards, and the gates between them.
//!
//! ```text
//! View ─ which rooms, which units beside them ─ equal (equal units are drawn once) ─ gather (bounded: the rest in lists) ─▶ Sheet
//! ```
//!
//! A *unit* is a site, or a zone, that is drawn as a card. However large the plant, a sheet but that of [`View::Whole`] has at most
//! about [`BOXES_MAX`] boxes; what is left out it says.

mod equal;
mod gather;
mod layer;
mod left_out;

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::ids::{ConduitId, SiteId, ZoneId};
use penstock_policy::model::{Conduit, Plant, Zone};

pub(super) use layer::Layer;
use left_out::{not_drawn, without_zones};

use super::facts::{Facts, count};
use super::layout::Diagram;

/// A plant with more zones than this is not drawn whole unless somebody asks for it.
const ZONES_MAX: usize = 40;
/// The same for conduits.
const CONDUITS_MAX: usize = 80;
/// Boxes of a sheet, from which on several are gathered in one.
const BOXES_MAX: usize = 40;
/// Neighbours of a zone that are drawn as rooms.
const NEIGHBOURS_MAX: usize = 8;

/// What is drawn of a plant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum View {
    /// Everything where that fits on a sheet, else the overview.
    #[default]
    Fitting,
    /// Every zone and every conduit, however many there are.
    Whole,
    /// A card for each site, or for each zone where there is one site; equal ones share a card.
    Overview,
    /// One site: its zones, and what its conduits lead to. A site that the plant does not have gives an empty picture.
    Site(SiteId),
    /// One zone and those that conduits join with it. A zone that the plant does not have gives an empty picture.
    Zone(ZoneId),
}

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UnitName<'a> {
    /// A site with its zones.
    Site(&'a SiteId),
    /// A zone.
    Zone(&'a ZoneId),
}

impl<'a> UnitName<'a> {
    /// Its name in the document.
    pub(super) fn as_str(&self) -> &'a str {
        match self {
            Self::Site(id) => id.as_str(),
            Self::Zone(id) => id.as_str(),
        }
    }
}

/// A site or a zone that is drawn as a card.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unit<'a> {
    pub(super) name: UnitName<'a>,
    pub(super) zones: Vec<&'a ZoneId>,
    /// Conduits that begin and end in it.
    pub(super) inside: Vec<&'a ConduitId>,
}

/// Equal units, the first in the order of names first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cluster<'a> {
    pub(super) units: Vec<Unit<'a>>,
    pub(super) layer: Layer,
}

impl<'a> Cluster<'a> {
    /// The unit that stands for all.
    pub(super) fn first(&self) -> Option<&Unit<'a>> {
        self.units.first()
    }

    fn zones(&self) -> impl Iterator<Item = &'a ZoneId> {
        self.units.iter().flat_map(|unit| unit.zones.iter().copied())
    }
}

/// A box of the sheet.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Boxed<'a> {
    /// A zone with all that is in it.
    Room(&'a ZoneId, &'a Zone),
    /// Equal units.
    Cluster(Cluster<'a>),
    /// Several that differ, each by its title.
    List(Vec<Cluster<'a>>, Layer),
}

impl<'a> Boxed<'a> {
    fn layer(&self) -> Layer {
        match self {
            Self::Room(_, zone) => Layer::of(zone.kind),
            Self::Cluster(cluster) => cluster.layer,
            Self::List(_, layer) => *layer,
        }
    }

    /// The units in it.
    pub(super) fn units(&self) -> impl Iterator<Item = &Unit<'a>> {
        let clusters = match self {
            Self::Room(..) => &[][..],
            Self::Cluster(cluster) => std::slice::from_ref(cluster),
            Self::List(clusters, _) => clusters.as_slice(),
        };
        clusters.iter().flat_map(|cluster| &cluster.units)
    }

    fn zones(&self) -> Vec<&'a ZoneId> {
        match self {
            Self::Room(id, _) => vec![*id],
            Self::Cluster(cluster) => cluster.zones().collect(),
            Self::List(clusters, _) => clusters.iter().flat_map(Cluster::zones).collect(),
        }
    }
}

/// One or more conduits between two boxes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gate<'a> {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Never empty.
    pub(super) conduits: Vec<(&'a ConduitId, &'a Conduit)>,
}

/// What stands on one sheet.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sheet<'a> {
    pub(super) boxes: Vec<Boxed<'a>>,
    pub(super) gates: Vec<Gate<'a>>,
    /// Of each box: conduits between different units in it.
    pub(super) among: Vec<Vec<(&'a ConduitId, &'a Conduit)>>,
    /// The box of each zone that is on the sheet.
    pub(super) box_of: BTreeMap<&'a ZoneId, usize>,
    /// What is shown, unless that is everything.
    pub(super) shows: Option<String>,
    /// What is left out, in sentences.
    pub(super) left_out: Vec<String>,
}

/// What a view chooses, before it is made into boxes.
#[derive(Default)]
struct Choice<'a> {
    rooms: Vec<(&'a ZoneId, &'a Zone)>,
    units: Vec<Unit<'a>>,
    conduits: Vec<(&'a ConduitId, &'a Conduit)>,
    shows: Option<String>,
    left_out: Vec<String>,
}

impl<'a> Sheet<'a> {
    /// The sheet of a view.
    pub(super) fn of(facts: &Facts<'a>, view: &View) -> Self {
        let plant = facts.plant;
        let fits = plant.zones.len() <= ZONES_MAX && plant.conduits.len() <= CONDUITS_MAX;
        let choice = match view {
            View::Whole => whole(plant),
            View::Fitting if fits => whole(plant),
            View::Fitting | View::Overview => overview(facts),
            View::Site(site) => one_site(facts, site),
            View::Zone(zone) => one_zone(facts, zone),
        };
        choice.sheet(facts)
    }

    /// What the layout needs of it.
    pub(super) fn diagram(&self) -> Diagram {
        Diagram {
            ranks: self.boxes.iter().map(|boxed| boxed.layer().rank()).collect(),
            gates: self.gates.iter().map(|gate| (gate.from, gate.to)).collect(),
        }
    }
}

fn whole(plant: &Plant) -> Choice<'_> {
    Choice {
        rooms: plant.zones.iter().collect(),
        conduits: plant.conduits.iter().collect(),
        ..Choice::default()
    }
}

fn overview<'a>(facts: &Facts<'a>) -> Choice<'a> {
    let plant = facts.plant;
    let units = units(facts, plant.zones.keys());
    let sites = units
        .iter()
        .filter(|unit| matches!(unit.name, UnitName::Site(_)))
        .count();
    let inside: usize = units.iter().map(|unit| unit.inside.len()).sum();
    let within = facts.site_of.len();
    let shows = match sites {
        0 => format!("Overview of {}", count(plant.zones.len(), "zone")),
        _ => format!("Overview of {}", count(sites, "site")),
    };
    let assets = count(plant.assets.len(), "asset");
    let mut left_out = match (sites, inside) {
        (0, _) => format!("Not drawn one by one: {assets}."),
        (_, 0) => format!(
            "Not drawn one by one: {} of the sites, {assets}.",
            count(within, "zone")
        ),
        _ => format!(
            "Not drawn one by one: {} and {} within the sites, {assets}.",
            count(within, "zone"),
            count(inside, "conduit"),
        ),
    };
    left_out.push_str(match sites {
        0 => " `penstock graph --zone NAME` draws one zone with its neighbours, `--all` everything.",
        _ => {
            " `penstock graph --site NAME` draws one site, `--zone NAME` one zone with its neighbours, `--all` everything."
        }
    });
    let without = without_zones(facts, None).filter(|_| sites > 0);
    Choice {
        units,
        conduits: plant.conduits.iter().collect(),
        shows: Some(shows),
        left_out: std::iter::once(left_out).chain(without).collect(),
        ..Choice::default()
    }
}

/// Each zone in its unit: its site, or itself where it lies at none, or where there is only one site.
fn units<'a>(facts: &Facts<'a>, zones: impl Iterator<Item = &'a ZoneId>) -> Vec<Unit<'a>> {
    let sites: BTreeSet<&SiteId> = facts.site_of.values().copied().collect();
    let mut units: BTreeMap<UnitName<'a>, Vec<&'a ZoneId>> = BTreeMap::new();
    for zone in zones {
        let name = match facts.site_of.get(zone) {
            Some(site) if sites.len() > 1 => UnitName::Site(site),
            _ => UnitName::Zone(zone),
        };
        units.entry(name).or_default().push(zone);
    }
    with_inside(facts, units)
}

/// The same zones, with the conduits that begin and end in one unit.
fn with_inside<'a>(facts: &Facts<'a>, units: BTreeMap<UnitName<'a>, Vec<&'a ZoneId>>) -> Vec<Unit<'a>> {
    let units: Vec<Unit<'a>> = units
        .into_iter()
        .map(|(name, zones)| Unit {
            name,
            zones,
            inside: Vec::new(),
        })
        .collect();
    let mut of = BTreeMap::new();
    for (ix, unit) in units.iter().enumerate() {
        of.extend(unit.zones.iter().map(|zone| (*zone, ix)));
    }
    let mut units = units;
    for (id, conduit) in &facts.plant.conduits {
        let (from, to) = (of.get(&conduit.from), of.get(&conduit.to));
        if from == to
            && let Some(unit) = from.and_then(|ix| units.get_mut(*ix))
        {
            unit.inside.push(id);
        }
    }
    units
}

/// The zones at the other end of conduits that lead out of `zones`.
fn beyond<'a>(plant: &'a Plant, zones: &BTreeSet<&ZoneId>) -> BTreeSet<&'a ZoneId> {
    let ends = plant.conduits.values().filter_map(|conduit| {
        match (zones.contains(&conduit.from), zones.contains(&conduit.to)) {
            (true, false) => Some(&conduit.to),
            (false, true) => Some(&conduit.from),
            _ => None,
        }
    });
    ends.collect()
}

fn touching<'a>(plant: &'a Plant, zones: &BTreeSet<&ZoneId>) -> Vec<(&'a ConduitId, &'a Conduit)> {
    let touches = |conduit: &Conduit| zones.contains(&conduit.from) || zones.contains(&conduit.to);
    plant
        .conduits
        .iter()
        .filter(|(_, conduit)| touches(conduit))
        .collect()
}

fn one_site<'a>(facts: &Facts<'a>, site: &SiteId) -> Choice<'a> {
    let plant = facts.plant;
    let here = facts
        .site_of
        .iter()
        .filter(|(_, at)| **at == site)
        .map(|(zone, _)| *zone);
    let here: BTreeSet<&'a ZoneId> = here.collect();
    let others = beyond(plant, &here);
    let title = plant
        .sites
        .get(site)
        .map_or(site.as_str(), |site| site.title.as_str());
    // Whole sites are drawn beside it, with all their zones.
    let whole: BTreeSet<&SiteId> = others
        .iter()
        .filter_map(|zone| facts.site_of.get(*zone).copied())
        .collect();
    let around = plant.zones.keys().filter(|zone| {
        let at = facts.site_of.get(*zone);
        !here.contains(*zone) && (others.contains(*zone) || at.is_some_and(|at| whole.contains(at)))
    });
    let mut choice = Choice {
        units: units(facts, around),
        conduits: touching(plant, &here),
        shows: Some(format!("Site {site}: {title}")),
        ..Choice::default()
    };
    if here.len() <= ZONES_MAX {
        choice.rooms = plant.zones.iter().filter(|(id, _)| here.contains(id)).collect();
    } else {
        let own = here
            .iter()
            .map(|zone| (UnitName::Zone(zone), vec![*zone]))
            .collect();
        choice.units.extend(with_inside(facts, own));
        choice.left_out.push(format!(
            "Its {} are drawn as cards, without their assets; `--zone NAME` draws one.",
            count(here.len(), "zone")
        ));
    }
    if here.is_empty() {
        choice.left_out.push(
            "No zone lies at this site alone: a zone lies where all the gateways stand that it is attached to.".to_owned(),
        );
    }
    let drawn: BTreeSet<UnitName<'_>> = choice.units.iter().map(|unit| unit.name).collect();
    let sites: BTreeSet<&SiteId> = facts
        .site_of
        .values()
        .copied()
        .filter(|other| *other != site)
        .collect();
    let hidden: Vec<&SiteId> = sites
        .into_iter()
        .filter(|site| !drawn.contains(&UnitName::Site(site)))
        .collect();
    let conduits = plant.conduits.len() - choice.conduits.len();
    choice.left_out.extend(not_drawn(&hidden, "site", conduits));
    choice.left_out.extend(without_zones(facts, Some(site)));
    choice
}

fn one_zone<'a>(facts: &Facts<'a>, zone: &ZoneId) -> Choice<'a> {
    let plant = facts.plant;
    let Some((id, record)) = plant.zones.get_key_value(zone) else {
        return Choice::default();
    };
    let here = BTreeSet::from([id]);
    let neighbours = beyond(plant, &here);
    let mut choice = Choice {
        rooms: vec![(id, record)],
        conduits: touching(plant, &here),
        shows: Some(format!(
            "Zone {id}: {}, and the zones that conduits join with it",
            record.title
        )),
        ..Choice::default()
    };
    if neighbours.len() <= NEIGHBOURS_MAX {
        let rooms = plant.zones.iter().filter(|(other, _)| neighbours.contains(other));
        choice.rooms.extend(rooms);
    } else {
        let own = neighbours
            .iter()
            .map(|zone| (UnitName::Zone(zone), vec![*zone]))
            .collect();
        choice.units = with_inside(facts, own);
        choice.left_out.push(format!(
            "Its {} are drawn as cards, without their assets.",
            count(neighbours.len(), "neighbour")
        ));
    }
    let hidden = plant
        .zones
        .keys()
        .filter(|other| *other != id && !neighbours.contains(other));
    let hidden: Vec<&ZoneId> = hidden.collect();
    let conduits = plant.conduits.len() - choice.conduits.len();
    choice.left_out.extend(not_drawn(&hidden, "zone", conduits));
    choice
}

impl<'a> Choice<'a> {
    fn sheet(self, facts: &Facts<'a>) -> Sheet<'a> {
        let rooms = self.rooms.into_iter().map(|(id, zone)| Boxed::Room(id, zone));
        let mut boxes: Vec<Boxed<'a>> = rooms.collect();
        let clusters = equal::clusters(facts, self.units, &self.conduits);
        let room_for = BOXES_MAX.saturating_sub(boxes.len()).max(2);
        boxes.extend(gather::gather(clusters, &self.conduits, room_for));
        let mut sheet = Sheet {
            boxes,
            shows: self.shows,
            left_out: self.left_out,
            ..Sheet::default()
        };
        for (ix, boxed) in sheet.boxes.iter().enumerate() {
            sheet
                .box_of
                .extend(boxed.zones().into_iter().map(|zone| (zone, ix)));
        }
        sheet.among = vec![Vec::new(); sheet.boxes.len()];
        sheet.join(&self.conduits);
        sheet
    }
}

impl<'a> Sheet<'a> {
    /// Gates: one for each conduit between rooms, one for each pair of boxes otherwise.
    fn join(&mut self, conduits: &[(&'a ConduitId, &'a Conduit)]) {
        let mut pairs: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        let units = self.boxes.iter().flat_map(Boxed::units);
        let inside: BTreeSet<&ConduitId> = units.flat_map(|unit| unit.inside.iter().copied()).collect();
        for (id, conduit) in conduits {
            let (Some(from), Some(to)) = (self.box_of.get(&conduit.from), self.box_of.get(&conduit.to))
            else {
                continue;
            };
            let (from, to) = (*from, *to);
            if from == to {
                if let Some(among) = self.among.get_mut(from).filter(|_| !inside.contains(id)) {
                    among.push((*id, *conduit));
                }
                continue;
            }
            let is_room = |ix: usize| matches!(self.boxes.get(ix), Some(Boxed::Room(..)));
            let known = pairs
                .get(&(from.min(to), from.max(to)))
                .filter(|_| !is_room(from) || !is_room(to));
            if let Some(gate) = known.and_then(|gate| self.gates.get_mut(*gate)) {
                gate.conduits.push((*id, *conduit));
                continue;
            }
            pairs.insert((from.min(to), from.max(to)), self.gates.len());
            self.gates.push(Gate {
                from,
                to,
                conduits: vec![(*id, *conduit)],
            });
        }
    }
}
