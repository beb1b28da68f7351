//! A plant's zones and conduits as a picture (SVG) for people: `penstock graph`.
//!
//! ```text
//! model::Plant ─ facts ─ sheet (what is drawn of it) ─ layout (rows, columns, wires) ─▶ Scene ─ write ─▶ SVG
//!                          room, unit, card: what is in the boxes ───────┘
//! ```
//!
//! Invariants, each a test: boxes do not overlap; no wire crosses a box; no text leaves its box or touches
//! another; everything lies in the view box; the same plant gives the same bytes; every name is escaped; the legend names
//! every mark that occurs and no other; red and amber are only for what is not as it should be. Time and memory grow with the plant, not with its
//! square. No font, script or image is referred to, so the file stands alone.

#![warn(clippy::missing_errors_doc)]

mod card;
mod facts;
mod glyph;
mod layout;
mod legend;
mod marks;
mod notice;
mod palette;
mod room;
mod scene;
mod shape;
mod sheet;
mod text;
mod unit;
mod write;

use penstock_policy::compile::compile_all;
use penstock_policy::ids::Digest;
use penstock_policy::model::Plant;

pub use sheet::View;

/// A finished picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// The SVG document.
    pub svg: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// What it shows, in words: `Overview of 101 sites, as 4 boxes`.
    pub shows: String,
    /// What it leaves out, in sentences.
    pub left_out: Vec<String>,
}

/// Draws a view of `plant`; `digest` is that of the document it was read from.
///
/// ```
/// use jiff::civil::date;
/// use penstock_picture::{View, draw};
/// use penstock_policy::diagnostics::SourceFile;
///
/// let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/waterworks/plant.yaml"));
/// let file = SourceFile::new("plant.yaml", text);
/// let plant = penstock_policy::load(&[file], date(2026, 12, 1)).plant.unwrap();
/// let picture = draw(&plant, None, &View::Fitting);
/// assert!(picture.svg.starts_with("<svg "));
/// assert_eq!(picture, draw(&plant, None, &View::Fitting), "the same plant gives the same bytes");
/// ```
pub fn draw(plant: &Plant, digest: Option<&Digest>, view: &View) -> Picture {
    // A plant that cannot be compiled has no gateway that checks anything.
    let plans = compile_all(plant).unwrap_or_default();
    let scene = scene::compose(plant, &plans, digest, view);
    Picture {
        svg: write::write(&plant.title, &scene),
        width: scene.w as u32,
        height: scene.h as u32,
        shows: scene.shows,
        left_out: scene.left_out,
    }
}

#[cfg(test)]
mod tests;
