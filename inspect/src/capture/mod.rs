//! Recorded traffic: from a capture file's bytes to each TCP connection's two streams, in order, and to conversations
//! over UDP.
//!
//! ```text
//! file bytes ─ file ─▶ frames ─ link, fragments ─┬▶ TCP segments ─ flows, reassembly ─▶ data · gaps · conflicts
//!                                                └▶ UDP datagrams ─ conversations ─▶ who opened, how much
//! ```
//!
//! - [`file`]: pcap and pcapng, both byte orders, micro- and nanoseconds; a file that ends within a packet
//!   gives what is whole, and says so.
//! - [`link`]: Ethernet with VLAN and QinQ, Linux cooked (1 and 2), raw IP, BSD loopback; IPv4, IPv6 with extension
//!   headers; what was cut by the capture's length limit is counted as missing.
//! - [`fragments`]: packets that were sent in several.
//! - [`reassembly`]: one direction of one connection.
//! - [`flows`]: all connections, and which side opened each.
//! - [`conversations`]: the same of UDP, as a gateway's connection tracking parts it; what it says is not read.
//!
//! A capture is not the wire: packets are missing, doubled and out of order. Nothing is guessed; what is
//! not there is told as a gap. Everything is bounded.

pub mod conversations;
pub mod file;
pub mod flows;
pub mod fragments;
pub mod link;
pub mod reassembly;

pub use conversations::{Conversation, Conversations};
pub use file::{CaptureError, Frame, Frames};
pub use flows::{FlowKey, Flows, Happening};
pub use fragments::Fragments;
pub use link::{Datagram, Segment, SkipReason, Transport};
