//! What an MQTT stream does, or a client leaves behind, that is no operation and that enforcing does not let be.

use super::wire::MqttError;
use crate::connection::{Deviation, DeviationKind};

/// Something that MQTT does not foresee, or that the policy takes away from a standing client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MqttDeviation {
    /// A packet that is wrong.
    #[error("{0}")]
    Packet(MqttError),
    /// The policy no longer permits something that this client has.
    #[error("{}", .0.words())]
    Revoked(Revocation),
    /// PUBREL for what an earlier connection of its session published, of a client that may publish nothing at QoS 2 any more.
    #[error(
        "a publication of an earlier connection (packet identifier {0}) is to be released, by a client that may publish nothing \
         at QoS 2"
    )]
    Release(u16),
    /// The client's will stays with the broker, although the policy no longer permits it.
    #[error(
        "the broker may publish this client's will, which the policy no longer permits: the connection ends within a large publication, where the broker cannot be informed"
    )]
    WillRemains,
    /// A will that was not seen stays with the broker.
    #[error(
        "the broker may publish a will of this client, which the gateway never saw: its CONNECT was before the connection was \
         read, and it ends where the broker cannot be informed"
    )]
    WillUnknown,
}

/// What a policy takes away from a standing client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// To be connected.
    Connection,
    /// Its will.
    Will,
    /// A subscription.
    Subscription,
    /// A publication of which only a part has passed.
    Publication,
    /// A delivery of which only a part has passed.
    Delivery,
}

impl Revocation {
    /// As an event says it.
    fn words(self) -> &'static str {
        match self {
            Self::Connection => "the policy no longer permits this client to be connected",
            Self::Will => "the policy no longer permits this client's will",
            Self::Subscription => "the policy no longer permits a subscription of this client",
            Self::Publication => "the policy no longer permits the publication that is passing",
            Self::Delivery => "the policy no longer permits the delivery that is passing",
        }
    }
}

impl From<MqttDeviation> for Deviation {
    fn from(what: MqttDeviation) -> Self {
        let consequence = match what {
            MqttDeviation::Packet(error) => return Self::unreadable(&error),
            MqttDeviation::Revoked(_) => {
                "the connection ends; the broker does not publish a will that is not permitted"
            }
            MqttDeviation::Release(_) => {
                "it is not released; the client is answered that nothing of that identifier is known"
            }
            MqttDeviation::WillRemains | MqttDeviation::WillUnknown => "the connection is reset",
        };
        Self::of(DeviationKind::Other, &what, consequence)
    }
}
