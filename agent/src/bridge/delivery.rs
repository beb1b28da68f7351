//! The side that gives: a publisher at the other broker, from the queue, in order.
//!
//! This side never subscribes: a publication from this broker ends the connection. A message's packet identifier is
//! its sequence modulo 65535, and a PUBREC is durable before its PUBREL goes out; so after a crash the broker meets the
//! same identifiers again, and what it was given at QoS 2 it has exactly once while both brokers keep their sessions.
//! At QoS 1 a message may come twice; none is lost at either.
//!
//! A message is done, and may leave the disk, when the broker has completed it (PUBACK, PUBCOMP), when it was written
//! at QoS 0, when it expired, or when nothing permits it any more. Everything but the first is told.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use penstock_inspect::mqtt::packet::kind;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::{ConnectionError, Outgoing, reason_text};
use super::keeper::{Depth, Request};
use super::layout::Message;
use super::packet::{self, Incoming as Packet, Publication, Welcome};
use super::report::{BridgeSide, Reporter};
use super::rules::PublicationRules;
use super::side::{BrokerPeer, Pulse, Retry};
use crate::clock;

/// How many publications are under way to the broker at once, at most.
const WINDOW: usize = 256;
/// How much is read from the queue at once, bytes.
const READ_BYTES: u64 = 64 * 1024;
/// Reasons for which the same publication may be taken later: unspecified, implementation, identifier, quota.
const LATER: [u8; 4] = [0x80, 0x83, 0x91, 0x97];

/// The giving side of one bridge.
pub struct Delivery {
    /// The broker.
    pub peer: BrokerPeer,
    /// What may cross, today.
    pub permitted: Arc<PublicationRules>,
    /// To the queue.
    pub requests: mpsc::Sender<Request>,
    /// Where messages stand.
    pub depth: watch::Receiver<Depth>,
    /// The bridge's voice.
    pub reporter: Reporter,
    /// Packet identifiers are not to be trusted: begin with a new session.
    pub clean_start: bool,
    /// The bridge is revoked: the broker shall forget it.
    pub revoked: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Sent,
    /// PUBREC came and is being made durable.
    Receiving,
    /// PUBREL is out.
    Releasing,
    Done,
}

#[derive(Debug)]
struct Flight {
    seq: u64,
    qos: u8,
    stage: Stage,
}

/// What is under way over one connection.
struct Air {
    welcome: Welcome,
    /// In order of their sequence.
    flights: VecDeque<Flight>,
    /// Not done of them.
    open: usize,
    /// Read ahead.
    waiting: VecDeque<Message>,
    /// The next sequence to read.
    cursor: u64,
    /// Below this everything was told to be done.
    finished: u64,
    /// What the broker has but for our PUBREL.
    received: BTreeSet<u64>,
    /// Below this something may have been sent before.
    sent_below: u64,
}

fn identifier(seq: u64) -> u16 {
    u16::try_from(seq % u64::from(u16::MAX)).unwrap_or(0) + 1
}

impl Delivery {
    /// Keeps a connection until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut retry = Retry::default();
        loop {
            let begun = Instant::now();
            let error = match self.session(&stop).await {
                Ok(()) => ConnectionError::Stopping,
                Err(error) => error,
            };
            let lived = begun.elapsed();
            if !retry
                .after(&error, lived, &self.reporter, BridgeSide::To, &stop)
                .await
            {
                return;
            }
        }
    }

    async fn session(&mut self, stop: &CancellationToken) -> Result<(), ConnectionError> {
        let connected = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            connected = self.peer.connect(self.clean_start) => connected?,
        };
        let (mut incoming, mut outgoing, welcome) = connected;
        let mut pulse = Pulse::new(&welcome);
        let mut air = self.take_off(welcome).await?;
        self.clean_start = false;
        self.reporter.up(BridgeSide::To);
        let (done, mut receipts) = mpsc::channel(WINDOW);
        let mut reading: Option<oneshot::Receiver<Vec<Message>>> = None;
        let ended = loop {
            if let Err(error) = self.send(&mut air, &mut outgoing).await {
                break Err(error);
            }
            let next = self.depth.borrow_and_update().next;
            if reading.is_none() && air.waiting.is_empty() && air.cursor < next {
                let (answer, answered) = oneshot::channel();
                let wanted = Request::Read {
                    from: air.cursor,
                    bytes_max: READ_BYTES,
                    answer,
                };
                if self.requests.send(wanted).await.is_err() {
                    break Err(ConnectionError::QueueClosed);
                }
                reading = Some(answered);
            }
            let step = tokio::select! {
                () = stop.cancelled() => break Ok(()),
                read = async { reading.as_mut()?.await.ok() }, if reading.is_some() => {
                    reading = None;
                    match read {
                        Some(messages) => {
                            self.arrived(&mut air, messages, next);
                            Ok(())
                        }
                        // It could not be read now: a new connection will try again.
                        None => Err(ConnectionError::QueueClosed),
                    }
                }
                packet = incoming.next() => {
                    pulse.heard();
                    match packet.and_then(|(header, body)| Ok(packet::read(header, body)?)) {
                        Ok(packet) => self.hear(&mut air, packet, &done).await,
                        Err(error) => Err(error),
                    }
                }
                Some(seq) = receipts.recv() => release(&mut air, &mut outgoing, &mut receipts, seq).await,
                changed = self.depth.changed() => changed.map_err(|_| ConnectionError::QueueClosed),
                beat = pulse.beat() => match beat {
                    Ok(()) => {
                        let mut out = Vec::new();
                        packet::ping(&mut out);
                        outgoing.write(&out).await
                    }
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = step {
                break Err(error);
            }
        };
        let reason = match &ended {
            Ok(()) => packet::REASON_NORMAL,
            Err(ConnectionError::Misbehaved(_) | ConnectionError::Packet(_)) => packet::REASON_PROTOCOL,
            Err(ConnectionError::NotTaken(_)) => packet::REASON_NORMAL,
            Err(_) => return ended,
        };
        let revoked = ended.is_ok() && self.revoked.load(Ordering::Acquire);
        outgoing.leave(reason, revoked).await;
        ended
    }

    /// Where a new connection begins: with what is not done, and what the broker still knows of it.
    async fn take_off(&self, welcome: Welcome) -> Result<Air, ConnectionError> {
        if !welcome.session_present {
            let (answer, answered) = oneshot::channel();
            self.ask(Request::Forgot(answer), answered).await?;
        }
        let (answer, answered) = oneshot::channel();
        let state = self.ask(Request::State(answer), answered).await?;
        Ok(Air {
            welcome,
            flights: VecDeque::new(),
            open: 0,
            waiting: VecDeque::new(),
            cursor: state.finished,
            finished: state.finished,
            sent_below: if welcome.session_present {
                state.finished.saturating_add(WINDOW as u64)
            } else {
                0
            },
            received: state.received,
        })
    }

    async fn ask<T>(&self, request: Request, answered: oneshot::Receiver<T>) -> Result<T, ConnectionError> {
        let closed = |_| ConnectionError::QueueClosed;
        self.requests
            .send(request)
            .await
            .map_err(|_| ConnectionError::QueueClosed)?;
        answered.await.map_err(closed)
    }

    /// Takes what was read from the queue; a gap in it is what the disk has lost.
    fn arrived(&self, air: &mut Air, messages: Vec<Message>, next: u64) {
        let now = clock::now_ms();
        if messages.is_empty() {
            self.reporter
                .lost("bridge-damaged", next.saturating_sub(air.cursor), now, now);
            air.cursor = air.cursor.max(next);
        }
        for message in messages {
            self.reporter
                .lost("bridge-damaged", message.seq.saturating_sub(air.cursor), now, now);
            air.cursor = message.seq.saturating_add(1);
            air.waiting.push_back(message);
        }
    }

    /// Sends what the window allows, and tells the queue what is done.
    async fn send(&self, air: &mut Air, outgoing: &mut Outgoing) -> Result<(), ConnectionError> {
        let window = WINDOW.min(usize::from(air.welcome.receive_maximum));
        let mut out = Vec::new();
        while air.open < window && air.flights.len() < 4 * WINDOW {
            let Some(message) = air.waiting.pop_front() else {
                break;
            };
            let stage = self.put(air, &message, &mut out);
            if stage != Stage::Done {
                air.open += 1;
            }
            air.flights.push_back(Flight {
                seq: message.seq,
                qos: message.qos.min(air.welcome.qos_max),
                stage,
            });
        }
        if !out.is_empty() {
            outgoing.write(&out).await?;
        }
        while air
            .flights
            .front()
            .is_some_and(|flight| flight.stage == Stage::Done)
        {
            air.flights.pop_front();
        }
        let first_open = air.flights.front().map(|flight| flight.seq);
        let first_waiting = air.waiting.front().map(|message| message.seq);
        let finished = first_open.or(first_waiting).unwrap_or(air.cursor);
        if finished > air.finished {
            air.finished = finished;
            self.requests
                .send(Request::Finished(finished))
                .await
                .map_err(|_| ConnectionError::QueueClosed)?;
        }
        Ok(())
    }

    /// Writes what a message needs now; says where it stands then.
    fn put(&self, air: &Air, message: &Message, out: &mut Vec<u8>) -> Stage {
        let identifier = identifier(message.seq);
        if air.received.contains(&message.seq) {
            packet::acknowledge(out, kind::PUBREL, identifier);
            return Stage::Releasing;
        }
        // It was permitted when it came; the policy may have changed since.
        if let Err(why) = self.permitted.judge(&message.topic, message.qos, message.retain) {
            self.reporter.refused(&why);
            let came = message.time_ms;
            self.reporter.lost("bridge-no-longer-permitted", 1, came, came);
            return Stage::Done;
        }
        let now = clock::now_ms();
        let mut expiry_s = None;
        if message.expires_ms != 0 {
            let left = message.expires_ms.saturating_sub(now);
            if left == 0 {
                self.reporter
                    .lost("bridge-expired", 1, message.time_ms, message.time_ms);
                return Stage::Done;
            }
            expiry_s = Some(u32::try_from(left.div_ceil(1000)).unwrap_or(u32::MAX));
        }
        let qos = message.qos.min(air.welcome.qos_max);
        let publication = Publication {
            topic: &message.topic,
            qos,
            retain: message.retain && air.welcome.retain_available,
            identifier,
            expiry_s,
            payload: &message.payload,
        };
        let before = out.len();
        packet::publish(out, &publication, message.seq < air.sent_below);
        if out.len() - before > air.welcome.packet_bytes_max {
            out.truncate(before);
            self.reporter
                .lost("bridge-too-large", 1, message.time_ms, message.time_ms);
            return Stage::Done;
        }
        if qos == 0 { Stage::Done } else { Stage::Sent }
    }

    async fn hear(
        &self,
        air: &mut Air,
        packet: Packet<'_>,
        done: &mpsc::Sender<u64>,
    ) -> Result<(), ConnectionError> {
        let (which, identifier, reason) = match packet {
            Packet::Acknowledge {
                kind,
                identifier,
                reason,
            } => (kind, identifier, reason),
            Packet::Nothing => return Ok(()),
            Packet::Disconnect(reason) => return Err(ConnectionError::Disconnected(reason)),
            Packet::Publish(_) => {
                let what = "sent a publication, though nothing was subscribed to there: nothing flows back";
                return Err(ConnectionError::Misbehaved(what));
            }
            Packet::Subscribed { .. } => {
                return Err(ConnectionError::Misbehaved(
                    "answered a request that was never sent",
                ));
            }
        };
        let expected = match which {
            kind::PUBACK => (1, Stage::Sent),
            kind::PUBREC => (2, Stage::Sent),
            kind::PUBCOMP => (2, Stage::Releasing),
            _ => return Err(ConnectionError::Misbehaved("released what it never published")),
        };
        let Some(flight) = air.flights.iter_mut().find(|flight| {
            self::identifier(flight.seq) == identifier && (flight.qos, flight.stage) == expected
        }) else {
            return Err(ConnectionError::Misbehaved(
                "acknowledged what was not sent to it",
            ));
        };
        if which == kind::PUBREC && reason < packet::REASON_FAILED {
            flight.stage = Stage::Receiving;
            let seq = flight.seq;
            return self
                .requests
                .send(Request::Received(seq, done.clone()))
                .await
                .map_err(|_| ConnectionError::QueueClosed);
        }
        if reason >= packet::REASON_FAILED && which != kind::PUBCOMP {
            if LATER.contains(&reason) {
                return Err(ConnectionError::NotTaken(reason));
            }
            // Waiting would hold up everything behind it, and the broker would say the same again.
            let now = clock::now_ms();
            let text = format!("the broker refuses a publication: {}", reason_text(reason));
            self.reporter.refused(&text);
            self.reporter.lost("bridge-refused-by-broker", 1, now, now);
        }
        flight.stage = Stage::Done;
        air.open = air.open.saturating_sub(1);
        Ok(())
    }
}

/// The PUBRECs whose receipt is durable now get their PUBREL.
async fn release(
    air: &mut Air,
    outgoing: &mut Outgoing,
    receipts: &mut mpsc::Receiver<u64>,
    first: u64,
) -> Result<(), ConnectionError> {
    let mut out = Vec::new();
    let mut next = Some(first);
    while let Some(seq) = next {
        if let Some(flight) = air.flights.iter_mut().find(|flight| flight.seq == seq) {
            flight.stage = Stage::Releasing;
            packet::acknowledge(&mut out, kind::PUBREL, identifier(seq));
        }
        next = receipts.try_recv().ok();
    }
    outgoing.write(&out).await
}
