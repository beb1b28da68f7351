//! The packets of an MQTT 5 client: what the bridge says, and what it understands of a broker.
//!
//! Reading goes through `penstock_inspect::mqtt`, the same strict reading that judges inspected connections: what the
//! standard does not allow there is an error here. Only what a client without aliases, wills and authentication
//! exchanges exists: a broker that sends anything else is not understood, and the connection ends.
//!
//! Not here: when to say what ([`super::intake`], [`super::delivery`]) and the stream ([`super::connection`]).

use penstock_inspect::connection::Sender;
use penstock_inspect::mqtt::packet::{Header, Packet, kind};
use penstock_inspect::mqtt::{MqttError, Publish, Version};

/// The longest head of a publication: topic, identifier and properties, bytes.
pub const HEAD_BYTES_MAX: usize = 68 * 1024;
/// Reason "not authorised", "protocol error" and the like begin here.
pub const REASON_FAILED: u8 = 0x80;
/// Reason of a DISCONNECT that leaves in good order.
pub const REASON_NORMAL: u8 = 0;
/// "Protocol error".
pub const REASON_PROTOCOL: u8 = 0x82;
/// "Packet identifier not found", in a PUBCOMP: whatever it was, it is complete.
pub const REASON_UNKNOWN_IDENTIFIER: u8 = 0x92;

const SESSION_EXPIRY: u8 = 17;
const RECEIVE_MAXIMUM: u8 = 33;
const MAXIMUM_PACKET_SIZE: u8 = 39;
const MESSAGE_EXPIRY: u8 = 2;
/// The flag of a publication that was sent before.
const DUPLICATE: u8 = 1 << 3;

/// A publication as the broker delivered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publication<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Quality of service, 0–2.
    pub qos: u8,
    /// Retained.
    pub retain: bool,
    /// Packet identifier; 0 at QoS 0.
    pub identifier: u16,
    /// Its sender says that it may have sent it before.
    pub duplicate: bool,
    /// For how many seconds it is worth anything.
    pub expiry_s: Option<u32>,
    /// What it carries.
    pub payload: &'a [u8],
}

/// One packet from a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// PUBLISH.
    Publish(Publication<'a>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Acknowledge {
        /// Which.
        kind: u8,
        /// Packet identifier.
        identifier: u16,
        /// Reason; below [`REASON_FAILED`] is success.
        reason: u8,
    },
    /// SUBACK, with the reason of each filter.
    Subscribed {
        /// Packet identifier.
        identifier: u16,
        /// One byte a filter.
        reasons: &'a [u8],
    },
    /// UNSUBACK or PINGRESP: nothing to do.
    Nothing,
    /// DISCONNECT with its reason.
    Disconnect(u8),
}

/// What a broker's CONNACK says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// Reason; 0 is success.
    pub reason: u8,
    /// The broker still has the session.
    pub session_present: bool,
    /// How many publications at QoS 1 and 2 it takes at once.
    pub receive_maximum: u16,
    /// The largest packet that it takes, bytes.
    pub packet_bytes_max: usize,
    /// The highest quality of service that it takes.
    pub qos_max: u8,
    /// It keeps retained messages.
    pub retain_available: bool,
    /// How often it wants to hear of us, seconds.
    pub keep_alive_s: Option<u16>,
}

/// Reads a packet whose header and body are whole.
pub(crate) fn read(header: Header, body: &[u8]) -> Result<Incoming<'_>, MqttError> {
    if header.kind == kind::PUBLISH {
        return publication(header, body);
    }
    Ok(match Packet::decode(Version::V5, Sender::Server, header, body)? {
        Packet::Acknowledge {
            kind,
            identifier,
            reason,
        } => Incoming::Acknowledge {
            kind,
            identifier,
            reason,
        },
        Packet::Subscribed {
            kind: kind::SUBACK,
            identifier,
            codes,
            ..
        } => Incoming::Subscribed {
            identifier,
            reasons: codes,
        },
        Packet::Subscribed { .. } | Packet::Ping => Incoming::Nothing,
        Packet::Disconnect => Incoming::Disconnect(body.first().copied().unwrap_or(0)),
        _ => return Err(MqttError::Order(header.kind)),
    })
}

fn publication(header: Header, body: &[u8]) -> Result<Incoming<'_>, MqttError> {
    let head = Publish::decode(
        Version::V5,
        Sender::Server,
        header.flags,
        body,
        body.len(),
        HEAD_BYTES_MAX,
    )?
    .ok_or(MqttError::Short)?;
    // None was offered in CONNECT, so none may be used (MQTT 5, 3.1.2.11.5).
    if let Some(alias) = head.alias {
        return Err(MqttError::Alias(alias));
    }
    let fixed = 2 + head.topic.len() + if head.qos > 0 { 2 } else { 0 };
    let (properties, payload) = after_properties(body.get(fixed..).unwrap_or_default());
    Ok(Incoming::Publish(Publication {
        topic: head.topic,
        qos: head.qos,
        retain: head.retain,
        identifier: head.identifier.unwrap_or(0),
        duplicate: header.flags & DUPLICATE != 0,
        expiry_s: number(properties, MESSAGE_EXPIRY),
        payload,
    }))
}

/// Reads the body of a CONNACK.
pub(crate) fn read_welcome(header: Header, body: &[u8]) -> Result<Welcome, MqttError> {
    if header.kind != kind::CONNACK {
        return Err(MqttError::Order(header.kind));
    }
    let Packet::ConnAck(answer) = Packet::decode(Version::V5, Sender::Server, header, body)? else {
        return Err(MqttError::Order(header.kind));
    };
    let (properties, _) = after_properties(body.get(2..).unwrap_or_default());
    let word = |id| number(properties, id).and_then(|n| u16::try_from(n).ok());
    Ok(Welcome {
        reason: answer.code,
        session_present: body.first() == Some(&1),
        receive_maximum: word(RECEIVE_MAXIMUM).unwrap_or(u16::MAX),
        packet_bytes_max: number(properties, MAXIMUM_PACKET_SIZE)
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(usize::MAX),
        qos_max: number(properties, 36).map_or(2, |n| u8::from(n > 0)),
        retain_available: number(properties, 37) != Some(0),
        keep_alive_s: word(19),
    })
}

/// The property list at the beginning of bytes that were decoded before, and what follows it.
fn after_properties(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (mut length, mut rest, mut shift) = (0_usize, bytes, 0);
    while let Some((byte, more)) = rest.split_first() {
        rest = more;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 || shift > 21 {
            break;
        }
    }
    rest.split_at_checked(length).unwrap_or_default()
}

/// The numeric property `wanted` of a list that was decoded before (table 2-4 for the widths).
fn number(mut list: &[u8], wanted: u8) -> Option<u32> {
    loop {
        let (&id, rest) = list.split_first()?;
        let text = |bytes: &[u8]| {
            let (length, _) = bytes.split_first_chunk::<2>()?;
            Some(2 + usize::from(u16::from_be_bytes(*length)))
        };
        let width = match id {
            1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => 1,
            19 | 33 | 34 | 35 => 2,
            2 | 17 | 24 | 39 => 4,
            11 => 1 + rest.iter().take_while(|byte| **byte & 0x80 != 0).count(),
            38 => {
                let key = text(rest)?;
                key + text(rest.get(key..)?)?
            }
            _ => text(rest)?,
        };
        let (value, rest) = rest.split_at_checked(width)?;
        if id == wanted {
            return Some(value.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
        }
        list = rest;
    }
}

/// What a client says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Hello<'a> {
    /// Client identifier.
    pub client_id: &'a str,
    /// User name and password.
    pub login: Option<(&'a str, &'a [u8])>,
    /// Begin a session anew.
    pub clean_start: bool,
    /// How long the broker keeps the session after the connection, seconds.
    pub session_expiry_s: u32,
    /// How many publications we take at once.
    pub receive_maximum: u16,
    /// The largest packet that we take, bytes.
    pub packet_bytes_max: u32,
    /// How often the broker will hear of us, seconds.
    pub keep_alive_s: u16,
    /// What the broker publishes of us when we are gone without a goodbye.
    pub will: Option<Will<'a>>,
}

/// A retained publication at QoS 1 that a broker makes in our stead, as soon as the connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// What it carries.
    pub payload: &'a [u8],
}

/// A filter with its subscription options (3.8.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeFilter {
    /// Topic filter.
    pub filter: String,
    /// The highest quality of service to be delivered at.
    pub qos: u8,
    /// Retained messages too, once for a new subscription.
    pub retained: bool,
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    // Names, filters and passwords are limited far below by whoever makes them; longer would be cut, never misread.
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.get(..usize::from(length)).unwrap_or_default());
}

fn put_variable(out: &mut Vec<u8>, mut value: usize) {
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

fn put_packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    put_variable(out, body.len());
    out.extend_from_slice(body);
}

/// CONNECT (3.1).
pub fn connect(out: &mut Vec<u8>, hello: &Hello<'_>) {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5];
    let login = if hello.login.is_some() { 0xc0 } else { 0 };
    // Will, at QoS 1, retained (3.1.2.5 to 3.1.2.7).
    let will = if hello.will.is_some() {
        0x04 | 1 << 3 | 0x20
    } else {
        0
    };
    body.push(login | will | if hello.clean_start { 2 } else { 0 });
    body.extend_from_slice(&hello.keep_alive_s.to_be_bytes());
    let mut properties = vec![SESSION_EXPIRY];
    properties.extend_from_slice(&hello.session_expiry_s.to_be_bytes());
    properties.push(RECEIVE_MAXIMUM);
    properties.extend_from_slice(&hello.receive_maximum.to_be_bytes());
    properties.push(MAXIMUM_PACKET_SIZE);
    properties.extend_from_slice(&hello.packet_bytes_max.to_be_bytes());
    put_variable(&mut body, properties.len());
    body.extend_from_slice(&properties);
    put_text(&mut body, hello.client_id.as_bytes());
    if let Some(will) = hello.will {
        // No properties: nothing delays it, and it does not expire.
        body.push(0);
        put_text(&mut body, will.topic.as_bytes());
        put_text(&mut body, will.payload);
    }
    if let Some((user, password)) = hello.login {
        put_text(&mut body, user.as_bytes());
        put_text(&mut body, password);
    }
    put_packet(out, kind::CONNECT << 4, &body);
}

/// SUBSCRIBE (3.8): retained flags as they were published, retained messages only for a new subscription or never.
pub fn subscribe(out: &mut Vec<u8>, identifier: u16, wanted: &[SubscribeFilter]) {
    let mut body = identifier.to_be_bytes().to_vec();
    body.push(0);
    for one in wanted {
        put_text(&mut body, one.filter.as_bytes());
        let handling = if one.retained { 1 } else { 2 };
        body.push(one.qos.min(2) | 1 << 3 | handling << 4);
    }
    put_packet(out, kind::SUBSCRIBE << 4 | 2, &body);
}

/// UNSUBSCRIBE (3.10).
pub fn unsubscribe(out: &mut Vec<u8>, identifier: u16, filters: &[String]) {
    let mut body = identifier.to_be_bytes().to_vec();
    body.push(0);
    for filter in filters {
        put_text(&mut body, filter.as_bytes());
    }
    put_packet(out, kind::UNSUBSCRIBE << 4 | 2, &body);
}

/// PUBLISH (3.3) with no property but its expiry.
pub fn publish(out: &mut Vec<u8>, publication: &Publication<'_>) {
    let expiry = if publication.expiry_s.is_some() { 5 } else { 0 };
    let identifier = if publication.qos > 0 { 2 } else { 0 };
    let topic = publication.topic.len().min(usize::from(u16::MAX));
    let flags = publication.qos.min(2) << 1 | u8::from(publication.retain);
    let duplicate = if publication.duplicate && publication.qos > 0 {
        DUPLICATE
    } else {
        0
    };
    out.push(kind::PUBLISH << 4 | duplicate | flags);
    put_variable(
        out,
        2 + topic + identifier + 1 + expiry + publication.payload.len(),
    );
    put_text(out, publication.topic.as_bytes());
    if publication.qos > 0 {
        out.extend_from_slice(&publication.identifier.to_be_bytes());
    }
    put_variable(out, expiry);
    if let Some(seconds) = publication.expiry_s {
        out.push(MESSAGE_EXPIRY);
        out.extend_from_slice(&seconds.to_be_bytes());
    }
    out.extend_from_slice(publication.payload);
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP that says success.
pub fn acknowledge(out: &mut Vec<u8>, which: u8, identifier: u16) {
    let flags = if which == kind::PUBREL { 2 } else { 0 };
    out.extend_from_slice(&[which << 4 | flags, 2]);
    out.extend_from_slice(&identifier.to_be_bytes());
}

/// PINGREQ (3.12).
pub fn ping(out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind::PINGREQ << 4, 0]);
}

/// DISCONNECT (3.14); `forget` ends the session with the connection.
pub fn disconnect(out: &mut Vec<u8>, reason: u8, forget: bool) {
    let mut body = vec![reason];
    if forget {
        body.extend_from_slice(&[5, SESSION_EXPIRY, 0, 0, 0, 0]);
    } else {
        body.push(0);
    }
    put_packet(out, kind::DISCONNECT << 4, &body);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use penstock_inspect::mqtt::Connect;
    use proptest::prelude::*;

    use super::*;

    fn split(sender: Sender, packet: &[u8]) -> (Header, &[u8]) {
        let header = Header::decode(sender, packet).unwrap().unwrap();
        let body = &packet[header.header_bytes..];
        assert_eq!(body.len(), header.remaining);
        (header, body)
    }

    proptest! {
        #[test]
        fn what_is_published_reads_back_as_it_was(
            topic in "[a-zé/]{1,40}", payload in proptest::collection::vec(any::<u8>(), 0..300),
            qos in 0u8..3, retain: bool, expiry_s: Option<u32>, identifier in 1u16.., duplicate: bool,
        ) {
            let said = Publication {
                topic: &topic, qos, retain, expiry_s, payload: &payload, duplicate: duplicate && qos > 0,
                identifier: if qos > 0 { identifier } else { 0 },
            };
            let mut packet = Vec::new();
            publish(&mut packet, &said);
            let (header, body) = split(Sender::Server, &packet);
            prop_assert_eq!(read(header, body).unwrap(), Incoming::Publish(said));
        }

        #[test]
        fn no_bytes_of_a_broker_make_the_reader_panic(
            kind in 1u8..16, flags in 0u8..16, body in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let header = Header { kind, flags, header_bytes: 2, remaining: body.len() };
            let _ = read(header, &body);
            let _ = read_welcome(header, &body);
            let _ = number(&body, 2);
        }
    }

    #[test]
    fn what_a_client_says_is_what_the_standard_reads() {
        let mut packet = Vec::new();
        connect(
            &mut packet,
            &Hello {
                client_id: "penstock-gw-1-7",
                login: Some(("bridge", b"secret")),
                clean_start: false,
                session_expiry_s: 60,
                receive_maximum: 64,
                packet_bytes_max: 1000,
                keep_alive_s: 30,
                will: None,
            },
        );
        let (_, body) = split(Sender::Client, &packet);
        let read = Connect::decode(body).unwrap();
        assert_eq!((read.client_id, read.user), ("penstock-gw-1-7", Some("bridge")));
        assert!(read.will.is_none());
        let mut packet = Vec::new();
        connect(
            &mut packet,
            &Hello {
                client_id: "c",
                login: Some(("u", b"p")),
                clean_start: true,
                session_expiry_s: 0,
                receive_maximum: 1,
                packet_bytes_max: 1000,
                keep_alive_s: 30,
                will: Some(Will {
                    topic: "p/online",
                    payload: b"false",
                }),
            },
        );
        let (_, body) = split(Sender::Client, &packet);
        let read = Connect::decode(body).unwrap();
        assert_eq!((read.client_id, read.user), ("c", Some("u")));
        assert!(read.will.is_some());
        type Say = fn(&mut Vec<u8>);
        let packets: [Say; 4] = [
            |out| unsubscribe(out, 1, &["a/#".to_owned()]),
            |out| acknowledge(out, kind::PUBREL, 9),
            ping,
            |out| disconnect(out, 0, true),
        ];
        for say in packets {
            let mut packet = Vec::new();
            say(&mut packet);
            let (header, body) = split(Sender::Client, &packet);
            Packet::decode(Version::V5, Sender::Client, header, body).unwrap();
        }
        let mut packet = Vec::new();
        let wanted = SubscribeFilter {
            filter: "works/#".to_owned(),
            qos: 2,
            retained: true,
        };
        subscribe(&mut packet, 1, &[wanted]);
        let (header, body) = split(Sender::Client, &packet);
        Packet::decode(Version::V5, Sender::Client, header, body).unwrap();
    }

    #[test]
    fn a_topic_alias_a_wildcard_and_text_that_is_not_utf8_are_refused() {
        for body in [
            b"\x00\x01a\x03\x23\x00\x01".as_slice(),
            b"\x00\x01+\x00",
            b"\x00\x02\xff\xfe\x00",
            b"\x00\x00\x00",
        ] {
            let header = Header {
                kind: kind::PUBLISH,
                flags: 0,
                header_bytes: 2,
                remaining: body.len(),
            };
            assert!(read(header, body).is_err(), "{body:?}");
        }
    }
}
