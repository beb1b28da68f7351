//! The plant's certificate authority: one root, and leaves that name who holds them (DESIGN §6;
//! IEC 62443-3-3 SR 1.8).
//!
//! A certificate's name comes from whoever *decided* it (the token's record, the verified peer), never from what
//! a certificate request wishes. Of a request only the public key is used, and only after its signature proved
//! possession of the private one. Keys: ECDSA P-256 or P-384, or Ed25519.
//!
//! The one URI says who somebody is. Addresses and DNS names beside it ([`ServerNames`], from the approved release, the
//! coordinator's own from its configuration) are what ordinary TLS clients look for where a gateway ends their TLS, at a device
//! that serves, or at the coordinator; no program of Penstock takes a peer for anything because of them.
//!
//! The root's key is a file with mode 0600 in the data directory; keeping it elsewhere is one more holder (`penstock_proto::keys`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use penstock_policy::ids::{Digest, PlantId};
use penstock_proto::keys::{FileKey, Key, KeyError, KeyKind};
use penstock_proto::peer::{PeerIdentity, Subject};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::tls::{Credentials, TlsError, certificates_from_pem, validity_ms};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use crate::files;

/// How long the root is valid: as long as the plant may stand.
const ROOT_VALIDITY: Duration = Duration::from_secs(30 * 365 * 86_400);
/// Clocks of gateways may be behind; certificates are valid from a little earlier.
const BACKDATED: Duration = Duration::from_secs(3600);
/// Longest certificate request that is read, bytes.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// How long certificates are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of gateways.
    pub gateway: Duration,
    /// Of operators.
    pub operator: Duration,
    /// Of coordinators.
    pub coordinator: Duration,
    /// Of devices.
    pub device: Duration,
}

/// The authority.
pub struct Authority {
    plant: PlantId,
    root: CertificateDer<'static>,
    issuer: Issuer<'static, Key>,
    lifetimes: Lifetimes,
}

/// A certificate as it was issued.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    /// Leaf first, then the root, DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it expires, milliseconds since 1970.
    pub expires_ms: u64,
}

/// A public key with the proof that whoever asks holds the private one.
#[derive(Debug, Clone)]
pub struct ProvenKey {
    key: SubjectPublicKeyInfo,
    digest: Digest,
}

impl ProvenKey {
    /// SHA-256 of the public key (subjectPublicKeyInfo).
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// Why the authority cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file of the authority.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// There is one already.
    #[error("{0} exists already; a plant has one authority, and a second one would lock all gateways out")]
    Exists(PathBuf),
    /// A key cannot be had or used.
    #[error(transparent)]
    Key(KeyError),
    /// The certificate library refused.
    #[error("the certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    /// The stored certificate or key cannot be used.
    #[error("the stored certificate or key of the authority cannot be used")]
    Stored(#[from] TlsError),
    /// No randomness.
    #[error("the system provides no random numbers")]
    Random(#[from] getrandom::Error),
    /// A request that is too long, unreadable, or not signed by its own key.
    #[error("the certificate request cannot be used: {0}")]
    Request(String),
    /// A key of a kind that is not accepted.
    #[error(
        "the certificate request has a key of a kind that is not accepted; use ECDSA P-256, P-384 or Ed25519"
    )]
    KeyKind,
    /// An identity that cannot be written into a certificate.
    #[error("`{0}` cannot be written into a certificate")]
    Name(String),
}

impl From<KeyError> for CaError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::File { verb, path, source } => Self::File(files::FileError::Io { verb, path, source }),
            KeyError::Exposed { path, mode } => Self::File(files::FileError::Exposed { path, mode }),
            KeyError::Make(error) => Self::Certificate(error),
            error => Self::Key(error),
        }
    }
}

impl Authority {
    /// Makes a new authority for `plant` in the folder `dir`.
    ///
    /// # Errors
    /// There is an authority in `dir` already, key or certificate cannot be made, or a file cannot be written.
    pub fn create(dir: &Path, plant: PlantId, lifetimes: Lifetimes, now_ms: u64) -> Result<Self, CaError> {
        let (certificate_file, key_file) = (dir.join("root.pem"), dir.join("root.key"));
        if certificate_file.exists() || key_file.exists() {
            return Err(CaError::Exists(dir.to_owned()));
        }
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = name(&format!("Penstock root of {plant}"));
        // A second authority of the same plant must not look like the first one to those who compare names.
        let serial = serial()?;
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, hex::encode(serial.to_bytes()));
        params.serial_number = Some(serial);
        validity(&mut params, backdated(now_ms), now_ms, ROOT_VALIDITY);
        let key = FileKey::generate(KeyKind::EcdsaP384)?;
        key.create(&key_file)?;
        let certificate = params.self_signed(&Key::new(key))?;
        files::write_new(&certificate_file, certificate.pem().as_bytes())?;
        Self::load(dir, plant, lifetimes)
    }

    /// Opens the authority in `dir`.
    ///
    /// # Errors
    /// A file is missing, unreadable or damaged, or the key can be read by others.
    pub fn load(dir: &Path, plant: PlantId, lifetimes: Lifetimes) -> Result<Self, CaError> {
        let file = dir.join("root.pem");
        let pem = files::read(&file)?;
        let root = certificates_from_pem(&pem, &file.display().to_string())?
            .into_iter()
            .next()
            .ok_or_else(|| TlsError::Empty(file.display().to_string()))?;
        let key = FileKey::open_private(&dir.join("root.key"))?;
        let issuer = Issuer::from_ca_cert_der(&root, Key::new(key))?;
        Ok(Self {
            plant,
            root,
            issuer,
            lifetimes,
        })
    }

    /// The plant.
    pub fn plant(&self) -> &PlantId {
        &self.plant
    }

    /// The roots to trust, DER. (One; two while it is being changed for another.)
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.clone()]
    }

    /// SHA-256 of the root's DER, as it stands in tokens.
    pub fn root_digest(&self) -> Digest {
        Digest::of(&self.root)
    }

    /// Reads a PKCS#10 request and checks that it is signed by the key in it.
    ///
    /// # Errors
    /// The request is too long, is not PKCS#10 in DER and nothing else, has a key of a kind that is not accepted, or
    /// is not signed by it.
    pub fn prove(request: &[u8]) -> Result<ProvenKey, CaError> {
        if request.len() > REQUEST_BYTES_MAX {
            return Err(CaError::Request(format!(
                "it has {} bytes, at most {REQUEST_BYTES_MAX} are read",
                request.len()
            )));
        }
        let unreadable = |what: &str| CaError::Request(what.to_owned());
        let (rest, parsed) = X509CertificationRequest::from_der(request)
            .map_err(|_| unreadable("it is not a PKCS#10 request in DER"))?;
        if !rest.is_empty() {
            return Err(unreadable("other data follows it"));
        }
        // The kind of the key comes from the key itself, whatever the signature's algorithm is called.
        let key = SubjectPublicKeyInfo::from_der(parsed.certification_request_info.subject_pki.raw)
            .map_err(|_| CaError::KeyKind)?;
        let accepted: [&rcgen::SignatureAlgorithm; 3] = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
        ];
        if !accepted.contains(&key.algorithm()) {
            return Err(CaError::KeyKind);
        }
        parsed
            .verify_signature()
            .map_err(|_| unreadable("it is not signed by the key in it"))?;
        let digest = Digest::of(&key.subject_public_key_info());
        Ok(ProvenKey { key, digest })
    }

    /// Issues a certificate that says: whoever holds this key is `subject`, and answers by `names`, which people do not have.
    ///
    /// # Errors
    /// The name does not fit into a certificate, the system provides no random numbers, or the authority's key cannot
    /// sign.
    pub fn issue(
        &self,
        subject: &Subject,
        names: &ServerNames,
        key: &ProvenKey,
        now_ms: u64,
    ) -> Result<IssuedCertificate, CaError> {
        self.issue_for(subject, names, &key.key, now_ms)
    }

    /// Issues a certificate for a key of the coordinator itself. It is valid from the authority's own
    /// beginning on: peers whose clocks are behind this one accept it, too.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn issue_own(
        &self,
        subject: &Subject,
        names: &ServerNames,
        key: Key,
        now_ms: u64,
    ) -> Result<Credentials, CaError> {
        let begun_ms = validity_ms(&self.root).map_or(now_ms, |(from, _)| from);
        let from_ms = begun_ms.min(backdated(now_ms));
        let issued = self.issue_from(subject, names, &key, (from_ms, now_ms))?;
        Ok(Credentials::new(issued.chain, key)?)
    }

    fn issue_for(
        &self,
        subject: &Subject,
        names: &ServerNames,
        key: &impl PublicKeyData,
        now_ms: u64,
    ) -> Result<IssuedCertificate, CaError> {
        self.issue_from(subject, names, key, (backdated(now_ms), now_ms))
    }

    /// Valid from the first of two times, and for as long after the second as its kind is.
    fn issue_from(
        &self,
        subject: &Subject,
        names: &ServerNames,
        key: &impl PublicKeyData,
        (from_ms, now_ms): (u64, u64),
    ) -> Result<IssuedCertificate, CaError> {
        let identity = PeerIdentity {
            plant: self.plant.clone(),
            subject: subject.clone(),
        };
        let uri = identity.to_string();
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&subject.to_string());
        params.subject_alt_names = vec![SanType::URI(
            uri.as_str().try_into().map_err(|_| CaError::Name(uri.clone()))?,
        )];
        // People serve nobody.
        if !matches!(subject, Subject::Operator(_)) {
            params
                .subject_alt_names
                .extend(names.addresses().map(SanType::IpAddress));
            for name in names.dns() {
                params.subject_alt_names.push(SanType::DnsName(
                    name.try_into().map_err(|_| CaError::Name(name.to_owned()))?,
                ));
            }
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let client = || vec![ExtendedKeyUsagePurpose::ClientAuth];
        let both = || {
            vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ]
        };
        let (usages, lifetime) = match subject {
            // A coordinator also connects to others of its kind.
            Subject::Coordinator(_) => (both(), self.lifetimes.coordinator),
            Subject::Operator(_) => (client(), self.lifetimes.operator),
            // A gateway that ends nobody's TLS serves nobody.
            Subject::Gateway(_) if names.is_empty() => (client(), self.lifetimes.gateway),
            Subject::Gateway(_) => (both(), self.lifetimes.gateway),
            // Some are brokers.
            Subject::Device(_) => (both(), self.lifetimes.device),
        };
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        let expires_ms = validity(&mut params, from_ms, now_ms, lifetime);
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok(IssuedCertificate {
            chain: vec![certificate.der().clone(), self.root.clone()],
            expires_ms,
        })
    }
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// 127 random bits (RFC 5280, 4.1.2.2: positive, at most 20 bytes).
fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x01;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

/// From when what is issued now is valid, milliseconds since 1970.
fn backdated(now_ms: u64) -> u64 {
    now_ms.saturating_sub(u64::try_from(BACKDATED.as_millis()).unwrap_or(0))
}

/// Sets the validity, and gives its end in milliseconds since 1970.
fn validity(params: &mut CertificateParams, from_ms: u64, now_ms: u64, lifetime: Duration) -> u64 {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(now_ms / 1000);
    params.not_before = epoch + Duration::from_secs(from_ms / 1000);
    params.not_after = epoch + now + lifetime;
    u64::try_from((now + lifetime).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use rcgen::KeyPair;

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
        let proven = Authority::prove(request.der()).unwrap();
        let subject: Subject = "gateway/gw-1".parse().unwrap();
        let issued = ca
            .issue(&subject, &ServerNames::default(), &proven, NOW_MS)
            .unwrap();
        let identity = PeerIdentity::from_certificate(&issued.chain[0]).unwrap();
        assert_eq!(identity.subject, subject);
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
        let proven = Authority::prove(request.der()).unwrap();
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
            let issued = ca.issue(&subject, &names, &proven, NOW_MS).unwrap();
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
    fn a_coordinator_is_named_by_what_its_configuration_says_beside_its_uri() {
        let dir = tempfile::tempdir().unwrap();
        let ca = authority(dir.path());
        let mut names = ServerNames::default();
        names.add("coordinator.example").unwrap();
        names.add("10.0.0.5").unwrap();
        let credentials = ca
            .issue_own(
                &"coordinator/c1".parse().unwrap(),
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
        assert!(Authority::prove(&good).is_ok());
        let proven = Authority::prove(&good).unwrap().digest();
        for n in 0..good.len() {
            let mut altered = good.clone();
            altered[n] ^= 0x55;
            // What is not signed may be altered; another key than the one that signed is never proven.
            assert!(
                Authority::prove(&altered).is_ok_and(|other| other.digest() == proven)
                    || Authority::prove(&altered).is_err()
            );
        }
        assert!(Authority::prove(&good[..good.len() - 1]).is_err());
        assert!(Authority::prove(&vec![0x30; REQUEST_BYTES_MAX + 1]).is_err());
        let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let request = CertificateParams::default().serialize_request(&rsa).unwrap();
        assert!(matches!(Authority::prove(request.der()), Err(CaError::KeyKind)));
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
            let proven = Authority::prove(&request).unwrap();
            let issued = ca
                .issue(
                    &"device/plc".parse().unwrap(),
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
}
