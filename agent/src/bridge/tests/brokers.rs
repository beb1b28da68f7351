//! Two brokers that keep to the standard (MQTT 5, sections 4.3 and 4.4), as far as a bridge meets them, and assert that
//! the bridge does too. They read the bridge's bytes with a reading of their own.

use std::collections::{BTreeSet, VecDeque};

use penstock_inspect::mqtt::packet::kind;

use crate::bridge::packet::{Incoming, Publication, Welcome};

/// How many publications each lets be under way.
pub(super) const RECEIVE_MAXIMUM: u16 = 6;
/// So few identifiers that each is soon used again.
const IDENTIFIERS: u16 = 16;

/// What a broker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Publish {
        identifier: u16,
        message: Published,
        duplicate: bool,
    },
    Acknowledge {
        kind: u8,
        identifier: u16,
        reason: u8,
    },
    SubAck,
    Pong,
}

/// One publication, recognised by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Published {
    pub number: usize,
    pub qos: u8,
    pub permitted: bool,
    pub payload: Vec<u8>,
}

impl Said {
    /// As the bridge reads it.
    pub(super) fn as_packet(&self) -> Incoming<'_> {
        match self {
            Self::Publish {
                identifier,
                message,
                duplicate,
            } => Incoming::Publish(Publication {
                topic: if message.permitted { "works/a" } else { "office/a" },
                qos: message.qos,
                retain: false,
                identifier: *identifier,
                duplicate: *duplicate,
                expiry_s: None,
                payload: &message.payload,
            }),
            Self::Acknowledge {
                kind,
                identifier,
                reason,
            } => Incoming::Acknowledge {
                kind: *kind,
                identifier: *identifier,
                reason: *reason,
            },
            Self::SubAck => Incoming::Subscribed {
                identifier: 1,
                reasons: &[2],
            },
            Self::Pong => Incoming::Nothing,
        }
    }
}

/// One packet of the bridge's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    pub kind: u8,
    pub qos: u8,
    pub identifier: u16,
    pub payload: Vec<u8>,
}

/// The packets in what the bridge sent.
pub(super) fn packets(mut bytes: &[u8]) -> Vec<Heard> {
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        let first = bytes[0];
        let (mut length, mut at, mut shift) = (0_usize, 1, 0);
        loop {
            length |= usize::from(bytes[at] & 0x7f) << shift;
            shift += 7;
            at += 1;
            if bytes[at - 1] & 0x80 == 0 {
                break;
            }
        }
        let body = &bytes[at..at + length];
        bytes = &bytes[at + length..];
        packets.push(packet(first, body));
    }
    packets
}

fn packet(first: u8, body: &[u8]) -> Heard {
    let number = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let (kind, qos) = (first >> 4, first >> 1 & 3);
    let mut heard = Heard {
        kind,
        qos,
        identifier: 0,
        payload: Vec::new(),
    };
    match kind {
        kind::PUBLISH => {
            let mut at = 2 + usize::from(number(0));
            if qos > 0 {
                heard.identifier = number(at);
                at += 2;
            }
            assert_eq!(body[at], 0, "no properties");
            heard.payload = body[at + 1..].to_vec();
        }
        kind::PUBACK | kind::PUBREC | kind::PUBREL | kind::PUBCOMP => heard.identifier = number(0),
        _ => {}
    }
    heard
}

fn welcome(session_present: bool) -> Welcome {
    Welcome {
        reason: 0,
        session_present,
        receive_maximum: RECEIVE_MAXIMUM,
        packet_bytes_max: usize::MAX,
        qos_max: 2,
        retain_available: true,
        keep_alive_s: None,
    }
}

#[derive(Debug, Clone)]
struct Sending {
    identifier: u16,
    message: Published,
    released: bool,
}

/// The broker that messages are taken from: what it holds of the bridge's session.
#[derive(Debug, Default)]
pub(super) struct Source {
    session: Option<SourceSession>,
    /// What the bridge has acknowledged.
    pub acknowledged: BTreeSet<usize>,
    /// What it kept for the bridge while the session stood.
    pub accepted: Vec<Published>,
}

#[derive(Debug, Default)]
struct SourceSession {
    subscribed: bool,
    waiting: VecDeque<Published>,
    /// Sent over this connection or one before, not completed.
    sending: VecDeque<Sending>,
    last_identifier: u16,
}

impl Source {
    /// A client publishes; `connected`: the bridge is there now.
    pub(super) fn publish(&mut self, message: Published, connected: bool) {
        if let Some(session) = &mut self.session
            && session.subscribed
            && (connected || message.qos > 0)
        {
            self.accepted.push(message.clone());
            session.waiting.push_back(message);
        }
    }

    pub(super) fn connect(&mut self) -> (Welcome, VecDeque<Said>) {
        let present = self.session.is_some();
        let session = self.session.get_or_insert_default();
        let again = session.sending.iter().map(|sending| {
            if sending.released {
                Said::Acknowledge {
                    kind: kind::PUBREL,
                    identifier: sending.identifier,
                    reason: 0,
                }
            } else {
                Said::Publish {
                    identifier: sending.identifier,
                    message: sending.message.clone(),
                    duplicate: true,
                }
            }
        });
        (welcome(present), again.collect())
    }

    /// The bridge's connection is gone: nobody keeps QoS 0.
    pub(super) fn disconnected(&mut self) {
        if let Some(session) = &mut self.session {
            session.waiting.retain(|message| message.qos > 0);
        }
    }

    pub(super) fn forget(&mut self) {
        self.session = None;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.waiting.is_empty() && session.sending.is_empty())
    }

    /// The next that its window allows.
    pub(super) fn send(&mut self) -> Option<Said> {
        let session = self.session.as_mut()?;
        let message = session.waiting.front()?;
        if message.qos == 0 {
            let message = session.waiting.pop_front()?;
            return Some(Said::Publish {
                identifier: 0,
                message,
                duplicate: false,
            });
        }
        if session.sending.len() >= usize::from(RECEIVE_MAXIMUM) {
            return None;
        }
        let message = session.waiting.pop_front()?;
        let used = |identifier| {
            session
                .sending
                .iter()
                .any(|sending| sending.identifier == identifier)
        };
        let mut identifier = session.last_identifier;
        loop {
            identifier = identifier % IDENTIFIERS + 1;
            if !used(identifier) {
                break;
            }
        }
        session.last_identifier = identifier;
        session.sending.push_back(Sending {
            identifier,
            message: message.clone(),
            released: false,
        });
        Some(Said::Publish {
            identifier,
            message,
            duplicate: false,
        })
    }

    /// What it answers to a packet of the bridge's.
    pub(super) fn hear(&mut self, heard: &Heard) -> Option<Said> {
        let session = self.session.as_mut()?;
        let at = session
            .sending
            .iter()
            .position(|sending| sending.identifier == heard.identifier);
        match heard.kind {
            kind::SUBSCRIBE => {
                session.subscribed = true;
                Some(Said::SubAck)
            }
            kind::PINGREQ => Some(Said::Pong),
            kind::DISCONNECT => None,
            kind::PUBACK => {
                let sending = session.sending.remove(at.expect("PUBACK of something")).unwrap();
                assert_eq!(sending.message.qos, 1);
                self.acknowledged.insert(sending.message.number);
                None
            }
            kind::PUBREC => {
                let sending = &mut session.sending[at.expect("PUBREC of something")];
                assert_eq!(sending.message.qos, 2);
                sending.released = true;
                self.acknowledged.insert(sending.message.number);
                Some(Said::Acknowledge {
                    kind: kind::PUBREL,
                    identifier: heard.identifier,
                    reason: 0,
                })
            }
            kind::PUBCOMP => {
                let sending = session.sending.remove(at.expect("PUBCOMP of something")).unwrap();
                assert!(sending.released, "PUBCOMP after PUBREL");
                None
            }
            other => panic!("the taking side sent {other}"),
        }
    }
}

/// The broker that messages are given to.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    session: Option<BTreeSet<u16>>,
    /// Not acknowledged over this connection.
    under_way: BTreeSet<u16>,
    /// What it passed on, as it came.
    pub delivered: Vec<usize>,
}

impl Receiver {
    pub(super) fn connect(&mut self, clean_start: bool) -> Welcome {
        if clean_start {
            self.session = None;
        }
        let present = self.session.is_some();
        self.session.get_or_insert_default();
        self.under_way.clear();
        welcome(present)
    }

    pub(super) fn forget(&mut self) {
        self.session = None;
    }

    /// What it answers; `later`: it takes no publication now.
    pub(super) fn hear(&mut self, heard: &Heard, later: bool) -> Option<Said> {
        let unreleased = self.session.as_mut()?;
        let identifier = heard.identifier;
        let acknowledge = |kind, reason| {
            Some(Said::Acknowledge {
                kind,
                identifier,
                reason,
            })
        };
        match heard.kind {
            kind::PINGREQ => Some(Said::Pong),
            kind::DISCONNECT => None,
            kind::PUBLISH => {
                if heard.qos > 0 {
                    assert!(
                        self.under_way.insert(identifier),
                        "{identifier} is under way already"
                    );
                    assert!(
                        self.under_way.len() <= usize::from(RECEIVE_MAXIMUM),
                        "more than it takes at once"
                    );
                }
                let number = heard.payload.split(|byte| *byte == b' ').next().unwrap();
                let number = std::str::from_utf8(number).unwrap().parse().unwrap();
                let kind = if heard.qos == 1 {
                    kind::PUBACK
                } else {
                    kind::PUBREC
                };
                if later && heard.qos > 0 && !unreleased.contains(&identifier) {
                    return acknowledge(kind, 0x97);
                }
                if heard.qos < 2 || unreleased.insert(identifier) {
                    self.delivered.push(number);
                }
                if heard.qos == 1 {
                    self.under_way.remove(&identifier);
                }
                (heard.qos > 0).then(|| acknowledge(kind, 0)).flatten()
            }
            kind::PUBREL => {
                self.under_way.remove(&identifier);
                let known = unreleased.remove(&identifier);
                acknowledge(kind::PUBCOMP, if known { 0 } else { 0x92 })
            }
            other => panic!("the giving side sent {other}"),
        }
    }
}
