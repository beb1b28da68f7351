//! The authority: who is named in what it issues, which requests it takes, and how it is kept.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use penstock_proto::peer::{Certified, Epoch, PeerIdentity, Subject};
use penstock_proto::tls::names::ServerNames;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;

fn authority(dir: &Path) -> Authority {
    let day = Duration::from_secs(86_400);
    let lifetimes = Lifetimes {
        gateway: 90 * day,
        operator: 30 * day,
        coordinator: 60 * day,
        device: 365 * day,
    };
    Authority::create(dir, PlantId::new("water").unwrap(), lifetimes, NOW_MS).unwrap()
}

#[test]
fn the_name_comes_from_the_decision_and_never_from_the_request() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let key = KeyPair::generate().unwrap();
    let mut wishes = CertificateParams::new(vec!["coordinator.example".to_owned()]).unwrap();
    wishes
        .subject_alt_names
        .push(SanType::URI("spiffe://water/operator/root".try_into().unwrap()));
    wishes.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let request = wishes.serialize_request(&key).unwrap();
    let proven = ProvenKey::of_request(request.der()).unwrap();
    let subject: Subject = "gateway/gw-1".parse().unwrap();
    let issued = ca
        .issue((&subject, Epoch(7)), &ServerNames::default(), &proven, NOW_MS)
        .unwrap();
    let certified = Certified::from_certificate(&issued.chain[0]).unwrap();
    assert_eq!((certified.identity.subject, certified.epoch), (subject, Epoch(7)));
    assert_eq!(certified.key, proven.digest());
    let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
    assert!(!leaf.is_ca());
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    assert_eq!(
        leaf.subject_alternative_name()
            .unwrap()
            .unwrap()
            .value
            .general_names
            .len(),
        1
    );
    assert_eq!(
        (issued.expires_ms - NOW_MS) / 86_400_000,
        90,
        "the gateway's lifetime"
    );
}

#[test]
fn gateways_and_devices_serve_by_the_names_that_were_decided_and_people_by_none() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let proven = ProvenKey::of_request(request.der()).unwrap();
    let mut names = ServerNames::default();
    for name in ["10.0.0.5", "fd00::5", "broker.plant.example"] {
        names.add(name).unwrap();
    }
    for (subject, expected, days) in [
        ("gateway/gw-1", &names, 90),
        ("device/broker", &names, 365),
        ("operator/eve", &ServerNames::default(), 30),
    ] {
        let subject: Subject = subject.parse().unwrap();
        let issued = ca.issue((&subject, Epoch(1)), &names, &proven, NOW_MS).unwrap();
        let leaf = &issued.chain[0];
        assert_eq!(PeerIdentity::from_certificate(leaf).unwrap().subject, subject);
        assert_eq!(ServerNames::of_certificate(leaf).unwrap(), *expected);
        assert_eq!((issued.expires_ms - NOW_MS) / 86_400_000, days);
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).unwrap();
        let alternative = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(alternative.value.general_names.len(), 1 + expected.len());
        assert!(parsed.extended_key_usage().unwrap().unwrap().value.client_auth);
    }
}

#[test]
fn a_device_s_certificate_gives_it_the_role_that_was_decided_and_nobody_else_s_gives_one() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let proven = ProvenKey::of_request(request.der()).unwrap();
    let operator = penstock_policy::ids::RoleName::new("operator").unwrap();
    for (subject, expected) in [
        ("device/hmi", Some(&operator)),
        ("gateway/gw-1", None),
        ("operator/eve", None),
    ] {
        let subject: Subject = subject.parse().unwrap();
        let life = (&subject, Epoch(1));
        let names = ServerNames::default();
        let issued = ca
            .issue_in_role(life, Some(&operator), &names, &proven, NOW_MS)
            .unwrap();
        let read = penstock_proto::role::role_of(&issued.chain[0]).unwrap();
        assert_eq!(read.as_ref(), expected, "{subject}");
    }
}

#[test]
fn a_coordinator_is_named_by_what_its_configuration_says_beside_its_uri() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let mut names = ServerNames::default();
    names.add("coordinator.example").unwrap();
    names.add("10.0.0.5").unwrap();
    let credentials = ca
        .issue_own(
            (&"coordinator/c1".parse().unwrap(), Epoch(1)),
            &names,
            FileKey::generate(KeyKind::EcdsaP256).unwrap().into(),
            NOW_MS,
        )
        .unwrap();
    assert_eq!(
        credentials.identity().unwrap().subject.to_string(),
        "coordinator/c1"
    );
    assert_eq!(
        ServerNames::of_certificate(&credentials.chain()[0]).unwrap(),
        names
    );
}

#[test]
fn requests_that_are_garbage_altered_too_long_or_have_a_weak_key_are_refused() {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let good = request.der().to_vec();
    assert!(ProvenKey::of_request(&good).is_ok());
    let proven = ProvenKey::of_request(&good).unwrap().digest();
    for n in 0..good.len() {
        let mut altered = good.clone();
        altered[n] ^= 0x55;
        // What is not signed may be altered; another key than the one that signed is never proven.
        assert!(
            ProvenKey::of_request(&altered).is_ok_and(|other| other.digest() == proven)
                || ProvenKey::of_request(&altered).is_err()
        );
    }
    assert!(ProvenKey::of_request(&good[..good.len() - 1]).is_err());
    assert!(ProvenKey::of_request(&vec![0x30; REQUEST_BYTES_MAX + 1]).is_err());
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let request = CertificateParams::default().serialize_request(&rsa).unwrap();
    assert!(matches!(
        ProvenKey::of_request(request.der()),
        Err(CaError::KeyKind(_))
    ));
}

/// By OpenSSL: a P-384 key that signs with SHA-256, and an extension (subject key identifier) that nobody here uses.
const BY_OPENSSL: &[u8] = b"\
-----BEGIN CERTIFICATE REQUEST-----
MIIBaTCB8AIBADAQMQ4wDAYDVQQDDAVwbGMtNzB2MBAGByqGSM49AgEGBSuBBAAi
A2IABAa0yLp9hDmwgPZKbDB4FaAQML9CYto7vdN8f2DoPP2xUrOeSIcDVcumDwZ7
LJuPDDuyAip9MF7LzLJTHlmu+7RiXKz2/Rqmc0iDzAwC28m2maRWzRH2duSQ8sHq
kmrFG6BhMF8GCSqGSIb3DQEJDjFSMFAwHQYDVR0OBBYEFJXLWbn3G82sRBXegZxo
Mk8tO3ZkMAkGA1UdEwQCMAAwCwYDVR0PBAQDAgeAMBcGA1UdEQQQMA6CDHdpc2gu
ZXhhbXBsZTAKBggqhkjOPQQDAgNoADBlAjEAkAoXknacYACQf9Vr3wpeqWhlGMtx
yADGB3TjuHovMdbwEdy5tKrX6cefOGHCHHxmAjBmHdeVehP4Eh6IWemdsnyKI0hG
RLLu2X/viR+vI84bltA4puuAu3tHadfsGfSfz5o=
-----END CERTIFICATE REQUEST-----
";

#[test]
fn requests_of_other_programs_are_read_and_the_certificate_has_the_very_key_in_them() {
    use rustls::pki_types::CertificateSigningRequestDer;
    use rustls::pki_types::pem::PemObject as _;
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let mut requests = vec![
        CertificateSigningRequestDer::from_pem_slice(BY_OPENSSL)
            .unwrap()
            .to_vec(),
    ];
    for kind in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(kind).unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        requests.push(request.der().to_vec());
    }
    for request in requests {
        let proven = ProvenKey::of_request(&request).unwrap();
        let issued = ca
            .issue(
                (&"device/plc".parse().unwrap(), Epoch(1)),
                &ServerNames::default(),
                &proven,
                NOW_MS,
            )
            .unwrap();
        assert_eq!(
            penstock_proto::peer::certified_key(&issued.chain[0]),
            penstock_proto::peer::requested_key(&request)
        );
        let names = ServerNames::of_certificate(&issued.chain[0]).unwrap();
        assert!(names.is_empty(), "{names}");
    }
}

#[test]
fn an_authority_is_made_once_its_key_is_private_and_it_opens_again() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let mode = std::fs::metadata(dir.path().join("root.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = Authority::load(dir.path(), ca.plant.clone(), ca.lifetimes).unwrap();
    assert_eq!(again.root_digest(), ca.root_digest());
    assert!(matches!(
        Authority::create(dir.path(), ca.plant.clone(), ca.lifetimes, NOW_MS),
        Err(CaError::Exists(_))
    ));
    std::fs::set_permissions(
        dir.path().join("root.key"),
        std::fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    assert!(Authority::load(dir.path(), ca.plant.clone(), ca.lifetimes).is_err());
}
