//! Who the peers of a connection are whose TLS ends here, and its end where the key of one no longer counts.

use penstock_inspect::connection::{Mode, Sender};
use penstock_proto::withdrawn::Life;

use super::{ConnectionEnd, Session};

/// Whose certificates were shown, and of which lives.
#[derive(Debug)]
pub(in super::super) struct Lives {
    /// The client's.
    pub(in super::super) client: Life,
    /// The server's, where it is known by the plant's authority.
    pub(in super::super) server: Option<Life>,
}

impl Session {
    /// Ends it where `is_over` says that the key of one of its peers no longer counts. What is only observed is ended for nothing.
    pub(in super::super) fn heed(&mut self, is_over: impl Fn(&Life) -> bool, mode: Mode) {
        let Some(lives) = self.lives.as_deref().filter(|_| mode == Mode::Enforce) else {
            return;
        };
        let side = if is_over(&lives.client) {
            Sender::Client
        } else if lives.server.as_ref().is_some_and(&is_over) {
            Sender::Server
        } else {
            return;
        };
        self.revoke_as(ConnectionEnd::Withdrawn(side));
    }
}
