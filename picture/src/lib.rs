//! A plant's zones and conduits as a picture (SVG) for people: `penstock graph`.
//!
//! ```text
//! model::Plant ─ order (rows, lanes) ─ place (columns, channels) ─ route (levels) ─▶ Scene ─ write ─▶ SVG
//!                        room, card: what is in the boxes ────────────────┘
//! ```
//!
//! Invariants, each a test: boxes do not overlap; no wire crosses a box; no text leaves its box or touches
//! another; everything lies in the view box; the same plant gives the same bytes; every name is escaped. No
//! font, script or image is referred to, so the file stands alone.

#![warn(clippy::missing_errors_doc)]

mod card;
mod glyph;
mod legend;
mod order;
mod palette;
mod place;
mod room;
mod route;
mod shape;
mod text;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use penstock_policy::assurance::by_flow;
use penstock_policy::compile::compile_all;
use penstock_policy::ids::{AssetId, Digest, ZoneId};
use penstock_policy::model::{Asset, Enforcer, FlowEnd, Plant};
use penstock_policy::neighbours::neighbours;

use order::{Half, Node};
use place::Wire;
use shape::{Area, Block, Line, Shape};
use text::Face;

/// Free space around the picture.
const MARGIN: f64 = 28.0;
/// Left of the rooms, where the layers are named.
const GUTTER: f64 = 44.0;
/// A band's border beyond its rooms.
const BAND_PADDING: f64 = 14.0;
/// Narrower pictures are widened, so that title and legend have room.
const WIDTH_MIN: f64 = 860.0;
const HEADER_H: f64 = 88.0;

/// A finished picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// The SVG document.
    pub svg: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// A block at its place.
#[derive(Debug, Clone, PartialEq)]
struct PositionedBlock {
    x: f64,
    y: f64,
    block: Block,
}

/// How a wire is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WireStyle {
    /// Style class of the zone that the conduit leads to.
    class: &'static str,
    /// The process needs one of its flows.
    must: bool,
    /// It runs in a tunnel: the wire is a tube.
    tunnel: bool,
    /// Some flow opens into the zone at this half's end; else the end has a dot.
    arrow: bool,
}

/// Everything at its place, before it is written.
#[derive(Debug, Clone)]
struct Scene {
    w: f64,
    h: f64,
    bands: Vec<PositionedBlock>,
    rooms: Vec<PositionedBlock>,
    cards: Vec<PositionedBlock>,
    wires: Vec<(Wire, WireStyle)>,
    frame: Vec<PositionedBlock>,
}

/// Draws `plant`; `digest` is that of the document it was read from.
///
/// ```
/// use jiff::civil::date;
/// use penstock_picture::draw;
/// use penstock_policy::diagnostics::SourceFile;
///
/// let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/waterworks/plant.yaml"));
/// let file = SourceFile::new("plant.yaml", text);
/// let plant = penstock_policy::load(&[file], date(2026, 12, 1)).plant.unwrap();
/// let picture = draw(&plant, None);
/// assert!(picture.svg.starts_with("<svg "));
/// assert_eq!(picture, draw(&plant, None), "the same plant gives the same bytes");
/// ```
pub fn draw(plant: &Plant, digest: Option<&Digest>) -> Picture {
    let scene = compose(plant, digest);
    Picture {
        svg: write(plant, &scene),
        width: scene.w as u32,
        height: scene.h as u32,
    }
}

fn compose(plant: &Plant, digest: Option<&Digest>) -> Scene {
    let rows = order::arrange(plant);
    let beside = neighbours(plant);
    let counts = place::port_counts(&rows);
    let limited = plant.limited();
    // A plant that cannot be compiled has no gateway that checks anything.
    let plans = compile_all(plant).unwrap_or_default();
    let known = by_flow(plant, &plans);
    let mut assets: BTreeMap<&ZoneId, Vec<(&AssetId, &Asset)>> = BTreeMap::new();
    for (id, asset) in &plant.assets {
        assets.entry(&asset.zone).or_default().push((id, asset));
    }
    let mut blocks: Vec<Option<Block>> = Vec::new();
    for (node, (above, below)) in rows.nodes.iter().zip(&counts) {
        let ports = (*above).max(*below) as f64;
        let width_min = 2.0 * place::PORT_MARGIN + (ports - 1.0).max(0.0) * place::PORT_GAP;
        blocks.push(match node {
            Node::Zone(id) => plant.zones.get(id).zip(beside.get(id)).map(|(zone, beside)| {
                let within = assets.get(id).map_or(&[][..], Vec::as_slice);
                room::draw((id, zone), beside, within, width_min)
            }),
            Node::Card(id) => plant.conduits.get(id).map(|c| {
                let card = card::Card {
                    id,
                    conduit: c,
                    class: target_class(plant, id),
                    limited: limited.contains(id),
                    known: &known,
                };
                card::draw(&card)
            }),
            Node::Lane(_) => None,
        });
    }
    let sizes: Vec<(f64, f64)> = blocks
        .iter()
        .map(|block| block.as_ref().map_or((2.0, 0.0), |b| (b.w, b.h)))
        .collect();
    let places = place::place(&rows, &sizes);

    let inner_w = places.w + GUTTER + 2.0 * BAND_PADDING;
    let w = (inner_w + 2.0 * MARGIN).max(WIDTH_MIN).ceil();
    // The rooms stand in the middle where the picture was widened.
    let left = MARGIN + GUTTER + BAND_PADDING + ((w - 2.0 * MARGIN - inner_w) / 2.0).floor();
    let top = MARGIN + HEADER_H + BAND_PADDING;

    let mut scene = Scene {
        w,
        h: 0.0,
        bands: bands(&rows, &places, top, w),
        rooms: Vec::new(),
        cards: Vec::new(),
        wires: Vec::new(),
        frame: header(plant, w),
    };
    for ((node, area), block) in rows.nodes.iter().zip(&places.nodes).zip(blocks) {
        let Some(block) = block else { continue };
        let placed = PositionedBlock {
            x: area.x + left,
            y: area.y + top,
            block,
        };
        match node {
            Node::Zone(_) => scene.rooms.push(placed),
            _ => scene.cards.push(placed),
        }
    }
    for mut wire in places.wires {
        for point in &mut wire.points {
            *point = (point.0 + left, point.1 + top);
        }
        let look = look(plant, &wire);
        scene.wires.push((wire, look));
    }
    let below = top + places.h + BAND_PADDING + 22.0;
    let foot = legend::draw(plant, digest, w - 2.0 * MARGIN);
    scene.h = (below + foot.h + MARGIN).ceil();
    scene.frame.push(PositionedBlock {
        x: MARGIN,
        y: below,
        block: foot,
    });
    scene
}

/// Flows run either way within a conduit: an end gets an arrowhead where some flow opens into its zone.
fn look(plant: &Plant, wire: &Wire) -> WireStyle {
    let class = target_class(plant, &wire.conduit);
    let Some(conduit) = plant.conduits.get(&wire.conduit) else {
        return WireStyle {
            class,
            must: false,
            tunnel: false,
            arrow: wire.half == Half::In,
        };
    };
    let zone = if wire.half == Half::In {
        &conduit.to
    } else {
        &conduit.from
    };
    let lies_in = |end: &FlowEnd| match end {
        FlowEnd::Asset(id, _) => plant.assets.get(id).is_some_and(|asset| asset.zone == *zone),
        FlowEnd::Zone(id, _) => id == zone,
    };
    WireStyle {
        class,
        must: conduit.flows.values().any(|flow| flow.must_flow),
        tunnel: conduit.tunnel,
        arrow: conduit
            .flows
            .values()
            .any(|flow| flow.destinations.iter().any(lies_in)),
    }
}

/// The class of the kind of zone that a conduit reaches: its colour.
fn target_class(plant: &Plant, conduit: &penstock_policy::ids::ConduitId) -> &'static str {
    plant
        .conduits
        .get(conduit)
        .and_then(|conduit| plant.zones.get(&conduit.to))
        .map_or("k-external", |zone| room::kind_class(zone.kind))
}

/// A band behind each layer, with its name at the side.
fn bands(rows: &order::Rows, places: &place::Places, top: f64, w: f64) -> Vec<PositionedBlock> {
    let mut spans: Vec<(order::Layer, f64, f64)> = Vec::new();
    for (layer, (y, h)) in rows.layers.iter().zip(&places.rows) {
        let Some(layer) = layer else { continue };
        match spans.last_mut() {
            Some((last, _, end)) if last == layer => *end = y + h,
            _ => spans.push((*layer, *y, y + h)),
        }
    }
    spans
        .into_iter()
        .map(|(layer, from, to)| {
            let (band_w, h) = (w - 2.0 * MARGIN, to - from + 2.0 * BAND_PADDING);
            let title = layer.title();
            let title_w = text::width(title, 11.0, Face::Bold) + 2.0 * title.len() as f64;
            // Turned by a quarter: the group's shapes are drawn by `write_turned`, the block keeps its area.
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

/// Title, plant, owner and counts.
fn header(plant: &Plant, w: f64) -> Vec<PositionedBlock> {
    let inner = w - 2.0 * MARGIN;
    let title = text::fit(&plant.title, inner, 26.0, Face::Bold);
    let mut facts = vec![plant.id.to_string()];
    if let Some(owner) = &plant.owner {
        facts.push(owner.organisation.clone());
        facts.extend(owner.contact.clone());
    }
    let counts = format!(
        "{} · {} · {} · {}",
        count(plant.zones.len(), "zone"),
        count(plant.conduits.len(), "conduit"),
        count(plant.gateways.len(), "gateway"),
        count(plant.assets.len(), "asset"),
    );
    let counts_w = text::width(&counts, 12.5, Face::Regular);
    let facts = text::fit(&facts.join(" · "), inner - counts_w - 24.0, 12.5, Face::Regular);
    let shapes = vec![
        Shape::Text(Line::new(0.0, 26.0, 26.0, Face::Bold, "ink", title)),
        Shape::Text(Line::new(0.0, 51.0, 12.5, Face::Regular, "muted", facts)),
        Shape::Text(Line::new(inner, 51.0, 12.5, Face::Regular, "muted", counts).aligned(shape::Align::End)),
        Shape::Path {
            d: format!("M0 66H{inner}"),
            class: "rule".to_owned(),
        },
    ];
    let block = Block {
        w: inner,
        h: 68.0,
        class: "header".to_owned(),
        title: String::new(),
        shapes,
    };
    vec![PositionedBlock {
        x: MARGIN,
        y: MARGIN,
        block,
    }]
}

fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

fn write(plant: &Plant, scene: &Scene) -> String {
    let mut svg = String::new();
    let (w, h) = (scene.w, scene.h);
    let title = text::escape(&format!("{}: zones and conduits", plant.title));
    let _ = writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" aria-labelledby="picture-title picture-description">"#
    );
    let _ = writeln!(svg, r#"<title id="picture-title">{title}</title>"#);
    let _ = writeln!(
        svg,
        r#"<desc id="picture-description">{}</desc>"#,
        text::escape(&description(plant))
    );
    let _ = writeln!(svg, "<style>\n{}</style>", palette::style());
    let _ = writeln!(svg, r#"<rect class="page" width="{w}" height="{h}"/>"#);
    for band in &scene.bands {
        write_turned(band, &mut svg);
    }
    for room in &scene.rooms {
        room.block.write(room.x, room.y, &mut svg);
    }
    for (wire, look) in &scene.wires {
        write_wire(wire, *look, &mut svg);
    }
    for placed in scene.cards.iter().chain(&scene.frame) {
        placed.block.write(placed.x, placed.y, &mut svg);
    }
    svg.push_str("</svg>\n");
    svg
}

/// A band: its title runs upwards.
fn write_turned(band: &PositionedBlock, svg: &mut String) {
    let _ = writeln!(
        svg,
        r#"<g class="{}" transform="translate({} {})">"#,
        band.block.class, band.x, band.y
    );
    for shape in &band.block.shapes {
        match shape {
            Shape::Text(line) => {
                let _ = writeln!(
                    svg,
                    r#"<g transform="translate({} {}) rotate(-90)">"#,
                    line.x, line.y
                );
                Shape::Text(Line {
                    x: 0.0,
                    y: 0.0,
                    ..line.clone()
                })
                .write(svg);
                svg.push_str("</g>\n");
            }
            other => other.write(svg),
        }
    }
    svg.push_str("</g>\n");
}

/// A wire; where it meets its zone an arrowhead, or a dot if flows only begin there.
fn write_wire(wire: &Wire, look: WireStyle, svg: &mut String) {
    let mut points = wire.points.clone();
    // From the card to the zone, whichever way flows run.
    if wire.half == Half::Out {
        points.reverse();
    }
    let _ = writeln!(svg, r#"<g class="way {}">"#, look.class);
    let mut head = String::new();
    if let [.., before, tip] = points.as_mut_slice() {
        if look.arrow {
            let down = if tip.1 > before.1 { 1.0 } else { -1.0 };
            let size = if look.must { 6.5 } else { 5.5 };
            let base = tip.1 - down * size * 1.9;
            head = format!(
                "M{} {}L{} {base}L{} {base}Z",
                tip.0,
                tip.1,
                tip.0 - size,
                tip.0 + size
            );
            // The line ends within the head, not at its tip, where it would show beside it.
            tip.1 = base + down * 2.0;
        } else {
            let r = if look.must { 4.0 } else { 3.2 };
            let (left, wide) = (tip.0 - r, 2.0 * r);
            head = format!(
                "M{left} {}a{r} {r} 0 1 1 {wide} 0a{r} {r} 0 1 1 -{wide} 0Z",
                tip.1
            );
        }
    }
    let path = route::path(&points, 8.0);
    let classes = match (look.must, look.tunnel) {
        (true, true) => "wire must tube",
        (true, false) => "wire must",
        (false, true) => "wire tube",
        (false, false) => "wire",
    };
    let _ = write!(svg, r#"<path class="{classes}" d="{path}"/>"#);
    if look.tunnel {
        let _ = write!(svg, r#"<path class="bore" d="{path}"/>"#);
    }
    let _ = writeln!(svg, r#"<path class="head" d="{head}"/>"#);
    svg.push_str("</g>\n");
}

/// The picture in words, for those who cannot see it.
fn description(plant: &Plant) -> String {
    let mut words = String::new();
    for (id, zone) in &plant.zones {
        let assets = plant.assets.values().filter(|asset| asset.zone == *id).count();
        let _ = write!(
            words,
            "Zone {id} ({}, {}, {}). ",
            room::kind_words(zone.kind),
            room::sl_words(zone.sl_target.as_ref()),
            count(assets, "asset")
        );
    }
    for (id, conduit) in &plant.conduits {
        let _ = write!(
            words,
            "Conduit {id} leads from {} to {}{}. ",
            conduit.from,
            conduit.to,
            match &conduit.enforced_by {
                Enforcer::Gateways if conduit.tunnel => " in a tunnel".to_owned(),
                Enforcer::Gateways => String::new(),
                Enforcer::Other(by) => format!(", enforced by {by} and by no gateway"),
                Enforcer::Nobody => ", enforced by nobody yet".to_owned(),
            }
        );
    }
    words.trim_end().to_owned()
}

#[cfg(test)]
mod tests;
