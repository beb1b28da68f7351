//! A TCP stream under TLS: bounded in what it takes before the peer is known, able to move from the thread that
//! meets strangers to the one that serves, and, where whoever serves accounts for that, read ahead while much comes.

mod ahead;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use self::ahead::Ahead;

/// What a peer may send for its handshake, bytes: a greeting with post-quantum keys and a certificate chain have 4 KiB.
pub const HANDSHAKE_BYTES_MAX: usize = 32 * 1024;

/// The stream.
#[derive(Debug)]
pub struct Socket {
    /// Absent only if a move failed.
    tcp: Option<TcpStream>,
    /// What may still be read before the peer is known.
    left: Option<usize>,
    /// Absent: nothing is read ahead.
    ahead: Option<Ahead>,
}

impl Socket {
    /// Of a peer that nobody knows yet.
    pub fn of_stranger(tcp: TcpStream) -> Self {
        Self {
            tcp: Some(tcp),
            left: Some(HANDSHAKE_BYTES_MAX),
            ahead: None,
        }
    }

    /// The peer is known now, and served by the thread that calls this.
    ///
    /// # Errors
    /// The runtime of this thread cannot watch the socket.
    pub fn settle(&mut self) -> io::Result<()> {
        self.left = None;
        let tcp = self.tcp.take().ok_or(io::ErrorKind::NotConnected)?;
        self.tcp = Some(TcpStream::from_std(tcp.into_std()?)?);
        Ok(())
    }

    /// The stream below, while there is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        self.tcp.as_ref()
    }

    /// Reads ahead from now on while much comes, which takes up to 32 KiB: whoever serves many counts that ([`Self::held_bytes`]).
    pub fn read_ahead(&mut self) {
        self.ahead = Some(Ahead::default());
    }

    /// Memory that it takes beside its own size, bytes.
    pub fn held_bytes(&self) -> usize {
        self.ahead.as_ref().map_or(0, Ahead::held_bytes)
    }

    fn pinned(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let tcp = self.tcp.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Pin::new(tcp))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(left) = self.left else {
            let Self { tcp, ahead, .. } = &mut *self;
            let tcp = Pin::new(tcp.as_mut().ok_or(io::ErrorKind::NotConnected)?);
            return match ahead {
                Some(ahead) => ahead.poll_read(tcp, cx, buffer),
                None => tcp.poll_read(cx, buffer),
            };
        };
        if left == 0 {
            let words = format!("the peer sent more than {HANDSHAKE_BYTES_MAX} bytes for its handshake");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, words)));
        }
        let room = buffer.remaining().min(left);
        let mut some = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(self.pinned()?.poll_read(cx, &mut some))?;
        let count = some.filled().len();
        buffer.advance(count);
        self.left = Some(left.saturating_sub(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.pinned()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pinned()?.poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pinned()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pinned()?.poll_shutdown(cx)
    }
}
