//! A kernel of which nobody knows what it holds after a change that did not come to its end, and one that rejects late.

use super::trials::{believed, given, on_trial, over, standing, with_one};
use super::*;

#[test]
fn after_a_change_that_did_not_come_to_its_end_the_policy_before_is_put_in_force_again_and_nothing_was_on_trial()
 {
    let (mut gateway, second, two) = with_one();
    *gateway.kernel.doubtful.lock().unwrap() = 1;
    gateway.step(Occasion::Offer(second, on_trial()));
    assert_eq!(
        (given(&gateway), standing(&gateway)),
        (vec![1, 2, 1], StandingState::Staged)
    );
    assert_eq!(gateway.recorded("reverted r2"), 0);
    // Nothing is left of it for the next agent.
    let mut gateway = gateway.restarted();
    assert!(matches!(standing(&gateway), StandingState::Trial { .. }));
    gateway.step(Occasion::Tick);
    assert_eq!((given(&gateway), believed(&gateway)), (vec![2], 1));
    let confirmed = Command::Confirm {
        statement: two,
        by: trial::Confirmer::SelfTest,
    };
    gateway.step(Occasion::Command(confirmed, None));
    assert_eq!(believed(&gateway), 2);
}

#[test]
fn what_the_kernel_perhaps_holds_stays_named_until_it_is_known_that_it_does_not() {
    let mut gateway = Gateway::new();
    let (first, one) = offer(&over(), 1, None);
    let (second, _) = offer(&over(), 2, Some(one));
    gateway.step(Occasion::Offer(first, Order::default()));
    // Neither the newer one comes to its end, nor the way back.
    *gateway.kernel.doubtful.lock().unwrap() = 2;
    gateway.step(Occasion::Offer(second, Order::default()));
    assert_eq!(given(&gateway), [1, 2, 1]);
    gateway.records.lock().unwrap().unreadable_one = Some("policy-b");
    let mut gateway = gateway.restarted();
    // The kernel perhaps holds r2: nothing older takes its place.
    assert!(given(&gateway).is_empty());
    gateway.records.lock().unwrap().unreadable_one = None;
    gateway.step(Occasion::Tick);
    assert_eq!((given(&gateway), believed(&gateway)), (vec![2], 2));
}

#[test]
fn a_trial_that_comes_neither_to_its_beginning_nor_back_is_reverted_and_the_way_back_is_tried_until_it_is_done()
 {
    let (mut gateway, second, _) = with_one();
    *gateway.kernel.doubtful.lock().unwrap() = 5;
    gateway.step(Occasion::Offer(second, on_trial()));
    assert!(matches!(
        standing(&gateway),
        StandingState::Trial {
            confirmable_since: None,
            ..
        }
    ));
    for _ in 0..3 {
        pass(&gateway.time, TICK);
        gateway.step(Occasion::Tick);
    }
    assert_eq!(given(&gateway), [1, 2, 1, 2, 1, 1, 1]);
    assert!(matches!(standing(&gateway), StandingState::Reverted(reverted) if reverted.code == "lost"));
    gateway.step(Occasion::Tick);
    assert_eq!((given(&gateway).len(), believed(&gateway)), (7, 1));
    assert!(!gateway.shows("kernel-failed"));
}

#[test]
fn a_release_that_the_kernel_checks_well_and_rejects_is_tried_ever_more_rarely_and_wears_the_disk_no_more_than_that()
 {
    let (mut gateway, second, _) = with_one();
    *gateway.kernel.fails_late.lock().unwrap() = true;
    gateway.step(Occasion::Offer(second, on_trial()));
    gateway.records.lock().unwrap().written.clear();
    for _ in 0..360 {
        pass(&gateway.time, TICK);
        gateway.step(Occasion::Tick);
    }
    let written = gateway.records.lock().unwrap().written["trial"];
    assert!((100..=130).contains(&written), "{written} in an hour");
    *gateway.kernel.fails_late.lock().unwrap() = false;
    for _ in 0..6 {
        pass(&gateway.time, TICK);
        gateway.step(Occasion::Tick);
    }
    assert_eq!(given(&gateway), [1, 2]);
}

#[test]
fn an_agent_that_is_started_three_times_in_one_trial_goes_back_as_crashed() {
    let (mut gateway, second, _) = with_one();
    gateway.step(Occasion::Offer(second, on_trial()));
    let gateway = gateway.restarted().restarted();
    assert_eq!((given(&gateway), believed(&gateway)), (vec![2], 1));
    let gateway = gateway.restarted();
    assert_eq!(given(&gateway), [1]);
    assert!(matches!(standing(&gateway), StandingState::Reverted(reverted) if reverted.code == "crash"));
}
