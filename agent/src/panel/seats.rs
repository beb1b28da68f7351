//! Who has a connection: bounded in all and for each client, so that no client takes another's. Pure, but for the tokens by which a
//! connection is ended.

use std::net::IpAddr;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

/// Connections at once.
pub(super) const SEATS_MAX: usize = 16;
/// Of one client, where there are few.
const CLIENT_SEATS_MAX: usize = 4;

/// A connection's place. The number tells it from others of its client.
#[derive(Debug)]
struct Seat {
    number: u64,
    client: IpAddr,
    heard: Instant,
    end: CancellationToken,
}

/// All places.
#[derive(Debug)]
pub(super) struct Seats {
    per_client: usize,
    next: u64,
    taken: Vec<Seat>,
}

impl Seats {
    /// For so many clients, each of which has its share.
    pub(super) fn for_clients(clients: usize) -> Self {
        Self {
            per_client: (SEATS_MAX / clients.max(1)).clamp(1, CLIENT_SEATS_MAX),
            next: 0,
            taken: Vec::new(),
        }
    }

    /// A place for a new connection of `client`, and what ends it. A client that has all of its own loses the one that was silent for
    /// longest: a panel that restarted does not wait for its former connections. `None`: all places are taken.
    pub(super) fn take(&mut self, client: IpAddr, now: Instant) -> Option<(u64, CancellationToken)> {
        let own = || self.taken.iter().filter(|seat| seat.client == client);
        if own().count() >= self.per_client
            && let Some(number) = own().min_by_key(|seat| seat.heard).map(|seat| seat.number)
        {
            self.leave(number);
        }
        if self.taken.len() >= SEATS_MAX {
            return None;
        }
        self.next += 1;
        let (number, end) = (self.next, CancellationToken::new());
        self.taken.push(Seat {
            number,
            client,
            heard: now,
            end: end.clone(),
        });
        Some((number, end))
    }

    /// Its client asked something.
    pub(super) fn heard(&mut self, number: u64, now: Instant) {
        if let Some(seat) = self.taken.iter_mut().find(|seat| seat.number == number) {
            seat.heard = now;
        }
    }

    /// The connection is over, or is to be.
    pub(super) fn leave(&mut self, number: u64) {
        self.taken.retain(|seat| {
            let stays = seat.number != number;
            if !stays {
                seat.end.cancel();
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn client(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    #[test]
    fn a_client_that_comes_again_loses_its_longest_silent_connection_and_no_other_clients() {
        let now = Instant::now();
        let at = |second| now + Duration::from_secs(second);
        let mut seats = Seats::for_clients(2);
        let (_, other) = seats.take(client(9), at(0)).unwrap();
        let own: Vec<_> = (0..4).map(|n| seats.take(client(1), at(n)).unwrap()).collect();
        seats.heard(own[0].0, at(5));
        let (_, next) = seats.take(client(1), at(6)).unwrap();
        let over: Vec<bool> = own.iter().map(|(_, end)| end.is_cancelled()).collect();
        assert_eq!(over, [false, true, false, false]);
        assert!(!other.is_cancelled() && !next.is_cancelled());
    }

    proptest! {
        #[test]
        fn each_listed_client_finds_a_place_whatever_the_others_do(
            clients in 1_usize..=SEATS_MAX, comes in prop::collection::vec((0_u8..16, any::<bool>()), 0..200),
        ) {
            let now = Instant::now();
            let mut seats = Seats::for_clients(clients);
            let mut held: BTreeMap<u64, CancellationToken> = BTreeMap::new();
            for (number, leaves) in comes {
                let number = number % u8::try_from(clients).unwrap();
                let (seat, end) = seats.take(client(number), now).unwrap();
                held.insert(seat, end);
                if leaves {
                    seats.leave(seat);
                }
                let standing = held.values().filter(|end| !end.is_cancelled()).count();
                prop_assert_eq!(standing, seats.taken.len());
                prop_assert!(standing <= SEATS_MAX);
            }
        }
    }
}
