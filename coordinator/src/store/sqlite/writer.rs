//! The one writer: takes what waits, does it in one transaction, commits, then answers.
//!
//! So one `fsync` serves all who wait, and an answer always means "on disk". If the engine fails in the middle, the
//! transaction is rolled back and everyone in it gets the error; nobody was answered before. Where the store is one of several
//! copies, `replica` runs the same commands, and a log stands between the decision and the commit.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{broadcast, mpsc, watch};

use super::codes::failed;
use super::command::{Command, Outcome};
use super::disk::DiskSample;
use super::ledger::Ledger;
use super::waiting::{QUEUE_MAX, Waiting};
use super::{places, removal, trail};
use crate::store::StoreError;
use crate::store::room::{DiskReserve, DiskUsage, Purpose};
use crate::store::state::RecordChange;
use crate::store::trail::Cursor;

/// The writer's thread, and the way to it. Dropped, it takes no more, does what it has, and closes its file.
#[derive(Debug)]
pub(super) struct Writer {
    /// `None`: it is being stopped.
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Of a store that stands alone.
    pub(super) fn start(worker: Worker) -> Result<Self, StoreError> {
        Self::running(|commands| run(worker, commands))
    }

    /// With what its thread does.
    pub(super) fn running(
        run: impl FnOnce(mpsc::Receiver<Command>) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (sender, commands) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(commands))
            .map_err(StoreError::Thread)?;
        Ok(Self {
            commands: Some(sender),
            thread: Some(thread),
        })
    }

    /// Hands it something to do, when there is room.
    pub(super) async fn send(&self, command: Command) -> Result<(), StoreError> {
        let commands = self.commands.as_ref().ok_or(StoreError::Stopped)?;
        commands.send(command).await.map_err(|_| StoreError::Stopped)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.commands = None;
        // Whoever opens the file next, or makes its file system read-only, finds it closed. A panic there was logged.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A store that stands alone: a transaction is done once it is on the disk.
fn run(mut worker: Worker, mut commands: mpsc::Receiver<Command>) {
    while let Some(group) = worker.next(&mut commands) {
        let decided = worker.decide(&group).and_then(|outcomes| {
            worker.commit()?;
            Ok(outcomes)
        });
        match decided {
            Ok(outcomes) => worker.answer(group, outcomes),
            Err(error) => worker.fail(group, &error),
        }
    }
}

/// The one who writes: the connection, and whom its commits concern.
pub(super) struct Worker {
    pub(super) ledger: Ledger,
    path: PathBuf,
    room: DiskReserve,
    disk: DiskSample,
    waiting: Waiting,
    likely: removal::LastLikely,
    changes: broadcast::Sender<RecordChange>,
    appended: watch::Sender<Cursor>,
}

impl Worker {
    /// On a connection that is set up for writing.
    pub(super) fn new(
        ledger: Ledger,
        path: PathBuf,
        room: DiskReserve,
        changes: broadcast::Sender<RecordChange>,
        appended: watch::Sender<Cursor>,
    ) -> Self {
        Self {
            ledger,
            path,
            room,
            disk: DiskSample::default(),
            waiting: Waiting::default(),
            likely: removal::LastLikely::default(),
            changes,
            appended,
        }
    }

    /// What is done next; waits for it. `None`: nobody has any more.
    fn next(&mut self, commands: &mut mpsc::Receiver<Command>) -> Option<Vec<Command>> {
        let came = if self.waits() {
            None
        } else {
            Some(commands.blocking_recv()?)
        };
        Some(self.gather(came, commands))
    }

    /// Whether something waits that was taken from the queue.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What is done next, as far as there is room for it; the others are answered.
    pub(super) fn gather(
        &mut self,
        came: Option<Command>,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Vec<Command> {
        let mut group = self.waiting.next(came, commands);
        if let Ok(disk) = self.disk.look(&self.ledger, &self.path, Instant::now()) {
            group = admit(&self.ledger, &self.path, self.room, disk, group);
        }
        self.disk.wrote(group.iter().map(Command::bytes).sum());
        group
    }

    /// Begins a transaction and does the whole group in it; what follows is [`Self::commit`] or [`Self::undo`]. If it fails,
    /// nothing was done.
    pub(super) fn decide(&self, group: &[Command]) -> Result<Vec<Outcome>, StoreError> {
        self.within(|ledger| {
            group
                .iter()
                .map(|command| command.run(ledger, &self.likely))
                .collect()
        })
    }

    /// Begins a transaction and does this in it.
    pub(super) fn within<T>(
        &self,
        work: impl FnOnce(&Ledger) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        // Immediate: a lock that another process holds shows here, before anything is done.
        let begun = self.ledger.execute_batch("BEGIN IMMEDIATE");
        begun.map_err(|error| self.failed(&error))?;
        work(&self.ledger).map_err(|error| {
            self.undo();
            self.failed(&error)
        })
    }

    /// Ends the transaction; what it did is durable. If it fails, nothing was done.
    pub(super) fn commit(&self) -> Result<(), StoreError> {
        self.ledger.execute_batch("COMMIT").map_err(|error| {
            self.undo();
            self.failed(&error)
        })
    }

    /// Takes the transaction back.
    pub(super) fn undo(&self) {
        // Some failures have rolled back already; then this has nothing to do.
        let _ = self.ledger.execute_batch("ROLLBACK");
        self.ledger.take_effects();
        // What was found may have been undone with the rest.
        self.likely.set(None);
    }

    /// Answers what was committed.
    pub(super) fn answer(&self, group: Vec<Command>, outcomes: Vec<Outcome>) {
        if group.iter().any(Command::appends) {
            self.appended();
        }
        let done = group.into_iter().zip(outcomes);
        done.filter_map(|(command, outcome)| command.done(outcome))
            .for_each(|done| done.answer(&self.changes));
    }

    /// Answers what was not.
    pub(super) fn fail(&self, group: Vec<Command>, error: &StoreError) {
        tracing::error!(error = %crate::chain(error), commands = group.len(), "a commit failed");
        group.into_iter().for_each(|command| command.fail(error.again()));
    }

    /// Says how far the trails go by now.
    pub(super) fn appended(&self) {
        if let Ok(last_block) = trail::last_block(&self.ledger) {
            self.appended.send_replace(places::cursor(last_block));
        }
    }

    /// Says that a record was changed.
    pub(super) fn changed(&self, change: RecordChange) {
        // Nobody may be watching.
        let _ = self.changes.send(change);
    }

    pub(super) fn failed(&self, error: &rusqlite::Error) -> StoreError {
        failed(&self.path, error)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The commands that there is room for; the others are answered.
fn admit(
    connection: &Connection,
    path: &Path,
    room: DiskReserve,
    disk: DiskUsage,
    group: Vec<Command>,
) -> Vec<Command> {
    let judge = |command: &Command| {
        let held_bytes = |source: &str| trail::held_bytes(connection, source).unwrap_or(0);
        let purpose = match command {
            Command::Blobs { .. } => Purpose::Deferrable,
            Command::AppendOwn { own, .. } if own.deferrable => Purpose::Deferrable,
            Command::AppendAtHead { made, .. } if made.deferrable => Purpose::Deferrable,
            Command::Append { source, .. } => Purpose::Trail {
                source,
                held_bytes: held_bytes(source),
            },
            Command::Change { .. }
            | Command::AppendOwn { .. }
            | Command::AppendAtHead { .. }
            | Command::DropBlobs { .. }
            | Command::DropExpired { .. }
            | Command::Rewind { .. } => Purpose::Essential,
        };
        room.admits(path, purpose, disk)
    };
    let take = |command: Command| match judge(&command) {
        Ok(()) => Some(command),
        Err(error) => {
            command.fail(error);
            None
        }
    };
    group.into_iter().filter_map(take).collect()
}
