//! The document as a whole: the example loads clean, split files mean the same, and nothing stops at the first fault.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use jiff::civil::{Date, date};

use super::{Loaded, load};
use crate::diagnostics::{Code, SourceFile};

const WATERWORKS: &str = include_str!("../../../deploy/examples/waterworks/plant.yaml");
const TODAY: Date = date(2026, 11, 22);

fn load_text(text: &str) -> Loaded {
    load(&[SourceFile::new("plant.yaml", text)], TODAY)
}

#[test]
fn the_water_works_load_without_any_diagnostic() {
    let loaded = load_text(WATERWORKS);
    assert_eq!(loaded.diagnostics.render(crate::diagnostics::Style::Narrated), "");
    assert_eq!(loaded.plant.unwrap().conduits.len(), 3);
}

#[test]
fn all_faults_come_at_once_and_no_plant_with_them() {
    let text = WATERWORKS
        .replace("enforcement: enforce", "enforcment: enforce")
        .replace("timezone: Europe/Berlin", "timezone: CET")
        .replace("destination: sis-1", "destination: sis-2")
        .replace("threshold: 2", "threshold: 9");
    let loaded = load_text(&text);
    assert!(loaded.plant.is_none());
    let codes: Vec<Code> = loaded
        .diagnostics
        .iter()
        .map(|diagnostic| diagnostic.code)
        .collect();
    let expected = [
        Code::ThresholdUnreachable,
        Code::NotATimeZone,
        Code::UnknownKey,
        Code::UnknownName,
    ];
    assert_eq!(codes, expected, "in the order of the text");
}

#[test]
fn a_document_in_several_files_is_the_same_plant() {
    let whole = load_text(WATERWORKS).plant.unwrap();
    let at = WATERWORKS.find("\nassets:").unwrap();
    let files = [
        SourceFile::new("b.yaml", &WATERWORKS[at..]),
        SourceFile::new("a.yaml", &WATERWORKS[..at]),
    ];
    assert_eq!(load(&files, TODAY).plant.unwrap(), whole);
}
