//! A connection's state as bytes, so that a restarted agent goes on with connections that stand.
//!
//! JSON, strict: an unknown format, an unknown or lacking field, anything that a connection could not have come to,
//! and anything beyond the limits is refused; the caller then ends the connection, which its peers know how to open
//! again. What the flow says (rules, mode, refusals, limits) is not in it: the plan says that anew.
//!
//! The bytes hold what passed by: topics, client identifiers, the beginning of a packet, which may be a CONNECT with a
//! password. They are as secret as the traffic, and belong on no disk.

use penstock_policy::protocol::modbus_tcp::MODBUS_TCP;
use penstock_policy::protocol::mqtt::MQTT;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::protocol::Protocol;
use serde::{Deserialize, Serialize};

use super::{Connection, ConnectionLimits, Machine, Mode, Terms};
use crate::judge::{OnRefusal, Rules};
use crate::modbus::framings::PLACES_MAX;
use crate::modbus::machine::{FrozenModbus, Modbus};
use crate::mqtt::machine::{FrozenMqtt, Mqtt, SUBSCRIPTIONS_MAX, TOPIC_BYTES_MAX};

/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrozenEnvelope {
    format: u32,
    state: FrozenMachine,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FrozenMachine {
    Modbus(FrozenModbus),
    Mqtt(Box<FrozenMqtt>),
    /// Observed, and not followed all the way: it seeks where to go on.
    Passing(Protocol),
    Closed,
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

impl ConnectionLimits {
    /// The most bytes that [`Connection::freeze`] gives under these limits.
    pub fn frozen_bytes_max(&self) -> usize {
        // A byte of text takes six at most ("\u0001"), an entry with its names and numbers below 256.
        let text = 5 * self.control_bytes_max
            + 2 * TOPIC_BYTES_MAX
            + 2 * self.queued_bytes_max
            + 2 * self.aliases.topic_bytes_max;
        let entries = 2 * self.aliases.aliases_max
            + 3 * self.refused_publications_max
            + SUBSCRIPTIONS_MAX
            + 2 * self.transactions.outstanding_max;
        // Hexadecimal: where else a server may be reading.
        let places = PLACES_MAX * 2 * 600;
        // A filter takes a byte, or with its entry sixteen.
        4096 + places + 6 * text + 256 * entries + 16 * self.pending_filters_max
    }
}

impl Connection {
    /// All that [`Self::thaw`] needs to go on at exactly this place, `now` as in [`Self::feed`].
    pub fn freeze(&self, now: Duration) -> Vec<u8> {
        let state = match &self.machine {
            _ if self.is_closed => FrozenMachine::Closed,
            _ if self.is_guessed => FrozenMachine::Passing(self.rules.protocol()),
            Machine::Modbus(machine) => FrozenMachine::Modbus(machine.freeze(now)),
            Machine::Mqtt(machine) => FrozenMachine::Mqtt(Box::new(machine.freeze())),
        };
        let frozen = FrozenEnvelope {
            format: FORMAT,
            state,
        };
        // Maps with number keys and strings only: it cannot fail, and nothing at all would thaw as an error.
        serde_json::to_vec(&frozen).unwrap_or_default()
    }

    /// What a frozen connection held that has not gone on: of the client, and of the server. For one that passes on unread: also
    /// an answer to a SUBSCRIBE that went on in part, which then lacks what the broker was not asked for.
    ///
    /// # Errors
    /// It cannot be read, or bytes that have gone on lack their end, which was refused.
    pub fn unsent(frozen: &[u8]) -> Result<[Vec<u8>; 2], ThawError> {
        let FrozenEnvelope { format, state } =
            serde_json::from_slice(frozen).map_err(|error| ThawError::Unreadable(error.to_string()))?;
        match state {
            _ if format != FORMAT => Err(ThawError::Format(format)),
            FrozenMachine::Modbus(state) => Ok(state.unsent()),
            FrozenMachine::Mqtt(state) => state.unsent().ok_or(ThawError::Refused),
            FrozenMachine::Passing(_) | FrozenMachine::Closed => Ok(Default::default()),
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
        let unreadable = |error: serde_json::Error| ThawError::Unreadable(error.to_string());
        let FormatTag { format } = serde_json::from_slice(frozen).map_err(unreadable)?;
        if format != FORMAT {
            return Err(ThawError::Format(format));
        }
        let FrozenEnvelope { state, .. } = serde_json::from_slice(frozen).map_err(unreadable)?;
        let terms = Terms {
            mode,
            on_refusal,
            limits,
        };
        let protocol = match &state {
            FrozenMachine::Modbus(_) => Some(MODBUS_TCP),
            FrozenMachine::Mqtt(_) => Some(MQTT),
            FrozenMachine::Passing(protocol) => Some(*protocol),
            FrozenMachine::Closed => None,
        };
        if let Some(frozen) = protocol.filter(|protocol| *protocol != rules.protocol()) {
            return Err(ThawError::Protocol {
                frozen,
                rules: rules.protocol(),
            });
        }
        let mut connection = Self::new(rules, mode, on_refusal, limits);
        match state {
            FrozenMachine::Modbus(state) => {
                connection.machine = Machine::Modbus(Box::new(Modbus::thaw(terms, state, now)?));
                connection.rejudge();
            }
            FrozenMachine::Mqtt(state) => {
                let mut machine = Mqtt::thaw(terms, *state)?;
                if let Rules::Mqtt(rules) = &*connection.rules {
                    machine.rejudge(rules);
                }
                connection.machine = Machine::Mqtt(Box::new(machine));
            }
            FrozenMachine::Passing(_) if mode == Mode::Enforce => return Err(ThawError::Unfollowed),
            FrozenMachine::Passing(_) => connection.lose(),
            FrozenMachine::Closed => connection.is_closed = true,
        }
        Ok(connection)
    }
}
