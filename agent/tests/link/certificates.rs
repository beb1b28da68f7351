//! Tokens and certificates: who enrols, what is renewed, which certificate is shown, and whom the agent takes for its coordinator.

use std::net::IpAddr;

use super::world::coordinator::Coordinator;
use super::world::{BOTH, Running, ending_tls, offer, offer_of, within};
use penstock_agent::identity::IdentityFolder;
use penstock_agent::link::enrol::{EnrolError, enrol};
use penstock_agent::link::renew::renew;
use penstock_agent::link::session::LinkState;
use penstock_agent::store::Store;
use penstock_policy::ids::Digest;
use penstock_proto::refusal::Reason;
use penstock_proto::v1::coordinator_message::Message as Outbound;

use super::{enrolled, loaded, step_comes, world};

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
    step_comes(&coordinator, "certificate-refused").await;
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
        let status = penstock_agent::status::read(&penstock_agent::config::Config {
            state_folder: state.path().to_owned(),
            ..penstock_agent::config::Config::default()
        })
        .to_string();
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
    step_comes(&coordinator, "certificate-names").await;
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

#[tokio::test]
async fn a_clock_that_is_behind_what_is_known_is_named_and_the_gateway_enforces_and_talks_all_the_same() {
    use penstock_agent::known_time::{FILE, Floor, Known, TimeSource, peek};
    let (coordinator, state) = enrolled().await;
    let floor = Some(Floor {
        ms: penstock_agent::clock::now_ms() + 400 * 86_400_000,
        source: TimeSource::Coordinator,
    });
    let known = Known { floor, said: None };
    std::fs::write(state.path().join(FILE), serde_json::to_vec(&known).unwrap()).unwrap();
    let agent = Running::start(state.path()).await;
    let (first, _) = offer(1, None, BOTH);
    coordinator.keep_sending(Outbound::Offer(first));
    agent.effective(1).await;
    coordinator
        .until(|memory| memory.reported.iter().any(|code| code == "clock-behind"))
        .await;
    agent.stop().await;
    assert_eq!(peek(state.path()).floor, floor);
    let status = penstock_agent::status::read(&penstock_agent::config::Config {
        state_folder: state.path().to_owned(),
        ..penstock_agent::config::Config::default()
    });
    let text = status.to_string();
    assert!(
        text.contains("WRONG: 400 days behind") || text.contains("WRONG: 399 days behind"),
        "{text}"
    );
}
