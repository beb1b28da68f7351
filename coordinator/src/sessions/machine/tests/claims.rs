//! What holds of a session whatever happens to it, and of some that are worth a name.

use super::*;

proptest! {
    #[test]
    fn nothing_is_acknowledged_that_is_not_durable_and_all_is_made_up_for_once_faults_stop(
        schedule in prop::collection::vec(happenings(), 1..400),
    ) {
        let mut world = World::new();
        world.connect();
        for happens in schedule {
            if world.ended.is_some() {
                world.connect();
            }
            world.happens(happens);
        }
        // A trail whose gateway used its share up waits for ten minutes, and then until the next look.
        prop_assert!(world.settle() <= Duration::from_secs(680));
        prop_assert_eq!((world.durable, world.holds), (world.recorded, world.current));
    }

    #[test]
    fn a_gateway_hears_that_its_session_lives_while_the_store_takes_nothing_and_is_offered_releases(
        mood in moods().prop_filter("one that takes nothing", |mood| *mood != Mood::Works),
        answers_in_ms in 0_u64..8_000,
        has_room in any::<bool>(),
    ) {
        let mut world = World::new();
        world.connect();
        world.answers();
        (world.mood, world.recorded) = (mood, 100);
        let mut elapsed_ms = 0;
        while elapsed_ms < 900_000 && world.ended.is_none() {
            elapsed_ms += answers_in_ms + 100;
            world.next_block();
            world.room(has_room);
            for _ in 0..(answers_in_ms / 100) {
                world.later(Duration::from_millis(100));
                while world.takes() {}
            }
            world.answers();
            world.later(Duration::from_millis(100));
            while world.takes() {}
            prop_assert!(world.now - world.heard < PATIENCE);
        }
        prop_assert!(world.ended.is_none());
        world.happens(Happens::Release);
        prop_assert!(world.takes());
        prop_assert_eq!(world.offered, world.current);
    }

    #[test]
    fn a_gateway_that_takes_nothing_is_cut_off_in_time_whatever_else_happens(
        schedule in prop::collection::vec(happenings(), 0..200),
    ) {
        let mut world = World::new();
        world.connect();
        world.answers();
        while world.takes() {}
        let mut waits_since = None;
        for happens in schedule {
            if matches!(happens, Happens::Takes | Happens::End(_) | Happens::Noise(_)) {
                continue;
            }
            world.happens(happens);
            if let Some(Err(refusal)) = &world.ended {
                let allowed = [Reason::SlowConsumer, Reason::AuditFork, Reason::StoreBusy];
                prop_assert!(allowed.contains(&refusal.reason), "{refusal:?}");
                return Ok(());
            }
            waits_since = waits_since.or_else(|| world.machine.has_message().then_some(world.now));
            let overdue = waits_since.is_some_and(|since| world.now - since > Duration::from_secs(50));
            prop_assert!(!overdue, "it is waited for beyond its time");
        }
        world.happens(Happens::Release);
        // What waited may have been overtaken, but it waits.
        world.later(SessionLimits::default().send_timeout);
        let end = world.ended.unwrap().unwrap_err();
        prop_assert_eq!(end.reason, Reason::SlowConsumer);
    }
}

#[test]
fn who_says_no_hello_in_time_is_refused_and_nothing_is_asked_for_it() {
    let mut world = World::new();
    world.later(SessionLimits::default().hello_timeout);
    let refusal = world.ended.unwrap().unwrap_err();
    assert_eq!(refusal.reason, Reason::SessionProtocol);
    assert!(world.question.is_none() && !world.greeted);
}

#[test]
fn a_release_that_is_overtaken_before_the_gateway_takes_it_is_not_sent() {
    let mut world = World::new();
    world.connect();
    world.answers();
    for _ in 0..5 {
        world.happens(Happens::Release);
    }
    assert!(world.takes() && world.takes(), "a welcome and one offer");
    assert!(!world.takes());
    assert_eq!(world.offered, 6);
}

#[test]
fn the_end_of_a_session_keeps_no_acknowledgement_of_what_was_stored_back() {
    let mut world = World::new();
    world.connect();
    world.answers();
    while world.takes() {}
    world.recorded = 2;
    world.next_block();
    world.room(true);
    world.answers();
    world.step(Fact::Stopping);
    assert!(world.ended.is_some() && world.takes());
    assert_eq!(world.acknowledged, 1);
}

#[test]
fn what_a_broken_session_leaves_behind_is_not_stored_before_the_blocks_that_the_store_failed_to_take() {
    for paused in [true, false] {
        let mut world = World::new();
        world.connect();
        world.answers();
        while world.takes() {}
        world.recorded = 2;
        world.mood = Mood::Fails;
        world.next_block();
        world.room(true);
        if paused {
            world.answers();
        }
        world.next_block();
        world.room(true);
        world.step(Fact::Gone);
        // The store works again before the session is quite over.
        world.leaves();
        assert_eq!(world.durable, 0);
    }
}

#[test]
fn what_waits_behind_blocks_that_are_stored_is_judged_although_the_session_is_over() {
    let mut world = World::new();
    world.connect();
    world.answers();
    while world.takes() {}
    world.recorded = 2;
    world.next_block();
    world.room(true);
    world.next_block();
    world.room(true);
    world.step(Fact::Gone);
    world.leaves();
    assert_eq!(world.durable, 2);
}
