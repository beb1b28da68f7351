//! What a bridge promises, held by random schedules of publications, breaks, crashes, full and failing disks, lost and
//! repeated acknowledgements, and brokers that lose sessions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use brokers::Published;
use world::{ACTORS, DiskHealth, PAYLOAD_BYTES_MAX, Side, Step, World};

mod brokers;
mod examples;
mod world;

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::From), Just(Side::To)]
}

/// A step that leaves both brokers their sessions and the disk its receipts.
fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![9 => Just(0), 1 => Just(PAYLOAD_BYTES_MAX)];
    prop_oneof![
        12 => (0u8..=2, bytes, prop::bool::weighted(0.9)).prop_map(|(qos, bytes, permitted)| Step::Publish {
            qos,
            bytes,
            permitted,
        }),
        20 => (prop::sample::select(&ACTORS[..]), 1u8..4).prop_map(|(actor, times)| Step::Do(actor, times)),
        8 => (1u8..4).prop_map(Step::Rounds),
        4 => (side(), 0u8..6).prop_map(|(side, heard)| Step::Break(side, heard)),
        1 => side().prop_map(Step::Refuse),
        1 => Just(Step::Repeat),
        2 => Just(Step::Crash),
        3 => (0u8..40).prop_map(Step::Seconds),
        1 => prop_oneof![Just(DiskHealth::IsFull), Just(DiskHealth::Works)].prop_map(Step::Disk),
    ]
}

/// A step after which QoS 2 is at least once, and what a broker puts off comes behind what it took meanwhile.
fn harsh_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => step(),
        1 => side().prop_map(Step::Forget),
        1 => Just(Step::Disk(DiskHealth::Fails)),
        1 => Just(Step::Disk(DiskHealth::Works)),
        1 => any::<bool>().prop_map(Step::Later),
    ]
}

/// A step among which policies permit nothing for a while.
fn revoking_step() -> impl Strategy<Value = Step> {
    prop_oneof![12 => step(), 1 => any::<bool>().prop_map(Step::Permit)]
}

/// How often each was delivered.
fn counts(world: &World) -> BTreeMap<usize, usize> {
    world
        .receiver
        .delivered
        .iter()
        .fold(BTreeMap::new(), |mut counts, number| {
            *counts.entry(*number).or_default() += 1;
            counts
        })
}

/// The first delivery of each comes in the order in which they were published; but at QoS 0 not of what an agent that was
/// killed had given just before.
fn order_is_kept(world: &World) {
    let unkept = |message: &&Published| message.qos == 0 && world.crashes > 0;
    let accepted = world.source.accepted.iter();
    let unkept: BTreeSet<_> = accepted.filter(unkept).map(|message| message.number).collect();
    let mut last = None;
    let mut seen = BTreeSet::new();
    for number in &world.receiver.delivered {
        if !unkept.contains(number) && seen.insert(*number) {
            assert!(
                last < Some(*number),
                "{number} after {last:?}: {:?}",
                world.receiver.delivered
            );
            last = Some(*number);
        }
    }
}

fn run(steps: &[Step]) -> World {
    let mut world = World::new();
    // A subscription stands before anything is published.
    world.step(&Step::Rounds(8));
    for step in steps {
        world.step(step);
    }
    assert!(world.settle().is_some(), "it comes to an end once nothing fails");
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn each_quality_of_service_is_kept_over_any_breaks_crashes_and_full_disks(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let world = run(&steps);
        order_is_kept(&world);
        let counts = counts(&world);
        for message in &world.source.accepted {
            let count = counts.get(&message.number).copied().unwrap_or(0);
            let number = message.number;
            match message.qos {
                _ if !message.permitted => prop_assert_eq!(count, 0, "{} is not permitted", number),
                0 if world.crashes == 0 => prop_assert!(count <= 1, "{number} at QoS 0 came {count} times"),
                0 => {}
                1 => prop_assert!(count >= 1, "{number} at QoS 1 did not come"),
                _ => prop_assert_eq!(count, 1, "{} at QoS 2", number),
            }
        }
    }

    #[test]
    fn what_was_acknowledged_arrives_also_after_lost_sessions_and_failing_disks(
        steps in prop::collection::vec(harsh_step(), 1..120),
    ) {
        let world = run(&steps);
        let counts = counts(&world);
        for message in &world.source.accepted {
            if message.permitted && world.source.acknowledged.contains(&message.number) {
                prop_assert!(counts.contains_key(&message.number), "{} did not come", message.number);
            }
        }
    }

    #[test]
    fn nothing_is_given_while_a_policy_does_not_permit_it_and_what_comes_once_it_does_again_keeps_its_quality(
        steps in prop::collection::vec(revoking_step(), 1..120),
    ) {
        let world = run(&steps);
        let counts = counts(&world);
        for message in world.source.accepted.iter().filter(|message| message.permitted) {
            let count = counts.get(&message.number).copied().unwrap_or(0);
            let number = message.number;
            prop_assert!(message.qos < 2 || count <= 1, "{number} at QoS 2 came {count} times");
            if number >= world.doubtful_below && !world.revoked && message.qos > 0 {
                prop_assert!(count > 0, "{number} at QoS {} did not come", message.qos);
            }
        }
    }
}
