//! The side that gives: a publisher at the other broker, from the queue, in order.
//!
//! This side never subscribes: a publication from this broker ends the connection. A message's packet identifier is
//! its sequence modulo 65535, and a PUBREC is durable before its PUBREL goes out; so after a crash the broker meets the
//! same identifiers again, and what it was given at QoS 2 it has exactly once while both brokers keep their sessions.
//! At QoS 1 a message may come twice; none is lost at either.
//!
//! A message is done, and may leave the disk, when the broker has completed it (PUBACK, PUBCOMP), when it was written
//! at QoS 0, when it expired, or when nothing permits it any more. Everything but the first is reported.
//!
//! [`machine`] decides, with [`flights`] for what is under way; here is the shell that has connection, queue and clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::keeper::{Answer, Depth, Question, Request};
use super::report::{BridgeSide, Reporter};
use super::rules::PublicationRules;
use super::side::line::Action;
use super::side::{BrokerPeer, Wire, moment, reached};

pub mod flights;
pub mod machine;

use machine::{ANSWERS_MAX, DeliveryMachine, Fact, QueueFact};

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

/// The machine and all that it acts on.
struct Running {
    side: Delivery,
    machine: DeliveryMachine,
    wire: Wire,
    /// Where this connection's answers come; those of the one before go nowhere.
    answers_in: mpsc::Sender<Answer>,
    answers: mpsc::Receiver<Answer>,
}

impl Delivery {
    /// Keeps a connection until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let (answers_in, answers) = mpsc::channel(ANSWERS_MAX);
        let next = self.depth.borrow().next;
        let machine = DeliveryMachine::new(
            self.permitted.clone(),
            self.clean_start,
            next,
            moment().instant,
            self.peer.backoff,
        );
        let running = Running {
            side: self,
            machine,
            wire: Wire::Closed,
            answers_in,
            answers,
        };
        running.until(stop).await;
    }
}

impl Running {
    async fn until(mut self, stop: CancellationToken) {
        self.machine.take(Fact::TimePassed, moment());
        loop {
            self.act().await;
            if self.machine.is_over() {
                return;
            }
            let machine = &mut self.machine;
            tokio::select! {
                () = stop.cancelled() => {
                    let forget = self.side.revoked.load(Ordering::Acquire);
                    machine.take(Fact::Stopping { forget }, moment());
                }
                fact = self.wire.next() => machine.take(fact, moment()),
                Some(answer) = self.answers.recv() => {
                    machine.take(Fact::Own(QueueFact::Answered(answer)), moment());
                    while let Ok(answer) = self.answers.try_recv() {
                        machine.take(Fact::Own(QueueFact::Answered(answer)), moment());
                    }
                }
                changed = self.side.depth.changed() => {
                    let fact = match changed {
                        Ok(()) => Fact::Own(QueueFact::Depth(self.side.depth.borrow_and_update().next)),
                        Err(_) => Fact::QueueClosed,
                    };
                    machine.take(fact, moment());
                }
                () = reached(machine.deadline()) => machine.take(Fact::TimePassed, moment()),
            }
        }
    }

    /// Does what the machine wants done.
    async fn act(&mut self) {
        while let Some(action) = self.machine.action() {
            match action {
                Action::Connect { clean_start } => {
                    (self.answers_in, self.answers) = mpsc::channel(ANSWERS_MAX);
                    self.wire.open(&self.side.peer, clean_start);
                }
                Action::Send(bytes) => {
                    let fact = self.wire.send(&bytes).await;
                    self.machine.take(fact, moment());
                }
                Action::Close(goodbye) => self.wire.close(goodbye).await,
                Action::Report(notice) => self.side.reporter.notice(BridgeSide::To, notice),
                Action::Own(question) => self.ask(question).await,
            }
        }
    }

    async fn ask(&mut self, question: Question) {
        let request = Request {
            question,
            answers: self.answers_in.clone(),
        };
        if self.side.requests.send(request).await.is_err() {
            self.machine.take(Fact::QueueClosed, moment());
        }
    }
}
