//! What the taking side does, decided: a pure machine. Facts and the time go in; what is to be done and when to look again
//! come out, and what was taken waits here to be [handed over](IntakeMachine::hand_over) to the queue. It has no clock, no
//! network and no disk; [`intake`](super) is the shell that has, and [`line`](crate::bridge::side::line) says what every
//! driver keeps to.
//!
//! What waits is bounded by not listening while it is more than [`BATCH_BYTES`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_proto::backoff::Backoff;

use penstock_inspect::mqtt::packet::kind;

use crate::bridge::connection::{ConnectionError, reason_text};
use crate::bridge::keeper::{Ack, IntakeEntry};
use crate::bridge::layout::Message;
use crate::bridge::packet::{self, Incoming as Packet, Publication, Welcome};
use crate::bridge::report::Notice;
use crate::bridge::rules::PublicationRules;
use crate::bridge::side::line::{self, Due, Line, Moment};

/// A batch of this size is not read on to.
pub const BATCH_BYTES: u64 = 64 * 1024;
/// How long a broker's new session waits for the disk before it is subscribed to.
const FORGOT_WITHIN: Duration = Duration::from_secs(2);
const SUBSCRIBE_ID: u16 = 1;
const UNSUBSCRIBE_ID: u16 = 2;

/// The filters that the broker's session has now: to be noted for the next connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed(pub Vec<String>);

/// What is to be done.
pub type Action = line::Action<Subscribed>;

/// A batch that was handed over during this connection is durable: this is owed for it.
#[derive(Debug)]
pub struct Durable(pub Vec<Ack>);

/// What happened.
pub type Fact<'a> = line::Fact<'a, Durable>;

/// The taking side of one bridge.
#[derive(Debug)]
pub struct IntakeMachine {
    line: Line<Subscribed>,
    rules: Arc<PublicationRules>,
    /// The filters that the broker's session was last given; `None`: it never was.
    noted: Option<Vec<String>>,
    /// The broker's session is new, and the disk does not say so yet: nothing is subscribed to before, so that nothing comes.
    forgot: bool,
    /// Until when the subscription waits for that. A full disk may take days, and a session without a subscription keeps nothing.
    subscribe_by: Option<Instant>,
    /// Taken over this connection and not handed over yet.
    pending: Vec<IntakeEntry>,
    pending_bytes: u64,
    subscribed: bool,
    /// Packet identifiers of what came at QoS 2 over this connection and was not released.
    under_way: BTreeSet<u16>,
}

impl IntakeMachine {
    /// Without a connection, and time for one. `noted`: the last [`Subscribed`].
    pub fn new(
        rules: Arc<PublicationRules>,
        noted: Option<Vec<String>>,
        now: Instant,
        backoff: Backoff,
    ) -> Self {
        Self {
            line: Line::new(now, backoff),
            rules,
            noted,
            forgot: false,
            subscribe_by: None,
            pending: Vec::new(),
            pending_bytes: 0,
            subscribed: false,
            under_way: BTreeSet::new(),
        }
    }

    /// Takes a fact.
    pub fn take(&mut self, fact: Fact<'_>, now: Moment) {
        match fact {
            Fact::Opened { outcome, random } => self.opened(outcome, random, now),
            Fact::Packet(packet) => {
                self.line.heard(now.instant);
                if let Err(error) = self.hear(packet, now) {
                    self.end(now, &error);
                }
            }
            Fact::Broke(error) => self.end(now, &error),
            Fact::Own(Durable(owed)) => self.durable(&owed),
            Fact::QueueClosed => self.line.abort(),
            Fact::Stopping { forget } => self.line.stop(forget),
            Fact::Written | Fact::TimePassed => {}
        }
        if self.line.is_up() && self.subscribe_by.is_some_and(|by| by <= now.instant) {
            self.subscribe();
        }
        if !self.listens() {
            // What was not listened to is not silent.
            self.line.heard(now.instant);
        }
        match self.line.due(now.instant) {
            Some(Due::Connect) => self.line.connect(false),
            Some(Due::Ping) => self.line.send(packet::ping),
            Some(Due::Silent(silence)) => self.end(now, &ConnectionError::Slow(silence)),
            None => {}
        }
    }

    /// What is to be done next.
    pub fn action(&mut self) -> Option<Action> {
        self.line.action()
    }

    /// When it is time to look again, whatever happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.line.deadline().into_iter().chain(self.subscribe_by).min()
    }

    /// Whether it is at its end.
    pub fn is_over(&self) -> bool {
        self.line.is_over()
    }

    /// Whether there is room for what the broker says.
    pub fn listens(&self) -> bool {
        self.pending_bytes < BATCH_BYTES
    }

    /// Whether something waits for the queue.
    pub fn has_entries(&self) -> bool {
        self.line.is_up() && !self.pending.is_empty()
    }

    /// What waits for the queue, bytes.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// What was taken, in its order: the queue has it from here on.
    pub fn hand_over(&mut self) -> Vec<IntakeEntry> {
        self.pending_bytes = 0;
        std::mem::take(&mut self.pending)
    }

    /// What it had not handed over, the broker still has.
    fn end(&mut self, now: Moment, error: &ConnectionError) {
        self.line.end(now.instant, error);
        self.pending.clear();
        self.pending_bytes = 0;
        self.subscribed = false;
        self.subscribe_by = None;
        self.under_way.clear();
    }

    fn opened(&mut self, outcome: Result<Welcome, ConnectionError>, random: u64, now: Moment) {
        let welcome = match outcome {
            Ok(welcome) => welcome,
            Err(error) => return self.line.refused(now.instant, &error, random),
        };
        self.line.opened(now.instant, &welcome, random);
        if !self.line.is_up() {
            return;
        }
        if !welcome.session_present {
            self.forgot = true;
            if self.noted.is_some() {
                self.line.report(Notice::SessionLost);
            }
        }
        if self.forgot {
            // Before anything of this session, however often the connection breaks before: a packet identifier of the old
            // session would pass for one of the new. The next agent's, too, if this one is killed now: so there is none yet.
            self.pending.push(IntakeEntry::Forgot);
            self.subscribe_by = Some(now.instant + FORGOT_WITHIN);
        } else {
            self.subscribe();
        }
    }

    fn subscribe(&mut self) {
        self.subscribe_by = None;
        let wanted = self.rules.wanted();
        let mut gone = self.noted.clone().unwrap_or_default();
        gone.retain(|filter| wanted.iter().all(|one| one.filter != *filter));
        self.line.send(|out| {
            if !gone.is_empty() {
                packet::unsubscribe(out, UNSUBSCRIBE_ID, &gone);
            }
            packet::subscribe(out, SUBSCRIBE_ID, wanted);
        });
    }

    fn durable(&mut self, owed: &[Ack]) {
        if !self.line.is_up() {
            return;
        }
        self.line.send(|out| {
            for ack in owed {
                packet::acknowledge(out, ack.kind, ack.identifier);
            }
        });
        // It was the first of what this connection had to be kept.
        self.forgot = false;
        if self.subscribe_by.is_some() {
            self.subscribe();
        }
    }

    fn hear(&mut self, packet: Packet<'_>, now: Moment) -> Result<(), ConnectionError> {
        match packet {
            Packet::Publish(publication) => self.publication(&publication, now),
            Packet::Acknowledge {
                kind: kind::PUBREL,
                identifier,
                ..
            } => {
                let kind = kind::PUBCOMP;
                self.under_way.remove(&identifier);
                self.keep(IntakeEntry::Release(Ack { kind, identifier }));
            }
            Packet::Acknowledge { .. } => {
                return Err(ConnectionError::Misbehaved(
                    "acknowledged what was never published to it",
                ));
            }
            Packet::Subscribed {
                identifier: SUBSCRIBE_ID,
                reasons,
            } if !self.subscribed => {
                self.subscribed = true;
                return self.answered(reasons);
            }
            Packet::Subscribed { .. } => {
                return Err(ConnectionError::Misbehaved(
                    "answered a request that was never sent",
                ));
            }
            Packet::Nothing => {}
            Packet::Disconnect(reason) => return Err(ConnectionError::Disconnected(reason)),
        }
        Ok(())
    }

    /// SUBACK.
    fn answered(&mut self, reasons: &[u8]) -> Result<(), ConnectionError> {
        let wanted = self.rules.wanted();
        if reasons.len() != wanted.len() {
            return Err(ConnectionError::Misbehaved("answered for other subscriptions"));
        }
        let refused: Vec<_> = wanted
            .iter()
            .zip(reasons)
            .filter(|(_, reason)| **reason >= packet::REASON_FAILED)
            .collect();
        if let (Some((_, reason)), true) = (refused.first(), refused.len() == wanted.len()) {
            return Err(ConnectionError::NoSubscription(**reason));
        }
        let filters: Vec<_> = wanted.iter().map(|one| one.filter.clone()).collect();
        self.noted = Some(filters.clone());
        self.line.own(Subscribed(filters));
        self.line.report(Notice::Up);
        for (one, reason) in refused {
            self.line.report(Notice::Problem(format!(
                "the broker refuses the subscription to {}: {}",
                one.filter,
                reason_text(*reason)
            )));
        }
        Ok(())
    }

    fn publication(&mut self, publication: &Publication<'_>, now: Moment) {
        let ack = match publication.qos {
            0 => None,
            1 => Some(kind::PUBACK),
            _ => Some(kind::PUBREC),
        }
        .map(|kind| Ack {
            kind,
            identifier: publication.identifier,
        });
        let judged = self
            .rules
            .judge(publication.topic, publication.qos, publication.retain);
        if let Err(why) = judged {
            self.line.report(Notice::Refused(why));
            if let Some(ack) = ack {
                self.keep(IntakeEntry::Skip(ack));
            }
            return;
        }
        let message = Message {
            seq: 0,
            time_ms: now.ms,
            expires_ms: publication.expiry_s.map_or(0, |seconds| {
                now.ms.saturating_add(u64::from(seconds) * 1000).max(1)
            }),
            origin: if publication.qos == 2 {
                publication.identifier
            } else {
                0
            },
            qos: publication.qos,
            retain: publication.retain,
            topic: publication.topic.to_owned(),
            payload: publication.payload.to_vec(),
        };
        let came = publication.qos == 2 && !self.under_way.insert(publication.identifier);
        // What its sender has under way from connections before comes first, or says that it came before.
        let again = came || publication.duplicate || !self.subscribed;
        self.keep(IntakeEntry::Keep { message, ack, again });
    }

    fn keep(&mut self, entry: IntakeEntry) {
        self.pending_bytes += entry.cost();
        self.pending.push(entry);
    }
}
