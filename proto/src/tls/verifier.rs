//! How a server judges the certificate that a client shows: a chain to the plant's roots (webpki), and a name
//! within this plant. No certificate at all is no fault here; what a client without identity may do is decided
//! by the service.

use std::sync::Arc;

use penstock_policy::ids::PlantId;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::HandshakeSignatureValid,
};

use super::certificate_error;
use crate::peer::PeerIdentity;

/// A valid certificate, but of another plant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client is {found}, not of plant {plant}")]
struct OtherPlant {
    found: String,
    plant: PlantId,
}

#[derive(Debug)]
pub(super) struct PeerVerifier {
    plant: PlantId,
    chains: Arc<dyn ClientCertVerifier>,
}

impl PeerVerifier {
    pub(super) fn new(plant: PlantId, chains: Arc<dyn ClientCertVerifier>) -> Self {
        Self { plant, chains }
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chains.verify_client_cert(end_entity, intermediates, now)?;
        let identity = PeerIdentity::from_certificate(end_entity).map_err(certificate_error)?;
        if identity.plant != self.plant {
            return Err(certificate_error(OtherPlant {
                found: identity.to_string(),
                plant: self.plant.clone(),
            }));
        }
        Ok(verified)
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
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
