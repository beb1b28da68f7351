//! The fixed header (section 2.1), and the packets that carry no operation of their own.

use super::connect::{ConnAck, Connect};
use super::properties::{self, PropertyPlaces};
use super::subscribe::Filters;
use super::wire::{self, MqttError};
use crate::bytes::Reader;
use crate::connection::Sender;

pub use super::version::Version;

/// Packet type numbers (table 2-1).
#[allow(missing_docs)] // The names are the standard's own.
pub mod kind {
    pub const CONNECT: u8 = 1;
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBSCRIBE: u8 = 8;
    pub const SUBACK: u8 = 9;
    pub const UNSUBSCRIBE: u8 = 10;
    pub const UNSUBACK: u8 = 11;
    pub const PINGREQ: u8 = 12;
    pub const PINGRESP: u8 = 13;
    pub const DISCONNECT: u8 = 14;
    pub const AUTH: u8 = 15;
}

/// Type, flags and lengths of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Packet type, 1–15.
    pub kind: u8,
    /// The low four bits.
    pub flags: u8,
    /// Bytes of the fixed header itself, 2–5.
    pub header_bytes: usize,
    /// Remaining length in bytes.
    pub remaining: usize,
}

impl Header {
    /// Reads the fixed header of a packet from `sender`; `Ok(None)` while it is not whole. What the first byte
    /// already shows to be wrong is told at the first byte.
    ///
    /// # Errors
    /// The first bytes are not a packet that may come from this side.
    pub fn decode(sender: Sender, bytes: &[u8]) -> Result<Option<Self>, MqttError> {
        let mut reader = Reader::new(bytes);
        let Some(first) = reader.u8() else { return Ok(None) };
        let (kind, flags) = (first >> 4, first & 0x0f);
        let from_here = match sender {
            Sender::Client => matches!(kind, 1 | 3..=8 | 10 | 12 | 14 | 15),
            Sender::Server => matches!(kind, 2..=7 | 9 | 11 | 13..=15),
        };
        if !from_here {
            return Err(MqttError::Type(kind));
        }
        let expected = match kind {
            kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 2,
            kind::PUBLISH => flags,
            _ => 0,
        };
        if flags != expected {
            return Err(MqttError::Flags(kind));
        }
        let Some(remaining) = wire::variable(&mut reader)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            kind,
            flags,
            header_bytes: bytes.len() - reader.rest().len(),
            remaining: usize::try_from(remaining).unwrap_or(usize::MAX),
        }))
    }
}

/// A packet that was held whole: all but PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNECT.
    Connect(Connect<'a>),
    /// CONNACK.
    ConnAck(ConnAck),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP, by type, with its packet identifier and reason.
    Acknowledge {
        /// Which of them.
        kind: u8,
        /// Packet identifier.
        identifier: u16,
        /// Reason code; 0 where none is sent.
        reason: u8,
    },
    /// SUBSCRIBE.
    Subscribe(Filters<'a>),
    /// UNSUBSCRIBE.
    Unsubscribe(Filters<'a>),
    /// SUBACK or UNSUBACK, by type, with its packet identifier.
    Subscribed {
        /// Which of them.
        kind: u8,
        /// Packet identifier.
        identifier: u16,
        /// The body before the codes: identifier and properties.
        head: &'a [u8],
        /// One for each filter, where the packet has them.
        codes: &'a [u8],
    },
    /// PINGREQ or PINGRESP.
    Ping,
    /// DISCONNECT.
    Disconnect,
    /// AUTH.
    Auth,
}

impl<'a> Packet<'a> {
    /// Decodes the body of any packet but PUBLISH and CONNECT, which know their own way.
    ///
    /// # Errors
    /// The packet is malformed, or may not come from this side.
    pub fn decode(
        version: Version,
        sender: Sender,
        header: Header,
        body: &'a [u8],
    ) -> Result<Self, MqttError> {
        let mut reader = Reader::new(body);
        match header.kind {
            kind::CONNECT => Connect::decode(body).map(Self::Connect),
            kind::CONNACK => ConnAck::decode(version, body).map(Self::ConnAck),
            kind::PUBACK | kind::PUBREC | kind::PUBREL | kind::PUBCOMP => {
                acknowledge(version, header.kind, &mut reader)
            }
            kind::SUBSCRIBE => Filters::subscribe(version, body).map(Self::Subscribe),
            kind::UNSUBSCRIBE => Filters::unsubscribe(version, body).map(Self::Unsubscribe),
            kind::SUBACK | kind::UNSUBACK => subscribed(version, header.kind, body),
            kind::PINGREQ | kind::PINGRESP => wire::end(&reader).map(|()| Self::Ping),
            kind::DISCONNECT => disconnect(version, sender, &mut reader),
            kind::AUTH if version == Version::V5 => auth(&mut reader),
            other => Err(MqttError::Type(other)),
        }
    }
}

/// Sections 3.4–3.7: identifier, and in MQTT 5 a reason and properties, both of which may be left out.
fn acknowledge<'a>(version: Version, kind: u8, reader: &mut Reader<'_>) -> Result<Packet<'a>, MqttError> {
    let identifier = wire::identifier(reader)?;
    let mut reason = 0;
    if version == Version::V5 && !reader.is_empty() {
        reason = wire::byte(reader)?;
        let known = match kind {
            kind::PUBACK | kind::PUBREC => {
                matches!(reason, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            _ => matches!(reason, 0 | 0x92),
        };
        if !known {
            return Err(MqttError::Reason(reason));
        }
        if !reader.is_empty() {
            properties::read(reader, PropertyPlaces::ACK)?.ok_or(MqttError::Short)?;
        }
    }
    wire::end(reader)?;
    Ok(Packet::Acknowledge {
        kind,
        identifier,
        reason,
    })
}

/// Sections 3.9 and 3.11.
fn subscribed(version: Version, kind: u8, body: &[u8]) -> Result<Packet<'_>, MqttError> {
    let mut reader = Reader::new(body);
    let identifier = wire::identifier(&mut reader)?;
    let bare = version == Version::V311 && kind == kind::UNSUBACK;
    if version == Version::V5 {
        properties::read(&mut reader, PropertyPlaces::SUBACK)?.ok_or(MqttError::Short)?;
    }
    let codes = reader.rest();
    if bare {
        wire::end(&reader)?;
    } else if codes.is_empty() {
        return Err(MqttError::Short);
    }
    for &code in codes {
        let known = match (version, kind) {
            (Version::V311, _) => matches!(code, 0..=2 | 0x80),
            (Version::V5, kind::SUBACK) => {
                matches!(
                    code,
                    0..=2 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91 | 0x97 | 0x9e | 0xa1 | 0xa2
                )
            }
            (Version::V5, _) => matches!(code, 0 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91),
        };
        if !known {
            return Err(MqttError::Reason(code));
        }
    }
    Ok(Packet::Subscribed {
        kind,
        identifier,
        head: body.strip_suffix(codes).unwrap_or_default(),
        codes,
    })
}

/// Section 3.14: in 3.1.1 an empty packet that only clients send.
fn disconnect<'a>(
    version: Version,
    sender: Sender,
    reader: &mut Reader<'_>,
) -> Result<Packet<'a>, MqttError> {
    if version == Version::V311 {
        return match sender {
            Sender::Client => wire::end(reader).map(|()| Packet::Disconnect),
            Sender::Server => Err(MqttError::Type(kind::DISCONNECT)),
        };
    }
    if !reader.is_empty() {
        let reason = wire::byte(reader)?;
        let known = match sender {
            Sender::Client => {
                matches!(reason, 0 | 4 | 0x80..=0x83 | 0x90 | 0x93..=0x99)
            }
            Sender::Server => {
                matches!(reason, 0 | 0x80..=0x83 | 0x87 | 0x89 | 0x8b | 0x8d..=0x90 | 0x93..=0xa2)
            }
        };
        if !known {
            return Err(MqttError::Reason(reason));
        }
        if !reader.is_empty() {
            let found = properties::read(reader, PropertyPlaces::DISCONNECT)?.ok_or(MqttError::Short)?;
            if sender == Sender::Server && found.session_expiry {
                return Err(MqttError::Property(17));
            }
            if sender == Sender::Client && found.server_reference {
                return Err(MqttError::Property(28));
            }
        }
    }
    wire::end(reader)?;
    Ok(Packet::Disconnect)
}

/// Section 3.15: success may be empty; everything else names its method.
fn auth<'a>(reader: &mut Reader<'_>) -> Result<Packet<'a>, MqttError> {
    if reader.is_empty() {
        return Ok(Packet::Auth);
    }
    let reason = wire::byte(reader)?;
    if !matches!(reason, 0 | 0x18 | 0x19) {
        return Err(MqttError::Reason(reason));
    }
    let found = properties::read(reader, PropertyPlaces::AUTH)?.ok_or(MqttError::Short)?;
    if !found.authentication_method {
        return Err(MqttError::Property(21));
    }
    wire::end(reader)?;
    Ok(Packet::Auth)
}
