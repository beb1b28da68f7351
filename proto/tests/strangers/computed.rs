//! What a peer that is refused makes us compute.
//!
//! Processor time is that of this thread alone, as a multiple of what a peer costs that is accepted: both ends run here,
//! over bytes in memory, and only one end's work is counted.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::Digest;
use penstock_policy::terms::Tls;
use penstock_proto::tls::client::{ClientProfile, Trust};
use penstock_proto::tls::data_path::{BrokerProfile, Devices, PlantTrust, RoleReading, device_server};
use penstock_proto::tls::handshakes::{Handshakes, Unmet};
use penstock_proto::tls::server::{ServerCredentials, server_config};
use penstock_proto::tls::{Credentials, certificates_to_pem};
use penstock_proto::withdrawn::WithdrawnView;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use super::shown::{Authority, client_showing, hostile_chains, plant, server_showing};

/// What a refused peer may cost, as a multiple of an accepted one.
const RATIO_MAX: u32 = 3;
/// How often each side is measured, at least and at most.
const GOES: std::ops::Range<usize> = 7..200;

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// Carries a handshake to its end; the processor time of `ours`, and whether it accepts.
fn meet(mut ours: Connection, mut theirs: Connection) -> (Duration, bool) {
    let mut spent = Duration::ZERO;
    loop {
        let mut bytes = Vec::new();
        while theirs.wants_write() {
            theirs.write_tls(&mut bytes).unwrap();
        }
        let (mut rest, begun) = (bytes.as_slice(), processor_time());
        let mut refused = false;
        while !rest.is_empty() && !refused {
            ours.read_tls(&mut rest).unwrap();
            refused = ours.process_new_packets().is_err();
        }
        let mut answer = Vec::new();
        while ours.wants_write() {
            ours.write_tls(&mut answer).unwrap();
        }
        spent += processor_time() - begun;
        if refused {
            return (spent, false);
        }
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            theirs.read_tls(&mut rest).unwrap();
            let _ = theirs.process_new_packets();
        }
        if !ours.is_handshaking() && !theirs.wants_write() {
            return (spent, true);
        }
    }
}

fn as_server(ours: &Arc<ServerConfig>, theirs: &Arc<ClientConfig>) -> (Duration, bool) {
    let name = ServerName::try_from("broker.example").unwrap();
    let client = ClientConnection::new(Arc::clone(theirs), name).unwrap();
    meet(
        ServerConnection::new(Arc::clone(ours)).unwrap().into(),
        client.into(),
    )
}

fn as_client(ours: &Arc<ClientConfig>, theirs: &Arc<ServerConfig>) -> (Duration, bool) {
    let name = ServerName::try_from("broker.example").unwrap();
    let client = ClientConnection::new(Arc::clone(ours), name).unwrap();
    meet(
        client.into(),
        ServerConnection::new(Arc::clone(theirs)).unwrap().into(),
    )
}

/// What the machine does beside is none of ours, and it only ever adds: each side is taken by the least of its goes, both
/// by turns, until the claim holds. One that is false holds in no number of them.
fn holds(listener: &str, meet: impl Fn(&Credentials) -> (Duration, bool), good: &Credentials, subject: &str) {
    let accepted = || {
        let (spent, accepted) = meet(good);
        assert!(accepted, "{listener}: the good peer is accepted");
        spent
    };
    let mut good = accepted();
    for (what, shown) in hostile_chains("root of water", subject) {
        let refused = || {
            let (spent, accepted) = meet(&shown);
            assert!(!accepted, "{listener}: {what}");
            spent
        };
        let mut least = refused();
        for go in 1..GOES.end {
            if go >= GOES.start && least <= good * RATIO_MAX {
                break;
            }
            (good, least) = (good.min(accepted()), least.min(refused()));
        }
        assert!(
            least <= good * RATIO_MAX,
            "{listener}: {what}: {least:?} of processor time; a good peer costs {good:?}",
        );
    }
}

#[test]
fn no_client_that_is_refused_costs_a_listener_more_than_three_that_are_accepted() {
    let ca = Authority::named("root of water");
    let own = |subject: &str| ServerCredentials::new(&ca.issue(subject)).unwrap();
    let coordinator = server_config(&plant(), own("coordinator/c1"), &[ca.root()]).unwrap();
    let shows = |credentials: &Credentials| as_server(&coordinator, &client_showing(credentials, &[b"h2"]));
    holds(
        "the coordinator's link",
        shows,
        &ca.issue("gateway/gw-1"),
        "gateway/gw-1",
    );

    let listed = Devices::Listed(BTreeSet::from(["hmi".parse().unwrap()]));
    let (plant, roots, withdrawn) = (plant(), [ca.root()], WithdrawnView::default());
    let trust = PlantTrust {
        plant: &plant,
        roots: &roots,
        withdrawn: &withdrawn,
    };
    let inspector = device_server(trust, own("gateway/gw-1"), listed, RoleReading::Ignored).unwrap();
    let shows = |credentials: &Credentials| as_server(&inspector, &client_showing(credentials, &[]));
    holds("the inspector", shows, &ca.issue("device/hmi"), "device/hmi");
}

#[test]
fn no_server_that_is_refused_costs_us_more_than_three_that_are_accepted() {
    let ca = Authority::named("root of water");
    for (whose, trust, credentials) in [
        (
            "the agent's link",
            Trust::Roots(vec![ca.root()]),
            Some(ca.issue("gateway/gw-1")),
        ),
        ("enrolment", Trust::Pin(Digest::of(&ca.root())), None),
    ] {
        let profile = ClientProfile {
            plant: plant(),
            trust,
            credentials,
        };
        let ours = profile.config().unwrap();
        let shows =
            |credentials: &Credentials| as_client(&ours.config, &server_showing(credentials, &[b"h2"]));
        holds(whose, shows, &ca.issue("coordinator/c1"), "coordinator/c1");
    }
    let foreign = Tls {
        server_authorities: Some(certificates_to_pem(&[ca.root()])),
        server_name: Some("broker.example".to_owned()),
        plain_port: None,
    };
    for (whose, tls) in [
        ("a broker of the plant", Tls::default()),
        ("a broker of other authorities", foreign),
    ] {
        let (broker, address) = ("broker".parse().unwrap(), Ipv4Addr::LOCALHOST.into());
        let (roots, own) = ([ca.root()], ca.issue("gateway/gw-1"));
        let (plant, withdrawn) = (plant(), WithdrawnView::default());
        let trust = PlantTrust {
            plant: &plant,
            roots: &roots,
            withdrawn: &withdrawn,
        };
        let profile = BrokerProfile::of_plan(&tls, trust, (&broker, address), own).unwrap();
        let ours = profile.config().unwrap();
        let shows = |credentials: &Credentials| as_client(&ours, &server_showing(credentials, &[]));
        holds(whose, shows, &ca.issue("device/broker"), "device/broker");
    }
}

#[tokio::test]
async fn handshakes_are_computed_on_threads_of_their_own_and_end_in_time() {
    let handshakes = Handshakes::start(1, 2, Duration::from_millis(50)).unwrap();
    let source = Ipv4Addr::LOCALHOST.into();
    let thread = handshakes.meet(source, async { std::thread::current().name().map(str::to_owned) });
    assert_eq!(thread.await.unwrap().as_deref(), Some("handshakes"));
    let late = handshakes.meet(source, std::future::pending::<()>()).await;
    assert_eq!(late, Err(Unmet::Late(Duration::from_millis(50))));
    assert_eq!(handshakes.under_way(), 0);
}
