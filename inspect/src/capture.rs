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
//! - [`link`]: IPv4, IPv6 with extension headers, in what `carriers` reads: Ethernet with VLAN, QinQ, HSR, PPPoE and MPLS, PPP, Linux
//!   cooked (1 and 2), raw IP, BSD loopback, and all that in ERSPAN; what was cut by the capture's length limit is counted as missing.
//! - [`envelope`]: the tags and labels that a packet came in. [`kinds`]: what a frame is that is not IP.
//! - [`fragments`]: packets that were sent in several.
//! - [`reassembly`]: one direction of one connection.
//! - [`flows`]: all connections, and which side opened each.
//! - [`direction`]: who opened what the recording holds no beginning of.
//! - [`conversations`]: the same of UDP, as a gateway's connection tracking parts it; what it says is not read.
//!
//! A capture is not the wire: packets are missing, doubled and out of order. What is not there is told as a gap. Nothing is
//! guessed but who opened a connection that stood before and of which nothing tells; it is marked. Everything is bounded.

mod carriers;
pub mod conversations;
pub mod direction;
pub mod envelope;
pub mod file;
pub mod flows;
pub mod fragments;
pub mod kinds;
pub mod link;
pub mod reassembly;

pub use conversations::{Conversation, Conversations};
pub use envelope::Envelope;
pub use file::{CaptureError, FilePlace, Frame, Frames};
pub use flows::{FlowKey, Flows, Happening};
pub use fragments::Fragments;
pub use kinds::{BridgedFrame, FrameKind, NotIp};
pub use link::{Datagram, Segment, SkipReason, Transport};
