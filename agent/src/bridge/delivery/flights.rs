//! The messages that are under way over one connection, in their order: which are sent, what the broker owes for each,
//! and up to where all are done.
//!
//! Done is done, also over the next connection: what is behind a message that is not done is neither given nor counted as
//! lost again while the agent runs.
//!
//! Bounds: at most [`WINDOW`] are open, at most four times as many are remembered, and what is read ahead is what the
//! queue was asked for ([`READ_BYTES`](super::machine::READ_BYTES)).

use std::collections::{BTreeSet, VecDeque};

use penstock_inspect::mqtt::packet::kind;

use crate::bridge::connection::{ConnectionError, reason_text};
use crate::bridge::layout::{Message, Snapshot};
use crate::bridge::packet::{self, Publication, Welcome};
use crate::bridge::report::Notice;
use crate::bridge::rules::PublicationRules;

/// How many publications are under way to the broker at once, at most.
pub const WINDOW: usize = 256;
/// How many are remembered, done or not.
const REMEMBERED_MAX: usize = 4 * WINDOW;
/// Reasons for which the same publication may be taken later: unspecified, implementation, identifier, quota.
const LATER: [u8; 4] = [0x80, 0x83, 0x91, 0x97];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Sent,
    /// PUBREC came and is being made durable.
    Receiving,
    /// PUBREL is out.
    Releasing,
    /// At QoS 0, on its way into the connection.
    Leaving,
    Done,
}

#[derive(Debug)]
struct Flight {
    seq: u64,
    qos: u8,
    stage: Stage,
}

/// What is under way over one connection.
#[derive(Debug)]
pub struct Flights {
    welcome: Welcome,
    /// In order of their sequence.
    flights: VecDeque<Flight>,
    /// Not done of them.
    open: usize,
    /// Read ahead.
    waiting: VecDeque<Message>,
    /// The next sequence to read.
    cursor: u64,
    /// Below this all are known to be done.
    finished: u64,
    /// What the broker has but for our PUBREL.
    received: BTreeSet<u64>,
    /// What was done over connections before, behind something that was not.
    done: BTreeSet<u64>,
    /// Below this something may have been sent before.
    sent_below: u64,
}

/// The packet identifier of a message: after a crash it is the same.
pub fn identifier(seq: u64) -> u16 {
    u16::try_from(seq % u64::from(u16::MAX)).unwrap_or(0) + 1
}

/// A loss of messages that came at one time.
fn lost(cause: &'static str, count: u64, came_ms: u64) -> Notice {
    Notice::Lost {
        cause,
        count,
        first_ms: came_ms,
        last_ms: came_ms,
    }
}

impl Flights {
    /// Where a new connection begins: with what is not done, and what the broker still knows of it. `done` is what the
    /// connection before left ([`into_done`](Self::into_done)).
    pub fn new(welcome: Welcome, state: Snapshot, done: BTreeSet<u64>) -> Self {
        let sent_below = if welcome.session_present {
            state.finished.saturating_add(WINDOW as u64)
        } else {
            0
        };
        Self {
            welcome,
            flights: VecDeque::new(),
            open: 0,
            waiting: VecDeque::new(),
            cursor: state.finished,
            finished: state.finished,
            received: state.received,
            done,
            sent_below,
        }
    }

    /// What is done behind something that is not: at most as many as are remembered.
    pub fn into_done(mut self) -> BTreeSet<u64> {
        let mut done = self.done.split_off(&self.finished);
        let flights = self.flights.iter();
        done.extend(
            flights
                .filter(|flight| flight.stage == Stage::Done)
                .map(|flight| flight.seq),
        );
        done
    }

    /// How many the broker owes something for.
    pub fn open(&self) -> usize {
        self.open
    }

    /// From where the queue is to be read, if it is time for it and it has messages below `next`.
    pub fn reads_from(&self, next: u64) -> Option<u64> {
        (self.waiting.is_empty() && self.cursor < next).then_some(self.cursor)
    }

    /// Takes what was read from the queue when it had messages below `next`; a gap in it is what the disk has lost.
    pub fn read(&mut self, messages: Vec<Message>, next: u64, now_ms: u64, notices: &mut Vec<Notice>) {
        let mut gap = 0;
        if messages.is_empty() {
            gap += next.saturating_sub(self.cursor);
            self.cursor = self.cursor.max(next);
        }
        for message in messages {
            gap += message.seq.saturating_sub(self.cursor);
            self.cursor = message.seq.saturating_add(1);
            self.waiting.push_back(message);
        }
        if gap > 0 {
            notices.push(lost("bridge-damaged", gap, now_ms));
        }
    }

    /// Sends what the window allows.
    pub fn send(
        &mut self,
        rules: &PublicationRules,
        now_ms: u64,
        out: &mut Vec<u8>,
        notices: &mut Vec<Notice>,
    ) {
        let window = WINDOW.min(usize::from(self.welcome.receive_maximum));
        while self.open < window && self.flights.len() < REMEMBERED_MAX {
            let Some(message) = self.waiting.pop_front() else {
                break;
            };
            let stage = if self.done.contains(&message.seq) {
                Stage::Done
            } else {
                self.put(rules, &message, now_ms, out).unwrap_or_else(|given_up| {
                    notices.extend(given_up);
                    Stage::Done
                })
            };
            self.open += usize::from(!matches!(stage, Stage::Leaving | Stage::Done));
            self.flights.push_back(Flight {
                seq: message.seq,
                qos: message.qos.min(self.welcome.qos_max),
                stage,
            });
        }
    }

    /// All that [`send`](Self::send) gave out is written: at QoS 0 that is all there is to do.
    pub fn written(&mut self) {
        for flight in &mut self.flights {
            if flight.stage == Stage::Leaving {
                flight.stage = Stage::Done;
            }
        }
    }

    /// Below this all are done, if that is news.
    pub fn newly_finished(&mut self) -> Option<u64> {
        while self
            .flights
            .front()
            .is_some_and(|flight| flight.stage == Stage::Done)
        {
            self.flights.pop_front();
        }
        let first_open = self.flights.front().map(|flight| flight.seq);
        let first_waiting = self.waiting.front().map(|message| message.seq);
        let finished = first_open.or(first_waiting).unwrap_or(self.cursor);
        if finished <= self.finished {
            return None;
        }
        self.finished = finished;
        Some(finished)
    }

    /// Writes what a message needs now and says where it stands then; `Err`: it will not arrive, and why.
    fn put(
        &self,
        rules: &PublicationRules,
        message: &Message,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Stage, Vec<Notice>> {
        let identifier = identifier(message.seq);
        if self.received.contains(&message.seq) {
            packet::acknowledge(out, kind::PUBREL, identifier);
            return Ok(Stage::Releasing);
        }
        // It was permitted when it came; the policy may have changed since.
        if let Err(why) = rules.judge(&message.topic, message.qos, message.retain) {
            let gone = lost("bridge-no-longer-permitted", 1, message.time_ms);
            return Err(vec![Notice::Refused(why), gone]);
        }
        let mut expiry_s = None;
        if message.expires_ms != 0 {
            let left = message.expires_ms.saturating_sub(now_ms);
            if left == 0 {
                return Err(vec![lost("bridge-expired", 1, message.time_ms)]);
            }
            expiry_s = Some(u32::try_from(left.div_ceil(1000)).unwrap_or(u32::MAX));
        }
        let qos = message.qos.min(self.welcome.qos_max);
        let publication = Publication {
            topic: &message.topic,
            qos,
            retain: message.retain && self.welcome.retain_available,
            identifier,
            duplicate: message.seq < self.sent_below,
            expiry_s,
            payload: &message.payload,
        };
        let before = out.len();
        packet::publish(out, &publication);
        if out.len() - before > self.welcome.packet_bytes_max {
            out.truncate(before);
            return Err(vec![lost("bridge-too-large", 1, message.time_ms)]);
        }
        Ok(if qos == 0 { Stage::Leaving } else { Stage::Sent })
    }

    /// PUBACK, PUBREC or PUBCOMP came. Gives the message whose receipt is to be made durable now, if it is a PUBREC.
    pub(crate) fn acknowledged(
        &mut self,
        which: u8,
        identifier: u16,
        reason: u8,
        now_ms: u64,
        notices: &mut Vec<Notice>,
    ) -> Result<Option<u64>, ConnectionError> {
        let expected = match which {
            kind::PUBACK => (1, Stage::Sent),
            kind::PUBREC => (2, Stage::Sent),
            kind::PUBCOMP => (2, Stage::Releasing),
            _ => return Err(ConnectionError::Misbehaved("released what it never published")),
        };
        let Some(flight) = self.flights.iter_mut().find(|flight| {
            self::identifier(flight.seq) == identifier && (flight.qos, flight.stage) == expected
        }) else {
            return Err(ConnectionError::Misbehaved(
                "acknowledged what was not sent to it",
            ));
        };
        if which == kind::PUBREC && reason < packet::REASON_FAILED {
            flight.stage = Stage::Receiving;
            return Ok(Some(flight.seq));
        }
        // A PUBCOMP for an identifier that the broker does not know says that it was complete before.
        if reason >= packet::REASON_FAILED && which != kind::PUBCOMP {
            if LATER.contains(&reason) {
                return Err(ConnectionError::NotTaken(reason));
            }
            // Waiting would hold up everything behind it, and the broker would say the same again.
            let text = format!("the broker refuses a publication: {}", reason_text(reason));
            notices.push(Notice::Refused(text));
            notices.push(lost("bridge-refused-by-broker", 1, now_ms));
        }
        flight.stage = Stage::Done;
        self.open = self.open.saturating_sub(1);
        Ok(None)
    }

    /// The receipt of this message is durable: its PUBREL may go out.
    pub fn recorded(&mut self, seq: u64, out: &mut Vec<u8>) {
        let receiving = |flight: &&mut Flight| flight.seq == seq && flight.stage == Stage::Receiving;
        if let Some(flight) = self.flights.iter_mut().find(receiving) {
            flight.stage = Stage::Releasing;
            packet::acknowledge(out, kind::PUBREL, identifier(seq));
        }
    }
}
