//! The accepting side: TCP connections become verified streams that tonic can serve.
//!
//! A client certificate is asked for and, if shown, must be valid and name a peer of this plant, else the
//! handshake fails. A client without one is let in *without identity* (enrolment needs that), under tighter
//! limits: few at once, and not for long. Handshakes are computed on threads of their own ([`Handshakes`]), shared by source
//! address. Connections are shared, too: those of clients without a certificate by address, those of others by who they are
//! ([`Crowd`]). Who gets no place is closed at once.
//!
//! A connection ends with the certificate that opened it, by a clock that nobody sets. Whoever serves it ends in order before ([`PeerInfo::ends`]);
//! what is left after [`ORDERLY`] is cut. A gateway whose certificate had ended when it came stands as long as a stranger does.

mod close_reason;
mod peer_info;
mod turned_away;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use penstock_policy::ids::PlantId;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::Connected;

use self::close_reason::CloseReason;
pub use self::peer_info::{ConnectionCutter, PeerInfo};
pub use self::turned_away::{RefusedConnections, TurnedAway};
use super::crowd::{Crowd, CrowdPlace, PlaceEnd, source_of};
use super::handshakes::Handshakes;
use super::refused::explain;
use super::socket::Socket;
use super::verifier::{ClientVerifier, ExpectedPeer, PeerKind};
use super::{ALPN, Credentials, TlsError, provider};
use crate::peer::{Certified, PeerIdentity, Subject};
use crate::withdrawn::WithdrawnView;

/// A verified connection is lost only to a peer that holds fewer: as many gateways as there is room for keep theirs.
const VERIFIED_GRACE: Duration = Duration::MAX;
/// Connections of one peer: some calls at once, and what a broken line leaves behind. More cost its own oldest.
const EACH_MAX: usize = 32;
/// Places that operators have to themselves: as many gateways as there may be keep no person out.
const OPERATORS_MAX: usize = 512;
/// One without a certificate is not lost among equals before this part of the time that it may stand.
const ANONYMOUS_GRACE_PART: u32 = 6;

/// How long what is served over a connection has to end in order, after its certificate did.
const ORDERLY: Duration = Duration::from_secs(10);

/// How many, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptLimits {
    /// A handshake that takes longer is cut off.
    pub handshake_timeout: Duration,
    /// Handshakes under way at once, shared by source address.
    pub handshakes_max: usize,
    /// Verified connections at once but for operators', shared by who the peer is.
    pub connections_max: usize,
    /// Connections without a certificate at once, shared by source address.
    pub anonymous_max: usize,
    /// How long a connection without a certificate may stand.
    pub anonymous_lifetime: Duration,
    /// How long what a peer still sends is taken, and thrown away, after this side said its last. A socket that is closed with unread
    /// bytes is reset, and a peer that is just sending would hear of that instead of what was said to it.
    pub linger: Duration,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            handshakes_max: 512,
            connections_max: 20_000,
            anonymous_max: 256,
            anonymous_lifetime: Duration::from_secs(60),
            linger: Duration::from_secs(1),
        }
    }
}

/// The server's certificate, which can be replaced while it serves.
#[derive(Debug)]
pub struct ServerCredentials {
    current: RwLock<(Arc<CertifiedKey>, Credentials)>,
}

impl ServerCredentials {
    /// Checks that key and certificate fit.
    ///
    /// # Errors
    /// Key and certificate do not fit, or cannot be used for TLS.
    pub fn new(credentials: &Credentials) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new((credentials.certified()?, credentials.clone()));
        Ok(Arc::new(Self { current }))
    }

    /// New connections are served with these from now on.
    ///
    /// # Errors
    /// Key and certificate do not fit, or cannot be used for TLS; those before stay in use.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), TlsError> {
        let key = credentials.certified()?;
        *self
            .current
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = (key, credentials.clone());
        Ok(())
    }

    /// Those with which new connections are served now.
    pub fn held(&self) -> Credentials {
        let current = self.current.read();
        let current = current.unwrap_or_else(std::sync::PoisonError::into_inner);
        current.1.clone()
    }
}

impl ResolvesServerCert for ServerCredentials {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self
            .current
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Some(current.0.clone())
    }
}

/// The TLS configuration of a server of `plant` that verifies its clients against `roots`.
///
/// # Errors
/// The roots cannot be used to verify clients.
pub fn server_config(
    plant: &PlantId,
    credentials: Arc<ServerCredentials>,
    roots: &[CertificateDer<'static>],
) -> Result<Arc<ServerConfig>, TlsError> {
    server_config_with_grace(
        plant,
        credentials,
        roots,
        Duration::ZERO,
        &WithdrawnView::default(),
    )
}

/// The same, where a gateway's certificate is accepted until `grace` after its end, and one whose issuer was withdrawn as if it had ended. What such a gateway may do is decided by whoever asks
/// [`PeerInfo::has_ended`].
///
/// # Errors
/// The roots cannot be used to verify clients.
pub fn server_config_with_grace(
    plant: &PlantId,
    credentials: Arc<ServerCredentials>,
    roots: &[CertificateDer<'static>],
    grace: Duration,
    withdrawn: &WithdrawnView,
) -> Result<Arc<ServerConfig>, TlsError> {
    let named = ExpectedPeer {
        plant: plant.clone(),
        who: PeerKind::AnyPeer,
        // Of lives, who serves here keeps the record itself: it is asked by the service, and is never older than a list.
        withdrawn: withdrawn.clone(),
    };
    // No certificate at all is no fault here: what a client without identity may do is decided by the service.
    let mut config = accepting(ClientVerifier::new(roots, named, false, grace)?, credentials)?;
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

/// A verified connection.
pub struct PeerStream {
    /// In a box: what serves it keeps room for it in several of its states.
    stream: Box<TlsStream<Socket>>,
    info: PeerInfo,
    /// When it ends at the latest, and why then.
    deadline: Pin<Box<Sleep>>,
    at_deadline: CloseReason,
    place: CrowdPlace<Whose>,
    /// Ready when it is cut; none once nobody can cut it any more.
    cut: Option<oneshot::Receiver<()>>,
    /// When this side is done with listening, once it said its last.
    lingers: Option<Pin<Box<Sleep>>>,
    linger: Duration,
    /// Why it may not stand any longer: asked again, it says the same.
    ended: Option<CloseReason>,
}

impl PeerStream {
    /// The certificates that the peer showed, leaf first; none of one without.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let shown = self.stream.get_ref().1.peer_certificates().unwrap_or_default();
        shown
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect()
    }

    /// Whether it may still stand. Asked by writing as well as by reading: what serves it reads nothing while it waits to
    /// write, and a peer that takes no bytes would keep its place for ever.
    fn stands(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.ended.is_none() {
            self.ended = self.poll_ended(cx);
        }
        self.ended.map_or(Ok(()), |ended| Err(ended.error()))
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Option<CloseReason> {
        match self.place.poll_end(cx) {
            Poll::Ready(PlaceEnd::Lost) => return Some(CloseReason::Lost),
            Poll::Ready(PlaceEnd::Dismissed) => return Some(CloseReason::Dismissed),
            Poll::Pending => {}
        }
        match self.cut.as_mut().map(|cut| Pin::new(cut).poll(cx)) {
            Some(Poll::Ready(Ok(()))) => return Some(CloseReason::Cut),
            Some(Poll::Ready(Err(_))) => self.cut = None,
            Some(Poll::Pending) | None => {}
        }
        let is_over = self.deadline.as_mut().poll(cx).is_ready();
        is_over.then_some(self.at_deadline)
    }

    /// Throws away what still comes, until the peer closes or the time for that is over.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger;
        let lingers = self
            .lingers
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(linger)));
        if lingers.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut room = [0; 4096];
        loop {
            let mut bytes = ReadBuf::new(&mut room);
            // Below TLS: nobody reads it any more.
            let read = ready!(Pin::new(self.stream.get_mut().0).poll_read(cx, &mut bytes));
            if read.is_err() || bytes.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

/// By whom connections are shared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Whose {
    /// Of a client without a certificate.
    Address(IpAddr),
    /// Of one with.
    Peer(String),
}

/// Meets clients: on all addresses that a server listens on.
pub struct Reception {
    acceptor: TlsAcceptor,
    limits: AcceptLimits,
    handshakes: Handshakes,
    verified: Arc<Crowd<Whose>>,
    operators: Arc<Crowd<Whose>>,
    anonymous: Arc<Crowd<Whose>>,
    /// Which issuers no longer count.
    withdrawn: WithdrawnView,
    turned_away: Arc<TurnedAway>,
}

impl Reception {
    /// Starts the threads that meet clients.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn start(config: Arc<ServerConfig>, limits: AcceptLimits) -> io::Result<Arc<Self>> {
        Self::start_knowing(config, limits, WithdrawnView::default())
    }

    /// The same, who knows which issuers no longer count.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_knowing(
        config: Arc<ServerConfig>,
        limits: AcceptLimits,
        withdrawn: WithdrawnView,
    ) -> io::Result<Arc<Self>> {
        // The others serve.
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
        Ok(Arc::new(Self {
            acceptor: TlsAcceptor::from(config),
            limits,
            handshakes: Handshakes::start(threads, limits.handshakes_max, limits.handshake_timeout)?,
            verified: Crowd::new(limits.connections_max, EACH_MAX, VERIFIED_GRACE),
            operators: Crowd::new(OPERATORS_MAX, EACH_MAX, VERIFIED_GRACE),
            anonymous: Crowd::new(
                limits.anonymous_max,
                limits.anonymous_max,
                limits.anonymous_lifetime / ANONYMOUS_GRACE_PART,
            ),
            withdrawn,
            turned_away: Arc::default(),
        }))
    }

    /// Who gets no connection.
    pub fn turned_away(&self) -> Arc<TurnedAway> {
        self.turned_away.clone()
    }

    /// Ends the connections of a peer that stand by *now*, once it is called, and answers how many there were. One that is still in its
    /// handshake comes later, and so do its calls.
    pub fn standing(&self, peer: &PeerIdentity) -> impl FnOnce() -> usize + Send + use<> {
        let crowd = self.crowd_of(&peer.subject).clone();
        let (whose, mark) = (Whose::Peer(peer.to_string()), crowd.mark());
        move || crowd.dismiss(&whose, mark)
    }

    fn crowd_of(&self, subject: &Subject) -> &Arc<Crowd<Whose>> {
        match subject {
            Subject::Operator(_) => &self.operators,
            _ => &self.verified,
        }
    }

    /// Accepts connections until the returned stream is dropped.
    pub fn incoming(
        self: &Arc<Self>,
        listener: TcpListener,
    ) -> impl Stream<Item = Result<PeerStream, io::Error>> + use<> {
        let (ready, stream) = mpsc::channel(64);
        tokio::spawn(Arc::clone(self).accept_all(listener, ready));
        // From here on it is the server's threads that watch it.
        ReceiverStream::new(stream).map(|mut peer: PeerStream| {
            peer.stream.get_mut().0.settle()?;
            Ok(peer)
        })
    }

    async fn accept_all(self: Arc<Self>, listener: TcpListener, ready: mpsc::Sender<PeerStream>) {
        loop {
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
            let (reception, ready) = (Arc::clone(&self), ready.clone());
            tokio::spawn(async move {
                match reception.meet(stream, address).await {
                    Ok(peer) => {
                        // The server is gone if nobody takes it.
                        let _ = ready.send(peer).await;
                    }
                    Err(error) => {
                        let reason = explain(&error);
                        tracing::debug!(%address, reason, "connection refused");
                        reception.turned_away.note(address.ip(), reason);
                    }
                }
            });
        }
    }

    async fn meet(&self, stream: TcpStream, address: SocketAddr) -> Result<PeerStream, io::Error> {
        let acceptor = self.acceptor.clone();
        let stream = stream.into_std()?;
        let handshake = async move {
            stream.set_nodelay(true)?;
            let stream = Socket::of_stranger(TcpStream::from_std(stream)?);
            acceptor.accept(stream).await
        };
        let met = self.handshakes.meet(address.ip(), handshake).await;
        let stream = met.map_err(|unmet| io::Error::new(io::ErrorKind::TimedOut, unmet))??;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let leaf = shown.first();
        let issuer_withdrawn = self.withdrawn.ends_issuer(shown.get(1..).unwrap_or_default());
        let certified = leaf
            .map(Certified::from_certificate)
            .transpose()
            .map_err(io::Error::other)?;
        let identity = certified.as_ref().map(|certified| &certified.identity);
        let now = tokio::time::Instant::now();
        let ends = certified.as_ref().map(|certified| match issuer_withdrawn {
            true => now,
            false => peer_info::end_of(certified.valid_ms.1),
        });
        let (crowd, whose) = match identity {
            Some(peer) => (self.crowd_of(&peer.subject), Whose::Peer(peer.to_string())),
            None => (&self.anonymous, Whose::Address(source_of(address.ip()))),
        };
        let (deadline, at_deadline) = match ends {
            None => (now + self.limits.anonymous_lifetime, CloseReason::Overdue),
            // It came to be renewed.
            Some(ends) if ends <= now => (now + self.limits.anonymous_lifetime, CloseReason::Ended),
            Some(ends) => (ends + ORDERLY, CloseReason::Ended),
        };
        let Some(place) = crowd.enter(whose, Instant::now()) else {
            if let Some(peer) = identity {
                tracing::warn!(%peer, %address, "a known peer is turned away: the limit of connections is reached");
            }
            return Err(io::Error::other("too many connections"));
        };
        let (line, cut) = ConnectionCutter::new();
        Ok(PeerStream {
            stream: Box::new(stream),
            info: PeerInfo {
                address,
                certified,
                ends,
                issuer_withdrawn,
                line,
            },
            deadline: Box::pin(tokio::time::sleep_until(deadline)),
            at_deadline,
            place,
            cut: Some(cut),
            lingers: None,
            linger: self.limits.linger,
            ended: None,
        })
    }
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
        self.stands(cx)?;
        Pin::new(&mut *self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stands(cx)?;
        Pin::new(&mut *self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stands(cx)?;
        Pin::new(&mut *self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stands(cx)?;
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stands(cx)?;
        if self.lingers.is_none() {
            ready!(Pin::new(&mut *self.stream).poll_shutdown(cx))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}
