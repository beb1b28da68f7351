//! Orders, what holds a release, and what is asked of a trial: obeyed in the session in which they come, echoed there, and refused by name.

use std::sync::Arc;

use penstock_agent::config::ClockSource;
use penstock_policy::ids::Digest;
use penstock_policy::plan::{Capability, ChangeWindows, Plan, Window};
use penstock_proto::v1::coordinator_message::Message as Outbound;
use penstock_proto::v1::policy_standing::State;
use penstock_proto::v1::{ConfirmTrial, HoldReason, Order, PolicyOffer, PolicyStanding, RevertTrial, Upto};

use super::world::coordinator::{Coordinator, Memory};
use super::world::{BOTH, Running, offer, offer_of, plan};
use super::{enrolled, step_comes, steps};

fn order(statement: Digest, upto: i32, number: u64) -> Order {
    Order {
        statement_digest: statement.0.to_vec().into(),
        upto,
        trial_seconds: 600,
        number,
        why: "wave 1".to_owned(),
    }
}

fn confirm(statement: Digest) -> Option<Outbound> {
    Some(Outbound::Confirm(ConfirmTrial {
        statement_digest: statement.0.to_vec().into(),
    }))
}

fn revert(digest: &[u8]) -> Option<Outbound> {
    Some(Outbound::Revert(RevertTrial {
        statement_digest: digest.to_vec().into(),
        reason: "too\u{202e} warm".to_owned(),
    }))
}

/// Release 2 after 1, with an order.
fn second(after: Digest, upto: i32, number: u64) -> (PolicyOffer, Digest) {
    let (mut second, two) = offer(2, Some(after), BOTH);
    second.order = Some(order(two, upto, number));
    (second, two)
}

async fn standing(coordinator: &Coordinator, what: impl Fn(&PolicyStanding) -> bool) {
    let shown = |memory: &Memory| memory.policy.as_ref()?.standing.clone();
    coordinator
        .until(|memory| shown(memory).is_some_and(|standing| what(&standing)))
        .await;
}

/// An agent with release 1 in force, from a coordinator that knows no orders.
async fn with_one() -> (Coordinator, tempfile::TempDir, Running, Digest) {
    let (coordinator, state) = enrolled().await;
    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    let (first, one) = offer(1, None, BOTH);
    coordinator.send(Some(Outbound::Offer(first)));
    agent.effective(1).await;
    (coordinator, state, agent, one)
}

#[tokio::test]
async fn a_trial_is_confirmed_in_a_session_that_the_agent_opened_by_itself_under_its_rules() {
    let (coordinator, _state, agent, one) = with_one().await;
    assert!(
        coordinator
            .memory
            .lock()
            .unwrap()
            .capabilities
            .contains(&"trials".to_owned())
    );
    let (second, two) = second(one, Upto::Active.into(), 5);
    coordinator.send(Some(Outbound::Offer(second)));
    agent.effective(2).await;
    coordinator.sessions(2).await;
    let on_trial = |standing: &PolicyStanding| match standing.state {
        Some(State::Trial(trial)) => {
            assert!(
                trial.left_ms <= 600_000 && trial.elapsed_ms <= 600_000,
                "{trial:?}"
            );
            trial.confirmable && standing.revision == 2
        }
        _ => false,
    };
    // The number belongs to the session in which it came.
    standing(&coordinator, |standing| standing.order == 0 && on_trial(standing)).await;
    coordinator.send(Some(Outbound::Order(order(two, Upto::Active.into(), 6))));
    standing(&coordinator, |standing| standing.order == 6 && on_trial(standing)).await;
    let trusts = |revision| {
        move |memory: &Memory| {
            let policy = memory.policy.as_ref();
            policy.and_then(|policy| Some(policy.trusted.as_ref()?.revision)) == Some(revision)
        }
    };
    coordinator.until(trusts(1)).await;
    coordinator.send(confirm(two));
    coordinator.until(trusts(2)).await;
    standing(&coordinator, |standing| {
        standing.state.is_none() && standing.revision == 2
    })
    .await;
    step_comes(&coordinator, "confirmed r2 ").await;
    agent.stop().await;
    let memory = coordinator.memory.lock().unwrap();
    assert_eq!(memory.faults, Vec::<String>::new(), "the trail is whole");
    let connected = steps(&memory).iter().filter(|step| *step == "connected").count();
    assert_eq!(
        (connected, memory.sessions),
        (2, 2),
        "one session was ended for the trial"
    );
}

#[tokio::test]
async fn what_a_coordinator_asks_of_no_trial_changes_nothing_and_a_revert_brings_back_what_was_before() {
    let (coordinator, _state, agent, one) = with_one().await;
    let (second, two) = second(one, Upto::Active.into(), 1);
    coordinator.send(Some(Outbound::Offer(second)));
    coordinator.sessions(2).await;
    for _ in 0..5 {
        coordinator.send(revert(&[7; 31]));
        coordinator.send(revert(&Digest::of(b"another").0));
        coordinator.send(confirm(Digest::of(b"another")));
    }
    step_comes(&coordinator, "order-refused").await;
    assert_eq!(agent.kernel.last(), Some(2));
    coordinator.send(revert(&two.0));
    agent.effective(1).await;
    standing(&coordinator, |standing| match &standing.state {
        Some(State::Reverted(reverted)) => {
            assert!(reverted.ordered && reverted.code == "asked", "{reverted:?}");
            reverted.message.contains("the coordinator (too\u{fffd} warm)")
        }
        _ => false,
    })
    .await;
    step_comes(&coordinator, "reverted r2 ").await;
    agent.stop().await;
    let steps = steps(&coordinator.memory.lock().unwrap());
    let refused = steps.iter().filter(|step| *step == "order-refused").count();
    assert_eq!(refused, 1, "the same once in a session");
}

#[tokio::test]
async fn an_order_alone_moves_what_is_staged_and_one_that_is_not_understood_goes_no_further() {
    let (coordinator, _state, agent, one) = with_one().await;
    let (second, two) = second(one, 9, 1);
    coordinator.send(Some(Outbound::Offer(second)));
    step_comes(&coordinator, "staged r2 ").await;
    step_comes(&coordinator, "order-refused").await;
    standing(&coordinator, |standing| {
        standing.order == 1 && standing.state.is_none()
    })
    .await;
    let another = order(Digest::of(b"another"), Upto::Active.into(), 2);
    coordinator.send(Some(Outbound::Order(another)));
    standing(&coordinator, |standing| standing.order == 2).await;
    assert_eq!(agent.kernel.last(), Some(1));
    let at_once = Order {
        trial_seconds: 0,
        ..order(two, Upto::Active.into(), 3)
    };
    coordinator.send(Some(Outbound::Order(at_once)));
    agent.effective(2).await;
    standing(&coordinator, |standing| {
        standing.order == 3 && standing.revision == 2
    })
    .await;
    agent.stop().await;
    assert_eq!(
        coordinator.memory.lock().unwrap().sessions,
        1,
        "without a trial it stays"
    );
}

/// A plan whose gateway may change on one day of the week, which is five days ahead.
fn with_windows() -> Plan {
    let now_ms = penstock_agent::clock::now_ms();
    // 1970 began on a Thursday.
    let weekday = (now_ms / 86_400_000 + 3 + 5) % 7;
    let mut plan = plan();
    plan.requires.insert(Capability::of(Capability::CHANGE_CONTROL));
    plan.windows = Some(ChangeWindows {
        timezone: "UTC".to_owned(),
        weekly: vec![Window {
            weekday: u8::try_from(weekday).unwrap(),
            start_minute: 120,
            end_minute: 180,
        }],
    });
    plan
}

#[tokio::test]
async fn a_release_waits_for_the_windows_of_the_plan_and_says_until_when() {
    let (coordinator, state) = enrolled().await;
    let agent = Running::start_by(state.path(), Arc::default(), ClockSource::Host).await;
    coordinator.sessions(1).await;
    let now_ms = penstock_agent::clock::now_ms();
    let (first, _) = offer_of(&with_windows(), 1, None, BOTH);
    coordinator.send(Some(Outbound::Offer(first)));
    standing(&coordinator, |standing| match &standing.state {
        Some(State::Held(held)) => {
            let day_ms = 86_400_000;
            let opens = now_ms + 4 * day_ms..now_ms + 6 * day_ms;
            assert_eq!(held.reason(), HoldReason::Window, "{held:?}");
            assert!(opens.contains(&held.until_ms), "{held:?}");
            standing.revision == 1
        }
        _ => false,
    })
    .await;
    step_comes(&coordinator, "held r1 ").await;
    assert_eq!(agent.kernel.last(), None);
    agent.stop().await;
}
