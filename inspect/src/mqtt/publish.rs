//! PUBLISH (section 3.3): its head, which is judged, before the payload, which only passes by.

use super::version::Version;
use super::properties::{self, PropertyPlaces};
use super::topic;
use super::wire::{self, MqttError};
use crate::bytes::Reader;
use crate::connection::Sender;

/// The head of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Topic name as sent; empty if only the alias was.
    pub topic: &'a str,
    /// Quality of service, 0–2.
    pub qos: u8,
    /// Retained.
    pub retain: bool,
    /// Sent again.
    pub duplicate: bool,
    /// Packet identifier, for QoS 1 and 2.
    pub identifier: Option<u16>,
    /// Topic alias (5).
    pub alias: Option<u16>,
    /// Bytes of the variable header: the payload begins after them.
    pub head_bytes: usize,
}

impl<'a> Publish<'a> {
    /// Decodes the head from what is there of the packet's body; `Ok(None)` while it is not whole.
    /// `remaining` is the packet's remaining length; a head longer than `head_bytes_max` is an error.
    ///
    /// Only the first `head_bytes_max` bytes are looked at, so that the answer does not depend on how much
    /// more happens to be there.
    ///
    /// # Errors
    /// The head is malformed.
    pub fn decode(
        version: Version,
        sender: Sender,
        flags: u8,
        body: &'a [u8],
        remaining: usize,
        head_bytes_max: usize,
    ) -> Result<Option<Self>, MqttError> {
        let qos = (flags >> 1) & 3;
        let duplicate = flags & 8 != 0;
        if qos == 3 {
            return Err(MqttError::Forbidden("QoS 3"));
        }
        if duplicate && qos == 0 {
            return Err(MqttError::Forbidden("a duplicate at QoS 0"));
        }
        // What lies beyond the packet is not its own, and a packet that ends within its head is wrong.
        let body = body.get(..remaining.min(head_bytes_max)).unwrap_or(body);
        let whole = body.len() == remaining;
        let full = body.len() == head_bytes_max;
        let mut reader = Reader::new(body);
        let head = Self::head(version, &mut reader, qos);
        let (topic, identifier, properties) = match head {
            Ok(Some(head)) => head,
            Ok(None) | Err(MqttError::Short) if !whole && full => {
                return Err(MqttError::TooLarge {
                    bytes: remaining,
                    limit: head_bytes_max,
                });
            }
            Ok(None) | Err(MqttError::Short) if !whole => return Ok(None),
            Ok(None) => return Err(MqttError::Short),
            Err(error) => return Err(error),
        };
        if !(topic.is_empty() && properties.topic_alias.is_some()) {
            topic::check_name(topic)?;
        }
        if properties.subscription_identifier && sender == Sender::Client {
            return Err(MqttError::Property(11));
        }
        Ok(Some(Self {
            topic,
            qos,
            retain: flags & 1 != 0,
            duplicate,
            identifier,
            alias: properties.topic_alias,
            head_bytes: body.len() - reader.rest().len(),
        }))
    }

    #[allow(clippy::type_complexity)] // One caller, three fields.
    fn head(
        version: Version,
        reader: &mut Reader<'a>,
        qos: u8,
    ) -> Result<Option<(&'a str, Option<u16>, properties::Properties)>, MqttError> {
        let topic = wire::text(reader)?;
        let identifier = if qos > 0 {
            Some(wire::identifier(reader)?)
        } else {
            None
        };
        let properties = match version {
            Version::V311 => Some(properties::Properties::default()),
            Version::V5 => properties::read(reader, PropertyPlaces::PUBLISH)?,
        };
        Ok(properties.map(|properties| (topic, identifier, properties)))
    }
}
