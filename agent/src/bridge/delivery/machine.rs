//! What the giving side does, decided: a pure machine. Facts and the time go in; what is to be done and when to look
//! again come out. It has no clock, no network and no disk; [`delivery`](super) is the shell that has, and
//! [`line`](crate::bridge::side::line) says what every driver keeps to.
//!
//! ```text
//! away ─▶ opening ─▶ settling ─────────────────────────────▶ giving ─▶ away …
//!                    a new session is recorded, the queue    (flights)
//!                    says where things stand
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use penstock_proto::backoff::Backoff;

use super::flights::{Flights, WINDOW};
use crate::bridge::connection::ConnectionError;
use crate::bridge::keeper::{Answer, Question};
use crate::bridge::packet::{self, Incoming as Packet, Welcome};
use crate::bridge::report::Notice;
use crate::bridge::rules::PublicationRules;
use crate::bridge::side::line::{self, Due, Line, Moment};

/// How much is read from the queue at once, bytes.
pub const READ_BYTES: u64 = 64 * 1024;
/// The most answers that one connection can be owed at once: a receipt for each publication under way, what was read,
/// and where things stand.
pub const ANSWERS_MAX: usize = WINDOW + 2;

/// What is to be done.
pub type Action = line::Action<Question>;

/// What the queue says.
#[derive(Debug)]
pub enum QueueFact {
    /// The answer to a question.
    Answered(Answer),
    /// It has messages below this sequence.
    Depth(u64),
}

/// What happened.
pub type Fact<'a> = line::Fact<'a, QueueFact>;

#[derive(Debug)]
enum Phase {
    /// No connection.
    Idle,
    /// The broker's session is being made out.
    Settling(Welcome),
    /// Messages go.
    Giving(Flights),
}

/// The giving side of one bridge.
#[derive(Debug)]
pub struct DeliveryMachine {
    line: Line<Question>,
    rules: Arc<PublicationRules>,
    /// Packet identifiers are not to be trusted: begin with a new session.
    clean_start: bool,
    /// The broker's session is new, and the disk does not say so yet.
    forgot: bool,
    /// The queue has messages below this sequence.
    depth: u64,
    /// What `depth` was when the queue was asked to read, while it reads.
    reading: Option<u64>,
    /// What connections before have done behind something that is not.
    done: BTreeSet<u64>,
    phase: Phase,
}

impl DeliveryMachine {
    /// Without a connection, and time for one.
    pub fn new(
        rules: Arc<PublicationRules>,
        clean_start: bool,
        depth: u64,
        now: Instant,
        backoff: Backoff,
    ) -> Self {
        Self {
            line: Line::new(now, backoff),
            rules,
            clean_start,
            forgot: false,
            depth,
            reading: None,
            done: BTreeSet::new(),
            phase: Phase::Idle,
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
            Fact::Written => self.written(),
            Fact::Broke(error) => self.end(now, &error),
            Fact::Own(QueueFact::Answered(answer)) => self.answered(answer, now),
            Fact::Own(QueueFact::Depth(next)) => self.depth = self.depth.max(next),
            Fact::QueueClosed => self.line.abort(),
            Fact::Stopping { forget } => self.line.stop(forget),
            Fact::TimePassed => {}
        }
        match self.line.due(now.instant) {
            Some(Due::Connect) => self.line.connect(self.clean_start),
            Some(Due::Ping) => self.line.send(packet::ping),
            Some(Due::Silent(silence)) => self.end(now, &ConnectionError::Slow(silence)),
            None => {}
        }
        self.give(now);
    }

    /// What is to be done next.
    pub fn action(&mut self) -> Option<Action> {
        self.line.action()
    }

    /// When it is time to look again, whatever happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.line.deadline()
    }

    /// Whether it is at its end.
    pub fn is_over(&self) -> bool {
        self.line.is_over()
    }

    /// How many publications the broker owes something for.
    pub fn under_way(&self) -> usize {
        match &self.phase {
            Phase::Giving(flights) => flights.open(),
            Phase::Idle | Phase::Settling(_) => 0,
        }
    }

    /// Whether the broker's session is new and the disk does not say so yet.
    pub fn owes_record(&self) -> bool {
        self.forgot
    }

    fn end(&mut self, now: Moment, error: &ConnectionError) {
        self.line.end(now.instant, error);
        if let Phase::Giving(flights) = std::mem::replace(&mut self.phase, Phase::Idle) {
            self.done = flights.into_done();
        }
        self.reading = None;
    }

    fn written(&mut self) {
        if let Phase::Giving(flights) = &mut self.phase
            && !self.line.is_sending()
        {
            flights.written();
        }
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
        if welcome.receive_maximum == 0 {
            return self.end(now, &ConnectionError::Misbehaved("takes no publication at all"));
        }
        if welcome.session_present && self.clean_start {
            let what = "kept a session although a clean start was asked for";
            return self.end(now, &ConnectionError::Misbehaved(what));
        }
        self.forgot |= !welcome.session_present;
        self.phase = Phase::Settling(welcome);
        let first = if self.forgot {
            Question::Forgot
        } else {
            Question::State
        };
        self.line.own(first);
    }

    fn answered(&mut self, answer: Answer, now: Moment) {
        match (answer, &mut self.phase) {
            (Answer::Forgotten, Phase::Settling(_)) => {
                self.forgot = false;
                self.line.own(Question::State);
            }
            (Answer::NotForgotten, Phase::Settling(_)) => self.end(now, &ConnectionError::NotRecorded),
            (Answer::State(state), Phase::Settling(welcome)) => {
                self.depth = self.depth.max(state.next);
                self.clean_start = false;
                self.line.report(Notice::Up);
                let done = std::mem::take(&mut self.done);
                self.phase = Phase::Giving(Flights::new(*welcome, state, done));
            }
            (Answer::Read(messages), Phase::Giving(flights)) => {
                if let Some(depth) = self.reading.take() {
                    let mut notices = Vec::new();
                    flights.read(messages, depth, now.ms, &mut notices);
                    self.report(notices);
                }
            }
            (Answer::Recorded(seq), Phase::Giving(flights)) => {
                self.line.send(|out| flights.recorded(seq, out));
            }
            // What cannot be read now is read by a new bridge over the same queue.
            (Answer::Unreadable, _) => self.line.abort(),
            _ => {}
        }
    }

    fn hear(&mut self, packet: Packet<'_>, now: Moment) -> Result<(), ConnectionError> {
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
        let Phase::Giving(flights) = &mut self.phase else {
            return Err(ConnectionError::Misbehaved(
                "acknowledged what was not sent to it",
            ));
        };
        let mut notices = Vec::new();
        let received = flights.acknowledged(which, identifier, reason, now.ms, &mut notices)?;
        self.report(notices);
        match received {
            Some(seq) => self.line.own(Question::Received(seq)),
            // A broker that ends each connection after a few, as Mosquitto does with fewer places than it says, gets the rest as
            // soon as it may.
            None => self.line.worked(),
        }
        Ok(())
    }

    /// Gives what can be given, reports what is done, and asks for more.
    fn give(&mut self, now: Moment) {
        let Phase::Giving(flights) = &mut self.phase else {
            return;
        };
        if !self.line.is_up() {
            return;
        }
        let mut notices = Vec::new();
        self.line
            .send(|out| flights.send(&self.rules, now.ms, out, &mut notices));
        let finished = flights.newly_finished();
        let reads_from = flights.reads_from(self.depth);
        // First that it is lost, then that it is done: what ends between the two says it twice, not never.
        self.report(notices);
        if let Some(finished) = finished {
            self.line.own(Question::Finished(finished));
        }
        if self.reading.is_none()
            && let Some(from) = reads_from
        {
            self.reading = Some(self.depth);
            self.line.own(Question::Read {
                from,
                bytes_max: READ_BYTES,
            });
        }
    }

    fn report(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            self.line.report(notice);
        }
    }
}
