//! The sum of everything that this program may hold, by part: what the unit's `MemoryMax` has to have room for.
//!
//! Each part has its bound where it is held; here they stand side by side. A part that grows with what peers do, and
//! is not in this list, is a fault. Of bridges between brokers there is room for [`BRIDGES`]; a plan with more of them, or larger
//! messages (`bridge.message_bytes_max`), needs a larger `MemoryMax`.

use penstock_proto::channel::COORDINATOR_MESSAGE_BYTES_MAX;

use crate::config::Config;
use crate::enforce::logged::events::TUPLES_MAX;
use crate::{audit, bridge, inspector, panel, tunnel};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The program itself, with its policy and without traffic: the budget of the design.
const IDLE_BYTES: u64 = 24 * MIB;
/// What `nft` takes, beside us in the same unit, to load 100,000 flows for the first time: measured.
const NFT_BYTES: u64 = 250 * MIB;
/// A tuple whose verdicts are counted.
const TUPLE_BYTES: u64 = 512;
/// What was observed and waits on its way to the trail: two texts, names, addresses.
const OBSERVED_BYTES: u64 = 2560;
/// An event that waits for the spool.
const EVENT_BYTES: u64 = 3 * KIB;
/// Blocks of the trail being written, and on their way up.
const BLOCKS_BYTES: u64 = 8 * MIB;
/// The tap's connections, talks and texts, and a packet.
const TAP_BYTES: u64 = 4 * MIB;

/// Bridges between brokers that are counted.
pub const BRIDGES: u64 = 8;

/// Each part with what it may hold, bytes.
pub fn bounds(config: &Config) -> Vec<(&'static str, u64)> {
    let [inspected, held, handshakes, tallies] = inspector::bounds(&config.inspect);
    vec![
        ("the program, without traffic", IDLE_BYTES),
        ("nft, while it loads 100,000 flows", NFT_BYTES),
        (
            "connections that are inspected, and those that pass unread",
            inspected,
        ),
        ("bytes held for them (inspect.held_bytes_max)", held),
        ("TLS handshakes under way", handshakes),
        ("what is counted of their operations", tallies),
        (
            "tuples whose verdicts are counted",
            count(TUPLES_MAX) * TUPLE_BYTES,
        ),
        (
            "what was observed, on its way to the trail",
            count(TUPLES_MAX) * OBSERVED_BYTES,
        ),
        (
            "events that wait for the spool",
            count(audit::QUEUE_MAX) * EVENT_BYTES,
        ),
        ("blocks of the trail", BLOCKS_BYTES),
        ("what the tap follows", TAP_BYTES),
        (
            "a release from the coordinator, as it comes and decoded",
            2 * count(COORDINATOR_MESSAGE_BYTES_MAX),
        ),
        (
            "panels' connections, and the registers that they read",
            count(panel::HELD_BYTES_MAX),
        ),
        ("packets in tunnels to other gateways", tunnel::held_bytes_max()),
        (
            "messages on their way through bridges between brokers, eight of them",
            BRIDGES * bridge::held_bytes_max(config.bridge_message_bytes_max),
        ),
    ]
}

/// All of it, bytes.
pub fn sum(config: &Config) -> u64 {
    bounds(config).iter().map(|(_, bytes)| bytes).sum()
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
