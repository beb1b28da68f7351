//! MQTT 5 properties (section 2.2.2): each identifier's type, the packets that may carry it, and its values.

use super::topic;
use super::wire::{self, MqttError};
use crate::bytes::Reader;

/// A place that carries properties; a bit each, so that a table row can name several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PropertyPlaces(u16);

impl PropertyPlaces {
    pub(crate) const CONNECT: Self = Self(1);
    pub(crate) const CONNACK: Self = Self(1 << 1);
    pub(crate) const PUBLISH: Self = Self(1 << 2);
    pub(crate) const WILL: Self = Self(1 << 3);
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    pub(crate) const ACK: Self = Self(1 << 4);
    pub(crate) const SUBSCRIBE: Self = Self(1 << 5);
    /// SUBACK, UNSUBACK.
    pub(crate) const SUBACK: Self = Self(1 << 6);
    pub(crate) const UNSUBSCRIBE: Self = Self(1 << 7);
    pub(crate) const DISCONNECT: Self = Self(1 << 8);
    pub(crate) const AUTH: Self = Self(1 << 9);

    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn holds(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// 0 or 1.
    Bit,
    /// Any two bytes.
    Word,
    /// Two bytes, not 0.
    WordAboveZero,
    /// Any four bytes.
    Long,
    /// Four bytes, not 0.
    LongAboveZero,
    /// Variable byte integer, not 0.
    VariableAboveZero,
    Text,
    /// A topic name.
    Topic,
    Binary,
    Pair,
}

/// Type of a property and where it may stand (table 2-4).
fn row(id: u32) -> Option<(Kind, PropertyPlaces)> {
    use Kind as K;
    const MESSAGE: PropertyPlaces = PropertyPlaces::PUBLISH.or(PropertyPlaces::WILL);
    const OPENING: PropertyPlaces = PropertyPlaces::CONNECT.or(PropertyPlaces::CONNACK);
    const EVERYWHERE: PropertyPlaces = PropertyPlaces(u16::MAX);
    Some(match id {
        1 => (K::Bit, MESSAGE),
        2 => (K::Long, MESSAGE),
        3 => (K::Text, MESSAGE),
        8 => (K::Topic, MESSAGE),
        9 => (K::Binary, MESSAGE),
        11 => (
            K::VariableAboveZero,
            PropertyPlaces::PUBLISH.or(PropertyPlaces::SUBSCRIBE),
        ),
        17 => (K::Long, OPENING.or(PropertyPlaces::DISCONNECT)),
        18 => (K::Text, PropertyPlaces::CONNACK),
        19 => (K::Word, PropertyPlaces::CONNACK),
        21 => (K::Text, OPENING.or(PropertyPlaces::AUTH)),
        22 => (K::Binary, OPENING.or(PropertyPlaces::AUTH)),
        23 | 25 => (K::Bit, PropertyPlaces::CONNECT),
        24 => (K::Long, PropertyPlaces::WILL),
        26 => (K::Text, PropertyPlaces::CONNACK),
        28 => (K::Text, PropertyPlaces::CONNACK.or(PropertyPlaces::DISCONNECT)),
        31 => (
            K::Text,
            PropertyPlaces::CONNACK
                .or(PropertyPlaces::ACK)
                .or(PropertyPlaces::SUBACK)
                .or(PropertyPlaces::DISCONNECT)
                .or(PropertyPlaces::AUTH),
        ),
        33 => (K::WordAboveZero, OPENING),
        34 => (K::Word, OPENING),
        35 => (K::WordAboveZero, PropertyPlaces::PUBLISH),
        36 | 37 | 40 | 41 | 42 => (K::Bit, PropertyPlaces::CONNACK),
        38 => (K::Pair, EVERYWHERE),
        39 => (K::LongAboveZero, OPENING),
        _ => return None,
    })
}

/// What of the properties matters to whoever judges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    /// 34: the greatest topic alias that the sender of this packet takes.
    pub(crate) topic_alias_maximum: Option<u16>,
    /// 35: the alias of this publication's topic.
    pub(crate) topic_alias: Option<u16>,
    /// 11 stands there.
    pub(crate) subscription_identifier: bool,
    /// 17 stands there.
    pub(crate) session_expiry: bool,
    /// 28 stands there.
    pub(crate) server_reference: bool,
    /// 21 stands there.
    pub(crate) authentication_method: bool,
}

/// Reads the property list of `place`; `Ok(None)` while it is not whole.
pub(crate) fn read(reader: &mut Reader<'_>, place: PropertyPlaces) -> Result<Option<Properties>, MqttError> {
    let Some(length) = wire::variable(reader)? else {
        return Ok(None);
    };
    let Some(list) = usize::try_from(length)
        .ok()
        .and_then(|length| reader.take(length))
    else {
        return Ok(None);
    };
    let mut list = Reader::new(list);
    let mut seen = 0_u64;
    let mut found = Properties::default();
    let mut authentication_data = false;
    while !list.is_empty() {
        let id = wire::variable(&mut list)?.ok_or(MqttError::Property(0))?;
        let (kind, places) = row(id).ok_or(MqttError::Property(id))?;
        let repeatable = id == 38 || (id == 11 && place == PropertyPlaces::PUBLISH);
        let bit = 1_u64 << id;
        if !places.holds(place) || (seen & bit != 0 && !repeatable) {
            return Err(MqttError::Property(id));
        }
        seen |= bit;
        // The list is whole, so a value that ends too soon is wrong, not late.
        let number = match value(&mut list, kind) {
            Err(MqttError::Short) | Ok(None) => return Err(MqttError::Property(id)),
            Err(error) => return Err(error),
            Ok(Some(number)) => number,
        };
        match id {
            11 => found.subscription_identifier = true,
            17 => found.session_expiry = true,
            21 => found.authentication_method = true,
            22 => authentication_data = true,
            28 => found.server_reference = true,
            34 => found.topic_alias_maximum = u16::try_from(number).ok(),
            35 => found.topic_alias = u16::try_from(number).ok(),
            _ => {}
        }
    }
    if authentication_data && !found.authentication_method {
        return Err(MqttError::Property(22));
    }
    Ok(Some(found))
}

/// Reads one value; numbers are returned, everything else is 0. `Ok(None)`: out of the property's range.
fn value(list: &mut Reader<'_>, kind: Kind) -> Result<Option<u32>, MqttError> {
    let number = match kind {
        Kind::Bit => u32::from(wire::byte(list)?),
        Kind::Word | Kind::WordAboveZero => u32::from(wire::word(list)?),
        Kind::Long | Kind::LongAboveZero => list.u32().ok_or(MqttError::Short)?,
        Kind::VariableAboveZero => wire::variable(list)?.ok_or(MqttError::Short)?,
        Kind::Text => {
            wire::text(list)?;
            0
        }
        Kind::Topic => {
            topic::check_name(wire::text(list)?)?;
            0
        }
        Kind::Binary => {
            wire::binary(list)?;
            0
        }
        Kind::Pair => {
            wire::text(list)?;
            wire::text(list)?;
            0
        }
    };
    let fits = match kind {
        Kind::Bit => number <= 1,
        Kind::WordAboveZero | Kind::LongAboveZero | Kind::VariableAboveZero => number > 0,
        _ => true,
    };
    Ok(fits.then_some(number))
}
