//! Which of our tables judge packets, under their own name and under the one that they have while they take others' place.

use std::io;

use super::{RulesetReader, name};
use crate::enforce::nft::names::{FAMILY_NAMES, TABLE, TABLE_BESIDE};
use crate::enforce::nft::wire::{FAMILIES, GET_RULE, GET_TABLE, TABLE_ATTRIBUTE};

/// Where our rules are. Tables without any judge nothing: they wait to be filled or to be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::enforce) struct Judging {
    /// How many rules there are under our own name.
    pub(in crate::enforce) own: usize,
    /// How many there are beside. Where both judge as an agent left them, they are as many.
    pub(in crate::enforce) beside: usize,
    /// The families of the tables beside.
    pub(in crate::enforce) families_beside: Vec<&'static str>,
}

impl RulesetReader {
    /// Which of our tables judge.
    ///
    /// # Errors
    /// The kernel does not answer, or its rules keep changing.
    pub(in crate::enforce) fn judging(&self) -> io::Result<Judging> {
        self.steadily(Self::judging_once)
    }

    fn judging_once(&self) -> io::Result<Judging> {
        let mut judging = Judging::default();
        for (family, family_name) in FAMILIES.into_iter().zip(FAMILY_NAMES) {
            self.dump(GET_TABLE, family, &[], |message| {
                if name(&message, TABLE_ATTRIBUTE).as_deref() == Some(TABLE_BESIDE) {
                    judging.families_beside.push(family_name);
                }
            })?;
            self.dump(GET_RULE, family, &[], |message| {
                match name(&message, TABLE_ATTRIBUTE).as_deref() {
                    Some(TABLE) => judging.own += 1,
                    Some(TABLE_BESIDE) => judging.beside += 1,
                    _ => {}
                }
            })?;
        }
        Ok(judging)
    }
}
