//! The oracle: what a plan says of one connection. Slow, obvious, and what the kernel is tested against.
//!
//! A verdict is a function of the plan and the connection alone (DESIGN, promise 3): no state, no history. A plan is one of a
//! moment ([`Plan::at`](crate::plan::Plan::at)): rules of conduits that no grant of remote access opens then permit nothing.
//! Order of judgement, the same in the kernel:
//! 1. neither interface is in the plan: the packet is not ours to judge, unless it carries an address of one side to an address
//!    of another (an interface was renamed, or leads around the guarded ones): that is refused. If exactly one is in the plan,
//!    no rule can permit the crossing, and it is refused: else the management network, or any other behind an interface that
//!    was left out of the plan, would lead into the plant;
//! 2. each end lies in the networks of its side, else it is `Misplaced` (a forged or undeclared address), and
//!    refused;
//! 3. both sides are one and the same single zone, with nothing behind: that is not a crossing, allow;
//! 4. a rule matches: allow. A rule in which the source address, the destination address and the port each stand
//!    as exactly one (an element of the kernel's exact map) wins over one that covers any of them by a network or
//!    a range; among equals the first in the plan wins. A rule of a conduit that a grant opens decides only where those that
//!    stand open permit less (nothing, or only some operations): what stands open is nobody's grant;
//! 5. nothing matches: refused. A flow whose end proves less than its conduit asks for (`minimum_assurance`) is in no rule for that
//!    end.
//!
//! Refused means deny, or would-deny where both ends only observe ([`mode`]): the zone of the source on its side, and the
//! zone of the destination on its own. An address that no zone of its side has is taken for one of that side's strictest
//! zone. Where only one interface is in the plan, the end on its side decides; where none is, the strictest of the sides to
//! which the two addresses belong.
//!
//! A packet in the reply direction has the verdict of its connection: it is looked up by the same original tuple, with the
//! interfaces of the original direction. The original direction is that of whoever opens the connection, which is not always what
//! a gateway sees first (it came to a running plant, it was restarted, its zones only observed). The kernel knows it so, and is
//! tested for it:
//! - TCP: by the SYN. Where none was seen, the end that a rule names as the client opened the connection; a SYN is always
//!   judged as what it is.
//! - UDP: each datagram that is permitted by itself opens, and makes its connection its sender's; what the other end sends before
//!   is judged as that end's own opening. For the first 60 s of a gateway's tables it is taken for an answer, and reported
//!   as assumed.
//! - ICMP echo: by the request.
//!
//! Which operations an inspected connection may carry: [`permitted`]. What becomes of a frame that carries neither IP nor ARP: [`decide_frame`].

mod decide;
mod frames;
#[cfg(test)]
mod tests;
mod words;

use std::net::IpAddr;

use serde::Serialize;

pub use self::decide::{Permissions, decide, for_others, matching, mode, permitted};
pub use self::frames::{FrameVerdict, decide_frame};
pub use self::words::CarriedError;
use crate::ids::{ConduitId, FlowId, FlowName, ZoneId};
use crate::plan::{Grant, WeakEnd};
use crate::terms::Assurance;

/// A connection by its original tuple and the sides it crosses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// Interface on which its first packet enters.
    pub ingress: String,
    /// Interface by which that packet leaves.
    pub egress: String,
    /// Who opens it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// What carries it.
    pub transport: Carried,
}

/// The transport of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carried {
    /// TCP to this destination port.
    Tcp(u16),
    /// UDP to this destination port.
    Udp(u16),
    /// ICMP or ICMPv6 echo.
    IcmpEcho,
    /// Another IP protocol by number, which no rule can permit.
    Other(u8),
}

/// What happens to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// It passes.
    Allow,
    /// It is dropped.
    Deny,
    /// It passes, and is recorded as what enforcement would drop.
    WouldDeny,
    /// It crosses no guarded interface.
    NotGuarded,
}

/// A decision that explains itself (DESIGN, promise 9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What happens.
    pub decision: Decision,
    /// Why.
    pub reason: Reason,
}

/// Which rule decided, or what came closest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// This rule permits it.
    Rule(RuleName),
    /// Both sides are the same zone.
    SameZone(ZoneId),
    /// An end is not where its address belongs: which end, and what that side holds.
    Misplaced {
        /// The address that does not belong.
        address: IpAddr,
        /// The interface on whose side it was seen.
        interface: String,
    },
    /// No rule matches; the nearest one, and what it would have needed.
    NoRule {
        /// The closest rule, if any has something in common with the connection.
        nearest: Option<Nearest>,
    },
    /// This rule would permit it, but its conduit is open only while a grant of remote access lasts, and none does.
    Closed {
        /// The rule.
        rule: RuleName,
        /// The grants that can open its conduit.
        grants: Vec<Grant>,
    },
    /// This flow is declared, but its conduit asks of its ends for more assurance of identity than these prove.
    Unproven {
        /// The flow.
        rule: RuleName,
        /// What its conduit asks for.
        minimum: Assurance,
        /// The ends that prove less; never empty.
        weak: Vec<WeakEnd>,
    },
    /// One of the two interfaces is guarded, the other is not in the plan.
    Unguarded {
        /// The one that the plan does not name.
        interface: String,
    },
    /// Neither interface is in the plan, and the ends belong to different sides.
    Around,
    /// Neither interface is guarded, and nothing crosses between sides.
    NotGuarded,
}

/// A rule as people and events name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleName {
    /// The kernel's number.
    pub id: FlowId,
    /// The conduit.
    pub conduit: ConduitId,
    /// The flow in it.
    pub flow: FlowName,
}

/// The rule that came closest, and why it did not match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// The rule.
    pub rule: RuleName,
    /// Each thing that differs, in words ("port 503 is not 502").
    pub differs: Vec<String>,
}
