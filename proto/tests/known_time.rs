//! A machine whose clock is behind what it knows already. In a program of its own: what is known of the time is known to all of it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use penstock_policy::ids::PlantId;
use penstock_proto::channel::{self, Address};
use penstock_proto::keys::FileKey;
use penstock_proto::tls::Credentials;
use penstock_proto::tls::client::{ClientProfile, Trust};
use penstock_proto::tls::server::{AcceptLimits, Reception, ServerCredentials, server_config};
use penstock_proto::tls::times::raise_floor;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use tokio::net::TcpListener;

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn plant() -> PlantId {
    PlantId::new("water").unwrap()
}

/// A certificate that is valid from a day on, for ten days.
fn issued(ca: &CertifiedIssuer<'static, KeyPair>, uri: &str, from: Duration) -> Credentials {
    let at = |time: Duration| rcgen::date_time_ymd(1970, 1, 1) + time;
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params
        .subject_alt_names
        .push(SanType::URI(uri.try_into().unwrap()));
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    (params.not_before, params.not_after) = (at(from), at(from + 10 * DAY));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    let chain = vec![certificate.der().clone(), ca.der().clone()];
    Credentials::new(chain, FileKey::of(key).unwrap()).unwrap()
}

/// What comes of a connection between a coordinator and a gateway with certificates from these days on.
async fn connected(
    ca: &CertifiedIssuer<'static, KeyPair>,
    coordinator: Duration,
    gateway: Duration,
) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let own = ServerCredentials::new(&issued(ca, "spiffe://water/coordinator/c1", coordinator)).unwrap();
    let config = server_config(&plant(), own, &[ca.der().clone()]).unwrap();
    let reception = Reception::start(config, AcceptLimits::default()).unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().add_service(health);
    tokio::spawn(server.serve_with_incoming(reception.incoming(listener)));
    let profile = ClientProfile {
        plant: plant(),
        trust: Trust::Roots(vec![ca.der().clone()]),
        credentials: Some(issued(ca, "spiffe://water/gateway/gw-1", gateway)),
    };
    let connected = channel::connect(vec![address], profile.config().unwrap()).await;
    connected.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_clock_that_is_behind_what_is_known_refuses_nobody_whose_time_has_come_and_lets_nobody_in_after_it()
{
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    // As seen from a clock that is thirty days behind, the first time is to come, and the second is over by what is known afterwards.
    let (good, over) = (now() + 25 * DAY, now() + 5 * DAY);
    let today = now() - DAY;
    let early = connected(&ca, good, today).await.unwrap_err();
    assert!(
        early.contains("the coordinator's certificate is not valid yet"),
        "{early}"
    );
    let early = connected(&ca, today, good).await.unwrap_err();
    assert!(early.contains("it is not valid yet"), "{early}");

    raise_floor(u64::try_from((now() + 30 * DAY).as_millis()).unwrap());
    connected(&ca, good, good).await.unwrap();
    // What the clock accepts passes as before, whatever is known.
    connected(&ca, today, today).await.unwrap();
    // Neither by the clock nor by what is known.
    for (coordinator, gateway) in [(over, good), (good, over), (now() - 20 * DAY, good)] {
        connected(&ca, coordinator, gateway).await.unwrap_err();
    }
}
