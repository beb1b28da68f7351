//! How many connections are inspected at once, in all and of one client: bounded, and counted by what holds the seat.
//! The seats also know the ports that a client uses, which the inspector must not use in its name.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// Bounds on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// At once.
    pub connections_max: usize,
    /// At once of one client address.
    pub connections_per_client_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_client_max: 2048,
        }
    }
}

/// Why there is no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    /// The gateway's limit.
    #[error(
        "connection reset: {0} connections are inspected, which is the most (inspect.connections_max in agent.toml)"
    )]
    All(usize),
    /// The client's.
    #[error(
        "connection reset: this client has {0} connections, which is the most of one \
         (inspect.connections_per_client_max in agent.toml)"
    )]
    Client(usize),
}

/// All seats.
#[derive(Debug)]
pub(super) struct Seats {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// The source ports of each client's connections.
    by_client: HashMap<IpAddr, Vec<u16>>,
}

/// One connection's seat; free again when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    client: SocketAddr,
}

impl Seats {
    /// None taken.
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            taken: Mutex::default(),
        })
    }

    /// A seat for one more connection of `client`.
    pub(super) fn take(self: &Arc<Self>, client: SocketAddr) -> Result<Seat, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = taken.by_client.get(&client.ip()).map_or(0, Vec::len);
        let full = if taken.all >= self.limits.connections_max {
            Some(Full::All(taken.all))
        } else if of_client >= self.limits.connections_per_client_max {
            Some(Full::Client(of_client))
        } else {
            None
        };
        if let Some(full) = full {
            return Err(full);
        }
        taken.all += 1;
        taken
            .by_client
            .entry(client.ip())
            .or_default()
            .push(client.port());
        Ok(Seat {
            seats: Arc::clone(self),
            client,
        })
    }

    /// Whether a client has a connection from this address and port.
    pub(super) fn is_used(&self, client: SocketAddr) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let ports = taken.by_client.get(&client.ip());
        ports.is_some_and(|ports| ports.contains(&client.port()))
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(ports) = taken.by_client.get_mut(&self.client.ip()) {
            if let Some(place) = ports.iter().position(|port| *port == self.client.port()) {
                ports.swap_remove(place);
            }
            if ports.is_empty() {
                taken.by_client.remove(&self.client.ip());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_seat_is_free_again_when_its_connection_ends() {
        let seats = Seats::new(Limits {
            connections_max: 3,
            connections_per_client_max: 2,
        });
        let [one, two] = ["10.0.0.1:20000", "10.0.0.2:20000"].map(|client| client.parse().unwrap());
        let first = seats.take(one).unwrap();
        let _second = seats.take(one).unwrap();
        assert_eq!(seats.take(one).unwrap_err(), Full::Client(2));
        let _third = seats.take(two).unwrap();
        assert_eq!(seats.take(two).unwrap_err(), Full::All(3));
        assert!(seats.is_used(one) && seats.is_used(two));
        drop(first);
        assert!(seats.is_used(one), "it has a second one to another server");
        assert_eq!(seats.taken(), 2);
        assert!(seats.take(one).is_ok());
    }
}
