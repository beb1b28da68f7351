//! The one task that touches a bridge's queue: it gathers what both sides want into one sync (group commit).
//!
//! ```text
//! intake ── batches ──▶ keeper ── records ──▶ queue ── durable ──▶ acknowledgements to intake, receipts to delivery
//! delivery ── reads, receipts, positions ──▶ keeper ── messages ──▶ delivery
//! ```
//!
//! An acknowledgement goes out only after the sync that made its message durable. While the queue takes no message, the
//! batch in hand waits, and with it everything behind it: the intake stops reading, and the sending broker keeps what
//! was not acknowledged. Only QoS 0, which nobody keeps, is lost then, and counted.
//!
//! [`machine`] decides; here is the shell that has the queue and the clock.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;
use tokio::time::{Instant, MissedTickBehavior};

use super::layout::{Message, Snapshot};
use super::losses::LossFile;
use super::queue::Queue;
use super::report::Reporter;
use penstock_policy::text::sentence;

pub mod machine;

use machine::{KeeperMachine, Owed};

/// How often positions are written and the state is reported when nothing else is.
const TICK: Duration = Duration::from_millis(250);
/// How long a bridge that ends waits for the trail.
pub const REPORTED_WITHIN: Duration = Duration::from_secs(1);
/// Requests that may wait for the keeper.
pub const WAITING_MAX: usize = 64;

/// An acknowledgement that is owed to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// PUBACK, PUBREC or PUBCOMP.
    pub kind: u8,
    /// Packet identifier.
    pub identifier: u16,
}

/// What an entry without a message counts for in memory, bytes.
const ENTRY_BYTES: u64 = 64;

/// One thing that the sending broker did, in its order.
#[derive(Debug)]
pub enum IntakeEntry {
    /// A message to keep.
    Keep {
        /// The message.
        message: Message,
        /// How it is acknowledged.
        ack: Option<Ack>,
        /// It may have come before.
        again: bool,
    },
    /// A refused one: acknowledged in its turn, and gone.
    Skip(Ack),
    /// PUBREL.
    Release(Ack),
    /// Its session is new.
    Forgot,
}

impl IntakeEntry {
    /// What it counts for while it waits, bytes.
    pub fn cost(&self) -> u64 {
        match self {
            Self::Keep { message, .. } => message.cost(),
            Self::Skip(_) | Self::Release(_) | Self::Forgot => ENTRY_BYTES,
        }
    }
}

/// What came over one connection, in its order.
#[derive(Debug)]
pub struct IntakeBatch {
    /// In order.
    pub entries: Vec<IntakeEntry>,
    /// Where it is heard that all of it is durable, with what is owed for it; with the connection, it goes.
    pub durable: mpsc::Sender<Vec<Ack>>,
}

/// What the delivering side asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Messages from a sequence on, about so many bytes. [`Answer::Read`] or [`Answer::Unreadable`].
    Read {
        /// From where.
        from: u64,
        /// About how much.
        bytes_max: u64,
    },
    /// The broker's PUBREC came. [`Answer::Recorded`] when that is durable.
    Received(u64),
    /// Everything below is done. Not answered.
    Finished(u64),
    /// The broker's session is new. [`Answer::Forgotten`] when that is durable, or [`Answer::NotForgotten`].
    Forgot,
    /// Where things stand. [`Answer::State`].
    State,
}

/// What the queue answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The messages, in order. None: none of them can be read.
    Read(Vec<Message>),
    /// The queue cannot be read now.
    Unreadable,
    /// This PUBREC is durable, or as good as the disk has it.
    Recorded(u64),
    /// It is durable that the broker's session is new.
    Forgotten,
    /// It is not.
    NotForgotten,
    /// Where things stand.
    State(Snapshot),
}

/// A question, and where its answer goes; with the connection, it goes.
#[derive(Debug)]
pub struct Request {
    /// What is asked.
    pub question: Question,
    /// To whom the answer goes.
    pub answers: mpsc::Sender<Answer>,
}

/// Where messages stand, for whoever waits for more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// The sequence of the next message.
    pub next: u64,
}

/// The task's own state.
pub struct Keeper {
    /// Batches of the intake.
    pub batches: mpsc::Receiver<IntakeBatch>,
    /// Requests of the delivery.
    pub requests: mpsc::Receiver<Request>,
    /// Where messages stand.
    pub depth: watch::Sender<Depth>,
    /// The bridge's voice.
    pub reporter: Reporter,
    /// Where what it has not reported is kept.
    pub losses: LossFile,
}

struct Job {
    queue: Queue,
    machine: KeeperMachine<mpsc::Sender<Vec<Ack>>>,
    requests: Vec<Request>,
    write_finished: bool,
    reporter: Reporter,
    losses: LossFile,
}

impl Keeper {
    /// Runs until both sides are gone; an error is a fault of the queue's own code.
    pub(crate) async fn run(mut self, queue: Queue) -> Result<(), JoinError> {
        let machine = KeeperMachine::new(queue.state().finished);
        let mut job = Job {
            queue,
            machine,
            requests: Vec::new(),
            write_finished: false,
            reporter: self.reporter.clone(),
            losses: self.losses,
        };
        let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut intake_open, mut delivery_open) = (true, true);
        tell(&mut job);
        loop {
            let stuck = job.machine.is_stuck();
            tokio::select! {
                request = self.requests.recv(), if delivery_open => match request {
                    Some(request) => job.requests.push(request),
                    None => delivery_open = false,
                },
                batch = self.batches.recv(), if intake_open && !stuck => match batch {
                    Some(batch) => job.take(batch),
                    None => intake_open = false,
                },
                _ = tick.tick() => job.write_finished = true,
            }
            let last = !intake_open && !delivery_open;
            job.write_finished |= last;
            while job.requests.len() < WAITING_MAX
                && let Ok(request) = self.requests.try_recv()
            {
                job.requests.push(request);
            }
            while !stuck
                && !job.machine.is_full()
                && let Ok(batch) = self.batches.try_recv()
            {
                job.take(batch);
            }
            let ticked = job.write_finished;
            job = tokio::task::spawn_blocking(move || job.done()).await?;
            let next = job.queue.state().next;
            self.depth.send_if_modified(|depth| {
                let changed = depth.next != next;
                depth.next = next;
                changed
            });
            if ticked {
                tell(&mut job);
            }
            if last {
                job.reporter.tell_due(true);
                return job.reported().await;
            }
        }
    }
}

fn tell(job: &mut Job) {
    let state = job.queue.state();
    let backlog = state.next.saturating_sub(state.finished);
    let bytes = job.queue.bytes();
    let oldest_ms = if backlog > 0 { job.queue.oldest_ms() } else { None };
    let problem = job.machine.problem().map(str::to_owned);
    job.reporter.depth(backlog, bytes, oldest_ms, problem);
    job.reporter.tell_due(false);
}

impl Job {
    fn take(&mut self, batch: IntakeBatch) {
        let unreleased = &self.queue.state().unreleased;
        self.machine.take(batch.entries, batch.durable, unreleased);
    }

    /// At the end: what the trail was given last is durable there, or on disk here.
    async fn reported(mut self) -> Result<(), JoinError> {
        let until = Instant::now() + REPORTED_WITHIN;
        while !self.reporter.unreported().is_empty() && Instant::now() < until {
            tokio::time::sleep(REPORTED_WITHIN / 20).await;
        }
        let write = move || self.losses.write(self.reporter.unreported());
        tokio::task::spawn_blocking(write).await
    }

    /// The part that waits for the disk.
    fn done(mut self) -> Self {
        let questions = self.requests.iter().map(|request| &request.question);
        let written_out = std::mem::take(&mut self.write_finished);
        let mut commit = self.machine.commit(questions, written_out);
        commit.spare(self.queue.state(), self.queue.is_spent());
        if written_out || !commit.records.is_empty() {
            // Before the position behind it, which says that there is nothing more to report of it.
            self.losses.write(self.reporter.unreported());
        }
        let written = self.queue.commit(&mut commit.records);
        let now = Instant::now().into_std();
        let (owed, recorded) = match written {
            Ok(()) => (self.machine.kept(&commit, now), true),
            Err(error) => {
                let (owed, shed, mut positions) = self.machine.not_kept(commit, sentence(&error), now);
                if let Some(shed) = shed {
                    self.reporter.lost("bridge-full", shed);
                    self.losses.write(self.reporter.unreported());
                }
                // Most of them only save repetition: what they say is done, whether or not it is written.
                let recorded = self.queue.commit(&mut positions).is_ok();
                if recorded {
                    self.machine.positions_kept();
                }
                (owed, recorded)
            }
        };
        // What is done goes when that is durable: earlier, it would count as lost after a crash. But where nothing can be
        // written, room is worth more than that count.
        self.queue.finish(if recorded {
            self.machine.finished_written()
        } else {
            self.machine.finished()
        });
        acknowledge(owed);
        for request in std::mem::take(&mut self.requests) {
            if let Some(answer) = self.answer(request.question, recorded) {
                // One that stands has room for all that it can be owed (`ANSWERS_MAX`); one that is gone waits for none.
                let _ = request.answers.try_send(answer);
            }
        }
        self
    }

    /// `recorded`: what the questions change is durable.
    fn answer(&mut self, question: Question, recorded: bool) -> Option<Answer> {
        Some(match question {
            Question::Read { from, bytes_max } => match self.queue.read(from, bytes_max) {
                Ok(messages) => Answer::Read(messages),
                Err(error) => {
                    tracing::warn!(error = %sentence(&error), "a bridge's queue cannot be read");
                    Answer::Unreadable
                }
            },
            Question::Received(seq) => Answer::Recorded(seq),
            // A memory of what the old session had been given would take for given what the new one was not.
            Question::Forgot if recorded || self.queue.state().received.is_empty() => Answer::Forgotten,
            Question::Forgot => Answer::NotForgotten,
            Question::State => Answer::State(self.queue.state().clone()),
            Question::Finished(_) => return None,
        })
    }
}

/// Each connection hears once of one sync, however many batches it held: what its channel cannot take would be owed for as long
/// as that connection stands. One that is gone gets its acknowledgements when the broker sends again over the next.
fn acknowledge(owed: Owed<mpsc::Sender<Vec<Ack>>>) {
    let mut together: Owed<mpsc::Sender<Vec<Ack>>> = Vec::new();
    for (to, acks) in owed {
        match together.last_mut() {
            Some((last, all)) if last.same_channel(&to) => all.extend(acks),
            _ => together.push((to, acks)),
        }
    }
    for (to, acks) in together {
        let _ = to.try_send(acks);
    }
}

#[cfg(test)]
mod tests;
