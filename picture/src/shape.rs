//! The few shapes that a picture is made of, with bounds, so that tests can hold them against one another.

use std::fmt::Write as _;

use super::text::{self, Face};

/// A rectangle, in pixels; `y` grows downwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    /// Left edge.
    pub(super) x: f64,
    /// Upper edge.
    pub(super) y: f64,
    /// Width.
    pub(super) w: f64,
    /// Height.
    pub(super) h: f64,
}

impl Area {
    /// A rectangle.
    pub(super) fn new(x: f64, y: f64, w: f64, h: f64) -> Self {
        Self { x, y, w, h }
    }

    /// Whether the insides of both have a point in common.
    #[cfg(test)]
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.x < other.x + other.w
            && other.x < self.x + self.w
            && self.y < other.y + other.h
            && other.y < self.y + self.h
    }

    /// Whether `inner` lies wholly within.
    #[cfg(test)]
    pub(super) fn holds(&self, inner: &Self) -> bool {
        inner.x >= self.x
            && inner.y >= self.y
            && inner.x + inner.w <= self.x + self.w
            && inner.y + inner.h <= self.y + self.h
    }

    /// The same, moved.
    #[cfg(test)]
    pub(super) fn moved(&self, x: f64, y: f64) -> Self {
        Self::new(self.x + x, self.y + y, self.w, self.h)
    }
}

/// Where a text's `x` lies in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    /// At its beginning.
    Start,
    /// In its middle.
    Middle,
    /// At its end.
    End,
}

/// One line of text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// See [`Align`].
    pub(super) x: f64,
    /// The base line.
    pub(super) y: f64,
    /// Size in pixels.
    pub(super) size: f64,
    /// Face.
    pub(super) face: Face,
    /// Alignment.
    pub(super) align: Align,
    /// Style class.
    pub(super) class: &'static str,
    /// What it says.
    pub(super) content: String,
}

impl Line {
    /// A line that begins at `x`.
    pub(super) fn new(
        x: f64,
        y: f64,
        size: f64,
        face: Face,
        class: &'static str,
        content: impl Into<String>,
    ) -> Self {
        Self {
            x,
            y,
            size,
            face,
            align: Align::Start,
            class,
            content: content.into(),
        }
    }

    /// The same, aligned otherwise.
    pub(super) fn aligned(mut self, align: Align) -> Self {
        self.align = align;
        self
    }

    /// What it covers at most.
    #[cfg(test)]
    pub(super) fn bounds(&self) -> Area {
        let width = text::width(&self.content, self.size, self.face);
        let x = match self.align {
            Align::Start => self.x,
            Align::Middle => self.x - width / 2.0,
            Align::End => self.x - width,
        };
        Area::new(x, self.y - self.size * 0.78, width, self.size)
    }
}

/// A shape.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// A rectangle with rounded corners.
    Box {
        /// Its area.
        area: Area,
        /// Radius of the corners.
        radius: f64,
        /// Style classes.
        class: String,
    },
    /// A path.
    Path {
        /// SVG path data.
        d: String,
        /// Style classes.
        class: String,
    },
    /// A glyph: path data in a 16 × 16 square, moved to a place.
    Glyph {
        /// Left edge.
        x: f64,
        /// Upper edge.
        y: f64,
        /// Edge length as a multiple of 16.
        scale: f64,
        /// SVG path data.
        d: &'static str,
        /// Style classes.
        class: String,
    },
    /// A line of text.
    Text(Line),
}

impl Shape {
    /// A box.
    pub(super) fn area(area: Area, radius: f64, class: impl Into<String>) -> Self {
        Self::Box {
            area,
            radius,
            class: class.into(),
        }
    }

    /// Its style classes.
    pub(super) fn class(&self) -> &str {
        match self {
            Self::Box { class, .. } | Self::Path { class, .. } | Self::Glyph { class, .. } => class,
            Self::Text(line) => line.class,
        }
    }

    /// Writes it as SVG.
    pub(super) fn write(&self, svg: &mut String) {
        // Writing to a `String` cannot fail.
        let _ = match self {
            Self::Box { area, radius, class } => writeln!(
                svg,
                r#"<rect class="{class}" x="{}" y="{}" width="{}" height="{}" rx="{radius}"/>"#,
                area.x, area.y, area.w, area.h
            ),
            Self::Path { d, class } => writeln!(svg, r#"<path class="{class}" d="{d}"/>"#),
            Self::Glyph {
                x,
                y,
                scale,
                d,
                class,
            } => writeln!(
                svg,
                r#"<path class="{class}" transform="translate({x} {y}) scale({scale})" d="{d}"/>"#
            ),
            Self::Text(line) => {
                let anchor = match line.align {
                    Align::Start => "",
                    Align::Middle => r#" text-anchor="middle""#,
                    Align::End => r#" text-anchor="end""#,
                };
                let face = match line.face {
                    Face::Regular => "",
                    Face::Bold => " b",
                    Face::Mono => " m",
                };
                writeln!(
                    svg,
                    r#"<text class="{}{face}" x="{}" y="{}" font-size="{}"{anchor}>{}</text>"#,
                    line.class,
                    line.x,
                    line.y,
                    line.size,
                    text::escape(&line.content)
                )
            }
        };
    }
}

/// Shapes that belong together, drawn from their own origin.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Block {
    /// Width.
    pub(super) w: f64,
    /// Height.
    pub(super) h: f64,
    /// Style classes of the group.
    pub(super) class: String,
    /// What a reader or a pointer is shown.
    pub(super) title: String,
    /// The shapes.
    pub(super) shapes: Vec<Shape>,
}

impl Block {
    /// Writes the block at a place as an SVG group.
    pub(super) fn write(&self, x: f64, y: f64, svg: &mut String) {
        let _ = writeln!(
            svg,
            r#"<g class="{}" transform="translate({x} {y})">"#,
            self.class
        );
        if !self.title.is_empty() {
            let _ = writeln!(svg, "<title>{}</title>", text::escape(&self.title));
        }
        for shape in &self.shapes {
            shape.write(svg);
        }
        svg.push_str("</g>\n");
    }
}
