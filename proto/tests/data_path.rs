//! TLS that ends at the gateway, by real handshakes: devices towards it, and it towards brokers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use penstock_policy::ids::{AssetId, PlantId};
use penstock_policy::terms::Tls;
use penstock_proto::keys::FileKey;
use penstock_proto::peer::{Epoch, Subject};
use penstock_proto::tls::data_path::{
    BrokerProfile, Devices, PlantTrust, RoleReading, device_server, explain, peer,
};
use penstock_proto::tls::server::ServerCredentials;
use penstock_proto::tls::{Credentials, WrongPeer};
use penstock_proto::withdrawn::{Withdrawn, WithdrawnView};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const BROKER_ADDRESS: &str = "10.0.0.5";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    fn issue(&self, subject: &str, names: &[&str]) -> Credentials {
        self.issue_in(subject, names, (2020, 2099))
    }

    /// The same, which says to be of this life.
    fn issue_life(&self, subject: &str, epoch: u32) -> Credentials {
        self.issue_of(subject, &[], (2020, 2099), Some(epoch))
    }

    fn issue_in(&self, subject: &str, names: &[&str], years: (i32, i32)) -> Credentials {
        self.issue_of(subject, names, years, None)
    }

    /// What the coordinator issues: one URI, perhaps names, for both ends of a connection.
    fn issue_of(&self, subject: &str, names: &[&str], years: (i32, i32), epoch: Option<u32>) -> Credentials {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let uri = format!("spiffe://water/{subject}");
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        if let Some(epoch) = epoch {
            params.distinguished_name.push(
                rcgen::DnType::CustomDnType(vec![2, 5, 4, 5]),
                rcgen::DnValue::Utf8String(epoch.to_string()),
            );
        }
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
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

fn asset(name: &str) -> AssetId {
    AssetId::new(name).unwrap()
}

/// The gateway, for these devices.
fn gateway(ca: &Authority, devices: &[&str]) -> Arc<ServerConfig> {
    let own = ServerCredentials::new(&ca.issue("gateway/gw-1", &[BROKER_ADDRESS, "broker.example"])).unwrap();
    let devices = match devices {
        ["any"] => Devices::Any,
        listed => Devices::Listed(listed.iter().map(|name| asset(name)).collect()),
    };
    meeting(ca, own, devices, &WithdrawnView::default())
}

/// The same with these credentials, by this list of withdrawn keys.
fn meeting(
    ca: &Authority,
    own: Arc<ServerCredentials>,
    devices: Devices,
    withdrawn: &WithdrawnView,
) -> Arc<ServerConfig> {
    let (plant, roots) = (plant(), [ca.root()]);
    let trust = PlantTrust {
        plant: &plant,
        roots: &roots,
        withdrawn,
    };
    device_server(trust, own, devices, RoleReading::Ignored).unwrap()
}

/// An ordinary TLS client, such as an MQTT library: it checks the broker's name, and knows nothing of Penstock.
fn ordinary(ca: &Authority, own: Option<&Credentials>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.root()).unwrap();
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
    Arc::new(match own {
        Some(own) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.certified().unwrap())))
        }
        None => builder.with_no_client_auth(),
    })
}

/// A handshake and a byte each way: what either side makes of it. The server gives who it spoke to.
async fn meet(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> (io::Result<Option<AssetId>>, io::Result<()>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let accept = async move {
        let mut stream = tokio_rustls::TlsAcceptor::from(server).accept(far).await?;
        let peer = peer(stream.get_ref().1).and_then(|life| match life.subject {
            Subject::Device(asset) => Some(asset),
            _ => None,
        });
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        stream.write_all(&byte).await?;
        stream.shutdown().await?;
        Ok(peer)
    };
    let connect = async move {
        let mut stream = tokio_rustls::TlsConnector::from(client)
            .connect(name, near)
            .await?;
        stream.write_all(b"x").await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.map(drop)
    };
    tokio::join!(accept, connect)
}

fn broker_name() -> ServerName<'static> {
    ServerName::try_from(BROKER_ADDRESS).unwrap()
}

async fn device_meets(
    devices: &[&str],
    ca: &Authority,
    own: Option<Credentials>,
) -> Result<Option<AssetId>, String> {
    let (server, client) = meet(gateway(ca, devices), ordinary(ca, own.as_ref()), broker_name()).await;
    assert_eq!(server.is_ok(), client.is_ok(), "{server:?} {client:?}");
    server.map_err(|error| explain(&error))
}

#[tokio::test]
async fn an_ordinary_client_with_its_devices_certificate_takes_the_gateway_for_the_broker() {
    let ca = Authority::new("plant");
    let own = ca.issue("device/scada", &[]);
    let met = device_meets(&["scada", "hmi"], &ca, Some(own.clone())).await;
    assert_eq!(met.unwrap(), Some(asset("scada")));
    let by_name = ServerName::try_from("broker.example").unwrap();
    let (server, _) = meet(gateway(&ca, &["scada"]), ordinary(&ca, Some(&own)), by_name).await;
    server.unwrap();
    // And for no other server.
    let elsewhere = ServerName::try_from("10.0.0.6").unwrap();
    let (server, client) = meet(gateway(&ca, &["scada"]), ordinary(&ca, Some(&own)), elsewhere).await;
    server.unwrap_err();
    assert!(client.unwrap_err().to_string().contains("not valid for name"));
}

#[tokio::test]
async fn nobody_but_the_listed_devices_gets_a_handshake_at_the_gateway() {
    let (ca, other) = (Authority::new("plant"), Authority::new("other"));
    for (own, told) in [
        (None, "no certificates"),
        (
            Some(other.issue("device/scada", &[])),
            "issued by none of the authorities",
        ),
        (
            Some(ca.issue_in("device/scada", &[], (2020, 2021))),
            "has expired (valid until 2021-",
        ),
        (
            Some(ca.issue_in("device/scada", &[], (2098, 2099))),
            "not valid yet (from 2098-",
        ),
        (Some(ca.issue("gateway/scada", &[])), "not device/scada"),
        (Some(ca.issue("operator/scada", &[])), "not device/scada"),
        (
            Some(ca.issue("device/hmi", &[])),
            "not device/scada of plant water",
        ),
    ] {
        let refused = device_meets(&["scada"], &ca, own).await.unwrap_err();
        assert!(refused.contains(told), "{told}: {refused}");
    }
    // No device listed: nobody.
    let refused = device_meets(&[], &ca, Some(ca.issue("device/scada", &[]))).await;
    assert!(refused.unwrap_err().contains("one of the 0 devices"));
}

#[tokio::test]
async fn where_any_device_is_accepted_nobody_else_of_the_plant_is() {
    let ca = Authority::new("plant");
    let met = device_meets(&["any"], &ca, Some(ca.issue("device/scada", &[]))).await;
    assert_eq!(met.unwrap(), Some(asset("scada")));
    for subject in ["gateway/scada", "operator/scada"] {
        let refused = device_meets(&["any"], &ca, Some(ca.issue(subject, &[]))).await;
        assert!(refused.unwrap_err().contains("not a device of plant water"));
    }
}

#[tokio::test]
async fn a_renewed_certificate_of_the_gateway_serves_the_next_connection() {
    let ca = Authority::new("plant");
    let own = ServerCredentials::new(&ca.issue("gateway/gw-1", &[])).unwrap();
    let devices = Devices::Listed(BTreeSet::from([asset("scada")]));
    let server = meeting(&ca, own.clone(), devices, &WithdrawnView::default());
    let client = ordinary(&ca, Some(&ca.issue("device/scada", &[])));
    let (_, refused) = meet(server.clone(), client.clone(), broker_name()).await;
    assert!(refused.unwrap_err().to_string().contains("not valid for"));
    own.replace(&ca.issue("gateway/gw-1", &[BROKER_ADDRESS])).unwrap();
    let (met, _) = meet(server, client, broker_name()).await;
    assert_eq!(met.unwrap(), Some(asset("scada")));
}

/// A broker with this certificate, which lets in whoever the plant's authority vouches for.
fn broker(ca: &Authority, credentials: &Credentials) -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.root()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(credentials.certified().unwrap())));
    Arc::new(config)
}

/// How the gateway gets on with a broker, by what its plan says of it.
async fn gateway_meets(ca: &Authority, tls: &Tls, credentials: &Credentials) -> Result<(), io::Error> {
    gateway_meets_by(&WithdrawnView::default(), ca, tls, credentials).await
}

/// The same by this list of withdrawn keys.
async fn gateway_meets_by(
    withdrawn: &WithdrawnView,
    ca: &Authority,
    tls: &Tls,
    credentials: &Credentials,
) -> Result<(), io::Error> {
    let (plant, roots) = (plant(), [ca.root()]);
    let profile = BrokerProfile::of_plan(
        tls,
        PlantTrust {
            plant: &plant,
            roots: &roots,
            withdrawn,
        },
        (&asset("broker"), BROKER_ADDRESS.parse().unwrap()),
        ca.issue("gateway/gw-1", &[]),
    )
    .unwrap();
    let config = profile.config().unwrap();
    let (server, client) = meet(broker(ca, credentials), config, profile.server_name).await;
    assert_eq!(server.is_ok(), client.is_ok(), "{server:?} {client:?}");
    client
}

#[tokio::test]
async fn the_plants_own_broker_is_known_by_its_asset_and_nobody_else_passes_for_it() {
    let (ca, other) = (Authority::new("plant"), Authority::new("other"));
    let tls = Tls::default();
    // By the asset alone: the address need not stand in the certificate.
    gateway_meets(&ca, &tls, &ca.issue("device/broker", &[]))
        .await
        .unwrap();
    for (credentials, told) in [
        (
            other.issue("device/broker", &[BROKER_ADDRESS]),
            "issued by none of the authorities",
        ),
        (
            ca.issue_in("device/broker", &[BROKER_ADDRESS], (2020, 2021)),
            "expired",
        ),
        (ca.issue("gateway/broker", &[BROKER_ADDRESS]), "not device/broker"),
        (ca.issue("coordinator/broker", &[]), "not device/broker"),
        (
            ca.issue("device/historian", &[BROKER_ADDRESS]),
            "not device/broker",
        ),
    ] {
        let error = gateway_meets(&ca, &tls, &credentials).await.unwrap_err();
        assert!(explain(&error).contains(told), "{told}: {error}");
    }
}

#[tokio::test]
async fn a_broker_of_other_authorities_is_known_by_its_name_there() {
    use base64::Engine as _;
    let (ca, vendor) = (Authority::new("plant"), Authority::new("other"));
    let pem = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        base64::engine::general_purpose::STANDARD.encode(vendor.root())
    );
    let tls = |server_name: Option<&str>| Tls {
        server_authorities: Some(pem.clone()),
        server_name: server_name.map(str::to_owned),
        plain_port: None,
    };
    let cloud = vendor.issue("device/x", &["broker.vendor.example"]);
    gateway_meets(&ca, &tls(Some("broker.vendor.example")), &cloud)
        .await
        .unwrap();
    gateway_meets(&ca, &tls(None), &vendor.issue("device/x", &[BROKER_ADDRESS]))
        .await
        .unwrap();
    let told = |result: io::Result<()>| result.unwrap_err().to_string();
    assert!(told(gateway_meets(&ca, &tls(None), &cloud).await).contains("not valid for name"));
    // The plant's own authority has no say here, even for the right name.
    let own = ca.issue("device/broker", &["broker.vendor.example"]);
    let refused = gateway_meets(&ca, &tls(Some("broker.vendor.example")), &own).await;
    assert!(told(refused).contains("UnknownIssuer"));
    let expired = vendor.issue_in("device/x", &["broker.vendor.example"], (2020, 2021));
    let refused = gateway_meets(&ca, &tls(Some("broker.vendor.example")), &expired).await;
    assert!(told(refused).contains("expired"));
}

#[tokio::test]
async fn the_reason_of_our_own_stands_in_the_error_for_programs_too() {
    let ca = Authority::new("plant");
    let error = gateway_meets(&ca, &Tls::default(), &ca.issue("device/historian", &[]))
        .await
        .unwrap_err();
    let inner = error.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap();
    let rustls::Error::InvalidCertificate(CertificateError::Other(reason)) = inner else {
        panic!("{inner:?}");
    };
    let wrong = reason.0.downcast_ref::<WrongPeer>().unwrap();
    assert_eq!(
        wrong.to_string(),
        "the peer is spiffe://water/device/historian, not device/broker of plant water"
    );
}

/// A list by which the subject counts from this life on, and where a longer one is brought.
fn withdrawing(subject: &str, from: u32) -> (tokio::sync::watch::Sender<Arc<Withdrawn>>, WithdrawnView) {
    let mut withdrawn = Withdrawn::default();
    withdrawn.withdraw(&subject.parse().unwrap(), Epoch(from));
    let (sender, list) = tokio::sync::watch::channel(Arc::new(withdrawn));
    (sender, WithdrawnView::from(list))
}

#[tokio::test]
async fn a_device_whose_life_is_over_gets_no_handshake_and_a_longer_list_counts_from_the_next_one_on() {
    let ca = Authority::new("plant");
    let own = ServerCredentials::new(&ca.issue("gateway/gw-1", &[BROKER_ADDRESS])).unwrap();
    let (sender, withdrawn) = withdrawing("device/scada", 2);
    for devices in [
        Devices::Any,
        Devices::Listed(BTreeSet::from([asset("scada"), asset("hmi")])),
    ] {
        let server = meeting(&ca, own.clone(), devices, &withdrawn);
        let shows = async |credentials: &Credentials| {
            let (server, client) =
                meet(server.clone(), ordinary(&ca, Some(credentials)), broker_name()).await;
            assert_eq!(server.is_ok(), client.is_ok(), "{server:?} {client:?}");
            server.map_err(|error| explain(&error))
        };
        // A certificate from before lives were numbered is of the first of all.
        for over in [ca.issue("device/scada", &[]), ca.issue_life("device/scada", 1)] {
            let refused = shows(&over).await.unwrap_err();
            assert!(
                refused.contains("the certificate of spiffe://water/device/scada was withdrawn"),
                "{refused}"
            );
        }
        let (current, other) = (ca.issue_life("device/scada", 2), ca.issue("device/hmi", &[]));
        for good in [&current, &other] {
            shows(good).await.unwrap();
        }
        // The same configuration, by a longer list.
        let before = withdrawn.now();
        sender.send_modify(|list| {
            Arc::make_mut(list).withdraw(&"device/scada".parse().unwrap(), Epoch(3));
        });
        let refused = shows(&current).await.unwrap_err();
        assert!(
            refused.contains("it belongs to life 2 of that name, and only life 3 and later ones count"),
            "{refused}"
        );
        shows(&other).await.unwrap();
        sender.send_replace(before);
    }
    // What it does not name is no way in: whom the plan does not list stays outside.
    let listed = Devices::Listed(BTreeSet::from([asset("hmi")]));
    let server = meeting(&ca, own, listed, &withdrawn);
    let client = ordinary(&ca, Some(&ca.issue_life("device/scada", 9)));
    let (server, _) = meet(server, client, broker_name()).await;
    assert!(explain(&server.unwrap_err()).contains("not device/hmi"));
}

#[tokio::test]
async fn a_broker_whose_life_is_over_is_not_met_and_a_name_of_other_authorities_is_none_of_the_lists_business()
 {
    let ca = Authority::new("plant");
    let (_sender, withdrawn) = withdrawing("device/broker", 2);
    let tls = Tls::default();
    let over = ca.issue_life("device/broker", 1);
    let error = gateway_meets_by(&withdrawn, &ca, &tls, &over).await.unwrap_err();
    assert!(explain(&error).contains("was withdrawn"), "{error}");
    let current = ca.issue_life("device/broker", 2);
    gateway_meets_by(&withdrawn, &ca, &tls, &current).await.unwrap();
    let pem = penstock_proto::tls::certificates_to_pem(&[ca.root()]);
    let foreign = Tls {
        server_authorities: Some(pem),
        server_name: None,
        plain_port: None,
    };
    let by_address = ca.issue("device/broker", &[BROKER_ADDRESS]);
    gateway_meets_by(&withdrawn, &ca, &foreign, &by_address)
        .await
        .unwrap();
}
