//! The writer's connection, and what its transaction has changed so far: each statement that changes what a store means notes it
//! here, and the log gets it as an entry.
//!
//! What follows from an effect (heads behind blocks, the tree, what a trail holds) is not noted: whoever applies the effect does the same.

use std::cell::RefCell;
use std::ops::Deref;

use rusqlite::Connection;

use crate::store::log::entry::Effect;

/// The connection of the one writer.
#[derive(Debug)]
pub(super) struct Ledger {
    connection: Connection,
    /// `None`: nobody follows this store.
    effects: Option<RefCell<Vec<Effect>>>,
}

impl Ledger {
    /// Of a store that stands alone.
    pub(super) fn alone(connection: Connection) -> Self {
        Self {
            connection,
            effects: None,
        }
    }

    /// Of one of several copies.
    pub(super) fn noting(connection: Connection) -> Self {
        Self {
            connection,
            effects: Some(RefCell::default()),
        }
    }

    /// Notes what was changed.
    pub(super) fn note(&self, effect: impl FnOnce() -> Effect) {
        if let Some(effects) = &self.effects {
            effects.borrow_mut().push(effect());
        }
    }

    /// What was changed since this was asked before.
    pub(super) fn take_effects(&self) -> Vec<Effect> {
        self.effects.as_ref().map(RefCell::take).unwrap_or_default()
    }
}

impl Deref for Ledger {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}
