#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::enforce::shape::lower::lower;
use crate::enforce::shape::structure::structure;

/// Elements by map, as a script leaves them if it is run on `maps`; a wrong deletion or a double addition fails.
fn run(maps: &mut BTreeSet<(String, String)>, script: &str) -> Result<(), String> {
    for line in script.lines().filter(|line| line.contains(" element ")) {
        let (head, elements) = line.split_once(" { ").unwrap();
        let map = head.split(' ').next_back().unwrap();
        for element in elements.trim_end_matches(" }").split(", ") {
            let entry = (map.to_owned(), element.to_owned());
            let done = if head.starts_with("add") {
                maps.insert(entry)
            } else {
                maps.remove(&entry)
            };
            if !done {
                return Err(format!("{head}: {element}"));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]
    #[test]
    fn differences_lead_from_any_plan_to_any_other(
        old in penstock_policy::arbitrary::plans(),
        new in penstock_policy::arbitrary::plans(),
    ) {
        let (old, new) = (lower(&old).unwrap(), lower(&new).unwrap());
        let shape = structure(&penstock_plan(), None).unwrap().0;
        let (mut through, mut at_once) = (BTreeSet::new(), BTreeSet::new());
        run(&mut through, &whole(&shape, &old, 1)).unwrap();
        run(&mut through, &difference(&old, &new)).unwrap();
        run(&mut at_once, &whole(&shape, &new, 1)).unwrap();
        prop_assert_eq!(through, at_once);
        prop_assert_eq!(difference(&new, &new), "");
    }
}

fn penstock_plan() -> penstock_policy::plan::Plan {
    let json = serde_json::json!({
        "format": "penstock-plan/1", "plant": "p", "gateway": "g", "mode": "routed", "requires": [],
        "on_drift": "repair", "interfaces": [], "management": null, "rules": [], "bridges": []
    });
    penstock_policy::plan::Plan::from_bytes(json.to_string().as_bytes()).unwrap()
}

#[test]
fn nothing_but_our_own_tables_is_named_in_a_script() {
    let shape = structure(&penstock_plan(), None).unwrap().0;
    let script = whole(&shape, &Elements::default(), 86);
    assert!(!script.contains("flush"));
    for line in script
        .lines()
        .filter(|l| l.starts_with("table") || l.contains(" table "))
    {
        assert!(line.contains(TABLE), "{line}");
    }
}
