//! Sites and zones as cards: one, several equal ones as one card, and those for which there is no room in a list.

use penstock_policy::ids::ConduitId;
use penstock_policy::model::{Conduit, SlVector, Zone};
use penstock_policy::terms::Enforcement;

use super::facts::{Facts, Notice, count, some_names};
use super::shape::{Align, Area, Block, Line, Shape};
use super::sheet::{Cluster, Unit, UnitName};
use super::text::{self, Face};
use super::{marks, notice, room};

const WIDTH: f64 = 320.0;
const PADDING: f64 = 14.0;
/// How far the card behind stands out.
const STACK: f64 = 7.0;
/// Names on a card that stands for several.
const NAMES_MAX: usize = 3;
/// A long title widens its card up to this.
const TITLE_WIDTH_MAX: f64 = 440.0;
/// A line of a list: its least and its greatest width, its height, and what is free around it.
const ENTRY_W_MIN: f64 = 232.0;
const ENTRY_W_MAX: f64 = 300.0;
const ENTRY_H: f64 = 38.0;
const ENTRY_GAP: f64 = 8.0;

/// Conduits between different units of one box.
type Among<'s, 'a> = &'s [(&'a ConduitId, &'a Conduit)];

/// What is said of a unit: counts of what is in it, and what is wrong there.
struct Summary<'a> {
    zones: Vec<&'a Zone>,
    assets: usize,
    gateways: usize,
    roles: String,
    notices: Vec<Notice>,
}

impl<'a> Summary<'a> {
    fn of(facts: &Facts<'a>, unit: &Unit<'a>) -> Self {
        let zones = || unit.zones.iter().copied();
        let assets = || {
            zones()
                .flat_map(|zone| facts.assets_of(zone))
                .map(|(_, asset)| *asset)
        };
        let gateways = match unit.name {
            UnitName::Site(site) => facts.gateways_of(site),
            UnitName::Zone(_) => &[],
        };
        let mut notices: Vec<Notice> = zones().flat_map(|zone| facts.of_zone(zone)).cloned().collect();
        notices.extend(gateways.iter().flat_map(|id| facts.of_gateway(id)).cloned());
        for id in &unit.inside {
            notices.extend(facts.of_conduit(id).iter().cloned());
            notices.extend(facts.unguarded(id));
        }
        let zones: Vec<&'a Zone> = zones().filter_map(|zone| facts.plant.zones.get(zone)).collect();
        let observing = zones
            .iter()
            .filter(|zone| zone.enforcement == Enforcement::Observe)
            .count();
        if observing > 0 && matches!(unit.name, UnitName::Site(_)) {
            notices.push(Notice {
                error: false,
                words: format!("only observing: {observing} of {}", count(zones.len(), "zone")),
                sentence: "undeclared traffic passes between zones that only observe".to_owned(),
            });
        }
        Self {
            assets: assets().count(),
            gateways: gateways.len(),
            roles: room::roles(assets()),
            notices,
            zones,
        }
    }

    /// `1 zone · 1 gateway · 20 assets · 2 conduits inside`.
    fn counts(&self, unit: &Unit<'_>) -> String {
        let mut counts = Vec::new();
        if matches!(unit.name, UnitName::Site(_)) {
            counts.push(count(self.zones.len(), "zone"));
            counts.push(count(self.gateways, "gateway"));
        }
        counts.push(count(self.assets, "asset"));
        if !unit.inside.is_empty() {
            counts.push(format!("{} inside", count(unit.inside.len(), "conduit")));
        }
        counts.join(" · ")
    }

    /// `2 control, 1 safety · SL-T 1–3`.
    fn kinds(&self) -> String {
        let mut kinds: Vec<(&str, usize)> = Vec::new();
        for zone in &self.zones {
            let kind = room::kind_words(zone.kind);
            match kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, n)) => *n += 1,
                None => kinds.push((kind, 1)),
            }
        }
        let kinds: Vec<String> = kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        let mut targets: Vec<String> = self
            .zones
            .iter()
            .map(|zone| room::sl_words(zone.sl_target.as_ref()))
            .collect();
        targets.sort();
        targets.dedup();
        format!("{} · {}", kinds.join(", "), targets.join(", "))
    }
}

/// What a unit is called for people.
fn title<'a>(facts: &Facts<'a>, unit: &Unit<'a>) -> &'a str {
    let title = match unit.name {
        UnitName::Site(id) => facts.plant.sites.get(id).map(|site| site.title.as_str()),
        UnitName::Zone(id) => facts.plant.zones.get(id).map(|zone| zone.title.as_str()),
    };
    title
        .filter(|title| !title.is_empty())
        .unwrap_or(unit.name.as_str())
}

/// The style class of a unit's kind.
pub(super) fn class(facts: &Facts<'_>, unit: &Unit<'_>) -> &'static str {
    match unit.name {
        UnitName::Site(_) => "k-site",
        UnitName::Zone(id) => facts
            .plant
            .zones
            .get(id)
            .map_or("k-site", |zone| room::kind_class(zone.kind)),
    }
}

/// What is not as it should be in equal units, in short, for those who cannot see it; `None` where all is well.
pub(super) fn remark(facts: &Facts<'_>, cluster: &Cluster<'_>) -> Option<String> {
    let zones = cluster.first().into_iter().flat_map(|unit| &unit.zones);
    let mut zones = zones.filter_map(|zone| facts.plant.zones.get(*zone));
    // Of a site it is one of the notices.
    let observes = matches!(cluster.first()?.name, UnitName::Zone(_))
        && zones.any(|zone| zone.enforcement == Enforcement::Observe);
    let notices: Vec<Notice> = cluster
        .units
        .iter()
        .flat_map(|unit| Summary::of(facts, unit).notices)
        .collect();
    notice::in_short(observes, &notices)
}

/// Draws equal units as one card.
pub(super) fn draw(facts: &Facts<'_>, cluster: &Cluster<'_>, among: Among<'_, '_>, width_min: f64) -> Block {
    let Some(unit) = cluster.first() else {
        return list(facts, &[], among, width_min);
    };
    let (summary, times) = (Summary::of(facts, unit), cluster.units.len());
    let title_w = text::width(title(facts, unit), 15.0, Face::Bold) + room::BADGE_W + 2.0 * PADDING + 80.0;
    let w = WIDTH.max(title_w.min(TITLE_WIDTH_MAX)).max(width_min);
    let mut shapes = Vec::new();
    head(facts, unit, &summary, times, w, &mut shapes);
    let names = || some_names(cluster.units.iter().map(|unit| unit.name.as_str()), NAMES_MAX);
    let about = match (unit.name, summary.zones.as_slice()) {
        (UnitName::Site(_), _) if times > 1 => format!("{times} equal sites: {}", names()),
        (UnitName::Site(id), _) => format!("site {id}"),
        (UnitName::Zone(_), [zone, ..]) if times > 1 => {
            format!(
                "{times} equal zones, {}: {}",
                room::kind_words(zone.kind),
                names()
            )
        }
        (UnitName::Zone(id), [zone, ..]) => room::about(id, zone),
        (UnitName::Zone(id), []) => id.to_string(),
    };
    let each = if times > 1 { "each " } else { "" };
    let mut lines = vec![
        (11.0, "tint", about),
        (10.5, "muted", format!("{each}{}", summary.counts(unit))),
    ];
    match (unit.name, unit.zones.as_slice()) {
        (UnitName::Site(_), _) => lines.push((10.5, "muted", summary.kinds())),
        (UnitName::Zone(_), [zone]) if times == 1 => {
            let site = facts.site_of.get(zone).filter(|_| facts.gateways.len() > 1);
            lines.extend(site.map(|site| (10.5, "muted", format!("at site {site}"))));
        }
        (UnitName::Zone(_), _) => {}
    }
    lines.push((10.5, "muted", summary.roles.clone()));
    if !among.is_empty() {
        lines.push((
            10.5,
            "muted",
            format!("{} among them", count(among.len(), "conduit")),
        ));
    }
    let mut y = 43.0;
    // The first line ends before the badge, if there is one.
    let mut line_w = match unit.name {
        UnitName::Site(_) => w - 2.0 * PADDING,
        UnitName::Zone(_) => w - 2.0 * PADDING - room::BADGE_W - 10.0,
    };
    for (size, class, words) in lines.into_iter().filter(|(_, _, words)| !words.is_empty()) {
        let words = text::fit(&words, line_w, size, Face::Regular);
        line_w = w - 2.0 * PADDING;
        shapes.push(Shape::Text(Line::new(
            PADDING,
            y,
            size,
            Face::Regular,
            class,
            words,
        )));
        y += 15.0;
    }
    let notices = with_among(
        facts,
        cluster.units.iter().map(|unit| Summary::of(facts, unit).notices),
        among,
    );
    if let Some((error, words)) = notice::summary(&notices) {
        notice::draw((error, &words), PADDING, y - 8.0, w - 2.0 * PADDING, &mut shapes);
        y += 18.0;
    }
    let h = y.max(62.0);
    let stack = frames(w, h, times, &summary, unit, &mut shapes);
    let observe = match (unit.name, summary.zones.as_slice()) {
        (UnitName::Zone(_), [zone, ..]) => room::mode(zone.enforcement).0,
        _ => "",
    };
    Block {
        w: w + stack,
        h: h + stack,
        class: format!("unit {}{observe}", class(facts, unit)),
        title: format!(
            "{}: {}.{}",
            title(facts, unit),
            names(),
            notice::sentences(&notices)
        ),
        shapes,
    }
}

/// Sign, title, number and level.
fn head(
    facts: &Facts<'_>,
    unit: &Unit<'_>,
    summary: &Summary<'_>,
    times: usize,
    w: f64,
    shapes: &mut Vec<Shape>,
) {
    let mut left = PADDING;
    let mut right = w - PADDING;
    match (unit.name, summary.zones.as_slice()) {
        (UnitName::Zone(_), [zone, ..]) => {
            let target: Option<&SlVector> = zone.sl_target.as_ref();
            room::badge(target, right - room::BADGE_W, 10.0, shapes);
            right -= room::BADGE_W + 10.0;
        }
        (UnitName::Zone(_), []) => {}
        (UnitName::Site(_), _) => {
            shapes.push(Shape::Glyph {
                x: left,
                y: 11.0,
                scale: 1.1,
                d: marks::SITE.d(),
                class: format!("glyph {}", marks::SITE.class),
            });
            left += 26.0;
        }
    }
    if times > 1 {
        let words = format!("× {times}");
        let size = 17.0;
        let width = text::width(&words, size, Face::Bold);
        let line = Line::new(right, 27.0, size, Face::Bold, "ink", words);
        shapes.push(Shape::Text(line.aligned(Align::End)));
        right -= width + 10.0;
    }
    let words = text::fit(title(facts, unit), right - left, 15.0, Face::Bold);
    shapes.push(Shape::Text(Line::new(left, 26.0, 15.0, Face::Bold, "ink", words)));
}

/// The card's frame, and behind it another one where it stands for several; how far that stands out.
fn frames(
    w: f64,
    h: f64,
    times: usize,
    summary: &Summary<'_>,
    unit: &Unit<'_>,
    shapes: &mut Vec<Shape>,
) -> f64 {
    let class = match (unit.name, summary.zones.as_slice()) {
        (UnitName::Zone(_), [zone, ..]) => format!("frame {}", room::mode(zone.enforcement).1),
        _ => "frame".to_owned(),
    };
    let area = Area::new(0.0, 0.0, w, h);
    shapes.insert(0, Shape::area(area, 10.0, class));
    if times <= 1 {
        return 0.0;
    }
    let behind = Area::new(STACK, STACK, w, h);
    shapes.insert(
        0,
        Shape::area(behind, 10.0, format!("frame {}", marks::STACK.class)),
    );
    STACK
}

/// All that is wrong in units and with the conduits among them.
fn with_among(
    facts: &Facts<'_>,
    own: impl Iterator<Item = Vec<Notice>>,
    among: Among<'_, '_>,
) -> Vec<Notice> {
    let mut notices: Vec<Notice> = own.flatten().collect();
    for (id, _) in among {
        notices.extend(facts.of_conduit(id).iter().cloned());
        notices.extend(facts.unguarded(id));
    }
    notices
}

/// Draws units that differ, each with its title and its counts.
pub(super) fn list(
    facts: &Facts<'_>,
    clusters: &[Cluster<'_>],
    among: Among<'_, '_>,
    width_min: f64,
) -> Block {
    let units: usize = clusters.iter().map(|cluster| cluster.units.len()).sum();
    let is_site =
        |cluster: &Cluster<'_>| matches!(cluster.first().map(|unit| unit.name), Some(UnitName::Site(_)));
    let noun = if clusters.iter().all(is_site) {
        "site"
    } else {
        "zone"
    };
    // About three wide to two high.
    let widths = clusters
        .iter()
        .filter_map(|cluster| cluster.first())
        .map(|unit| text::width(title(facts, unit), 12.0, Face::Bold) + 60.0);
    let entry_w = widths.fold(ENTRY_W_MIN, f64::max).min(ENTRY_W_MAX);
    let wide = (clusters.len() as f64 * 1.5 * ENTRY_H / entry_w)
        .sqrt()
        .ceil()
        .max(2.0);
    let columns = wide.max(((width_min - 2.0 * PADDING) / (entry_w + ENTRY_GAP)).ceil());
    let w = columns * (entry_w + ENTRY_GAP) - ENTRY_GAP + 2.0 * PADDING;
    let columns = columns as usize;
    let mut shapes = Vec::new();
    let room = w - 2.0 * PADDING;
    let words = text::fit(&count(units, noun), room, 15.0, Face::Bold);
    shapes.push(Shape::Text(Line::new(
        PADDING,
        26.0,
        15.0,
        Face::Bold,
        "ink",
        words,
    )));
    let mut facts_line = "drawn without their zones and assets".to_owned();
    if noun == "zone" {
        facts_line = "drawn without their assets".to_owned();
    }
    if !among.is_empty() {
        facts_line.push_str(&format!(" · {} among them", count(among.len(), "conduit")));
    }
    let facts_line = text::fit(&facts_line, room, 11.0, Face::Regular);
    shapes.push(Shape::Text(Line::new(
        PADDING,
        43.0,
        11.0,
        Face::Regular,
        "tint",
        facts_line,
    )));
    let mut top = 54.0;
    let outer = with_among(facts, std::iter::empty(), among);
    if let Some((error, words)) = notice::summary(&outer) {
        notice::draw((error, &words), PADDING, top, room, &mut shapes);
        top += 20.0;
    }
    for (at, cluster) in clusters.iter().enumerate() {
        let x = PADDING + (at % columns) as f64 * (entry_w + ENTRY_GAP);
        let y = top + (at / columns) as f64 * (ENTRY_H + ENTRY_GAP);
        entry(facts, cluster, Area::new(x, y, entry_w, ENTRY_H), &mut shapes);
    }
    let rows = clusters.len().div_ceil(columns.max(1)) as f64;
    let h = top + rows * (ENTRY_H + ENTRY_GAP) - ENTRY_GAP + PADDING;
    shapes.insert(0, Shape::area(Area::new(0.0, 0.0, w, h), 10.0, "frame"));
    Block {
        w,
        h,
        class: "unit k-site".to_owned(),
        title: count(units, noun),
        shapes,
    }
}

/// One line of a list.
fn entry(facts: &Facts<'_>, cluster: &Cluster<'_>, area: Area, shapes: &mut Vec<Shape>) {
    let Some(unit) = cluster.first() else { return };
    let summary = Summary::of(facts, unit);
    let wrong = notice::summary(&summary.notices);
    shapes.push(Shape::area(area, 6.0, "chip"));
    let mut room = area.w - 16.0;
    if let Some((error, _)) = wrong {
        notice::sign(error, area.x + area.w - 20.0, area.y + 5.0, shapes);
        room -= 18.0;
    }
    let times = match cluster.units.len() {
        1 => String::new(),
        times => format!("× {times} "),
    };
    let words = text::fit(&format!("{times}{}", title(facts, unit)), room, 12.0, Face::Bold);
    let (x, y) = (area.x + 8.0, area.y);
    shapes.push(Shape::Text(Line::new(
        x,
        y + 16.0,
        12.0,
        Face::Bold,
        "ink",
        words,
    )));
    // First, as the end of it may be cut off.
    let mut zones = summary.zones.iter();
    let observes = zones.any(|zone| zone.enforcement == Enforcement::Observe);
    let observes = if observes { "observe only · " } else { "" };
    let (ink, rest) = match wrong {
        Some((error, words)) => (notice::ink(error), words),
        None => ("muted", summary.counts(unit)),
    };
    let said = format!("{observes}{} · {rest}", unit.name.as_str());
    let said = text::fit(&said, area.w - 16.0, 9.5, Face::Regular);
    shapes.push(Shape::Text(Line::new(x, y + 30.0, 9.5, Face::Regular, ink, said)));
}
