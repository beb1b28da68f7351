//! What clients published at QoS 2 and had not released, beyond the end of a connection: a session that is resumed on another one
//! releases what it published before, and that is judged by what it was.
//!
//! One [`Sessions`] serves all connections. Those of one client identifier to one broker share what they know, also while one
//! takes the session over from another. Of clients that are not connected the latest are kept, within [`KEPT_MAX`] and
//! [`KEPT_BYTES_MAX`]; beyond, the address from which the most is kept loses what was left first, so that nobody crowds another's out
//! by calling itself many names. What was forgotten, or was published past this gateway, is not known; see
//! [`super::Mqtt::release`].

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::standing::UnreleasedPublications;
use crate::connection::memory::Remembered;

/// Clients that are not connected, of which something is kept.
const KEPT_MAX: usize = 1024;
/// What it takes of memory, bytes.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// What the connections of one session share.
#[derive(Debug, Clone, Default)]
pub(super) struct SessionPublications(Arc<Mutex<UnreleasedPublications>>);

impl SessionPublications {
    pub(super) fn lock(&self) -> MutexGuard<'_, UnreleasedPublications> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A broker, and a client identifier.
type Name = (SocketAddr, Arc<str>);

/// The sessions of all clients that pass this gateway.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<SessionTable>);

#[derive(Debug, Default)]
struct SessionTable {
    entries: HashMap<Name, SessionEntry>,
    ended: u64,
}

#[derive(Debug, Default)]
struct SessionEntry {
    shared: SessionPublications,
    connections: usize,
    /// From where it was connected last.
    client: Option<IpAddr>,
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
    fn lock(&self) -> MutexGuard<'_, SessionTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of that client begins.
    pub(super) fn join(
        self: &Arc<Self>,
        broker: SocketAddr,
        client: IpAddr,
        client_id: &str,
    ) -> (SessionPublications, Membership) {
        let name: Name = (broker, client_id.into());
        let mut kept = self.lock();
        let entry = kept.entries.entry(name.clone()).or_default();
        entry.connections += 1;
        entry.client = Some(client);
        let shared = entry.shared.clone();
        drop(kept);
        let sessions = Arc::clone(self);
        (shared, Membership { sessions, name })
    }
}

impl Remembered for Sessions {
    fn kept(&self) -> usize {
        let kept = self.lock();
        kept.entries
            .values()
            .filter(|entry| entry.connections == 0)
            .count()
    }
}

impl SessionTable {
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
        let mut shares: HashMap<Option<IpAddr>, Share> = HashMap::new();
        let (mut count, mut bytes) = (0, 0);
        for (name, entry) in left {
            let size = entry.shared.lock().memory() + name.1.len();
            let share = shares.entry(entry.client).or_default();
            share.bytes += size;
            share.names.push((entry.left, size, name.clone()));
            (count, bytes) = (count + 1, bytes + size);
        }
        while count > KEPT_MAX || bytes > KEPT_BYTES_MAX {
            // By what is scarce.
            let part = |share: &Share| match bytes > KEPT_BYTES_MAX {
                true => share.bytes,
                false => share.names.len(),
            };
            let Some(most) = shares.values_mut().max_by_key(|share| part(share)) else {
                return;
            };
            let first = (0_usize..).zip(&most.names).min_by_key(|(_, (left, ..))| *left);
            let Some(at) = first.map(|(at, _)| at) else { return };
            let (_, size, name) = most.names.swap_remove(at);
            most.bytes -= size;
            (count, bytes) = (count - 1, bytes - size);
            self.entries.remove(&name);
        }
    }
}

/// What is kept of clients at one address.
#[derive(Debug, Default)]
struct Share {
    bytes: usize,
    /// When each was left, and its bytes.
    names: Vec<(u64, usize, Name)>,
}

impl Membership {
    /// What it takes of memory, bytes.
    pub(super) fn memory(&self) -> usize {
        self.name.1.len()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.sessions.lock().leave(&self.name);
    }
}
