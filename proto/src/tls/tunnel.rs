//! Tunnels between gateways: each proves to the other that it is the gateway that the plan names, in a life that was not withdrawn.
//!
//! Time plays no part. What a tunnel carries is the process: that a certificate has ended, or that a clock stands in 1970, is for the link to the
//! coordinator to notice and for people to mend, and must not stop what the plan permits. So a certificate is judged as of the moment of its own
//! validity that is nearest to now, as the link judges one that is dark within its grace, but without an end. Possession of the key is proved as ever,
//! and a key that was withdrawn ends nowhere.
//!
//! Sessions are not resumed, and nothing is sent before the handshake is done.

use std::collections::BTreeSet;
use std::sync::Arc;

use penstock_policy::ids::GatewayId;
use rustls::{ClientConfig, ServerConfig};

use super::client::connecting;
use super::data_path::PlantTrust;
use super::server::ServerCredentials;
use super::verifier::{ExpectedPeer, GatewayVerifier, PeerKind};
use super::{Credentials, TlsError, provider};

/// Application protocol of a tunnel: another framing would have another.
pub const TUNNEL_ALPN: &[u8] = b"penstock-tunnel/1";

/// The configuration of the gateway that connects to `peer`.
///
/// # Errors
/// The roots or the credentials cannot be used for TLS.
pub fn connecting_gateway(
    trust: PlantTrust<'_>,
    own: &Credentials,
    peer: &GatewayId,
) -> Result<ClientConfig, TlsError> {
    let mut config = connecting(verifier(trust, BTreeSet::from([peer.clone()]))?, Some(own))?;
    config.alpn_protocols = vec![TUNNEL_ALPN.to_vec()];
    Ok(config)
}

/// The configuration of a gateway that these `peers` connect to.
///
/// # Errors
/// The roots cannot be used to verify gateways.
pub fn accepting_gateway(
    trust: PlantTrust<'_>,
    own: Arc<ServerCredentials>,
    peers: BTreeSet<GatewayId>,
) -> Result<ServerConfig, TlsError> {
    let verifier = verifier(trust, peers)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own);
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![TUNNEL_ALPN.to_vec()];
    Ok(config)
}

/// Takes nobody but these gateways of the plant.
fn verifier(trust: PlantTrust<'_>, peers: BTreeSet<GatewayId>) -> Result<Arc<GatewayVerifier>, TlsError> {
    let named = ExpectedPeer {
        plant: trust.plant.clone(),
        who: PeerKind::Gateways(peers),
        withdrawn: trust.withdrawn.clone(),
    };
    GatewayVerifier::new(trust.roots, named)
}
