//! CONNECT and CONNACK (sections 3.1 and 3.2).
//!
//! MQTT 3.1 (protocol name `MQIsdp`, level 3) is read as 3.1.1, which differs from it in these: a client has to name itself, a broker does not say whether it
//! has a session from before, and it has no code for a subscription that it refuses. Such a client gets 3.1.1's, which it takes for a grant that it does not know: nothing is
//! delivered to it either way.

use super::version::Version;
use super::properties::{self, PropertyPlaces};
use super::topic;
use super::wire::{self, MqttError};
use crate::bytes::Reader;

/// A client opens its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Protocol version that holds for the whole connection.
    pub version: Version,
    /// Client identifier; empty if the broker is to choose.
    pub client_id: &'a str,
    /// User name.
    pub user: Option<&'a str>,
    /// The message to publish should the client vanish.
    pub will: Option<Will<'a>>,
    /// The greatest topic alias that the client takes (5).
    pub topic_alias_maximum: u16,
    /// It wants to authenticate by AUTH packets (5).
    pub extended_authentication: bool,
    /// It wants no session from before.
    pub clean_start: bool,
    /// The broker's answer says whether it has one (not in 3.1).
    pub tells_session: bool,
}

/// A will: judged like a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Quality of service, 0–2.
    pub qos: u8,
    /// Retained.
    pub retain: bool,
}

impl<'a> Connect<'a> {
    /// Decodes the body of a CONNECT.
    ///
    /// # Errors
    /// The body is not that of a CONNECT.
    pub fn decode(body: &'a [u8]) -> Result<Self, MqttError> {
        let mut reader = Reader::new(body);
        let name = wire::text(&mut reader).map_err(|_| MqttError::Protocol)?;
        let (version, is_named) = match (name, wire::byte(&mut reader)?) {
            ("MQIsdp", 3) => (Version::V311, true),
            ("MQTT", 4) => (Version::V311, false),
            ("MQTT", 5) => (Version::V5, false),
            _ => return Err(MqttError::Protocol),
        };
        let flags = wire::byte(&mut reader)?;
        let _keep_alive = wire::word(&mut reader)?;
        let has = |bit: u8| flags & bit != 0;
        let (clean, will, will_qos, will_retain) = (has(2), has(4), (flags >> 3) & 3, has(0x20));
        let (password, user) = (has(0x40), has(0x80));
        if has(1) {
            return Err(MqttError::Forbidden("the reserved connect flag"));
        }
        if will_qos == 3 || (!will && (will_qos != 0 || will_retain)) {
            return Err(MqttError::Forbidden("will flags without a will, or will QoS 3"));
        }
        if version == Version::V311 && password && !user {
            return Err(MqttError::Forbidden("a password without a user name"));
        }
        let properties = properties_of(version, &mut reader, PropertyPlaces::CONNECT)?;
        let client_id = wire::text(&mut reader)?;
        if version == Version::V311 && client_id.is_empty() && !clean {
            return Err(MqttError::Forbidden(
                "an empty client identifier without a clean session",
            ));
        }
        if is_named && client_id.is_empty() {
            return Err(MqttError::Forbidden("an empty client identifier in MQTT 3.1"));
        }
        let will = if will {
            properties_of(version, &mut reader, PropertyPlaces::WILL)?;
            let topic = wire::text(&mut reader)?;
            topic::check_name(topic)?;
            wire::binary(&mut reader)?;
            Some(Will {
                topic,
                qos: will_qos,
                retain: will_retain,
            })
        } else {
            None
        };
        let user = if user {
            Some(wire::text(&mut reader)?)
        } else {
            None
        };
        if password {
            wire::binary(&mut reader)?;
        }
        wire::end(&reader)?;
        Ok(Self {
            version,
            client_id,
            user,
            will,
            topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
            extended_authentication: properties.authentication_method,
            clean_start: clean,
            tells_session: !is_named,
        })
    }
}

/// The broker's answer to CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnAck {
    /// Return code (3.1.1) or reason code (5); 0 is success.
    pub code: u8,
    /// The greatest topic alias that the broker takes (5).
    pub topic_alias_maximum: u16,
    /// The broker goes on with a session from before.
    pub session_present: bool,
}

impl ConnAck {
    /// Decodes the body of a CONNACK.
    ///
    /// # Errors
    /// The body is not that of a CONNACK in this version.
    pub fn decode(version: Version, body: &[u8]) -> Result<Self, MqttError> {
        let mut reader = Reader::new(body);
        let (flags, code) = (wire::byte(&mut reader)?, wire::byte(&mut reader)?);
        if flags > 1 || (flags == 1 && code != 0) {
            return Err(MqttError::Forbidden("session present"));
        }
        let known = match version {
            Version::V311 => code <= 5,
            Version::V5 => {
                matches!(code, 0 | 0x80..=0x8a | 0x8c | 0x90 | 0x95 | 0x97 | 0x99..=0x9d | 0x9f)
            }
        };
        if !known {
            return Err(MqttError::Reason(code));
        }
        let properties = properties_of(version, &mut reader, PropertyPlaces::CONNACK)?;
        wire::end(&reader)?;
        Ok(Self {
            code,
            topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
            session_present: flags == 1,
        })
    }
}

fn properties_of(
    version: Version,
    reader: &mut Reader<'_>,
    place: PropertyPlaces,
) -> Result<properties::Properties, MqttError> {
    match version {
        Version::V311 => Ok(properties::Properties::default()),
        Version::V5 => properties::read(reader, place)?.ok_or(MqttError::Short),
    }
}
