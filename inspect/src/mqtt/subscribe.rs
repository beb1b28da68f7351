//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10).

use super::version::Version;
use super::properties::{self, PropertyPlaces};
use super::topic::Subscription;
use super::wire::{self, MqttError};
use crate::bytes::Reader;

/// A list of filters, checked whole, read on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filters<'a> {
    /// Packet identifier.
    pub identifier: u16,
    /// The body before the first filter: identifier and properties.
    pub head: &'a [u8],
    payload: &'a [u8],
    with_options: bool,
}

/// One filter of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedFilter<'a> {
    /// As sent.
    pub filter: &'a str,
    /// Taken apart.
    pub subscription: Subscription<'a>,
    /// Greatest quality of service wanted, 0–2; 0 where the list has none.
    pub qos: u8,
    /// The filter as it stands in the packet, with its options.
    pub bytes: &'a [u8],
}

impl<'a> Filters<'a> {
    /// Decodes the body of a SUBSCRIBE.
    ///
    /// # Errors
    /// The body is not that of a SUBSCRIBE in this version.
    pub fn subscribe(version: Version, body: &'a [u8]) -> Result<Self, MqttError> {
        Self::decode(version, body, PropertyPlaces::SUBSCRIBE, true)
    }

    /// Decodes the body of an UNSUBSCRIBE.
    ///
    /// # Errors
    /// The body is not that of an UNSUBSCRIBE in this version.
    pub fn unsubscribe(version: Version, body: &'a [u8]) -> Result<Self, MqttError> {
        Self::decode(version, body, PropertyPlaces::UNSUBSCRIBE, false)
    }

    fn decode(
        version: Version,
        body: &'a [u8],
        place: PropertyPlaces,
        with_options: bool,
    ) -> Result<Self, MqttError> {
        let mut reader = Reader::new(body);
        let identifier = wire::identifier(&mut reader)?;
        if version == Version::V5 {
            properties::read(&mut reader, place)?.ok_or(MqttError::Short)?;
        }
        let payload = reader.rest();
        let head = body.strip_suffix(payload).unwrap_or_default();
        if payload.is_empty() {
            return Err(MqttError::Short);
        }
        while !reader.is_empty() {
            let (wanted, options) = next(&mut reader, with_options)?;
            let reserved = match version {
                Version::V311 => options & 0xfc != 0,
                Version::V5 => options & 0xc0 != 0 || options & 0x30 == 0x30,
            };
            if reserved || wanted.qos == 3 {
                return Err(MqttError::Forbidden("reserved subscription options"));
            }
            if options & 4 != 0 && wanted.subscription.share.is_some() {
                return Err(MqttError::Forbidden("no-local on a shared subscription"));
            }
        }
        Ok(Self {
            identifier,
            head,
            payload,
            with_options,
        })
    }

    /// The filters in the order they were written.
    pub fn iter(self) -> impl Iterator<Item = RequestedFilter<'a>> {
        let mut reader = Reader::new(self.payload);
        std::iter::from_fn(move || {
            next(&mut reader, self.with_options)
                .ok()
                .map(|(wanted, _)| wanted)
        })
    }
}

fn next<'a>(reader: &mut Reader<'a>, with_options: bool) -> Result<(RequestedFilter<'a>, u8), MqttError> {
    let before = reader.rest();
    let filter = wire::text(reader)?;
    let options = if with_options { wire::byte(reader)? } else { 0 };
    let length = before.len() - reader.rest().len();
    let wanted = RequestedFilter {
        filter,
        subscription: Subscription::parse(filter)?,
        qos: options & 3,
        bytes: before.get(..length).unwrap_or_default(),
    };
    Ok((wanted, options))
}
