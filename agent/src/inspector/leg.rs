//! One side of an inspected connection, as the pump sees it: bytes in, bytes out, end, reset.
//!
//! Whatever stands between the socket and the inspector (TLS that ends at the gateway) belongs in here; the pump knows
//! nothing of it. Inside TLS, `close_notify` is the end of a direction, and is what is sent for one. A peer that ends
//! its TCP stream without it has ended all the same: the protocols inside tell a whole packet from a cut one by themselves.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use penstock_proto::tls::socket::Socket;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// What TLS may keep of what the peer does not take, bytes: set where handshakes end.
pub(super) const TLS_BUFFER_BYTES: usize = 16 * 1024;
/// What TLS holds for a side beside that: its keys and state, and a record that is not whole, bytes.
const TLS_BYTES: usize = 12 * 1024;

/// One side.
#[derive(Debug)]
pub(super) struct Leg {
    stream: Stream,
    /// What TLS failed for, once it did.
    failure: Option<io::Error>,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    /// The library keeps at most [`TLS_BUFFER_BYTES`] of what the peer does not take, and one record of what it sends.
    Tls(Box<TlsStream<Socket>>),
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

impl Leg {
    /// A side that speaks plainly.
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self {
            stream: Stream::Plain(stream),
            failure: None,
        }
    }

    /// A side whose TLS ends here; the handshake is done.
    pub(super) fn tls(stream: impl Into<TlsStream<Socket>>) -> Self {
        Self {
            stream: Stream::Tls(Box::new(stream.into())),
            failure: None,
        }
    }

    /// What is held for it in this process, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.stream {
            Stream::Plain(_) => 0,
            Stream::Tls(stream) => {
                let (socket, tls) = stream.get_ref();
                let untaken = if tls.wants_write() { TLS_BUFFER_BYTES } else { 0 };
                TLS_BYTES + untaken + socket.held_bytes()
            }
        }
    }

    /// Reads what there is; `Ready(Ok(0))` is the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = ready!(self.duplex().poll_read(cx, &mut buffer));
        let inside_tls = self.is_tls();
        Poll::Ready(match read {
            Ok(()) => Ok(buffer.filled().len()),
            Err(error) if inside_tls && error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(self.failed(error)),
        })
    }

    /// Reads what a read left that ended early, which it does before urgent data: nothing would tell of the rest, for the
    /// run time takes a short read for the last. `None`: nothing is left.
    pub(super) fn read_on(&mut self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let Stream::Plain(stream) = &self.stream else {
            return None;
        };
        match rustix::net::recv(stream, buffer, rustix::net::RecvFlags::DONTWAIT) {
            Ok((_, count)) => Some(Ok(count)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
            Err(error) => Some(Err(self.failed(error.into()))),
        }
    }

    /// Whether what came first, of a side that speaks plainly, begins a TLS handshake (RFC 8446 5.1): a record of the type handshake, of
    /// a version 3.1 to 3.4. `None`: too little has come to tell. Nothing is taken.
    pub(super) fn begins_tls(&self) -> Option<bool> {
        const HANDSHAKE: u8 = 22;
        let Stream::Plain(stream) = &self.stream else {
            return Some(false);
        };
        let (mut first, flags) = (
            [0; 3],
            rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT,
        );
        let count = match rustix::net::recv(stream, &mut first, flags) {
            Ok((_, count)) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return None,
            Err(_) => return Some(false),
        };
        match (count, first) {
            (0, _) => Some(false),
            (_, [kind, ..]) if kind != HANDSHAKE => Some(false),
            (1, _) => None,
            (_, [_, major, _]) if major != 3 => Some(false),
            (2, _) => None,
            (_, [.., minor]) => Some((1..=4).contains(&minor)),
        }
    }

    /// Writes what the peer takes.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(self.duplex().poll_write(cx, bytes));
        Poll::Ready(written.map_err(|error| self.failed(error)))
    }

    /// Sends on what was written and is still in this process.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(self.duplex().poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| self.failed(error)))
    }

    /// Says that nothing more comes.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.duplex().poll_shutdown(cx)
    }

    /// From now on, closing it means a reset.
    pub(super) fn reset_on_close(&self) {
        // A socket that is gone already needs no reset.
        if let Some(tcp) = self.tcp() {
            let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }

    /// Why the peer is gone, if that is known, also while nobody reads. Told once.
    pub(super) fn death(&self) -> Option<io::Error> {
        self.tcp()?.take_error().unwrap_or_else(Some)
    }

    /// Whether its TLS ends here.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Why TLS failed, if it did after the handshake.
    pub(super) fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref()
    }

    /// A copy of its socket, to be handed over, for a side that speaks plainly: nothing of the stream is in this process
    /// but what was read of it. The keys of TLS stay where they are.
    pub(super) fn socket(&self) -> io::Result<OwnedFd> {
        match &self.stream {
            Stream::Plain(stream) => super::handover::copy(stream),
            Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The stream itself, of a side that speaks plainly.
    pub(super) fn into_plain(self) -> Option<TcpStream> {
        match self.stream {
            Stream::Plain(stream) => Some(stream),
            Stream::Tls(_) => None,
        }
    }

    fn duplex(&mut self) -> Pin<&mut dyn Duplex> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream),
            Stream::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Plain(stream) => Some(stream),
            Stream::Tls(stream) => stream.get_ref().0.tcp(),
        }
    }

    /// Remembers what is TLS's own trouble, which the pump passes on as a lost connection.
    fn failed(&mut self, error: io::Error) -> io::Error {
        let kind = error.kind();
        if self.is_tls() && error.get_ref().is_some() {
            self.failure = Some(error);
        }
        kind.into()
    }
}
