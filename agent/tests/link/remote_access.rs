//! Grants of remote access: the agent opens and closes their conduits by its own clock, with a coordinator or without.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use penstock_agent::config::ClockSource;
use penstock_agent::reconcile::PolicyView;
use penstock_policy::ids::Digest;
use penstock_policy::plan::{Capability, Grant, Plan};
use penstock_proto::v1::coordinator_message::Message as Outbound;

use super::world::{BOTH, FakeKernel, Running, ending_tls, offer_of, within};
use super::{enrolled, steps};

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A plan whose one conduit hangs on a grant that began an hour ago.
fn granted(until_ms: u64) -> Plan {
    let mut plan = ending_tls(&[[10, 0, 2, 9].into()]);
    plan.requires
        .insert(Capability(Capability::REMOTE_ACCESS.to_owned()));
    let visit = Grant {
        name: "visit".parse().unwrap(),
        person: "Carla".to_owned(),
        from_ms: now_ms() - 3_600_000,
        until_ms,
    };
    plan.grants.insert("telemetry".parse().unwrap(), vec![visit]);
    plan
}

fn is_open(kernel: &FakeKernel) -> bool {
    let opened = kernel.opened.lock().unwrap();
    opened
        .last()
        .is_some_and(|open| *open == BTreeSet::from(["telemetry".parse().unwrap()]))
}

#[tokio::test]
async fn a_grant_opens_its_conduit_ends_by_the_gateways_clock_and_stays_over_after_a_restart_without_a_coordinator()
 {
    let (coordinator, state) = enrolled().await;
    let kernel = Arc::new(FakeKernel::default());
    let agent = Running::start_by(state.path(), kernel.clone(), ClockSource::Host).await;
    let (first, digest) = offer_of(&granted(now_ms() + 3_600_000), 1, None, BOTH);
    coordinator.keep_sending(Outbound::Offer(first));
    agent.effective(1).await;
    agent
        .policy(|view| {
            view.faults
                .iter()
                .any(|fault| fault.code == "remote-access" && fault.message.contains("Carla"))
        })
        .await;
    assert!(is_open(&kernel));
    let held = kernel.held.lock().unwrap().clone();
    let left = held
        .last()
        .and_then(|held| held.values().next().copied())
        .unwrap();
    assert!(left.as_secs() > 3_000 && left.as_secs() <= 3_600, "{left:?}");
    // Cut short to end in a moment: nobody says anything to the agent then.
    let (second, _) = offer_of(&granted(now_ms() + 2_000), 2, Some(digest), BOTH);
    coordinator.keep_sending(Outbound::Offer(second));
    agent.effective(2).await;
    agent
        .policy(|view| view.faults.iter().all(|fault| fault.code != "remote-access"))
        .await;
    assert!(!is_open(&kernel), "closed in the kernel");
    for step in ["remote-access-open", "remote-access-closed"] {
        within(async {
            while !steps(&coordinator).iter().any(|said| said == step) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    agent.stop().await;
    drop(coordinator);
    let kernel = Arc::new(FakeKernel::default());
    let agent = Running::start_by(state.path(), kernel.clone(), ClockSource::Host).await;
    agent.effective(2).await;
    assert!(!is_open(&kernel), "the stored plan's grant is over");
    agent.stop().await;
}

/// It begins in a second, and the kernel takes two for it.
#[tokio::test]
async fn a_kernel_that_opens_slowly_holds_no_conduit_open_past_its_end() {
    let (coordinator, state) = enrolled().await;
    let kernel = Arc::new(FakeKernel::default());
    let agent = Running::start_by(state.path(), kernel.clone(), ClockSource::Host).await;
    let until = now_ms() + 3_600_000;
    let mut plan = granted(until);
    for grant in plan.grants.values_mut().flatten() {
        grant.from_ms = now_ms() + 1_000;
    }
    let (offer, _) = offer_of(&plan, 1, None, BOTH);
    coordinator.keep_sending(Outbound::Offer(offer));
    agent.effective(1).await;
    *kernel.takes.lock().unwrap() = Duration::from_secs(2);
    within(async {
        while kernel.held_until.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let held = kernel.held_until.lock().unwrap().clone();
    assert!(held.iter().all(|held| *held <= until + 500), "{held:?} {until}");
    agent.stop().await;
}

#[tokio::test]
async fn a_conduit_that_could_not_be_closed_is_closed_later_and_reported_as_closed_only_then() {
    let (coordinator, state) = enrolled().await;
    let kernel = Arc::new(FakeKernel::default());
    let agent = Running::start_by(state.path(), kernel.clone(), ClockSource::Host).await;
    let (offer, _) = offer_of(&granted(now_ms() + 3_000), 1, None, BOTH);
    coordinator.keep_sending(Outbound::Offer(offer));
    let has = |view: &PolicyView, code| view.faults.iter().any(|fault| fault.code == code);
    agent.policy(|view| has(view, "remote-access")).await;
    *kernel.fails.lock().unwrap() = true;
    agent.policy(|view| has(view, "remote-access-failed")).await;
    let step = async |wanted: &str| {
        within(async {
            while !steps(&coordinator).iter().any(|said| said == wanted) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    step("remote-access-failed").await;
    assert!(is_open(&kernel));
    assert!(
        !steps(&coordinator)
            .iter()
            .any(|said| said == "remote-access-closed")
    );
    *kernel.fails.lock().unwrap() = false;
    agent
        .policy(|view| !has(view, "remote-access-failed") && !has(view, "remote-access"))
        .await;
    assert!(!is_open(&kernel));
    step("remote-access-closed").await;
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_cannot_close_a_conduit_refuses_a_plan_with_grants() {
    let (coordinator, state) = enrolled().await;
    let kernel = Arc::new(FakeKernel::default());
    *kernel.knows_grants.lock().unwrap() = false;
    let agent = Running::start_with(state.path(), kernel.clone()).await;
    let (offer, _) = offer_of(&granted(now_ms() + 3_600_000), 1, None::<Digest>, BOTH);
    coordinator.keep_sending(Outbound::Offer(offer));
    agent.refused("unknown-capability").await;
    assert_eq!(kernel.last(), None);
    agent.stop().await;
}
