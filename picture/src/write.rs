//! A scene as an SVG document. No font, script or image is referred to, so the file stands alone.

use std::fmt::Write as _;

use super::layout::{self, Wire};
use super::scene::{PositionedBlock, Scene, WireStyle};
use super::shape::{Line, Shape};
use super::{palette, text};

/// Writes a scene; `title` is the plant's.
pub(super) fn write(title: &str, scene: &Scene) -> String {
    let mut svg = String::new();
    let (w, h) = (scene.w, scene.h);
    let title = text::escape(&format!("{title}: zones and conduits"));
    let _ = writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" aria-labelledby="picture-title picture-description">"#
    );
    let _ = writeln!(svg, r#"<title id="picture-title">{title}</title>"#);
    let _ = writeln!(
        svg,
        r#"<desc id="picture-description">{}</desc>"#,
        text::escape(&scene.description)
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

/// A wire; where it meets its box an arrowhead, or a dot if flows only begin there.
fn write_wire(wire: &Wire, look: WireStyle, svg: &mut String) {
    let mut points = wire.points.clone();
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
    let path = layout::path(&points, 8.0);
    let mut marks = look.marks().map(|mark| mark.class);
    let head_mark = marks.next().unwrap_or_default();
    let mut classes = String::from("wire");
    for (is, class) in [(look.must, " must"), (look.tunnel, " tube")] {
        if is {
            classes.push_str(class);
        }
    }
    for mark in marks {
        classes.push(' ');
        classes.push_str(mark);
    }
    let _ = write!(svg, r#"<path class="{classes}" d="{path}"/>"#);
    if look.tunnel {
        let _ = write!(svg, r#"<path class="bore" d="{path}"/>"#);
    }
    let _ = writeln!(svg, r#"<path class="head {head_mark}" d="{head}"/>"#);
    svg.push_str("</g>\n");
}
