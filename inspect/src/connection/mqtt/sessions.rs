//! What clients published at QoS 2 and had not released, beyond the end of a connection: a session that is resumed on another one
//! releases what it published before, and that is judged by what it was.
//!
//! One [`Sessions`] serves all connections. Those of one client identifier to one broker share what they know, also while one
//! takes the session over from another. Of clients that are not connected the latest are kept, within [`KEPT_MAX`] and
//! [`KEPT_BYTES_MAX`]. What was forgotten, or was published past this gateway, is not known; see [`super::Mqtt::release`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::standing::Unfinished;

/// Clients that are not connected, of which something is kept.
const KEPT_MAX: usize = 1024;
/// What it takes of memory, bytes.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// What the connections of one session share.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Unfinished>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Unfinished> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A broker, and a client identifier.
type Name = (SocketAddr, Box<str>);

/// The sessions of all clients that pass this gateway.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<Name, Entry>,
    ended: u64,
}

#[derive(Debug, Default)]
struct Entry {
    shared: Shared,
    connections: usize,
    /// The later it was left, the greater.
    left: u64,
}

/// A connection's part in a session.
#[derive(Debug)]
pub(super) struct Membership {
    sessions: Arc<Sessions>,
    name: Name,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of that client begins.
    pub(super) fn join(self: &Arc<Self>, broker: SocketAddr, client_id: &str) -> (Shared, Membership) {
        let name: Name = (broker, client_id.into());
        let mut kept = self.lock();
        let entry = kept.entries.entry(name.clone()).or_default();
        entry.connections += 1;
        let shared = entry.shared.clone();
        drop(kept);
        let sessions = Arc::clone(self);
        (shared, Membership { sessions, name })
    }

    /// Clients that are not connected, of which something is kept.
    pub fn kept(&self) -> usize {
        let kept = self.lock();
        kept.entries
            .values()
            .filter(|entry| entry.connections == 0)
            .count()
    }
}

impl Kept {
    fn leave(&mut self, name: &Name) {
        self.ended += 1;
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        entry.connections = entry.connections.saturating_sub(1);
        entry.left = self.ended;
        if entry.connections > 0 {
            return;
        }
        if entry.shared.lock().is_empty() {
            self.entries.remove(name);
            return;
        }
        let left = self.entries.iter().filter(|(_, entry)| entry.connections == 0);
        let mut left: Vec<(u64, usize, Name)> = left
            .map(|(name, entry)| (entry.left, entry.shared.lock().memory(), name.clone()))
            .collect();
        left.sort_unstable_by_key(|(left, ..)| std::cmp::Reverse(*left));
        let mut bytes = 0;
        for (at, (_, of, name)) in left.into_iter().enumerate() {
            bytes += of + name.1.len();
            if at >= KEPT_MAX || bytes > KEPT_BYTES_MAX {
                self.entries.remove(&name);
            }
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.sessions.lock().leave(&self.name);
    }
}
