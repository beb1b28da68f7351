//! What is known of whoever is at the other end of an accepted connection, and the means to end it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::peer::{Certified, PeerIdentity};

/// What is known of a connection's peer; in the extensions of each request.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Its address.
    pub address: SocketAddr,
    /// What its verified certificate says; `None`: it showed none.
    pub certified: Option<Certified>,
    /// When that certificate ends, or that it had ended when the peer came; `None`: it showed none.
    pub ends: Option<Instant>,
    /// What issued that certificate was withdrawn: it counts as one that has ended.
    pub issuer_withdrawn: bool,
    /// To end the connection.
    pub line: ConnectionCutter,
}

impl PeerInfo {
    /// Who it is; `None`: it showed no certificate.
    pub fn identity(&self) -> Option<&PeerIdentity> {
        self.certified.as_ref().map(|certified| &certified.identity)
    }

    /// Whether the certificate that opened the connection has ended.
    pub fn has_ended(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= Instant::now())
    }
}

/// When a certificate ends that is valid until then, milliseconds since 1970: from now on no clock that is set moves it.
pub(super) fn end_of(until_ms: u64) -> Instant {
    let now = Instant::now();
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_millis(until_ms).saturating_sub(time);
    // So far off that no clock shows it: years are as good.
    now.checked_add(left)
        .unwrap_or(now + Duration::from_secs(10 * 365 * 86_400))
}

/// Ends a connection from where its requests are served: what waits in it for a reader that does not read is freed by
/// nothing else.
#[derive(Debug, Clone)]
pub struct ConnectionCutter(Arc<Mutex<Option<oneshot::Sender<()>>>>);

impl ConnectionCutter {
    pub(super) fn new() -> (Self, oneshot::Receiver<()>) {
        let (cut, is_cut) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(cut)))), is_cut)
    }

    /// Ends it.
    pub fn cut(&self) {
        let cut = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(cut) = cut {
            // It may have ended by itself.
            let _ = cut.send(());
        }
    }
}
