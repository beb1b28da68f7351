//! What a step costs grows with the fleet, not with its square: six times the fleet takes at most twelve times as long.
//!
//! Measured in the processor's time of this thread, so that a busy machine changes nothing, and the best of several rounds.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
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
    let text = document(gateways, 1);
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
