//! Topic filters against brute force: every topic over a small alphabet.

use penstock_inspect::judge::trie::{Grant, Trie};
use penstock_inspect::mqtt::topic::{Subscription, check_filter, check_name, covers, matches};
use proptest::prelude::*;

/// `z` stands in no filter: it is every level that no filter names.
const LEVELS: &[&str] = &["a", "b", "", "$s", "z"];

/// All topics of up to four levels.
fn topics() -> Vec<String> {
    let mut all: Vec<Vec<&str>> = vec![vec![]];
    let mut out = Vec::new();
    for _ in 0..4 {
        all = all
            .iter()
            .flat_map(|topic| {
                LEVELS.iter().map(|level| {
                    let mut longer = topic.clone();
                    longer.push(level);
                    longer
                })
            })
            .collect();
        out.extend(all.iter().map(|topic| topic.join("/")));
    }
    out.retain(|topic| check_name(topic).is_ok());
    out
}

/// A second way to match, from the standard's words, that shares nothing with the first.
fn matches_by_the_book(filter: &[&str], topic: &[&str]) -> bool {
    match (filter.split_first(), topic.split_first()) {
        (Some((&"#", _)), _) => true,
        (None, None) => true,
        (Some((&"+", filter)), Some((_, topic))) => matches_by_the_book(filter, topic),
        (Some((level, filter)), Some((name, topic))) if level == name => matches_by_the_book(filter, topic),
        _ => false,
    }
}

fn book(filter: &str, topic: &str) -> bool {
    let dollar = topic.starts_with('$') && (filter.starts_with('#') || filter.starts_with('+'));
    let split = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let (filter, topic) = (split(filter), split(topic));
    let borrow = |list: &[String]| {
        list.iter()
            .map(String::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (filter, topic) = (borrow(&filter), borrow(&topic));
    let filter: Vec<&str> = filter.iter().map(String::as_str).collect();
    let topic: Vec<&str> = topic.iter().map(String::as_str).collect();
    !dollar && matches_by_the_book(&filter, &topic)
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "", "$s", "+", "+"]);
    (prop::collection::vec(level, 0..4), any::<bool>())
        .prop_map(|(levels, hash)| {
            let mut levels: Vec<&str> = levels;
            if hash || levels.is_empty() {
                levels.truncate(3);
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("valid", |filter| check_filter(filter).is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 2))]
    #[test]
    fn a_filter_covers_another_exactly_if_it_matches_all_that_the_other_matches(
        permitted in filter(), wanted in filter()
    ) {
        // `/#` also asks for the empty name, which the standard gives to no message: a filter that covers it must match that too.
        let names = topics().into_iter().chain([String::new()]);
        let all = names.into_iter().all(|name| !book(&wanted, &name) || book(&permitted, &name));
        prop_assert_eq!(covers(&permitted, &wanted), all, "{} over {}", permitted, wanted);
    }

    #[test]
    fn a_filter_matches_what_the_standard_says(filter in filter()) {
        for topic in topics() {
            prop_assert_eq!(matches(&filter, &topic), book(&filter, &topic), "{} on {}", filter, topic);
        }
    }

    #[test]
    fn the_tree_finds_a_grant_exactly_where_one_filter_does(filters in prop::collection::vec(filter(), 1..12), wanted in filter()) {
        let mut trie = Trie::default();
        for (rule, filter) in filters.iter().enumerate() {
            trie.insert(filter, Grant { rule, group: 0, qos_min: 0, qos_max: 2, retain: true });
        }
        let found = trie.covering(&wanted, &mut |grant| Some(grant.rule));
        prop_assert_eq!(found.is_some(), filters.iter().any(|filter| covers(filter, &wanted)));
        if let Some(rule) = found {
            prop_assert!(covers(&filters[rule], &wanted));
        }
        for topic in topics().iter().step_by(7) {
            let found = trie.matching(topic, &mut |grant| Some(grant.rule));
            prop_assert_eq!(found.is_some(), filters.iter().any(|filter| matches(filter, topic)));
            if let Some(rule) = found {
                prop_assert!(matches(&filters[rule], topic));
            }
        }
    }
}

#[test]
fn a_filter_of_all_below_a_level_is_not_covered_by_one_of_all_two_below() {
    // Over the names that messages can have these two say the same; the words of the filter decide, and not the exception.
    assert!(!covers("/+/#", "/#"));
    assert!(covers("/#", "/+/#"));
}

#[test]
fn wildcards_stand_only_where_the_standard_puts_them() {
    for valid in [
        "#",
        "+",
        "a/#",
        "+/a/#",
        "/",
        "a//b",
        "$SYS/#",
        "$share/g/a/+",
        "$share/g/#",
    ] {
        assert!(check_filter(valid).is_ok(), "{valid}");
    }
    for invalid in [
        "",
        "a#",
        "a/#/b",
        "a+",
        "a/b+/c",
        "#/a",
        "$share",
        "$share/",
        "$share/g",
        "$share/g/",
        "$share//a",
        "$share/+/a",
        "$share/#/a",
        "$share/g/a#",
        "a\0",
    ] {
        assert!(check_filter(invalid).is_err(), "{invalid}");
    }
    assert_eq!(Subscription::parse("$share/g/a/b").unwrap().filter, "a/b");
    assert!(check_name("a/+").is_err());
}
