//! Which MQTT a connection speaks: its packets and their fields go by it.

use serde::{Deserialize, Serialize};

/// The protocol version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// MQTT 3.1.1, and 3.1, which is read as it.
    V311,
    /// MQTT 5.
    V5,
}
