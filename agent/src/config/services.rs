//! Services of the gateway itself, which the kernel's rules open: where devices enrol, and what panels read.

use std::net::SocketAddr;

use serde::Deserialize;

use super::Config;
use crate::enforce::{OwnClients, OwnServices};

/// Addresses at which devices enrol; each stands in the gateway's certificate.
const EST_LISTEN_MAX: usize = 8;

/// Where devices enrol, as it was typed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TypedEst {
    listen: Vec<SocketAddr>,
}

impl TypedEst {
    /// The addresses, checked or not.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.listen
    }

    /// The addresses, or what is wrong with them.
    pub(super) fn check(self) -> Result<Vec<SocketAddr>, (&'static str, String)> {
        if let Some(at) = self.listen.iter().find(|at| !is_own_place(at)) {
            let words = format!("holds {at}: name one of the gateway's own addresses, and a port");
            return Err(("est.listen", words));
        }
        if self.listen.len() > EST_LISTEN_MAX {
            let words = format!("holds more than {EST_LISTEN_MAX} addresses");
            return Err(("est.listen", words));
        }
        Ok(self.listen)
    }
}

impl Config {
    /// The services of the gateway itself that the rules open, and to whom.
    pub fn own_services(&self) -> OwnServices {
        let enrolling = self.est.iter().map(|at| (*at, OwnClients::GuardedSides));
        let panel = self.panel.iter();
        let read = panel.map(|panel| (panel.listen, OwnClients::Only(panel.clients.clone())));
        enrolling.chain(read).collect()
    }
}

/// Whether a service of the gateway itself can be there: an address of one machine, and a port.
pub(super) fn is_own_place(at: &SocketAddr) -> bool {
    !at.ip().is_unspecified() && !at.ip().is_multicast() && at.port() != 0
}
