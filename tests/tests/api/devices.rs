//! Certificates for devices, and the names by which gateways serve.

use std::net::IpAddr;

use penstock_coordinator::ca::REQUEST_BYTES_MAX;
use penstock_proto::peer::PeerIdentity;
use penstock_proto::refusal::Reason;
use penstock_proto::tls::names::ServerNames;
use penstock_proto::tls::validity_ms;
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use tonic::Status;

use crate::world::{Control, World, built, document, now_ms, people, refused, release};

/// Asks for a certificate, and gives its leaf.
async fn issue(
    control: &mut Control,
    asset: &str,
    request: &[u8],
) -> Result<CertificateDer<'static>, Status> {
    let request = v1::IssueDeviceRequest {
        asset: asset.to_owned(),
        certificate_request: request.to_vec().into(),
    };
    let answer = control.issue_device(request).await?.into_inner();
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
    let leaf = issue(&mut world.admin(), "plc", wishes.der()).await.unwrap();

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

#[tokio::test]
async fn a_device_that_nobody_approved_gets_no_certificate() {
    let world = World::start().await;
    let told = refused(
        issue(&mut world.admin(), "plc", &request()).await,
        Reason::NotFound,
    );
    assert!(told.contains("no release has been approved yet"), "{told}");

    let mut people = people(&world).await;
    let first = built(&document(2, 99), 1, None, "anna");
    release(&mut people, &first).await;
    let told = refused(
        issue(&mut world.admin(), "printer", &request()).await,
        Reason::NotFound,
    );
    assert!(told.contains("there is no asset printer in r1"), "{told}");
    // Neither a gateway nor a person is an asset.
    for name in ["gw-a", "admin"] {
        refused(
            issue(&mut world.admin(), name, &request()).await,
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
        issue(&mut world.admin(), "printer", &request()).await,
        Reason::NotFound,
    );
    release(&mut people, &second).await;
    let leaf = issue(&mut world.admin(), "printer", &request()).await.unwrap();
    assert_eq!(
        ServerNames::of_certificate(&leaf).unwrap().to_string(),
        "10.20.1.30"
    );
}

#[tokio::test]
async fn only_an_admin_issues_and_refusals_stand_in_the_trail() {
    let world = released().await;
    for (name, role) in [("vic", v1::Role::Viewer), ("erik", v1::Role::Engineer)] {
        let mut control = world.operator(name, role).await;
        refused(issue(&mut control, "plc", &request()).await, Reason::WrongRole);
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
        issue(&mut control, "plc", &request()).await,
        Reason::WrongKindOfPeer,
    );
    use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
    let channel = world.channel(world.roots(), Some(device)).await.unwrap();
    let renewal = GatewayLinkClient::new(channel)
        .renew(v1::RenewRequest {
            certificate_request: request().into(),
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
        let outcome = issue(&mut world.admin(), "plc", &bad).await;
        refused(outcome, Reason::BadCertificateRequest);
    }
    for name in ["", "PLC", "../plc", "plc\n", "device/plc", &"x".repeat(4096)] {
        refused(issue(&mut world.admin(), name, &good).await, Reason::BadRequest);
    }
    issue(&mut world.admin(), "plc", &good).await.unwrap();
}
