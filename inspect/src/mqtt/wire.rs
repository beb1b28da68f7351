//! Integers and strings of MQTT (5, section 1.5; 3.1.1, section 1.5), and what can be wrong with a packet.

use crate::bytes::Reader;

/// Why bytes are not a packet of that version from that side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MqttError {
    /// A length that is longer than it needs to be, or than four bytes (1.5.5).
    #[error("a length is not encoded in the fewest bytes, or in more than four")]
    Length,
    /// A field runs past the end of its packet.
    #[error("the packet ends within a field")]
    Short,
    /// Bytes after the last field.
    #[error("the packet has bytes after its last field")]
    Trailing,
    /// Not UTF-8, or with U+0000 (1.5.4).
    #[error("a string is not UTF-8, or holds a null character")]
    Text,
    /// Flags of the fixed header that the packet type reserves (2.1.3).
    #[error("packet type {0} has reserved flags set")]
    Flags(u8),
    /// A packet type that is reserved, or that this side never sends in this version.
    #[error("packet type {0} cannot come from this side in this version")]
    Type(u8),
    /// The first packet is not the one that opens a connection, or that one comes twice.
    #[error("packet type {0} cannot come at this point of the connection")]
    Order(u8),
    /// Not MQTT 3.1, 3.1.1 or 5.
    #[error("the protocol name or level is not that of MQTT 3.1, 3.1.1 or 5")]
    Protocol,
    /// A reserved bit or a combination that the standard forbids.
    #[error("a flag or a combination of flags is forbidden: {0}")]
    Forbidden(&'static str),
    /// A packet identifier of 0 (2.2.1).
    #[error("a packet identifier is 0")]
    Identifier,
    /// A property that this packet cannot have, that comes twice, or whose value is out of range (2.2.2).
    #[error("property {0} cannot stand there, stands there twice, or has a forbidden value")]
    Property(u32),
    /// A reason or return code that this packet does not have.
    #[error("reason code {0:#04x} does not belong to this packet")]
    Reason(u8),
    /// A topic name that is empty or holds a wildcard (4.7.1).
    #[error("a topic name is empty or holds a wildcard")]
    TopicName,
    /// A topic filter whose wildcards stand where none may, or a shared subscription without name or filter (4.7, 4.8.2).
    #[error("a topic filter is not valid")]
    TopicFilter,
    /// A topic alias that is 0, above what the receiver takes, or names nothing (3.3.2.3.4).
    #[error("topic alias {0} is out of range or unknown")]
    Alias(u16),
    /// Larger than this gateway takes.
    #[error("the packet has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Remaining length, or bytes of the part that must be held.
        bytes: usize,
        /// The limit that it breaks.
        limit: usize,
    },
}

/// A variable byte integer (1.5.5); `Ok(None)` while it is not whole.
pub(crate) fn variable(reader: &mut Reader<'_>) -> Result<Option<u32>, MqttError> {
    let mut value = 0_u32;
    for place in 0..4 {
        let Some(byte) = reader.u8() else { return Ok(None) };
        value |= u32::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            // The last byte of a shortest encoding is 0 only for the number 0 itself.
            return if byte == 0 && place > 0 {
                Err(MqttError::Length)
            } else {
                Ok(Some(value))
            };
        }
    }
    Err(MqttError::Length)
}

/// A UTF-8 string with its length before it.
pub(crate) fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, MqttError> {
    let text = std::str::from_utf8(binary(reader)?).map_err(|_| MqttError::Text)?;
    if text.contains('\0') {
        Err(MqttError::Text)
    } else {
        Ok(text)
    }
}

/// Binary data with its length before it.
pub(crate) fn binary<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], MqttError> {
    let length = word(reader)?;
    reader.take(usize::from(length)).ok_or(MqttError::Short)
}

pub(crate) fn byte(reader: &mut Reader<'_>) -> Result<u8, MqttError> {
    reader.u8().ok_or(MqttError::Short)
}

pub(crate) fn word(reader: &mut Reader<'_>) -> Result<u16, MqttError> {
    reader.u16().ok_or(MqttError::Short)
}

/// A packet identifier: not 0.
pub(crate) fn identifier(reader: &mut Reader<'_>) -> Result<u16, MqttError> {
    match word(reader)? {
        0 => Err(MqttError::Identifier),
        identifier => Ok(identifier),
    }
}

/// Nothing may follow.
pub(crate) fn end(reader: &Reader<'_>) -> Result<(), MqttError> {
    if reader.is_empty() {
        Ok(())
    } else {
        Err(MqttError::Trailing)
    }
}

/// Appends a variable byte integer; `value` is below 2^28.
pub(crate) fn put_variable(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}
