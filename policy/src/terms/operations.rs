//! What a flow may do inside its protocol.
//!
//! These types stand in the document's model and in the plan alike; `penstock-inspect` judges by them.
//! No list here is empty, and what is `None` was left unlimited in so many words.

use serde::{Deserialize, Serialize};

/// Protocols that have operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Protocol {
    ModbusTcp,
    Mqtt,
}

impl Protocol {
    /// Its word in documents, plans and events; also the name of the service that carries it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ModbusTcp => "modbus-tcp",
            Self::Mqtt => "mqtt",
        }
    }

    /// The protocol with this word.
    pub fn of(word: &str) -> Option<Self> {
        [Self::ModbusTcp, Self::Mqtt]
            .into_iter()
            .find(|protocol| protocol.word() == word)
    }
}

/// What a flow may do, by protocol. The lists are never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Operations {
    /// Modbus/TCP.
    ModbusTcp(Vec<ModbusOperation>),
    /// MQTT 3.1.1 and 5.
    Mqtt(Vec<MqttOperation>),
}

/// A permitted Modbus operation (MODBUS Application Protocol V1.1b3, section 6).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModbusOperation {
    /// Function by its standard name in kebab case (`read-holding-registers`), `function-<n>` for a code without a
    /// name, or a group (`read-only`, `read-write`, `programming`): see [`crate::functions`].
    pub function: String,
    /// Unit identifiers; `None` only where the document says `units: any`.
    pub units: Option<Vec<NumberRange>>,
    /// Data addresses; `None` where the function has none or the document says `addresses: any` or leaves reading unlimited.
    pub addresses: Option<Vec<NumberRange>>,
    /// Data addresses that may be read by a function or group that also writes; `None`: the same as `addresses`.
    pub read_addresses: Option<Vec<NumberRange>>,
    /// Values that may be written; `None`: not limited.
    pub values: Option<Vec<NumberRange>>,
    /// Sub-functions (diagnostics, encapsulated interface); `None`: not limited.
    pub sub_functions: Option<Vec<NumberRange>>,
}

/// A range of numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberRange {
    /// First.
    pub first: u32,
    /// Last, not below `first`.
    pub last: u32,
}

/// A permitted MQTT operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum MqttOperation {
    /// Publish to topics that these filters cover.
    Publish {
        /// Topic filters (MQTT 5, section 4.7).
        topics: Vec<String>,
        /// Quality of service allowed, lowest and highest (0–2).
        qos: NumberRange,
        /// Whether retained messages are allowed.
        retain: bool,
    },
    /// Subscribe to filters that these filters cover.
    Subscribe {
        /// Topic filters.
        topics: Vec<String>,
        /// Quality of service allowed, lowest and highest (0–2).
        qos: NumberRange,
    },
    /// Connect only with these client identifiers or user names.
    Connect {
        /// Client identifiers; empty list cannot occur; `None`: not limited.
        client_ids: Option<Vec<String>>,
        /// User names.
        users: Option<Vec<String>>,
    },
}

#[cfg(test)]
mod tests {
    use super::Protocol;

    #[test]
    fn a_protocol_has_one_word_in_plans_events_and_as_a_service() {
        for protocol in [Protocol::ModbusTcp, Protocol::Mqtt] {
            let word = protocol.word();
            assert_eq!(serde_json::to_value(protocol).ok(), Some(word.into()));
            assert_eq!(Protocol::of(word), Some(protocol));
            let service = crate::document::services::SERVICES
                .iter()
                .find(|known| known.name == word);
            assert_eq!(service.and_then(|known| known.protocol), Some(protocol));
        }
    }
}
