//! One MQTT connection: framing, order of packets, what passes by without being held.
//!
//! What operations become is in [`operations`].

mod frozen;
mod operations;
mod order;
mod queue;
mod sessions;
mod split;
mod standing;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::connection::buffer::SideBuffer;
use crate::connection::{
    Deviation, Effect, FeedEnd, Mode, Output, Sender, Sink, Terms, Version, half_through, pass,
};
use crate::judge::{OnRefusal, Verdict};
use crate::mqtt::alias::Aliases;
use crate::mqtt::judge::{Admission, MqttRules};
use crate::mqtt::operation::Operation;
use crate::mqtt::packet::{Header, Packet, kind};
use crate::mqtt::wire::MqttError;
use crate::mqtt::{Connect, Publish};

pub(crate) use self::frozen::FrozenMqtt;
pub use self::sessions::Sessions;
use self::sessions::{Membership, SessionPublications};
use self::split::Splits;
pub use self::standing::Revocation;
use self::standing::Subscriptions;
pub(crate) use self::standing::{SUBSCRIPTIONS_MAX, TOPIC_BYTES_MAX};

/// State of one MQTT connection.
#[derive(Debug)]
pub(crate) struct Mqtt {
    terms: Terms,
    stage: Stage,
    version: Version,
    extended_authentication: bool,
    client: Half,
    server: Half,
    /// Who connected, and its will: judged again when the policy changes.
    identity: Vec<Operation<'static>>,
    /// Which rules hold for who connected.
    admission: Admission,
    /// What it subscribed.
    subscriptions: Subscriptions,
    /// What of it the broker was asked for only in part, and has not answered.
    splits: Splits,
    /// What it published at QoS 2, and did not release.
    unfinished: SessionPublications,
    /// Where that is known beyond the connection, ...
    sessions: Option<(Arc<Sessions>, SocketAddr, IpAddr)>,
    /// ... and its part in it.
    membership: Option<Membership>,
    /// The broker had the session before.
    is_resumed: bool,
    /// What the policy in force does not permit of all that.
    taken: Option<Revocation>,
    /// Whether it permits the will, ...
    will_permitted: bool,
    /// ... and the publication that is passing.
    is_passing_permitted: bool,
    /// Observing: that it is revoked was told.
    is_revocation_told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    /// CONNECT has to come.
    Connect,
    /// CONNACK has to come.
    ConnAck,
    Open,
}

/// What one side sends.
#[derive(Debug)]
struct Half {
    /// The beginning of a packet that is not whole, or whose head is not.
    held: SideBuffer,
    /// A publication's payload that passes, or is let fall.
    payload: Option<Payload>,
    /// Whose payload it is, if it takes more than one read.
    passing: Option<Box<Operation<'static>>>,
    /// The gateway's own packets for the *receiver*, waiting for the end of the payload.
    queue: Vec<u8>,
    aliases: Aliases,
    /// QoS 2 publications of this side that were let fall, but for which its PUBREL must still be answered.
    unreleased: Vec<u16>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    remaining: usize,
    forward: bool,
    /// It passes only because it began while observing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    refused: bool,
}

/// What becomes of a packet.
enum Fate {
    Forward,
    /// This goes on in its place.
    Instead(Vec<u8>),
    Withhold,
    End(FeedEnd),
}

/// A publication's head, or any other packet whole, with its length in bytes.
enum ParsedPacket<'a> {
    Head(Publish<'a>, usize, usize),
    Whole(Packet<'a>, usize),
}

impl Half {
    fn new(terms: &Terms) -> Self {
        Self {
            held: SideBuffer::default(),
            payload: None,
            passing: None,
            queue: Vec::new(),
            aliases: Aliases::new(terms.limits.aliases),
            unreleased: Vec::new(),
        }
    }
}

impl Mqtt {
    pub(crate) fn new(terms: Terms) -> Self {
        Self {
            terms,
            stage: Stage::Connect,
            version: Version::V5,
            extended_authentication: false,
            client: Half::new(&terms),
            server: Half::new(&terms),
            identity: Vec::new(),
            admission: Admission::default(),
            subscriptions: Subscriptions::default(),
            splits: Splits::default(),
            unfinished: SessionPublications::default(),
            sessions: None,
            membership: None,
            is_resumed: false,
            taken: None,
            will_permitted: false,
            is_passing_permitted: false,
            is_revocation_told: false,
        }
    }

    /// Goes on within a connection whose beginning was not seen. Aliases set before are unknown.
    pub(crate) fn resume(&mut self, version: Version) {
        self.version = version;
        self.stage = Stage::Open;
        self.extended_authentication = true;
        self.is_resumed = true;
        self.client.aliases.permit(u16::MAX);
        self.server.aliases.permit(u16::MAX);
    }

    pub(crate) fn terms(&self) -> Terms {
        self.terms
    }

    /// Whether the connection cannot stand under these terms: it would complete what they refuse.
    pub(crate) fn set_terms(&mut self, mode: Mode, on_refusal: OnRefusal) -> bool {
        (self.terms.mode, self.terms.on_refusal) = (mode, on_refusal);
        if mode == Mode::Observe {
            // The other side completes what it does not know; brokers answer that.
            self.client.unreleased.clear();
            self.server.unreleased.clear();
        }
        mode == Mode::Enforce && self.completes_refused()
    }

    /// Whether a publication is passing that enforcing would have refused.
    fn completes_refused(&self) -> bool {
        [&self.client, &self.server]
            .iter()
            .filter_map(|half| half.payload)
            .any(|payload| payload.refused && payload.forward)
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.client.held.len() + self.server.held.len() + self.client.queue.len() + self.server.queue.len()
    }

    pub(crate) fn held_memory(&self) -> usize {
        let of_half = |half: &Half| {
            half.held.memory()
                + half.queue.capacity()
                + half.aliases.memory()
                + half.unreleased.capacity() * size_of::<u16>()
                + half.passing.as_deref().map_or(0, texts)
        };
        let identity: usize = self.identity.iter().map(texts).sum();
        let asked = self.subscriptions.memory() + self.splits.memory() + self.unfinished.lock().memory();
        let member = self.membership.as_ref().map_or(0, Membership::memory);
        of_half(&self.client) + of_half(&self.server) + identity + asked + member
    }

    pub(crate) fn within_packet(&self, from: Sender) -> bool {
        let half = match from {
            Sender::Client => &self.client,
            Sender::Server => &self.server,
        };
        half.payload.is_some() || !half.held.is_empty()
    }

    pub(crate) fn let_go(&mut self, from: Sender, out: &mut Sink<'_>) {
        if !self.owes(from) {
            self.half(from).held.let_go(from, out);
        }
    }

    /// Observing: whether what `from` sends is still to be completed for what was refused while it was enforced.
    pub(crate) fn owes(&self, from: Sender) -> bool {
        from == Sender::Server && !self.splits.is_empty()
    }

    /// Gives up what is owed: what comes next is taken as it is.
    pub(crate) fn forget_owed(&mut self) {
        self.splits = Splits::default();
    }

    pub(crate) fn mark_passed(&mut self, from: Sender) {
        self.half(from).held.mark_passed();
    }

    /// How many bytes it was.
    pub(crate) fn forget_held(&mut self, from: Sender) -> usize {
        std::mem::take(&mut self.half(from).held).len()
    }

    pub(crate) fn skip_to_boundary(&mut self, from: Sender) {
        self.forget_held(from);
        self.half(from).payload = None;
        self.half(from).passing = None;
    }

    /// Observing: ends what began while it was enforced. The payload of a publication whose head was refused falls, and the
    /// gateway's own answers follow the payload that they wait for. Gives the bytes behind it.
    pub(crate) fn finish_refused<'b>(
        &mut self,
        from: Sender,
        bytes: &'b [u8],
        out: &mut Sink<'_>,
    ) -> &'b [u8] {
        let half = self.half(from);
        let mut rest = bytes;
        if half.payload.is_some_and(|payload| !payload.forward) || !half.queue.is_empty() {
            self.payload(from, &mut rest, out);
        }
        rest
    }

    fn half(&mut self, from: Sender) -> &mut Half {
        match from {
            Sender::Client => &mut self.client,
            Sender::Server => &mut self.server,
        }
    }

    /// Takes bytes; of an ending, `rest` is what was not looked at. Observing, takes no more than is owed, if anything is.
    pub(crate) fn feed(
        &mut self,
        rules: &MqttRules,
        from: Sender,
        rest: &mut &[u8],
        out: &mut Sink<'_>,
    ) -> Option<FeedEnd> {
        let only_owed = self.terms.mode == Mode::Observe && self.owes(from);
        loop {
            self.payload(from, rest, out);
            if rest.is_empty() || only_owed && !self.owes(from) {
                return self.parts_at_the_end(out);
            }
            // Here, where all that was held of a packet is in its place: whoever takes leave has to know.
            if let Some(ending) = self.review(out) {
                return Some(ending);
            }
            let mut held = std::mem::take(&mut self.half(from).held);
            let before = held.len();
            let result = if before == 0 {
                self.step(rules, from, (*rest, 0), out)
            } else {
                // As much as can be needed: a fixed header, and what of a packet is held at most.
                let room = self.terms.limits.control_bytes_max + 5;
                let take = room.saturating_sub(before).min(rest.len());
                held.bytes.extend_from_slice(rest.get(..take).unwrap_or_default());
                self.step(rules, from, (&held.bytes, held.passed()), out)
            };
            match result {
                Ok(0) if before == 0 => {
                    self.half(from).held.bytes.extend_from_slice(rest);
                    return None;
                }
                Ok(0) => {
                    self.half(from).held = held;
                    return None;
                }
                Ok(used) => {
                    held.clear();
                    self.half(from).held = held;
                    *rest = rest.get(used.saturating_sub(before)..).unwrap_or_default();
                }
                Err(ending) => {
                    held.truncate(before);
                    self.half(from).held = held;
                    return Some(ending);
                }
            }
        }
    }

    /// Lets the payload of a judged publication pass, or fall.
    fn payload(&mut self, from: Sender, rest: &mut &[u8], out: &mut Sink<'_>) {
        let half = self.half(from);
        let Some(payload) = &mut half.payload else { return };
        let count = payload.remaining.min(rest.len());
        let (now, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        if payload.forward {
            pass(from, now, out);
        }
        payload.remaining -= count;
        *rest = after;
        if payload.remaining == 0 {
            half.payload = None;
            half.passing = None;
            self.give_queue(from, out);
        }
    }

    /// Handles the packet at the beginning of `view`, of which some has gone on already; the number of its bytes that were
    /// there, 0 for too few.
    fn step(
        &mut self,
        rules: &MqttRules,
        from: Sender,
        (view, passed): (&[u8], usize),
        out: &mut Sink<'_>,
    ) -> Result<usize, FeedEnd> {
        let lost = |error: MqttError| FeedEnd::Lost(Deviation::Packet(error));
        let Some(parsed) = self.parse(from, view).map_err(lost)? else {
            return Ok(0);
        };
        let (used, fate) = match parsed {
            ParsedPacket::Head(publish, head_bytes, payload_bytes) => {
                let more = view.len() < head_bytes + payload_bytes;
                let (fate, refused) = self.publish(rules, from, &publish, more, out);
                self.half(from).payload = (payload_bytes > 0).then_some(Payload {
                    remaining: payload_bytes,
                    forward: matches!(fate, Fate::Forward),
                    refused,
                });
                (head_bytes, fate)
            }
            ParsedPacket::Whole(packet, used) => {
                self.advance(from, &packet);
                (used, self.packet(rules, &packet, (from, passed > 0), out))
            }
        };
        match fate {
            Fate::Forward => {
                pass(from, view.get(passed..used).unwrap_or_default(), out);
                if self.half(from).payload.is_none() {
                    self.give_queue(from, out);
                }
                Ok(used)
            }
            Fate::Withhold | Fate::Instead(_) if passed > 0 => {
                out(half_through());
                Err(FeedEnd::Close { reset: true })
            }
            Fate::Instead(packet) => {
                pass(from, &packet, out);
                Ok(used)
            }
            Fate::Withhold => Ok(used),
            Fate::End(ending) => Err(ending),
        }
    }

    fn parse<'a>(&self, from: Sender, view: &'a [u8]) -> Result<Option<ParsedPacket<'a>>, MqttError> {
        let limits = self.terms.limits;
        let Some(header) = Header::decode(from, view)? else {
            return Ok(None);
        };
        self.in_order(from, header.kind)?;
        let too_large = |limit| MqttError::TooLarge {
            bytes: header.remaining,
            limit,
        };
        if header.remaining > limits.packet_bytes_max {
            return Err(too_large(limits.packet_bytes_max));
        }
        let body = view.get(header.header_bytes..).unwrap_or_default();
        if header.kind == kind::PUBLISH {
            let head = Publish::decode(
                self.version,
                from,
                header.flags,
                body,
                header.remaining,
                limits.control_bytes_max,
            )?;
            let whole = self.goes_on_whole(from, &header);
            if whole && body.len() < header.remaining {
                return Ok(None);
            }
            return Ok(head.map(|publish| {
                let passes = if whole {
                    header.remaining
                } else {
                    publish.head_bytes
                };
                ParsedPacket::Head(publish, header.header_bytes + passes, header.remaining - passes)
            }));
        }
        if header.remaining > limits.control_bytes_max {
            return Err(too_large(limits.control_bytes_max));
        }
        let Some(body) = body.get(..header.remaining) else {
            return Ok(None);
        };
        let packet = Packet::decode(self.version, from, header, body)?;
        Ok(Some(ParsedPacket::Whole(
            packet,
            header.header_bytes + header.remaining,
        )))
    }

    fn keep_identity(&mut self, connect: &Connect<'_>) {
        self.identity = operations::of_connect(connect)
            .map(Operation::into_owned)
            .collect();
    }
}

/// More waits for a peer than there is room for; `done`: the connection ends by it.
fn overflow<'a>(done: bool) -> Output<'a> {
    Output::Deviation {
        what: Deviation::Overflow,
        effect: Effect::Ended,
        done,
    }
}

/// What an operation keeps of what a peer sent, bytes.
fn texts(operation: &Operation<'_>) -> usize {
    match operation {
        Operation::Connect { client_id, user } => {
            client_id.len() + user.as_ref().map_or(0, |user| user.len())
        }
        Operation::Will { topic, .. }
        | Operation::Publish { topic, .. }
        | Operation::Deliver { topic, .. } => topic.len(),
        Operation::Subscribe { filter, .. } | Operation::Unsubscribe { filter } => filter.len(),
    }
}

fn forwards(verdict: Verdict, terms: &Terms) -> bool {
    verdict.allows() || terms.mode == Mode::Observe
}
