//! A connection's state as bytes, so that a restarted agent goes on with connections that stand.
//!
//! JSON, strict: an unknown format, an unknown or lacking field, anything that a connection could not have come to,
//! and anything beyond the limits is refused; the caller then ends the connection, which its peers know how to open
//! again. What the flow says (rules, mode, refusals, limits) is not in it: the plan says that anew.
//!
//! The bytes hold what passed by: topics, client identifiers, the beginning of a packet, which may be a CONNECT with a
//! password. They are as secret as the traffic, and belong on no disk.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::protocol::Protocol;
use serde::de::{self, DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::machine::Terms;
use super::{Connection, ConnectionLimits, Mode};
use crate::judge::{OnRefusal, Rules};
use crate::protocols::{self, Inspector};

/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrozenEnvelope<State> {
    format: u32,
    state: State,
}

/// A connection's state as it is written: a word, or one key with what belongs to it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum WrittenState {
    /// Observed, and not followed all the way: it seeks where to go on.
    Passing(Protocol),
    Closed,
    #[serde(untagged)]
    Machine(MachineState),
}

/// What a protocol wrote, under its word.
struct MachineState(&'static str, Box<RawValue>);

impl Serialize for MachineState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(self.0, &self.1)])
    }
}

/// The same as it is read.
enum FrozenState<'a> {
    Machine(&'static dyn Inspector, &'a RawValue),
    Passing(Protocol),
    Closed,
}

impl<'de: 'a, 'a> Deserialize<'de> for FrozenState<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StateVisitor)
    }
}

struct StateVisitor;

impl<'de> Visitor<'de> for StateVisitor {
    type Value = FrozenState<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the state of a connection")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
        match word {
            "closed" => Ok(FrozenState::Closed),
            _ => Err(E::custom(format_args!("unknown state `{word}`"))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let word = map.next_key::<Cow<'_, str>>()?;
        let word = word.as_deref().unwrap_or_default();
        let state = match (word, protocols::frozen_as(word)) {
            (_, Some(inspector)) => FrozenState::Machine(inspector, map.next_value()?),
            ("passing", None) => FrozenState::Passing(map.next_value()?),
            _ => return Err(de::Error::custom(format_args!("unknown state `{word}`"))),
        };
        match map.next_key::<IgnoredAny>()? {
            None => Ok(state),
            Some(_) => Err(de::Error::custom("two states")),
        }
    }
}

impl FrozenState<'_> {
    /// What the connection speaks; a closed one nothing any more.
    fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Machine(inspector, _) => Some(inspector.protocol()),
            Self::Passing(protocol) => Some(*protocol),
            Self::Closed => None,
        }
    }
}

/// Only the format, whatever else there is.
#[derive(Deserialize)]
struct FormatTag {
    format: u32,
}

/// Why bytes are not a connection that can go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThawError {
    /// Not what `freeze` writes.
    #[error("the frozen connection cannot be read: {0}")]
    Unreadable(String),
    /// Another version of the agent wrote it.
    #[error("the frozen connection has format {0}, this agent knows {FORMAT}")]
    Format(u32),
    /// The flow now has rules for another protocol.
    #[error("the frozen connection speaks {frozen:?}, its rules now speak of {rules:?}")]
    Protocol {
        /// What it speaks.
        frozen: Protocol,
        /// What the rules are for.
        rules: Protocol,
    },
    /// It was observed and not understood any more, and the flow is now enforced.
    #[error("the frozen connection passes without being understood, which an enforced flow does not permit")]
    Unfollowed,
    /// A publication that was refused passes, since it was only observed, and the flow is now enforced.
    #[error("the frozen connection is within a publication that an enforced flow does not permit")]
    Refused,
    /// More than a connection may hold.
    #[error("the frozen connection has {count} {what}, the limit is {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// Parts that contradict each other.
    #[error("the frozen connection is not one that could be: {0}")]
    Inconsistent(&'static str),
}

impl ThawError {
    fn unreadable(error: &serde_json::Error) -> Self {
        Self::Unreadable(error.to_string())
    }

    pub(crate) fn unless_within(what: &'static str, count: usize, limit: usize) -> Result<(), Self> {
        if count > limit {
            Err(Self::TooMany { what, count, limit })
        } else {
            Ok(())
        }
    }

    pub(crate) fn unless(fits: bool, fault: &'static str) -> Result<(), Self> {
        if fits {
            Ok(())
        } else {
            Err(Self::Inconsistent(fault))
        }
    }
}

/// What a packet has sent on of itself is no more than what there is of it.
pub(crate) const PASSED: ThawError = ThawError::Inconsistent("more of a packet has gone on than came");

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
pub(crate) fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Bytes as hexadecimal text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl TryFrom<String> for Bytes {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        hex::decode(text).map(Self)
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        hex::encode(bytes.0)
    }
}

/// What a protocol wrote.
pub(crate) fn read<T: DeserializeOwned>(frozen: &RawValue) -> Result<T, ThawError> {
    serde_json::from_str(frozen.get()).map_err(|error| ThawError::unreadable(&error))
}

/// The state that frozen bytes hold, in the one format that is read.
fn state(frozen: &[u8]) -> Result<FrozenState<'_>, ThawError> {
    let unreadable = |error: serde_json::Error| ThawError::unreadable(&error);
    let FormatTag { format } = serde_json::from_slice(frozen).map_err(unreadable)?;
    if format != FORMAT {
        return Err(ThawError::Format(format));
    }
    let envelope: FrozenEnvelope<FrozenState<'_>> = serde_json::from_slice(frozen).map_err(unreadable)?;
    Ok(envelope.state)
}

impl ConnectionLimits {
    /// The most bytes that [`Connection::freeze`] gives under these limits.
    pub fn frozen_bytes_max(&self) -> usize {
        let machines = protocols::ALL
            .iter()
            .map(|inspector| inspector.frozen_bytes_max(self));
        4096 + machines.max().unwrap_or_default()
    }
}

impl Connection {
    /// All that [`Self::thaw`] needs to go on at exactly this place, `now` as in [`Self::feed`].
    pub fn freeze(&self, now: Duration) -> Vec<u8> {
        let inspector = self.rules.inspector();
        // Maps with number keys and strings only: it cannot fail, and nothing at all would thaw as an error.
        let written = || {
            let state = match self {
                _ if self.is_closed => WrittenState::Closed,
                _ if self.is_guessed => WrittenState::Passing(inspector.protocol()),
                _ => WrittenState::Machine(MachineState(inspector.frozen_as(), self.machine.freeze(now)?)),
            };
            let format = FORMAT;
            serde_json::to_vec(&FrozenEnvelope { format, state })
        };
        written().unwrap_or_default()
    }

    /// What a frozen connection speaks; `None` of one that was closed, or that cannot be read.
    pub fn frozen_protocol(frozen: &[u8]) -> Option<Protocol> {
        state(frozen).ok()?.protocol()
    }

    /// What a frozen connection held that has not gone on: of the client, and of the server. For one that passes on unread: also
    /// an answer that was to be completed, which then lacks what the server was not asked for.
    ///
    /// # Errors
    /// It cannot be read, or bytes that have gone on lack their end, which was refused.
    pub fn unsent(frozen: &[u8]) -> Result<[Vec<u8>; 2], ThawError> {
        match state(frozen)? {
            FrozenState::Machine(inspector, state) => inspector.unsent(state),
            FrozenState::Passing(_) | FrozenState::Closed => Ok(Default::default()),
        }
    }

    /// Goes on with a frozen connection, judged by `rules` from the next operation on. `now` may count from another
    /// moment than it did for `freeze`; no time counts as passed between the two. Where it now only observes,
    /// [`Self::settle`] gives what was held.
    ///
    /// # Errors
    /// The bytes are not a connection that could be in this state, or one that an enforced flow does not permit.
    pub fn thaw(
        frozen: &[u8],
        now: Duration,
        rules: Arc<Rules>,
        mode: Mode,
        on_refusal: OnRefusal,
        limits: ConnectionLimits,
    ) -> Result<Self, ThawError> {
        let most = limits.frozen_bytes_max();
        ThawError::unless_within("bytes", frozen.len(), most)?;
        let state = state(frozen)?;
        let other = state.protocol().filter(|frozen| *frozen != rules.protocol());
        if let Some(frozen) = other {
            let rules = rules.protocol();
            return Err(ThawError::Protocol { frozen, rules });
        }
        let terms = Terms {
            mode,
            on_refusal,
            limits,
        };
        let mut connection = Self::new(rules, mode, on_refusal, limits);
        match state {
            FrozenState::Machine(inspector, state) => {
                connection.machine = inspector.thaw(terms, state, now)?;
                connection.machine.rejudge(&connection.rules);
            }
            FrozenState::Passing(_) if mode == Mode::Enforce => return Err(ThawError::Unfollowed),
            FrozenState::Passing(_) => connection.lose(),
            FrozenState::Closed => connection.is_closed = true,
        }
        Ok(connection)
    }
}
