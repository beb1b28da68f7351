//! The head of the trail that is kept in the kernel.

use std::io;

use super::{RulesetReader, comment, name};
use crate::enforce::nft::names::{TABLE_WITNESS, WITNESS_HEAD};
use crate::enforce::nft::wire::{CHAIN_NAME, FAMILIES, GET_CHAIN, TABLE_ATTRIBUTE};

impl RulesetReader {
    /// The comment of its chain; `None`: it is not there.
    ///
    /// # Errors
    /// The kernel does not answer in time, or refuses.
    pub(in crate::enforce) fn witness(&self) -> io::Result<Option<String>> {
        self.steadily(Self::witness_once)
    }

    fn witness_once(&self) -> io::Result<Option<String>> {
        let [inet, _] = FAMILIES;
        let mut found = None;
        self.dump(GET_CHAIN, inet, &[], |message| {
            let is_of = |attribute, wanted| name(&message, attribute).as_deref() == Some(wanted);
            if is_of(TABLE_ATTRIBUTE, TABLE_WITNESS) && is_of(CHAIN_NAME, WITNESS_HEAD) {
                found = comment(&message);
            }
        })?;
        Ok(found)
    }
}
