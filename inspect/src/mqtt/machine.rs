//! One MQTT connection: what it has, and what is asked of it.
//!
//! - [`stream`]: packets off the stream, and what passes by without being held; [`order`]: which may come when.
//! - [`operations`]: what becomes of the packets that do something; [`split`]: subscriptions that go on in part; [`confirmed`]: what the
//!   broker has answered.
//! - [`standing`]: what a client has, when the rules change; [`sessions`]: what it has beyond one connection.
//! - [`queue`]: the gateway's own packets. [`seek`]: where a packet begins. [`frozen`]: its state as bytes.

mod confirmed;
mod frozen;
mod operations;
mod order;
mod queue;
mod seek;
mod sessions;
mod split;
mod standing;
mod stream;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use self::confirmed::Unconfirmed;
use self::seek::Begins;
use self::sessions::{Membership, SessionPublications, Sessions};
use self::split::Splits;
use self::standing::Subscriptions;
use super::deviation::{MqttDeviation, Revocation};
use crate::connection::buffer::SideBuffer;
use crate::connection::machine::{Beginning, FeedEnd, Machine, Terms};
use crate::connection::memory::Recollection;
use crate::connection::{Deviation, Effect, Mode, Output, Sender, Sink};
use crate::judge::{Rules, Verdict};
use crate::mqtt::Connect;
use crate::mqtt::alias::Aliases;
use crate::mqtt::judge::{Admission, MqttRules};
use crate::mqtt::operation::Operation;
use crate::mqtt::packet::Version;

pub(super) use self::frozen::{FrozenMqtt, frozen_bytes_max};

/// State of one MQTT connection.
#[derive(Debug)]
pub(crate) struct Mqtt {
    terms: Terms,
    stage: Stage,
    version: Version,
    /// It was met midway, and no packet was read that would say the version.
    is_version_unknown: bool,
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
    /// Its answer to CONNECT does not say whether it had (3.1).
    is_session_untold: bool,
    /// What the policy in force does not permit of all that.
    taken: Option<Revocation>,
    /// Whether it permits the will, ...
    will_permitted: bool,
    /// ... and the publication that is passing.
    is_passing_permitted: bool,
    /// Observing: that it is revoked was reported.
    is_revocation_told: bool,
    /// Operations that the broker may yet refuse.
    unconfirmed: Unconfirmed,
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
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms,
            stage: Stage::Connect,
            version: Version::V5,
            is_version_unknown: false,
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
            is_session_untold: false,
            taken: None,
            will_permitted: false,
            is_passing_permitted: false,
            is_revocation_told: false,
            unconfirmed: Unconfirmed::default(),
        }
    }

    /// Whether a publication is passing that enforcing would have refused.
    fn completes_refused(&self) -> bool {
        [&self.client, &self.server]
            .iter()
            .filter_map(|half| half.payload)
            .any(|payload| payload.refused && payload.forward)
    }

    fn half(&mut self, from: Sender) -> &mut Half {
        match from {
            Sender::Client => &mut self.client,
            Sender::Server => &mut self.server,
        }
    }

    /// Goes on within a connection whose beginning was not seen. Aliases set before are unknown.
    fn resume(&mut self, version: Version) {
        self.is_version_unknown = false;
        self.version = version;
        self.stage = Stage::Open;
        self.extended_authentication = true;
        self.is_resumed = true;
        self.client.aliases.permit(u16::MAX);
        self.server.aliases.permit(u16::MAX);
    }

    fn keep_identity(&mut self, connect: &Connect<'_>) {
        self.identity = operations::of_connect(connect)
            .map(Operation::into_owned)
            .collect();
    }
}

impl Machine for Mqtt {
    fn feed(
        &mut self,
        rules: &Rules,
        from: Sender,
        _now: Duration,
        rest: &mut &[u8],
        out: &mut Sink<'_>,
    ) -> Option<FeedEnd> {
        match rules.of() {
            Some(rules) => self.take(rules, from, rest, out),
            None => self.take(&MqttRules::nothing(), from, rest, out),
        }
    }

    fn set_terms(&mut self, terms: Terms) -> bool {
        self.terms = terms;
        if terms.mode == Mode::Observe {
            // The other side completes what it does not know; brokers answer that.
            self.client.unreleased.clear();
            self.server.unreleased.clear();
        }
        // It would complete what they refuse.
        terms.mode == Mode::Enforce && self.completes_refused()
    }

    fn rejudge(&mut self, rules: &Rules) {
        match rules.of() {
            Some(rules) => self.judge_again(rules),
            None => self.judge_again(&MqttRules::nothing()),
        }
    }

    fn held_bytes(&self) -> usize {
        self.client.held.len() + self.server.held.len() + self.client.queue.len() + self.server.queue.len()
    }

    fn held_memory(&self) -> usize {
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

    fn within_packet(&self, from: Sender) -> bool {
        let half = match from {
            Sender::Client => &self.client,
            Sender::Server => &self.server,
        };
        half.payload.is_some() || !half.held.is_empty()
    }

    fn let_go(&mut self, from: Sender, out: &mut Sink<'_>) {
        if !self.owes(from) {
            self.half(from).held.let_go(from, out);
        }
    }

    fn owes(&self, from: Sender) -> bool {
        from == Sender::Server && !self.splits.is_empty()
    }

    fn give_up_owed(&mut self, out: &mut Sink<'_>) {
        self.splits = Splits::default();
        self.let_go(Sender::Server, out);
    }

    fn mark_passed(&mut self, from: Sender) {
        self.half(from).held.mark_passed();
    }

    fn forget_held(&mut self, from: Sender) -> usize {
        std::mem::take(&mut self.half(from).held).len()
    }

    fn skip_to_boundary(&mut self, from: Sender) {
        self.forget_held(from);
        self.half(from).payload = None;
        self.half(from).passing = None;
    }

    fn finish_refused<'b>(&mut self, from: Sender, bytes: &'b [u8], out: &mut Sink<'_>) -> &'b [u8] {
        let half = self.half(from);
        let mut rest = bytes;
        if half.payload.is_some_and(|payload| !payload.forward) || !half.queue.is_empty() {
            self.payload(from, &mut rest, out);
        }
        rest
    }

    fn begins(&mut self, rules: &Rules, from: Sender, bytes: &[u8]) -> Option<Beginning> {
        match seek::begins_packet(from, bytes)? {
            Begins::Connect => Some(Beginning::Connection),
            Begins::Packet(version) => {
                if self.is_version_unknown {
                    self.resume(version);
                    self.rejudge(rules);
                }
                Some(Beginning::Packet)
            }
        }
    }

    fn freeze(&self, _now: Duration) -> serde_json::Result<Box<RawValue>> {
        to_raw_value(&self.frozen())
    }

    fn met_midway(&mut self) {
        self.is_version_unknown = true;
    }

    fn remember(&mut self, known: &Recollection) {
        self.sessions = Some((known.memory.of::<Sessions>(), known.server, known.client));
        if self.stage == Stage::Open {
            // It may have ended meanwhile: what others know of it then counts, too.
            let is_resumed = self.is_resumed;
            self.welcomed(true);
            self.is_resumed = is_resumed;
        }
    }

    fn ended(&mut self, from: Sender, is_closed: bool, out: &mut Sink<'_>) {
        if self.owes(from) {
            self.splits = Splits::default();
        }
        if !is_closed {
            self.vanished(out);
        }
    }

    fn answers_within(&mut self, from: Sender, bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
        let count = self.answers_follow(from, bytes)?;
        Some((count, self.take_queue(from)))
    }

    fn review(&mut self, out: &mut Sink<'_>) -> Option<FeedEnd> {
        self.end_if_taken(out)
    }

    fn revoke(&mut self, out: &mut Sink<'_>) -> FeedEnd {
        out(standing::ended(
            MqttDeviation::Revoked(Revocation::Connection),
            true,
        ));
        self.will_permitted = false;
        self.part(out)
    }

    fn leave(&mut self, out: &mut Sink<'_>) -> FeedEnd {
        self.part(out)
    }

    fn leave_unfollowed(&mut self, is_read: bool, out: &mut Sink<'_>) -> FeedEnd {
        if is_read && !self.is_version_unknown {
            return self.part(out);
        }
        out(standing::ended(MqttDeviation::WillUnknown, true));
        FeedEnd::Close { reset: true }
    }

    fn takes_leave(&self) -> bool {
        true
    }
}

/// More waits for a peer than there is room for; `done`: the connection ends by it.
fn overflow<'a>(done: bool) -> Output<'a> {
    Output::Deviation {
        what: Deviation::OVERFLOW,
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
