//! The MQTT half of [`crate::connection::frozen`]: how far the connection has come, and what each side is in the middle of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::confirmed::Unconfirmed;
use super::sessions::SessionPublications;
use super::split::Splits;
use super::standing::{SUBSCRIPTIONS_MAX, Subscriptions, TOPIC_BYTES_MAX};
use super::{Half, Mqtt, Payload, Stage};
use crate::connection::buffer::SideBuffer;
use crate::connection::frozen::{Bytes, PASSED, ThawError, is_zero};
use crate::connection::machine::Terms;
use crate::connection::{ConnectionLimits, Mode, Sender};
use crate::mqtt::alias::Aliases;
use crate::mqtt::judge::Admission;
use crate::mqtt::operation::Operation;
use crate::mqtt::packet::{Header, Packet, Version, kind};
use crate::mqtt::topic::{Subscription, check_name};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::mqtt) struct FrozenMqtt {
    stage: Stage,
    version: Version,
    extended_authentication: bool,
    identity: Option<FrozenIdentity>,
    /// Observing: it was told that the policy does not permit who is connected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_revocation_told: bool,
    client: FrozenHalf,
    server: FrozenHalf,
    /// Filters with the quality of service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    subscriptions: Vec<(String, u8)>,
    /// Identifier, and for each filter whether it was taken out (`-`) or went on (`+`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    splits: Vec<(u16, String)>,
    /// The broker had the session before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_resumed: bool,
    /// Its answer to CONNECT does not say whether it had.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_session_untold: bool,
    /// Identifier, topic, whether retained.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unfinished: Vec<(u16, String, bool)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrozenIdentity {
    client_id: String,
    user: Option<String>,
    will: Option<FrozenWill>,
}

/// A will, or a publication.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrozenWill {
    topic: String,
    qos: u8,
    retain: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrozenHalf {
    held: Bytes,
    /// How many of these bytes have gone on.
    #[serde(default, skip_serializing_if = "is_zero")]
    passed: usize,
    payload: Option<Payload>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    passing: Option<FrozenWill>,
    queue: Bytes,
    alias_maximum: u16,
    aliases: BTreeMap<u16, FrozenAlias>,
    unreleased: Vec<u16>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrozenAlias {
    topic: String,
    forwarded: bool,
}

/// The most bytes that a connection takes under these limits.
pub(in crate::mqtt) fn frozen_bytes_max(limits: &ConnectionLimits) -> usize {
    // A byte of text takes six at most ("\u0001"), an entry with its names and numbers below 256.
    let text = 5 * limits.control_bytes_max
        + 2 * TOPIC_BYTES_MAX
        + 2 * limits.queued_bytes_max
        + 2 * limits.aliases.topic_bytes_max;
    let entries = 2 * limits.aliases.aliases_max + 3 * limits.refused_publications_max + SUBSCRIPTIONS_MAX;
    // A filter takes a byte, or with its entry sixteen.
    6 * text + 256 * entries + 16 * limits.pending_filters_max
}

impl FrozenIdentity {
    fn of(operations: &[Operation<'_>]) -> Option<Self> {
        let (Operation::Connect { client_id, user }, rest) = operations.split_first()? else {
            return None;
        };
        let will = rest.first().and_then(FrozenWill::of);
        Some(Self {
            client_id: client_id.clone().into_owned(),
            user: user.clone().map(Into::into),
            will,
        })
    }

    fn bytes(&self) -> usize {
        let will = self.will.as_ref().map_or(0, |will| will.topic.len());
        self.client_id.len() + self.user.as_ref().map_or(0, String::len) + will
    }

    fn into_operations(self) -> Vec<Operation<'static>> {
        let itself = Operation::Connect {
            client_id: self.client_id.into(),
            user: self.user.map(Into::into),
        };
        let will = self.will.map(|will| Operation::Will {
            topic: will.topic.into(),
            qos: will.qos,
            retain: will.retain,
        });
        std::iter::once(itself).chain(will).collect()
    }
}

impl FrozenWill {
    fn of(operation: &Operation<'_>) -> Option<Self> {
        match operation {
            Operation::Will { topic, qos, retain }
            | Operation::Publish { topic, qos, retain }
            | Operation::Deliver { topic, qos, retain } => Some(Self {
                topic: topic.clone().into_owned(),
                qos: *qos,
                retain: *retain,
            }),
            _ => None,
        }
    }

    fn could_be(&self, bytes_max: usize) -> bool {
        self.qos <= 2 && self.topic.len() <= bytes_max && check_name(&self.topic).is_ok()
    }
}

impl FrozenHalf {
    fn of(half: &Half) -> Self {
        let alias = |(alias, topic, forwarded): (u16, &str, bool)| {
            let topic = topic.to_owned();
            (alias, FrozenAlias { topic, forwarded })
        };
        Self {
            held: Bytes(half.held.bytes.clone()),
            passed: half.held.passed(),
            payload: half.payload,
            passing: half.passing.as_deref().and_then(FrozenWill::of),
            queue: Bytes(half.queue.clone()),
            alias_maximum: half.aliases.maximum(),
            aliases: half.aliases.iter().map(alias).collect(),
            unreleased: half.unreleased.clone(),
        }
    }

    /// Nothing has happened on this side but, perhaps, the beginning of a packet.
    fn is_fresh(&self) -> bool {
        self.payload.is_none()
            && self.queue.0.is_empty()
            && self.alias_maximum == 0
            && self.aliases.is_empty()
            && self.unreleased.is_empty()
    }

    fn thaw(self, terms: &Terms, version: Version, side: Sender) -> Result<Half, ThawError> {
        let limits = terms.limits;
        let held = SideBuffer::of(self.held.0, self.passed).ok_or(PASSED)?;
        let Bytes(queue) = self.queue;
        if let Some(payload) = self.payload {
            ThawError::unless_within("bytes of a payload", payload.remaining, limits.packet_bytes_max)?;
            ThawError::unless(
                payload.remaining > 0 && held.is_empty(),
                "a packet begins before the payload before it has ended",
            )?;
        }
        ThawError::unless_within("bytes of queued answers", queue.len(), limits.queued_bytes_max)?;
        ThawError::unless(
            queue.is_empty() || self.payload.is_some_and(|payload| payload.forward) || held.passed() > 0,
            "answers wait for no payload",
        )?;
        ThawError::unless(
            are_answers(version, side, &queue),
            "what is queued is not answers",
        )?;
        ThawError::unless_within(
            "refused publications",
            self.unreleased.len(),
            limits.refused_publications_max,
        )?;
        let repeats =
            |at: usize, identifier: &u16| self.unreleased.iter().take(at).any(|kept| kept == identifier);
        ThawError::unless(
            self.unreleased
                .iter()
                .enumerate()
                .all(|(at, identifier)| *identifier != 0 && !repeats(at, identifier)),
            "a packet identifier is 0, or waits twice",
        )?;
        ThawError::unless(
            version == Version::V5 || self.aliases.is_empty(),
            "MQTT 3.1.1 has no topic aliases",
        )?;
        let mut aliases = Aliases::new(limits.aliases);
        aliases.permit(self.alias_maximum);
        for (alias, entry) in self.aliases {
            let set =
                check_name(&entry.topic).and_then(|()| aliases.set(alias, &entry.topic, entry.forwarded));
            ThawError::unless(set.is_ok(), "a topic alias is one that nobody could have set")?;
        }
        let bytes_max = limits.control_bytes_max;
        ThawError::unless(
            self.passing
                .as_ref()
                .is_none_or(|passing| self.payload.is_some() && passing.could_be(bytes_max)),
            "a publication is passing that could not",
        )?;
        let passing = self.passing.map(|FrozenWill { topic, qos, retain }| {
            let topic = topic.into();
            Box::new(match side {
                Sender::Client => Operation::Publish { topic, qos, retain },
                Sender::Server => Operation::Deliver { topic, qos, retain },
            })
        });
        Ok(Half {
            held,
            payload: self.payload,
            passing,
            queue,
            aliases,
            unreleased: self.unreleased,
        })
    }
}

/// Whether `queue` holds whole packets of the kinds that the gateway sends by itself.
fn are_answers(version: Version, side: Sender, mut queue: &[u8]) -> bool {
    let first = |queue: &[u8]| {
        let header = Header::decode(side, queue).ok()??;
        let length = header.header_bytes + header.remaining;
        let body = queue.get(header.header_bytes..length)?;
        Packet::decode(version, side, header, body).ok()?;
        let own = matches!(
            header.kind,
            kind::PUBACK | kind::PUBREC | kind::PUBCOMP | kind::SUBACK
        );
        own.then_some(length)
    };
    while !queue.is_empty() {
        let Some(length) = first(queue) else { return false };
        queue = queue.get(length..).unwrap_or_default();
    }
    true
}

fn places(refused: &[bool]) -> String {
    let of = |refused: &bool| if *refused { '-' } else { '+' };
    refused.iter().map(of).collect()
}

fn thaw_splits(frozen: &[(u16, String)], limit: usize) -> Result<Splits, ThawError> {
    let mut splits = Splits::default();
    for (identifier, places) in frozen {
        let refused: Vec<bool> = places.chars().map(|place| place == '-').collect();
        let could_be =
            *identifier != 0 && places.contains('+') && places.chars().all(|place| "+-".contains(place));
        ThawError::unless(could_be, "a subscription waits for an answer that cannot come")?;
        ThawError::unless(
            splits.fits(refused.len(), limit),
            "more filters wait for an answer than can",
        )?;
        splits.add(*identifier, &refused);
    }
    Ok(splits)
}

impl FrozenMqtt {
    /// What has not gone on, of each side; `None` within a packet that does not go on as it came.
    pub(in crate::mqtt) fn unsent(mut self) -> Option<[Vec<u8>; 2]> {
        let halves = [&mut self.client, &mut self.server];
        let whole = |half: &&mut FrozenHalf| {
            half.queue.0.is_empty() && half.payload.is_none_or(|payload| payload.forward)
        };
        let passes = halves.iter().all(whole);
        passes.then(|| halves.map(|half| half.held.0.split_off(half.passed.min(half.held.0.len()))))
    }
}

impl Mqtt {
    pub(super) fn frozen(&self) -> FrozenMqtt {
        FrozenMqtt {
            stage: self.stage,
            version: self.version,
            extended_authentication: self.extended_authentication,
            identity: FrozenIdentity::of(&self.identity),
            is_revocation_told: self.is_revocation_told,
            client: FrozenHalf::of(&self.client),
            server: FrozenHalf::of(&self.server),
            subscriptions: self
                .subscriptions
                .iter()
                .map(|(filter, qos)| (filter.to_owned(), qos))
                .collect(),
            splits: self
                .splits
                .iter()
                .map(|(identifier, refused)| (identifier, places(refused)))
                .collect(),
            is_resumed: self.is_resumed,
            // Asked until the broker's answer alone: what comes after it reads as older agents know it.
            is_session_untold: self.is_session_untold && self.stage == Stage::ConnAck,
            unfinished: self
                .unfinished
                .lock()
                .iter()
                .map(|(identifier, topic, retain)| (identifier, topic.to_owned(), retain))
                .collect(),
        }
    }

    /// Goes on; whether the rules still permit who is connected, the caller asks anew.
    pub(in crate::mqtt) fn thaw(terms: Terms, frozen: FrozenMqtt) -> Result<Self, ThawError> {
        let (stage, version) = (frozen.stage, frozen.version);
        let early = match stage {
            Stage::Connect => {
                frozen.client.is_fresh()
                    && frozen.server.is_fresh()
                    && frozen.identity.is_none()
                    && frozen.splits.is_empty()
            }
            Stage::ConnAck => {
                let server = &frozen.server;
                server.payload.is_none() && server.aliases.is_empty() && frozen.client.aliases.is_empty()
            }
            Stage::Open => true,
        };
        ThawError::unless(early, "packets passed before the connection was open")?;
        let identity = frozen.identity.map_or(Ok(Vec::new()), |identity| {
            let most = terms.limits.control_bytes_max;
            ThawError::unless_within("bytes of identity", identity.bytes(), most)?;
            let will = identity.will.as_ref();
            ThawError::unless(
                will.is_none_or(|will| will.could_be(most)),
                "a will that no client could leave",
            )?;
            Ok(identity.into_operations())
        })?;
        let mut subscriptions = Subscriptions::default();
        for (filter, qos) in &frozen.subscriptions {
            let could_be = *qos <= 2 && Subscription::parse(filter).is_ok();
            ThawError::unless(could_be, "a subscription that no client could make")?;
            subscriptions.add(filter, *qos);
        }
        let splits = thaw_splits(&frozen.splits, terms.limits.pending_filters_max)?;
        let unfinished = SessionPublications::default();
        for (identifier, topic, retain) in &frozen.unfinished {
            let could_be = *identifier != 0 && check_name(topic).is_ok();
            ThawError::unless(could_be, "a publication that no client could make")?;
            let within =
                unfinished
                    .lock()
                    .add(*identifier, topic, *retain, terms.limits.refused_publications_max);
            ThawError::unless(within, "more is published than can wait for its release")?;
        }
        let machine = Self {
            terms,
            stage,
            version,
            is_version_unknown: false,
            extended_authentication: frozen.extended_authentication,
            client: frozen.client.thaw(&terms, version, Sender::Client)?,
            server: frozen.server.thaw(&terms, version, Sender::Server)?,
            identity,
            admission: Admission::default(),
            subscriptions,
            splits,
            unfinished,
            sessions: None,
            membership: None,
            is_resumed: frozen.is_resumed,
            is_session_untold: frozen.is_session_untold,
            taken: None,
            will_permitted: false,
            is_passing_permitted: false,
            is_revocation_told: frozen.is_revocation_told,
            unconfirmed: Unconfirmed::default(),
        };
        if terms.mode == Mode::Enforce && machine.completes_refused() {
            return Err(ThawError::Refused);
        }
        for (side, half) in [
            (Sender::Client, &machine.client),
            (Sender::Server, &machine.server),
        ] {
            ThawError::unless(
                matches!(machine.parse(side, &half.held.bytes), Ok(None)),
                "what is held is not the beginning of one packet",
            )?;
        }
        Ok(machine)
    }
}
