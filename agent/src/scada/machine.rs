//! When what is published, decided: a pure machine over [`Line`], which says when there is a connection.
//!
//! Of each connection the first publication says `online`, and its will takes that back. Then the newest document is published: at once
//! when it differs, at most once a second; every [`REFRESH`] for its counts and its time. One is under way at a time, and only the newest
//! waits: so a broker that was away gets the state of now and no history.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use penstock_inspect::mqtt::packet::kind;
use penstock_proto::backoff::Backoff;

use super::document::Document;
use crate::bridge::connection::ConnectionError;
use crate::bridge::packet::{self, Incoming as Packet, Publication, REASON_FAILED, Welcome};
use crate::bridge::report::Notice;
use crate::bridge::side::line::{self, Due, Line, Moment};

/// Between two documents, at least.
const PAUSE: Duration = Duration::from_secs(1);
/// Counts and time are no older than this.
const REFRESH: Duration = Duration::from_secs(10);
/// How long a broker may leave a publication unacknowledged.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);
/// Of a packet, beside its payload and its topic.
const HEAD_BYTES: usize = 16;

/// What stands at `online`.
const ONLINE: &[u8] = b"true";
/// What the will says there, and a stop.
pub(super) const OFFLINE: &[u8] = b"false";

/// What is to be done.
pub(super) type Action = line::Action<Infallible>;
/// What happened; its own: there is a newer document.
pub(super) type Fact<'a> = line::Fact<'a, Document>;

/// Where is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topics {
    /// `true` while this gateway has a connection.
    pub(super) online: String,
    /// How it is.
    pub(super) health: String,
}

impl Topics {
    /// Of one gateway.
    pub(super) fn of(prefix: &str, plant: &str, gateway: &str) -> Self {
        let topic = |what: &str| format!("{prefix}/{plant}/gateway/{gateway}/{what}");
        Self {
            online: topic("online"),
            health: topic("health"),
        }
    }
}

/// What was published last over this connection.
#[derive(Debug)]
struct Published {
    at: Instant,
    key: Vec<u8>,
}

/// The publisher.
#[derive(Debug)]
pub(super) struct ScadaMachine {
    line: Line<Infallible>,
    topics: Topics,
    newest: Option<Document>,
    /// `online` is still to be said over this connection.
    arrives: bool,
    published: Option<Published>,
    /// What is under way: its identifier, and since when.
    flight: Option<(u16, Instant)>,
    identifier: u16,
    packet_bytes_max: usize,
}

impl ScadaMachine {
    /// Without a connection, and time for one.
    pub(super) fn new(topics: Topics, now: Instant, backoff: Backoff) -> Self {
        Self {
            line: Line::new(now, backoff),
            topics,
            newest: None,
            arrives: false,
            published: None,
            flight: None,
            identifier: 0,
            packet_bytes_max: 0,
        }
    }

    /// Takes a fact.
    pub(super) fn take(&mut self, fact: Fact<'_>, now: Moment) {
        let now = now.instant;
        match fact {
            Fact::Opened { outcome, random } => self.opened(outcome, random, now),
            Fact::Packet(packet) => {
                self.line.heard(now);
                if let Err(error) = self.hear(packet) {
                    self.end(now, &error);
                }
            }
            Fact::Broke(error) => self.end(now, &error),
            Fact::Own(document) => self.newest = Some(document),
            Fact::Stopping { .. } => {
                if self.line.is_up() {
                    // A goodbye takes the will back.
                    let online = self.topics.online.clone();
                    self.line
                        .send(|out| packet::publish(out, &publication(&online, OFFLINE, 0, 0)));
                }
                self.line.stop(true);
            }
            Fact::QueueClosed => self.line.abort(),
            Fact::Written | Fact::TimePassed => {}
        }
        if self
            .flight
            .is_some_and(|(_, since)| now >= since + ACKNOWLEDGED_WITHIN)
        {
            self.end(now, &ConnectionError::Slow(ACKNOWLEDGED_WITHIN));
        }
        self.publish(now);
        match self.line.due(now) {
            Some(Due::Connect) => self.line.connect(true),
            Some(Due::Ping) => self.line.send(packet::ping),
            Some(Due::Silent(silence)) => self.end(now, &ConnectionError::Slow(silence)),
            None => {}
        }
    }

    /// What is to be done next.
    pub(super) fn action(&mut self) -> Option<Action> {
        self.line.action()
    }

    /// When it is time to look again, whatever happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let acknowledged = self.flight.map(|(_, since)| since + ACKNOWLEDGED_WITHIN);
        let due = self.due().filter(|_| self.line.is_up() && self.flight.is_none());
        self.line
            .deadline()
            .into_iter()
            .chain(acknowledged)
            .chain(due)
            .min()
    }

    /// Whether it is at its end.
    pub(super) fn is_over(&self) -> bool {
        self.line.is_over()
    }

    fn opened(&mut self, outcome: Result<Welcome, ConnectionError>, random: u64, now: Instant) {
        let welcome = match outcome {
            Ok(welcome) => welcome,
            Err(error) => return self.line.refused(now, &error, random),
        };
        self.line.opened(now, &welcome, random);
        if !self.line.is_up() {
            return;
        }
        if !welcome.retain_available {
            return self.end(
                now,
                &ConnectionError::Misbehaved("keeps no retained messages, which a state needs"),
            );
        }
        if welcome.qos_max == 0 {
            return self.end(
                now,
                &ConnectionError::Misbehaved("acknowledges no publications (it takes QoS 0 alone)"),
            );
        }
        self.packet_bytes_max = welcome.packet_bytes_max;
        self.arrives = true;
    }

    fn hear(&mut self, packet: Packet<'_>) -> Result<(), ConnectionError> {
        match packet {
            Packet::Acknowledge {
                kind: kind::PUBACK,
                identifier,
                reason,
            } if self.flight.is_some_and(|(flying, _)| flying == identifier) => {
                if reason >= REASON_FAILED {
                    return Err(ConnectionError::NotPublished(reason));
                }
                self.flight = None;
                // Each is one line of health and log at most: it says so of the document, the second one.
                if self.published.is_some() {
                    self.line.worked();
                    self.line.report(Notice::Up);
                }
                Ok(())
            }
            Packet::Nothing => Ok(()),
            Packet::Disconnect(reason) => Err(ConnectionError::Disconnected(reason)),
            Packet::Publish(_) | Packet::Acknowledge { .. } | Packet::Subscribed { .. } => {
                Err(ConnectionError::Misbehaved("sent what nobody asked for"))
            }
        }
    }

    fn end(&mut self, now: Instant, error: &ConnectionError) {
        self.line.end(now, error);
        (self.arrives, self.published, self.flight) = (false, None, None);
    }

    /// When the newest document is due; `None`: there is none.
    fn due(&self) -> Option<Instant> {
        let newest = self.newest.as_ref()?;
        let published = self.published.as_ref()?;
        let wait = if published.key == newest.key {
            REFRESH
        } else {
            PAUSE
        };
        Some(published.at + wait)
    }

    /// Publishes what is due, unless something is under way.
    fn publish(&mut self, now: Instant) {
        if !self.line.is_up() || self.flight.is_some() {
            return;
        }
        if std::mem::take(&mut self.arrives) {
            let (identifier, topic) = (self.take_off(now), self.topics.online.clone());
            return self
                .line
                .send(|out| packet::publish(out, &publication(&topic, ONLINE, 1, identifier)));
        }
        let is_due = self.published.is_none() || self.due().is_some_and(|due| due <= now);
        let Some(newest) = self.newest.clone().filter(|_| is_due) else {
            return;
        };
        let topic = self.topics.health.clone();
        if newest.text.len() + topic.len() + HEAD_BYTES > self.packet_bytes_max {
            return self.end(
                now,
                &ConnectionError::Misbehaved("takes no packet as large as this gateway's state"),
            );
        }
        let identifier = self.take_off(now);
        self.line
            .send(|out| packet::publish(out, &publication(&topic, &newest.text, 1, identifier)));
        self.published = Some(Published {
            at: now,
            key: newest.key,
        });
    }

    /// The identifier of what is under way from now on.
    fn take_off(&mut self, now: Instant) -> u16 {
        self.identifier = self.identifier.checked_add(1).unwrap_or(1);
        self.flight = Some((self.identifier, now));
        self.identifier
    }
}

fn publication<'a>(topic: &'a str, payload: &'a [u8], qos: u8, identifier: u16) -> Publication<'a> {
    Publication {
        topic,
        qos,
        retain: true,
        identifier,
        duplicate: false,
        expiry_s: None,
        payload,
    }
}

#[cfg(test)]
mod tests;
