//! What a stranger may show, and whom it believes: certificates as like ours as an attacker can make them, in chains of any length.

use std::sync::Arc;

use penstock_policy::ids::PlantId;
use penstock_proto::keys::FileKey;
use penstock_proto::tls::{CERTIFICATES_MAX, Credentials, FOREIGN_CERTIFICATES_MAX};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Two of the same name are as like as an attacker can make them.
    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn issue(&self, subject: &str) -> Credentials {
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

pub(crate) fn plant() -> PlantId {
    PlantId::new("water").unwrap()
}

/// What a stranger may show to a peer that trusts a root of this name.
pub(crate) fn hostile_chains(name: &str, subject: &str) -> Vec<(&'static str, Credentials)> {
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
pub(crate) struct Shows(Arc<CertifiedKey>);

impl Shows {
    pub(crate) fn new(credentials: &Credentials) -> Arc<Self> {
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
pub(crate) struct Believes;

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

pub(crate) fn client_showing(credentials: &Credentials, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believes))
        .with_client_cert_resolver(Shows::new(credentials));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

pub(crate) fn server_showing(credentials: &Credentials, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(Shows::new(credentials));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}
