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
//! without one, or with one whose life is over, there is no handshake. No session is resumed. Which devices, addresses and brokers belong together is
//! the plan's business, not this file's.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::{AssetId, PlantId, RoleName};
use penstock_policy::terms::Tls;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;
use rustls::{ClientConfig, CommonState, ServerConfig};

use super::chains::Chains;
use super::client::connecting;
use super::names::NamesError;
pub use super::refused::explain;
use super::server::{ServerCredentials, accepting};
pub use super::verifier::Devices;
use super::verifier::{Anchor, ClientVerifier, ExpectedPeer, ForeignVerifier, PeerKind, ServerVerifier};
use super::{Credentials, TlsError, certificates_from_pem, provider};
use crate::peer::Certified;
pub use crate::role::RoleError;
use crate::role::role_of;
use crate::withdrawn::{Life, WatchedLife, WithdrawnView};

/// What a gateway knows of its plant: by this its peers are judged.
#[derive(Debug, Clone, Copy)]
pub struct PlantTrust<'a> {
    /// The plant.
    pub plant: &'a PlantId,
    /// Its roots, DER.
    pub roots: &'a [CertificateDer<'static>],
    /// Whose keys no longer count.
    pub withdrawn: &'a WithdrawnView,
}

/// Whether the role matters that a client's certificate gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoleReading {
    /// It does not: whatever the certificate says of a role lets nobody in and keeps nobody out.
    Ignored,
    /// It does: a client gets in with one role or without any, not with what cannot be read as one.
    Strict,
}

/// The configuration that ends the TLS of `devices` with the gateway's own certificate.
///
/// # Errors
/// The roots cannot be used to verify clients.
pub fn device_server(
    trust: PlantTrust<'_>,
    gateway: Arc<ServerCredentials>,
    devices: Devices,
    roles: RoleReading,
) -> Result<Arc<ServerConfig>, TlsError> {
    let named = ExpectedPeer {
        plant: trust.plant.clone(),
        who: match roles {
            RoleReading::Ignored => PeerKind::Devices(devices),
            RoleReading::Strict => PeerKind::DevicesInRoles(devices),
        },
        withdrawn: trust.withdrawn.clone(),
    };
    // No application protocol is negotiated: MQTT clients offer none, or one of several names for it.
    Ok(Arc::new(accepting(
        ClientVerifier::new(trust.roots, named, true, Duration::ZERO)?,
        gateway,
    )?))
}

/// Protocols of a server at which devices enrol.
const HTTP: [&[u8]; 2] = [super::ALPN, b"http/1.1"];

/// The configuration of a server at which devices enrol and renew (EST): they show the certificate of a device, or none at all.
///
/// # Errors
/// The roots cannot be used to verify clients.
pub fn enrolling_server(
    trust: PlantTrust<'_>,
    own: Arc<ServerCredentials>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let named = ExpectedPeer {
        plant: trust.plant.clone(),
        who: PeerKind::Devices(Devices::Any),
        withdrawn: trust.withdrawn.clone(),
    };
    let verifier = ClientVerifier::new(trust.roots, named, false, Duration::ZERO)?;
    let mut config = accepting(verifier, own)?;
    config.alpn_protocols = HTTP.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

/// What the chain of a device says that somebody else met, judged as if it was met here now. That the device holds the key is their word.
///
/// # Errors
/// No root of the plant issued it, it is not valid now, or it is not a device's.
pub fn judge_device(trust: PlantTrust<'_>, chain: &[CertificateDer<'static>]) -> Result<Certified, TlsError> {
    let named = ExpectedPeer {
        plant: trust.plant.clone(),
        who: PeerKind::Devices(Devices::Any),
        withdrawn: trust.withdrawn.clone(),
    };
    let verifier = ClientVerifier::new(trust.roots, named, true, Duration::ZERO)?;
    let (leaf, others) = chain
        .split_first()
        .ok_or_else(|| TlsError::Empty("the device's chain".to_owned()))?;
    verifier.verify_client_cert(leaf, others, UnixTime::now())?;
    Ok(Certified::from_certificate(leaf)?)
}

/// Who of the plant is at the other end of a connection whose handshake is done, and in which life; `None` before.
pub fn peer(connection: &CommonState) -> Option<Life> {
    let leaf = connection.peer_certificates()?.first()?;
    Life::of_certificate(leaf).ok()
}

/// The role that the certificate of the peer gives it, once the handshake is done; `None`: it has none, or it is not done.
///
/// # Errors
/// What stands there is not one role.
pub fn role(connection: &CommonState) -> Result<Option<RoleName>, RoleError> {
    match connection.peer_certificates().and_then(<[_]>::first) {
        Some(leaf) => role_of(leaf),
        None => Ok(None),
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
        /// Whose keys no longer count.
        withdrawn: WithdrawnView,
        /// The broker.
        broker: AssetId,
    },
    /// A certificate of other authorities, for the name that the broker is reached by.
    Authorities(Vec<CertificateDer<'static>>),
}

/// The configuration for connections to whom other authorities than the plant's vouch for, by the name that they are reached by; `own` is shown to
/// them, if there is one.
///
/// # Errors
/// The authorities or the credentials cannot be used for TLS.
pub fn authorities_client(
    authorities: &[CertificateDer<'static>],
    own: Option<&Credentials>,
) -> Result<Arc<ClientConfig>, TlsError> {
    Ok(Arc::new(connecting(ForeignVerifier::new(authorities)?, own)?))
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
    /// As the plan says for the broker at `address`. `plant` counts where the plan names no authorities.
    ///
    /// # Errors
    /// The plan's authorities are not certificates, or its server name is not a name.
    pub fn of_plan(
        tls: &Tls,
        plant: PlantTrust<'_>,
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
                plant: plant.plant.clone(),
                roots: plant.roots.to_vec(),
                withdrawn: plant.withdrawn.clone(),
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
            BrokerTrust::Plant {
                plant,
                roots,
                withdrawn,
                broker,
            } => {
                let verifier = ServerVerifier {
                    anchor: Anchor::Roots(Arc::new(Chains::new(plant, roots)?)),
                    named: ExpectedPeer {
                        plant: plant.clone(),
                        who: PeerKind::Devices(Devices::Listed(BTreeSet::from([broker.clone()]))),
                        withdrawn: withdrawn.clone(),
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

    /// Whether the broker is known by the plant's own authority.
    pub fn is_of_plant(&self) -> bool {
        matches!(self.trust, BrokerTrust::Plant { .. })
    }

    /// Whose life to watch while this connection, whose handshake is done, stands; `None`: a broker of other authorities, of whose
    /// certificates the plant says nothing.
    pub fn watched(&self, connection: &CommonState) -> Option<WatchedLife> {
        let BrokerTrust::Plant { withdrawn, .. } = &self.trust else {
            return None;
        };
        Some(WatchedLife::new(peer(connection)?, withdrawn.clone()))
    }
}
