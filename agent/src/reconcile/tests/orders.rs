//! Orders that move a release which the gateway has, and its shadow.

use std::sync::atomic::Ordering;

use super::trials::{given, on_trial, standing, with_one};
use super::*;
use crate::policy_store::journal::Upto;

fn to(upto: Upto, number: u64) -> Order {
    let session = Duration::from_secs(7);
    Order {
        upto,
        number: OrderNumber { session, number },
        ..on_trial()
    }
}

fn shadows(gateway: &Gateway) -> Vec<u64> {
    gateway.kernel.shadows.lock().unwrap().clone()
}

fn obeyed(gateway: &Gateway, session: u64) -> u64 {
    let order = gateway.view.borrow().standing.order;
    order.in_session(Duration::from_secs(session))
}

#[test]
fn an_order_alone_moves_a_staged_release_into_its_shadow_into_force_and_back_and_outlives_the_agent() {
    let (mut gateway, second, two) = with_one();
    gateway.site.is_running.store(true, Ordering::Relaxed);
    gateway.step(Occasion::Offer(second, to(Upto::Staged, 1)));
    assert_eq!(
        (standing(&gateway), obeyed(&gateway, 7)),
        (StandingState::Staged, 1)
    );
    gateway.step(Occasion::Order(two, to(Upto::Shadow, 2)));
    gateway.step(Occasion::Tick);
    let StandingState::Shadow(Some(report)) = standing(&gateway) else {
        panic!("{:?}", standing(&gateway));
    };
    assert_eq!((report.would_deny_packets, obeyed(&gateway, 7)), (7, 2));
    // While it is held, its shadow goes on.
    gateway.step(Occasion::Order(two, to(Upto::Active, 3)));
    assert!(matches!(
        standing(&gateway),
        StandingState::Held(Hold::Interlock(_))
    ));
    gateway.step(Occasion::Order(two, to(Upto::Shadow, 4)));
    assert_eq!(shadows(&gateway), [0, 2]);
    let mut gateway = gateway.restarted();
    // The number was of another session.
    assert_eq!((shadows(&gateway), obeyed(&gateway, 7)), (vec![2], 0));
    gateway.step(Occasion::Order(two, to(Upto::Staged, 1)));
    assert_eq!(
        (shadows(&gateway), standing(&gateway)),
        (vec![2, 0], StandingState::Staged)
    );
    gateway.site.is_running.store(false, Ordering::Relaxed);
    // What was withdrawn before it began does not begin by itself, also not for another agent.
    let mut gateway = gateway.restarted();
    gateway.step(Occasion::Tick);
    assert_eq!(given(&gateway), [1]);
    gateway.step(Occasion::Order(two, to(Upto::Active, 2)));
    assert_eq!(
        (given(&gateway), obeyed(&gateway, 7), obeyed(&gateway, 8)),
        (vec![1, 2], 2, 0)
    );
    assert_eq!(shadows(&gateway), [0]);
}

#[test]
fn an_order_about_another_release_or_about_one_that_began_does_nothing_but_is_answered() {
    let (mut gateway, second, two) = with_one();
    gateway.step(Occasion::Order(two, to(Upto::Active, 1)));
    let about = |gateway: &Gateway| gateway.view.borrow().standing.release.unwrap().0.0;
    assert_eq!(
        (given(&gateway), about(&gateway), obeyed(&gateway, 7)),
        (vec![1], 1, 1)
    );
    gateway.step(Occasion::Offer(second, to(Upto::Active, 2)));
    gateway.step(Occasion::Order(two, to(Upto::Staged, 3)));
    assert!(matches!(standing(&gateway), StandingState::Trial { .. }));
    assert_eq!(
        (given(&gateway), about(&gateway), obeyed(&gateway, 7)),
        (vec![1, 2], 2, 3)
    );
    gateway.pass(Duration::from_secs(61));
    // The answer about a reverted release is that it was.
    gateway.step(Occasion::Order(two, to(Upto::Active, 4)));
    assert!(matches!(standing(&gateway), StandingState::Reverted(_)));
    assert_eq!(
        (given(&gateway), about(&gateway), obeyed(&gateway, 7)),
        (vec![1, 2, 1], 2, 4)
    );
}

#[test]
fn an_order_that_the_disk_does_not_take_is_obeyed_and_answered_only_once_the_disk_has_it() {
    let (mut gateway, second, two) = with_one();
    gateway.site.is_running.store(true, Ordering::Relaxed);
    gateway.step(Occasion::Offer(second, to(Upto::Active, 1)));
    let slot = crate::policy_store::slot_of(&mut *gateway.records.lock().unwrap(), two);
    gateway.records.lock().unwrap().unwritable = slot;
    gateway.step(Occasion::Order(two, to(Upto::Staged, 2)));
    gateway.site.is_running.store(false, Ordering::Relaxed);
    gateway.pass(Duration::from_secs(5));
    assert_eq!((given(&gateway), obeyed(&gateway, 7)), (vec![1], 0));
    gateway.records.lock().unwrap().unwritable = None;
    gateway.step(Occasion::Tick);
    assert_eq!(obeyed(&gateway, 7), 2);
    let mut gateway = gateway.restarted();
    gateway.step(Occasion::Tick);
    assert_eq!(given(&gateway), [1]);
}

#[test]
fn what_shadow_came_to_is_seen_soon_after_it_began_and_ever_more_rarely_until_the_ticks_take_over() {
    let (mut gateway, second, _) = with_one();
    gateway.step(Occasion::Offer(second, to(Upto::Shadow, 1)));
    assert_eq!(standing(&gateway), StandingState::Shadow(None));
    let mut looks = Vec::new();
    while let Some(due) = gateway.reconciler.due() {
        gateway.pass(due);
        assert!(matches!(standing(&gateway), StandingState::Shadow(Some(_))));
        looks.push(due.as_secs());
    }
    assert_eq!(looks, [1, 1, 2, 4]);
}

#[test]
fn a_shadow_that_the_kernel_does_not_cast_is_a_fault_and_is_tried_again() {
    let (mut gateway, second, two) = with_one();
    gateway.step(Occasion::Offer(second, to(Upto::Staged, 1)));
    *gateway.kernel.fails.lock().unwrap() = true;
    gateway.step(Occasion::Order(two, to(Upto::Shadow, 2)));
    assert_eq!(standing(&gateway), StandingState::Staged);
    assert!(gateway.shows("kernel-failed"));
    *gateway.kernel.fails.lock().unwrap() = false;
    gateway.step(Occasion::Tick);
    assert!(matches!(standing(&gateway), StandingState::Shadow(Some(_))) && !gateway.shows("kernel-failed"));
}
