//! Certificates for devices, and the names by which gateways serve.

mod role;

use std::net::IpAddr;
use std::path::Path;

use penstock_coordinator::ca::REQUEST_BYTES_MAX;
use penstock_proto::peer::PeerIdentity;
use penstock_proto::refusal::Reason;
use penstock_proto::tls::names::ServerNames;
use penstock_proto::tls::server::ServerCredentials;
use penstock_proto::tls::{Credentials, validity_ms};
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use tonic::Status;

use crate::world::{Control, World, built, confirmation, document, now_ms, people, refused, release};

/// Asks for a certificate, which a second person confirms where one has to, and gives its leaf.
pub async fn issue(
    world: &World,
    control: &mut Control,
    asset: &str,
    request: &[u8],
) -> Result<CertificateDer<'static>, Status> {
    issue_in_role(world, control, (asset, None), request).await
}

/// The same in a role: absent is as it is, empty is none.
async fn issue_in_role(
    world: &World,
    control: &mut Control,
    (asset, role): (&str, Option<&str>),
    request: &[u8],
) -> Result<CertificateDer<'static>, Status> {
    let request = v1::IssueDeviceRequest {
        asset: asset.to_owned(),
        certificate_request: request.to_vec().into(),
        device_role: role.map(str::to_owned),
    };
    let mut answer = control.issue_device(request.clone()).await?.into_inner();
    if let Some(waits) = answer.waits.take() {
        world.confirm(&waits).await;
        answer = control.issue_device(request).await?.into_inner();
    }
    assert_eq!(
        answer.certificate_chain[1], answer.trust_bundle[0],
        "leaf, then root"
    );
    Ok(answer.certificate_chain[0].to_vec().into())
}

fn request() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    request.der().to_vec()
}

/// A plant whose current release names `hmi` and `plc`.
async fn released() -> World {
    let world = World::start().await;
    let mut people = people(&world).await;
    release(&mut people, &built(&document(2, 99), 1, None, "anna")).await;
    world
}

#[tokio::test]
async fn a_device_is_called_what_the_approved_document_says_whatever_it_wishes() {
    let world = released().await;
    let key = KeyPair::generate().unwrap();
    let mut wishes =
        CertificateParams::new(vec!["broker.example".to_owned(), "10.9.9.9".to_owned()]).unwrap();
    wishes.subject_alt_names.push(SanType::URI(
        "spiffe://riverside/operator/admin".try_into().unwrap(),
    ));
    wishes.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let wishes = wishes.serialize_request(&key).unwrap();
    let leaf = issue(&world, &mut world.admin(), "plc", wishes.der())
        .await
        .unwrap();

    let identity = PeerIdentity::from_certificate(&leaf).unwrap();
    assert_eq!(identity.to_string(), "spiffe://riverside/device/plc");
    let names = ServerNames::of_certificate(&leaf).unwrap();
    let addresses: Vec<IpAddr> = names.addresses().collect();
    assert_eq!(addresses, ["10.20.4.7".parse::<IpAddr>().unwrap()]);
    assert_eq!(names.len(), 1, "{names}");
    let days = (validity_ms(&leaf).unwrap().1 - now_ms()) / 86_400_000;
    assert_eq!(days, 364, "a year, less the moments since");

    // Who did it, for which device, stands in the trail.
    let trail = world.trail("coordinator/c1").await;
    let written = trail.iter().any(|record| {
        matches!(&record.event.as_ref().unwrap().kind, Some(Kind::Operator(event))
            if event.operator == "admin" && event.action == "issue-device" && event.allowed
                && event.target.starts_with("device/plc [10.20.4.7] with key sha256:"))
    });
    assert!(written, "{trail:?}");
}

/// The plant with TLS of MQTT that ends at gateway gw-a, for brokers at these addresses.
fn ending_tls(brokers: impl Iterator<Item = String>) -> String {
    let mut assets = String::new();
    let mut names = Vec::new();
    for (n, address) in brokers.enumerate() {
        assets += &format!("  broker-{n}: {{ zone: control, address: {address} }}\n");
        names.push(format!("broker-{n}"));
    }
    let flow = format!(
        "  telemetry:
    title: Telemetry
    from: operations
    to: control
    flows:
      publish:
        source: hmi
        destination: [{}]
        service: mqtts
        tls: {{ server_name: Broker.works.example }}
        allow: [{{ publish: {{ topics: \"line4/#\" }} }}]
",
        names.join(", ")
    );
    document(2, 99).replace("assets:\n", &format!("assets:\n{assets}")) + &flow
}

/// What a gateway's certificate is good for once it is renewed, though it asks for more.
async fn renewed(world: &World, gateway: &str) -> String {
    use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
    let own = world.certificate(&format!("gateway/{gateway}"));
    let channel = world.channel(world.roots(), Some(own)).await.unwrap();
    let wishes = vec!["10.9.9.9".to_owned(), "coordinator.example".to_owned()];
    let wishes = CertificateParams::new(wishes)
        .unwrap()
        .serialize_request(&world.key(&format!("gateway/{gateway}")))
        .unwrap();
    let answer = GatewayLinkClient::new(channel)
        .renew(v1::RenewRequest {
            certificate_request: wishes.der().to_vec().into(),
            ..v1::RenewRequest::default()
        })
        .await
        .unwrap()
        .into_inner();
    let leaf = CertificateDer::from(answer.certificate_chain[0].to_vec());
    let identity = PeerIdentity::from_certificate(&leaf).unwrap();
    assert_eq!(identity.subject.to_string(), format!("gateway/{gateway}"));
    ServerNames::of_certificate(&leaf).unwrap().to_string()
}

#[tokio::test]
async fn a_gateway_serves_by_the_names_of_the_approved_release_and_by_no_others() {
    let world = World::start().await;
    assert_eq!(renewed(&world, "gw-a").await, "", "no release yet");
    let mut people = people(&world).await;
    let first = built(&ending_tls(["10.20.4.5".to_owned()].into_iter()), 1, None, "anna");
    people
        .engineer
        .propose_release(first.request.clone())
        .await
        .unwrap();
    assert_eq!(renewed(&world, "gw-a").await, "", "proposed is not approved");
    release(&mut people, &first).await;
    assert_eq!(renewed(&world, "gw-a").await, "10.20.4.5, broker.works.example");
    assert_eq!(renewed(&world, "gw-b").await, "", "no TLS ends there");
    let trail = world.trail("coordinator/c1").await;
    let written = trail.iter().any(|record| {
        matches!(&record.event.as_ref().unwrap().kind, Some(Kind::Identity(event))
            if event.subject == "gateway/gw-a" && event.step == "renewed"
                && event.message.starts_with("10.20.4.5, broker.works.example; key sha256:"))
    });
    assert!(written, "{trail:?}");
    // The broker itself serves by the same names.
    let leaf = issue(&world, &mut world.admin(), "broker-0", &request())
        .await
        .unwrap();
    let names = ServerNames::of_certificate(&leaf).unwrap().to_string();
    assert_eq!(names, "10.20.4.5, broker.works.example");

    // 63 addresses and the name are the most that a certificate carries.
    let hosts = |count: u8| (1..=count).map(|n| format!("10.20.4.{}", n + 20));
    let much = built(&ending_tls(hosts(64)), 2, Some(first.digest()), "anna");
    let outcome = people.engineer.propose_release(much.request).await;
    let told = refused(outcome, Reason::DocumentErrors);
    assert!(told.contains("gateway gw-a for 65 addresses and names"), "{told}");
    let most = built(&ending_tls(hosts(63)), 2, Some(first.digest()), "anna");
    release(&mut people, &most).await;
    assert!(
        renewed(&world, "gw-a")
            .await
            .contains("10.20.4.83, broker.works.example")
    );
}

#[tokio::test]
async fn a_device_that_nobody_approved_gets_no_certificate() {
    let world = World::start().await;
    let told = refused(
        issue(&world, &mut world.admin(), "plc", &request()).await,
        Reason::NotFound,
    );
    assert!(told.contains("no release has been approved yet"), "{told}");

    let mut people = people(&world).await;
    let first = built(&document(2, 99), 1, None, "anna");
    release(&mut people, &first).await;
    let told = refused(
        issue(&world, &mut world.admin(), "printer", &request()).await,
        Reason::NotFound,
    );
    assert!(told.contains("there is no asset printer in r1"), "{told}");
    // Neither a gateway nor a person is an asset.
    for name in ["gw-a", "admin"] {
        refused(
            issue(&world, &mut world.admin(), name, &request()).await,
            Reason::NotFound,
        );
    }

    // Proposed is not approved; approved is.
    let assets = "assets:\n  printer: { zone: operations, address: 10.20.1.30 }\n";
    let text = document(2, 99).replace("assets:\n", assets);
    let second = built(&text, 2, Some(first.digest()), "anna");
    people
        .engineer
        .propose_release(second.request.clone())
        .await
        .unwrap();
    refused(
        issue(&world, &mut world.admin(), "printer", &request()).await,
        Reason::NotFound,
    );
    release(&mut people, &second).await;
    let leaf = issue(&world, &mut world.admin(), "printer", &request())
        .await
        .unwrap();
    assert_eq!(
        ServerNames::of_certificate(&leaf).unwrap().to_string(),
        "10.20.1.30"
    );
}

/// `penstock` as the administrator, whose login is in `folder`: what it printed, or its complaint.
async fn penstock(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    // `make test` builds all programs, into the folder above the tests'.
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("penstock");
    assert!(program.is_file(), "cargo build --workspace --bins");
    let output = tokio::process::Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("XDG_CONFIG_HOME", folder)
        .output()
        .await
        .unwrap();
    let said = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() {
        Ok(said(output.stdout))
    } else {
        Err(said(output.stderr))
    }
}

/// The same where a second person confirms it: the command says so, and gets it when it is typed again.
async fn penstock_twice(world: &World, folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let waits = penstock(folder, arguments).await;
    assert_eq!(waits, Err(String::new()), "it waits, which is no fault");
    let mut control = world
        .control(Some(world.certificate("operator/bob")))
        .await
        .unwrap();
    let requests = control.list_requests(v1::ListRequestsRequest {}).await.unwrap();
    for request in requests.into_inner().requests {
        control.decide_request(confirmation(&request.id)).await.unwrap();
    }
    penstock(folder, arguments).await
}

/// A folder in which somebody is logged in.
async fn logged_in(world: &World, name: &str, role: v1::Role) -> tempfile::TempDir {
    use penstock_proto::token::{Secret, Token};
    let folder = tempfile::tempdir().unwrap();
    let subject = v1::create_token_request::Subject::Operator(name.to_owned());
    let secret = world.token(subject, role).await;
    let token = Token {
        plant: world.config.plant.clone(),
        subject: format!("operator/{name}").parse().unwrap(),
        coordinators: vec![world.address.clone()],
        secret: Secret::try_from(secret.as_slice()).unwrap(),
        root_digest: world.authority.root_digest(),
        approvers: None,
        expires_ms: now_ms() + 60_000,
    };
    std::fs::write(folder.path().join("token"), token.to_string()).unwrap();
    penstock(folder.path(), &["login", "--token", "token"])
        .await
        .unwrap();
    folder
}

#[tokio::test]
async fn an_administrator_gets_certificates_as_files_that_other_programs_can_use() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = released().await;
    let folder = logged_in(&world, "ada", v1::Role::Admin).await;
    let file = |name: &str| folder.path().join(name);

    // A key that is made here stays here, for its owner alone, and fits the certificate.
    let issue = [
        "devices",
        "issue",
        "plc",
        "--new-key",
        "plc.key",
        "--out",
        "plc.pem",
    ];
    penstock_twice(&world, folder.path(), &issue).await.unwrap();
    assert!(!file("plc.key.waiting").exists());
    let mode = std::fs::metadata(file("plc.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let made = Credentials::from_files(&file("plc.pem"), &file("plc.key")).unwrap();
    ServerCredentials::new(&made).unwrap();
    assert_eq!(
        made.identity().unwrap().to_string(),
        "spiffe://riverside/device/plc"
    );
    let ca = penstock(folder.path(), &["devices", "authority"]).await.unwrap();
    let ca = penstock_proto::tls::certificates_from_pem(ca.as_bytes(), "ca").unwrap();
    assert_eq!(ca, world.authority.roots());

    // Neither file is written over.
    let told = penstock(folder.path(), &issue).await.unwrap_err();
    assert!(told.contains("plc.key exists already"), "{told}");
    let again = [
        "devices",
        "issue",
        "plc",
        "--new-key",
        "other.key",
        "--out",
        "plc.pem",
    ];
    let told = penstock(folder.path(), &again).await.unwrap_err();
    assert!(
        told.contains("plc.pem exists already") && !file("other.key").exists(),
        "{told}"
    );

    // A request from elsewhere, PEM by either of its labels, or DER.
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let pem = request.pem().unwrap();
    std::fs::write(file("0.csr"), request.der()).unwrap();
    std::fs::write(file("1.csr"), &pem).unwrap();
    std::fs::write(
        file("2.csr"),
        pem.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
    )
    .unwrap();
    for n in 0..3 {
        let (from, to) = (format!("{n}.csr"), format!("{n}.pem"));
        let issue = [
            "devices",
            "issue",
            "hmi",
            "--request",
            &from,
            "--out",
            &to,
            "--output",
            "json",
        ];
        // For the key that counts nobody has to confirm it again.
        let said = match n {
            0 => penstock_twice(&world, folder.path(), &issue).await.unwrap(),
            _ => penstock(folder.path(), &issue).await.unwrap(),
        };
        assert!(
            said.contains("spiffe://riverside/device/hmi") && said.contains("10.20.1.21"),
            "{said}"
        );
        let chain = std::fs::read(file(&to)).unwrap();
        let made = Credentials::from_pem(&chain, key.serialize_pem().as_bytes()).unwrap();
        ServerCredentials::new(&made).unwrap();
        assert_eq!(made.chain().len(), 1, "the authority is given apart");
    }

    // The digest that the second person compares is what OpenSSL makes of the request, by the runbook's command.
    let runbook = include_str!("../../../deploy/runbook.md");
    let (_, after) = runbook.split_once("`openssl req -in scada.csr").unwrap();
    let command = format!("openssl req -in 1.csr{}", after.split('`').next().unwrap());
    let digest = tokio::process::Command::new("sh")
        .args(["-c", &command])
        .current_dir(folder.path())
        .output()
        .await
        .unwrap();
    let digest = String::from_utf8(digest.stdout).unwrap();
    let key = format!("device/hmi with key sha256:{}", digest.split(' ').next().unwrap());
    let trail = world.trail("coordinator/c1").await;
    assert!(trail.iter().any(|record| {
        matches!(&record.event.as_ref().unwrap().kind, Some(Kind::Operator(event))
            if event.action == "request" && event.target == key)
    }));

    // What is refused leaves no file behind.
    std::fs::write(file("bad.csr"), "no request").unwrap();
    for (issue, expected) in [
        (["plc", "--request", "bad.csr"], "holds no certificate request"),
        (
            ["printer", "--new-key", "p.key"],
            "there is no asset printer in r1",
        ),
    ] {
        let issue = [&["devices", "issue"][..], &issue, &["--out", "p.pem"]].concat();
        let told = penstock(folder.path(), &issue).await.unwrap_err();
        assert!(told.contains(expected), "{told}");
    }
    let viewer = logged_in(&world, "vic", v1::Role::Viewer).await;
    let told = penstock(viewer.path(), &issue).await.unwrap_err();
    assert!(told.contains("needs the role admin"), "{told}");
    assert!(!file("p.key").exists() && !file("p.pem").exists() && !viewer.path().join("plc.key").exists());
}

#[tokio::test]
async fn only_an_admin_issues_and_refusals_stand_in_the_trail() {
    let world = released().await;
    for (name, role) in [("vic", v1::Role::Viewer), ("erik", v1::Role::Engineer)] {
        let mut control = world.operator(name, role).await;
        refused(
            issue(&world, &mut control, "plc", &request()).await,
            Reason::WrongRole,
        );
        let trail = world.trail("coordinator/c1").await;
        assert!(trail.iter().any(|record| {
            matches!(&record.event.as_ref().unwrap().kind, Some(Kind::Operator(event))
                if event.operator == name && event.action == "issue-device" && !event.allowed)
        }));
    }
    // A device's certificate opens nothing here, not even its own renewal.
    let device = world.certificate("device/plc");
    let mut control = world.control(Some(device.clone())).await.unwrap();
    refused(
        issue(&world, &mut control, "plc", &request()).await,
        Reason::WrongKindOfPeer,
    );
    use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
    let channel = world.channel(world.roots(), Some(device)).await.unwrap();
    let renewal = GatewayLinkClient::new(channel)
        .renew(v1::RenewRequest {
            certificate_request: request().into(),
            ..v1::RenewRequest::default()
        })
        .await;
    refused(renewal, Reason::WrongKindOfPeer);
}

#[tokio::test]
async fn requests_that_are_garbage_not_signed_by_their_key_or_weak_are_refused_by_name() {
    let world = released().await;
    let good = request();
    let mut altered = good.clone();
    *altered.last_mut().unwrap() ^= 1;
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let rsa = CertificateParams::default().serialize_request(&rsa).unwrap();
    let certificate = world.certificate("device/plc").chain()[0].to_vec();
    for bad in [
        Vec::new(),
        vec![0x30; 100],
        vec![0xff; REQUEST_BYTES_MAX + 1],
        good[..good.len() / 2].to_vec(),
        altered,
        certificate,
        rsa.der().to_vec(),
    ] {
        let outcome = issue(&world, &mut world.admin(), "plc", &bad).await;
        refused(outcome, Reason::BadCertificateRequest);
    }
    for name in ["", "PLC", "../plc", "plc\n", "device/plc", &"x".repeat(4096)] {
        refused(
            issue(&world, &mut world.admin(), name, &good).await,
            Reason::BadRequest,
        );
    }
    issue(&world, &mut world.admin(), "plc", &good).await.unwrap();
}
