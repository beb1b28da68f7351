//! Everything at its place: bands, rooms, cards and wires, with the head and the foot of the picture.

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::ids::{Digest, GatewayId, ZoneId};
use penstock_policy::model::{FlowEnd, Plant};
use penstock_policy::neighbours::{Neighbours, neighbours};
use penstock_policy::plan::Plan;
use penstock_policy::terms::Enforcement;

use super::facts::{Facts, Notice, count};
use super::layout::{self, Half, Node, PORT_GAP, PORT_MARGIN, Places, Rows, Wire};
use super::shape::{Align, Area, Block, Line, Shape};
use super::sheet::{Boxed, Cluster, Layer, Sheet, UnitName, View};
use super::text::{self, Face};
use super::{card, legend, marks, notice, room, unit};

/// Free space around the picture.
const MARGIN: f64 = 28.0;
/// Left of the rooms, where the layers are named.
const GUTTER: f64 = 44.0;
/// A band's border beyond its rooms.
const BAND_PADDING: f64 = 14.0;
/// Narrower pictures are widened, so that title and legend have room.
const WIDTH_MIN: f64 = 860.0;
/// Between the head and the first band.
const HEAD_GAP: f64 = 20.0;
/// Most lines that say what is left out.
const LEFT_OUT_LINES: usize = 4;

/// A block at its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PositionedBlock {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) block: Block,
}

/// How a wire is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WireStyle {
    /// Style class of the box that the gate leads to.
    pub(super) class: &'static str,
    /// The process needs one of its flows.
    pub(super) must: bool,
    /// It runs in a tunnel: the wire is a tube.
    pub(super) tunnel: bool,
    /// Some flow opens into the box at this half's end; else the end has a dot.
    pub(super) arrow: bool,
}

/// Everything at its place, before it is written.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) w: f64,
    pub(super) h: f64,
    pub(super) bands: Vec<PositionedBlock>,
    /// Rooms, and sites and zones as cards.
    pub(super) rooms: Vec<PositionedBlock>,
    /// Conduits.
    pub(super) cards: Vec<PositionedBlock>,
    pub(super) wires: Vec<(Wire, WireStyle)>,
    /// Head and foot.
    pub(super) frame: Vec<PositionedBlock>,
    /// The picture in words.
    pub(super) description: String,
    /// What is shown.
    pub(super) shows: String,
    /// What is left out, in sentences.
    pub(super) left_out: Vec<String>,
}

/// Composes the picture of a view.
pub(super) fn compose(
    plant: &Plant,
    plans: &BTreeMap<GatewayId, Plan>,
    digest: Option<&Digest>,
    view: &View,
) -> Scene {
    let facts = Facts::of(plant, plans);
    let sheet = Sheet::of(&facts, view);
    let rows = layout::arrange(&sheet.diagram());
    let blocks = blocks(&facts, &sheet, &rows);
    let sizes: Vec<(f64, f64)> = blocks
        .iter()
        .map(|block| block.as_ref().map_or((0.0, 0.0), |b| (b.w, b.h)))
        .collect();
    let places = layout::place(&rows, &sizes);

    let inner_w = places.w + GUTTER + 2.0 * BAND_PADDING;
    let w = (inner_w + 2.0 * MARGIN).max(WIDTH_MIN).ceil();
    // The rooms stand in the middle where the picture was widened.
    let left = MARGIN + GUTTER + BAND_PADDING + ((w - 2.0 * MARGIN - inner_w) / 2.0).floor();
    let head = header(&facts, &sheet, w - 2.0 * MARGIN);
    let top = MARGIN + head.h + HEAD_GAP + BAND_PADDING;

    let mut scene = Scene {
        w,
        h: 0.0,
        bands: bands(&rows, &places, top, w),
        rooms: Vec::new(),
        cards: Vec::new(),
        wires: Vec::new(),
        frame: Vec::new(),
        description: description(&facts, &sheet),
        shows: shows(&sheet),
        left_out: sheet.left_out.clone(),
    };
    for ((node, area), block) in rows.nodes.iter().zip(&places.nodes).zip(blocks) {
        let Some(block) = block else { continue };
        let placed = PositionedBlock {
            x: area.x + left,
            y: area.y + top,
            block,
        };
        match node {
            Node::Box(_) => scene.rooms.push(placed),
            Node::Card(_) | Node::Lane => scene.cards.push(placed),
        }
    }
    for mut wire in places.wires {
        for point in &mut wire.points {
            *point = (point.0 + left, point.1 + top);
        }
        let look = look(&facts, &sheet, &wire);
        scene.wires.push((wire, look));
    }
    let below = top + places.h + BAND_PADDING + 22.0;
    scene.frame.push(PositionedBlock {
        x: MARGIN,
        y: MARGIN,
        block: head,
    });
    let foot = legend::draw(&scene.marks(), digest, w - 2.0 * MARGIN);
    scene.h = (below + foot.h + MARGIN).ceil();
    scene.frame.push(PositionedBlock {
        x: MARGIN,
        y: below,
        block: foot,
    });
    scene
}

impl Scene {
    /// The classes of all marks that occur.
    fn marks(&self) -> BTreeSet<&str> {
        let blocks = self.rooms.iter().chain(&self.cards).chain(&self.frame);
        let shapes = blocks.flat_map(|placed| &placed.block.shapes);
        let classes = shapes.flat_map(|shape| shape.class().split(' '));
        let mut marks: BTreeSet<&str> = classes.filter(|class| class.starts_with("m-")).collect();
        marks.extend(
            self.wires
                .iter()
                .flat_map(|(_, style)| style.marks())
                .map(|mark| mark.class),
        );
        marks
    }
}

impl WireStyle {
    /// The marks that the wire bears: its head's first.
    pub(super) fn marks(self) -> impl Iterator<Item = &'static marks::Mark> {
        let head = if self.arrow { &marks::OPENS } else { &marks::BEGINS };
        let must = self.must.then_some(&marks::THICK);
        std::iter::once(head)
            .chain(must)
            .chain(self.tunnel.then_some(&marks::TUBE))
    }
}

/// What each node is drawn as.
fn blocks(facts: &Facts<'_>, sheet: &Sheet<'_>, rows: &Rows) -> Vec<Option<Block>> {
    let has_rooms = sheet.boxes.iter().any(|boxed| matches!(boxed, Boxed::Room(..)));
    let beside: BTreeMap<ZoneId, Neighbours> = if has_rooms {
        neighbours(facts.plant)
    } else {
        BTreeMap::new()
    };
    let nobody = Neighbours::default();
    let counts = layout::port_counts(rows);
    let block = |(node, ports): (&Node, usize)| match node {
        Node::Box(ix) => {
            let width_min = 2.0 * PORT_MARGIN + ports.saturating_sub(1) as f64 * PORT_GAP;
            let among = sheet.among.get(*ix).map_or(&[][..], Vec::as_slice);
            sheet.boxes.get(*ix).map(|boxed| match boxed {
                Boxed::Room(id, zone) => {
                    room::draw((id, zone), beside.get(*id).unwrap_or(&nobody), facts, width_min)
                }
                Boxed::Cluster(cluster) => unit::draw(facts, cluster, among, width_min),
                Boxed::List(clusters, _) => unit::list(facts, clusters, among, width_min),
            })
        }
        Node::Card(ix) => sheet.gates.get(*ix).map(|gate| {
            card::draw(&card::Card {
                conduits: &gate.conduits,
                class: box_class(facts, sheet, gate.to),
                facts,
            })
        }),
        Node::Lane => None,
    };
    rows.nodes.iter().zip(counts).map(block).collect()
}

/// The style class of a box: its colour.
fn box_class(facts: &Facts<'_>, sheet: &Sheet<'_>, ix: usize) -> &'static str {
    match sheet.boxes.get(ix) {
        Some(Boxed::Room(_, zone)) => room::kind_class(zone.kind),
        Some(Boxed::Cluster(cluster)) => cluster
            .first()
            .map_or("k-site", |first| unit::class(facts, first)),
        Some(Boxed::List(..)) | None => "k-site",
    }
}

/// Flows run either way within a conduit: an end gets an arrowhead where some flow opens into its box.
fn look(facts: &Facts<'_>, sheet: &Sheet<'_>, wire: &Wire) -> WireStyle {
    let Some(gate) = sheet.gates.get(wire.gate) else {
        return WireStyle {
            class: "k-site",
            must: false,
            tunnel: false,
            arrow: wire.half == Half::In,
        };
    };
    let end = if wire.half == Half::In { gate.to } else { gate.from };
    let is_in = |zone: &ZoneId| sheet.box_of.get(zone) == Some(&end);
    let lies_in = |flow_end: &FlowEnd| {
        let zone = match flow_end {
            FlowEnd::Asset(id, _) => facts.plant.assets.get(id).map(|asset| &asset.zone),
            FlowEnd::Zone(id, _) => Some(id),
        };
        zone.is_some_and(is_in)
    };
    let mut frames = gate
        .conduits
        .iter()
        .flat_map(|(_, conduit)| conduit.frames.values());
    let flows = || {
        gate.conduits
            .iter()
            .flat_map(|(_, conduit)| conduit.flows.values())
    };
    WireStyle {
        class: box_class(facts, sheet, gate.to),
        must: flows().any(|flow| flow.must_flow),
        tunnel: gate.conduits.iter().any(|(_, conduit)| conduit.tunnel),
        // Of a bridge between brokers the gateway is the client of both.
        arrow: flows().any(|flow| {
            flow.destinations.iter().any(lies_in) || (flow.is_bridge() && flow.sources.iter().any(lies_in))
        }) || frames.any(|flow| is_in(&flow.to) || (flow.both && is_in(&flow.from))),
    }
}

/// A band behind each layer, with its name at the side.
fn bands(rows: &Rows, places: &Places, top: f64, w: f64) -> Vec<PositionedBlock> {
    let mut spans: Vec<(&'static str, f64, f64)> = Vec::new();
    for (rank, (y, h)) in rows.ranks.iter().zip(&places.rows) {
        let Some(rank) = rank else { continue };
        let title = Layer::title(*rank);
        match spans.last_mut() {
            Some((last, _, end)) if *last == title => *end = y + h,
            _ => spans.push((title, *y, y + h)),
        }
    }
    spans
        .into_iter()
        .map(|(title, from, to)| {
            let (band_w, h) = (w - 2.0 * MARGIN, to - from + 2.0 * BAND_PADDING);
            let title_w = text::width(title, 11.0, Face::Bold) + 2.0 * title.len() as f64;
            // Turned by a quarter when it is written; the block keeps its area.
            let shapes = vec![
                Shape::area(Area::new(0.0, 0.0, band_w, h), 12.0, "band"),
                Shape::Text(Line::new(
                    24.0,
                    (h + title_w) / 2.0,
                    11.0,
                    Face::Bold,
                    "band-title",
                    title,
                )),
            ];
            PositionedBlock {
                x: MARGIN,
                y: top + from - BAND_PADDING,
                block: Block {
                    w: band_w,
                    h,
                    class: "layer".to_owned(),
                    title: String::new(),
                    shapes,
                },
            }
        })
        .collect()
}

/// Title, plant, owner and counts; below, what is shown and what is left out, and what is wrong with gateways.
fn header(facts: &Facts<'_>, sheet: &Sheet<'_>, inner: f64) -> Block {
    let plant = facts.plant;
    let title = text::fit(&plant.title, inner, 26.0, Face::Bold);
    let mut about = vec![plant.id.to_string()];
    if let Some(owner) = &plant.owner {
        about.push(owner.organisation.clone());
        about.extend(owner.contact.clone());
    }
    let counts = format!(
        "{} · {} · {} · {}",
        count(plant.zones.len(), "zone"),
        count(plant.conduits.len(), "conduit"),
        count(plant.gateways.len(), "gateway"),
        count(plant.assets.len(), "asset"),
    );
    let counts_w = text::width(&counts, 12.5, Face::Regular);
    let about = text::fit(&about.join(" · "), inner - counts_w - 24.0, 12.5, Face::Regular);
    let mut shapes = vec![
        Shape::Text(Line::new(0.0, 26.0, 26.0, Face::Bold, "ink", title)),
        Shape::Text(Line::new(0.0, 51.0, 12.5, Face::Regular, "muted", about)),
        Shape::Text(Line::new(inner, 51.0, 12.5, Face::Regular, "muted", counts).aligned(Align::End)),
        Shape::Path {
            d: format!("M0 66H{inner}"),
            class: "rule".to_owned(),
        },
    ];
    let mut y = 68.0;
    if let Some(shows) = &sheet.shows {
        let words = text::fit(shows, inner, 15.0, Face::Bold);
        shapes.push(Shape::Text(Line::new(
            0.0,
            y + 22.0,
            15.0,
            Face::Bold,
            "ink",
            words,
        )));
        y += 30.0;
    }
    for line in text::wrap(
        &sheet.left_out.join(" "),
        inner,
        11.5,
        Face::Regular,
        LEFT_OUT_LINES,
    ) {
        shapes.push(Shape::Text(Line::new(
            0.0,
            y + 12.0,
            11.5,
            Face::Regular,
            "muted",
            line,
        )));
        y += 16.0;
    }
    if let Some((error, words)) = notice::summary(&at_gateways(facts, sheet)) {
        notice::draw((error, &words), 0.0, y + 4.0, inner, &mut shapes);
        y += 22.0;
    }
    Block {
        w: inner,
        h: y,
        class: "header".to_owned(),
        title: String::new(),
        shapes,
    }
}

/// What is wrong with gateways of the zones on the sheet, but for those of sites that are drawn as cards, where it is said.
fn at_gateways(facts: &Facts<'_>, sheet: &Sheet<'_>) -> Vec<Notice> {
    let units = sheet.boxes.iter().flat_map(Boxed::units);
    let sites: BTreeSet<UnitName<'_>> = units.map(|unit| unit.name).collect();
    let gateways = facts.plant.gateways.iter().filter(|(_, gateway)| {
        let mut zones = gateway.interfaces.values().map(|side| &side.zone);
        !sites.contains(&UnitName::Site(&gateway.site)) && zones.any(|zone| sheet.box_of.contains_key(zone))
    });
    gateways
        .flat_map(|(id, _)| facts.of_gateway(id))
        .cloned()
        .collect()
}

/// What the sheet shows, for whoever had it drawn.
fn shows(sheet: &Sheet<'_>) -> String {
    match (&sheet.shows, sheet.boxes.len()) {
        (None, _) => "Everything".to_owned(),
        (Some(shows), 1) => format!("{shows}, as one box"),
        (Some(shows), boxes) => format!("{shows}, as {boxes} boxes"),
    }
}

/// The picture in words, for those who cannot see it.
fn description(facts: &Facts<'_>, sheet: &Sheet<'_>) -> String {
    let mut words: Vec<String> = sheet.shows.iter().map(|shows| format!("{shows}.")).collect();
    for boxed in &sheet.boxes {
        match boxed {
            Boxed::Room(id, zone) => {
                let observes = zone.enforcement == Enforcement::Observe;
                words.push(format!(
                    "Zone {id} ({}, {}, {}){}.",
                    room::kind_words(zone.kind),
                    room::sl_words(zone.sl_target.as_ref()),
                    count(facts.assets_of(id).len(), "asset"),
                    behind(notice::in_short(observes, facts.of_zone(id)))
                ));
            }
            Boxed::Cluster(cluster) => words.push(format!("{}.", called(facts, cluster))),
            Boxed::List(clusters, _) => {
                let all: Vec<String> = clusters.iter().map(|cluster| called(facts, cluster)).collect();
                words.push(format!("A list: {}.", all.join("; ")));
            }
        }
    }
    for gate in &sheet.gates {
        words.push(card::in_words(&gate.conduits));
        let observed = gate
            .conduits
            .iter()
            .any(|(_, conduit)| conduit.enforced_by.is_gateways() && facts.plant.only_observes(conduit));
        let notices: Vec<Notice> = gate
            .conduits
            .iter()
            .flat_map(|(id, _)| facts.of_conduit(id).iter().cloned().chain(facts.unguarded(id)))
            .collect();
        words.extend(notice::in_short(observed, &notices).map(|said| format!("It {said}.")));
    }
    let gateways = at_gateways(facts, sheet);
    words.extend(notice::in_short(false, &gateways).map(|said| format!("Gateways: {said}.")));
    words.extend(sheet.left_out.iter().cloned());
    words.join(" ")
}

/// `Site ps-001`, `98 equal sites, the first is ps-001`.
fn called(facts: &Facts<'_>, cluster: &Cluster<'_>) -> String {
    let Some(first) = cluster.first() else {
        return String::new();
    };
    let (one, many) = match first.name {
        UnitName::Site(_) => ("Site", "sites"),
        UnitName::Zone(_) => ("Zone", "zones"),
    };
    let remark = behind(unit::remark(facts, cluster));
    match cluster.units.len() {
        1 => format!("{one} {}{remark}", first.name.as_str()),
        times => format!(
            "{times} equal {many}, the first is {}{remark}",
            first.name.as_str()
        ),
    }
}

/// What stands behind a name, if anything.
fn behind(remark: Option<String>) -> String {
    remark.map_or_else(String::new, |remark| format!(", {remark}"))
}
