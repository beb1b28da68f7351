//! Grants of remote access, from an offer to the trail. When they open and close, with time that a test sets:
//! `agent/src/reconcile/tests.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use penstock_agent::config::ClockSource;
use penstock_policy::ids::Digest;
use penstock_policy::plan::{Capability, Grant, Plan};
use penstock_proto::v1::coordinator_message::Message as Outbound;

use super::world::{BOTH, FakeKernel, Running, ending_tls, offer_of};
use super::{enrolled, step_comes};

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
async fn a_grant_opens_its_conduit_in_the_kernel_in_health_and_in_the_trail() {
    let (coordinator, state) = enrolled().await;
    let kernel = Arc::new(FakeKernel::default());
    let agent = Running::start_by(state.path(), kernel.clone(), ClockSource::Host).await;
    let (offer, _) = offer_of(&granted(now_ms() + 3_600_000), 1, None, BOTH);
    coordinator.keep_sending(Outbound::Offer(offer));
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
    step_comes(&coordinator, "remote-access-open").await;
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
