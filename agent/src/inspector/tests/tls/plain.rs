//! A client's TLS that ends before a server that speaks none: what passes, who does not, and what becomes of both while the zones observe.

use penstock_policy::plan::Observing;
use penstock_proto::peer::Epoch;
use penstock_proto::withdrawn::Withdrawn;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::*;

/// A flow to the works' server, in the plain there, limited to the broker's operations or to nothing.
async fn before_plain(works: &Works, limited: bool, observing: Observing) {
    let port = works.port();
    works
        .put(|plan| {
            plan.interfaces
                .iter_mut()
                .for_each(|side| side.observing = observing.clone());
            let rule = &mut plan.rules[0];
            if !limited {
                rule.operations = None;
            }
            let plain_port = Some(port);
            rule.tls = Some(
                Tls {
                    plain_port,
                    ..Tls::default()
                }
                .into(),
            );
        })
        .await;
}

async fn pair(works: &Works) -> (client::TlsStream<TcpStream>, TcpStream) {
    let (client, served) = tokio::join!(works.dial(Some(works.device("hmi"))), works.reached());
    (client.unwrap(), served.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_limits_goes_on_in_the_plain_byte_for_byte_with_its_ends_and_resets() {
    let mut works = Works::new().await;
    before_plain(&works, false, Observing::Nothing).await;
    let (mut client, mut served) = pair(&works).await;
    let many: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();
    let (sent, got) = tokio::join!(client.write_all(&many), take(&mut served, many.len()));
    sent.unwrap();
    assert_eq!(got, many);
    let (sent, got) = tokio::join!(served.write_all(&many), take(&mut client, many.len()));
    sent.unwrap();
    assert_eq!(got, many);
    // One side has said all, and still hears.
    client.shutdown().await.unwrap();
    assert_eq!(served.read(&mut [0; 8]).await.unwrap(), 0);
    served.write_all(b"the rest").await.unwrap();
    assert_eq!(take(&mut client, 8).await, b"the rest");
    drop(served);
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    let seen = works.world.until("in the plain to the server's port").await;
    let opened = seen.last().unwrap();
    assert_eq!(opened.client_name, "device/hmi by certificate");
    assert_eq!(opened.proofs, [Proof::PlantCertificate, Proof::Port]);
    assert_eq!(opened.flow.as_ref().unwrap().name, "supply/polling");
    works.world.until("connection ended").await;

    let (mut client, mut served) = pair(&works).await;
    client.write_all(b"hello").await.unwrap();
    assert_eq!(take(&mut served, 5).await, b"hello");
    served.set_zero_linger().unwrap();
    drop(served);
    client.read_u8().await.unwrap_err();
    works.world.until("connection reset by the server").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_slows_its_server_down_and_holds_a_bounded_part_of_what_comes() {
    let works = Works::new().await;
    before_plain(&works, false, Observing::Nothing).await;
    let (client, mut served) = pair(&works).await;
    let flood = vec![7; 64 * 1024];
    // As soon as all buffers on the way are full, nothing more is taken from the server.
    let mut taken = 0;
    while tokio::time::timeout(Duration::from_millis(500), served.write_all(&flood))
        .await
        .is_ok()
    {
        taken += flood.len();
        assert!(taken < 256 * 1024 * 1024, "it is all taken");
    }
    drop(client);
    // And its end is the server's.
    let ended = async { while served.write_all(&flood).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_judged_inside_the_tls_and_only_those_permitted_reach_the_server() {
    let mut works = Works::new().await;
    before_plain(&works, true, Observing::Nothing).await;
    let (mut client, mut served) = pair(&works).await;
    client.write_all(CONNECT).await.unwrap();
    assert_eq!(take(&mut served, CONNECT.len()).await, CONNECT);
    served.write_all(CONNACK).await.unwrap();
    assert_eq!(take(&mut client, CONNACK.len()).await, CONNACK);
    client.write_all(&[REFUSED, ALLOWED].concat()).await.unwrap();
    assert_eq!(take(&mut client, PUBACK.len()).await, PUBACK);
    assert_eq!(take(&mut served, ALLOWED.len()).await, ALLOWED);
    let seen = works.world.until("publish valve").await;
    assert_eq!(seen.last().unwrap().decision, Some(Decision::Deny));
    // Another policy holds for the connection that stands: without limits, and with them again it cannot be read from its middle.
    before_plain(&works, false, Observing::Nothing).await;
    client.write_all(REFUSED).await.unwrap();
    assert_eq!(take(&mut served, REFUSED.len()).await, REFUSED);
}

/// Certificates odd in many ways, each with a part of the reason for which it is refused.
fn odd(ca: &Authority) -> Vec<(&'static str, Option<Credentials>, &'static str)> {
    let other = Authority::new();
    let uri = |uri: &str| SanType::URI(uri.to_owned().try_into().unwrap());
    let hmi = || uri("spiffe://works/device/hmi");
    vec![
        ("none", None, "shows no certificate"),
        (
            "another authority",
            Some(other.issue("device/hmi").0),
            "not of this plant's authority",
        ),
        (
            "another asset",
            Some(ca.issue("device/plc").0),
            "not device/hmi of plant works",
        ),
        ("an operator", Some(ca.issue("operator/hmi").0), "not device/hmi"),
        ("a gateway", Some(ca.issue("gateway/hmi").0), "not device/hmi"),
        (
            "expired",
            Some(ca.issue_until("device/hmi", 2021).0),
            "issue it again (penstock devices issue)",
        ),
        (
            "not valid yet",
            Some(ca.odd(|params| {
                params.subject_alt_names = vec![hmi()];
                params.not_before = rcgen::date_time_ymd(2098, 1, 1);
            })),
            "penstock devices issue",
        ),
        (
            "another plant",
            Some(ca.odd(|params| params.subject_alt_names = vec![uri("spiffe://dairy/device/hmi")])),
            "not device/hmi of plant works",
        ),
        (
            "no name",
            Some(ca.odd(|params| params.subject_alt_names.clear())),
            "the client's certificate",
        ),
        (
            "only an address",
            Some(ca.odd(|params| {
                params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
            })),
            "the client's certificate",
        ),
        (
            "two names",
            Some(ca.odd(|params| {
                params.subject_alt_names = vec![hmi(), uri("spiffe://works/device/plc")];
            })),
            "the client's certificate",
        ),
        (
            "an authority's",
            Some(ca.odd(|params| {
                params.subject_alt_names = vec![hmi()];
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            })),
            "the client's certificate",
        ),
        (
            "only a server's",
            Some(ca.odd(|params| {
                params.subject_alt_names = vec![hmi()];
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            })),
            "the client's certificate",
        ),
        (
            "of nobody but itself",
            Some(Authority::itself("spiffe://works/device/hmi")),
            "the client's certificate",
        ),
        (
            "a chain too long",
            Some(ca.with_a_long_chain("device/hmi", 12)),
            "the client's",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_with_an_odd_certificate_gets_to_a_server_in_the_plain_and_each_is_told_apart() {
    let mut works = Works::new().await;
    before_plain(&works, false, Observing::Nothing).await;
    for (what, own, because) in odd(&works.ca) {
        let told = works.refuses(own, because).await;
        assert_eq!(told.decision, Some(Decision::Deny), "{what}: {}", told.text);
        assert_eq!(told.subject, Subject::Session, "{what}");
    }
    // Nor does who speaks in the plain.
    let mut plain = works.world.connect();
    plain.write_all(CONNECT).unwrap();
    let mut heard = Vec::new();
    let _ = plain.read_to_end(&mut heard);
    assert!(heard.first().is_none_or(|first| *first == 21), "{heard:?}");
    works.world.until("does not speak TLS").await;
    // The device itself still gets in.
    drop(pair(&works).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_zones_observe_tls_ends_and_who_speaks_in_the_plain_passes_as_before() {
    let mut works = Works::new().await;
    before_plain(&works, true, Observing::Everything).await;
    // In the plain, unread; from a client that begins as TLS does not, and from a server that speaks first.
    let mut plain = works.world.connect();
    plain.write_all(&[22, 3, 0, 1]).unwrap();
    let mut served = works.reached().await.unwrap();
    assert_eq!(take(&mut served, 4).await, [22, 3, 0, 1]);
    let seen = works
        .world
        .until("the client's connection would be refused")
        .await;
    assert_eq!(seen.last().unwrap().decision, Some(Decision::WouldDeny));
    let _waiting = works.world.connect();
    let mut served = works.reached().await.unwrap();
    served.write_all(b"hello").await.unwrap();
    // By TLS as ever: a refused operation passes, and is foretold.
    let (mut client, mut served) = pair(&works).await;
    client.write_all(CONNECT).await.unwrap();
    assert_eq!(take(&mut served, CONNECT.len()).await, CONNECT);
    client.write_all(REFUSED).await.unwrap();
    assert_eq!(take(&mut served, REFUSED.len()).await, REFUSED);
    let seen = works.world.until("publish valve").await;
    assert_eq!(seen.last().unwrap().decision, Some(Decision::WouldDeny));
    works.refuses(None, "shows no certificate").await;
    // Enforcing ends what speaks in the plain, and nothing else.
    before_plain(&works, true, Observing::Nothing).await;
    let mut rest = Vec::new();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(
        plain.read_to_end(&mut rest).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    client.write_all(ALLOWED).await.unwrap();
    assert_eq!(take(&mut served, ALLOWED.len()).await, ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_reads_is_cut_all_the_same_when_its_client_s_key_is_withdrawn() {
    let mut works = Works::without_identity().await;
    let (list, known) = watch::channel(Arc::<Withdrawn>::default());
    let own = works.ca.gateway_knowing(2099, known.into());
    works.world.inspector.identify(Some(own));
    before_plain(&works, false, Observing::Nothing).await;
    let (mut client, mut served) = pair(&works).await;
    client.write_all(b"hello").await.unwrap();
    assert_eq!(take(&mut served, 5).await, b"hello");
    let mut withdrawn = Withdrawn::default();
    withdrawn.withdraw(&"device/hmi".parse().unwrap(), Epoch(1));
    let withdrawn = Arc::new(withdrawn);
    list.send_replace(Arc::clone(&withdrawn));
    works.world.inspector.heed(withdrawn).await;
    let cut = async {
        client.read_u8().await.unwrap_err();
        served.read_u8().await.unwrap_err();
    };
    tokio::time::timeout(PATIENCE, cut).await.unwrap();
    works.world.until("the client's key was withdrawn").await;
    let gone = Some(works.device("hmi"));
    works.refuses(gone, "device/hmi was withdrawn").await;
}
