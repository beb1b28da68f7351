//! The accepting side: TCP connections become verified streams that tonic can serve.
//!
//! A client certificate is asked for and, if shown, must be valid and name a peer of this plant, else the
//! handshake fails. A client without one is let in *without identity* (enrolment needs that), under tighter
//! limits: few at once, and not for long. Handshakes run in parallel, are bounded in number and time, and none
//! can hold up another. Full means: the connection is closed at once.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use penstock_policy::ids::PlantId;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::verifier::{ClientVerifier, Named, Who};
use super::{ALPN, Credentials, TlsError, provider};
use crate::peer::PeerIdentity;

/// How many, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptLimits {
    /// A handshake that takes longer is cut off.
    pub handshake_timeout: Duration,
    /// Handshakes under way at once.
    pub handshakes_max: usize,
    /// Verified connections at once.
    pub connections_max: usize,
    /// Connections without a certificate at once.
    pub anonymous_max: usize,
    /// How long a connection without a certificate may stand.
    pub anonymous_lifetime: Duration,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            handshakes_max: 512,
            connections_max: 20_000,
            anonymous_max: 256,
            anonymous_lifetime: Duration::from_secs(60),
        }
    }
}

/// The server's certificate, which can be replaced while it serves.
#[derive(Debug)]
pub struct ServerCredentials {
    current: RwLock<Arc<CertifiedKey>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCredentials {
    /// Checks that key and certificate fit.
    pub fn new(credentials: &Credentials) -> Result<Arc<Self>, TlsError> {
        let provider = provider();
        let key = certified(credentials, &provider)?;
        Ok(Arc::new(Self {
            current: RwLock::new(key),
            provider,
        }))
    }

    /// New connections are served with these from now on.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), TlsError> {
        let key = certified(credentials, &self.provider)?;
        *self
            .current
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = key;
        Ok(())
    }
}

fn certified(credentials: &Credentials, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let key = CertifiedKey::from_der(
        credentials.chain().to_vec(),
        credentials.key().clone_key(),
        provider,
    )?;
    key.keys_match()?;
    Ok(Arc::new(key))
}

impl ResolvesServerCert for ServerCredentials {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self
            .current
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Some(current.clone())
    }
}

/// The TLS configuration of a server of `plant` that verifies its clients against `roots`.
pub fn server_config(
    plant: &PlantId,
    credentials: Arc<ServerCredentials>,
    roots: &[CertificateDer<'static>],
) -> Result<Arc<ServerConfig>, TlsError> {
    let named = Named {
        plant: plant.clone(),
        who: Who::AnyPeer,
    };
    // No certificate at all is no fault here: what a client without identity may do is decided by the service.
    let mut config = accepting(ClientVerifier::new(roots, named, false)?, credentials)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// What all accepting sides share: TLS 1.3, no resumption, a certificate that can be replaced.
pub(super) fn accepting(
    verifier: Arc<ClientVerifier>,
    credentials: Arc<ServerCredentials>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(credentials);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// What is known of a connection's peer; in the extensions of each request.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Its address.
    pub address: SocketAddr,
    /// Who it is, from its verified certificate; `None`: it showed none.
    pub identity: Option<PeerIdentity>,
    /// The verified chain, leaf first; empty if it showed none.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// A verified connection.
pub struct PeerStream {
    stream: TlsStream<TcpStream>,
    info: PeerInfo,
    /// When a connection without identity ends.
    deadline: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

/// Accepts connections until the returned stream is dropped.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    limits: AcceptLimits,
) -> ReceiverStream<Result<PeerStream, io::Error>> {
    let (ready, stream) = mpsc::channel(64);
    tokio::spawn(accept_all(listener, config, limits, ready));
    ReceiverStream::new(stream)
}

async fn accept_all(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    limits: AcceptLimits,
    ready: mpsc::Sender<Result<PeerStream, io::Error>>,
) {
    let acceptor = TlsAcceptor::from(config);
    let gates = Arc::new(Gates {
        handshakes: Arc::new(Semaphore::new(limits.handshakes_max)),
        verified: Arc::new(Semaphore::new(limits.connections_max)),
        anonymous: Arc::new(Semaphore::new(limits.anonymous_max)),
    });
    loop {
        // Waiting here leaves new connections in the kernel's backlog, which is bounded too.
        let Ok(handshake) = gates.handshakes.clone().acquire_owned().await else {
            return;
        };
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = ready.closed() => return,
        };
        let (acceptor, gates, ready) = (acceptor.clone(), gates.clone(), ready.clone());
        tokio::spawn(async move {
            let outcome = handshake_one(&acceptor, stream, address, limits, &gates).await;
            drop(handshake);
            match outcome {
                Ok(peer) => {
                    // The server is gone if nobody takes it.
                    let _ = ready.send(Ok(peer)).await;
                }
                Err(reason) => tracing::debug!(%address, %reason, "connection refused"),
            }
        });
    }
}

struct Gates {
    handshakes: Arc<Semaphore>,
    verified: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
}

async fn handshake_one(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    limits: AcceptLimits,
    gates: &Gates,
) -> Result<PeerStream, io::Error> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(limits.handshake_timeout, acceptor.accept(stream))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"))??;
    let certificates: Arc<[CertificateDer<'static>]> = stream
        .get_ref()
        .1
        .peer_certificates()
        .unwrap_or_default()
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect();
    let identity = match certificates.first() {
        Some(leaf) => Some(PeerIdentity::from_certificate(leaf).map_err(io::Error::other)?),
        None => None,
    };
    let (gate, deadline) = match identity {
        Some(_) => (&gates.verified, None),
        None => (
            &gates.anonymous,
            Some(Box::pin(tokio::time::sleep(limits.anonymous_lifetime))),
        ),
    };
    let permit = gate
        .clone()
        .try_acquire_owned()
        .map_err(|_| io::Error::other("too many connections"))?;
    Ok(PeerStream {
        stream,
        info: PeerInfo {
            address,
            identity,
            certificates,
        },
        deadline,
        _permit: permit,
    })
}

impl Connected for PeerStream {
    type ConnectInfo = PeerInfo;
    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "a connection without a client certificate may not stand so long",
            )));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
