//! Grants of remote access, opened and closed by a clock that is set and a kernel that fails.

use super::*;

#[test]
fn a_grant_ends_by_the_gateways_clock_and_stays_over_after_a_restart() {
    let mut gateway = Gateway::new();
    let now = gateway.now_ms();
    let (first, digest) = offer(&granted(now - HOUR_MS, now + HOUR_MS), 1, None);
    gateway.step(Occasion::Offer(first, Order::default()));
    assert!(gateway.is_open() && gateway.shows("remote-access"));
    // Cut short: nobody says anything to the agent when it ends.
    let (second, _) = offer(&granted(now - HOUR_MS, now + 120_000), 2, Some(digest));
    gateway.step(Occasion::Offer(second, Order::default()));
    assert!(gateway.is_open());
    gateway.pass(Duration::from_secs(119));
    assert!(gateway.is_open() && gateway.shows("remote-access"));
    gateway.pass(Duration::from_secs(2));
    assert!(!gateway.is_open() && !gateway.shows("remote-access"));
    assert_eq!(gateway.recorded("remote-access-closed"), 2, "{:?}", gateway.steps);
    let gateway = gateway.restarted();
    assert_eq!(
        gateway.view.borrow().state.effective.as_ref().unwrap().revision,
        2
    );
    assert!(!gateway.is_open(), "the stored plan's grant is over");
}

#[test]
fn a_kernel_that_opens_slowly_holds_no_conduit_open_past_its_end() {
    let mut gateway = Gateway::new();
    let (now, boot) = (gateway.now_ms(), gateway.time.lock().unwrap().boot);
    let (offer, _) = offer(&granted(now + 1_000, now + HOUR_MS), 1, None);
    gateway.step(Occasion::Offer(offer, Order::default()));
    assert!(!gateway.is_open());
    *gateway.kernel.takes.lock().unwrap() = Duration::from_secs(20);
    gateway.pass(Duration::from_secs(60));
    assert!(gateway.is_open());
    let ends = gateway.kernel.ends.lock().unwrap().clone();
    assert_eq!(ends, [boot + Duration::from_millis(HOUR_MS)]);
}

#[test]
fn a_conduit_that_could_not_be_closed_is_closed_later_and_reported_as_closed_only_then() {
    let mut gateway = Gateway::new();
    let now = gateway.now_ms();
    let (offer, _) = offer(&granted(now - HOUR_MS, now + 60_000), 1, None);
    gateway.step(Occasion::Offer(offer, Order::default()));
    assert!(gateway.shows("remote-access"));
    *gateway.kernel.fails.lock().unwrap() = true;
    gateway.pass(Duration::from_secs(120));
    assert!(gateway.is_open() && gateway.shows("remote-access-failed"));
    let recorded = |gateway: &Gateway| {
        (
            gateway.recorded("remote-access-failed"),
            gateway.recorded("remote-access-closed"),
        )
    };
    assert_eq!(recorded(&gateway), (1, 0));
    *gateway.kernel.fails.lock().unwrap() = false;
    gateway.pass(Duration::from_secs(2));
    assert!(!gateway.is_open() && !gateway.shows("remote-access") && !gateway.shows("remote-access-failed"));
    assert_eq!(recorded(&gateway), (1, 1));
}

#[test]
fn where_no_grant_is_to_come_nothing_is_due() {
    let mut gateway = Gateway::new();
    assert_eq!(gateway.reconciler.due(), None);
    let now = gateway.now_ms();
    let (offer, _) = offer(&granted(now - HOUR_MS, now + 60_000), 1, None);
    gateway.step(Occasion::Offer(offer, Order::default()));
    assert!(gateway.reconciler.due().is_some());
    gateway.pass(Duration::from_secs(120));
    assert_eq!(gateway.reconciler.due(), None);
}
