//! A session between two processes: what one leaves of it, and how the next takes it up.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use penstock_inspect::connection::{Connection, Limits, Mode, Sender};

use super::super::handover::{Each, FrozenRelay};
use super::super::lookup::Found;
use super::{End, Inspection, Session};

impl Session {
    /// Stops, and gives all that another process needs to go on from here; `None` for a connection that is ending.
    pub(in super::super) fn freeze(&mut self) -> io::Result<Option<(FrozenRelay, OwnedFd, OwnedFd)>> {
        if self.is_inside_tls() || self.closing.is_some() || self.cut.is_some() || self.is_over() {
            return Ok(None);
        }
        let connection = match &self.inspection {
            Inspection::Passing => None,
            Inspection::Following(connection) => {
                let frozen = connection.freeze(super::super::now());
                Some(String::from_utf8(frozen).map_err(io::Error::other)?)
            }
        };
        let sockets = (self.client.leg.socket()?, self.server.leg.socket()?);
        self.frozen = true;
        let each = |client: bool, server: bool| Each { client, server };
        let relay = FrozenRelay {
            connection,
            backlog: Each {
                client: std::mem::take(&mut self.client.backlog),
                server: std::mem::take(&mut self.server.backlog),
            },
            over: each(self.client.over, self.server.over),
            finished: each(self.client.finished, self.server.finished),
        };
        Ok(Some((relay, sockets.0, sockets.1)))
    }

    /// A session that goes on where another process stopped.
    pub(in super::super) fn thaw(mut self, relay: FrozenRelay) -> Self {
        for side in [Sender::Client, Sender::Server] {
            let peer = self.peer(side);
            peer.backlog.clone_from(relay.backlog.of(side));
            peer.over = *relay.over.of(side);
            peer.finished = *relay.finished.of(side);
        }
        self
    }

    /// How a connection that another process followed is judged from here on.
    pub(in super::super) fn thawed(
        found: &Found,
        mode: Mode,
        frozen: Option<&str>,
    ) -> Result<Inspection, End> {
        match (found, frozen) {
            (Found::Nothing | Found::Unusable(_), _) => Err(End::Revoked),
            (Found::Anything, _) => Ok(Inspection::Passing),
            // What is handed over speaks plainly.
            (Found::Only(set), _) if set.tls.is_some() && mode == Mode::Enforce => Err(End::Revoked),
            (Found::Only(set), None) if set.tls.is_some() => Ok(Inspection::Passing),
            (Found::Only(_), None) => Err(End::Unfollowed),
            (Found::Only(set), Some(frozen)) => {
                let rules = Arc::clone(&set.rules);
                let (bytes, now) = (frozen.as_bytes(), super::super::now());
                Connection::thaw(bytes, now, rules, mode, set.on_refusal, Limits::default())
                    .map(Inspection::Following)
                    .map_err(|error| {
                        tracing::warn!(%error, "a connection that was handed over is reset");
                        End::Unfollowed
                    })
            }
        }
    }
}
