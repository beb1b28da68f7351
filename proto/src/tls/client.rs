//! The connecting side towards coordinators: who the coordinator must be, and what we show it.
//!
//! A coordinator is accepted if its chain ends in a root that we trust, is valid now, may serve
//! (extended key usage), and names `spiffe://<plant>/coordinator/<id>` of *our* plant. Before enrolment we hold
//! no root, only the SHA-256 of one (from the token): then the root must be in the chain that is presented.

use std::sync::Arc;

use penstock_policy::ids::{Digest, PlantId};
use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::CertificateDer;
use rustls::sign::SingleCertAndKey;

use super::chains::Chains;
use super::verifier::{Anchor, ExpectedPeer, PeerKind, ServerVerifier};
use super::{ALPN, Credentials, TlsError, provider};
use crate::withdrawn::WithdrawnView;

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

/// How we connect, ready for use.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// For the TLS library.
    pub config: Arc<ClientConfig>,
    /// From when until when our own certificate is valid, milliseconds since 1970: to say what is wrong where it is refused.
    pub own_validity_ms: Option<(u64, u64)>,
}

impl ClientProfile {
    /// The configuration for the TLS library, and from when until when our certificate is valid.
    ///
    /// # Errors
    /// A root, certificate or key cannot be used.
    pub fn config(&self) -> Result<ClientTls, TlsError> {
        self.config_knowing(&WithdrawnView::default())
    }

    /// The same for whoever knows whose keys were withdrawn: also a coordinator's may have been.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub fn config_knowing(&self, withdrawn: &WithdrawnView) -> Result<ClientTls, TlsError> {
        let verifier = ServerVerifier {
            anchor: match &self.trust {
                Trust::Roots(roots) => Anchor::Roots(Arc::new(Chains::new(&self.plant, roots)?)),
                Trust::Pin(digest) => Anchor::Pin(*digest),
            },
            named: ExpectedPeer {
                plant: self.plant.clone(),
                who: PeerKind::Coordinator,
                withdrawn: withdrawn.clone(),
            },
            provider: provider(),
        };
        let mut config = connecting(Arc::new(verifier), self.credentials.as_ref())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        let own_validity_ms = self
            .credentials
            .as_ref()
            .map(Credentials::validity_ms)
            .transpose()?;
        Ok(ClientTls {
            config: Arc::new(config),
            own_validity_ms,
        })
    }
}

/// What all connecting sides share: TLS 1.3, no resumption, our certificate if we have one.
pub(super) fn connecting(
    verifier: Arc<dyn ServerCertVerifier>,
    own: Option<&Credentials>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.certified()?))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}
