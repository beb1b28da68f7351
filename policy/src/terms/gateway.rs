//! How a gateway stands in the network, and what becomes of what nothing declares.

use serde::{Deserialize, Serialize};

/// How a gateway sits in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// It is the router between the zones.
    Routed,
    /// Bump in the wire: no address in the plant changes.
    Bridged,
}

/// Whether a zone's boundary is enforced yet (adoption goes zone by zone), from the laxer to the stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcement {
    /// Undeclared traffic passes and is recorded.
    Observe,
    /// Undeclared traffic is dropped.
    Enforce,
}

/// What the agent does about a foreign change of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDrift {
    /// Alarm, and put the table back.
    #[default]
    Repair,
    /// Alarm only.
    Report,
}
