//! What strangers can make us compute and hold: on each listener, and where we are the client of a hostile server.
//!
//! Processor time is that of this thread alone, as a multiple of what a peer costs that is accepted: both ends run here,
//! over bytes in memory, and only one end's work is counted.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use penstock_policy::ids::{Digest, PlantId};
use penstock_policy::terms::Tls;
use penstock_proto::keys::FileKey;
use penstock_proto::tls::client::{ClientProfile, Trust};
use penstock_proto::tls::data_path::{BrokerProfile, Devices, device_server};
use penstock_proto::tls::handshakes::{Handshakes, Unmet};
use penstock_proto::tls::server::{AcceptLimits, Reception, ServerCredentials, server_config};
use penstock_proto::tls::socket::HANDSHAKE_BYTES_MAX;
use penstock_proto::tls::{CERTIFICATES_MAX, Credentials, FOREIGN_CERTIFICATES_MAX, certificates_to_pem};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_stream::StreamExt as _;
use tonic::transport::server::Connected as _;

/// A claim that does not hold fails by then; no test that passes waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a refused peer may cost, as a multiple of an accepted one.
const RATIO_MAX: u32 = 3;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Two of the same name are as like as an attacker can make them.
    fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    fn issue(&self, subject: &str) -> Credentials {
        let mut params = CertificateParams::new(vec!["broker.example".to_owned()]).unwrap();
        let uri = format!("spiffe://water/{subject}");
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = FileKey::of(key).unwrap();
        Credentials::new(vec![certificate.der().clone(), self.root()], key).unwrap()
    }
}

fn plant() -> PlantId {
    PlantId::new("water").unwrap()
}

/// What a stranger may show to a peer that trusts a root of this name.
fn hostile_chains(name: &str, subject: &str) -> Vec<(&'static str, Credentials)> {
    let own = Authority::named(name);
    let leaf = own.issue(subject);
    let shown = |others: Vec<CertificateDer<'static>>| {
        let chain = [vec![leaf.chain()[0].clone()], others].concat();
        Credentials::new(chain, leaf.key().clone()).unwrap()
    };
    let namesakes = |count: usize| (0..count).map(|_| Authority::named(name).root()).collect();
    vec![
        ("one certificate of another authority", shown(Vec::new())),
        (
            "the most that is looked at, all of the root's name",
            shown(namesakes(CERTIFICATES_MAX - 1)),
        ),
        (
            "the most that is looked at of a broker, all of the root's name",
            shown(namesakes(FOREIGN_CERTIFICATES_MAX - 1)),
        ),
        ("11 certificates of the root's name", shown(namesakes(10))),
        (
            "the most that is looked at of a broker, all between it and the root",
            {
                let (middle, root) = (Authority::named("between"), Authority::named(name));
                let leaf = middle.issue(subject);
                let between = |by: &Authority| {
                    let mut params = CertificateParams::new(Vec::new()).unwrap();
                    params.distinguished_name.push(DnType::CommonName, "between");
                    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                    params
                        .signed_by(&KeyPair::generate().unwrap(), &by.0)
                        .unwrap()
                        .der()
                        .clone()
                };
                let chain = vec![
                    leaf.chain()[0].clone(),
                    between(&root),
                    between(&middle),
                    between(&middle),
                ];
                Credentials::new(chain, leaf.key().clone()).unwrap()
            },
        ),
        ("40 certificates of the root's name", shown(namesakes(39))),
    ]
}

/// Shows whatever it is given.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl Shows {
    fn new(credentials: &Credentials) -> Arc<Self> {
        let key = Arc::new(credentials.key().clone());
        Arc::new(Self(Arc::new(CertifiedKey::new(
            credentials.chain().to_vec(),
            key,
        ))))
    }
}

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Shows {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Believes anybody.
#[derive(Debug)]
struct Believes;

impl ServerCertVerifier for Believes {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn client_showing(credentials: &Credentials, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believes))
        .with_client_cert_resolver(Shows::new(credentials));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn server_showing(credentials: &Credentials, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(Shows::new(credentials));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

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

/// The least of several goes: what the machine does beside is none of ours.
fn costs(go: impl Fn() -> (Duration, bool)) -> (Duration, bool) {
    let goes: Vec<_> = (0..7).map(|_| go()).collect();
    let accepted = goes[0].1;
    assert!(goes.iter().all(|go| go.1 == accepted));
    (goes.iter().map(|go| go.0).min().unwrap(), accepted)
}

fn as_server(ours: &Arc<ServerConfig>, theirs: &Arc<ClientConfig>) -> (Duration, bool) {
    costs(|| {
        let name = ServerName::try_from("broker.example").unwrap();
        let client = ClientConnection::new(Arc::clone(theirs), name).unwrap();
        meet(
            ServerConnection::new(Arc::clone(ours)).unwrap().into(),
            client.into(),
        )
    })
}

fn as_client(ours: &Arc<ClientConfig>, theirs: &Arc<ServerConfig>) -> (Duration, bool) {
    costs(|| {
        let name = ServerName::try_from("broker.example").unwrap();
        let client = ClientConnection::new(Arc::clone(ours), name).unwrap();
        meet(
            client.into(),
            ServerConnection::new(Arc::clone(theirs)).unwrap().into(),
        )
    })
}

fn holds(
    listener: &str,
    good: (Duration, bool),
    hostile: impl Fn(&Credentials) -> (Duration, bool),
    subject: &str,
) {
    assert!(good.1, "{listener}: the good peer is accepted");
    for (what, shown) in hostile_chains("root of water", subject) {
        let (spent, accepted) = hostile(&shown);
        assert!(!accepted, "{listener}: {what}");
        assert!(
            spent <= good.0 * RATIO_MAX,
            "{listener}: {what}: {spent:?} of processor time; a good peer costs {:?}",
            good.0
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
        shows(&ca.issue("gateway/gw-1")),
        shows,
        "gateway/gw-1",
    );

    let listed = Devices::Listed(BTreeSet::from(["hmi".parse().unwrap()]));
    let inspector = device_server(&plant(), own("gateway/gw-1"), &[ca.root()], listed).unwrap();
    let shows = |credentials: &Credentials| as_server(&inspector, &client_showing(credentials, &[]));
    holds(
        "the inspector",
        shows(&ca.issue("device/hmi")),
        shows,
        "device/hmi",
    );
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
        holds(whose, shows(&ca.issue("coordinator/c1")), shows, "coordinator/c1");
    }
    let foreign = Tls {
        server_authorities: Some(certificates_to_pem(&[ca.root()])),
        server_name: Some("broker.example".to_owned()),
    };
    for (whose, tls) in [
        ("a broker of the plant", Tls::default()),
        ("a broker of other authorities", foreign),
    ] {
        let (broker, address) = ("broker".parse().unwrap(), Ipv4Addr::LOCALHOST.into());
        let (roots, own) = ([ca.root()], ca.issue("gateway/gw-1"));
        let profile = BrokerProfile::of_plan(&tls, &plant(), &roots, (&broker, address), own).unwrap();
        let ours = profile.config().unwrap();
        let shows = |credentials: &Credentials| as_client(&ours, &server_showing(credentials, &[]));
        holds(whose, shows(&ca.issue("device/broker")), shows, "device/broker");
    }
}

#[tokio::test]
async fn a_handshake_longer_than_any_of_ours_is_given_up() {
    let ca = Authority::named("root of water");
    let server = serve(&ca, AcceptLimits::default()).await;
    let mut stream = TcpStream::connect(server).await.unwrap();
    // A greeting that says it has 60,000 bytes, in records of one byte each.
    let mut sent = 0;
    let mut greeting = vec![1, 0, 0xea, 0x60];
    greeting.resize(60_000, 0);
    for byte in greeting {
        if stream.write_all(&[22, 3, 1, 0, 1, byte]).await.is_err() {
            break;
        }
        sent += 6;
    }
    // What is in the sockets' buffers does not count; the end does.
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    assert!(sent >= HANDSHAKE_BYTES_MAX, "{sent}");
}

/// A coordinator's door: it greets whom it let in.
async fn serve(ca: &Authority, limits: AcceptLimits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let own = ServerCredentials::new(&ca.issue("coordinator/c1")).unwrap();
    let config = server_config(&plant(), own, &[ca.root()]).unwrap();
    let mut incoming = Box::pin(Reception::start(config, limits).unwrap().incoming(listener));
    tokio::spawn(async move {
        while let Some(peer) = incoming.next().await {
            tokio::spawn(async move {
                let mut peer = peer.unwrap();
                let _ = peer.write_all(b"in").await;
                let _ = peer.flush().await;
                // It stands until the client ends it, or it is cut.
                let _ = peer.read(&mut [0; 1]).await;
            });
        }
    });
    address
}

async fn dial_from(source: Ipv4Addr, server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    socket.connect(server).await.unwrap()
}

/// Whether a client without a certificate from `source` is let in; it stays for as long as the stream lives.
async fn gets_in(source: Ipv4Addr, server: SocketAddr) -> Option<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut stream = knocks(source, server).await?;
    let mut greeting = [0; 2];
    stream.read_exact(&mut greeting).await.ok()?;
    Some(stream)
}

/// A client without a certificate after its side of the handshake. It has read nothing.
async fn knocks(source: Ipv4Addr, server: SocketAddr) -> Option<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believes))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("broker.example").unwrap();
    let tcp = dial_from(source, server).await;
    connector.connect(name, tcp).await.ok()
}

/// A door that writes to everybody without end, and tells how that ended; with `cut`, it cuts them meanwhile.
async fn serve_without_end(
    ca: &Authority,
    limits: AcceptLimits,
    cut: bool,
) -> (SocketAddr, mpsc::Receiver<io::Error>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let own = ServerCredentials::new(&ca.issue("coordinator/c1")).unwrap();
    let config = server_config(&plant(), own, &[ca.root()]).unwrap();
    let mut incoming = Box::pin(Reception::start(config, limits).unwrap().incoming(listener));
    let (ended, ends) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(peer) = incoming.next().await {
            let mut peer = peer.unwrap();
            let (ended, line) = (ended.clone(), peer.connect_info().line);
            let (mut full, is_full) = (Some(()), Arc::new(Notify::new()));
            let fills = Arc::clone(&is_full);
            tokio::spawn(async move {
                let error = std::future::poll_fn(|cx| {
                    loop {
                        match Pin::new(&mut peer).poll_write(cx, &[0; 16 * 1024]) {
                            Poll::Ready(Ok(_)) => {}
                            Poll::Ready(Err(error)) => return Poll::Ready(error),
                            Poll::Pending => {
                                full.take().inspect(|()| fills.notify_one());
                                return Poll::Pending;
                            }
                        }
                    }
                })
                .await;
                // Whoever asks again is answered the same.
                assert_eq!(peer.flush().await.unwrap_err().kind(), error.kind());
                assert_eq!(peer.read(&mut [0; 1]).await.unwrap_err().kind(), error.kind());
                assert_eq!(peer.shutdown().await.unwrap_err().kind(), error.kind());
                ended.send(error).await.unwrap();
            });
            if cut {
                is_full.notified().await;
                line.cut();
            }
        }
    });
    (address, ends)
}

#[tokio::test]
async fn a_peer_that_takes_no_more_bytes_escapes_neither_its_deadline_nor_the_loss_of_its_place_nor_a_cut() {
    let ca = Authority::named("root of water");
    let long = AcceptLimits {
        anonymous_max: 1,
        anonymous_lifetime: Duration::from_secs(600),
        ..AcceptLimits::default()
    };
    let short = AcceptLimits {
        anonymous_lifetime: Duration::from_millis(500),
        ..AcceptLimits::default()
    };
    let crowded = AcceptLimits {
        anonymous_lifetime: Duration::from_secs(3),
        ..long
    };
    for (limits, cut, peers, words) in [
        (long, true, 1, "does not read"),
        (short, false, 1, "without a client certificate is over"),
        (crowded, false, 2, "limit of connections is reached"),
    ] {
        let (server, mut ends) = serve_without_end(&ca, limits, cut).await;
        let first = knocks(Ipv4Addr::LOCALHOST, server).await.unwrap();
        let mut others = Vec::new();
        while others.len() + 1 < peers {
            // Among equals a place is lost once it is a sixth of its time old.
            others.extend(gets_in(Ipv4Addr::new(127, 0, 0, 2), server).await);
        }
        let error = tokio::time::timeout(PATIENCE, ends.recv()).await;
        let error = error
            .expect("a peer that does not read kept its connection")
            .unwrap();
        assert!(error.to_string().contains(words), "{error}");
        drop((first, others));
    }
}

#[tokio::test]
async fn one_source_that_holds_all_handshakes_or_all_connections_keeps_no_other_out() {
    let ca = Authority::named("root of water");
    let limits = AcceptLimits {
        handshake_timeout: Duration::from_secs(600),
        handshakes_max: 8,
        connections_max: 8,
        anonymous_max: 4,
        anonymous_lifetime: Duration::from_secs(600),
    };
    let server = serve(&ca, limits).await;
    let (greedy, other) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(dial_from(greedy, server).await);
    }
    let first = gets_in(other, server).await.expect("beside silent ones");
    drop((silent, first));
    let mut held = Vec::new();
    for _ in 0..4 {
        // Its silent ones may still be on their way out.
        held.push(
            tokio::time::timeout(PATIENCE, async {
                loop {
                    if let Some(stream) = gets_in(greedy, server).await {
                        break stream;
                    }
                }
            })
            .await
            .unwrap(),
        );
    }
    assert!(
        gets_in(other, server).await.is_some(),
        "beside connections that stand"
    );
    let cut = tokio::time::timeout(PATIENCE, async {
        loop {
            for stream in &mut held {
                let mut byte = [0; 1];
                if let Ok(end) = tokio::time::timeout(Duration::from_millis(10), stream.read(&mut byte)).await
                {
                    return end.map_or(true, |count| count == 0);
                }
            }
        }
    });
    assert!(cut.await.unwrap(), "the oldest of the greedy one made room");
}

/// Whether a peer with this certificate is let in; it stays for as long as the stream lives.
async fn known_gets_in(
    credentials: &Credentials,
    server: SocketAddr,
) -> Option<tokio_rustls::client::TlsStream<TcpStream>> {
    let connector = tokio_rustls::TlsConnector::from(client_showing(credentials, &[b"h2"]));
    let name = ServerName::try_from("broker.example").unwrap();
    let tcp = TcpStream::connect(server).await.unwrap();
    let mut stream = connector.connect(name, tcp).await.ok()?;
    let mut greeting = [0; 2];
    stream.read_exact(&mut greeting).await.ok()?;
    Some(stream)
}

#[tokio::test]
async fn one_certificate_holds_a_few_places_and_a_broken_line_keeps_nobody_from_coming_back() {
    let ca = Authority::named("root of water");
    let limits = AcceptLimits {
        connections_max: 40,
        ..AcceptLimits::default()
    };
    let server = serve(&ca, limits).await;
    let greedy = ca.issue("gateway/gw-1");
    let mut held = Vec::new();
    for _ in 0..50 {
        // The newest one is always let in: it may be all that is left of a peer whose line broke.
        held.push(known_gets_in(&greedy, server).await.expect("the newest"));
    }
    // As many as one may hold leave places to others, at once and without waiting for anybody's end.
    let mut others = Vec::new();
    for number in 2..10 {
        let other = ca.issue(&format!("gateway/gw-{number}"));
        others.push(known_gets_in(&other, server).await.expect("another peer"));
    }
    // The oldest of its own were lost, and the newest stands.
    let mut newest = held.pop().unwrap();
    for mut stream in held.drain(..18) {
        let mut byte = [0; 1];
        let end = tokio::time::timeout(PATIENCE, stream.read(&mut byte))
            .await
            .unwrap();
        assert!(end.map_or(true, |count| count == 0));
    }
    let mut byte = [0; 1];
    let stands = tokio::time::timeout(Duration::from_millis(100), newest.read(&mut byte)).await;
    assert!(stands.is_err());
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
