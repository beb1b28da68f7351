//! Certificates that have ended, and connections that end with theirs.

use std::time::{SystemTime, UNIX_EPOCH};

use penstock_proto::tls::server::server_config_with_grace;
use penstock_proto::withdrawn::WithdrawnView;
use rcgen::{DnType, DnValue};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);
const GRACE: Duration = Duration::from_secs(400 * 86_400);
const PATIENCE: Duration = Duration::from_secs(60);

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// A certificate for a client that is valid from ninety days before `until` on.
fn until(uris: &[&str], until: Duration) -> CertificateParams {
    let at = |time: Duration| rcgen::date_time_ymd(1970, 1, 1) + time;
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    for uri in uris {
        params
            .subject_alt_names
            .push(SanType::URI((*uri).try_into().unwrap()));
    }
    (params.not_before, params.not_after) = (at(until - 90 * DAY), at(until));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// As `serve`, with grace, and whether the certificate had ended in what the caller hears.
async fn serve_with_grace(ca: &Authority) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let own = ServerCredentials::new(&ca.issue(COORDINATOR)).unwrap();
    let config =
        server_config_with_grace(&plant(), own, &[ca.root()], GRACE, &WithdrawnView::default()).unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let named = tonic::service::interceptor::InterceptedService::new(health, |request: Request<()>| {
        let info = request.extensions().get::<PeerInfo>().unwrap();
        let name = info.identity().unwrap();
        let ended = if info.has_ended() { "ended " } else { "" };
        Err::<Request<()>, _>(Status::already_exists(format!("{ended}{name}")))
    });
    let reception = Reception::start(config, AcceptLimits::default()).unwrap();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(named)
            .serve_with_incoming(reception.incoming(listener)),
    );
    address
}

#[tokio::test]
async fn of_certificates_odd_in_every_way_those_of_gateways_alone_pass_after_their_end_and_are_known_for_it()
{
    let (ca, other) = (Authority::new(), Authority::new());
    let server = serve_with_grace(&ca).await;
    let ago = |days: u32| now() - days * DAY;
    let number = |mut params: CertificateParams, text: &str| {
        let number = DnValue::Utf8String(text.to_owned());
        params
            .distinguished_name
            .push(DnType::CustomDnType(vec![2, 5, 4, 5]), number);
        params
    };
    let serving = |mut params: CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params
    };
    let authority = |mut params: CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let refused = "does not accept our certificate";
    let expired = "it has expired (valid until 20";
    let cases = [
        ("good", ca.sign(until(&[GATEWAY], now() + DAY)), Ok(GATEWAY)),
        ("yesterday", ca.sign(until(&[GATEWAY], ago(1))), Err("")),
        ("within grace", ca.sign(until(&[GATEWAY], ago(399))), Err("")),
        (
            "of a life",
            ca.sign(number(until(&[GATEWAY], ago(9)), "3")),
            Err(""),
        ),
        ("beyond grace", ca.sign(until(&[GATEWAY], ago(401))), Err(expired)),
        (
            "operator",
            ca.sign(until(&["spiffe://water/operator/o"], ago(1))),
            Err(expired),
        ),
        (
            "device",
            ca.sign(until(&["spiffe://water/device/d"], ago(1))),
            Err(expired),
        ),
        (
            "coordinator",
            ca.sign(until(&["spiffe://water/coordinator/c"], ago(1))),
            Err(expired),
        ),
        (
            "not yet",
            ca.sign(until(&[GATEWAY], now() + 91 * DAY)),
            Err("it is not valid yet (from 20"),
        ),
        (
            "another authority",
            other.sign(until(&[GATEWAY], ago(1))),
            Err(refused),
        ),
        (
            "another plant",
            ca.sign(until(&["spiffe://steel/gateway/gw-1"], ago(1))),
            Err(refused),
        ),
        (
            "two names",
            ca.sign(until(&[GATEWAY, "spiffe://water/gateway/gw-2"], ago(1))),
            Err(expired),
        ),
        ("no name", ca.sign(until(&[], ago(1))), Err(expired)),
        (
            "odd name",
            ca.sign(until(&["spiffe://water/gateway/gw-1/x"], ago(1))),
            Err(expired),
        ),
        (
            "odd life",
            ca.sign(number(until(&[GATEWAY], ago(1)), "03")),
            Err(refused),
        ),
        (
            "for servers",
            ca.sign(serving(until(&[GATEWAY], ago(1)))),
            Err(refused),
        ),
        (
            "an authority",
            ca.sign(authority(until(&[GATEWAY], ago(1)))),
            Err(refused),
        ),
    ];
    for (what, credentials, expected) in cases {
        let told = call(
            &[server],
            profile(Trust::Roots(vec![ca.root()]), Some(credentials)),
        )
        .await;
        match expected {
            Ok(name) => assert_eq!(told.as_deref(), Ok(name), "{what}"),
            Err("") => assert_eq!(told, Ok(format!("ended {GATEWAY}")), "{what}"),
            Err(words) => {
                let told = told.expect_err(what);
                assert!(told.contains(words), "{what}: {told}");
            }
        }
    }
}

#[tokio::test]
async fn a_connection_is_cut_when_its_certificate_has_ended_and_a_little_time_for_the_last_words_is_over() {
    let ca = Authority::new();
    let server = serve(&ca.issue(COORDINATOR), ca.root(), AcceptLimits::default()).await;
    let short = ca.sign(until(&[GATEWAY], now() + Duration::from_secs(3)));
    let tls = profile(Trust::Roots(vec![ca.root()]), Some(short))
        .config()
        .unwrap();
    let address: Address = server.to_string().parse().unwrap();
    let mut client = HealthClient::new(channel::connect(vec![address], tls).await.unwrap());
    let cut = async {
        loop {
            let status = client.check(HealthCheckRequest::default()).await.unwrap_err();
            if status.code() != tonic::Code::AlreadyExists {
                let told = penstock_proto::refusal::explain(&status).message;
                // What was under way then ends with its connection; the next one is refused at the door.
                if told.contains("it has expired") {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, cut).await.unwrap();
}
