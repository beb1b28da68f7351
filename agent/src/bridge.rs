//! One-way bridges between MQTT brokers: a protocol break, not a path.
//!
//! ```text
//! zone A                          this gateway                                   zone B
//! broker ──▶ intake ── judge ──▶ keeper ──▶ queue (disk) ──▶ judge ── delivery ──▶ broker
//!   ▲ PUBACK, PUBREC only after the sync ◀──┘    └──▶ removed after PUBACK, PUBCOMP ◀┘
//! ```
//!
//! The gateway is a client of both brokers. It takes the publications that the signed plan permits
//! (`Plan::bridges`) from one and gives them to the other; no packet is forwarded between the zones, and the kernel
//! needs no way between them. [`supervisor`] runs what the policy in force names.
//!
//! Invariants:
//! - nothing flows back: [`intake`] never publishes, [`delivery`] never subscribes, and neither knows the other's broker;
//! - a message is acknowledged only when it is durable, and leaves the disk only when the other broker has it;
//! - order is the order of arrival, over outages, restarts and `kill -9`; only what the other broker puts off (no quota,
//!   say) comes behind what it took meanwhile;
//! - QoS 0: at most once, but for what an agent gave in its last moments before it was killed. QoS 1: at least
//!   once; after a break some may come twice. QoS 2: exactly once, over a gateway killed at any moment and brokers that restart,
//!   as long as both keep their sessions and all that is under way in them, and the disk takes receipts and is not damaged; else
//!   at least once;
//! - what a broker forgets or repeats of its own is not ours to make up for. Mosquitto writes its sessions when it ends in order,
//!   else every half hour: what it acknowledged since is lost with it. Restarted, it publishes once more what it had released beyond
//!   its `max_inflight_messages`: to take that for a repetition would lose the next message of the same content under the same
//!   packet identifier at a broker that keeps to the standard;
//! - of a new session that the disk does not know of nothing is subscribed to for as long as a working disk takes; where it takes
//!   nothing, the broker shall keep what comes. What is taken for a repetition under a packet identifier is as it was before;
//! - that the receiving broker's session is new is on disk before anything is given to it; an agent that is killed in between,
//!   within one sync, takes what the old session had for the new one's;
//! - a full queue or disk acknowledges nothing: the sending broker keeps what it has. What is lost all the same (QoS 0
//!   without room, expired, too large or refused there, damaged on disk, revoked) stands in the trail by number, and until it
//!   does, on disk ([`losses`]);
//! - only topic, payload, QoS, the retained flag and the expiry cross; no user property, response topic or alias does;
//! - every queue, window, packet and wait is bounded.
//!
//! MQTT 5, since only it lets a client say how much it takes at once (receive maximum) and how large (maximum packet
//! size: a packet above it is dropped by its broker instead of blocking the bridge), see a publication's retained flag
//! (retain as published), skip retained messages it has (retain handling), end its session when it is revoked, and hear
//! *why* a publication was refused. The client is our own, on the inspector's strict reading: a durable receipt between
//! PUBREC and PUBREL and identifiers that outlive a crash cannot be had from a library's event loop.
//!
//! What each part does is decided by machines without clock, network and disk (`intake/machine`, `keeper/machine`,
//! `delivery/machine`, over `side/line`); `tests` holds these promises with them, between two brokers, in random order.
//!
//! Not here: loops through other bridges (the plant's business), and wills, which a bridge does not leave.

pub mod connection;
pub mod delivery;
pub mod intake;
pub mod keeper;
pub mod layout;
pub mod losses;
pub mod packet;
pub mod queue;
pub mod report;
pub mod rules;
pub mod run;
pub mod side;
pub mod supervisor;

/// The folder of all bridges below the agent's state.
pub const FOLDER: &str = "bridges";

/// What one bridge holds of messages at most, bytes: a packet that comes, what is taken of it, handed on, gathered for the disk and
/// written there (one sync's worth each), read again, kept for its turn, and sent.
pub fn held_bytes_max(message_bytes_max: u32) -> u64 {
    let head = u64::try_from(packet::HEAD_BYTES_MAX).unwrap_or(u64::MAX);
    let batch = intake::machine::BATCH_BYTES + u64::from(message_bytes_max) + head;
    8 * batch + 2 * keeper::machine::COMMIT_BYTES
}

#[cfg(test)]
mod tests;
