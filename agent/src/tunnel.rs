//! Tunnels to other gateways: what of conduits with `tunnel: yes` leaves this gateway goes into one, and comes out of one.
//!
//! ```text
//! kernel ─ route ─▶ device pst-… ─▶ pump ─▶ piece ─▶ QUIC datagrams ─▶ the other gateway
//!   ▲ judged as on any side ◀─────── pump ◀─ piece ◀───┘  (TLS 1.3, both sides by the plant's certificates)
//! ```
//!
//! The plan has one side for each tunnel, by its device. So the kernel's rules, which know nothing of tunnels, keep what belongs there to the device, in both
//! directions: also while no tunnel stands, and while no agent lives. The device ends with the agent, its routes with it, and the rules stay: what would
//! leave by another interface then is refused there.
//!
//! Invariants:
//! - a packet that cannot go through the tunnel goes nowhere; it waits for nothing, since what it belongs to sends it again or has no use for it any more;
//! - the peer is who the plan names, by a certificate of the plant and a life that was not withdrawn ([`penstock_proto::tls::tunnel`]); the moment its key is
//!   withdrawn the tunnel ends. No other end of a certificate, no clock and no coordinator ends one;
//! - of two gateways one connects, always the same; a newer connection of the peer takes the place of the one before;
//! - packets are QUIC datagrams, which nobody repeats, orders or holds back: TCP inside the tunnel does that itself, and does it once ([`congestion`]);
//! - a gateway that comes back without its connections, after a crash, says so to whoever sends on one ([`reset`]);
//! - strangers cost a stateless answer until they have shown that they are where they say, and then one of a few places ([`station`]);
//! - a plan that leaves a tunnel as it was does not touch it.
//!
//! Speed: what a stream has ready comes from the kernel in one piece, and goes to it in one ([`offload`]).
//!
//! Size: the device takes packets of [`MTU`] bytes, whatever the path carries, so that the ends' path MTU never moves. The kernel answers a larger one
//! (`fragmentation needed`, `packet too big`), and its rules clamp the segment size of TCP. What does not fit one datagram of the path goes in two ([`piece`]).

mod congestion;
mod device;
mod line;
mod offload;
mod piece;
mod reset;
pub mod shown;
mod station;
pub mod supervisor;

use std::time::Duration;

/// The largest packet that goes through a tunnel, bytes. A datagram of a path of 1500 bytes has room for it, also over IPv6.
const MTU: u16 = 1400;
/// A connection on which nothing comes for so long is gone.
const SILENT_MAX: Duration = Duration::from_secs(4);
/// How often something is sent on a connection without traffic.
const BEAT: Duration = Duration::from_secs(1);
/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Bytes that wait to be sent on one tunnel; more, and the oldest are dropped.
const SEND_BYTES_MAX: usize = 256 * 1024;
/// Bytes that came and wait for the device.
const RECEIVE_BYTES_MAX: usize = 512 * 1024;

/// What all tunnels of a gateway may hold, bytes.
pub fn held_bytes_max() -> u64 {
    let each = SEND_BYTES_MAX + RECEIVE_BYTES_MAX + piece::HELD_BYTES_MAX + 3 * offload::FRAME_BYTES_MAX;
    let all = each.saturating_mul(penstock_policy::terms::TUNNELS_MAX) + station::HELD_BYTES_MAX;
    u64::try_from(all).unwrap_or(u64::MAX)
}
