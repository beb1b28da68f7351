//! `graph`: a plant's zones and conduits as a picture: all of them, an overview, one site or one zone.

use penstock_picture::View;
use penstock_policy::document::suggest;
use penstock_policy::model::Plant;

use super::plans::{Written, not_over};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::output::Output;
use crate::{args, loading};

/// `penstock graph`.
pub(crate) fn graph(out: &Output, args: &args::Graph) -> Result<Exit, Failure> {
    let loaded = loading::load(&args.path, out)?;
    not_over(&loaded, args.out.as_deref())?;
    let view = view(&loaded.plant, args)?;
    let picture = penstock_picture::draw(&loaded.plant, Some(&loaded.digest), &view);
    let Some(file) = &args.out else {
        out.text(&picture.svg)?;
        return Ok(Exit::Done);
    };
    files::replace(file, picture.svg.as_bytes(), Mode::Shared)?;
    out.show(&Written {
        shows: Some(picture.shows),
        left_out: Some(picture.left_out),
        ..Written::of("picture", file, picture.svg.as_bytes())
    })?;
    Ok(Exit::Done)
}

/// What is to be drawn.
fn view(plant: &Plant, args: &args::Graph) -> Result<View, Failure> {
    let unknown = |noun: &str, name: &str, help: String| {
        Failure::usage(format!("the document has no {noun} `{name}`")).help(help)
    };
    if let Some(name) = &args.site {
        let known = plant.sites.keys().map(|id| id.as_str());
        let site = name.parse().ok().filter(|id| plant.sites.contains_key(id));
        return site
            .map(View::Site)
            .ok_or_else(|| unknown("site", name, suggest::help(name, known)));
    }
    if let Some(name) = &args.zone {
        let known = plant.zones.keys().map(|id| id.as_str());
        let zone = name.parse().ok().filter(|id| plant.zones.contains_key(id));
        return zone
            .map(View::Zone)
            .ok_or_else(|| unknown("zone", name, suggest::help(name, known)));
    }
    Ok(match (args.all, args.overview) {
        (true, _) => View::Whole,
        (_, true) => View::Overview,
        _ => View::Fitting,
    })
}
