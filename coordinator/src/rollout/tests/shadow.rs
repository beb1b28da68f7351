//! What a gateway has to have judged before it may activate.

use penstock_policy::rollout::*;

use super::super::*;
use super::properties::{at, hello, rollout, says, singles};

#[test]
fn a_gateway_is_opened_only_once_it_has_judged_live_traffic_for_as_long_as_the_plan_wants() {
    let mut rollout = rollout(singles(3), |plan| {
        plan.shadow = Span::seconds(100);
        plan.waves.truncate(1);
        plan.waves[0].gateways = Selector::All;
        plan.waves[0].per_cell = 9;
    });
    let shadow = |judged_s: u64| Standing::Shadow {
        cuts_must_flow: false,
        judged_ms: judged_s * 1_000,
    };
    rollout.step(at(1), [hello(0), hello(1), hello(2)]);
    assert_eq!(rollout.target(0).unwrap().upto, Upto::Shadow);
    // The second one's kernel begins late, and the third one's agent knows no shadow.
    rollout.step(at(2), [says(0, shadow(1)), says(2, Standing::WithoutTrials)]);
    rollout.step(at(50), [says(1, shadow(1))]);
    rollout.step(at(102), []);
    assert!(matches!(rollout.stage(), Stage::Opening { .. }));
    assert!(rollout.is_open(0) && !rollout.is_open(1) && rollout.is_open(2));
    let is_waited_for = |wait: &Wait| wait.reason == WaitReason::Judging;
    assert!(
        rollout.waits(9).iter().any(is_waited_for),
        "{:?}",
        rollout.waits(9)
    );
    // It is looked at again when that is over, with no news of it, and not before.
    let due = rollout.deadline().unwrap();
    assert!((148_000..=150_000).contains(&due), "{due}");
    // What was judged under other rules, or by an agent before, does not count.
    rollout.step(at(140), [Fact::Gone { gateway: 1 }]);
    rollout.step(
        at(145),
        [Fact::Hello {
            gateway: 1,
            keeps_order: true,
            standing: shadow(3),
        }],
    );
    rollout.step(at(160), []);
    assert!(!rollout.is_open(1));
    rollout.step(at(220), []);
    rollout.step(at(243), []);
    assert!(rollout.is_open(1), "{:?}", rollout.waits(9));
}
