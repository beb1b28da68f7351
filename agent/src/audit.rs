//! The gateway's audit trail, from an event to the coordinator's acknowledgement.
//!
//! ```text
//! reconcile, link, enforce ──record()──▶ bounded queue ──▶ writer (group commit) ──▶ spool (sled)
//!                              │ full: counted                  ▲ read, resume, acknowledge
//!                              └──▶ told by a loss record        └── link::session
//! ```
//!
//! Nothing here can hold up enforcement: [`Audit::record`] never waits. What cannot be kept is counted, and the
//! count becomes part of the trail.

mod blocks;
mod engine;
pub mod layout;
pub mod mark;
mod opening;
pub mod record;
mod resume;
mod shed;
pub mod spool;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use penstock_proto::v1::{AuditAck, AuditBlock, AuditEvent, Fault, Severity, SpoolState, audit_event::Kind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use layout::Position;
pub use resume::Resume;
pub use spool::{BLOCK_BYTES, SpoolLimits};

use crate::clock;

/// Events that may wait for the writer; more are counted as lost.
pub const QUEUE_MAX: usize = 8192;
const COMMANDS_MAX: usize = 8;

/// What the spool is worth right now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AuditState {
    /// The spool's own account.
    pub spool: SpoolState,
    /// The position that the next block will have.
    pub next: Position,
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
    Close(oneshot::Sender<()>),
}

/// The handle that everybody records with; cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    events: mpsc::Sender<AuditEvent>,
    commands: mpsc::Sender<Command>,
    overflow: Arc<Overflow>,
    revision: Arc<AtomicU64>,
    state: watch::Receiver<AuditState>,
}

/// Starts the writer on `folder`. It opens the spool by itself, again and again if it has to.
pub fn start(folder: PathBuf, limits: SpoolLimits) -> (Audit, JoinHandle<()>) {
    let (events_in, events) = mpsc::channel(QUEUE_MAX);
    let (commands_in, commands) = mpsc::channel(COMMANDS_MAX);
    let (state_in, state) = watch::channel(AuditState::default());
    let overflow = Arc::new(Overflow::default());
    let writer = writer::Writer::new(folder, limits, overflow.clone(), state_in);
    let task = tokio::spawn(writer.run(events, commands));
    let audit = Audit {
        events: events_in,
        commands: commands_in,
        overflow,
        revision: Arc::default(),
        state,
    };
    (audit, task)
}

impl Audit {
    /// A handle without a spool, and its events as they are recorded: for a test that keeps the trail itself. What it asks of the
    /// spool is answered with [`AuditError::Closed`].
    pub fn without_spool() -> (Self, mpsc::Receiver<AuditEvent>) {
        let (events, recorded) = mpsc::channel(QUEUE_MAX);
        let audit = Self {
            events,
            commands: mpsc::channel(COMMANDS_MAX).0,
            overflow: Arc::default(),
            revision: Arc::default(),
            state: watch::channel(AuditState::default()).1,
        };
        (audit, recorded)
    }

    /// Records that something happened now, under the policy in force. Never waits.
    pub fn record(&self, severity: Severity, kind: Kind) {
        let revision = self.revision.load(Ordering::Relaxed);
        self.record_event(record::event(clock::now_ms(), severity, revision, kind));
    }

    /// Records an event that brings its own time and revision. Never waits.
    pub fn record_event(&self, event: AuditEvent) {
        let time_ms = event.time_ms;
        if self.events.try_send(event).is_err() {
            let overflow = &self.overflow;
            if overflow.events.fetch_add(1, Ordering::Relaxed) == 0 {
                overflow.first_ms.store(time_ms, Ordering::Relaxed);
            }
            overflow.last_ms.fetch_max(time_ms, Ordering::Relaxed);
        }
    }

    /// From now on events stand under this revision.
    pub fn set_revision(&self, revision: u64) {
        self.revision.store(revision, Ordering::Relaxed);
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
