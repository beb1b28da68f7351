//! Connections, transports and verdicts as people write and read them (`tcp/502`, "port 503 is not 502").

use std::fmt;
use std::str::FromStr;

use super::{Carried, Connection, Decision, Nearest, Reason, RuleName, Verdict};
use crate::plan::{Endpoint, WeakEnd, opened_by};
use crate::terms::{PortRange, Transport};
use crate::words::and;

/// How many ends a sentence names before it only counts the rest.
const NAMED_MAX: usize = 3;

/// Ends of a rule: `hmi-1 (10.20.1.21) or historian (10.20.1.30)`.
pub(super) fn ends(ends: &[Endpoint]) -> String {
    let mut parts: Vec<String> = ends
        .iter()
        .take(NAMED_MAX)
        .map(|end| {
            let host = end.network.prefix_len() == end.network.max_prefix_len();
            if host {
                format!("{} ({})", end.name, end.network.addr())
            } else {
                format!("{} ({})", end.name, end.network)
            }
        })
        .collect();
    if ends.len() > NAMED_MAX {
        parts.push(format!("{} others", ends.len() - NAMED_MAX));
    }
    parts.join(" or ")
}

/// Port ranges: `502, 4840-4850`.
pub(super) fn ports(ports: &[PortRange]) -> String {
    ports
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(open) => write!(f, "tcp/{}", ports(open)),
            Self::Udp(open) => write!(f, "udp/{}", ports(open)),
            Self::IcmpEcho => f.write_str("icmp-echo"),
        }
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp/{port}"),
            Self::Udp(port) => write!(f, "udp/{port}"),
            Self::IcmpEcho => f.write_str("icmp-echo"),
            Self::Other(protocol) => write!(f, "ip/{protocol}"),
        }
    }
}

/// A text that names no transport of one connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a transport: write `tcp/502`, `udp/161`, `icmp-echo` or `ip/<protocol number>`")]
pub struct CarriedError(String);

impl FromStr for Carried {
    type Err = CarriedError;

    fn from_str(text: &str) -> Result<Self, CarriedError> {
        let unknown = || CarriedError(text.to_owned());
        match text.split_once('/') {
            Some(("tcp", port)) => port.parse().map(Self::Tcp).map_err(|_| unknown()),
            Some(("udp", port)) => port.parse().map(Self::Udp).map_err(|_| unknown()),
            Some(("ip", number)) => number.parse().map(Self::Other).map_err(|_| unknown()),
            None if text == "icmp-echo" => Ok(Self::IcmpEcho),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}) to {} ({}) by {}",
            self.source, self.ingress, self.destination, self.egress, self.transport
        )
    }
}

impl Decision {
    /// As it stands in events and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::WouldDeny => "would-deny",
            Self::NotGuarded => "not-guarded",
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allow => "allowed",
            Self::Deny => "denied",
            Self::WouldDeny => "passes, but would be denied",
            Self::NotGuarded => "not guarded",
        })
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.conduit, self.flow)
    }
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, but {}", self.rule, self.differs.join(" and "))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "flow {rule} permits it"),
            Self::SameZone(zone) => write!(f, "both ends are in zone {zone}"),
            Self::Misplaced { address, interface } => {
                write!(
                    f,
                    "{address} is in no zone on the side of {interface}: forged, or not declared"
                )
            }
            Self::NoRule {
                nearest: Some(nearest),
            } => {
                write!(f, "no flow permits it; the nearest is {nearest}")
            }
            Self::NoRule { nearest: None } => f.write_str("no flow permits it, nor anything like it"),
            Self::Closed { rule, grants } => {
                write!(f, "flow {rule} permits it only during {}", opened_by(grants))
            }
            Self::Unproven { rule, minimum, weak } => write!(
                f,
                "flow {rule} permits it only to ends that prove who they are to {minimum} at least; {}",
                and(weak.iter())
            ),
            Self::Unguarded { interface } => write!(
                f,
                "interface {interface} belongs to no zone of this plan: name it under the gateway's interfaces if \
                 traffic should cross it"
            ),
            Self::Around => f.write_str(
                "the two ends belong to different sides of this gateway, and it would cross by interfaces that the plan does not \
                 name: correct the interfaces' names, or name them under the gateway's interfaces",
            ),
            Self::NotGuarded => f.write_str("neither of its interfaces belongs to a zone of this plan"),
        }
    }
}

/// `plc-7 proves it by its address only (D0)`.
impl fmt::Display for WeakEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} proves it {}", self.end.name, self.proof)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.decision, self.reason)
    }
}
