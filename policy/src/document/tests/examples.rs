//! Every example plant of the repository loads with no diagnostic at all.

use std::path::{Path, PathBuf};

use super::TODAY;
use crate::diagnostics::{SourceFile, Style};
use crate::document::load;

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let mut plants: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    plants.retain(|path| path.is_dir());
    plants.sort();
    plants
}

/// The YAML files of one plant, in whatever order the disk has them.
pub(super) fn files(plant: &Path) -> Vec<SourceFile> {
    let entries = std::fs::read_dir(plant)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let yaml = entries.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    yaml.map(|path| {
        SourceFile::new(
            path.display().to_string(),
            std::fs::read_to_string(&path).unwrap(),
        )
    })
    .collect()
}

#[test]
fn every_example_plant_loads_without_any_diagnostic() {
    let plants = examples();
    assert!(plants.len() >= 3, "the examples are there: {plants:?}");
    for plant in plants {
        let loaded = load(&files(&plant), TODAY);
        let said = loaded.diagnostics.render(Style::Graphical {
            colour: false,
            width: 110,
        });
        assert!(loaded.diagnostics.is_empty(), "{}:\n{said}", plant.display());
        assert!(loaded.plant.is_some());
    }
}

#[test]
fn every_example_plant_validates_against_the_schema() {
    for plant in examples() {
        for file in files(&plant) {
            let faults = super::schema::check(&super::schema::value_of(&file.text), true);
            assert_eq!(faults, Vec::<String>::new(), "{}", file.name);
        }
    }
}
