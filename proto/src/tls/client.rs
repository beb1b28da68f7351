//! The connecting side: who the coordinator must be, and what we show it.
//!
//! A coordinator is accepted if its chain ends in a root that we trust, is valid now, may serve
//! (extended key usage), and names `spiffe://<plant>/coordinator/<id>` of *our* plant. Before enrolment we hold
//! no root, only the SHA-256 of one (from the token): then the root must be in the chain that is presented.

use std::sync::Arc;

use penstock_policy::ids::{Digest, PlantId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{ALPN, Credentials, TlsError, certificate_error, provider, root_store};
use crate::peer::{PeerIdentity, Subject};

/// What makes a coordinator trustworthy.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The plant's roots, DER.
    Roots(Vec<CertificateDer<'static>>),
    /// Only for enrolment: SHA-256 of the root's DER.
    Pin(Digest),
}

/// Everything that decides how we connect.
#[derive(Debug, Clone)]
pub struct ClientProfile {
    /// Our plant.
    pub plant: PlantId,
    /// Whom to believe.
    pub trust: Trust,
    /// Our own certificate and key; `None` only for enrolment.
    pub credentials: Option<Credentials>,
}

/// Why a coordinator was not accepted, beyond what the TLS library says itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOurCoordinator {
    /// No presented certificate has the pinned digest.
    #[error(
        "the server shows no root certificate with the digest in the token ({0}): either it belongs to another plant, \
         or somebody is in between"
    )]
    Pin(Digest),
    /// A valid certificate, but not a coordinator's or not of our plant.
    #[error("the server is {found}, not a coordinator of plant {plant}")]
    Other {
        /// Who it is.
        found: String,
        /// Our plant.
        plant: PlantId,
    },
}

impl ClientProfile {
    /// The configuration for the TLS library.
    pub fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = provider();
        let anchor = match &self.trust {
            Trust::Roots(roots) => Anchor::Roots(root_store(roots)?),
            Trust::Pin(digest) => Anchor::Pin(*digest),
        };
        let verifier = CoordinatorVerifier {
            plant: self.plant.clone(),
            anchor,
            provider: provider.clone(),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.credentials {
            Some(own) => builder.with_client_auth_cert(own.chain().to_vec(), own.key().clone_key())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }
}

#[derive(Debug)]
enum Anchor {
    Roots(Arc<RootCertStore>),
    Pin(Digest),
}

#[derive(Debug)]
struct CoordinatorVerifier {
    plant: PlantId,
    anchor: Anchor,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for CoordinatorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let roots = match &self.anchor {
            Anchor::Roots(roots) => roots.clone(),
            Anchor::Pin(digest) => {
                let root = intermediates
                    .iter()
                    .find(|certificate| Digest::of(certificate) == *digest)
                    .ok_or_else(|| certificate_error(NotOurCoordinator::Pin(*digest)))?;
                let mut store = RootCertStore::empty();
                store.add(root.clone().into_owned())?;
                Arc::new(store)
            }
        };
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let identity = PeerIdentity::from_certificate(end_entity).map_err(certificate_error)?;
        if identity.plant != self.plant || !matches!(identity.subject, Subject::Coordinator(_)) {
            return Err(certificate_error(NotOurCoordinator::Other {
                found: identity.to_string(),
                plant: self.plant.clone(),
            }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // TLS 1.2 is not configured, so this cannot be asked; if it were, the answer is no.
        Err(rustls::Error::InvalidCertificate(CertificateError::BadSignature))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
