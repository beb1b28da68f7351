//! The example plants and the demo's own hold without an error, a warning or a finding that a person would have to weigh.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs;
use std::path::{Path, PathBuf};

use jiff::civil::date;
use penstock_policy::check::{Severity, check};
use penstock_policy::compile::compile_all;
use penstock_policy::diagnostics::{SourceFile, Style};
use penstock_policy::load;
use penstock_policy::model::Plant;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn files(folder: &Path) -> Vec<SourceFile> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "yaml") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            files.push(SourceFile {
                name,
                text: fs::read_to_string(&path).unwrap(),
            });
        }
    }
    assert!(!files.is_empty(), "{} holds no document", folder.display());
    files
}

/// Loads, compiles and checks; fails with everything that was found.
fn holds(files: &[SourceFile]) -> Plant {
    let loaded = load(files, date(2027, 1, 1));
    assert!(
        loaded.diagnostics.is_empty(),
        "\n{}",
        loaded.diagnostics.render(Style::Graphical {
            colour: false,
            width: 110
        })
    );
    let plant = loaded.plant.unwrap();
    let plans = compile_all(&plant).unwrap();
    let findings: Vec<_> = check(&plant, &plans, None)
        .into_iter()
        .filter(|finding| finding.severity != Severity::Note)
        .map(|finding| format!("{} {} {}", finding.code, finding.words, finding.help))
        .collect();
    assert!(findings.is_empty(), "{}: {findings:#?}", plant.id);
    plant
}

#[test]
fn every_example_plant_holds_without_a_warning() {
    let mut plants = 0;
    for entry in fs::read_dir(repository().join("deploy/examples")).unwrap() {
        let plant = holds(&files(&entry.unwrap().path()));
        assert!(
            plant.conduits.len() >= 3 && plant.zones.len() >= 3,
            "{} shows too little",
            plant.id
        );
        plants += 1;
    }
    assert!(plants >= 3, "only {plants} examples");
}

#[test]
fn the_packaging_line_sits_in_the_wire_and_observes_before_it_enforces() {
    use penstock_policy::terms::{Enforcement, GatewayMode};
    let plant = holds(&files(&repository().join("deploy/examples/packaging-line")));
    assert!(
        plant
            .gateways
            .values()
            .all(|gateway| gateway.mode == GatewayMode::Bridged)
    );
    let observing = plant
        .zones
        .values()
        .filter(|zone| zone.enforcement == Enforcement::Observe)
        .count();
    assert!(observing > 0 && observing < plant.zones.len());
}

#[test]
fn the_substation_speaks_both_families_across_two_gateways() {
    let plant = holds(&files(&repository().join("deploy/examples/substation")));
    assert_eq!(plant.gateways.len(), 2);
    assert!(plant.conduits.values().any(|conduit| conduit.via.len() == 2));
    assert!(
        plant
            .assets
            .values()
            .any(|asset| asset.addresses.iter().any(|address| address.is_ipv6()))
    );
}

#[test]
fn the_demos_document_holds_with_and_without_the_flow_that_it_revokes() {
    let folder = repository().join("ctl/src/demo/plant");
    let text = fs::read_to_string(folder.join("plant.yaml")).unwrap();
    let mut text = text;
    for (mark, key) in [
        (
            "@j.meyer@",
            "ed25519:62d25b059a952ef7cb92b20c4d0b2706e04a3686592b14d9a713cb81bc58e718",
        ),
        (
            "@a.silva@",
            "ed25519:8142899829d38d0f3bec25a6be45e90ea4c9c9382fa1fb20673a186a2f4137fd",
        ),
        (
            "@k.ito@",
            "ed25519:0ac89f326ec1a4d2cfe9fa3a92deab2eabf9e532f72b39c14830d1a03edce4c8",
        ),
    ] {
        assert!(text.contains(mark));
        text = text.replace(mark, key);
    }
    let with = holds(&[SourceFile {
        name: "plant.yaml".to_owned(),
        text: text.clone(),
    }]);
    let (before, rest) = text.split_once("      # begin archive\n").unwrap();
    let (_, after) = rest.split_once("# end archive\n").unwrap();
    let without = holds(&[SourceFile {
        name: "plant.yaml".to_owned(),
        text: format!("{before}{after}"),
    }]);
    let flows = |plant: &Plant| {
        plant
            .conduits
            .values()
            .map(|conduit| conduit.flows.len())
            .sum::<usize>()
    };
    assert_eq!(flows(&with), flows(&without) + 1);
}
