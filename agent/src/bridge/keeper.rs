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

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinError;
use tokio::time::{Instant, MissedTickBehavior};

use super::layout::{Message, QueueRecord, Snapshot};
use super::queue::Queue;
use super::report::Reporter;
use penstock_policy::text::sentence;

/// How often positions are written and the state is told when nothing else is.
const TICK: Duration = Duration::from_millis(250);
/// The most bytes of messages in one sync.
pub(super) const COMMIT_BYTES: u64 = 512 * 1024;
/// For how long it is said that there was no room, where nothing waits for it.
const SHED_SAID: Duration = Duration::from_secs(5);
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

/// One thing that the sending broker did, in its order.
#[derive(Debug)]
pub enum IntakeEntry {
    /// A message to keep, and how to acknowledge it.
    Keep(Message, Option<Ack>),
    /// A refused one: acknowledged in its turn, and gone.
    Skip(Ack),
    /// PUBREL.
    Release(Ack),
    /// Its session is new.
    Forgot,
}

/// What came over one connection, in its order.
#[derive(Debug)]
pub struct IntakeBatch {
    /// In order.
    pub entries: Vec<IntakeEntry>,
    /// Where acknowledgements go; with the connection, it goes.
    pub acks: mpsc::Sender<Vec<Ack>>,
}

/// What the delivering side asks.
#[derive(Debug)]
pub enum Request {
    /// Messages from a sequence on, about so many bytes.
    Read {
        /// From where.
        from: u64,
        /// About how much.
        bytes_max: u64,
        /// The messages.
        answer: oneshot::Sender<Vec<Message>>,
    },
    /// The broker's PUBREC came; `done` hears it when that is durable.
    Received(u64, mpsc::Sender<u64>),
    /// Everything below is done.
    Finished(u64),
    /// The broker's session is new. Answered when that is durable.
    Forgot(oneshot::Sender<()>),
    /// Where things stand.
    State(oneshot::Sender<Snapshot>),
}

/// Where messages stand, for whoever waits for more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// The sequence of the next message.
    pub next: u64,
}

/// Records that wait for room or for the next sync.
#[derive(Default)]
struct WaitingRecords {
    records: Vec<QueueRecord>,
    acks: Vec<(mpsc::Sender<Vec<Ack>>, Vec<Ack>)>,
    bytes: u64,
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
}

struct Job {
    queue: Queue,
    waiting: WaitingRecords,
    requests: Vec<Request>,
    finished: u64,
    finished_written: u64,
    write_finished: bool,
    problem: Option<String>,
    /// When a publication at QoS 0 last found no room.
    shed: Option<Instant>,
    lost_at_once: Option<(u64, u64, u64)>,
}

impl Keeper {
    /// Runs until both sides are gone; an error is a fault of the queue's own code.
    pub(crate) async fn run(mut self, queue: Queue) -> Result<(), JoinError> {
        let finished = queue.state().finished;
        let mut job = Job {
            queue,
            waiting: WaitingRecords::default(),
            requests: Vec::new(),
            finished,
            finished_written: finished,
            write_finished: false,
            problem: None,
            shed: None,
            lost_at_once: None,
        };
        let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut intake_open, mut delivery_open) = (true, true);
        self.tell(&mut job);
        loop {
            let stuck = !job.waiting.records.is_empty();
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
                && job.waiting.bytes < COMMIT_BYTES
                && let Ok(batch) = self.batches.try_recv()
            {
                job.take(batch);
            }
            let ticked = job.write_finished;
            job = tokio::task::spawn_blocking(move || job.done()).await?;
            if let Some((count, first_ms, last_ms)) = job.lost_at_once.take() {
                self.reporter.lost("bridge-full", count, first_ms, last_ms);
            }
            let next = job.queue.state().next;
            self.depth.send_if_modified(|depth| {
                let changed = depth.next != next;
                depth.next = next;
                changed
            });
            if ticked {
                self.tell(&mut job);
            }
            if last {
                self.reporter.tell_due(true);
                return Ok(());
            }
        }
    }

    fn tell(&self, job: &mut Job) {
        let state = job.queue.state();
        let backlog = state.next.saturating_sub(state.finished);
        let bytes = job.queue.bytes();
        let oldest_ms = if backlog > 0 { job.queue.oldest_ms() } else { None };
        self.reporter
            .depth(backlog, bytes, oldest_ms, job.problem.clone());
        self.reporter.tell_due(false);
    }
}

impl Job {
    /// Turns a batch into records. A message at QoS 2 that is kept already is only acknowledged again.
    fn take(&mut self, batch: IntakeBatch) {
        let mut unreleased = None;
        let waiting = &mut self.waiting;
        let mut acks = Vec::new();
        for entry in batch.entries {
            match entry {
                IntakeEntry::Keep(message, ack) => {
                    acks.extend(ack);
                    if message.origin != 0 {
                        let known = unreleased.get_or_insert_with(|| {
                            let mut known = self.queue.state().unreleased.clone();
                            for record in &waiting.records {
                                note(&mut known, record);
                            }
                            known
                        });
                        if !known.insert(message.origin) {
                            continue;
                        }
                    }
                    waiting.bytes += message.cost();
                    waiting.records.push(QueueRecord::Message(message));
                }
                IntakeEntry::Skip(ack) => acks.push(ack),
                IntakeEntry::Release(ack) => {
                    let record = QueueRecord::Released(ack.identifier);
                    if let Some(known) = &mut unreleased {
                        note(known, &record);
                    }
                    waiting.records.push(record);
                    acks.push(ack);
                }
                IntakeEntry::Forgot => {
                    unreleased = Some(std::collections::BTreeSet::new());
                    waiting.records.push(QueueRecord::SenderForgot);
                }
            }
        }
        waiting.acks.push((batch.acks, acks));
    }

    /// The part that waits for the disk.
    fn done(mut self) -> Self {
        let mut own = Vec::new();
        for request in &self.requests {
            match request {
                Request::Received(seq, _) => own.push(QueueRecord::Received(*seq)),
                Request::Finished(seq) => self.finished = self.finished.max(*seq),
                Request::Forgot(_) => own.push(QueueRecord::ReceiverForgot),
                Request::Read { .. } | Request::State(_) => {}
            }
        }
        self.queue.finish(self.finished);
        let wanted = !self.waiting.records.is_empty();
        if self.finished > self.finished_written && (self.write_finished || wanted || !own.is_empty()) {
            own.push(QueueRecord::Finished(self.finished));
            self.finished_written = self.finished;
        }
        self.write_finished = false;
        let count = own.len();
        let mut all = own;
        all.append(&mut self.waiting.records);
        match self.queue.commit(&mut all) {
            Ok(()) => {
                let kept = all.iter().any(|record| matches!(record, QueueRecord::Message(_)));
                if kept || self.shed.is_none_or(|shed| shed.elapsed() > SHED_SAID) {
                    self.problem = None;
                }
                self.waiting.bytes = 0;
                for (to, acks) in self.waiting.acks.drain(..) {
                    // A connection that is gone, or that does not take its acknowledgements, gets them anew when
                    // the broker sends again.
                    let _ = to.try_send(acks);
                }
            }
            Err(error) => {
                self.problem = Some(sentence(&error));
                self.waiting.records = all.split_off(count);
                // Positions and receipts only save repetition: what they say is done, whether or not it is written.
                let _ = self.queue.commit(&mut all);
                self.shed_unkept();
            }
        }
        for request in std::mem::take(&mut self.requests) {
            match request {
                Request::Read {
                    from,
                    bytes_max,
                    answer,
                } => match self.queue.read(from, bytes_max) {
                    Ok(messages) => drop(answer.send(messages)),
                    Err(error) => {
                        tracing::warn!(error = %sentence(&error), "a bridge's queue cannot be read")
                    }
                },
                Request::Received(seq, done) => drop(done.try_send(seq)),
                Request::Forgot(answer) => drop(answer.send(())),
                Request::State(answer) => drop(answer.send(self.queue.state().clone())),
                Request::Finished(_) => {}
            }
        }
        self
    }

    /// While there is no room, publications at QoS 0 are lost, since neither broker keeps them.
    fn shed_unkept(&mut self) {
        let (mut count, mut first_ms, mut last_ms) = (0, u64::MAX, 0);
        self.waiting.records.retain(|record| match record {
            QueueRecord::Message(message) if message.qos == 0 => {
                count += 1;
                first_ms = first_ms.min(message.time_ms);
                last_ms = last_ms.max(message.time_ms);
                false
            }
            _ => true,
        });
        if count > 0 {
            self.shed = Some(Instant::now());
            self.lost_at_once = Some((count, first_ms, last_ms));
        }
        if self.waiting.records.is_empty() {
            self.waiting = WaitingRecords::default();
        }
    }
}

fn note(unreleased: &mut std::collections::BTreeSet<u16>, record: &QueueRecord) {
    match record {
        QueueRecord::Message(message) if message.origin != 0 => {
            unreleased.insert(message.origin);
        }
        QueueRecord::Released(identifier) => {
            unreleased.remove(identifier);
        }
        QueueRecord::SenderForgot => unreleased.clear(),
        _ => {}
    }
}
