//! Sessions: the long-lived stream of each gateway (DESIGN §7).
//!
//! What a session does is decided by a pure [`machine`]: it sees to it that the gateway gets what it should have ([`Wanted`]), and
//! it takes the audit trail in (`machine/intake`). Around it, `session` is the shell, one task that reads what the gateway sends
//! and asks the store. Offers wait for nothing but the gateway's own connection: every session watches by itself what its
//! gateway should have, which `rollout` decides, so none holds up another.
//!
//! What is known of gateways is the [`Fleet`], in memory. Heartbeats write nothing to the store; when a
//! session ends, the time is written, once. A second session of the same gateway ends the first. All queues are
//! bounded; a gateway that does not take what it is sent is cut off, with the reason.

mod answers;
mod facts;
mod fleet;
pub mod machine;
mod outbound;
mod session;
mod tunnels;
mod wanted;

use std::time::Duration;

pub(crate) use self::facts::unproved;
pub use self::facts::{GatewayFacts, HeldPolicy, News, RefusedRelease, TWO_USERS};
pub use self::fleet::{BegunSession, Fleet};
pub use self::outbound::Outbound;
pub use self::session::{GatewayPeer, Sessions, leaving};
pub use self::tunnels::TunnelSeries;
pub use self::wanted::{Directive, Order, Wanted, Word};

/// How sessions behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// How often gateways report their health.
    pub health_interval: Duration,
    /// How long the first message may take.
    pub hello_timeout: Duration,
    /// How long a gateway may take to make room for a message.
    pub send_timeout: Duration,
    /// How much later than after three intervals a report may come before it is missed.
    pub report_late: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            health_interval: Duration::from_secs(10),
            hello_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(30),
            report_late: Duration::from_secs(5),
        }
    }
}

impl SessionLimits {
    /// How old a report may be before it counts as stale: three missed, and a little for the way.
    pub fn stale_after_ms(&self) -> u64 {
        let age = self
            .health_interval
            .saturating_mul(3)
            .saturating_add(self.report_late);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }
}
