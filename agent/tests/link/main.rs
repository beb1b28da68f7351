//! The agent against a coordinator that is honest, gone, or hostile: over real TLS, with a kernel that remembers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod certificates;
mod offers;
mod remote_access;
mod trials;
mod unreadable;
mod withdrawn;
mod world;

use std::time::Duration;

use penstock_agent::identity::IdentityFolder;
use penstock_agent::link::enrol::enrol;
use penstock_policy::ids::Digest;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::coordinator_message::Message as Outbound;
use world::coordinator::{Coordinator, Memory};
use world::{BOTH, Running, offer, within};

async fn enrolled() -> (Coordinator, tempfile::TempDir) {
    let coordinator = Coordinator::start().await;
    let state = tempfile::tempdir().unwrap();
    enrol(state.path(), &coordinator.token()).await.unwrap();
    (coordinator, state)
}

fn steps(memory: &Memory) -> Vec<String> {
    memory
        .events()
        .into_iter()
        .filter_map(|event| match event.kind {
            Some(Kind::Policy(policy)) => {
                Some(format!("{} r{} {}", policy.step, policy.revision, policy.code))
            }
            Some(Kind::Agent(agent)) => Some(agent.step),
            _ => None,
        })
        .collect()
}

/// Waits until the trail has this step.
async fn step_comes(coordinator: &Coordinator, wanted: &str) {
    coordinator
        .until(|memory| steps(memory).iter().any(|step| step == wanted))
        .await;
}

fn loaded(state: &std::path::Path) -> penstock_agent::identity::Identity {
    let enrolment = IdentityFolder::peek_enrolment(state).unwrap();
    IdentityFolder::new(state).load(enrolment).unwrap()
}

#[tokio::test]
async fn garbage_and_huge_messages_end_the_session_and_the_next_one_works() {
    let (coordinator, state) = enrolled().await;
    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    coordinator.send(None);
    coordinator.sessions(2).await;
    let (mut huge, _) = offer(1, None, BOTH);
    huge.plan = vec![b'x'; penstock_proto::channel::COORDINATOR_MESSAGE_BYTES_MAX + 1].into();
    coordinator.send(Some(Outbound::Offer(huge)));
    coordinator.sessions(3).await;
    coordinator.send(Some(Outbound::Offer(offer(1, None, BOTH).0)));
    agent.effective(1).await;
    agent.stop().await;
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_and_arrives_whole_once() {
    let (mut coordinator, state) = enrolled().await;
    coordinator.memory.lock().unwrap().withhold_acks = true;
    let agent = Running::start(state.path()).await;
    coordinator.until(|memory| memory.blocks.len() >= 2).await;
    // The coordinator loses what it never acknowledged.
    coordinator.kill().await;
    {
        let mut memory = coordinator.memory.lock().unwrap();
        memory.blocks.clear();
        memory.head = None;
        memory.withhold_acks = false;
    }
    for _ in 0..200 {
        agent.views.audit.record(
            penstock_proto::v1::Severity::Notice,
            penstock_agent::audit::record::agent("buffered", "while the coordinator was away"),
        );
    }
    coordinator.restart().await;
    let buffered = |memory: &Memory| steps(memory).iter().filter(|step| *step == "buffered").count();
    coordinator.until(|memory| buffered(memory) >= 200).await;
    agent.stop().await;
    let said = steps(&coordinator.memory.lock().unwrap());
    assert_eq!(said.iter().filter(|step| *step == "buffered").count(), 200);
    assert_eq!(said.iter().filter(|step| *step == "started").count(), 1);
    assert_eq!(coordinator.memory.lock().unwrap().faults, Vec::<String>::new());
}
