//! Trials that nobody could confirm do not begin: a session has to stand, and the order to come in it, unless the gateway is islanded.

use std::sync::atomic::Ordering;

use super::lies::{BOTH, signed};
use super::trials::{believed, given, on_trial, standing, with_one};
use super::*;
use crate::policy_store::journal::Upto;

/// An order in the session that was opened then.
fn ordered(session: u64, upto: Upto) -> Order {
    let session = Duration::from_secs(session);
    Order {
        upto,
        number: OrderNumber { session, number: 1 },
        ..on_trial()
    }
}

fn in_session(gateway: &Gateway, opened: Option<u64>) {
    *gateway.site.session.lock().unwrap() = opened.map(Duration::from_secs);
}

/// A gateway with release 1 in force, with a session that was opened at second 7.
fn with_session() -> (Gateway, Arc<PolicyOffer>, Digest) {
    let (gateway, second, two) = with_one();
    gateway.site.needs_session.store(true, Ordering::Relaxed);
    in_session(&gateway, Some(7));
    (gateway, second, two)
}

fn waits(gateway: &Gateway) -> bool {
    standing(gateway) == StandingState::Held(Hold::NoSession)
}

#[test]
fn a_trial_that_nobody_could_confirm_waits_until_it_is_ordered_in_a_session_that_stands() {
    let (mut gateway, second, two) = with_session();
    // The process holds it, and the session is lost meanwhile.
    gateway.site.is_running.store(true, Ordering::Relaxed);
    gateway.step(Occasion::Offer(second, ordered(7, Upto::Active)));
    in_session(&gateway, None);
    gateway.site.is_running.store(false, Ordering::Relaxed);
    gateway.site.is_asked.store(true, Ordering::Relaxed);
    gateway.pass(Duration::from_secs(3600));
    gateway.step(Occasion::Tick);
    assert!(waits(&gateway), "{:?}", standing(&gateway));
    assert!(
        gateway.site.is_asked.load(Ordering::Relaxed),
        "the process is not asked in vain"
    );
    let change = crate::local::change::Change::of_view(&gateway.view.borrow(), Duration::ZERO);
    assert_eq!(change.held.unwrap().by, "no-session");
    // So it does for the next agent, and in a session in which nothing was ordered yet: it may be about to be taken back.
    let mut gateway = gateway.restarted();
    gateway.step(Occasion::Tick);
    in_session(&gateway, Some(9));
    gateway.step(Occasion::Tick);
    assert!(
        waits(&gateway) && given(&gateway) == [1],
        "{:?}",
        standing(&gateway)
    );
    gateway.step(Occasion::Order(two, ordered(9, Upto::Active)));
    assert!(matches!(standing(&gateway), StandingState::Trial { .. }));
    assert_eq!(given(&gateway), [1, 2]);
}

#[test]
fn what_was_taken_back_while_the_gateway_was_out_of_reach_does_not_begin_when_it_connects_again() {
    let (mut gateway, second, two) = with_session();
    in_session(&gateway, None);
    gateway.step(Occasion::Offer(second, ordered(7, Upto::Active)));
    assert!(waits(&gateway));
    in_session(&gateway, Some(9));
    gateway.step(Occasion::Tick);
    gateway.step(Occasion::Order(two, ordered(9, Upto::Staged)));
    gateway.pass(Duration::from_secs(3600));
    assert_eq!(
        (standing(&gateway), given(&gateway)),
        (StandingState::Staged, vec![1])
    );
}

#[test]
fn an_islanded_gateway_waits_for_no_session_and_what_is_on_no_trial_needs_none() {
    let (mut gateway, second, _) = with_session();
    in_session(&gateway, None);
    gateway.site.is_islanded.store(true, Ordering::Relaxed);
    gateway.step(Occasion::Offer(second, ordered(7, Upto::Active)));
    assert!(matches!(standing(&gateway), StandingState::Trial { .. }));
    gateway.pass(Duration::from_secs(61));
    assert_eq!((given(&gateway), believed(&gateway)), (vec![1, 2], 2));

    let (mut gateway, second, _) = with_session();
    in_session(&gateway, None);
    gateway.step(Occasion::Offer(second, Order::default()));
    assert_eq!((given(&gateway), believed(&gateway)), (vec![1, 2], 2));
}

#[test]
fn an_emergency_skips_the_window_and_not_the_session_without_which_it_would_go_back() {
    let mut gateway = Gateway::new();
    let (first, one) = signed(1, None, false, &BOTH[..1]);
    gateway.step(Occasion::Offer(first, Order::default()));
    gateway.site.needs_session.store(true, Ordering::Relaxed);
    gateway.site.is_closed.store(true, Ordering::Relaxed);
    let (emergency, two) = signed(2, Some(one), true, BOTH);
    gateway.step(Occasion::Offer(emergency, ordered(7, Upto::Active)));
    assert!(waits(&gateway), "{:?}", standing(&gateway));
    in_session(&gateway, Some(9));
    gateway.step(Occasion::Order(two, ordered(9, Upto::Active)));
    assert!(matches!(standing(&gateway), StandingState::Trial { .. }));
}

#[test]
fn a_session_that_is_lost_between_the_look_and_the_swap_changes_nothing_the_trial_begins_and_ends() {
    let (mut gateway, second, _) = with_session();
    gateway.site.loses_session.store(true, Ordering::Relaxed);
    gateway.step(Occasion::Offer(second, ordered(7, Upto::Active)));
    assert!(matches!(standing(&gateway), StandingState::Trial { .. }));
    assert_eq!(*gateway.site.session.lock().unwrap(), None);
    // It is missed by nobody: it has all its time.
    gateway.pass(Duration::from_secs(59));
    assert!(matches!(standing(&gateway), StandingState::Trial { .. }));
    gateway.pass(Duration::from_secs(2));
    assert_eq!((given(&gateway), believed(&gateway)), (vec![1, 2, 1], 1));
    assert!(
        matches!(standing(&gateway), StandingState::Reverted(reverted) if reverted.code == "not-confirmed")
    );
}
