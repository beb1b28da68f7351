//! Why a connection ends from this side, in words for whoever serves it.

use std::io;

/// Why a connection ends from this side.
#[derive(Debug, Clone, Copy)]
pub(super) enum CloseReason {
    Lost,
    Dismissed,
    Cut,
    Overdue,
    Ended,
}

impl CloseReason {
    pub(super) fn error(self) -> io::Error {
        let (kind, words) = match self {
            Self::Lost => (
                io::ErrorKind::ConnectionAborted,
                "the limit of connections is reached, and this peer held the most of them",
            ),
            Self::Dismissed => (
                io::ErrorKind::ConnectionAborted,
                "the peer's key no longer counts, or is suspended",
            ),
            Self::Cut => (
                io::ErrorKind::ConnectionAborted,
                "the peer does not read the answers that it asked for",
            ),
            Self::Overdue => (
                io::ErrorKind::TimedOut,
                "the time for a connection without a client certificate is over",
            ),
            Self::Ended => (
                io::ErrorKind::TimedOut,
                "the certificate that opened the connection has ended",
            ),
        };
        io::Error::new(kind, words)
    }
}
