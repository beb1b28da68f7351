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

fn pair(one: &str, other: &str) -> (GatewayId, GatewayId) {
    (GatewayId::new(one).unwrap(), GatewayId::new(other).unwrap())
}

#[test]
fn gateways_whose_tunnel_changes_are_in_one_wave_of_the_default_plan_and_a_plan_that_parts_them_is_refused() {
    let plain = fleet(12, 1);
    let fleet = plain
        .clone()
        .joining(&[pair("gw-00004", "gw-00007"), pair("gw-00007", "gw-00009")]);
    let plan = default_plan(&fleet, 3);
    assert_eq!(problems(&plan, &fleet), []);
    assert_eq!(plan.waves[0].name, "lab", "laboratories stay first");
    let waves = assign(&plan, &fleet);
    assert!(
        waves[4] == Some(1) && waves[7] == waves[4] && waves[9] == waves[4],
        "{waves:?}"
    );
    assert_eq!(sizes(&plan, &fleet).iter().sum::<usize>(), 12);
    // The plan that would be right without tunnels.
    let mut parted = default_plan(&plain, 3);
    parted.waves[1].gateways = Selector::List(vec![GatewayId::new("gw-00004").unwrap()]);
    let found = problems(&parted, &fleet);
    assert!(found.len() == 1 && found[0].is_error, "{found:?}");
    assert!(found[0].words.contains("gw-00004 and gw-00007"), "{found:?}");
    assert_eq!(problems(&parted, &plain), []);
}

#[test]
fn gateways_of_one_cell_whose_tunnel_changes_have_room_to_activate_at_once() {
    let members = ["a", "b", "c"].map(|name| member(name, "hall", None));
    let fleet = Fleet::new(members.to_vec()).unwrap().joining(&[pair("a", "b")]);
    let mut plan = default_plan(&fleet, 3);
    assert_eq!((problems(&plan, &fleet), plan.waves[0].per_cell), (vec![], 2));
    plan.waves[0].per_cell = 1;
    let found = problems(&plan, &fleet);
    assert!(
        found.len() == 1 && found[0].at == "waves.tunnels.per_cell",
        "{found:?}"
    );
    let two = Fleet::new(members[..2].to_vec())
        .unwrap()
        .joining(&[pair("a", "b")]);
    let plan = default_plan(&two, 3);
    assert_eq!((problems(&plan, &two), sizes(&plan, &two)), (vec![], vec![2]));
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
    fn a_default_plan_has_no_errors_and_parts_no_gateways_whatever_tunnels_change(
        fleet in any_fleet(),
        ends in prop::collection::vec((0..12_u32, 0..12_u32), 0..12),
        seed in any::<u64>(),
    ) {
        let name = |at: u32| fleet.member(at).map(|member| member.id.clone());
        let pairs: Vec<_> = ends.into_iter().filter_map(|(one, other)| Some((name(one)?, name(other)?))).collect();
        let fleet = fleet.clone().joining(&pairs);
        let plan = default_plan(&fleet, seed);
        let found = problems(&plan, &fleet);
        prop_assert!(found.iter().all(|problem| !problem.is_error), "{:?}", found);
        let waves = assign(&plan, &fleet);
        for (one, other) in fleet.joined() {
            prop_assert_eq!(waves[*one as usize], waves[*other as usize]);
        }
    }

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
