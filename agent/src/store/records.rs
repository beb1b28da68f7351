//! What those who keep something need of the store: records by name, kept whole or not at all.
//!
//! [`Store`] keeps them on the disk. A test's world keeps them on a disk of its own, which fails and tears on demand.

use penstock_proto::v1::Fault;

use super::{Store, StoreError};

/// Records by name. Whoever implements it may wait for the disk.
pub trait Records {
    /// The record, if there is one that can be used.
    fn load(&mut self, record: &'static str) -> Option<Vec<u8>>;
    /// Stores the record, durable when this returns well.
    ///
    /// # Errors
    /// It is not stored, and what was there before is.
    fn save(&mut self, record: &'static str, payload: &[u8]) -> Result<(), StoreError>;
    /// Why it is not known whether there is such a record, after [`Self::load`] found none.
    fn unread(&self, record: &'static str) -> Option<&str>;
    /// Why a record that there is, or was, is not used, after [`Self::load`] found none.
    fn unusable(&self, record: &'static str) -> Option<&str>;
    /// What a person should know.
    fn faults(&self) -> Vec<Fault>;
    /// Tries to end the faults there are.
    fn mend(&mut self);
}

impl Records for Store {
    fn load(&mut self, record: &'static str) -> Option<Vec<u8>> {
        Self::load(self, record)
    }

    fn save(&mut self, record: &'static str, payload: &[u8]) -> Result<(), StoreError> {
        Self::save(self, record, payload)
    }

    fn unread(&self, record: &'static str) -> Option<&str> {
        Self::unread(self, record)
    }

    fn unusable(&self, record: &'static str) -> Option<&str> {
        Self::unusable(self, record)
    }

    fn faults(&self) -> Vec<Fault> {
        Self::faults(self)
    }

    fn mend(&mut self) {
        Self::mend(self);
    }
}
