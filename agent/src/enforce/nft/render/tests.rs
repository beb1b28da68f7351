#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::enforce::shape::lower::lower;
use crate::enforce::shape::structure::structure;
use crate::intercept::InspectorPorts;

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
        run(&mut through, &whole(&shape, flows(&old), 1)).unwrap();
        run(&mut through, &difference(&old, &new)).unwrap();
        run(&mut at_once, &whole(&shape, flows(&new), 1)).unwrap();
        prop_assert_eq!(through, at_once);
        prop_assert_eq!(difference(&new, &new), "");
    }
}

static NONE_LEFT: BTreeMap<FlowId, Duration> = BTreeMap::new();

/// Where nothing hangs on a grant.
fn flows(flows: &Elements) -> TableElements<'_> {
    TableElements {
        flows,
        left: &NONE_LEFT,
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
    let script = whole(&shape, flows(&Elements::default()), 86);
    assert!(!script.contains("flush"));
    for line in script
        .lines()
        .filter(|l| l.starts_with("table") || l.contains(" table "))
    {
        assert!(line.contains(TABLE), "{line}");
    }
}

/// A packet that the first chain left to the second before a transaction must find the second judging after it.
#[test]
fn the_chains_beside_come_just_after_those_of_the_same_hook_under_our_own_name() {
    for mode in ["routed", "bridged"] {
        let mut plan = penstock_plan();
        plan.mode = serde_json::from_value(mode.into()).unwrap();
        let inspector = Some(InspectorPorts { v4: 1, v6: 2 });
        let shape = structure(&plan, inspector).unwrap().0;
        let steps = succession(&shape, flows(&Elements::default()), 86, &["inet", "bridge"]);
        let beside = priorities(&steps[1], TABLE_BESIDE);
        let own = priorities(&steps[3], TABLE);
        // By this a next agent knows that both judge as they were left.
        let rules = |step: &str| step.lines().filter(|line| !line.starts_with("flush ")).count();
        assert_eq!(rules(&steps[1]), rules(&steps[3]), "{mode}");
        assert!(own.len() > 3, "{mode}: {own:?}");
        assert_eq!(beside.len(), own.len());
        for (chain, priority) in own {
            let later = match priority.parse::<i32>() {
                Ok(number) => (number + 1).to_string(),
                Err(_) => format!("{priority} + 1"),
            };
            assert_eq!(beside.get(&chain), Some(&later), "{mode}: {chain:?}");
        }
    }
}

/// A flow whose grant lasts was refused from the transaction in which the new tables judged until the agent said how long it lasts.
#[test]
fn what_is_left_of_a_grant_is_in_tables_before_they_judge() {
    let mut plan = penstock_plan();
    let host = |address: &str| penstock_policy::plan::Endpoint {
        name: address.into(),
        network: address.parse::<std::net::IpAddr>().unwrap().into(),
    };
    plan.rules = vec![penstock_policy::plan::Rule {
        id: FlowId(77),
        conduit: "visit".parse().unwrap(),
        flow: "ssh".parse().unwrap(),
        sources: vec![host("10.1.0.5")],
        destinations: vec![host("10.2.0.9")],
        transport: penstock_policy::terms::Transport::IcmpEcho,
        must_flow: false,
        on_refusal: Default::default(),
        roles: None,
        answers: penstock_policy::terms::Answers::Strict,
        tls: None,
        on_agent_loss: penstock_policy::terms::OnAgentLoss::Block,
        operations: None,
    }];
    let (old, _) = structure(&plan, None).unwrap();
    let grant = penstock_policy::plan::Grant {
        name: "visit".parse().unwrap(),
        person: "Carla".to_owned(),
        from_ms: 1,
        until_ms: 2,
    };
    plan.grants.insert("visit".parse().unwrap(), vec![grant]);
    let (shape, _) = structure(&plan, None).unwrap();
    let left = BTreeMap::from([(FlowId(77), Duration::from_secs(90))]);
    let none = Elements::default();
    let all = TableElements {
        flows: &none,
        left: &left,
    };
    let element = |table: &str| format!("add element inet {table} granted {{ 77 timeout 0d90s0ms }}");
    let steps = succession(&shape, all, 86, &["inet"]);
    assert!(steps[0].contains(&element(TABLE_BESIDE)), "{}", steps[0]);
    assert!(steps[2].contains(&element(TABLE)), "{}", steps[2]);
    assert!(whole(&shape, all, 86).contains(&element(TABLE)));
    assert!(restructure((&old, &none), (&shape, all), 86).contains(&element(TABLE)));
    // Without grants there is no such set, and the script by which tables are known is what it was.
    assert!(!whole(&old, all, 86).contains("granted"));
    assert_eq!(whole(&old, all, 86), whole(&old, flows(&none), 86));
}

/// The priorities of base chains by table's family and name.
fn priorities(script: &str, table: &str) -> BTreeMap<(String, String), String> {
    let (mut family, mut chain) = (String::new(), String::new());
    let mut all = BTreeMap::new();
    for line in script.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["table", of, name, "{"] => {
                assert_eq!(name, table, "{line}");
                family = of.to_owned();
            }
            ["chain", name, "{"] => chain = name.to_owned(),
            ["type", _, "hook", ..] => {
                let (_, rest) = line.split_once(" priority ").unwrap();
                let priority = rest.split_once(';').unwrap().0.to_owned();
                all.insert((family.clone(), chain.clone()), priority);
            }
            _ => {}
        }
    }
    all
}
