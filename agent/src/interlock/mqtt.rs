//! Reads one retained message of an MQTT 5 broker: CONNECT with a session that ends with the connection, one SUBSCRIBE at QoS 0, and
//! DISCONNECT. Nothing is published, and no will is left. The packets are the bridge's.

use std::sync::Arc;

use penstock_policy::plan::Broker;
use penstock_policy::terms::Tls;
use penstock_proto::backoff::Backoff;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::asking::Question;
use super::client_id;
use crate::bridge::connection::{ConnectionError, Outgoing};
use crate::bridge::packet::{self, Incoming, SubscribeFilter};
use crate::bridge::side::{BrokerPeer, Login};
use crate::identity::Identity;

/// The largest packet that is taken: a topic and a value, and what a broker may put beside them.
const PACKET_BYTES_MAX: u32 = 4096;
/// Identifier of the one SUBSCRIBE.
const SUBSCRIBE: u16 = 1;

/// The broker as it is asked.
pub(super) fn peer(
    question: &Question,
    tls: Option<Tls>,
    login: Option<Login>,
    identity: watch::Receiver<Option<Arc<Identity>>>,
) -> BrokerPeer {
    let wanted = &question.wanted;
    BrokerPeer {
        broker: Broker {
            asset: wanted.asset.clone(),
            address: wanted.address,
            port: wanted.port,
            tls,
        },
        client_id: client_id(&question.gateway),
        login,
        identity,
        packet_bytes_max: PACKET_BYTES_MAX,
        receive_maximum: 1,
        // It is asked again by whoever wants to know.
        backoff: Backoff::default(),
    }
}

/// The message that the broker keeps under `topic`. Waits until there is one: how long is the caller's to bound.
pub(super) async fn retained(
    broker: &BrokerPeer,
    stream: TcpStream,
    topic: &str,
) -> Result<Vec<u8>, ConnectionError> {
    let (mut incoming, mut outgoing, _) = broker.ask_over(stream).await?;
    let filter = SubscribeFilter {
        filter: topic.to_owned(),
        qos: 0,
        retained: true,
    };
    let mut bytes = Vec::new();
    packet::subscribe(&mut bytes, SUBSCRIBE, &[filter]);
    outgoing.write(&bytes).await?;
    let message = loop {
        let (header, body) = incoming.next().await?;
        match packet::read(header, body)? {
            Incoming::Publish(publication) if publication.topic != topic => {
                return Err(ConnectionError::Misbehaved("gave a topic that was not asked for"));
            }
            // One that is only passing by is not what the broker keeps.
            Incoming::Publish(publication) if publication.retain => break publication.payload.to_vec(),
            Incoming::Subscribed { reasons, .. } => {
                let refused = reasons.iter().find(|reason| **reason >= packet::REASON_FAILED);
                if let Some(reason) = refused {
                    return Err(ConnectionError::NoSubscription(*reason));
                }
            }
            Incoming::Disconnect(reason) => return Err(ConnectionError::Disconnected(reason)),
            Incoming::Publish(_) | Incoming::Acknowledge { .. } | Incoming::Nothing => {}
        }
    };
    leave(outgoing);
    Ok(message)
}

/// Says goodbye beside, so that the answer need not wait for it; it is bounded.
fn leave(outgoing: Outgoing) {
    tokio::spawn(outgoing.leave(packet::REASON_NORMAL, true));
}
