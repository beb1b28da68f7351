//! The foot of the picture: what the signs mean, and which document was drawn.

use std::collections::BTreeSet;

use penstock_policy::ids::Digest;
use penstock_policy::model::Plant;
use penstock_policy::terms::Enforcement;

use super::glyph;
use super::shape::{Area, Block, Line, Shape};
use super::text::{self, Face};

const ROW_H: f64 = 22.0;
const SIGN_W: f64 = 30.0;
const GAP: f64 = 18.0;

/// One sign and its meaning.
struct LegendEntry {
    sign: fn(f64, f64, &mut Vec<Shape>),
    words: &'static str,
}

/// Draws the legend of the signs that this plant uses, `w` wide, and the document's digest.
pub(super) fn draw(plant: &Plant, digest: Option<&Digest>, w: f64) -> Block {
    let mut shapes = vec![Shape::Path {
        d: format!("M0 0H{w}"),
        class: "rule".to_owned(),
    }];
    let mut y = 10.0;
    let mut x = 0.0;
    for entry in entries(plant) {
        let width = SIGN_W + text::width(entry.words, 11.0, Face::Regular);
        if x > 0.0 && x + width > w {
            x = 0.0;
            y += ROW_H;
        }
        (entry.sign)(x, y, &mut shapes);
        shapes.push(Shape::Text(Line::new(
            x + SIGN_W,
            y + 14.0,
            11.0,
            Face::Regular,
            "muted",
            entry.words,
        )));
        x += width + GAP;
    }
    y += ROW_H + 8.0;
    let mut drawn = "Drawn by penstock graph".to_owned();
    if let Some(digest) = digest {
        drawn.push_str(&format!(" from the document {digest}"));
    }
    let drawn = text::fit(&drawn, w, 10.0, Face::Mono);
    shapes.push(Shape::Text(Line::new(
        0.0,
        y + 10.0,
        10.0,
        Face::Mono,
        "muted",
        drawn,
    )));
    Block {
        w,
        h: y + 16.0,
        class: "legend".to_owned(),
        title: String::new(),
        shapes,
    }
}

/// The signs that occur in `plant`.
fn entries(plant: &Plant) -> Vec<LegendEntry> {
    let mut entries = Vec::new();
    let flows = || plant.conduits.values().flat_map(|conduit| conduit.flows.values());
    let kinds: BTreeSet<Enforcement> = plant.zones.values().map(|zone| zone.enforcement).collect();
    entries.push(LegendEntry {
        sign: gate,
        words: "gate: the gateway that guards a conduit",
    });
    if kinds.contains(&Enforcement::Enforce) {
        entries.push(LegendEntry {
            sign: solid,
            words: "zone is enforced",
        });
    }
    if kinds.contains(&Enforcement::Observe) {
        entries.push(LegendEntry {
            sign: dashed,
            words: "zone only observes: undeclared traffic passes between such zones",
        });
    }
    entries.push(LegendEntry {
        sign: thin,
        words: "opens connections to",
    });
    if flows().any(|flow| flow.must_flow) {
        entries.push(LegendEntry {
            sign: thick,
            words: "the process needs it",
        });
    }
    if flows().any(|flow| flow.operations.is_some() && !flow.is_bridge()) {
        entries.push(LegendEntry {
            sign: lens,
            words: "only named operations pass",
        });
    }
    if flows().next().is_some() {
        entries.push(LegendEntry {
            sign: badge,
            words: "how well both ends prove who they are: D0 by address, D1 by MAC or port, D3 and D4 by certificate",
        });
    }
    if plant.conduits.values().any(|conduit| conduit.tunnel) {
        entries.push(LegendEntry {
            sign: tube,
            words: "runs in an encrypted tunnel between two gateways",
        });
    }
    if plant
        .assets
        .values()
        .any(|a| matches!(a.criticality.as_deref(), Some("high" | "safety")))
    {
        entries.push(LegendEntry {
            sign: critical,
            words: "critical asset",
        });
    }
    entries.push(LegendEntry {
        sign: bars,
        words: "security level target, IAC UC SI DC RDF TRE RA",
    });
    entries
}

fn gate(x: f64, y: f64, shapes: &mut Vec<Shape>) {
    shapes.push(Shape::Glyph {
        x: x + 6.0,
        y: y + 2.0,
        scale: 1.0,
        d: glyph::GATE,
        class: "glyph".into(),
    });
}

fn lens(x: f64, y: f64, shapes: &mut Vec<Shape>) {
    shapes.push(Shape::Glyph {
        x: x + 6.0,
        y: y + 3.0,
        scale: 0.85,
        d: glyph::LENS,
        class: "glyph".into(),
    });
}

fn badge(x: f64, y: f64, shapes: &mut Vec<Shape>) {
    shapes.push(Shape::Glyph {
        x: x + 6.0,
        y: y + 3.0,
        scale: 0.85,
        d: glyph::BADGE,
        class: "glyph".into(),
    });
}

fn solid(x: f64, y: f64, shapes: &mut Vec<Shape>) {
    shapes.push(Shape::Path {
        d: format!("M{} {}h22v12h-22Z", x + 1.0, y + 4.0),
        class: "glyph".into(),
    });
}

fn dashed(x: f64, y: f64, shapes: &mut Vec<Shape>) {
    let d = format!(
        "M{} {}h4m4 0h5m4 0h4v4m0 4v4h-4m-4 0h-5m-4 0h-4v-4m0 -4v-4",
        x + 1.0,
        y + 4.0
    );
    shapes.push(Shape::Path {
        d,
        class: "glyph".into(),
    });
}

fn thin(x: f64, y: f64, shapes: &mut Vec<Shape>) {
    let d = format!("M{} {}h20m-5 -4 5 4 -5 4", x + 2.0, y + 10.0);
    shapes.push(Shape::Path {
        d,
        class: "glyph".into(),
    });
}

fn thick(x: f64, y: f64, shapes: &mut Vec<Shape>) {
    shapes.push(Shape::area(Area::new(x + 1.0, y + 8.5, 16.0, 3.0), 1.0, "ink"));
    let d = format!("M{} {}l8 5 -8 5Z", x + 15.0, y + 5.0);
    shapes.push(Shape::Path {
        d,
        class: "ink".into(),
    });
}

fn tube(x: f64, y: f64, shapes: &mut Vec<Shape>) {
    for side in [7.5, 11.5] {
        shapes.push(Shape::Path {
            d: format!("M{} {}h22", x + 1.0, y + side),
            class: "glyph".into(),
        });
    }
}

fn critical(x: f64, y: f64, shapes: &mut Vec<Shape>) {
    shapes.push(Shape::area(Area::new(x + 1.0, y + 4.0, 22.0, 12.0), 4.0, "glyph"));
}

fn bars(x: f64, y: f64, shapes: &mut Vec<Shape>) {
    for (at, height) in [6.0, 6.0, 10.0, 3.0, 10.0, 6.0, 10.0].into_iter().enumerate() {
        let left = x + 1.0 + at as f64 * 3.5;
        shapes.push(Shape::area(
            Area::new(left, y + 15.0 - height, 2.5, height),
            0.5,
            "muted",
        ));
    }
}
