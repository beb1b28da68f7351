//! The protocols that are read: one line each. What one takes, its folder holds.
//!
//! To add one: a folder with an [`Inspector`] and a line here; a vocabulary in `penstock-policy`.

use std::fmt::{self, Debug};
use std::time::Duration;

use penstock_policy::protocol::{Operations, Protocol};
use serde_json::value::RawValue;

use crate::connection::ConnectionLimits;
use crate::connection::frozen::ThawError;
use crate::connection::machine::{Machine, Terms};

use crate::judge::{Judge, Rules, RulesError};
use crate::learn::{EntryKey, EntrySeen, Lesson};
use crate::operation::Operation;
use crate::query::{Query, QueryError, Words};

pub(crate) use crate::INSPECTORS as ALL;

/// What shows that an operation was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// Nothing: it has no answer.
    Nothing,
    /// That no refusal of it was seen.
    NoRefusal,
    /// Its answer.
    Answer,
}

/// How one protocol is read.
pub(crate) trait Inspector: Debug + Sync {
    /// Which it is.
    fn protocol(&self) -> Protocol;

    /// An operation as events say it.
    ///
    /// # Errors
    /// It cannot be written there.
    fn show(&self, operation: &Operation<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Reads an operation as a person asks for it; `None`: the protocol has none of that name.
    fn read(&self, name: &str, words: &mut Words<'_>) -> Option<Result<Query, QueryError>>;

    /// How one is asked for, as a help for who asked for none.
    fn example(&self) -> &'static str;

    /// What the narrowest entry that permits an operation permits beyond it.
    fn wider_than(&self, _operation: &Operation<'_>) -> Option<&'static str> {
        None
    }

    /// What is proposed for an operation that was seen.
    fn learn(&self, operation: &Operation<'_>) -> Lesson;

    /// What shows that a server has carried it out.
    fn confirmed_by(&self, _operation: &Operation<'_>) -> Confirmation {
        Confirmation::Nothing
    }

    /// Whether the first bytes of a client are beyond doubt this protocol's.
    fn is_opened_by(&self, _bytes: &[u8]) -> bool {
        false
    }

    /// Whether rules permit all that was seen of a line: each range whole, with every value.
    fn permits(&self, rules: &Rules, key: &EntryKey, seen: &EntrySeen) -> bool;

    /// Compiles the lists of flows that share a connection, none of them empty. Rules are numbered through.
    ///
    /// # Errors
    /// An entry is not understood.
    fn compile(&self, lists: &[&Operations]) -> Result<Box<dyn Judge>, RulesError>;

    /// The same for lists of which some permit only what the list of the client's role does too.
    ///
    /// # Errors
    /// An entry is not understood, or the protocol's clients have no roles.
    fn compile_within(
        &self,
        _lists: &[(&Operations, Option<&Operations>)],
    ) -> Result<Box<dyn Judge>, RulesError> {
        Err(RulesError::NotByRole(self.protocol()))
    }

    /// Rules that permit nothing.
    fn nothing(&self) -> Box<dyn Judge>;

    /// A connection that begins now.
    fn machine(&self, terms: Terms) -> Box<dyn Machine>;

    /// As what a frozen connection is written.
    fn frozen_as(&self) -> &'static str;

    /// A connection that another process followed to here.
    ///
    /// # Errors
    /// It could not be in this state, or an enforced flow does not permit it.
    fn thaw(&self, terms: Terms, frozen: &RawValue, now: Duration) -> Result<Box<dyn Machine>, ThawError>;

    /// What a frozen connection held that has not gone on: of the client, and of the server.
    ///
    /// # Errors
    /// It cannot be read, or bytes that have gone on lack their end, which was refused.
    fn unsent(&self, frozen: &RawValue) -> Result<[Vec<u8>; 2], ThawError>;

    /// The most bytes that a frozen connection takes.
    fn frozen_bytes_max(&self, limits: &ConnectionLimits) -> usize;

    /// What a connection's end may leave behind where its peers were not taken leave of.
    fn left_behind(&self) -> Option<&'static str> {
        None
    }
}

/// That of a protocol.
pub(crate) fn of(protocol: Protocol) -> Option<&'static dyn Inspector> {
    ALL.iter()
        .copied()
        .find(|inspector| inspector.protocol() == protocol)
}

/// The one whose client begins with these bytes, at whatever port.
pub(crate) fn by_content(bytes: &[u8]) -> Option<Protocol> {
    let found = ALL.iter().find(|inspector| inspector.is_opened_by(bytes));
    found.map(|inspector| inspector.protocol())
}

/// The one that a frozen connection was written by.
pub(crate) fn frozen_as(word: &str) -> Option<&'static dyn Inspector> {
    ALL.iter()
        .copied()
        .find(|inspector| inspector.frozen_as() == word)
}

/// The words for the end of a connection whose peers were not taken leave of, with what that may leave behind.
pub fn without_leave(words: &str) -> String {
    let left = ALL.iter().filter_map(|inspector| inspector.left_behind());
    [words].into_iter().chain(left).collect::<Vec<_>>().join("; ")
}
