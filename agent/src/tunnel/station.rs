//! The one UDP port of a gateway's tunnels: connects to gateways, and is connected to.
//!
//! Who sends a first packet gets a stateless answer (a retry token), and nothing is kept of it. Who comes back with that is where it says, and gets one of
//! [`HANDSHAKES_MAX`] places, shared by source address; it keeps it for [`HANDSHAKE_MAX`] at most. Only a gateway that the plan names finishes its handshake.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use penstock_policy::ids::GatewayId;
use penstock_proto::peer::Subject;
use penstock_proto::tls::crowd::{Crowd, source_of};
use penstock_proto::tls::server::ServerCredentials;
use penstock_proto::tls::tunnel::{accepting_gateway, connecting_gateway};
use penstock_proto::withdrawn::Life;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, Connection, ConnectionError, Endpoint, Incoming, TokioRuntime, TransportConfig,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::congestion::Steady;
use super::reset::ResetSecret;
use super::{BEAT, HANDSHAKE_MAX, RECEIVE_BYTES_MAX, SEND_BYTES_MAX, SILENT_MAX};
use crate::identity::Identity;

/// Handshakes of gateways that connect here, under way at once.
const HANDSHAKES_MAX: usize = 32;
/// Bytes of packets that came before their handshake was begun.
const EARLY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What handshakes under way may hold, bytes: keys, certificates and what waits.
pub(super) const HELD_BYTES_MAX: usize = HANDSHAKES_MAX * 64 * 1024 + EARLY_BYTES_MAX;
/// What the socket keeps unread: the kernel's bound, in a burst.
const SOCKET_BYTES: usize = 4 * 1024 * 1024;
/// Packets that are acknowledged together.
const ACKNOWLEDGED_AFTER: u32 = 32;
/// Why a gateway is not connected to that says nothing.
pub(super) const NO_ANSWER: &str = "it does not answer";
/// Why a connection ended that the other gateway no longer knows.
const RESTARTED: &str = "the other gateway was restarted and knows nothing of it any more";
/// What a path takes there and back until that is measured.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// The name in the handshake, which decides nothing and says nothing.
const NOBODY: &str = "gateway.invalid";

/// Where the connections of one peer go. It takes the newest.
pub(super) type Arrivals = mpsc::Sender<Connection>;

/// The port, while the plan has tunnels.
#[derive(Debug)]
pub(super) struct Station {
    endpoint: Endpoint,
    arrivals: Mutex<BTreeMap<GatewayId, Arrivals>>,
}

impl Station {
    /// Opens the port.
    pub(super) fn open(port: u16, resets: &ResetSecret) -> io::Result<Arc<Self>> {
        let socket = bind(port)?;
        let endpoint = Endpoint::new(resets.endpoint(), None, socket, Arc::new(TokioRuntime))?;
        Ok(Arc::new(Self {
            endpoint,
            arrivals: Mutex::default(),
        }))
    }

    /// From now on these gateways may connect, with this identity of ours. Standing connections stay.
    pub(super) fn expect(
        &self,
        arrivals: BTreeMap<GatewayId, Arrivals>,
        identity: Option<&Identity>,
    ) -> Result<(), String> {
        let peers: BTreeSet<GatewayId> = arrivals.keys().cloned().collect();
        *self.arrivals.lock().unwrap_or_else(PoisonError::into_inner) = arrivals;
        let config = match identity.filter(|_| !peers.is_empty()) {
            None => None,
            Some(identity) => Some(accepting(identity, peers).map_err(|error| error.to_string())?),
        };
        self.endpoint.set_server_config(config);
        Ok(())
    }

    /// Meets those who connect, until it is dropped.
    pub(super) async fn meet(self: Arc<Self>) {
        let crowd = Crowd::new(HANDSHAKES_MAX, HANDSHAKES_MAX, HANDSHAKE_MAX / 10);
        let mut handshakes = JoinSet::new();
        loop {
            let incoming = tokio::select! {
                incoming = self.endpoint.accept() => incoming,
                Some(_) = handshakes.join_next() => continue,
            };
            let Some(incoming) = incoming else {
                return;
            };
            if !incoming.remote_address_validated() {
                if let Err(error) = incoming.retry() {
                    error.into_incoming().ignore();
                }
                continue;
            }
            let source = source_of(incoming.remote_address().ip().to_canonical());
            let Some(mut place) = crowd.enter(source, Instant::now()) else {
                incoming.ignore();
                continue;
            };
            let station = self.clone();
            handshakes.spawn(async move {
                tokio::select! {
                    _ = tokio::time::timeout(HANDSHAKE_MAX, station.greet(incoming)) => {}
                    () = std::future::poll_fn(|cx| place.poll_lost(cx)) => {}
                }
            });
        }
    }

    async fn greet(&self, incoming: Incoming) {
        let Ok(connecting) = incoming.accept() else {
            return;
        };
        let connection = match connecting.await {
            Ok(connection) => connection,
            Err(error) => return tracing::debug!(%error, "somebody did not get into a tunnel"),
        };
        let arrivals = life(&connection).and_then(|life| {
            let Subject::Gateway(peer) = life.subject else {
                return None;
            };
            let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
            arrivals.get(&peer).cloned()
        });
        match arrivals {
            Some(arrivals) => {
                if welcome(&connection).await.is_ok() {
                    // A peer that connects faster than it is served has a newer one anyway.
                    drop(arrivals.try_send(connection));
                }
            }
            None => connection.close(0_u32.into(), b"no tunnel to you"),
        }
    }

    /// Connects to `peer`, which has so long to answer.
    pub(super) async fn connect(
        &self,
        peer: &GatewayId,
        (at, patience): (SocketAddr, Duration),
        identity: &Identity,
    ) -> Result<Connection, String> {
        let config = connecting_gateway(identity.plant_trust(), identity.credentials(), peer)
            .map_err(|error| error.to_string())?;
        let config = QuicClientConfig::try_from(config).map_err(|error| error.to_string())?;
        let mut config = quinn::ClientConfig::new(Arc::new(config));
        config.transport_config(transport(1));
        let connecting = self.endpoint.connect_with(config, at, NOBODY);
        let connecting = connecting.map_err(|error| error.to_string())?;
        let welcomed = async {
            let connection = connecting.await?;
            // In TLS 1.3 this side is done before the other one has judged it.
            connection.accept_uni().await?;
            Ok(connection)
        };
        match tokio::time::timeout(patience, welcomed).await {
            Ok(connected) => connected.map_err(|error: ConnectionError| in_words(&error)),
            Err(_) => Err(NO_ANSWER.to_owned()),
        }
    }

    /// Ends everything.
    pub(super) fn close(&self, reason: &str) {
        self.endpoint.close(0_u32.into(), reason.as_bytes());
    }
}

/// Lets the peer know that it was accepted.
async fn welcome(connection: &Connection) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut stream = connection.open_uni().await?;
    stream.write_all(b"welcome").await?;
    stream.finish()?;
    Ok(())
}

/// Why a connection ended, or did not come about.
pub(super) fn in_words(error: &ConnectionError) -> String {
    // What the TLS library puts around a reason of ours.
    fn bare(reason: &str) -> &str {
        let reason = reason
            .strip_prefix("invalid peer certificate: ")
            .unwrap_or(reason);
        let ours = reason.strip_prefix("Other(OtherError(");
        ours.and_then(|ours| ours.strip_suffix("))")).unwrap_or(reason)
    }
    match error {
        ConnectionError::Reset => RESTARTED.to_owned(),
        ConnectionError::TimedOut => "nothing comes from the other gateway any more".to_owned(),
        ConnectionError::ApplicationClosed(closed) => {
            format!(
                "the other gateway ended it: {}",
                String::from_utf8_lossy(&closed.reason)
            )
        }
        ConnectionError::TransportError(error) if !error.reason.is_empty() => {
            format!(
                "this gateway does not accept the other one: {}",
                bare(&error.reason)
            )
        }
        ConnectionError::ConnectionClosed(closed) if !closed.reason.is_empty() => {
            let reason = String::from_utf8_lossy(&closed.reason);
            format!("the other gateway does not accept this one: {}", bare(&reason))
        }
        other => other.to_string(),
    }
}

/// Who is at the other end, and in which life.
pub(super) fn life(connection: &Connection) -> Option<Life> {
    let shown = connection.peer_identity()?;
    let chain = shown.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Life::of_certificate(chain.first()?).ok()
}

fn accepting(
    identity: &Identity,
    peers: BTreeSet<GatewayId>,
) -> Result<quinn::ServerConfig, Box<dyn std::error::Error>> {
    let own = ServerCredentials::new(identity.credentials())?;
    let config = QuicServerConfig::try_from(accepting_gateway(identity.plant_trust(), own, peers)?)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(config));
    config
        .transport_config(transport(0))
        .max_incoming(4 * HANDSHAKES_MAX)
        .incoming_buffer_size(EARLY_BYTES_MAX as u64 / 32)
        .incoming_buffer_size_total(EARLY_BYTES_MAX as u64);
    Ok(config)
}

/// With so many streams that the other side may open: one, for its welcome.
fn transport(streams: u32) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(SILENT_MAX.try_into().ok())
        .keep_alive_interval(Some(BEAT))
        // Until it is measured: what is lost at first is sent again after three times that.
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(0_u32.into())
        .max_concurrent_uni_streams(streams.into())
        // Nothing waits for an acknowledgement here, and each costs a packet: what of them is needed is how long the path takes, and that it lives.
        .ack_frequency_config(Some(acknowledged()))
        .datagram_receive_buffer_size(Some(RECEIVE_BYTES_MAX))
        .datagram_send_buffer_size(SEND_BYTES_MAX)
        .congestion_controller_factory(Arc::new(Steady));
    Arc::new(transport)
}

/// How often the other side acknowledges.
fn acknowledged() -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config
        .ack_eliciting_threshold(ACKNOWLEDGED_AFTER.into())
        .reordering_threshold(0_u32.into());
    config
}

/// A socket for both families, or for IPv4 on a machine that knows no other.
fn bind(port: u16) -> io::Result<std::net::UdpSocket> {
    let open = |address: IpAddr| {
        let family = if address.is_ipv4() {
            socket2::Domain::IPV4
        } else {
            socket2::Domain::IPV6
        };
        let socket = socket2::Socket::new(family, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // Beyond the system's limit only with the right to.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BYTES).is_err() {
            socket.set_recv_buffer_size(SOCKET_BYTES)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(address, port).into())?;
        Ok(std::net::UdpSocket::from(socket))
    };
    open(Ipv6Addr::UNSPECIFIED.into()).or_else(|error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
        _ => open(Ipv4Addr::UNSPECIFIED.into()),
    })
}
