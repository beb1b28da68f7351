//! The foot of the picture: what the marks in it mean, and which document was drawn.

use std::collections::BTreeSet;

use penstock_policy::ids::Digest;

use super::marks::{self, Mark, Sign};
use super::shape::{Area, Block, Line, Shape};
use super::text::{self, Face};

const ROW_H: f64 = 22.0;
const SIGN_W: f64 = 30.0;
const GAP: f64 = 18.0;

/// Draws the legend of the marks with these classes, `w` wide, and the document's digest.
pub(super) fn draw(classes: &BTreeSet<&str>, digest: Option<&Digest>, w: f64) -> Block {
    let mut shapes = vec![Shape::Path {
        d: format!("M0 0H{w}"),
        class: "rule".to_owned(),
    }];
    let mut y = 10.0;
    let mut x = 0.0;
    for mark in marks::ALL.into_iter().filter(|mark| classes.contains(mark.class)) {
        let width = SIGN_W + text::width(mark.words, 11.0, Face::Regular);
        if x > 0.0 && x + width > w {
            x = 0.0;
            y += ROW_H;
        }
        sign(mark, x, y, &mut shapes);
        shapes.push(Shape::Text(Line::new(
            x + SIGN_W,
            y + 14.0,
            11.0,
            Face::Regular,
            "muted",
            mark.words,
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

/// Draws a mark's sign, at most 26 wide and 20 high.
fn sign(mark: &Mark, x: f64, y: f64, shapes: &mut Vec<Shape>) {
    let of = |class: &str| format!("{class} {}", mark.class);
    let mut path = |d: String, class: &str| shapes.push(Shape::Path { d, class: of(class) });
    match mark.sign {
        Sign::Glyph(d, class) => shapes.push(Shape::Glyph {
            x: x + 6.0,
            y: y + 3.0,
            scale: 0.85,
            d,
            class: of(class),
        }),
        Sign::Frame => path(format!("M{} {}h22v12h-22Z", x + 1.0, y + 4.0), "glyph"),
        Sign::Dashed => path(
            format!("M{} {}h22v12h-22Z", x + 1.0, y + 4.0),
            "glyph warn-line dashed",
        ),
        Sign::Arrow => {
            path(format!("M{} {}h14", x + 2.0, y + 10.0), "glyph");
            path(format!("M{} {}l9 5 -9 5Z", x + 14.0, y + 5.0), "ink");
        }
        Sign::Dot => {
            path(format!("M{} {}h14", x + 2.0, y + 10.0), "glyph");
            path(
                format!(
                    "M{} {}a3.2 3.2 0 1 1 6.4 0a3.2 3.2 0 1 1 -6.4 0Z",
                    x + 15.0,
                    y + 10.0
                ),
                "ink",
            );
        }
        Sign::Thick => shapes.push(Shape::area(
            Area::new(x + 1.0, y + 8.5, 22.0, 3.0),
            1.0,
            of("ink"),
        )),
        Sign::Tube => {
            for side in [7.5, 11.5] {
                path(format!("M{} {}h22", x + 1.0, y + side), "glyph");
            }
        }
        Sign::Chip => shapes.push(Shape::area(
            Area::new(x + 1.0, y + 4.0, 22.0, 12.0),
            4.0,
            of("glyph"),
        )),
        Sign::Tag => shapes.push(Shape::area(
            Area::new(x + 1.0, y + 4.0, 22.0, 12.0),
            4.0,
            of("tag"),
        )),
        Sign::Stack => {
            path(format!("M{} {}h16v10h-16Z", x + 1.0, y + 7.0), "glyph");
            path(format!("M{} {}v-3h16v10h-3", x + 5.0, y + 7.0), "glyph");
        }
        Sign::Bars => {
            for (at, height) in [6.0, 6.0, 10.0, 3.0, 10.0, 6.0, 10.0].into_iter().enumerate() {
                let left = x + 1.0 + at as f64 * 3.5;
                let bar = Area::new(left, y + 15.0 - height, 2.5, height);
                shapes.push(Shape::area(bar, 0.5, of("muted")));
            }
        }
    }
}
