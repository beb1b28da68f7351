//! Who got no connection: how many since somebody asked, and the last of them. Anybody who reaches the port can cause one, so they are counted.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Connections that were refused in their handshake, or for want of room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedConnections {
    /// How many.
    pub count: u64,
    /// Where the last one came from.
    pub address: IpAddr,
    /// Why that was refused.
    pub why: String,
}

/// Counts them.
#[derive(Debug, Default)]
pub struct TurnedAway {
    since: Mutex<Option<RefusedConnections>>,
    came: Notify,
}

impl TurnedAway {
    pub(super) fn note(&self, address: IpAddr, why: String) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let count = since.as_ref().map_or(0, |since| since.count);
        let count = count.saturating_add(1);
        *since = Some(RefusedConnections { count, address, why });
        self.came.notify_one();
    }

    /// Those since this was asked last; waits for one.
    pub async fn next(&self) -> RefusedConnections {
        loop {
            let came = self.came.notified();
            let since = self.since.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(since) = since {
                return since;
            }
            came.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_of_refused_connections_is_one_count_with_the_last_reason() {
        let turned_away = TurnedAway::default();
        for last in 0..=200 {
            turned_away.note(IpAddr::from([10, 0, 0, last]), format!("reason {last}"));
        }
        let all = RefusedConnections {
            count: 201,
            address: IpAddr::from([10, 0, 0, 200]),
            why: "reason 200".to_owned(),
        };
        assert_eq!(turned_away.next().await, all);
        let none = tokio::time::timeout(std::time::Duration::ZERO, turned_away.next()).await;
        assert!(none.is_err());
        turned_away.note(all.address, "again".to_owned());
        assert_eq!(turned_away.next().await.count, 1);
    }
}
