//! One side of an inspected connection, as the pump sees it: bytes in, bytes out, end, reset.
//!
//! Whatever stands between the socket and the inspector (TLS that ends at the gateway) belongs in here; the pump knows
//! nothing of it.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

/// One side.
#[derive(Debug)]
pub(super) struct Leg {
    stream: TcpStream,
}

impl Leg {
    /// A side that speaks plainly.
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self { stream }
    }

    /// Reads what there is; `Ready(Ok(0))` is the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        read.map_ok(|()| buffer.filled().len())
    }

    /// Writes what the peer takes.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// Says that nothing more comes.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// From now on, closing it means a reset.
    pub(super) fn reset_on_close(&self) {
        // A socket that is gone already needs no reset.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Whether the peer is known to be gone, also while nobody reads.
    pub(super) fn is_dead(&self) -> bool {
        !matches!(self.stream.take_error(), Ok(None))
    }

    /// A copy of its socket, to be handed over. Nothing of the stream is in this process but what was read of it.
    pub(super) fn socket(&self) -> io::Result<OwnedFd> {
        super::handover::copy(&self.stream)
    }
}
