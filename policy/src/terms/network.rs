//! Transports and their ports.

use serde::{Deserialize, Serialize};

/// A transport and what of it is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Transport {
    /// TCP to these destination ports.
    Tcp(Vec<PortRange>),
    /// UDP to these destination ports.
    Udp(Vec<PortRange>),
    /// ICMP or ICMPv6 echo request, and its replies.
    IcmpEcho,
}

/// Destination ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, not below `first`.
    pub last: u16,
}

impl PortRange {
    /// One port.
    pub fn single(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// Whether `port` lies within.
    pub fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}
