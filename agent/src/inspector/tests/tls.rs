//! TLS that ends at the relay, over loopback, by real handshakes: MQTT from a device to its broker.

mod plain;
mod withdrawn;
mod works;

use std::io;

use penstock_policy::ids::Digest;
use penstock_policy::model::ApproverSet;
use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::{NumberRange, Proof, Tls};
use penstock_proto::keys::FileKey;
use penstock_proto::tls::data_path::{Devices, RoleReading};
use penstock_proto::tls::{Credentials, certificates_to_pem};
use penstock_proto::withdrawn::WithdrawnView;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::super::identity::TlsIdentity;
use super::*;
use crate::identity::{Enrolment, Identity, IdentityFolder};

pub(super) use self::works::{Authority, Works};

const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c";
const CONNACK: &[u8] = b"\x20\x02\x00\x00";
const ALLOWED: &[u8] = b"\x30\x08\x00\x06line/1";
const REFUSED: &[u8] = b"\x32\x09\x00\x05valve\x00\x07";
const PUBACK: &[u8] = b"\x40\x02\x00\x07";

async fn take(stream: &mut (impl tokio::io::AsyncRead + Unpin), count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let reading = tokio::time::timeout(PATIENCE, stream.read_exact(&mut bytes));
    reading.await.unwrap().unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_reaches_its_broker_inside_tls_and_no_further_than_the_rule() {
    let mut works = Works::new().await;
    let (mut client, mut served) = works.pair().await;
    client.write_all(&[REFUSED, ALLOWED].concat()).await.unwrap();
    // The answer in the protocol, and then what is permitted.
    assert_eq!(take(&mut client, PUBACK.len()).await, PUBACK);
    assert_eq!(take(&mut served, ALLOWED.len()).await, ALLOWED);
    // The end of either side is the other's.
    client.shutdown().await.unwrap();
    assert_eq!(served.read(&mut [0; 8]).await.unwrap(), 0);
    served.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    let seen = works.world.until("publish valve").await;
    let refused = seen.last().unwrap();
    assert_eq!(refused.decision, Some(Decision::Deny));
    assert_eq!(refused.client_name, "device/hmi by certificate");
    assert_eq!(refused.proofs, [Proof::PlantCertificate; 2]);
    assert_eq!(refused.flow.as_ref().unwrap().name, "supply/polling");
    works.world.until("connection ended").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_to_the_server_but_the_device_that_the_flow_names_from_its_address() {
    let mut works = Works::new().await;
    let other = Authority::new();
    for (own, because) in [
        (None, "shows no certificate"),
        (Some(other.issue("device/hmi").0), "not of this plant's authority"),
        (Some(works.device("plc")), "not device/hmi of plant works"),
        (Some(works.ca.issue("operator/hmi").0), "not device/hmi"),
        (
            Some(works.ca.issue_until("device/hmi", 2021).0),
            "issue it again (penstock devices issue)",
        ),
    ] {
        let told = works.refuses(own, because).await;
        assert_eq!(told.decision, Some(Decision::Deny), "{}", told.text);
        assert_eq!(told.subject, Subject::Session);
        assert_eq!(
            told.proofs,
            [Proof::Port; 2],
            "each is alone on its side: {}",
            told.text
        );
    }
    // What lives in a zone may be any device of the plant.
    works
        .put(|plan| plan.rules[0].sources[0].name = "zone:office".into())
        .await;
    let (client, served) = tokio::join!(works.dial(Some(works.device("laptop"))), works.serve());
    drop((client.unwrap(), served.unwrap()));
    works.refuses(None, "shows no certificate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_on_in_the_plain_on_either_side() {
    let mut works = Works::new().await;
    let mut plain = works.world.connect();
    plain.write_all(CONNECT).unwrap();
    let mut heard = Vec::new();
    let _ = plain.read_to_end(&mut heard);
    // A TLS alert at most.
    assert!(heard.first().is_none_or(|first| *first == 21), "{heard:?}");
    let told = works.world.until("does not speak TLS").await;
    assert_eq!(told.last().unwrap().decision, Some(Decision::Deny));
    // And a server that answers in the plain.
    let (client, ()) = tokio::join!(works.dial(Some(works.device("hmi"))), async {
        let listener = works.world.server.try_clone().unwrap();
        let heard = tokio::task::spawn_blocking(move || {
            let (mut served, _) = listener.accept().unwrap();
            served.write_all(CONNACK).unwrap();
            let mut heard = Vec::new();
            let _ = served.read_to_end(&mut heard);
            heard
        });
        let heard = heard.await.unwrap();
        assert!(!heard.windows(4).any(|some| some == b"MQTT"), "{heard:?}");
    });
    // The client may learn it in its handshake, as it writes, or as it reads.
    if let Ok(mut client) = client {
        let _ = client.write_all(CONNECT).await;
        client.read_u8().await.unwrap_err();
    }
    works.world.until("the server does not speak TLS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_the_flows_gets_no_byte_of_the_client() {
    let mut works = Works::new().await;
    for (broker, because) in [
        (
            Authority::new().issue("device/plc").0,
            "server's certificate is not good",
        ),
        (works.device("hmi"), "not device/plc of plant works"),
    ] {
        works.broker = broker;
        let (client, served) = tokio::join!(works.dial(Some(works.device("hmi"))), works.serve());
        let mut served_error = String::new();
        if let Ok(mut served) = served {
            served_error = served.read_u8().await.unwrap_err().to_string();
        }
        // The client may learn it in its handshake, or as it reads.
        if let Ok(mut client) = client {
            assert!(client.read_u8().await.is_err(), "{served_error}");
        }
        let told = works.world.until(because).await;
        assert_eq!(told.last().unwrap().client_name, "device/hmi by certificate");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_identity_meets_new_connections_and_cuts_none_and_an_expired_one_serves_on() {
    let works = Works::new().await;
    let (mut client, mut served) = works.pair().await;
    let first = client.get_ref().1.peer_certificates().unwrap()[0].clone();
    works.world.inspector.identify(Some(works.ca.gateway(2098)));
    assert_eq!(works.world.inspector.identity_fault(), None);
    client.write_all(ALLOWED).await.unwrap();
    assert_eq!(take(&mut served, ALLOWED.len()).await, ALLOWED);
    let (renewed, _served) = works.pair().await;
    assert_ne!(renewed.get_ref().1.peer_certificates().unwrap()[0], first);
    // Whether an expired one is good enough is for the peers to say, and ours say no.
    works.world.inspector.identify(Some(works.ca.gateway(2021)));
    let refused = works.dial(Some(works.device("hmi"))).await.unwrap_err();
    assert!(refused.to_string().contains("expired"), "{refused}");
    client.write_all(ALLOWED).await.unwrap();
    assert_eq!(take(&mut served, ALLOWED.len()).await, ALLOWED);
    let fault = works.world.inspector.identity_fault().unwrap();
    assert_eq!(fault.code, "tls-certificate-expired");
    works.put(|plan| plan.rules[0].tls = None).await;
    assert_eq!(works.world.inspector.identity_fault(), None, "no TLS ends here");
}

#[test]
fn tls_is_set_up_once_for_an_identity_and_the_terms_of_a_flow() {
    let ca = Authority::new();
    let [first, renewed] = [2099, 2098].map(|year| TlsIdentity::new(ca.gateway(year)).unwrap());
    let clients = |ready: &TlsIdentity, device: &str| {
        let devices = Devices::Listed([device.parse().unwrap()].into());
        ready.towards_clients(devices, RoleReading::Ignored).unwrap()
    };
    assert!(Arc::ptr_eq(&clients(&first, "hmi"), &clients(&first, "hmi")));
    assert!(!Arc::ptr_eq(&clients(&first, "hmi"), &clients(&first, "panel")));
    assert!(!Arc::ptr_eq(&clients(&first, "hmi"), &clients(&renewed, "hmi")));
    let named = Tls {
        server_name: Some("broker.example".to_owned()),
        ..Tls::default()
    };
    let server = |ready: &TlsIdentity, tls: &Tls, asset: &str, address: [u8; 4]| {
        let (asset, address) = (asset.parse().unwrap(), address.into());
        ready.towards_server(tls, asset, address).unwrap()
    };
    let one = server(&first, &Tls::default(), "plc", [10, 2, 0, 9]);
    assert!(Arc::ptr_eq(
        &one,
        &server(&first, &Tls::default(), "plc", [10, 2, 0, 9])
    ));
    for other in [
        server(&first, &named, "plc", [10, 2, 0, 9]),
        server(&first, &Tls::default(), "broker", [10, 2, 0, 9]),
        server(&first, &Tls::default(), "plc", [10, 2, 0, 10]),
        server(&renewed, &Tls::default(), "plc", [10, 2, 0, 9]),
    ] {
        assert!(!Arc::ptr_eq(&one, &other));
        assert!(!Arc::ptr_eq(&one.config, &other.config));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_identity_refuses_tls_and_says_so() {
    let mut works = Works::without_identity().await;
    let own = works.device("hmi");
    works.refuses(Some(own), "this gateway has no certificate").await;
    let fault = works.world.inspector.identity_fault().unwrap();
    assert_eq!(fault.code, "tls-without-identity");
}

#[tokio::test(flavor = "multi_thread")]
async fn standing_connections_come_under_another_policy_and_end_where_it_knows_them_no_more() {
    let works = Works::new().await;
    let (mut client, mut served) = works.pair().await;
    works
        .put(|plan| {
            let operations = plan.rules[0].operations.as_mut().map(Arc::make_mut);
            *operations.unwrap() = Operations::from(vec![MqttOperation::Publish {
                topics: vec!["valve".to_owned()],
                qos: NumberRange { first: 1, last: 1 },
                retain: false,
            }]);
        })
        .await;
    client.write_all(&[ALLOWED, REFUSED].concat()).await.unwrap();
    assert_eq!(take(&mut served, REFUSED.len()).await, REFUSED);
    type Change = fn(&mut Plan);
    let changes: [Change; 4] = [
        // The device's address is another asset's now.
        |plan| plan.rules[0].sources[0].name = "scada".into(),
        // The server is known by something else.
        |plan| {
            let elsewhere = Tls {
                server_authorities: None,
                server_name: Some("broker.example".to_owned()),
                plain_port: None,
            };
            plan.rules[0].tls = Some(Arc::new(elsewhere));
        },
        |plan| plan.rules[0].tls = None,
        |plan| plan.rules.clear(),
    ];
    for change in changes {
        works.put(|_| ()).await;
        let (mut client, mut served) = works.pair().await;
        works.put(change).await;
        assert!(client.read_u8().await.is_err());
        let mut last = Vec::new();
        let _ = served.read_to_end(&mut last).await;
        assert_eq!(
            last,
            [0xe0, 0],
            "the broker hears a DISCONNECT, and no will is published"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_that_observe_pass_tls_unread_and_ending_it_begins_with_enforcement() {
    let mut works = Works::new().await;
    works
        .put(|plan| plan.interfaces[0].observing = Enforcement::Observe.into())
        .await;
    let (mut client, mut served) = works.world.pair();
    client.write_all(b"\x16\x03\x01 whatever").unwrap();
    assert_eq!(read_exactly(&mut served, 12), b"\x16\x03\x01 whatever"[..12]);
    works.world.until("TLS would end at this gateway").await;
    // Another policy that observes lets it stand, ...
    works
        .put(|plan| {
            plan.interfaces[0].observing = Enforcement::Observe.into();
            plan.rules[0].must_flow = true;
        })
        .await;
    served.write_all(b"an answer").unwrap();
    assert_eq!(read_exactly(&mut client, 9), b"an answer");
    // ... and one that enforces does not: the client comes back, and is asked who it is.
    works.put(|_| ()).await;
    assert!(is_reset(&mut client));
    works.refuses(None, "shows no certificate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_that_disagree_on_the_tls_of_one_connection_let_nobody_through() {
    let mut works = Works::new().await;
    works
        .put(|plan| {
            let mut second = plan.rules[0].clone();
            (second.id, second.tls) = (FlowId(8), None);
            plan.rules.push(second);
        })
        .await;
    let own = works.device("hmi");
    works.refuses(Some(own), "do not agree on its TLS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_behind_one_address_have_each_its_own_flows() {
    let works = Works::new().await;
    works
        .put(|plan| {
            let mut second = plan.rules[0].clone();
            second.id = FlowId(8);
            second.sources[0].name = "historian".into();
            second.operations = Some(Arc::new(Operations::from(vec![MqttOperation::Connect {
                client_ids: Some(vec!["c".to_owned()]),
                users: None,
            }])));
            plan.rules.push(second);
        })
        .await;
    let historian = works.device("historian");
    let (client, served) = tokio::join!(works.dial(Some(historian)), works.serve());
    let (mut client, mut served) = (client.unwrap(), served.unwrap());
    client.write_all(CONNECT).await.unwrap();
    assert_eq!(take(&mut served, CONNECT.len()).await, CONNECT);
    served.write_all(CONNACK).await.unwrap();
    take(&mut client, CONNACK.len()).await;
    client.write_all(ALLOWED).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(served.read(&mut [0; 8]).await.unwrap(), 0, "it may only connect");
}

#[tokio::test(flavor = "multi_thread")]
async fn before_a_planned_restart_what_is_inside_tls_ends_in_order_and_whole() {
    let works = Works::new().await;
    let (mut client, mut served) = works.pair().await;
    client.write_all(ALLOWED).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let keeping = stored(std::os::unix::net::UnixDatagram::bind(&path).unwrap());
    let manager = ServiceManager::at(path.to_str().unwrap()).unwrap();
    let leaving = async { works.world.inspector.hand_over(&manager).await.unwrap() };
    let hearing = async {
        let mut heard = Vec::new();
        served.read_to_end(&mut heard).await.unwrap();
        served.shutdown().await.unwrap();
        heard
    };
    let ending = async {
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        client.shutdown().await.unwrap();
    };
    let (count, heard, ()) = tokio::join!(leaving, hearing, ending);
    assert_eq!((count, heard.as_slice()), (0, ALLOWED));
    assert!(keeping.join().unwrap().iter().all(|kept| kept.name != "leg"));
}
