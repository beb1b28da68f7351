//! A disk that cannot give back the policy in force for a while.

use std::path::Path;

use penstock_agent::policy_store;
use penstock_agent::store::Store;

use super::*;

/// A folder in a file's place cannot be read as a file, by nobody: as a disk that reports errors.
fn make_unreadable(state: &Path, record: &str) {
    let copy = state.join("copies").join(record);
    std::fs::rename(&copy, state.join("aside")).unwrap();
    std::fs::create_dir(&copy).unwrap();
    std::fs::remove_dir_all(state.join("store")).unwrap();
}

fn make_readable(state: &Path, record: &str) {
    let copy = state.join("copies").join(record);
    std::fs::remove_dir(&copy).unwrap();
    std::fs::rename(state.join("aside"), &copy).unwrap();
}

fn has_fault(view: &penstock_agent::reconcile::PolicyView, code: &str) -> bool {
    view.faults.iter().any(|fault| fault.code == code)
}

async fn with_two_releases() -> (Coordinator, tempfile::TempDir, Digest) {
    let (coordinator, state) = enrolled().await;
    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    let (first, one) = offer(1, None, BOTH);
    coordinator.send(Some(Outbound::Offer(first)));
    agent.effective(1).await;
    let (second, two) = offer(2, Some(one), BOTH);
    coordinator.send(Some(Outbound::Offer(second)));
    agent.effective(2).await;
    agent.stop().await;
    (coordinator, state, two)
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_is_a_fault_and_an_alarm_gives_way_to_no_older_one_and_is_in_force_when_it_can()
 {
    let (coordinator, state, _) = with_two_releases().await;
    make_unreadable(state.path(), "policy-b");
    let agent = Running::start(state.path()).await;
    assert_eq!(
        agent.kernel.last(),
        None,
        "release 1 would open what release 2 revoked"
    );
    for look in 0..3 {
        agent.nudge.notify_one();
        coordinator.sessions(2).await;
        agent
            .policy(|view| {
                has_fault(view, "stored-policy-unusable")
                    && has_fault(view, "store-copy-unread")
                    && view.state.trusted.as_ref().map(|trusted| trusted.revision) == Some(2)
            })
            .await;
        assert_eq!(agent.kernel.last(), None, "look {look}");
    }
    step_comes(&coordinator, "stored-policy-unusable").await;
    make_readable(state.path(), "policy-b");
    within(async {
        while agent.kernel.last() != Some(2) {
            agent.nudge.notify_one();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    agent.effective(2).await;
    agent
        .policy(|view| !has_fault(view, "stored-policy-unusable") && !has_fault(view, "store-copy-unread"))
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_is_not_written_over_by_the_next_release() {
    let (coordinator, state, two) = with_two_releases().await;
    make_unreadable(state.path(), "policy-b");
    let agent = Running::start(state.path()).await;
    coordinator.sessions(2).await;
    coordinator.send(Some(Outbound::Offer(offer(3, Some(two), BOTH).0)));
    agent.effective(3).await;
    agent.stop().await;
    make_readable(state.path(), "policy-b");
    let held = policy_store::load(&mut Store::open(state.path()));
    assert_eq!(held.effective.unwrap().mark.revision.0, 3);
    assert_eq!(held.faults, []);
    let kept = policy_store::peek(state.path());
    assert_eq!(kept.faults, []);
}

/// Keeps a record from being written: its draft cannot be made, by nobody.
fn refuse_writing(state: &Path, record: &str) -> std::path::PathBuf {
    let draft = state.join("copies").join(format!("{record}.new"));
    std::fs::create_dir(&draft).unwrap();
    draft
}

fn noted(state: &Path) -> Option<u64> {
    let held = policy_store::peek(state);
    held.effective.map(|effective| effective.mark.revision.0)
}

#[tokio::test]
async fn what_is_in_force_is_noted_once_the_disk_takes_it_again() {
    let (coordinator, state, two) = with_two_releases().await;
    let agent = Running::start(state.path()).await;
    coordinator.sessions(2).await;
    let draft = refuse_writing(state.path(), "effective");
    coordinator.send(Some(Outbound::Offer(offer(3, Some(two), BOTH).0)));
    agent.effective(3).await;
    // Faults are looked for now and then, and when somebody asks.
    agent.nudge.notify_one();
    agent.policy(|view| has_fault(view, "store-copies")).await;
    assert_eq!(noted(state.path()), Some(2));
    std::fs::remove_dir(&draft).unwrap();
    within(async {
        while noted(state.path()) != Some(3) {
            agent.nudge.notify_one();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_release_takes_the_place_of_none_that_is_in_force_and_not_noted_yet() {
    let (coordinator, state, two) = with_two_releases().await;
    let agent = Running::start(state.path()).await;
    coordinator.sessions(2).await;
    let draft = refuse_writing(state.path(), "effective");
    let (third, three) = offer(3, Some(two), BOTH);
    coordinator.send(Some(Outbound::Offer(third)));
    agent.effective(3).await;
    // The fourth is stored, and the kernel does not take it.
    *agent.kernel.fails_late.lock().unwrap() = true;
    coordinator.send(Some(Outbound::Offer(offer(4, Some(three), BOTH).0)));
    agent
        .policy(|view| view.state.staged.as_ref().map(|mark| mark.revision) == Some(4))
        .await;
    agent.stop().await;
    std::fs::remove_dir(&draft).unwrap();
    let mut store = Store::open(state.path());
    let trust = policy_store::load(&mut store).desired().unwrap().trust.clone();
    policy_store::set_effective(&mut store, three, &trust).unwrap();
    let held = policy_store::load(&mut store);
    assert_eq!(held.effective.map(|effective| effective.mark.revision.0), Some(3));
}

#[tokio::test]
async fn while_what_is_believed_cannot_be_read_no_release_is_taken() {
    let (coordinator, state, two) = with_two_releases().await;
    for record in ["policy-a", "policy-b"] {
        std::fs::remove_file(state.path().join("copies").join(record)).unwrap();
    }
    make_unreadable(state.path(), "trust");
    let agent = Running::start(state.path()).await;
    coordinator.sessions(2).await;
    // Signed by those with whom the gateway was enrolled, and long overtaken.
    coordinator.send(Some(Outbound::Offer(offer(1, None, BOTH).0)));
    agent.refused("not-stored").await;
    assert_eq!(agent.kernel.last(), None);
    make_readable(state.path(), "trust");
    // The release that waits is judged by what is believed.
    let code = || {
        let view = agent.views.policy.borrow();
        view.state.refused.as_ref().map(|refusal| refusal.code.clone())
    };
    within(async {
        while code().is_none_or(|code| code == "not-stored") {
            agent.nudge.notify_one();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(agent.kernel.last(), None);
    coordinator.send(Some(Outbound::Offer(offer(3, Some(two), BOTH).0)));
    agent.effective(3).await;
    agent.stop().await;
}

#[tokio::test]
async fn the_floor_sinks_neither_here_nor_on_disk_when_only_an_older_policy_is_left() {
    let (_coordinator, state, _) = with_two_releases().await;
    std::fs::remove_dir_all(state.path().join("store")).unwrap();
    std::fs::remove_file(state.path().join("copies/policy-b")).unwrap();
    for start in 0..2 {
        let agent = Running::start(state.path()).await;
        let trusted = agent.views.policy.borrow().state.trusted.clone();
        assert_eq!(trusted.map(|trusted| trusted.revision), Some(2), "start {start}");
        agent.stop().await;
    }
    let held = policy_store::load(&mut Store::open(state.path()));
    assert_eq!(held.trust.unwrap().floor.0, 2);
    assert!(held.staged.is_none());
}
