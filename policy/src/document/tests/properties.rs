//! Properties over spoilt documents: nothing panics, the same input gives the same output, every place is real.

use proptest::prelude::*;
use proptest::sample::Index;

use super::{BASE, TODAY, WATERWORKS};
use crate::diagnostics::source::Sources;
use crate::diagnostics::{SourceFile, Style};
use crate::document::load;

/// Loads, and checks all that must hold of any input whatever.
fn holds(text: &str) -> Result<(), TestCaseError> {
    let files = [SourceFile::new("plant.yaml", text)];
    let loaded = load(&files, TODAY);
    prop_assert_eq!(
        loaded.plant.is_some(),
        !loaded.diagnostics.has_errors(),
        "a plant exactly if there is no error"
    );
    let again = load(&files, TODAY);
    let json = |loaded: &crate::LoadedDocument| serde_json::to_string(&loaded.diagnostics).unwrap();
    prop_assert_eq!(json(&loaded), json(&again));
    prop_assert_eq!(loaded.plant, again.plant);
    let lines = text.split('\n').count();
    let sources = Sources::new(&files);
    for diagnostic in &loaded.diagnostics {
        let places = diagnostic
            .location
            .iter()
            .chain(diagnostic.related.iter().map(|related| &related.location));
        for place in places {
            prop_assert!(
                (1..=lines).contains(&place.line) && place.column >= 1,
                "{place:?}"
            );
            prop_assert!(
                (place.line, place.column) <= (place.end_line, place.end_column),
                "{place:?}"
            );
            let span = text.get(place.offset..place.offset + place.length);
            prop_assert!(
                span.is_some_and(|span| !span.contains('\n')),
                "{place:?} is one stretch of one line"
            );
            prop_assert!(sources.file(&place.file).is_some());
        }
    }
    let drawn = loaded.diagnostics.render(Style::Graphical {
        colour: false,
        width: 100,
    });
    prop_assert_eq!(drawn.is_empty(), loaded.diagnostics.is_empty());
    prop_assert!(!loaded.diagnostics.render(Style::Narrated).contains("OutOfBounds"));
    Ok(())
}

/// Pieces that YAML parsers stumble over, and words of the grammar.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "\n",
            "  ",
            "\t",
            "- ",
            ": ",
            "? ",
            "{",
            "}",
            "[",
            "]",
            ",",
            "#",
            "&a ",
            "*a",
            "!t ",
            "!!str ",
            "|\n",
            ">\n",
            "'",
            "\"",
            "---\n",
            "...\n",
            "%YAML 1.2\n",
            "<<: ",
            "~",
            "null",
            "any",
            "zone:ops",
            "\r\n",
            "\u{feff}",
            "é",
            "\u{0}",
            "\u{85}",
            "1e999",
            "-",
            "\\",
            "@",
            "`",
            "0-9",
            "10.0.0.0/8",
            "::/0",
            "0.0.0.0/0",
            "yes",
            "plc",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,8}",
        "\\PC{0,4}",
    ]
}

/// A document with some lines removed, doubled or swapped, and some pieces put in anywhere.
fn spoilt() -> impl Strategy<Value = String> {
    let base = prop::sample::select(vec![BASE, WATERWORKS]);
    let removals = prop::collection::vec(any::<Index>(), 0..4);
    let swaps = prop::collection::vec((any::<Index>(), any::<Index>()), 0..3);
    let insertions = prop::collection::vec((any::<Index>(), piece()), 0..6);
    (base, removals, swaps, insertions).prop_map(|(base, removals, swaps, insertions)| {
        let mut lines: Vec<&str> = base.lines().collect();
        for (a, b) in swaps {
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            lines.swap(a, b);
        }
        for removal in removals {
            let at = removal.index(lines.len());
            lines.remove(at);
        }
        let mut text = lines.join("\n");
        for (at, piece) in insertions {
            let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let at = boundaries[at.index(boundaries.len())];
            text.insert_str(at, &piece);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 2))]
    #[test]
    fn spoilt_documents_never_panic_and_point_at_real_places(text in spoilt()) {
        holds(&text)?;
    }

    #[test]
    fn arbitrary_yaml_like_text_never_panics(pieces in prop::collection::vec(piece(), 0..60)) {
        holds(&pieces.concat())?;
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(file) = SourceFile::from_bytes("plant.yaml", bytes) {
            holds(&file.text)?;
        }
    }

    #[test]
    fn one_wrong_character_never_makes_a_place_lie(at in any::<Index>(), c in any::<char>()) {
        let boundaries: Vec<usize> = BASE.char_indices().map(|(at, _)| at).collect();
        let at = boundaries[at.index(boundaries.len())];
        let mut text = BASE.to_owned();
        text.replace_range(at..=at, &c.to_string());
        holds(&text)?;
    }
}

#[test]
fn files_may_come_in_any_order() {
    let (first, rest) = BASE.split_at(BASE.find("zones:").unwrap());
    let (second, third) = rest.split_at(rest.find("conduits:").unwrap());
    let files = [("a", first), ("b", second), ("c", third)].map(|(name, text)| SourceFile::new(name, text));
    let whole = load(&[SourceFile::new("a", BASE)], TODAY).plant;
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        assert_eq!(
            load(&order.map(|at| files[at].clone()), TODAY).plant,
            whole,
            "{order:?}"
        );
    }
}

#[test]
fn every_line_can_be_removed_and_the_rest_is_still_judged() {
    for text in [BASE, WATERWORKS] {
        let lines: Vec<&str> = text.lines().collect();
        for removed in 0..lines.len() {
            let rest: Vec<&str> = lines
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != removed)
                .map(|(_, line)| *line)
                .collect();
            holds(&rest.join("\n")).unwrap_or_else(|error| panic!("without line {}: {error}", removed + 1));
        }
    }
}
