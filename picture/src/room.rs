//! A zone as a room: its title, what it is, its security level, and the assets that live in it.

use std::collections::BTreeMap;

use penstock_policy::ids::{AssetId, ZoneId};
use penstock_policy::model::{Asset, SlVector, Zone, ZoneKind};
use penstock_policy::neighbours::Neighbours;
use penstock_policy::terms::Enforcement;

use super::facts::{Facts, Notice, count};
use super::shape::{Align, Area, Block, Line, Shape};
use super::text::{self, Face};
use super::{marks, notice};

/// Zones that a tooltip names of those beside one: all of them would be as much text as there are pairs of zones.
const NEIGHBOURS_NAMED: usize = 6;
/// Most assets drawn one by one; the rest are counted by role.
const ASSETS_MAX: usize = 16;
const CHIP_W: f64 = 176.0;
const CHIP_H: f64 = 38.0;
const CHIP_GAP: f64 = 8.0;
const PADDING: f64 = 14.0;
const WIDTH_MIN: f64 = 280.0;
/// A long title widens its room up to this.
const TITLE_WIDTH_MAX: f64 = 440.0;
/// The badge's width.
pub(super) const BADGE_W: f64 = 74.0;
const HEADER_H: f64 = 62.0;

/// Draws a zone at least `width_min` wide; `beside` says what becomes of its undeclared traffic.
pub(super) fn draw(
    (id, zone): (&ZoneId, &Zone),
    beside: &Neighbours,
    facts: &Facts<'_>,
    width_min: f64,
) -> Block {
    let (assets, notices) = (facts.assets_of(id), facts.of_zone(id));
    let columns: usize = match assets.len() {
        0 | 1 => 1,
        2..=4 => 2,
        5..=9 => 3,
        _ => 4,
    };
    let wanted = columns as f64 * (CHIP_W + CHIP_GAP) - CHIP_GAP + 2.0 * PADDING;
    let title_w =
        text::width(&zone.title, 15.0, Face::Bold).max(text::width(&about(id, zone), 11.0, Face::Regular))
            + BADGE_W
            + 10.0
            + 2.0 * PADDING;
    let w = wanted
        .max(WIDTH_MIN)
        .max(title_w.min(TITLE_WIDTH_MAX))
        .max(width_min);
    let chip_w = ((w - 2.0 * PADDING + CHIP_GAP) / columns as f64 - CHIP_GAP).floor();
    let mut shapes = Vec::new();
    header(id, zone, w, &mut shapes);

    let shown = assets.get(..ASSETS_MAX.min(assets.len())).unwrap_or_default();
    for (at, (name, asset)) in shown.iter().enumerate() {
        let x = PADDING + (at % columns) as f64 * (chip_w + CHIP_GAP);
        let y = HEADER_H + 10.0 + (at / columns) as f64 * (CHIP_H + CHIP_GAP);
        chip(name, asset, Area::new(x, y, chip_w, CHIP_H), &mut shapes);
    }
    let chip_rows = shown.len().div_ceil(columns);
    let mut h = HEADER_H + 10.0 + chip_rows as f64 * (CHIP_H + CHIP_GAP);
    let hidden = assets.get(ASSETS_MAX..).unwrap_or_default();
    let remark = if !hidden.is_empty() {
        Some(format!(
            "and {} more: {}",
            hidden.len(),
            roles(hidden.iter().map(|(_, asset)| *asset))
        ))
    } else if assets.is_empty() {
        Some("no assets recorded".to_owned())
    } else {
        None
    };
    if let Some(remark) = remark {
        let remark = text::fit(&remark, w - 2.0 * PADDING, 11.0, Face::Regular);
        shapes.push(Shape::Text(Line::new(
            PADDING,
            h + 12.0,
            11.0,
            Face::Regular,
            "muted",
            remark,
        )));
        h += 20.0;
    }
    if let Some((error, words)) = notice::summary(notices) {
        notice::draw((error, &words), PADDING, h, w - 2.0 * PADDING, &mut shapes);
        h += 24.0;
    }
    h += PADDING - CHIP_GAP;

    let (observed, mark) = mode(zone.enforcement);
    let frame = Shape::area(Area::new(0.0, 0.0, w, h), 10.0, format!("frame {mark}"));
    shapes.insert(0, frame);
    Block {
        w,
        h,
        class: format!("room {}{observed}", kind_class(zone.kind)),
        title: tooltip(id, zone, beside, assets.len(), notices),
        shapes,
    }
}

/// The style classes of a zone's group and of its frame.
pub(super) fn mode(enforcement: Enforcement) -> (&'static str, &'static str) {
    match enforcement {
        Enforcement::Enforce => ("", marks::ENFORCED.class),
        Enforcement::Observe => (" observe", marks::OBSERVED.class),
    }
}

/// Name, kind, and what else sets the zone apart.
pub(super) fn about(id: &ZoneId, zone: &Zone) -> String {
    let mut facts = format!("{id} · {}", kind_words(zone.kind));
    if let Some(parent) = &zone.parent {
        facts.push_str(&format!(" · in {parent}"));
    }
    if zone.enforcement == Enforcement::Observe {
        facts.push_str(" · observe only");
    }
    facts
}

/// Title, facts and badge.
fn header(id: &ZoneId, zone: &Zone, w: f64, shapes: &mut Vec<Shape>) {
    let title_room = w - 2.0 * PADDING - BADGE_W - 10.0;
    let title = text::fit(&zone.title, title_room, 15.0, Face::Bold);
    shapes.push(Shape::Text(Line::new(
        PADDING,
        26.0,
        15.0,
        Face::Bold,
        "ink",
        title,
    )));
    let about = text::fit(&about(id, zone), title_room, 11.0, Face::Regular);
    shapes.push(Shape::Text(Line::new(
        PADDING,
        43.0,
        11.0,
        Face::Regular,
        "tint",
        about,
    )));
    let mut ground: Vec<String> = Vec::new();
    match zone.networks.as_slice() {
        [] => {}
        [one] => ground.push(one.to_string()),
        [first, rest @ ..] => ground.push(format!("{first} +{}", rest.len())),
    }
    ground.extend(zone.accountable.clone());
    let ground = text::fit(&ground.join(" · "), w - 2.0 * PADDING, 10.5, Face::Regular);
    if !ground.is_empty() {
        shapes.push(Shape::Text(Line::new(
            PADDING,
            58.0,
            10.5,
            Face::Regular,
            "muted",
            ground,
        )));
    }
    badge(zone.sl_target.as_ref(), w - PADDING - BADGE_W, 10.0, shapes);
}

/// The target security level in words, and a bar for each foundational requirement.
pub(super) fn badge(target: Option<&SlVector>, x: f64, y: f64, shapes: &mut Vec<Shape>) {
    let class = format!("badge {}", marks::LEVEL.class);
    shapes.push(Shape::area(Area::new(x, y, BADGE_W, 37.0), 6.0, class));
    let words = sl_words(target);
    shapes.push(Shape::Text(
        Line::new(x + BADGE_W / 2.0, y + 14.0, 11.0, Face::Bold, "ink", words).aligned(Align::Middle),
    ));
    for (at, level) in levels(target).into_iter().enumerate() {
        let left = x + 8.5 + at as f64 * 8.5;
        let base = y + 33.0;
        shapes.push(Shape::area(
            Area::new(left, base - 14.0, 6.0, 14.0),
            1.0,
            "bar-ground",
        ));
        if level > 0 {
            let height = f64::from(level.min(4)) * 3.5;
            shapes.push(Shape::area(
                Area::new(left, base - height, 6.0, height),
                1.0,
                "bar",
            ));
        }
    }
}

fn levels(target: Option<&SlVector>) -> [u8; 7] {
    target.map_or([0; 7], |v| [v.iac, v.uc, v.si, v.dc, v.rdf, v.tre, v.ra])
}

/// `SL-T 2`, `SL-T 1–3`, or that there is none.
pub(super) fn sl_words(target: Option<&SlVector>) -> String {
    let Some(target) = target else {
        return "no SL-T".to_owned();
    };
    let levels = levels(Some(target));
    let (low, high) = (
        levels.iter().min().copied().unwrap_or(0),
        levels.iter().max().copied().unwrap_or(0),
    );
    if low == high {
        format!("SL-T {low}")
    } else {
        format!("SL-T {low}–{high}")
    }
}

/// An asset: glyph, name, role and address.
fn chip(name: &AssetId, asset: &Asset, area: Area, shapes: &mut Vec<Shape>) {
    let critical = match asset.criticality.as_deref() {
        Some("safety" | "high") => format!(" critical {}", marks::CRITICAL.class),
        _ => String::new(),
    };
    shapes.push(Shape::area(area, 6.0, format!("chip{critical}")));
    let mark = marks::of_role(asset.role.as_deref());
    shapes.push(Shape::Glyph {
        x: area.x + 9.0,
        y: area.y + 10.0,
        scale: 1.125,
        d: mark.d(),
        class: format!("glyph {}", mark.class),
    });
    let room = area.w - 36.0 - 8.0;
    let title = text::fit(name.as_str(), room, 12.0, Face::Bold);
    shapes.push(Shape::Text(Line::new(
        area.x + 36.0,
        area.y + 16.0,
        12.0,
        Face::Bold,
        "ink",
        title,
    )));
    let address = asset.addresses.first().map(ToString::to_string);
    let facts: Vec<String> = address.into_iter().chain(asset.role.clone()).collect();
    let facts = text::fit(&facts.join(" · "), room, 9.5, Face::Regular);
    if !facts.is_empty() {
        let line = Line::new(area.x + 36.0, area.y + 30.0, 9.5, Face::Regular, "muted", facts);
        shapes.push(Shape::Text(line));
    }
}

/// `12 sensor, 3 plc`, the most frequent first.
pub(super) fn roles<'a>(assets: impl IntoIterator<Item = &'a Asset>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for asset in assets {
        *counts
            .entry(asset.role.as_deref().unwrap_or("asset"))
            .or_default() += 1;
    }
    let mut counts: Vec<(usize, &str)> = counts.into_iter().map(|(role, n)| (n, role)).collect();
    counts.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    counts
        .iter()
        .map(|(n, role)| format!("{n} {role}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn tooltip(id: &ZoneId, zone: &Zone, beside: &Neighbours, assets: usize, notices: &[Notice]) -> String {
    let mut words = format!(
        "Zone {id}: {} ({}), {}",
        zone.title,
        kind_words(zone.kind),
        count(assets, "asset")
    );
    if let Some(v) = &zone.sl_target {
        words.push_str(&format!(
            ". SL-T IAC {} UC {} SI {} DC {} RDF {} TRE {} RA {}",
            v.iac, v.uc, v.si, v.dc, v.rdf, v.tre, v.ra
        ));
    }
    if !notices.is_empty() {
        words.push('.');
        words.push_str(notice::sentences(notices).trim_end_matches('.'));
    }
    let mode = match zone.enforcement {
        Enforcement::Enforce => "Enforced",
        Enforcement::Observe => "Observed only",
    };
    let undeclared = beside.undeclared_naming(zone.enforcement, NEIGHBOURS_NAMED);
    words.push_str(&format!(". {mode}: {undeclared}."));
    words
}

/// The style class of a kind of zone.
pub(super) fn kind_class(kind: ZoneKind) -> &'static str {
    match kind {
        ZoneKind::Enterprise => "k-enterprise",
        ZoneKind::Dmz => "k-dmz",
        ZoneKind::Operations => "k-operations",
        ZoneKind::Control => "k-control",
        ZoneKind::Safety => "k-safety",
        ZoneKind::Wireless => "k-wireless",
        ZoneKind::RemoteAccess => "k-remote",
        ZoneKind::Transient => "k-transient",
        ZoneKind::External => "k-external",
    }
}

/// The kind in words.
pub(super) fn kind_words(kind: ZoneKind) -> &'static str {
    match kind {
        ZoneKind::Enterprise => "enterprise",
        ZoneKind::Dmz => "DMZ",
        ZoneKind::Operations => "operations",
        ZoneKind::Control => "control",
        ZoneKind::Safety => "safety",
        ZoneKind::Wireless => "wireless",
        ZoneKind::RemoteAccess => "remote access",
        ZoneKind::Transient => "transient",
        ZoneKind::External => "external",
    }
}
