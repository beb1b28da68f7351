//! The two sides of a connection.

/// The side that sent a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Who opened the connection.
    Client,
    /// Whom it leads to.
    Server,
}

impl Sender {
    /// The side that it sends to.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}
