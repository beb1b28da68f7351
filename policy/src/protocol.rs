//! The protocols whose operations Penstock tells apart: one line each.
//!
//! A protocol is a [`Vocabulary`], a constant in a file of its own: its services, its operations with what each can be
//! limited by, its groups and its words. All that the policy does with it is written once, for all protocols: reading a
//! document ([`crate::document`]), the encoding in plans ([`permitted`]), `explain`, `diff`, `check`, `reach`, the JSON Schema and
//! the tables of the documentation. What bytes mean is `penstock-inspect`'s.
//!
//! To add one: a line in the list below, a file `protocol/P.rs`, a line and a folder in `penstock-inspect`.

pub mod permitted;
pub mod roles;
pub mod vocabulary;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use self::permitted::{LimitSet, Operations, Permitted};
pub use self::roles::{RoleOperations, Roles};
pub use self::vocabulary::{Carrier, NamedService, Vocabulary};

/// Declares the modules of protocols and the list of their vocabularies.
macro_rules! protocols {
    ($($module:ident,)*) => {
        $(pub mod $module;)*

        /// The vocabularies, in the order in which people see them.
        static ALL: &[Protocol] = &[$(Protocol(&$module::VOCABULARY),)*];
    };
}

protocols! {
    modbus_tcp,
    mqtt,
}

/// One of the protocols of the list, by its vocabulary. It is written as its word.
#[derive(Clone, Copy)]
pub struct Protocol(&'static Vocabulary);

impl Protocol {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> + Clone {
        ALL.iter().copied()
    }

    /// The protocol with this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::all().find(|protocol| protocol.word == word)
    }

    /// What it is called and can do.
    pub fn vocabulary(self) -> &'static Vocabulary {
        self.0
    }
}

impl Deref for Protocol {
    type Target = Vocabulary;

    fn deref(&self) -> &Vocabulary {
        self.0
    }
}

impl PartialEq for Protocol {
    fn eq(&self, other: &Self) -> bool {
        self.word == other.word
    }
}

impl Eq for Protocol {}

impl PartialOrd for Protocol {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Protocol {
    fn cmp(&self, other: &Self) -> Ordering {
        self.word.cmp(other.word)
    }
}

impl Hash for Protocol {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.word.hash(state);
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word)
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word)
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Self::of(&word).ok_or_else(|| de::Error::custom(format_args!("unknown protocol `{word}`")))
    }
}

#[cfg(test)]
mod tests;
