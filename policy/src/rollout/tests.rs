//! Plans: the default for fleets of every size, and what is wrong with others.

mod text;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ids::GatewayId;

fn member(name: &str, cell: &str, partner: Option<&str>) -> Member {
    Member {
        id: GatewayId::new(name).unwrap(),
        site: "works".to_owned(),
        cell: cell.to_owned(),
        labels: BTreeMap::new(),
        partner: partner.map(|partner| GatewayId::new(partner).unwrap()),
    }
}

/// Of each draw one gateway, one of a laboratory, or a pair.
fn any_fleet() -> impl Strategy<Value = Fleet> {
    prop::collection::vec((0..4_u8, 0..4_u8, 0..6_u8), 1..12).prop_map(|draws| {
        let mut members = Vec::new();
        for (at, (cell, other_cell, kind)) in draws.into_iter().enumerate() {
            let (name, other) = (format!("gw-{at}"), format!("gw-{at}-b"));
            let cell = format!("cell-{cell}");
            let mut one = member(&name, &cell, (kind < 2).then_some(&other));
            if kind < 2 {
                members.push(member(&other, &format!("cell-{other_cell}"), Some(&name)));
            } else if kind == 2 {
                one.labels.insert(LAB_LABEL.to_owned(), "bench".to_owned());
            }
            members.push(one);
        }
        Fleet::new(members).unwrap()
    })
}

fn fleet(count: u32, labs: u32) -> Fleet {
    let members = (0..count).map(|at| {
        let mut member = member(&format!("gw-{at:05}"), &format!("cell-{at}"), None);
        if at < labs {
            member.labels = BTreeMap::from([(LAB_LABEL.to_owned(), "bench".to_owned())]);
        }
        member
    });
    Fleet::new(members.collect()).unwrap()
}

fn sizes(plan: &RolloutPlan, fleet: &Fleet) -> Vec<usize> {
    let waves = assign(plan, fleet);
    let wave = |number: usize| {
        waves
            .iter()
            .filter(|wave| wave.map(usize::from) == Some(number))
            .count()
    };
    (0..plan.waves.len()).map(wave).collect()
}

#[test]
fn the_default_plan_fits_one_gateway_a_pair_a_site_and_a_thousand() {
    for (count, labs, expected) in [
        (1, 0, vec![1]),
        (2, 0, vec![1, 1]),
        (12, 0, vec![1, 11]),
        (12, 2, vec![1, 1, 10]),
        (1_000, 0, vec![1, 10, 100, 889]),
        (1_000, 3, vec![3, 1, 10, 100, 886]),
        (30, 30, vec![30]),
    ] {
        let fleet = fleet(count, labs);
        let plan = default_plan(&fleet, 3);
        assert_eq!(
            sizes(&plan, &fleet),
            expected,
            "{count} with {labs} in the laboratory"
        );
        assert_eq!(problems(&plan, &fleet), []);
    }
}

#[test]
fn a_plan_is_read_strictly_and_reads_back_as_it_was_written() {
    let fleet = fleet(40, 1);
    let plan = default_plan(&fleet, 3);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<RolloutPlan>(&text).unwrap(), plan);
    let more = text.replacen("\"seed\"", "\"sead\":1,\"seed\"", 1);
    assert!(
        serde_json::from_str::<RolloutPlan>(&more)
            .unwrap_err()
            .to_string()
            .contains("sead")
    );
    for wrong in [
        "",
        "5",
        "m",
        "-1s",
        "1.5h",
        "5 m",
        "400d",
        "99999999999999999999s",
    ] {
        assert!(wrong.parse::<Span>().is_err(), "{wrong}");
    }
    for (text, seconds) in [
        ("0s", 0),
        ("90s", 90),
        ("30m", 1_800),
        ("2h", 7_200),
        ("8d", 691_200),
    ] {
        let span: Span = text.parse().unwrap();
        assert_eq!((span.as_seconds(), span.to_string().as_str()), (seconds, text));
    }
}

#[test]
fn each_thing_that_is_wrong_with_a_plan_is_named_where_it_stands() {
    type Change = fn(&mut RolloutPlan);
    let cases: &[(&str, Change)] = &[
        ("format", |plan| plan.format.push('x')),
        ("waves", |plan| plan.waves.clear()),
        ("waves", |plan| plan.waves.truncate(1)),
        ("trial", |plan| plan.trial = Span::seconds(5)),
        ("silence", |plan| plan.silence = Span::seconds(5)),
        ("patience", |plan| plan.patience = plan.silence),
        ("gate.soft_rate", |plan| plan.gate.soft_rate = f64::NAN),
        ("converge.at_once", |plan| plan.converge.at_once = 0),
        ("shadow", |plan| plan.shadow = Span::seconds(0)),
        ("waves.lab.per_cell", |plan| plan.waves[0].per_cell = 0),
        ("waves.lab.soak", |plan| plan.waves[0].soak = Span::seconds(0)),
        ("waves.lab", |plan| plan.waves[1].name = "lab".to_owned()),
        ("waves.A b", |plan| plan.waves[1].name = "A b".to_owned()),
        ("waves.lab.gateways", |plan| {
            plan.waves[0].gateways = Selector::Percent(0)
        }),
        ("waves.lab.gateways", |plan| {
            plan.waves[0].gateways = Selector::Site("elsewhere".to_owned())
        }),
        ("waves.lab.gateways", |plan| {
            plan.waves[0].gateways = Selector::Labels(BTreeMap::new())
        }),
        ("waves", |plan| plan.waves.rotate_left(1)),
    ];
    let fleet = fleet(12, 1);
    for (number, (at, change)) in cases.iter().enumerate() {
        let mut plan = default_plan(&fleet, 3);
        change(&mut plan);
        let found = problems(&plan, &fleet);
        assert!(
            found.iter().any(|problem| problem.at == *at),
            "{number}: {at}: {found:?}"
        );
    }
}

#[test]
fn a_pair_of_which_one_does_not_name_the_other_is_no_fleet() {
    let members = vec![member("a", "x", Some("b")), member("b", "x", None)];
    assert!(matches!(Fleet::new(members), Err(FleetError::Pair(..))));
    let members = vec![member("a", "x", None), member("a", "x", None)];
    assert!(matches!(Fleet::new(members), Err(FleetError::Twice(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]

    #[test]
    fn a_default_plan_has_nothing_wrong_and_a_part_never_holds_both_of_a_pair(fleet in any_fleet(), seed in any::<u64>()) {
        let mut plan = default_plan(&fleet, seed);
        prop_assert_eq!(problems(&plan, &fleet), []);
        plan.waves[0].gateways = Selector::Percent(60);
        let waves = assign(&plan, &fleet);
        for at in 0..u32::try_from(fleet.len()).unwrap() {
            if let Some(partner) = fleet.partner(at) {
                prop_assert!(waves[at as usize] != Some(0) || waves[partner as usize] != Some(0));
            }
        }
        prop_assert_eq!(waves, assign(&plan, &fleet));
    }
}
