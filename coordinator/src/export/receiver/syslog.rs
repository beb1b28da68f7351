//! Syslog over TLS (RFC 5425): messages of RFC 5424 by counted octets.
//!
//! The protocol has no acknowledgement. What is known of bytes is when the receiver's kernel has them: TCP's queue of what was
//! not sent or not acknowledged is empty then (`SIOCOUTQ`). Its program may still die before it reads them. So a batch counts
//! only when the connection still stands [`HOLD`] after the queue was empty; if the connection ends before, everything since is
//! sent again, and the receiver knows repeats by their position.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_proto::export::syslog::framed;
use penstock_proto::export::{ExportRecord, LineFormat};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ReceiverError;
use crate::export::settings::TlsFiles;

/// For how long a receiver that has bytes has to stand before they count.
pub(super) const HOLD: Duration = Duration::from_secs(5);
/// How long connecting may take, name and handshake included.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a receiver may take nothing.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Between two looks at TCP's queue.
const LOOK: Duration = Duration::from_millis(2);
/// Written at once.
const WRITE_BYTES: usize = 256 * 1024;

/// A connection to a receiver.
#[derive(Debug)]
pub(crate) struct SyslogReceiver {
    host: String,
    format: LineFormat,
    stream: TlsStream<TcpStream>,
}

impl SyslogReceiver {
    pub(super) async fn connect(
        (host, port): (&str, u16),
        server: ServerName<'static>,
        format: LineFormat,
        files: &TlsFiles,
    ) -> Result<Self, ReceiverError> {
        let files = files.clone();
        let config = tokio::task::spawn_blocking(move || files.config()).await;
        let named = format!("{host}:{port}");
        let failed = |source| ReceiverError::Connection {
            verb: "connect to",
            host: named.clone(),
            source,
        };
        let config = config.map_err(|error| failed(io::Error::other(error)))??;
        let connected = tokio::time::timeout(CONNECT_MAX, async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
            // A receiver that is gone without a word is noticed although nothing is sent.
            rustix::net::sockopt::set_tcp_keepidle(&stream, Duration::from_secs(10))?;
            rustix::net::sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(5))?;
            rustix::net::sockopt::set_tcp_keepcnt(&stream, 3)?;
            TlsConnector::from(Arc::new(config)).connect(server, stream).await
        });
        let stream = connected
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(failed)?;
        Ok(Self {
            host: named,
            format,
            stream,
        })
    }

    /// Writes all, and waits until the receiver's kernel has it.
    pub(super) async fn send(&mut self, records: &[ExportRecord]) -> Result<(), ReceiverError> {
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend_from_slice(&framed(&self.format.syslog(record)));
            if bytes.len() >= WRITE_BYTES {
                self.write(&bytes).await?;
                bytes.clear();
            }
        }
        self.write(&bytes).await?;
        self.drained().await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ReceiverError> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(STALL_MAX, written).await {
            Ok(written) => written.map_err(|source| self.broken(source)),
            Err(_) => Err(self.slow()),
        }
    }

    /// Waits until nothing is left that the receiver's kernel does not have.
    async fn drained(&mut self) -> Result<(), ReceiverError> {
        let mut queued = u64::MAX;
        let mut moved = Instant::now();
        loop {
            let left =
                unacknowledged(self.stream.get_ref().0.as_fd()).map_err(|source| self.broken(source))?;
            if left < queued {
                (queued, moved) = (left, Instant::now());
            }
            if left == 0 {
                return Ok(());
            }
            if moved.elapsed() >= STALL_MAX {
                return Err(self.slow());
            }
            if let Ok(ended) = tokio::time::timeout(LOOK, self.ended()).await {
                return Err(ended);
            }
        }
    }

    /// Waits until the connection ends. What a receiver sends is no part of the protocol, and says nothing.
    pub(super) async fn ended(&mut self) -> ReceiverError {
        let mut bytes = [0; 512];
        loop {
            match self.stream.read(&mut bytes).await {
                Ok(0) => return ReceiverError::Ended(self.host.clone()),
                Ok(_) => {}
                Err(source) => return self.broken(source),
            }
        }
    }

    fn broken(&self, source: io::Error) -> ReceiverError {
        ReceiverError::Connection {
            verb: "send to",
            host: self.host.clone(),
            source,
        }
    }

    fn slow(&self) -> ReceiverError {
        ReceiverError::Slow {
            host: self.host.clone(),
            seconds: STALL_MAX.as_secs(),
        }
    }
}

/// Bytes of a TCP connection that were not sent, or not acknowledged (`SIOCOUTQ`, tcp(7)).
#[allow(unsafe_code)] // One call for which no safe wrapper is at hand.
fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open as long as it is borrowed, and the request writes one int, which is `bytes`.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if asked < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn bytes_count_as_queued_until_the_other_end_has_them() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        assert_eq!(unacknowledged(one.as_fd()).unwrap(), 0);
        // More than the other end's buffer takes unread.
        one.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(bytes) = one.write(&[7; 65_536]) {
            written += bytes;
        }
        assert!(unacknowledged(one.as_fd()).unwrap() > 0);
        let mut read = vec![0; written];
        other.read_exact(&mut read).unwrap();
        let drained = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(2));
            unacknowledged(one.as_fd()).unwrap() == 0
        });
        assert!(drained);
    }
}
