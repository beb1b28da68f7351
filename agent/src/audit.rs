//! The gateway's audit trail, from an event to the coordinator's acknowledgement.
//!
//! ```text
//! reconcile, link, bridge ──────record()──▶ bounded queue ──▶ writer (group commit) ──▶ spool (log)
//! enforce, inspector ─▶ outbox ──offer()──▶     │ full: counted (the outbox waits)  ▲ read, resume, acknowledge
//!                                               └──▶ a loss record                  └── link::session
//! ```
//!
//! Nothing here can hold up enforcement: [`Audit::record`] never waits. What cannot be kept is counted, and the
//! count becomes part of the trail. An event's severity is its description's (`penstock_proto::event`), unless its writer knows
//! that it is graver.

mod accounts;
mod change;
pub mod check;
mod engine;
pub mod layout;
mod ledger;
pub mod mark;
mod opening;
mod reading;
pub mod record;
mod resume;
pub mod sealer;
mod shed;
mod shelf;
pub mod spool;
mod takeover;
mod waiting;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use penstock_proto::audit::seal::SealText;
use penstock_proto::v1::{
    AuditAck, AuditBlock, AuditEvent, Fault, SealEvent, Severity, SpoolState, audit_event::Kind,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use layout::Position;
pub use resume::Resume;
pub use spool::{BLOCK_BYTES, SpoolLimits};
use waiting::WaitingEvent;

use crate::clock;

/// Events that may wait for the writer, and what they may take; more are counted as lost.
pub const QUEUE_MAX: usize = 8192;
const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
const COMMANDS_MAX: usize = 8;

/// What the spool is worth right now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AuditState {
    /// The spool's own account.
    pub spool: SpoolState,
    /// The position that the next block will have.
    pub next: Position,
    /// What the newest seal says, since the agent began.
    pub seal: Option<SealText>,
    /// What a person should know: the disk is full, the spool fills, it cannot be opened.
    pub fault: Option<Fault>,
}

/// The trail cannot be read now; enforcement and recording go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The spool is out of order; the text says why.
    #[error("the audit spool cannot be used now: {0}")]
    Unavailable(String),
    /// The writer has stopped.
    #[error("the audit spool is closed")]
    Closed,
}

/// The events that found the queue full, until the writer takes them over.
#[derive(Debug, Default)]
pub(crate) struct Overflow {
    pub(crate) events: AtomicU64,
    pub(crate) first_ms: AtomicU64,
    pub(crate) last_ms: AtomicU64,
}

pub(crate) enum Command {
    Resume(AuditAck, oneshot::Sender<Result<Position, AuditError>>),
    Read {
        from: Position,
        count_max: usize,
        bytes_max: usize,
        answer: oneshot::Sender<Result<Vec<AuditBlock>, AuditError>>,
    },
    Acknowledge(Position),
    Witness(SealEvent),
    Close(oneshot::Sender<()>),
}

/// How far the trail has come, in events of the queue.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Taken into the queue.
    taken: AtomicU64,
    /// Of these, durable; or lost, and their loss is durable.
    settled: AtomicU64,
    /// What those take in memory that the writer has not begun to write.
    held_bytes: AtomicUsize,
}

impl Progress {
    /// So many more are durable.
    pub(crate) fn settle(&self, events: u64) {
        self.settled.fetch_add(events, Ordering::SeqCst);
    }

    /// Events that took so much are written now.
    pub(crate) fn left(&self, bytes: usize) {
        self.held_bytes.fetch_sub(bytes, Ordering::SeqCst);
    }
}

/// Where events go.
#[derive(Debug, Clone)]
enum Recorder {
    /// To the writer.
    Writer(mpsc::Sender<WaitingEvent>),
    /// To a test, as they are.
    Plain(mpsc::Sender<AuditEvent>),
}

/// The handle that everybody records with; cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    events: Recorder,
    commands: mpsc::Sender<Command>,
    overflow: Arc<Overflow>,
    progress: Arc<Progress>,
    revision: Arc<AtomicU64>,
    seal_name: Arc<watch::Sender<Option<String>>>,
    state: watch::Receiver<AuditState>,
}

/// What was recorded and has no writer yet.
#[derive(Debug)]
pub struct Unwritten {
    events: mpsc::Receiver<WaitingEvent>,
    commands: mpsc::Receiver<Command>,
    overflow: Arc<Overflow>,
    progress: Arc<Progress>,
    seal_name: watch::Receiver<Option<String>>,
    state: watch::Sender<AuditState>,
}

/// A handle to record with from now on, and what was recorded, for its writer.
pub fn queue() -> (Audit, Unwritten) {
    let (events_in, events) = mpsc::channel(QUEUE_MAX);
    let (commands_in, commands) = mpsc::channel(COMMANDS_MAX);
    let (state_in, state) = watch::channel(AuditState::default());
    let (overflow, progress) = (Arc::<Overflow>::default(), Arc::<Progress>::default());
    let (name_in, seal_name) = watch::channel(None);
    let audit = Audit {
        events: Recorder::Writer(events_in),
        commands: commands_in,
        overflow: Arc::clone(&overflow),
        progress: Arc::clone(&progress),
        revision: Arc::default(),
        seal_name: Arc::new(name_in),
        state,
    };
    let unwritten = Unwritten {
        events,
        commands,
        overflow,
        progress,
        seal_name,
        state: state_in,
    };
    (audit, unwritten)
}

impl Unwritten {
    /// Starts the writer on `folder`. It opens the spool by itself, again and again if it has to.
    pub fn write_to(self, folder: PathBuf, limits: SpoolLimits) -> JoinHandle<()> {
        let counts = (self.overflow, self.progress);
        let writer = writer::Writer::new(folder, limits, self.seal_name, counts, self.state);
        tokio::spawn(writer.run(self.events, self.commands))
    }
}

/// A handle to record with, and its writer on `folder`.
pub fn start(folder: PathBuf, limits: SpoolLimits) -> (Audit, JoinHandle<()>) {
    let (audit, unwritten) = queue();
    (audit, unwritten.write_to(folder, limits))
}

impl Audit {
    /// A handle without a spool, and its events as they are recorded: for a test that keeps the trail itself. What it asks of the
    /// spool is answered with [`AuditError::Closed`].
    pub fn without_spool() -> (Self, mpsc::Receiver<AuditEvent>) {
        let (events, recorded) = mpsc::channel(QUEUE_MAX);
        let audit = Self {
            events: Recorder::Plain(events),
            commands: mpsc::channel(COMMANDS_MAX).0,
            overflow: Arc::default(),
            progress: Arc::default(),
            revision: Arc::default(),
            seal_name: Arc::new(watch::channel(None).0),
            state: watch::channel(AuditState::default()).1,
        };
        (audit, recorded)
    }

    /// Records that something happened now, under the policy in force. Never waits.
    pub fn note(&self, kind: Kind) {
        self.record_event(self.now(kind));
    }

    /// The same, of what its writer knows to be at least so grave.
    pub fn record(&self, least: Severity, kind: Kind) {
        self.record_event(self.now_at_least(least, kind));
    }

    /// Records an event that brings its own time and revision. Never waits.
    pub fn record_event(&self, event: AuditEvent) {
        let time_ms = event.time_ms;
        if self.offer_event(|| event).is_none() {
            let overflow = &self.overflow;
            if overflow.events.fetch_add(1, Ordering::Relaxed) == 0 {
                overflow.first_ms.store(time_ms, Ordering::Relaxed);
            }
            overflow.last_ms.fetch_max(time_ms, Ordering::Relaxed);
        }
    }

    /// Takes an event if there is room, and numbers it; see [`Audit::settled`].
    pub(crate) fn offer_event(&self, event: impl FnOnce() -> AuditEvent) -> Option<u64> {
        let progress = &self.progress;
        // Each event is counted before it is sent. So the count behind the sending is at least the event's own place in the queue.
        match &self.events {
            Recorder::Writer(_) if progress.held_bytes.load(Ordering::SeqCst) >= QUEUE_BYTES_MAX => {
                return None;
            }
            Recorder::Writer(events) => {
                let room = events.try_reserve().ok()?;
                let event = WaitingEvent::from(event());
                progress.taken.fetch_add(1, Ordering::SeqCst);
                progress
                    .held_bytes
                    .fetch_add(event.held_bytes(), Ordering::SeqCst);
                room.send(event);
            }
            Recorder::Plain(events) => {
                let room = events.try_reserve().ok()?;
                progress.taken.fetch_add(1, Ordering::SeqCst);
                room.send(event());
            }
        }
        Some(progress.taken.load(Ordering::SeqCst))
    }

    /// All events that were taken up to this number are durable, or their loss is.
    pub(crate) fn settled(&self) -> u64 {
        self.progress.settled.load(Ordering::SeqCst)
    }

    /// Waits until all that was recorded so far is durable, or its loss is; no longer than `within`.
    pub(crate) async fn recorded(&self, within: Duration) {
        let taken = self.progress.taken.load(Ordering::SeqCst);
        let until = tokio::time::Instant::now() + within;
        while self.settled() < taken && tokio::time::Instant::now() < until {
            tokio::time::sleep(within / 20).await;
        }
    }

    /// What happens now, under the policy in force.
    pub(crate) fn now(&self, kind: Kind) -> AuditEvent {
        let severity = kind.described().severity();
        let revision = self.revision.load(Ordering::Relaxed);
        record::event(clock::now_ms(), severity, revision, kind)
    }

    /// The same, at least so grave.
    pub(crate) fn now_at_least(&self, least: Severity, kind: Kind) -> AuditEvent {
        let mut event = self.now(kind);
        event.severity = event.severity.max(least.into());
        event
    }

    /// From now on events stand under this revision.
    pub fn set_revision(&self, revision: u64) {
        self.revision.store(revision, Ordering::Relaxed);
    }

    /// From now on the trail is sealed by this name of plant and gateway.
    pub fn seal_as(&self, name: String) {
        let is_other = |held: &mut Option<String>| held.replace(name.clone()).as_ref() != Some(&name);
        self.seal_name.send_if_modified(is_other);
    }

    /// The spool's state, as it changes.
    pub fn state(&self) -> watch::Receiver<AuditState> {
        self.state.clone()
    }

    /// Takes up what the coordinator holds; returns where the upload goes on.
    ///
    /// # Errors
    /// The spool cannot be used at the moment, the writer has stopped, or `ack` names an epoch that no trail of this
    /// gateway can have reached.
    pub async fn resume(&self, ack: AuditAck) -> Result<Position, AuditError> {
        self.ask(|answer| Command::Resume(ack, answer)).await?
    }

    /// Blocks from `from` on; empty at the end of the trail.
    ///
    /// # Errors
    /// The spool cannot be used at the moment, or the writer has stopped.
    pub async fn read(
        &self,
        from: Position,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<AuditBlock>, AuditError> {
        self.ask(|answer| Command::Read {
            from,
            count_max,
            bytes_max,
            answer,
        })
        .await?
    }

    /// Everything before `to` is durable at the coordinator.
    pub async fn acknowledge(&self, to: Position) {
        // A closed writer has nothing left to shed.
        let _ = self.commands.send(Command::Acknowledge(to)).await;
    }

    /// Keeps the coordinator's word for a seal, which was verified.
    pub async fn witness(&self, word: SealEvent) {
        // A closed writer keeps nothing any more.
        let _ = self.commands.send(Command::Witness(word)).await;
    }

    /// Writes what is queued and closes the spool.
    pub async fn close(&self) {
        let _ = self.ask(Command::Close).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, AuditError> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(command(answer))
            .await
            .map_err(|_| AuditError::Closed)?;
        answered.await.map_err(|_| AuditError::Closed)
    }
}
