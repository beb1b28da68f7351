//! What a gateway may do by an order that it keeps on its disk, and how long that holds the other of its pair.

use penstock_policy::rollout::*;

use super::super::*;
use super::properties::{at, hello, rollout, says};
use super::world::member;

#[test]
fn what_was_let_go_out_of_reach_holds_the_other_of_its_pair_until_it_repeats_an_order_that_withdraws_it() {
    let pair = vec![
        member("gw-a", "a", Some("gw-b")),
        member("gw-b", "b", Some("gw-a")),
    ];
    let mut rollout = rollout(Fleet::new(pair).unwrap(), |plan| {
        plan.silence = Span::seconds(60);
        plan.waves[0].soak = Span::seconds(0);
    });
    let held = Standing::Held {
        reason: HoldReason::Window,
        until_ms: None,
    };
    let report = |gateway, order, standing| Fact::Report {
        gateway,
        order,
        standing,
    };
    rollout.step(at(1), [hello(0), hello(1)]);
    let (one, other) = if rollout.mark(0) == Some(Mark::Opened) {
        (0, 1)
    } else {
        (1, 0)
    };
    assert_eq!(rollout.mark(one), Some(Mark::Opened));
    rollout.step(at(2), [says(one, held), Fact::Gone { gateway: one }]);
    rollout.steer(at(3), Command::Pass).unwrap();
    for minute in 1..5 {
        rollout.step(at(3 + minute * 60), []);
    }
    assert_eq!(rollout.mark(one), Some(Mark::Unknown));
    // It is there again, and may begin at any moment by the order on its disk: also when it is gone again before it gets another.
    let hello = Fact::Hello {
        gateway: one,
        keeps_order: true,
        standing: held,
    };
    for second in [300, 310] {
        rollout.step(at(second), [hello, report(one, 0, held)]);
        assert!(!rollout.is_open(one) && !rollout.is_open(other));
        rollout.step(at(second + 5), [Fact::Gone { gateway: one }]);
    }
    rollout.step(at(320), [hello]);
    let order = rollout.target(one).unwrap().order;
    rollout.step(at(321), [report(one, order, Standing::Staged)]);
    assert!(
        rollout.is_open(one) != rollout.is_open(other),
        "one of them comes next"
    );
}

#[test]
fn a_gateway_that_says_hello_without_what_it_was_said_to_have_may_begin_again_and_holds_the_other_of_its_pair()
 {
    let pair = vec![
        member("gw-a", "a", Some("gw-b")),
        member("gw-b", "b", Some("gw-a")),
    ];
    let mut rollout = rollout(Fleet::new(pair).unwrap(), |_| {});
    rollout.step(at(1), [hello(0), hello(1)]);
    let (one, other) = if rollout.mark(0) == Some(Mark::Opened) {
        (0, 1)
    } else {
        (1, 0)
    };
    rollout.step(at(2), [says(one, Standing::Trial { confirmable: false })]);
    // Its kernel did not take it; the order stands on its disk.
    rollout.step(at(3), [hello(one)]);
    assert_eq!(rollout.mark(one), Some(Mark::Withdrawing));
    assert!(!rollout.is_open(one) && !rollout.is_open(other));
}
