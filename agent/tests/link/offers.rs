//! Offers: which take effect, which are refused by name, and what a failing kernel or a restart leaves in force.

use std::sync::Arc;

use super::world::{BOTH, FakeKernel, Running, offer, offer_naming, plan};
use penstock_policy::ids::Digest;
use penstock_proto::v1::coordinator_message::Message as Outbound;

use super::{enrolled, step_comes, world};

#[tokio::test]
async fn a_signed_offer_takes_effect_and_its_life_is_in_the_trail() {
    let (coordinator, state) = enrolled().await;
    let agent = Running::start(state.path()).await;
    coordinator.keep_sending(Outbound::Offer(offer(1, None, BOTH).0));
    agent.effective(1).await;
    assert_eq!(agent.kernel.last(), Some(1));
    coordinator
        .until(|memory| {
            memory
                .policy
                .as_ref()
                .is_some_and(|policy| policy.effective.as_ref().is_some_and(|mark| mark.revision == 1))
        })
        .await;
    for step in [
        "started",
        "connected",
        "verified r1 ",
        "staged r1 ",
        "effective r1 ",
    ] {
        step_comes(&coordinator, step).await;
    }
    agent.stop().await;
}

#[tokio::test]
async fn hostile_offers_are_refused_by_name_and_the_last_good_policy_stays() {
    let (coordinator, state) = enrolled().await;
    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    let before = Some(Digest::of(b"what came before"));
    let (first, digest) = offer(5, before, BOTH);
    coordinator.send(Some(Outbound::Offer(first)));
    agent.effective(5).await;

    let next = || offer(6, Some(digest), BOTH).0;
    let unsigned = offer(6, Some(digest), &[]).0;
    let under_signed = offer(6, Some(digest), &[("anna", 1)]).0;
    let forged = offer(6, Some(digest), &[("anna", 1), ("ben", 9)]).0;
    let older = offer(4, before, BOTH).0;
    let forked = offer(6, Some(Digest::of(b"another")), BOTH).0;
    let mut altered_plan = next();
    altered_plan.plan = [altered_plan.plan.as_ref(), b" "].concat().into();
    let mut cut = next();
    let statement = cut.release.as_ref().unwrap().statement.clone();
    cut.release.as_mut().unwrap().statement = statement.slice(..statement.len() / 2);
    let mut empty = next();
    empty.release = None;
    for (hostile, code) in [
        (unsigned, "unsigned"),
        (under_signed, "under-signed"),
        (forged, "altered"),
        (older, "older"),
        (forked, "forked"),
        (altered_plan, "plan-not-in-release"),
        (cut, "unreadable"),
        (empty, "altered"),
    ] {
        coordinator.send(Some(Outbound::Offer(hostile)));
        agent.refused(code).await;
        assert_eq!(agent.kernel.last(), Some(5), "{code}");
    }
    coordinator.send(Some(Outbound::Offer(next())));
    agent.effective(6).await;
    agent.policy(|view| view.state.refused.is_none()).await;
    step_comes(&coordinator, "refused r6 under-signed").await;
    agent.stop().await;
}

#[tokio::test]
async fn a_gateway_that_slept_through_a_change_of_approvers_follows_the_statements_between_and_no_gap() {
    let (coordinator, state) = enrolled().await;
    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    let (first, one) = offer(1, None, BOTH);
    coordinator.send(Some(Outbound::Offer(first)));
    agent.effective(1).await;
    let mut next_approvers = world::approvers();
    next_approvers.threshold = 1;
    next_approvers.people.remove(&"anna".parse().unwrap());
    let change =
        |signers: &[(&str, u8)]| offer_naming(next_approvers.clone(), &plan(), 2, Some(one), signers);
    let (second, two) = change(BOTH);
    let newest = |between: &[&penstock_proto::v1::PolicyOffer]| {
        let (mut third, _) = offer(4, Some(two), &[("ben", 2)]);
        third.chain = between.iter().filter_map(|offer| offer.release.clone()).collect();
        third
    };
    for (lie, code) in [
        (newest(&[]), "chain-missing"),
        // The change of approvers as one of them alone would have it.
        (newest(&[&change(&[("ben", 2)]).0]), "under-signed"),
        (newest(&[&change(&[]).0]), "unsigned"),
        // Signatures of the release before, over the one that nobody signed.
        (
            {
                let mut lie = newest(&[&second]);
                lie.chain[0].signatures = offer(1, None, BOTH).0.release.unwrap().signatures;
                lie
            },
            "altered",
        ),
    ] {
        coordinator.send(Some(Outbound::Offer(lie)));
        agent.refused(code).await;
        assert_eq!(agent.kernel.last(), Some(1), "{code}");
    }
    coordinator.send(Some(Outbound::Offer(newest(&[&second]))));
    agent.effective(4).await;
    agent
        .policy(|view| {
            view.state
                .trusted
                .as_ref()
                .is_some_and(|trusted| trusted.revision == 4)
        })
        .await;
    // Whoever approved before does so no longer.
    let (older_people, _) = offer(5, None, BOTH);
    coordinator.send(Some(Outbound::Offer(older_people)));
    agent.refused("forked").await;
    agent.stop().await;
}

#[tokio::test]
async fn a_release_that_never_took_hold_moves_neither_the_floor_nor_the_approvers() {
    let (coordinator, state) = enrolled().await;
    let kernel = Arc::new(FakeKernel::default());
    let agent = Running::start_with(state.path(), kernel.clone()).await;
    coordinator.sessions(1).await;
    let (first, one) = offer(1, None, BOTH);
    coordinator.send(Some(Outbound::Offer(first)));
    agent.effective(1).await;
    *kernel.fails_late.lock().unwrap() = true;
    let (third, three) = offer(3, Some(one), BOTH);
    coordinator.send(Some(Outbound::Offer(third.clone())));
    let staged = |view: &penstock_agent::reconcile::PolicyView| {
        let trusted = view.state.trusted.as_ref().map(|trusted| trusted.revision);
        view.state.staged.as_ref().is_some_and(|mark| mark.revision == 3) && trusted == Some(1)
    };
    agent.policy(staged).await;
    // Yet what was signed before it does not come back in its place.
    coordinator.send(Some(Outbound::Offer(offer(2, Some(one), BOTH).0)));
    agent.refused("older").await;
    agent.stop().await;
    // Nor over a restart.
    let agent = Running::start_with(state.path(), kernel.clone()).await;
    agent.policy(staged).await;
    coordinator.sessions(2).await;
    *kernel.fails_late.lock().unwrap() = false;
    let (mut fourth, _) = offer(4, Some(three), BOTH);
    fourth.chain = third.release.into_iter().collect();
    coordinator.send(Some(Outbound::Offer(fourth)));
    agent.effective(4).await;
    agent.stop().await;
}

#[tokio::test]
async fn the_policy_is_in_force_after_a_restart_with_no_coordinator_and_no_database() {
    let (mut coordinator, state) = enrolled().await;
    let agent = Running::start(state.path()).await;
    coordinator.keep_sending(Outbound::Offer(offer(1, None, BOTH).0));
    agent.effective(1).await;
    agent.stop().await;
    coordinator.kill().await;
    for lost in ["", "store", "trail"] {
        if !lost.is_empty() {
            std::fs::remove_dir_all(state.path().join(lost)).unwrap();
        }
        let agent = Running::start(state.path()).await;
        // `start` returns when the agent says it is ready: the kernel has the policy by then.
        assert_eq!(agent.kernel.last(), Some(1), "without {lost}");
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_kernel_that_fails_keeps_the_last_policy_and_takes_the_offer_when_it_works_again() {
    let (coordinator, state) = enrolled().await;
    let kernel = Arc::new(FakeKernel::default());
    let agent = Running::start_with(state.path(), kernel.clone()).await;
    coordinator.sessions(1).await;
    let (first, digest) = offer(1, None, BOTH);
    coordinator.send(Some(Outbound::Offer(first)));
    agent.effective(1).await;
    *kernel.fails.lock().unwrap() = true;
    let (second, _) = offer(2, Some(digest), BOTH);
    coordinator.send(Some(Outbound::Offer(second)));
    agent.refused("kernel-failed").await;
    assert_eq!(kernel.last(), Some(1));
    *kernel.fails.lock().unwrap() = false;
    let (third, _) = offer(3, Some(digest), BOTH);
    coordinator.send(Some(Outbound::Offer(third)));
    agent.effective(3).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_refused_offer_does_not_displace_a_good_one_that_waits_for_the_kernel() {
    let (coordinator, state) = enrolled().await;
    let kernel = Arc::new(FakeKernel::default());
    let agent = Running::start_with(state.path(), kernel.clone()).await;
    coordinator.sessions(1).await;
    let (first, digest) = offer(1, None, BOTH);
    coordinator.send(Some(Outbound::Offer(first.clone())));
    agent.effective(1).await;
    *kernel.fails.lock().unwrap() = true;
    let (second, _) = offer(2, Some(digest), BOTH);
    coordinator.send(Some(Outbound::Offer(second)));
    agent.refused("kernel-failed").await;
    // Neither a forgery of something newer, nor what is in force already, makes the gateway forget.
    let (forged, _) = offer(9, Some(digest), &[("anna", 1), ("ben", 3)]);
    coordinator.send(Some(Outbound::Offer(forged)));
    agent
        .policy(|view| view.state.refused.as_ref().is_some_and(|why| why.revision == 9))
        .await;
    coordinator.send(Some(Outbound::Offer(first)));
    agent.nudge.notify_one();
    agent
        .policy(|view| view.state.refused.as_ref().is_some_and(|why| why.revision == 2))
        .await;
    assert_eq!(kernel.last(), Some(1));
    *kernel.fails.lock().unwrap() = false;
    agent.nudge.notify_one();
    agent.effective(2).await;
    agent.policy(|view| view.state.refused.is_none()).await;
    agent.stop().await;
}
