//! What a step costs grows with the fleet, not with its square: six times the fleet takes at most twelve times as long.
//!
//! Measured in the processor's time of this thread, so that a busy machine changes nothing, and the best of several rounds.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use penstock_coordinator::health::boundaries;
use penstock_picture::{View, draw};
use penstock_policy::check::check;
use penstock_policy::compile::compile_all;
use penstock_policy::diagnostics::SourceFile;
use penstock_policy::diff::diff;
use penstock_policy::ids::{Digest, GatewayId, OperatorId, Revision};
use penstock_policy::model::{Plant, RemoteAccess};
use penstock_policy::plan::{Plan, moment};
use penstock_policy::release::{Draft, Release, build};
use rustix::time::{ClockId, clock_gettime};

#[path = "../benches/fleet/document.rs"]
mod document;

use document::document;

/// Gateways of the smaller fleet.
const FEW: u32 = 400;
/// How many times as many the larger has.
const TIMES: u32 = 6;
/// How many times as long it may take.
const AT_MOST: u32 = 12;
const ROUNDS: u32 = 3;
/// How often all is measured again where it took longer.
const AGAIN: u32 = 4;

fn read(text: &str) -> Plant {
    let file = SourceFile {
        name: "plant.yaml".to_owned(),
        text: text.to_owned(),
    };
    let loaded = penstock_policy::load(&[file], jiff::civil::date(2026, 1, 1));
    let faults: Vec<_> = loaded.diagnostics.errors().take(3).collect();
    loaded.plant.unwrap_or_else(|| panic!("{faults:?}"))
}

fn released(plant: &Plant) -> Release {
    let draft = Draft {
        emergency: false,
        withdrawn: None,
        trust: None,
        trails: None,
        revision: Revision(1),
        parent: None,
        replaces: Vec::new(),
        document_digest: Digest::of(b"document"),
        author: OperatorId::new("anna").unwrap(),
        ticket: None,
        reason: "test".to_owned(),
        created_ms: 1,
    };
    build(plant, draft).unwrap()
}

fn cost(mut step: impl FnMut()) -> Duration {
    let now = || {
        let at = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(at.tv_sec.unsigned_abs(), u32::try_from(at.tv_nsec).unwrap())
    };
    let rounds = (0..ROUNDS).map(|_| {
        let began = now();
        step();
        now().saturating_sub(began)
    });
    rounds.min().unwrap()
}

/// One gateway before a zone of many single addresses, each with a flow of its own.
fn wide(assets: u32) -> String {
    let mut text = String::from(
        "plant: wide
approvers:
  threshold: 1
  people:
    bob: { key: \"ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\" }
sites: { works: { title: Works, timezone: UTC } }
gateways:
  gw: { site: works, mode: bridged, interfaces: { eth1: { zone: centre }, eth2: { zone: field } } }
zones:
  centre: { title: Centre, kind: operations, networks: [10.0.0.0/16] }
  field: { title: Field, kind: control }
assets:
  hmi: { zone: centre, address: 10.0.255.21 }
",
    );
    for number in 0..assets {
        // Every other one, so that they do not become a network.
        let (high, low) = (1 + number / 100, 2 * (number % 100));
        writeln!(
            text,
            "  plc-{number}: {{ zone: field, address: 10.{high}.7.{low} }}"
        )
        .unwrap();
    }
    text.push_str("conduits:\n  c:\n    from: centre\n    to: field\n    flows:\n");
    for number in 0..assets {
        writeln!(
            text,
            "      poll-{number}: {{ source: hmi, destination: plc-{number}, service: tcp/502, must_flow: yes }}"
        )
        .unwrap();
    }
    text
}

/// The plant with so many grants of remote access on one conduit.
fn with_grants(plant: &Plant, count: u32) -> Plant {
    const DAY_MS: u64 = 86_400_000;
    let mut granted = plant.clone();
    for number in 0..count {
        let from_ms = u64::from(number) * 2 * DAY_MS;
        let access = RemoteAccess {
            person: "Carla".to_owned(),
            conduit: "c-0".parse().unwrap(),
            reason: "maintenance".to_owned(),
            from: moment(from_ms),
            until: moment(from_ms + DAY_MS),
            from_ms,
            until_ms: from_ms + DAY_MS,
            approved_by: "bob".parse().unwrap(),
        };
        granted
            .remote_access
            .insert(format!("visit-{number}").parse().unwrap(), access);
    }
    granted
}

/// All steps of a proposal, at the engineer's and at the coordinator's.
fn costs(gateways: u32) -> BTreeMap<&'static str, Duration> {
    let text = document(gateways, 1);
    let plant = read(&text);
    let plans: BTreeMap<GatewayId, Plan> = compile_all(&plant).unwrap();
    let release = released(&plant);
    let mut costs = BTreeMap::from([
        ("reading the document", cost(|| drop(read(&text)))),
        ("compiling", cost(|| drop(compile_all(&plant).unwrap()))),
        ("building the release", cost(|| drop(released(&plant)))),
        (
            "each gateway's part of the release",
            cost(|| {
                for gateway in release.plans.keys() {
                    release.plan(gateway).unwrap();
                }
            }),
        ),
        ("checking", cost(|| drop(check(&plant, &plans, Some(&plans))))),
        ("comparing", cost(|| drop(diff(Some(&plant), &plant).unwrap()))),
        ("the zones' boundaries", cost(|| drop(boundaries(&plant, &plans)))),
        (
            "drawing the overview",
            cost(|| drop(draw(&plant, None, &View::Overview))),
        ),
        (
            "drawing everything on one sheet",
            cost(|| drop(draw(&plant, None, &View::Whole))),
        ),
    ]);
    let granted = with_grants(&plant, gateways);
    costs.insert(
        "comparing the grants of one conduit",
        cost(|| drop(diff(Some(&plant), &granted).unwrap())),
    );
    let wide = read(&wide(gateways));
    let plans = compile_all(&wide).unwrap();
    costs.insert(
        "checking a gateway with many flows",
        cost(|| drop(check(&wide, &plans, Some(&plans)))),
    );
    costs
}

#[test]
fn six_times_the_fleet_takes_at_most_twelve_times_as_long_in_every_step_of_a_proposal() {
    let mut few = costs(FEW);
    let mut many = costs(FEW * TIMES);
    // Another program that wants the processor's caches makes a step slower, never quicker: the best of all counts.
    for _ in 0..AGAIN {
        if few.iter().all(|(step, cost)| is_within(*cost, many.get(step))) {
            break;
        }
        keep_the_best(&mut few, costs(FEW));
        keep_the_best(&mut many, costs(FEW * TIMES));
    }
    for (step, cost) in few {
        let larger = many.get(step);
        println!("{step}: {cost:?}, {larger:?}");
        assert!(
            is_within(cost, larger),
            "{step}: {cost:?} for {FEW} gateways, {larger:?} for {TIMES} times as many"
        );
    }
}

fn is_within(cost: Duration, larger: Option<&Duration>) -> bool {
    // Below a millisecond it is the clock that is measured.
    larger.is_some_and(|larger| *larger <= cost.max(Duration::from_millis(1)) * AT_MOST)
}

fn keep_the_best(best: &mut BTreeMap<&'static str, Duration>, others: BTreeMap<&'static str, Duration>) {
    for (step, cost) in others {
        best.entry(step).and_modify(|least| *least = cost.min(*least));
    }
}
