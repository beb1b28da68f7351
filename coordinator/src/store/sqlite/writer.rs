//! The one writer: takes what waits, does it in one transaction, commits, then answers.
//!
//! So one `fsync` serves all who wait, and an answer always means "on disk". If the engine fails in the middle, the
//! transaction is rolled back and everyone in it gets the error; nobody was answered before.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

use penstock_policy::ids::Digest;
use penstock_proto::audit::Head;
use rusqlite::Connection;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::codes::failed;
use super::disk::DiskSample;
use super::{places, removal, state, trail};
use crate::store::StoreError;
use crate::store::room::{DiskReserve, DiskUsage, Purpose};
use crate::store::state::{Change, RecordChange};
use crate::store::trail::{
    Append, AtHead, Cursor, Expired, NewBlock, Note, OwnBody, PurgeReport, block_bytes,
};

/// Commands that may wait for the writer.
const QUEUE_MAX: usize = 1024;
/// About what is put behind a head takes: a seal, or a word for one.
const AT_HEAD_BYTES: u64 = 4096;
/// Most commands in one transaction.
const GROUP_MAX: usize = 256;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) enum Command {
    Change {
        change: Change,
        reply: Reply<Vec<RecordChange>>,
    },
    Blobs {
        blobs: Vec<Vec<u8>>,
        reply: Reply<()>,
    },
    Append {
        source: String,
        blocks: Vec<NewBlock>,
        note: Option<Note<[Append]>>,
        reply: Reply<Vec<Append>>,
    },
    AppendOwn {
        source: String,
        own: OwnBody,
        reply: Reply<Head>,
    },
    AppendAtHead {
        made: AtHead,
        reply: Reply<Head>,
    },
    DropBlobs {
        digests: Vec<Digest>,
        reply: Reply<()>,
    },
    DropExpired {
        expired: Expired,
        limit: u32,
        note: Option<Note<PurgeReport>>,
        reply: Reply<PurgeReport>,
    },
    Rewind {
        source: String,
        epoch_max: u64,
        note: Option<Note<(Head, Head)>>,
        reply: Reply<Option<(Head, Head)>>,
    },
}

/// A command that is done but not yet committed, with its answer.
enum Done {
    Change(Reply<Vec<RecordChange>>, Result<Vec<RecordChange>, StoreError>),
    Blobs(Reply<()>),
    Append(Reply<Vec<Append>>, Vec<Append>),
    AppendOwn(Reply<Head>, Head),
    DropBlobs(Reply<()>),
    DropExpired(Reply<PurgeReport>, PurgeReport),
    Rewind(Reply<Option<(Head, Head)>>, Option<(Head, Head)>),
}

/// The writer's thread, and the way to it. Dropped, it takes no more, does what it has, and closes its file.
#[derive(Debug)]
pub(super) struct Writer {
    /// `None`: it is being stopped.
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// On a connection that is set up for writing.
    pub(super) fn start(
        connection: Connection,
        path: PathBuf,
        room: DiskReserve,
        changes: broadcast::Sender<RecordChange>,
        appended: watch::Sender<Cursor>,
    ) -> Result<Self, StoreError> {
        let (sender, commands) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(connection, &path, room, commands, &changes, &appended))
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

fn run(
    connection: Connection,
    path: &Path,
    room: DiskReserve,
    mut commands: mpsc::Receiver<Command>,
    changes: &broadcast::Sender<RecordChange>,
    appended: &watch::Sender<Cursor>,
) {
    let mut seen = DiskSample::default();
    let likely = removal::LastLikely::default();
    while let Some(first) = commands.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(next) = commands.try_recv()
        {
            group.push(next);
        }
        if let Ok(disk) = seen.look(&connection, path, Instant::now()) {
            group = admit(&connection, path, room, disk, group);
        }
        seen.wrote(group.iter().map(Command::bytes).sum());
        match commit(&connection, path, &mut group, &likely) {
            Ok((done, last_block)) => {
                if let Some(last_block) = last_block {
                    appended.send_replace(places::cursor(last_block));
                }
                done.into_iter().for_each(|done| done.answer(changes));
            }
            Err(error) => {
                tracing::error!(error = %crate::chain(&error), commands = group.len(), "a commit failed");
                group.into_iter().for_each(|command| command.fail(error.again()));
            }
        }
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

/// Does the whole group in one transaction. On failure the commands that were not answered stay in `group`.
fn commit(
    connection: &Connection,
    path: &Path,
    group: &mut Vec<Command>,
    likely: &removal::LastLikely,
) -> Result<(Vec<Done>, Option<i64>), StoreError> {
    let sqlite = |error| failed(path, &error);
    // Immediate: a lock that another process holds shows here, before anything is done.
    connection.execute_batch("BEGIN IMMEDIATE").map_err(sqlite)?;
    let work = || -> rusqlite::Result<(Vec<Outcome>, Option<i64>)> {
        let outcomes = group
            .iter()
            .map(|command| command.run(connection, likely))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let appends = group.iter().any(Command::appends);
        let last_block = appends.then(|| trail::last_block(connection)).transpose()?;
        connection.execute_batch("COMMIT")?;
        Ok((outcomes, last_block))
    };
    match work() {
        Ok((outcomes, last_block)) => Ok((
            group
                .drain(..)
                .zip(outcomes)
                .filter_map(|(command, outcome)| command.done(outcome))
                .collect(),
            last_block,
        )),
        Err(error) => {
            // Some failures have rolled back already; then this has nothing to do.
            let _ = connection.execute_batch("ROLLBACK");
            // What was found may have been undone with the rest.
            likely.set(None);
            Err(sqlite(error))
        }
    }
}

enum Outcome {
    Change(Result<Vec<RecordChange>, StoreError>),
    Blobs,
    Append(Vec<Append>),
    AppendOwn(Head),
    DropBlobs,
    DropExpired(PurgeReport),
    Rewind(Option<(Head, Head)>),
}

impl Command {
    /// About what it adds to the store.
    fn bytes(&self) -> u64 {
        match self {
            Self::Change { change, .. } => {
                let values = change.writes.values().filter_map(|write| write.value.as_ref());
                let event = change.event.as_ref().map(|event| block_bytes(&event.own.body));
                values.map(|value| value.len() as u64).chain(event).sum()
            }
            Self::Blobs { blobs, .. } => blobs.iter().map(|blob| blob.len() as u64).sum(),
            Self::Append { blocks, .. } => blocks.iter().map(|new| block_bytes(&new.block.body)).sum(),
            Self::AppendOwn { own, .. } => block_bytes(&own.body),
            Self::AppendAtHead { .. } => AT_HEAD_BYTES,
            Self::DropBlobs { .. } | Self::DropExpired { .. } | Self::Rewind { .. } => 0,
        }
    }

    /// Whether it may add a block.
    fn appends(&self) -> bool {
        match self {
            Self::Change { change, .. } => change.event.is_some(),
            Self::Append { .. }
            | Self::AppendOwn { .. }
            | Self::AppendAtHead { .. }
            | Self::DropExpired { .. }
            | Self::Rewind { .. } => true,
            Self::Blobs { .. } | Self::DropBlobs { .. } => false,
        }
    }

    fn run(&self, connection: &Connection, likely: &removal::LastLikely) -> rusqlite::Result<Outcome> {
        Ok(match self {
            Self::Change { change, .. } => {
                let outcome = state::apply(connection, change)?;
                if let (Ok(_), Some(event)) = (&outcome, &change.event) {
                    trail::append_own(connection, &event.source, &event.own)?;
                }
                Outcome::Change(outcome)
            }
            Self::Blobs { blobs, .. } => {
                for blob in blobs {
                    state::put_blob(connection, blob)?;
                }
                Outcome::Blobs
            }
            Self::Append {
                source, blocks, note, ..
            } => {
                let outcomes = trail::append_all(connection, source, blocks)?;
                trail::append_note(connection, note.as_ref(), outcomes.as_slice())?;
                Outcome::Append(outcomes)
            }
            Self::AppendOwn { source, own, .. } => {
                Outcome::AppendOwn(trail::append_own(connection, source, own)?)
            }
            Self::AppendAtHead { made, .. } => Outcome::AppendOwn(trail::append_at_head(connection, made)?),
            Self::DropBlobs { digests, .. } => {
                for digest in digests {
                    state::drop_blob(connection, digest)?;
                }
                Outcome::DropBlobs
            }
            Self::DropExpired {
                expired, limit, note, ..
            } => {
                let dropped = removal::drop_expired(connection, *expired, *limit, likely)?;
                if let Some(note) = note {
                    removal::note_removed(connection, dropped, *limit, note)?;
                }
                Outcome::DropExpired(dropped)
            }
            Self::Rewind {
                source,
                epoch_max,
                note,
                ..
            } => {
                let heads = trail::rewind(connection, source, *epoch_max)?;
                if let Some(heads) = &heads {
                    trail::append_note(connection, note.as_ref(), heads)?;
                }
                Outcome::Rewind(heads)
            }
        })
    }

    fn done(self, outcome: Outcome) -> Option<Done> {
        Some(match (self, outcome) {
            (Self::Change { reply, .. }, Outcome::Change(outcome)) => Done::Change(reply, outcome),
            (Self::Blobs { reply, .. }, Outcome::Blobs) => Done::Blobs(reply),
            (Self::Append { reply, .. }, Outcome::Append(outcomes)) => Done::Append(reply, outcomes),
            (Self::AppendOwn { reply, .. } | Self::AppendAtHead { reply, .. }, Outcome::AppendOwn(head)) => {
                Done::AppendOwn(reply, head)
            }
            (Self::DropBlobs { reply, .. }, Outcome::DropBlobs) => Done::DropBlobs(reply),
            (Self::DropExpired { reply, .. }, Outcome::DropExpired(dropped)) => {
                Done::DropExpired(reply, dropped)
            }
            (Self::Rewind { reply, .. }, Outcome::Rewind(heads)) => Done::Rewind(reply, heads),
            _ => return None,
        })
    }

    fn fail(self, error: StoreError) {
        // Who asked may have gone; then nobody needs the answer.
        match self {
            Self::Change { reply, .. } => drop(reply.send(Err(error))),
            Self::Blobs { reply, .. } => drop(reply.send(Err(error))),
            Self::Append { reply, .. } => drop(reply.send(Err(error))),
            Self::AppendOwn { reply, .. } | Self::AppendAtHead { reply, .. } => drop(reply.send(Err(error))),
            Self::DropBlobs { reply, .. } => drop(reply.send(Err(error))),
            Self::DropExpired { reply, .. } => drop(reply.send(Err(error))),
            Self::Rewind { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

impl Done {
    fn answer(self, changes: &broadcast::Sender<RecordChange>) {
        match self {
            Self::Change(reply, outcome) => {
                for change in outcome.iter().flatten() {
                    // Nobody may be watching.
                    let _ = changes.send(change.clone());
                }
                drop(reply.send(outcome));
            }
            Self::Blobs(reply) => drop(reply.send(Ok(()))),
            Self::Append(reply, outcomes) => drop(reply.send(Ok(outcomes))),
            Self::AppendOwn(reply, head) => drop(reply.send(Ok(head))),
            Self::DropBlobs(reply) => drop(reply.send(Ok(()))),
            Self::DropExpired(reply, dropped) => drop(reply.send(Ok(dropped))),
            Self::Rewind(reply, heads) => drop(reply.send(Ok(heads))),
        }
    }
}
