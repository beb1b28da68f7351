//! A session between two processes: what one leaves of it, and how the next takes it up.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use penstock_inspect::connection::{Connection, ConnectionLimits, Mode, Output, Sender, ThawError};
use penstock_inspect::judge::Rules;
use penstock_policy::terms::OnRefusal;

use super::super::handover::{Each, FrozenRelay};
use super::super::lookup::TupleRules;
use super::{ConnectionEnd, Inspection, Session};

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

    /// A session that goes on where another process stopped; what it held and now passes is sent first.
    pub(in super::super) fn thaw(mut self, relay: FrozenRelay) -> Self {
        for side in [Sender::Client, Sender::Server] {
            let peer = self.peer(side);
            let mut backlog = relay.backlog.of(side).clone();
            backlog.append(&mut peer.backlog);
            peer.backlog = backlog;
            peer.over = *relay.over.of(side);
            peer.finished = *relay.finished.of(side);
        }
        self
    }

    /// How a connection that another process followed is judged from here on, and what passes at once of what was held of
    /// it, by receiver.
    pub(in super::super) fn thawed(
        found: &TupleRules,
        mode: Mode,
        frozen: Option<&str>,
    ) -> Result<(Inspection, Each<Vec<u8>>), ConnectionEnd> {
        let bytes = frozen.map(str::as_bytes).unwrap_or_default();
        let passing = || {
            let [server, client] = match frozen {
                Some(_) => Connection::unsent(bytes).map_err(|error| lost(&error))?,
                None => Default::default(),
            };
            Ok((Inspection::Passing, Each { client, server }))
        };
        let set = match found {
            // It takes leave of its peers first.
            TupleRules::Nothing | TupleRules::Unusable(_) if mode == Mode::Enforce => {
                return leaving(bytes).ok_or(ConnectionEnd::Unreadable);
            }
            // It is followed on, so that a later policy may limit it again.
            TupleRules::Nothing | TupleRules::Anything | TupleRules::Unusable(_) => {
                return under_no_rule(bytes, Mode::Observe)
                    .map_or_else(passing, |connection| Ok(going_on(connection)));
            }
            TupleRules::Only(set) => set,
        };
        // What is handed over speaks plainly.
        if set.tls.is_some() {
            return match mode {
                Mode::Enforce => leaving(bytes).ok_or(ConnectionEnd::Unreadable),
                Mode::Observe => passing(),
            };
        }
        if frozen.is_none() && mode == Mode::Enforce {
            return Err(ConnectionEnd::Unfollowed);
        }
        let Some(rules) = set.rules.as_ref().map(Arc::clone) else {
            return passing();
        };
        let now = super::super::now();
        let limits = ConnectionLimits::default();
        match Connection::thaw(bytes, now, rules, mode, set.on_refusal, limits) {
            Ok(connection) => Ok(going_on(connection)),
            Err(_) if mode == Mode::Observe => passing(),
            Err(error) => leaving(bytes).ok_or_else(|| lost(&error)),
        }
    }

    /// Sends these first.
    pub(in super::super) fn before(mut self, held: Each<Vec<u8>>) -> Self {
        (self.client.backlog, self.server.backlog) = (held.client, held.server);
        self
    }
}

/// A connection that goes on only to end in order, if its protocol has such an end.
fn leaving(frozen: &[u8]) -> Option<(Inspection, Each<Vec<u8>>)> {
    let connection = under_no_rule(frozen, Mode::Enforce).filter(Connection::takes_leave)?;
    Some((Inspection::Following(connection), Each::default()))
}

/// A connection of whose operations no rule permits any; `None` if it was closed, or cannot go on in this mode.
fn under_no_rule(frozen: &[u8], mode: Mode) -> Option<Connection> {
    let rules = Arc::new(Rules::nothing(Connection::frozen_protocol(frozen)?)?);
    let (now, limits) = (super::super::now(), ConnectionLimits::default());
    Connection::thaw(frozen, now, rules, mode, OnRefusal::Answer, limits).ok()
}

/// A connection, and what passes at once of what it held.
fn going_on(mut connection: Connection) -> (Inspection, Each<Vec<u8>>) {
    let mut held: Each<Vec<u8>> = Each::default();
    connection.settle(&mut |output| match output {
        Output::ToServer(bytes) => held.server.extend_from_slice(bytes),
        Output::ToClient(bytes) => held.client.extend_from_slice(bytes),
        _ => {}
    });
    (Inspection::Following(connection), held)
}

fn lost(error: &ThawError) -> ConnectionEnd {
    tracing::warn!(%error, "a connection that was handed over is reset");
    ConnectionEnd::Unfollowed
}
