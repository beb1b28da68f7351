//! A real agent whose key is withdrawn, and a thief with a copy of it: what each hears, and how the gateway comes back.

use std::path::Path;

use penstock_agent::link::enrol::{EnrolError, KeyChoice, enrol, enrol_with};
use penstock_proto::v1;

use crate::dark::gateway::{Running, within};
use crate::dark::token;
use crate::identities::decide;
use crate::world::World;

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy(&entry.path(), &to),
            kind if kind.is_file() => drop(std::fs::copy(entry.path(), to).unwrap()),
            _ => {}
        }
    }
}

/// Waits until the agent is refused, in words that name its standing.
async fn is_turned_away(agent: &Running) {
    let mut link = agent.views.link.clone();
    let refused = link.wait_for(|link| {
        let problem = link.problem.as_deref().unwrap_or_default();
        link.coordinator.is_none() && problem.contains("gateway/gw-1 was revoked on ")
    });
    within(refused).await.unwrap();
}

pub async fn is_connected(agent: &Running) {
    let mut link = agent.views.link.clone();
    within(link.wait_for(|link| link.coordinator.is_some()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_revoked_gateway_comes_back_with_a_new_key_of_its_own_and_the_thief_of_the_old_one_does_not() {
    let world = World::start().await;
    let (state, stolen) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    enrol(state.path(), &token(&world).await).await.unwrap();
    copy(state.path(), stolen.path());
    let agent = Running::start(state.path()).await;
    is_connected(&agent).await;

    decide(&mut world.admin(), "gateway/gw-1", v1::StandingChange::Revoke)
        .await
        .unwrap();
    is_turned_away(&agent).await;
    agent.stop().await;

    let next = token(&world).await;
    let refused = enrol(state.path(), &next).await.unwrap_err();
    assert!(
        matches!(&refused, EnrolError::Withdrawn(_)) && refused.to_string().contains("--new-key"),
        "{refused}"
    );
    enrol_with(state.path(), &next, KeyChoice::New).await.unwrap();
    let agent = Running::start(state.path()).await;
    is_connected(&agent).await;

    let thief = Running::start(stolen.path()).await;
    let mut link = thief.views.link.clone();
    let refused = link.wait_for(|link| {
        let problem = link.problem.as_deref().unwrap_or_default();
        problem.contains("gateway/gw-1")
    });
    let why = within(refused).await.unwrap().clone();
    assert!(why.coordinator.is_none(), "{why:?}");
    assert!(
        agent.views.link.borrow().coordinator.is_some(),
        "it is not disturbed"
    );
    thief.stop().await;
    agent.stop().await;
}
