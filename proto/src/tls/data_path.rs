//! The data path: a device's TLS ends at the gateway, which begins its own towards the device's broker
//! (DESIGN §5, §6; IEC 62443-3-3 SR 1.2, SR 3.1).
//!
//! ```text
//! device ── its certificate, /device/<asset> ─▶ gateway ── the gateway's own certificate ─▶ broker
//!        ◀─ the gateway's, with the broker's        ◀─ /device/<broker>, or by authorities
//!           address or name in it                       and a name that the plan gives
//! ```
//!
//! A device shows a certificate of the plant's authority, valid now, that names one of the devices the caller accepts;
//! without one there is no handshake. No session is resumed. Which devices, addresses and brokers belong together is
//! the plan's business, not this file's.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::{AssetId, PlantId};
use penstock_policy::terms::Tls;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, ServerConfig};

use super::client::connecting;
use super::names::NamesError;
use super::server::{ServerCredentials, accepting};
use super::times::peer_refused;
pub use super::verifier::Devices;
use super::verifier::{Anchor, ClientVerifier, ExpectedPeer, ForeignVerifier, PeerKind, ServerVerifier};
use super::{Credentials, TlsError, certificates_from_pem, provider, root_store};
use crate::peer::{PeerIdentity, Subject};

/// The configuration that ends the TLS of `devices` with the gateway's own certificate.
///
/// # Errors
/// The roots cannot be used to verify clients.
pub fn device_server(
    plant: &PlantId,
    gateway: Arc<ServerCredentials>,
    roots: &[CertificateDer<'static>],
    devices: Devices,
) -> Result<Arc<ServerConfig>, TlsError> {
    let named = ExpectedPeer {
        plant: plant.clone(),
        who: PeerKind::Devices(devices),
    };
    // No application protocol is negotiated: MQTT clients offer none, or one of several names for it.
    Ok(Arc::new(accepting(
        ClientVerifier::new(roots, named, true, Duration::ZERO)?,
        gateway,
    )?))
}

/// The device at the other end of a connection that [`device_server`] accepted; `None` before the handshake is done.
pub fn device(connection: &rustls::ServerConnection) -> Option<AssetId> {
    let leaf = connection.peer_certificates()?.first()?;
    match PeerIdentity::from_certificate(leaf).ok()?.subject {
        Subject::Device(asset) => Some(asset),
        _ => None,
    }
}

/// Why a handshake on the data path failed, in words for the trail.
pub fn explain(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        // The library prints reasons of our own as a program sees them.
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(reason))) => reason.0.to_string(),
        Some(tls @ rustls::Error::InvalidCertificate(wrong)) => {
            peer_refused(wrong, "the peer's", "the peer needs a new one").unwrap_or_else(|| tls.to_string())
        }
        Some(tls) => tls.to_string(),
        None => error.to_string(),
    }
}

/// What makes a broker trustworthy.
#[derive(Debug, Clone)]
pub enum BrokerTrust {
    /// A certificate of the plant's authority that names the broker as `/device/<asset>`.
    Plant {
        /// The plant.
        plant: PlantId,
        /// Its roots, DER.
        roots: Vec<CertificateDer<'static>>,
        /// The broker.
        broker: AssetId,
    },
    /// A certificate of other authorities, for the name that the broker is reached by.
    Authorities(Vec<CertificateDer<'static>>),
}

/// Everything that decides how the gateway connects to a broker.
#[derive(Debug, Clone)]
pub struct BrokerProfile {
    /// Whom to believe.
    pub trust: BrokerTrust,
    /// What the broker is called: in its certificate where it has other authorities, else only a hint to it.
    pub server_name: ServerName<'static>,
    /// The gateway's certificate and key.
    pub credentials: Credentials,
}

/// Why a plan's `tls` is no profile.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Its authorities or our credentials.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its name.
    #[error(transparent)]
    Name(#[from] NamesError),
}

impl BrokerProfile {
    /// As the plan says for the broker at `address`. `plant` and `roots` count where the plan names no authorities.
    ///
    /// # Errors
    /// The plan's authorities are not certificates, or its server name is not a name.
    pub fn of_plan(
        tls: &Tls,
        plant: &PlantId,
        roots: &[CertificateDer<'static>],
        broker: (&AssetId, IpAddr),
        credentials: Credentials,
    ) -> Result<Self, BrokerError> {
        let (asset, address) = broker;
        let trust = match &tls.server_authorities {
            Some(pem) => BrokerTrust::Authorities(certificates_from_pem(
                pem.as_bytes(),
                &format!("what the plan gives as authorities of {asset}"),
            )?),
            None => BrokerTrust::Plant {
                plant: plant.clone(),
                roots: roots.to_vec(),
                broker: asset.clone(),
            },
        };
        let server_name = match &tls.server_name {
            Some(name) => ServerName::try_from(name.clone()).map_err(|_| NamesError::Form(name.clone()))?,
            None => ServerName::from(address),
        };
        Ok(Self {
            trust,
            server_name,
            credentials,
        })
    }

    /// The configuration for the TLS library; connect with it to [`Self::server_name`].
    ///
    /// # Errors
    /// The roots or the credentials cannot be used for TLS.
    pub fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let config = match &self.trust {
            BrokerTrust::Plant { plant, roots, broker } => {
                let verifier = ServerVerifier {
                    anchor: Anchor::Roots(root_store(roots)?),
                    named: ExpectedPeer {
                        plant: plant.clone(),
                        who: PeerKind::Devices(Devices::Listed(BTreeSet::from([broker.clone()]))),
                    },
                    provider: provider(),
                };
                connecting(Arc::new(verifier), Some(&self.credentials))?
            }
            BrokerTrust::Authorities(roots) => {
                connecting(ForeignVerifier::new(roots)?, Some(&self.credentials))?
            }
        };
        Ok(Arc::new(config))
    }
}
