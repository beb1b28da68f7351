//! MQTT 3.1.1 and 5 as the OASIS standards write them, and nothing else.
//!
//! - [`wire`]: integers, strings and their rules.
//! - [`properties`]: MQTT 5 properties: which packet may carry which, how often, with which values.
//! - [`packet`]: fixed header and the packets that carry no operation.
//! - [`connect`], [`publish`], [`subscribe`]: the packets that do.
//! - [`topic`]: topic names and filters: valid, matches, covers.
//! - [`alias`]: MQTT 5 topic aliases of one direction.
//! - [`operation`]: what a packet does, in the field's words.
//! - [`judge`]: which rule permits it; `refusal`: what a refusal looks like on the wire.
//! - `machine`: one connection, from bytes to what becomes of them.
//!
//! Nothing is repaired or normalised. A packet either has the shape that the standard gives it in that version and
//! direction, or it is an error that names the rule. The payload of a publication is never held.

pub mod alias;
pub mod connect;
pub mod judge;
pub(crate) mod machine;
pub mod operation;
pub mod packet;
pub mod properties;
pub mod publish;
pub(crate) mod refusal;
pub mod subscribe;
pub mod topic;
pub mod wire;

pub use connect::Connect;
pub use operation::Operation;
pub use packet::{Packet, Sender, Version};
pub use publish::Publish;
pub use wire::MqttError;
