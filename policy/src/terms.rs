//! The terms that a plant's model and a gateway's plan share: written in the document, and obeyed at the edge as they stand.
//!
//! Below both, so that neither needs the other for a word. Not here: what joins them to flows and rules (`model`, `plan`).

mod assurance;
mod carriage;
mod ether_type;
mod frames;
mod gateway;
mod mac;
mod mac_prefix;
mod network;
mod numbers;
mod tunnel;

pub use assurance::{Assurance, Proof};
pub use carriage::{Answers, OnAgentLoss, OnRefusal, Tls};
pub use ether_type::{ETHER_TYPES, EtherType, EtherTypeError, hexadecimal};
pub use frames::{FrameSeen, Frames, VLAN_MAX};
pub use gateway::{Enforcement, GatewayMode, OnDrift};
pub use mac::{Mac, MacError};
pub use mac_prefix::{MacPrefix, MacPrefixError};
pub use network::{PortRange, Transport};
pub use numbers::NumberRange;
pub use tunnel::{TUNNEL_PORT, TUNNEL_PREFIX, TUNNELS_MAX, tunnel_device};
