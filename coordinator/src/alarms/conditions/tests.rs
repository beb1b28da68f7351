#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use penstock_policy::model::Consequence;
use penstock_policy::terms::Enforcement;
use penstock_proto::audit::chain::Place;
use proptest::prelude::*;

use super::*;
use crate::alarms::Priority;

const NOW_MS: u64 = 1_800_000_000_000;

fn zone() -> ZoneId {
    ZoneId::new("boiler").unwrap()
}

fn gateway(number: usize) -> GatewayId {
    GatewayId::new(format!("gw-{number}")).unwrap()
}

fn boundary(gateways: usize) -> Boundary {
    Boundary {
        enforcement: Enforcement::Enforce,
        gateways: (0..gateways).map(gateway).collect(),
        neighbours: None,
        assurance: None,
        consequence: Some(Consequence::Safety),
        is_safety: true,
        must_flows: BTreeSet::from(["supply/alarms".to_owned()]),
    }
}

fn of(
    boundary: &Boundary,
    state: v1::ZoneState,
    gateways: &BTreeMap<GatewayId, GatewayShown>,
) -> BTreeMap<Cause, Condition> {
    let health = v1::PlantHealth {
        zones: vec![v1::ZoneHealth {
            zone: zone().to_string(),
            state: state.into(),
            reasons: vec!["gw-0: reason".to_owned()],
            ..v1::ZoneHealth::default()
        }],
        ..v1::PlantHealth::default()
    };
    let found = conditions(&Evidence {
        zones: &BTreeMap::from([(zone(), boundary.clone())]),
        health: &health,
        gateways,
        halted: &BTreeMap::new(),
        sightings: &Sightings::default(),
        dark: &|_| Duration::from_secs(900),
        now_ms: NOW_MS,
    });
    found
        .into_iter()
        .map(|(key, condition)| (key.cause, condition))
        .collect()
}

fn fault(flows: &[&str]) -> (BTreeSet<String>, BTreeSet<String>, String) {
    let flows = flows.iter().map(ToString::to_string).collect();
    (BTreeSet::new(), flows, "eth2 has no carrier".to_owned())
}

fn shown() -> impl Strategy<Value = GatewayShown> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(is_fresh, drift, cut, other)| {
        let cut = cut.then(|| fault(&["supply/alarms", "supply/trend"]));
        let other = other.then(|| fault(&["supply/trend"]));
        GatewayShown {
            is_fresh,
            drift,
            unproved: None,
            faults: cut.into_iter().chain(other).collect(),
        }
    })
}

proptest! {
    /// Nothing ends for want of evidence.
    #[test]
    fn taking_the_word_of_a_gateway_away_makes_no_condition_clear(
        all in proptest::collection::vec(shown(), 1..4),
        state in 1..=6_i32,
        lost: usize,
    ) {
        let boundary = boundary(all.len());
        let known: BTreeMap<_, _> = all.into_iter().enumerate().map(|(n, shown)| (gateway(n), shown)).collect();
        let state = v1::ZoneState::try_from(state).unwrap();
        let before = of(&boundary, state, &known);
        let lost = gateway(lost % known.len());
        let mut less = known.clone();
        less.remove(&lost);
        let after = of(&boundary, v1::ZoneState::Stale, &less);
        for cause in [Cause::MustFlow, Cause::Drift, Cause::Unprotected] {
            prop_assert!(after.get(&cause) != Some(&Condition::Clear), "{cause}");
        }
        // And a condition stands exactly where a gateway that was heard lately says so.
        let says = |look: fn(&GatewayShown) -> bool| known.values().any(|shown| shown.is_fresh && look(shown));
        let stands = |cause| matches!(before.get(&cause), Some(Condition::Stands(_)));
        prop_assert_eq!(stands(Cause::Drift), says(|shown| shown.drift));
        let cut = |shown: &GatewayShown| shown.faults.iter().any(|(_, flows, _)| flows.contains("supply/alarms"));
        prop_assert_eq!(stands(Cause::MustFlow), says(cut));
    }
}

#[test]
fn a_fault_is_an_alarm_where_it_names_a_flow_that_must_not_stop_and_that_flow_is_what_it_is_about() {
    let known = |flows: &[&str]| {
        let shown = GatewayShown {
            unproved: None,
            is_fresh: true,
            drift: false,
            faults: vec![fault(flows)],
        };
        BTreeMap::from([(gateway(0), shown)])
    };
    let found = of(&boundary(1), v1::ZoneState::Degraded, &known(&["supply/trend"]));
    assert_eq!(found.get(&Cause::MustFlow), Some(&Condition::Clear));
    let found = of(
        &boundary(1),
        v1::ZoneState::Degraded,
        &known(&["supply/alarms", "supply/trend"]),
    );
    let Some(Condition::Stands(sign)) = found.get(&Cause::MustFlow) else {
        panic!("{found:?}");
    };
    assert_eq!(sign.subjects, BTreeSet::from(["supply/alarms".to_owned()]));
    assert_eq!((sign.priority, sign.is_safety), (Priority::High, true));
    assert_eq!(sign.message, "gw-0: eth2 has no carrier (supply/alarms)");
}

#[test]
fn what_seals_show_that_only_a_person_ends_stands_however_long_ago_and_another_one_is_more() {
    let fault = |sequence| SealFault {
        at: Place { epoch: 3, sequence },
        words: "somebody else seals".to_owned(),
        needs_person: true,
    };
    let facts = |seal_fault| crate::sessions::GatewayFacts {
        seal_fault,
        ..Default::default()
    };
    let condition = |facts: &crate::sessions::GatewayFacts| {
        let shown = GatewayShown::of(&gateway(0), facts, 9, 5);
        let all = of(
            &boundary(1),
            v1::ZoneState::Enforcing,
            &BTreeMap::from([(gateway(0), shown)]),
        );
        all[&Cause::Trail].clone()
    };
    let Condition::Stands(sign) = condition(&facts(Some(fault(7)))) else {
        panic!("it does not stand")
    };
    assert_eq!(sign.gateways, BTreeSet::from([gateway(0)]));
    assert_eq!(
        sign.subjects,
        BTreeSet::from([unproved_subject(&gateway(0), &fault(7))])
    );
    assert_ne!(
        unproved_subject(&gateway(0), &fault(7)),
        unproved_subject(&gateway(0), &fault(8))
    );
    let passing = SealFault {
        needs_person: false,
        ..fault(7)
    };
    for facts in [facts(Some(passing)), facts(None)] {
        assert!(!matches!(condition(&facts), Condition::Stands(_)));
    }
}

#[test]
fn what_only_a_person_ends_at_a_gateway_that_guards_no_zone_is_an_alarm_of_the_plant() {
    let shown = |unproved: bool| GatewayShown {
        unproved: unproved.then(|| ("gw-9 seals 1/2".to_owned(), "somebody else seals".to_owned())),
        ..GatewayShown::default()
    };
    let of_plant = |gateways: &BTreeMap<GatewayId, GatewayShown>, is_whole: bool| {
        let mut sightings = Sightings::default();
        sightings.is_whole = is_whole;
        let found = conditions(&Evidence {
            zones: &BTreeMap::from([(zone(), boundary(1))]),
            health: &v1::PlantHealth::default(),
            gateways,
            halted: &BTreeMap::new(),
            sightings: &sightings,
            dark: &|_| Duration::ZERO,
            now_ms: NOW_MS,
        });
        found.get(&AlarmKey::of_plant(Cause::Trail)).cloned()
    };
    let spare = BTreeMap::from([(gateway(0), shown(true)), (gateway(9), shown(true))]);
    let Some(Condition::Stands(sign)) = of_plant(&spare, true) else {
        panic!("it does not stand")
    };
    assert_eq!(
        sign.gateways,
        BTreeSet::from([gateway(9)]),
        "the other's is its zone's"
    );
    assert_eq!(sign.message, "gw-9: somebody else seals");
    assert_eq!((sign.priority, sign.is_safety), (Priority::Medium, false));
    let well = BTreeMap::from([(gateway(9), shown(false))]);
    assert_eq!(of_plant(&well, true), Some(Condition::Clear));
    assert_eq!(of_plant(&well, false), Some(Condition::Unknown));
    assert_eq!(of_plant(&BTreeMap::from([(gateway(0), shown(true))]), true), None);
}

#[test]
fn a_zone_at_which_the_document_has_no_gateway_is_no_news_to_a_shift() {
    let found = of(&boundary(0), v1::ZoneState::Unprotected, &BTreeMap::new());
    let stands = |condition: &Condition| matches!(condition, Condition::Stands(_));
    assert!(!found.values().any(stands), "{found:?}");
}
