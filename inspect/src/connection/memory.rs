//! What is known of clients beyond one connection: one [`Memory`] serves all connections that pass a gateway, whatever they speak.
//!
//! What a protocol keeps there, and within which bounds, is its own ([`Remembered`]); most keep nothing.

use std::any::Any;
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// What protocols know of clients beyond a connection, at most one thing of each.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Vec<Arc<dyn Remembered>>>);

/// What one protocol keeps, within bounds of its own.
pub(crate) trait Remembered: Any + Debug + Send + Sync {
    /// Clients that are not connected, of which something is kept.
    fn kept(&self) -> usize;
}

/// A connection's way to what is known beyond it: where that is, to which server it leads, and from which client's address.
#[derive(Debug, Clone)]
pub(crate) struct Recollection {
    pub(crate) memory: Arc<Memory>,
    pub(crate) server: SocketAddr,
    pub(crate) client: IpAddr,
}

impl Memory {
    /// A protocol's part of it.
    pub(crate) fn of<T: Remembered + Default>(&self) -> Arc<T> {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = parts.iter().find_map(|part| {
            let part: Arc<dyn Any + Send + Sync> = Arc::<dyn Remembered>::clone(part);
            part.downcast::<T>().ok()
        });
        known.unwrap_or_else(|| {
            let new = Arc::<T>::default();
            parts.push(Arc::<T>::clone(&new));
            new
        })
    }

    /// Clients that are not connected, of which something is kept.
    pub fn kept(&self) -> usize {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().map(|part| part.kept()).sum()
    }
}
