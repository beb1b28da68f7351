//! The TLS profile over real sockets: who gets in, who does not, and what each learns.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod issuing;
mod keys;
mod late;
mod odd;

use std::net::SocketAddr;
use std::time::Duration;

use penstock_policy::ids::{Digest, PlantId};
use penstock_proto::channel::{self, Address};
use penstock_proto::keys::FileKey;
use penstock_proto::tls::client::{ClientProfile, Trust};
use penstock_proto::tls::server::{AcceptLimits, PeerInfo, Reception, ServerCredentials, server_config};
use penstock_proto::tls::{Credentials, validity_ms};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt as _;
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        Self::named("authority")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    fn issue(&self, uri: &str) -> Credentials {
        self.issue_in(uri, 2020, 2099)
    }

    fn issue_in(&self, uri: &str, from: i32, until: i32) -> Credentials {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.extended_key_usages = vec![if uri.contains("coordinator") {
            ExtendedKeyUsagePurpose::ServerAuth
        } else {
            ExtendedKeyUsagePurpose::ClientAuth
        }];
        self.sign(params)
    }

    /// A certificate as gateways have it that end TLS: good for serving, with an address in it.
    fn issue_serving(&self, uri: &str) -> Credentials {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Credentials::new(
            vec![certificate.der().clone(), self.root()],
            FileKey::of(key).unwrap(),
        )
        .unwrap()
    }
}

fn plant() -> PlantId {
    PlantId::new("water").unwrap()
}

/// Serves the health service, and refuses with the caller's identity as the message, so that tests see it.
async fn serve(credentials: &Credentials, root: CertificateDer<'static>, limits: AcceptLimits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = server_config(&plant(), ServerCredentials::new(credentials).unwrap(), &[root]).unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let named = tonic::service::interceptor::InterceptedService::new(health, |request: Request<()>| {
        let info = request.extensions().get::<PeerInfo>().unwrap();
        let name = info.identity().map_or("nobody".to_owned(), ToString::to_string);
        Err::<Request<()>, _>(Status::already_exists(name))
    });
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(named)
            .serve_with_incoming(Reception::start(config, limits).unwrap().incoming(listener)),
    );
    address
}

/// The identity that the server sees, or the error that the client gets.
async fn call(addresses: &[SocketAddr], profile: ClientProfile) -> Result<String, String> {
    let addresses: Vec<Address> = addresses.iter().map(|a| a.to_string().parse().unwrap()).collect();
    let channel = channel::connect(addresses, profile.config().unwrap())
        .await
        .map_err(|e| e.to_string())?;
    let status = HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await
        .unwrap_err();
    match status.code() {
        tonic::Code::AlreadyExists => Ok(status.message().to_owned()),
        _ => Err(penstock_proto::refusal::explain(&status).message),
    }
}

fn profile(trust: Trust, credentials: Option<Credentials>) -> ClientProfile {
    ClientProfile {
        plant: plant(),
        trust,
        credentials,
    }
}

/// A claim that does not hold fails by then; no test that passes waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
const COORDINATOR: &str = "spiffe://water/coordinator/c1";
const GATEWAY: &str = "spiffe://water/gateway/gw-1";

#[tokio::test]
async fn a_verified_client_is_known_by_its_certificate_and_one_without_is_nobody() {
    let ca = Authority::new();
    let server = serve(&ca.issue(COORDINATOR), ca.root(), AcceptLimits::default()).await;
    let roots = || Trust::Roots(vec![ca.root()]);
    assert_eq!(
        call(&[server], profile(roots(), Some(ca.issue(GATEWAY))))
            .await
            .unwrap(),
        GATEWAY
    );
    assert_eq!(call(&[server], profile(roots(), None)).await.unwrap(), "nobody");
}

#[tokio::test]
async fn a_pin_accepts_only_the_chain_that_ends_in_the_pinned_root() {
    let (ca, other) = (Authority::new(), Authority::new());
    let server = serve(&ca.issue(COORDINATOR), ca.root(), AcceptLimits::default()).await;
    let pin = |root: &CertificateDer<'_>| profile(Trust::Pin(Digest::of(root)), None);
    assert_eq!(call(&[server], pin(&ca.root())).await.unwrap(), "nobody");
    let told = call(&[server], pin(&other.root())).await.unwrap_err();
    assert!(told.contains("digest in the token"), "{told}");

    // Somebody in between who shows the genuine root beside a certificate of their own.
    let fake = other.issue(COORDINATOR);
    let dressed = Credentials::new(vec![fake.chain()[0].clone(), ca.root()], fake.key().clone()).unwrap();
    let impostor = serve(&dressed, ca.root(), AcceptLimits::default()).await;
    let told = call(&[impostor], pin(&ca.root())).await.unwrap_err();
    assert!(told.contains("not issued by this plant's authority"), "{told}");
}

#[tokio::test]
async fn clients_of_another_authority_of_another_plant_or_expired_do_not_get_in() {
    let (ca, other) = (Authority::new(), Authority::new());
    let server = serve(&ca.issue(COORDINATOR), ca.root(), AcceptLimits::default()).await;
    for (credentials, expected) in [
        (other.issue(GATEWAY), "does not accept our certificate"),
        (
            ca.issue("spiffe://steel/gateway/gw-1"),
            "does not accept our certificate",
        ),
        (
            ca.issue("spiffe://water/janitor/x"),
            "does not accept our certificate",
        ),
        (
            ca.issue_in(GATEWAY, 2020, 2021),
            "it has expired (valid until 2021-",
        ),
        (
            ca.issue_in(GATEWAY, 2098, 2099),
            "it is not valid yet (from 2098-",
        ),
        (ca.issue("spiffe://water/coordinator/gw-1"), "certificate"),
    ] {
        let told = call(
            &[server],
            profile(Trust::Roots(vec![ca.root()]), Some(credentials)),
        )
        .await
        .unwrap_err();
        assert!(told.contains(expected), "{told}");
    }
}

#[tokio::test]
async fn servers_that_are_no_coordinator_of_this_plant_are_refused() {
    let (ca, other) = (Authority::new(), Authority::new());
    for (credentials, expected) in [
        (other.issue(COORDINATOR), "not issued by this plant's authority"),
        (
            ca.issue_in(COORDINATOR, 2020, 2021),
            "has expired (valid until 2021-",
        ),
        (ca.issue_in(COORDINATOR, 2098, 2099), "not valid yet (from 2098-"),
        (
            ca.issue("spiffe://steel/coordinator/c1"),
            "not a coordinator of plant water",
        ),
        (ca.issue(GATEWAY), "is not for this use"),
    ] {
        let server = serve(&credentials, ca.root(), AcceptLimits::default()).await;
        let told = call(
            &[server],
            profile(Trust::Roots(vec![ca.root()]), Some(ca.issue(GATEWAY))),
        )
        .await
        .unwrap_err();
        assert!(told.contains(expected), "{told}");
    }
}

#[tokio::test]
async fn a_certificate_that_ends_tls_for_the_dialled_address_speaks_for_no_coordinator() {
    let ca = Authority::new();
    for uri in [GATEWAY, "spiffe://water/device/broker"] {
        let server = serve(&ca.issue_serving(uri), ca.root(), AcceptLimits::default()).await;
        // Neither to agents and people that are enrolled, nor to those that hold a token.
        for (trust, own) in [
            (Trust::Roots(vec![ca.root()]), Some(ca.issue(GATEWAY))),
            (
                Trust::Roots(vec![ca.root()]),
                Some(ca.issue("spiffe://water/operator/bob")),
            ),
            (Trust::Pin(Digest::of(&ca.root())), None),
        ] {
            let told = call(&[server], profile(trust, own)).await.unwrap_err();
            assert!(told.contains("not a coordinator of plant water"), "{told}");
        }
    }
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_is_dead_or_false() {
    let (ca, other) = (Authority::new(), Authority::new());
    let dead: SocketAddr = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let fake = serve(&other.issue(COORDINATOR), other.root(), AcceptLimits::default()).await;
    let good = serve(&ca.issue(COORDINATOR), ca.root(), AcceptLimits::default()).await;
    let ours = || profile(Trust::Roots(vec![ca.root()]), Some(ca.issue(GATEWAY)));
    assert_eq!(call(&[dead, fake, good], ours()).await.unwrap(), GATEWAY);
    let told = call(&[dead, fake], ours()).await.unwrap_err();
    assert!(
        told.contains(&dead.to_string()) && told.contains(&fake.to_string()),
        "{told}"
    );
    let told = call(&[], ours()).await.unwrap_err();
    assert!(told.contains("no address"), "{told}");
}

#[tokio::test]
async fn a_peer_that_is_just_sending_is_not_reset_but_reads_the_last_that_was_said_to_it() {
    let ca = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ours = ServerCredentials::new(&ca.issue(COORDINATOR)).unwrap();
    let config = server_config(&plant(), ours, &[ca.root()]).unwrap();
    let limits = AcceptLimits {
        linger: PATIENCE,
        ..AcceptLimits::default()
    };
    let mut incoming = Reception::start(config, limits).unwrap().incoming(listener);
    let server = tokio::spawn(async move {
        let mut peer = incoming.next().await.unwrap().unwrap();
        peer.write_all(b"the last").await.unwrap();
        peer.shutdown().await.unwrap();
    });
    let profile = profile(Trust::Roots(vec![ca.root()]), Some(ca.issue(GATEWAY)));
    let tls = tokio_rustls::TlsConnector::from(profile.config().unwrap().config);
    let stream = TcpStream::connect(address).await.unwrap();
    let name = "coordinator.penstock".try_into().unwrap();
    let (mut down, mut up) = tokio::io::split(tls.connect(name, stream).await.unwrap());
    let mut heard = Vec::new();
    up.write_all(&[7; 16 * 1024]).await.unwrap();
    down.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"the last");
    // More than sockets hold: the other side takes it, though nobody reads it there.
    for _ in 0..512 {
        up.write_all(&[7; 16 * 1024]).await.unwrap();
    }
    drop((down, up));
    tokio::time::timeout(PATIENCE, server).await.unwrap().unwrap();
}

#[tokio::test]
async fn tls_1_2_is_refused_with_the_alert_for_it() {
    let ca = Authority::new();
    let server = serve(&ca.issue(COORDINATOR), ca.root(), AcceptLimits::default()).await;
    // A ClientHello as TLS 1.2 clients send it: ECDHE-ECDSA-AES128-GCM-SHA256, P-256, no supported_versions.
    let extensions: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 23, // supported_groups: secp256r1
        0, 11, 0, 2, 1, 0, // ec_point_formats: uncompressed
        0, 13, 0, 4, 0, 2, 4, 3, // signature_algorithms: ecdsa_secp256r1_sha256
    ];
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let length = u8::try_from(body.len()).unwrap();
    let mut hello = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    hello.extend(body);
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer[0], 21, "an alert: {answer:?}");
    assert_eq!(answer[5..7], [2, 70], "fatal, protocol_version: {answer:?}");
}

#[tokio::test]
async fn garbage_silence_and_crowds_without_certificates_do_not_keep_others_out() {
    let ca = Authority::new();
    // Long enough for a handshake on a loaded machine; three times over for those that keep silent first.
    let limits = AcceptLimits {
        handshake_timeout: Duration::from_secs(2),
        linger: Duration::from_secs(1),
        handshakes_max: 4,
        connections_max: 8,
        anonymous_max: 2,
        anonymous_lifetime: Duration::from_secs(600),
    };
    let server = serve(&ca.issue(COORDINATOR), ca.root(), limits).await;
    let mut silent = Vec::new();
    for n in 0..12u8 {
        let mut stream = TcpStream::connect(server).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(&[n; 400]).await.unwrap();
        }
        silent.push(stream);
    }
    let nobody = || profile(Trust::Roots(vec![ca.root()]), None);
    let address: Address = server.to_string().parse().unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        // The silent ones are of the same address; they make room once they have been silent for a while.
        let connecting = async {
            loop {
                match channel::connect(vec![address.clone()], nobody().config().unwrap()).await {
                    Ok(channel) => break channel,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let channel = tokio::time::timeout(PATIENCE, connecting).await.unwrap();
        let mut client = HealthClient::new(channel);
        assert_eq!(
            client
                .check(HealthCheckRequest::default())
                .await
                .unwrap_err()
                .code(),
            tonic::Code::AlreadyExists
        );
        held.push(client);
    }
    call(&[server], nobody())
        .await
        .expect_err("a third connection without a certificate");
    assert_eq!(
        call(
            &[server],
            profile(Trust::Roots(vec![ca.root()]), Some(ca.issue(GATEWAY)))
        )
        .await
        .unwrap(),
        GATEWAY
    );
    for mut stream in silent {
        let mut rest = Vec::new();
        // Either a TLS alert and the end, or a reset: but it ends.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn operators_find_a_place_where_gateways_have_taken_all_of_theirs() {
    let ca = Authority::new();
    let limits = AcceptLimits {
        connections_max: 1,
        ..AcceptLimits::default()
    };
    let server = serve(&ca.issue(COORDINATOR), ca.root(), limits).await;
    let address: Address = server.to_string().parse().unwrap();
    let who = |uri: &str| profile(Trust::Roots(vec![ca.root()]), Some(ca.issue(uri)));
    let _held = channel::connect(vec![address], who(GATEWAY).config().unwrap())
        .await
        .unwrap();
    call(&[server], who("spiffe://water/gateway/gw-other"))
        .await
        .expect_err("a second gateway");
    let operator = "spiffe://water/operator/admin";
    assert_eq!(call(&[server], who(operator)).await.unwrap(), operator);
}

#[tokio::test]
async fn a_connection_without_a_certificate_gives_its_place_to_the_next_when_its_time_is_over() {
    let ca = Authority::new();
    let limits = AcceptLimits {
        anonymous_max: 1,
        anonymous_lifetime: Duration::from_millis(200),
        ..AcceptLimits::default()
    };
    let server = serve(&ca.issue(COORDINATOR), ca.root(), limits).await;
    let nobody = || profile(Trust::Roots(vec![ca.root()]), None);
    let address: Address = server.to_string().parse().unwrap();
    let _held = channel::connect(vec![address], nobody().config().unwrap())
        .await
        .unwrap();
    let next = async {
        while call(&[server], nobody()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, next).await.unwrap();
}

#[tokio::test]
async fn a_replaced_certificate_serves_the_next_connection() {
    let ca = Authority::new();
    let old = ca.issue_in(COORDINATOR, 2020, 2021);
    let server_credentials = ServerCredentials::new(&old).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let config = server_config(&plant(), server_credentials.clone(), &[ca.root()]).unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(health)
            .serve_with_incoming(
                Reception::start(config, AcceptLimits::default())
                    .unwrap()
                    .incoming(listener),
            ),
    );
    let tls = profile(Trust::Roots(vec![ca.root()]), None).config().unwrap();
    let told = channel::connect(vec![address.clone()], tls.clone())
        .await
        .unwrap_err()
        .to_string();
    assert!(told.contains("has expired"), "{told}");
    let new = ca.issue(COORDINATOR);
    server_credentials.replace(&new).unwrap();
    channel::connect(vec![address], tls).await.unwrap();
    assert!(validity_ms(&new.chain()[0]).unwrap().1 > validity_ms(&old.chain()[0]).unwrap().1);
}

#[tokio::test]
async fn who_cannot_connect_hears_whether_anything_answered_at_an_address() {
    let ca = Authority::new();
    let tls = profile(Trust::Roots(vec![ca.root()]), None).config().unwrap();
    let failed = async |addresses: &[Address]| {
        let connected = channel::connect(addresses.to_vec(), tls.clone()).await;
        connected.unwrap_err()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
    // Somebody listens, and is no coordinator.
    let hangs_up = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
    let hung_up = failed(std::slice::from_ref(&address)).await;
    assert!(hung_up.answered, "{hung_up}");
    hangs_up.await.unwrap();
    // Nobody listens there any more; and to where no connection can go, nothing leaves this machine.
    let nowhere: Address = "255.255.255.255:7643".parse().unwrap();
    let refused = failed(&[nowhere.clone(), address]).await;
    assert!(refused.answered, "{refused}");
    let lost = failed(&[nowhere]).await;
    assert!(!lost.answered, "{lost}");
}
