//! What drawing costs, by the number of stations and of zones: the overview, one site, one zone, and everything on one sheet.
//! `cargo bench -p penstock-picture`. With `PENSTOCK_PICTURES=<folder>`, it writes the documents there instead, for `penstock graph` and for eyes.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod documents;

use divan::Bencher;
use documents::{Stations, flat, read, stations};
use penstock_picture::{View, draw};
use penstock_policy::model::Plant;

/// Assets of a station.
const ASSETS: usize = 20;

fn main() {
    let Some(folder) = std::env::var_os("PENSTOCK_PICTURES") else {
        return divan::main();
    };
    let keep = |name: &str, text: String| {
        let path = std::path::Path::new(&folder).join(name);
        std::fs::write(path, text).unwrap();
    };
    for count in [200, 500, 1000] {
        keep(
            &format!("equal-{count}.yaml"),
            stations(count, ASSETS, Stations::Equal),
        );
        keep(
            &format!("different-{count}.yaml"),
            stations(count, ASSETS, Stations::Different),
        );
        keep(&format!("flat-{count}.yaml"), flat(count));
    }
}

fn measure(bencher: Bencher<'_, '_>, plant: &Plant, view: &View) {
    bencher.bench_local(|| draw(plant, None, view));
}

#[divan::bench(args = [100, 200, 1000], sample_count = 5)]
fn overview_of_equal_stations(bencher: Bencher<'_, '_>, count: usize) {
    measure(
        bencher,
        &read(stations(count, ASSETS, Stations::Equal)),
        &View::Overview,
    );
}

#[divan::bench(args = [100, 200, 1000], sample_count = 5)]
fn overview_of_different_stations(bencher: Bencher<'_, '_>, count: usize) {
    measure(
        bencher,
        &read(stations(count, ASSETS, Stations::Different)),
        &View::Overview,
    );
}

#[divan::bench(args = [200, 1000], sample_count = 5)]
fn reading_the_document_too(bencher: Bencher<'_, '_>, count: usize) {
    let text = stations(count, ASSETS, Stations::Different);
    bencher.bench_local(|| draw(&read(text.clone()), None, &View::Fitting));
}

#[divan::bench(args = [100, 200, 1000], sample_count = 5)]
fn one_site_among_stations(bencher: Bencher<'_, '_>, count: usize) {
    let view = View::Site("s-0003".parse().unwrap());
    measure(
        bencher,
        &read(stations(count, ASSETS, Stations::Different)),
        &view,
    );
}

#[divan::bench(args = [100, 200, 1000], sample_count = 5)]
fn the_centres_zone_and_all_its_neighbours(bencher: Bencher<'_, '_>, count: usize) {
    let view = View::Zone("centre".parse().unwrap());
    measure(
        bencher,
        &read(stations(count, ASSETS, Stations::Different)),
        &view,
    );
}

#[divan::bench(args = [100, 200, 1000], sample_count = 5)]
fn every_zone_of_stations_on_one_sheet(bencher: Bencher<'_, '_>, count: usize) {
    measure(
        bencher,
        &read(stations(count, ASSETS, Stations::Different)),
        &View::Whole,
    );
}

#[divan::bench(args = [250, 500, 1000, 2000], sample_count = 5)]
fn every_zone_of_one_site_on_one_sheet(bencher: Bencher<'_, '_>, zones: usize) {
    measure(bencher, &read(flat(zones)), &View::Whole);
}

#[divan::bench(args = [250, 500, 1000, 2000], sample_count = 5)]
fn overview_of_one_site_with_many_zones(bencher: Bencher<'_, '_>, zones: usize) {
    measure(bencher, &read(flat(zones)), &View::Overview);
}
