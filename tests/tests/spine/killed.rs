//! kill -9 of the agent and of the coordinator, at moments that a seed chooses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use penstock_lab::wait_until;
use proptest::test_runner::Config;
use serde_json::Value;

use super::world::{PATIENCE, SOMETIMES, World, test};

/// Milliseconds below `bound`, by a seed that is printed (SplitMix64).
pub struct Moments(u64);

impl Moments {
    pub fn new() -> Self {
        let seed = std::env::var("PENSTOCK_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) ^ now_ns());
        println!("PENSTOCK_SEED={seed}");
        Self(seed)
    }

    pub fn wait(&mut self, below_ms: u64) {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        std::thread::sleep(Duration::from_millis((mixed ^ (mixed >> 31)) % below_ms));
    }
}

fn now_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map(|t| u64::from(t.subsec_nanos())).unwrap_or_default()
}

/// Holds every chain of the gateway's trail to having each block from the first on, and its seals to show nothing wrong.
fn assert_whole(world: &World) {
    let wrong = world.records("coordinator/c1", &["--kind", "trail"]);
    let wrong: Vec<_> = wrong.iter().filter(|r| r["event"]["step"] == "seals").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let mut chains: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    // Those that came since the first look are in the second.
    let seals = world.seals();
    let trail = world.trail();
    let last = trail.last().map(|record| record["sequence"].as_u64());
    let seals = seals
        .iter()
        .filter(|record| Some(record["sequence"].as_u64()) < last);
    for record in trail.iter().chain(seals) {
        let sequence = record["sequence"].as_u64().unwrap();
        chains
            .entry(record["epoch"].as_u64().unwrap())
            .or_default()
            .insert(sequence);
    }
    assert_eq!(
        chains.len(),
        1,
        "one chain through all restarts: {:?}",
        chains.keys()
    );
    for blocks in chains.values() {
        assert!(
            blocks.iter().copied().eq(0..blocks.len() as u64),
            "no block is missing: {blocks:?}"
        );
    }
}

#[test]
fn an_agent_killed_at_any_moment_keeps_its_policy_and_its_trail_is_one_whole_chain() {
    test(
        "killed::an_agent_killed_at_any_moment_keeps_its_policy_and_its_trail_is_one_whole_chain",
        |lab| {
            let mut moments = Moments::new();
            let (world, _coordinator) = World::new(lab, &lab.directory().join("state"));
            let mut agent = world.start_agent();
            world.wait_for_effective(world.release(true));
            let rounds = Config::default().cases / 42;
            for round in 0..rounds {
                // A release on its way, and the agent dies somewhere in the middle of it.
                let with_flow = round % 2 == 1;
                let revision = world.release(with_flow);
                moments.wait(150);
                agent.kill();
                world.assert_enforced("without an agent");
                agent = world.start_agent();
                moments.wait(400);
                agent.kill();
                world.assert_enforced("after a second death");
                agent = world.start_agent();
                world.wait_for_effective(revision);
                assert_eq!(
                    world.passes(SOMETIMES, with_flow),
                    with_flow,
                    "r{revision} is what the kernel holds"
                );
            }
            let told = |trail: &[Value]| {
                trail
                    .iter()
                    .any(|r| r["event"]["step"] == "effective" && r["event"]["revision"] == rounds + 1)
            };
            wait_until("the last release in the trail", PATIENCE, || told(&world.trail())).unwrap();
            assert_whole(&world);
            let proved = |said: &str| {
                said.contains("identity key vouches for it") && said.contains("coordinator has witnessed it")
            };
            wait_until("a trail that is proved and witnessed", PATIENCE, || {
                let (code, said) = world.at_the_cabinet(&["audit", "check"]);
                assert_eq!(code, Some(0), "{said}");
                proved(&said)
            })
            .unwrap();
        },
    );
}

#[test]
fn a_coordinator_killed_at_any_moment_forgets_nothing_it_has_answered() {
    test(
        "killed::a_coordinator_killed_at_any_moment_forgets_nothing_it_has_answered",
        |lab| {
            let mut moments = Moments::new();
            let (world, mut coordinator) = World::new(lab, &lab.directory().join("state"));
            let _agent = world.start_agent();
            let rounds = Config::default().cases / 51;
            for round in 0..rounds {
                let revision = world.release(round % 2 == 0);
                moments.wait(120);
                coordinator.kill();
                coordinator = world.start_coordinator();
                let list = world.penstock("engineer", &["release", "list"]);
                let known = list["releases"].as_array().unwrap().iter();
                let current: Vec<_> = known.filter(|r| r["state"] == "current").collect();
                assert_eq!(current.len(), 1, "{list}");
                assert_eq!(
                    current[0]["revision"], revision,
                    "an approval that was answered stays"
                );
                world.wait_for_effective(revision);
            }
            wait_until("the trail of every release", PATIENCE, || {
                let trail = world.trail();
                (1..=rounds).all(|revision| {
                    trail
                        .iter()
                        .any(|r| r["event"]["step"] == "effective" && r["event"]["revision"] == revision)
                })
            })
            .unwrap();
            assert_whole(&world);
        },
    );
}
