#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use penstock_inspect::query::Query;
use penstock_policy::arbitrary::{DICE, GRANTED_MS, connection_near, plants};
use penstock_policy::compile::compile_all;
use penstock_policy::verdict::{Carried, Connection, Decision as Oracle, decide};
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{self, LearnedEvent, LearnedModbus, LearnedRange, OperationEvent, VerdictEvent};
use proptest::prelude::*;

use super::*;
use crate::online::fixture::{loaded, record, riverside};
use crate::output::Style;

const PLANT: &str = riverside!(
    "assets:
  hmi: { zone: operations, address: 10.20.1.21 }
  plc: { zone: control, address: 10.20.4.7 }
conduits:
  watch:
    title: Watch
    from: operations
    to: control
    flows:
      poll:
        source: hmi
        destination: plc
        service: modbus-tcp
        must_flow: yes
        allow:
          - read-holding-registers: { units: 1, addresses: 0-99 }
          - write-single-register: { units: 1, addresses: 40, values: [0-5, 9] }
      files:
        source: hmi
        destination: plc
        service: tcp/9000
"
);

fn plant(text: &str) -> Plant {
    loaded(text).plant
}

fn verdict(connection: &Connection, decision: v1::Decision) -> Option<Kind> {
    let (protocol, port) = match connection.transport {
        Carried::Tcp(port) => (6, port),
        Carried::Udp(port) => (17, port),
        Carried::IcmpEcho => (1, 0),
        Carried::Other(1 | 6 | 17 | 58) => return None,
        Carried::Other(other) => (other.into(), 0),
    };
    Some(Kind::Verdict(VerdictEvent {
        decision: decision.into(),
        flow: "some/flow".to_owned(),
        ingress: connection.ingress.clone(),
        egress: connection.egress.clone(),
        source: connection.source.to_string(),
        destination: connection.destination.to_string(),
        protocol,
        port: port.into(),
        count: 1,
        first_ms: GRANTED_MS,
        last_ms: GRANTED_MS,
        ..VerdictEvent::default()
    }))
}

fn operation(decision: v1::Decision, words: &str, values: Option<(u32, u32)>) -> Kind {
    Kind::Operation(OperationEvent {
        subject: "operation".to_owned(),
        decision: decision.into(),
        operation: words.to_owned(),
        client: "10.20.1.21".to_owned(),
        server: "10.20.4.7".to_owned(),
        port: 502,
        count: 1,
        values: values.map(|(first, last)| LearnedRange { first, last }),
        ..OperationEvent::default()
    })
}

fn judged(new: &str, base: &str, events: impl IntoIterator<Item = Kind>) -> Recorded {
    let (new, base) = (plant(new), plant(base));
    let against = Against {
        new: &new,
        base: Some((&base, Some(3))),
    };
    let mut judge = Judge::of(against.new, against.base);
    for event in events {
        judge.take(record("gw-a", 3, event), GRANTED_MS);
    }
    report(
        judge.finish(),
        against,
        Vec::new(),
        (GRANTED_MS - 1, GRANTED_MS + 1),
    )
}

fn operations(recorded: &Recorded) -> Vec<&str> {
    let refused = recorded.refused.iter();
    refused
        .filter_map(|refused| refused.operation.as_deref())
        .collect()
}

type Listed = (String, String, String, String);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 2))]

    /// A new plan refuses exactly what is listed, whatever the plan before was; and each event is counted once.
    #[test]
    fn all_that_passed_and_the_new_plans_refuse_is_listed_and_nothing_else(
        base in plants(),
        new in plants(),
        alike in any::<bool>(),
        dice in prop::collection::vec(any::<[u32; DICE]>(), 1..60),
    ) {
        // The same zones with other flows come closer to what people do than another plant.
        let mut new = if alike { Plant { conduits: new.conduits, ..base.clone() } } else { new };
        if compile_all(&new).is_err() {
            new = base.clone();
            new.conduits.pop_first();
        }
        let (Ok(before), Ok(after)) = (compile_all(&base), compile_all(&new)) else { return Ok(()) };
        let against = Against { new: &new, base: Some((&base, Some(1))) };
        let mut judge = Judge::of(against.new, against.base);
        let mut expected: BTreeSet<Listed> = BTreeSet::new();
        let (mut refused, mut passes, mut observed, mut newly, mut unjudged) = (0, 0, 0, 0, 0);
        for (gateway, plan) in &before {
            let plan = plan.at(Some(GRANTED_MS));
            for dice in &dice {
                let connection = connection_near(&plan, dice);
                let then = decide(&plan, &connection).decision;
                let decision = match then {
                    Oracle::Deny => v1::Decision::Deny,
                    Oracle::WouldDeny => v1::Decision::WouldDeny,
                    Oracle::Allow | Oracle::NotGuarded => v1::Decision::Allow,
                };
                let Some(event) = verdict(&connection, decision) else { continue };
                judge.take(record(gateway.as_str(), 1, event), GRANTED_MS);
                let now = after.get(gateway).map(|plan| decide(&plan.at(Some(GRANTED_MS)), &connection).decision);
                match (then == Oracle::Deny, now) {
                    (true, Some(Oracle::Deny) | None) => {}
                    (true, Some(_)) => newly += 1,
                    (false, None) => unjudged += 1,
                    (false, Some(Oracle::Deny)) => {
                        refused += 1;
                        expected.insert((
                            gateway.to_string(),
                            connection.source.to_string(),
                            connection.destination.to_string(),
                            connection.transport.to_string(),
                        ));
                    }
                    (false, Some(Oracle::WouldDeny)) => observed += 1,
                    (false, Some(_)) => passes += 1,
                }
            }
        }
        let recorded = report(judge.finish(), against, Vec::new(), (0, GRANTED_MS));
        let listed: BTreeSet<Listed> = recorded.refused.iter().map(|refused| (
            refused.gateway.clone(),
            refused.client.address.clone(),
            refused.server.address.clone(),
            refused.service.clone(),
        )).collect();
        prop_assert_eq!(&listed, &expected);
        prop_assert_eq!(listed.len(), recorded.refused.len());
        let counted: u64 = recorded.refused.iter().map(|refused| refused.count).sum();
        let unknown: u64 = recorded.unjudged.iter().map(|unjudged| unjudged.what.count).sum();
        prop_assert_eq!(
            (counted, recorded.passes.count, recorded.observed.count, recorded.newly_permitted.count, unknown),
            (refused, passes, observed, newly, unjudged)
        );
    }
}

#[test]
fn an_operation_is_refused_exactly_where_its_list_ends() {
    let narrower = PLANT.replace("addresses: 0-99", "addresses: 0-49");
    let words: Vec<String> = (0..120)
        .map(|address| {
            let asked = Query::read(&format!("read-holding-registers {address} unit 1")).unwrap();
            asked.operation().to_string()
        })
        .collect();
    let events = words
        .iter()
        .map(|words| operation(v1::Decision::WouldDeny, words, None));
    let recorded = judged(&narrower, PLANT, events);
    let refused: BTreeSet<&str> = operations(&recorded).into_iter().collect();
    let beyond: BTreeSet<&str> = words[50..].iter().map(String::as_str).collect();
    assert_eq!(refused, beyond);
    assert_eq!((recorded.passes.count, recorded.unjudged.len()), (50, 0));
    // What is in force refuses some of it already.
    let already = recorded.refused.iter().filter(|refused| refused.already).count();
    assert_eq!(already, 20);
    assert!(
        recorded.refused[0].because.contains("closest is"),
        "{}",
        recorded.refused[0].because
    );
    assert_eq!(recorded.refused[0].server.asset.as_deref(), Some("plc"));
}

#[test]
fn of_a_range_of_written_values_only_what_was_surely_written_is_held_against_a_release() {
    let write = "write-single-register 40 of unit 1";
    let outcome = |values| {
        let recorded = judged(
            PLANT,
            PLANT,
            [operation(v1::Decision::WouldDeny, write, Some(values))],
        );
        (
            recorded.refused.len(),
            recorded.passes.count,
            recorded.unjudged.len(),
        )
    };
    assert_eq!(outcome((0, 5)), (0, 1, 0));
    assert_eq!(outcome((4, 7)), (1, 0, 0));
    assert_eq!(outcome((5, 9)), (0, 0, 1), "6 may have been written, or not");
}

#[test]
fn a_permitted_operation_of_which_only_the_name_is_known_is_not_judged_where_its_list_is_narrowed() {
    let read = || operation(v1::Decision::Allow, "read-holding-registers", None);
    let outcome = |new: &str, events: Vec<Kind>| {
        let recorded = judged(new, PLANT, events);
        (
            recorded.refused.len(),
            recorded.passes.count,
            recorded.unjudged.len(),
        )
    };
    assert_eq!(outcome(PLANT, vec![read()]), (0, 1, 0));
    assert_eq!(outcome(&PLANT.replace("0-99", "0-199"), vec![read()]), (0, 1, 0));
    assert_eq!(outcome(&PLANT.replace("0-99", "0-49"), vec![read()]), (0, 0, 1));
    let removed = PLANT.replace(
        "          - read-holding-registers: { units: 1, addresses: 0-99 }\n",
        "",
    );
    assert_eq!(outcome(&removed, vec![read()]), (1, 0, 0));
    // Permitted by another release: what that one permitted is not known here.
    let plant = plant(PLANT);
    let mut judge = Judge::of(&plant, Some((&plant, Some(3))));
    judge.take(record("gw-a", 2, read()), GRANTED_MS);
    let judged = judge.finish();
    assert!(judged.refused.is_empty());
    assert_eq!(judged.unjudged.len(), 1);
}

#[test]
fn what_was_learned_while_zones_observed_is_refused_once_they_enforce_and_no_line_permits_it() {
    let learned = |last| {
        Kind::Learned(LearnedEvent {
            source: "10.20.1.21".into(),
            destination: "10.20.4.7".into(),
            protocol: 6,
            port: 502,
            application: "modbus-tcp".into(),
            connections: 1,
            modbus: vec![LearnedModbus {
                unit: 1,
                function: "read-holding-registers".into(),
                count: 3,
                write: vec![LearnedRange { first: 0, last }],
                ..LearnedModbus::default()
            }],
            ..LearnedEvent::default()
        })
    };
    let outcome = |new: &str, last| {
        let recorded = judged(new, PLANT, [learned(last)]);
        (
            recorded.refused.len(),
            recorded.observed.count,
            recorded.unjudged.len(),
        )
    };
    assert_eq!(outcome(PLANT, 99), (0, 0, 0));
    assert_eq!(outcome(PLANT, 100), (1, 0, 0));
    let observing = ["operations, networks", "control, networks"]
        .iter()
        .fold(PLANT.to_owned(), |text, zone| {
            text.replace(zone, &zone.replace(", ", ", enforcement: observe, "))
        });
    assert_eq!(outcome(&observing, 100), (0, 3, 0));
    // What is in force enforces the same list, or did not.
    let already = |base: &str| {
        let recorded = judged(PLANT, base, [learned(100)]);
        recorded
            .refused
            .iter()
            .map(|refused| refused.already)
            .collect::<Vec<_>>()
    };
    assert_eq!((already(PLANT), already(&observing)), (vec![true], vec![false]));
    assert_eq!(already(&PLANT.replace("0-99", "0-199")), [false]);
}

#[test]
fn what_there_is_no_time_to_judge_is_counted_as_not_judged() {
    let plant = plant(PLANT);
    let mut judge = Judge::of(&plant, None).until(Instant::now().into_std());
    for address in 0..3 {
        let words = format!("read-holding-registers {address} of unit 1");
        judge.take(
            record("gw-a", 3, operation(v1::Decision::WouldDeny, &words, None)),
            GRANTED_MS,
        );
    }
    let judged = judge.finish();
    let unjudged: Vec<_> = judged
        .unjudged
        .iter()
        .map(|(why, sum)| (why.as_str(), sum.events))
        .collect();
    assert_eq!(unjudged, [("there was no time left to judge it", 3)]);
    assert_eq!(
        (judged.events, judged.refused.len(), judged.passes.things),
        (3, 0, 0)
    );
}

#[test]
fn flows_that_must_not_stop_come_first_and_people_read_what_is_missing() {
    let connection = |port| Connection {
        ingress: "eth1".to_owned(),
        egress: "eth2".to_owned(),
        source: "10.20.1.21".parse().unwrap(),
        destination: "10.20.4.7".parse().unwrap(),
        transport: Carried::Tcp(port),
    };
    let none = PLANT
        .replace(
            "10.20.4.7 }",
            "10.20.4.7 }\n  other: { zone: control, address: 10.20.4.8 }",
        )
        .replacen("destination: plc", "destination: other", 1);
    let none = none.replace("tcp/9000", "tcp/9001");
    let refused = |port, decision| verdict(&connection(port), decision).unwrap();
    let events = [
        refused(9000, v1::Decision::Allow),
        refused(9000, v1::Decision::Allow),
        refused(502, v1::Decision::Allow),
        refused(9001, v1::Decision::Deny),
    ];
    let mut recorded = judged(&none, PLANT, events);
    let services: Vec<_> = recorded
        .refused
        .iter()
        .map(|r| (r.service.as_str(), r.must_flow, r.count))
        .collect();
    assert_eq!(services, [("tcp/502", true, 1), ("tcp/9000", false, 2)]);
    assert_eq!(recorded.newly_permitted.count, 1);
    recorded.missing.push("gw-b was dark all the time".to_owned());
    recorded
        .missing
        .extend((0..40).map(|gateway| format!("gw-{gateway} is connected")));
    let mut page = Page::new(Style {
        color: false,
        width: 120,
        wrap: true,
    });
    show(Some(&recorded), &mut page);
    let page = page.finish();
    for said in [
        "4 events",
        "by the coordinator's clock",
        "✗ 2 things that passed would be refused",
        "must flow: hmi (10.20.1.21, zone operations) → plc (10.20.4.7, zone control) tcp/502",
        "1 thing that was refused would pass: newly permitted, permitted since, or only observed (once)",
        "▲ gw-b was dark all the time",
        "▲ 21 more things missing, not shown (--output json)",
        "the trail is the coordinator's word",
    ] {
        assert!(page.contains(said), "{said}\n{page}");
    }
}

#[test]
fn a_span_that_is_no_time_is_refused_before_anything_and_0_leaves_it_out() {
    assert_eq!(since(Some("0")).unwrap(), None);
    assert_eq!(since(None).unwrap().as_deref(), Some("7d"));
    assert!(since(Some("a week")).is_err());
}
