//! One operation of any protocol, for verdicts and events.

use std::fmt;

use serde::Serialize;

use crate::{modbus, mqtt};

/// What one side asks of the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation<'a> {
    /// A Modbus request.
    Modbus(modbus::Operation),
    /// An MQTT packet, or one of the things that it does.
    Mqtt(mqtt::Operation<'a>),
}

impl Operation<'_> {
    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Operation<'static> {
        match self {
            Self::Modbus(operation) => Operation::Modbus(operation),
            Self::Mqtt(operation) => Operation::Mqtt(operation.into_owned()),
        }
    }
}

impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Modbus(operation) => operation.fmt(f),
            Self::Mqtt(operation) => operation.fmt(f),
        }
    }
}
