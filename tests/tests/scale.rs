//! What a step costs grows with the fleet, not with its square: three times the fleet takes at most four times as long.
//!
//! Measured in the processor's time of this thread, so that a busy machine changes nothing, and the best of several rounds.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use penstock_coordinator::health::boundaries;
use penstock_policy::check::check;
use penstock_policy::compile::compile_all;
use penstock_policy::diagnostics::SourceFile;
use penstock_policy::diff::diff;
use penstock_policy::ids::{Digest, GatewayId, OperatorId, Revision};
use penstock_policy::model::Plant;
use penstock_policy::plan::Plan;
use penstock_policy::release::{Draft, Release, build};
use rustix::time::{ClockId, clock_gettime};

/// Gateways of the smaller fleet.
const FEW: u32 = 500;
/// How many times as many the larger has.
const TIMES: u32 = 3;
/// How many times as long it may take.
const AT_MOST: u32 = 4;
const ROUNDS: u32 = 3;
/// How often all is measured again where it took longer.
const AGAIN: u32 = 4;

/// Stations at the edge of one control room: each a gateway, a zone, an asset and a conduit of its own.
fn document(gateways: u32) -> String {
    let mut text = String::from(
        "plant: fleet
approvers:
  threshold: 1
  people:
    bob: { key: \"ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\" }
sites: { works: { title: Works, timezone: UTC } }
zones:
  centre: { title: Centre, kind: operations, networks: [10.0.0.0/16] }
",
    );
    let net = |number: u32| format!("10.{}.{}", 1 + number / 250, number % 250);
    for number in 0..gateways {
        let net = net(number);
        writeln!(
            text,
            "  z-{number}: {{ title: Station, kind: control, networks: [{net}.0/24] }}"
        )
        .unwrap();
    }
    text.push_str("assets:\n  hmi: { zone: centre, address: 10.0.255.21 }\n");
    for number in 0..gateways {
        let net = net(number);
        writeln!(text, "  plc-{number}: {{ zone: z-{number}, address: {net}.7 }}").unwrap();
    }
    text.push_str("gateways:\n");
    for number in 0..gateways {
        let net = net(number);
        writeln!(
            text,
            "  gw-{number}: {{ site: works, mode: routed, interfaces: {{ eth1: {{ zone: centre, address: {}/16 }}, \
             eth2: {{ zone: z-{number}, address: {net}.1/24 }} }}, management: {{ interface: eth0, peers: [192.0.2.10] }} }}",
            net.replacen("10", "10.0", 1)
        )
        .unwrap();
    }
    text.push_str("conduits:\n");
    for number in 0..gateways {
        writeln!(
            text,
            "  c-{number}: {{ title: Station, from: centre, to: z-{number}, via: [gw-{number}], flows: {{ poll: {{ source: hmi, \
             destination: plc-{number}, service: tcp/502 }} }} }}"
        )
        .unwrap();
    }
    text
}

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

/// All steps of a proposal, at the engineer's and at the coordinator's.
fn costs(gateways: u32) -> BTreeMap<&'static str, Duration> {
    let text = document(gateways);
    let plant = read(&text);
    let plans: BTreeMap<GatewayId, Plan> = compile_all(&plant).unwrap();
    let release = released(&plant);
    BTreeMap::from([
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
        ("the zones' boundaries", cost(|| drop(boundaries(&plant)))),
    ])
}

#[test]
fn three_times_the_fleet_takes_at_most_four_times_as_long_in_every_step_of_a_proposal() {
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
