//! The agent against a coordinator that is honest, gone, or hostile: over real TLS, with a kernel that remembers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod remote_access;
mod unreadable;
mod world;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_agent::identity::IdentityFolder;
use penstock_agent::link::enrol::{EnrolError, enrol};
use penstock_agent::link::missing_names;
use penstock_agent::link::renew::renew;
use penstock_agent::link::session::LinkState;
use penstock_agent::store::Store;
use penstock_policy::ids::Digest;
use penstock_proto::refusal::Reason;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::coordinator_message::Message as Outbound;
use world::coordinator::Coordinator;
use world::{BOTH, FakeKernel, Running, ending_tls, offer, offer_naming, offer_of, plan, within};

async fn enrolled() -> (Coordinator, tempfile::TempDir) {
    let coordinator = Coordinator::start().await;
    let state = tempfile::tempdir().unwrap();
    enrol(state.path(), &coordinator.token()).await.unwrap();
    (coordinator, state)
}

fn steps(coordinator: &Coordinator) -> Vec<String> {
    coordinator
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
    within(async {
        while !steps(coordinator).iter().any(|step| step == wanted) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

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
        world::within(async {
            while !steps(&coordinator).iter().any(|said| said == step) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
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
    world::within(async {
        while steps(&coordinator)
            .iter()
            .filter(|step| *step == "buffered")
            .count()
            < 200
        {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    agent.stop().await;
    let said = steps(&coordinator);
    assert_eq!(said.iter().filter(|step| *step == "buffered").count(), 200);
    assert_eq!(said.iter().filter(|step| *step == "started").count(), 1);
    assert_eq!(coordinator.memory.lock().unwrap().faults, Vec::<String>::new());
}

#[tokio::test]
async fn the_policy_is_in_force_after_a_restart_with_no_coordinator_and_no_database() {
    let (mut coordinator, state) = enrolled().await;
    let agent = Running::start(state.path()).await;
    coordinator.keep_sending(Outbound::Offer(offer(1, None, BOTH).0));
    agent.effective(1).await;
    agent.stop().await;
    coordinator.kill().await;
    for lost in ["", "store", "spool"] {
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

#[tokio::test]
async fn refused_tokens_say_why_and_an_impostor_is_not_shown_the_secret() {
    let coordinator = Coordinator::start().await;
    for (reason, expected) in [
        (Reason::TokenExpired, "expired"),
        (Reason::TokenUsed, "already used"),
        (Reason::TokenUnknown, "another gateway"),
    ] {
        coordinator.memory.lock().unwrap().refuse_token = Some(reason);
        let state = tempfile::tempdir().unwrap();
        let error = enrol(state.path(), &coordinator.token()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    coordinator.memory.lock().unwrap().refuse_token = None;
    let state = tempfile::tempdir().unwrap();
    let mut other_plant = coordinator.token();
    other_plant.root_digest = Digest::of(b"another root");
    assert!(matches!(
        enrol(state.path(), &other_plant).await,
        Err(EnrolError::Connect(_))
    ));
    let mut no_approvers = coordinator.token();
    no_approvers.approvers = None;
    assert!(matches!(
        enrol(state.path(), &no_approvers).await,
        Err(EnrolError::NoApprovers)
    ));
}

#[tokio::test]
async fn enrolling_again_uses_the_same_key_and_another_gateway_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let (coordinator, state) = enrolled().await;
    let key = state.path().join("identity/key.pem");
    let before = std::fs::read(&key).unwrap();
    assert_eq!(
        std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    enrol(state.path(), &coordinator.token()).await.unwrap();
    assert_eq!(std::fs::read(&key).unwrap(), before);
    let mut other = coordinator.token();
    other.subject = penstock_proto::peer::Subject::Gateway("gw-2".parse().unwrap());
    assert!(matches!(
        enrol(state.path(), &other).await,
        Err(EnrolError::AlreadyEnrolled { .. })
    ));
}

#[tokio::test]
async fn a_renewed_certificate_is_stored_and_used() {
    let (coordinator, state) = enrolled().await;
    let folder = IdentityFolder::new(state.path());
    let identity = {
        let mut store = Store::open(state.path());
        folder
            .load(IdentityFolder::enrolment(&mut store).unwrap())
            .unwrap()
    };
    let before = std::fs::read(state.path().join("identity/chain.pem")).unwrap();
    renew(&folder, &[], &identity).await.unwrap();
    assert_ne!(
        std::fs::read(state.path().join("identity/chain.pem")).unwrap(),
        before
    );
    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    agent.stop().await;
}

fn loaded(state: &std::path::Path) -> penstock_agent::identity::Identity {
    let enrolment = IdentityFolder::peek_enrolment(state).unwrap();
    IdentityFolder::new(state).load(enrolment).unwrap()
}

#[tokio::test]
async fn a_certificate_that_came_of_a_passing_wrong_time_takes_no_link_away() {
    let (coordinator, state) = enrolled().await;
    let folder = IdentityFolder::new(state.path());
    let good = loaded(state.path()).validity_ms().unwrap();
    // Both clocks were ahead for a while, or both behind: what they agreed on is of no use afterwards.
    for years in [(2070, 2071), (1970, 1971), (2071, 2072)] {
        coordinator.memory.lock().unwrap().years = Some(years);
        renew(&folder, &[], &loaded(state.path())).await.unwrap();
        assert_eq!(loaded(state.path()).validity_ms().unwrap(), good, "{years:?}");
    }
    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    agent.stop().await;
    // As long as the wrong time lasts, the certificate of that time is the one that is shown.
    let in_2070 = 3_160_000_000_000;
    let enrolment = IdentityFolder::peek_enrolment(state.path()).unwrap();
    let then = folder.load_at(enrolment, in_2070).unwrap();
    assert_ne!(then.validity_ms().unwrap(), good);
    assert!(then.validity_ms().unwrap().0 <= in_2070 && then.validity_ms().unwrap().1 >= in_2070);
    // And when the clock comes back, the good one.
    let back = then.chosen_at(penstock_agent::clock::now_ms()).unwrap();
    assert_eq!(back.validity_ms().unwrap(), good);
    assert!(back.chosen_at(penstock_agent::clock::now_ms()).is_none());
}

#[tokio::test]
async fn where_the_coordinator_does_not_accept_the_newest_certificate_an_earlier_one_is_shown_and_the_trail_says_so()
 {
    let (coordinator, state) = enrolled().await;
    let folder = IdentityFolder::new(state.path());
    renew(&folder, &[], &loaded(state.path())).await.unwrap();
    // By the clock here it is good: to the coordinator it is not.
    let newest = state.path().join("identity/chain.pem");
    let key = folder.key().unwrap();
    let own = penstock_proto::peer::PeerIdentity {
        plant: world::plant(),
        subject: penstock_proto::peer::Subject::Gateway(world::gateway()),
    };
    let request = penstock_proto::keys::certificate_request(&key, Some(&own)).unwrap();
    let leaf = world::Authority::new().sign(&request, &[], Some((2020, 2095)));
    std::fs::write(&newest, penstock_proto::tls::certificates_to_pem(&[leaf])).unwrap();
    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    within(async {
        while !steps(&coordinator).contains(&"certificate-refused".to_owned()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    agent.stop().await;
    // Torn by a power cut it is not even shown.
    std::fs::write(&newest, "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    let agent = Running::start(state.path()).await;
    coordinator.sessions(2).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_certificate_whose_time_has_not_come_is_not_told_as_expired() {
    let coordinator = Coordinator::start().await;
    let state = tempfile::tempdir().unwrap();
    for (years, told, never) in [
        ((2098, 2099), "not valid yet (from 2098-01-01", "expired"),
        (
            (2020, 2021),
            "has expired (valid until 2021-01-01",
            "not valid yet",
        ),
    ] {
        coordinator.memory.lock().unwrap().years = Some(years);
        let _ = std::fs::remove_dir_all(state.path().join("identity/kept"));
        let _ = std::fs::remove_file(state.path().join("identity/chain.pem"));
        enrol(state.path(), &coordinator.token()).await.unwrap();
        let agent = Running::start(state.path()).await;
        let mut link = agent.views.link.clone();
        let refused = |state: &LinkState| {
            let problem = state.problem.as_deref().unwrap_or_default();
            problem.contains(told) && problem.contains("clock shows 20") && !problem.contains(never)
        };
        within(link.wait_for(refused)).await.unwrap();
        agent.stop().await;
        let status = penstock_agent::status::read(state.path()).to_string();
        let said = if never == "expired" {
            ": not valid yet"
        } else {
            ": expired"
        };
        assert!(status.contains(said), "{status}");
    }
}

#[tokio::test]
async fn a_release_that_ends_tls_here_brings_a_certificate_for_it_and_one_that_does_not_come_is_a_fault() {
    let (coordinator, state) = enrolled().await;
    let agent = Running::start(state.path()).await;
    let brokers: [IpAddr; 2] = ["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
    coordinator.memory.lock().unwrap().tls_ends = brokers.to_vec();
    let (first, digest) = offer_of(&ending_tls(&brokers), 1, None, BOTH);
    coordinator.keep_sending(Outbound::Offer(first));
    agent.effective(1).await;
    coordinator.until(|memory| memory.renewals == 1).await;
    let names = |state: &std::path::Path| {
        let enrolment = IdentityFolder::peek_enrolment(state).unwrap();
        let identity = IdentityFolder::new(state).load(enrolment).unwrap();
        identity.server_names().unwrap().to_string()
    };
    // The renewed identity is in use when the session with the old one has given way.
    coordinator.sessions(2).await;
    assert_eq!(names(state.path()), "10.0.0.5, fd00::5");
    assert_eq!(*agent.views.certificate.borrow(), None);

    // Another broker, which this coordinator gives nobody: asked for once, then it is a fault, and no loop.
    let more: Vec<IpAddr> = brokers.into_iter().chain(["10.0.0.6".parse().unwrap()]).collect();
    let (second, digest) = offer_of(&ending_tls(&more), 2, Some(digest), BOTH);
    coordinator.keep_sending(Outbound::Offer(second));
    agent.effective(2).await;
    coordinator
        .until(|memory| memory.reported.iter().any(|code| code == "certificate-names"))
        .await;
    let fault = agent.views.certificate.borrow().clone().unwrap();
    assert!(
        fault.message.contains("TLS clients of 10.0.0.6 cannot be served"),
        "{fault:?}"
    );
    within(async {
        while !steps(&coordinator).contains(&"certificate-names".to_owned()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    tokio::time::sleep(missing_names::FIRST_WITHIN + Duration::from_secs(1)).await;
    assert_eq!(coordinator.memory.lock().unwrap().renewals, 2);

    // The policy needs it no more, and the fault goes by itself.
    let (third, _) = offer_of(&ending_tls(&brokers), 3, Some(digest), BOTH);
    coordinator.keep_sending(Outbound::Offer(third));
    agent.effective(3).await;
    coordinator.until(|memory| memory.reported.is_empty()).await;
    assert_eq!(*agent.views.certificate.borrow(), None);
    assert_eq!(coordinator.memory.lock().unwrap().renewals, 2);
    agent.stop().await;
}

#[tokio::test]
async fn a_gateway_or_device_that_may_serve_is_taken_for_no_coordinator() {
    let (mut coordinator, state) = enrolled().await;
    for subject in ["gateway/gw-2", "device/broker"] {
        coordinator.restart_as(subject).await;
        // Neither for a token …
        let elsewhere = tempfile::tempdir().unwrap();
        let error = enrol(elsewhere.path(), &coordinator.token()).await.unwrap_err();
        assert!(
            error.to_string().contains("not a coordinator of plant water"),
            "{error}"
        );
        // … nor for a session, nor for a renewal.
        let agent = Running::start(state.path()).await;
        let mut link = agent.views.link.clone();
        let refused = |state: &LinkState| {
            let problem = state.problem.as_deref().unwrap_or_default();
            problem.contains("not a coordinator of plant water")
        };
        within(link.wait_for(refused)).await.unwrap();
        agent.stop().await;
        let folder = IdentityFolder::new(state.path());
        let identity = folder
            .load(IdentityFolder::peek_enrolment(state.path()).unwrap())
            .unwrap();
        let error = renew(&folder, &[], &identity).await.unwrap_err();
        assert!(
            error.to_string().contains("not a coordinator of plant water"),
            "{error}"
        );
    }
    let memory = coordinator.memory.lock().unwrap();
    assert_eq!((memory.sessions, memory.renewals), (0, 0));
}
