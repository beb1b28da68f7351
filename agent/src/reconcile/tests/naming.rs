//! The name of a policy on the disk before the kernel is asked for it, and what nobody learns before the kernel has it.

use super::*;

/// A plan whose one grant is long over.
fn over() -> Plan {
    granted(1, 2)
}

#[test]
fn an_agent_that_ends_before_it_noted_a_release_brings_no_older_one_back_where_that_cannot_be_read() {
    let mut gateway = Gateway::new();
    let (first, one) = offer(&over(), 1, None);
    let (second, two) = offer(&over(), 2, Some(one));
    gateway.step(Occasion::Offer(first.clone(), Order::default()));
    gateway.records.lock().unwrap().unwritable = Some("effective");
    gateway.step(Occasion::Offer(second, Order::default()));
    assert_eq!(*gateway.kernel.given.lock().unwrap(), [1, 2]);
    {
        // The agent ends here.
        let mut records = gateway.records.lock().unwrap();
        records.unwritable = None;
        records.unreadable_one = Some("policy-b");
    }
    let mut gateway = gateway.restarted();
    let trusted = gateway.view.borrow().state.trusted.clone().unwrap();
    assert_eq!((trusted.revision, &trusted.statement_digest[..]), (2, &two.0[..]));
    assert!(gateway.shows("stored-policy-unusable"));
    // A coordinator that knows nothing of the second has no way back either.
    gateway.step(Occasion::Offer(first, Order::default()));
    gateway.step(Occasion::Tick);
    assert_eq!(gateway.view.borrow().state.refused.clone().unwrap().code, "older");
    assert!(gateway.kernel.given.lock().unwrap().is_empty());
    gateway.records.lock().unwrap().unreadable_one = None;
    gateway.step(Occasion::Tick);
    assert_eq!(*gateway.kernel.given.lock().unwrap(), [2]);
    assert!(!gateway.shows("stored-policy-unusable"));
}

#[test]
fn a_release_that_the_kernel_rejected_leaves_the_one_before_its_place_also_where_it_cannot_be_read_later() {
    let mut gateway = Gateway::new();
    let (first, one) = offer(&over(), 1, None);
    let (second, _) = offer(&over(), 2, Some(one));
    gateway.step(Occasion::Offer(first, Order::default()));
    *gateway.kernel.fails_late.lock().unwrap() = true;
    gateway.step(Occasion::Offer(second, Order::default()));
    gateway.records.lock().unwrap().unreadable_one = Some("policy-b");
    let gateway = gateway.restarted();
    assert_eq!(*gateway.kernel.given.lock().unwrap(), [1]);
    assert_eq!(gateway.view.borrow().state.trusted.as_ref().unwrap().revision, 1);
}

#[test]
fn a_release_whose_name_the_disk_does_not_take_waits_and_the_kernel_is_not_asked() {
    let mut gateway = Gateway::new();
    let (first, one) = offer(&over(), 1, None);
    let (second, _) = offer(&over(), 2, Some(one));
    gateway.step(Occasion::Offer(first, Order::default()));
    gateway.records.lock().unwrap().unwritable = Some("trial");
    gateway.step(Occasion::Offer(second, Order::default()));
    gateway.step(Occasion::Tick);
    assert_eq!(*gateway.kernel.given.lock().unwrap(), [1]);
    assert_eq!(gateway.view.borrow().state.staged.as_ref().unwrap().revision, 2);
    // After a start the one before stands until then: the kernel never held the newer one.
    let mut gateway = gateway.restarted();
    assert_eq!(*gateway.kernel.given.lock().unwrap(), [1]);
    gateway.records.lock().unwrap().unwritable = None;
    gateway.step(Occasion::Tick);
    assert_eq!(*gateway.kernel.given.lock().unwrap(), [1, 2]);
}

#[test]
fn the_kernel_has_a_shorter_grant_before_anybody_learns_that_its_release_is_in_force() {
    let mut gateway = Gateway::new();
    let (now, boot) = (gateway.now_ms(), gateway.time.lock().unwrap().boot);
    let (first, one) = offer(&granted(now - HOUR_MS, now + HOUR_MS), 1, None);
    let (second, _) = offer(&granted(now - HOUR_MS, now + 60_000), 2, Some(one));
    gateway.step(Occasion::Offer(first, Order::default()));
    *gateway.kernel.shown.lock().unwrap() = Some(gateway.view.clone());
    gateway.step(Occasion::Offer(second, Order::default()));
    assert_eq!(
        *gateway.kernel.ends.lock().unwrap(),
        [boot + Duration::from_secs(60)]
    );
    assert_eq!(*gateway.kernel.shown_at_hold.lock().unwrap(), Some(1));
}

#[test]
fn a_release_that_was_confirmed_stays_believed_where_no_mark_was_written_since_and_a_newer_one_was_put_in_force()
 {
    let (mut gateway, second, two) = super::trials::with_one();
    gateway.records.lock().unwrap().unwritable = Some("effective");
    gateway.step(Occasion::Offer(second, super::trials::on_trial()));
    let confirmed = super::trials::asked(&mut gateway, super::trials::confirm(two));
    assert_eq!(confirmed, Ok(()));
    let (third, _) = offer(&super::trials::over(), 3, Some(two));
    gateway.step(Occasion::Offer(third, Order::default()));
    assert_eq!(super::trials::believed(&gateway), 3);
    // An agent whose kernel takes nothing believes what the disk says, and no less.
    let held = crate::policy_store::load(&mut *gateway.records.lock().unwrap());
    assert_eq!(held.trust.unwrap().floor, Revision(2));
    // Nor where the slot of what the mark names is gone: the one that is named was in force then.
    let three = held.staged.or(held.effective).unwrap().statement;
    let (fourth, _) = offer(&super::trials::over(), 4, Some(three));
    let staged = Order {
        upto: crate::policy_store::journal::Upto::Staged,
        ..Order::default()
    };
    gateway.step(Occasion::Offer(fourth, staged));
    let held = crate::policy_store::load(&mut *gateway.records.lock().unwrap());
    assert_eq!(held.trust.unwrap().floor, Revision(3));
}
