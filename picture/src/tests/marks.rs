//! The legend names every mark that occurs in the picture, and no other; nothing is told by colour alone.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::marks::ALL;
use super::*;

/// The classes of marks in a part of a picture.
fn classes(svg: &str) -> BTreeSet<&str> {
    let attributes = svg
        .split("class=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    attributes
        .flat_map(|classes| classes.split(' '))
        .filter(|class| class.starts_with("m-"))
        .collect()
}

/// The picture without its legend, and the legend.
fn parts(svg: &str) -> (&str, &str) {
    svg.split_once("<g class=\"legend\"").unwrap()
}

fn assert_legend_is_whole(svg: &str) {
    let (picture, legend) = parts(svg);
    let named = classes(legend);
    assert_eq!(classes(picture), named);
    for mark in ALL.iter().filter(|mark| named.contains(mark.class)) {
        assert!(legend.contains(&text::escape(mark.words)), "{}", mark.words);
    }
    // Every sign that is drawn has the class of a mark.
    for tag in svg.split('<').filter(|tag| tag.starts_with("path ")) {
        let classes = tag.split('"').nth(1).unwrap();
        let is_sign = classes
            .split(' ')
            .any(|class| ["glyph", "mark", "gate", "head"].contains(&class));
        assert!(!is_sign || classes.contains("m-"), "{tag}");
    }
}

/// What is drawn in red or amber stands in a group that also says so in words of that colour, or has a frame of another kind.
fn assert_nothing_by_colour_alone(svg: &str) {
    let (picture, _) = parts(svg);
    for group in picture.split("<g class=\"").skip(1) {
        for (line, word) in [("warn-line", "warn-text"), ("alarm-line", "alarm-text")] {
            assert!(!group.contains(line) || group.contains(word), "{group}");
        }
        assert!(
            !group.contains("warn-fill")
                || ["nobody enforces", "no gateway guards"]
                    .iter()
                    .any(|w| group.contains(w))
        );
        let observes = group
            .split('"')
            .next()
            .is_some_and(|classes| classes.ends_with(" observe"));
        assert!(
            !group.starts_with("room") || observes == group.contains(" · observe only"),
            "{group}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 3))]
    #[test]
    fn the_legend_names_every_mark_that_occurs_and_no_other(plant in penstock_policy::arbitrary::plants()) {
        for view in [View::Fitting, View::Overview, View::Whole] {
            let svg = draw(&plant, None, &view).svg;
            assert_legend_is_whole(&svg);
            assert_nothing_by_colour_alone(&svg);
        }
    }

    #[test]
    fn of_plants_of_all_shapes_too(plant in plants()) {
        for view in [View::Whole, View::Overview] {
            let svg = draw(&plant, None, &view).svg;
            assert_legend_is_whole(&svg);
            assert_nothing_by_colour_alone(&svg);
        }
    }
}

#[test]
fn marks_differ_from_one_another_in_class_and_words() {
    let classes: BTreeSet<&str> = ALL.iter().map(|mark| mark.class).collect();
    let words: BTreeSet<&str> = ALL.iter().map(|mark| mark.words).collect();
    assert_eq!((classes.len(), words.len()), (ALL.len(), ALL.len()));
    let signs = ALL.iter().enumerate();
    for (at, one) in signs {
        for other in &ALL[at + 1..] {
            assert!(
                one.sign != other.sign,
                "{} and {} look the same",
                one.class,
                other.class
            );
        }
    }
}

#[test]
fn what_nobody_enforces_and_what_has_expired_is_amber_with_words() {
    let mut plant = plant(
        "Works",
        &[(ZoneKind::Operations, 2), (ZoneKind::Control, 3)],
        &[(0, 1, 2)],
    );
    let good = draw(&plant, None, &View::Whole).svg;
    let conduit = plant.conduits.keys().next().unwrap().clone();
    let record = plant.conduits.get_mut(&conduit).unwrap();
    record.via.clear();
    record.enforced_by = Enforcer::Nobody;
    plant.compensating_controls.insert(
        "fence".parse().unwrap(),
        CompensatingControl {
            zone: Some("zone-1".parse().unwrap()),
            asset: None,
            conduit: None,
            requirement: "SR 1.2".to_owned(),
            reason: "old".to_owned(),
            measure: "a fence".to_owned(),
            approved_by: "bob".parse().unwrap(),
            expires: "2026-01-01".to_owned(),
            expired: true,
        },
    );
    let svg = draw(&plant, None, &View::Whole).svg;
    for words in ["nobody enforces it yet", "control fence expired"] {
        assert!(svg.contains(words) && !good.contains(words), "{words}");
    }
    let (picture, _) = parts(&svg);
    assert!(picture.contains("lintel warn-fill m-warn"));
    assert!(picture.contains("mark warn-line m-warn"));
    // In the overview it does not get lost.
    let overview = draw(&plant, None, &View::Overview).svg;
    assert!(overview.contains("nobody enforces it yet") && overview.contains("control fence expired"));
}
