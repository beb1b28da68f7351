//! A store as one of the copies that follow a log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use super::jetstream::{NatsSettings, Pulses};
use super::log::Log;
use super::room::DiskReserve;
use super::sqlite::{Sqlite, moved};
use super::{Store, StoreError};

/// How often one looks whether the log has become long.
const LOOK: Duration = Duration::from_secs(300);
/// How long after it could not be made shorter it is tried again: each time the whole copy may travel.
const AGAIN: Duration = Duration::from_secs(3600);
/// What may stand in the log behind what it begins from, bytes, or as much as the copy has, if that is more: so no more than about as much is written for
/// the sake of a short log as for that of the store.
const LOG_BYTES: u64 = 1 << 30;

/// What a copy of a replicated store needs beside its engine.
#[derive(Debug, Clone)]
pub(super) struct Replication {
    pulses: Pulses,
    servers: NatsSettings,
    path: PathBuf,
    room: DiskReserve,
}

impl Store {
    /// Opens the copy at `path` of the store that these servers replicate, made if it is not there; it has all that the others wrote when this
    /// answers. `name`: the coordinator's.
    ///
    /// # Errors
    /// As [`Store::open`]; the servers cannot be reached or their stream cannot be used, or the copy is not one of this stream.
    pub async fn open_replicated(
        path: &Path,
        room: DiskReserve,
        name: &str,
        servers: NatsSettings,
    ) -> Result<Self, StoreError> {
        // What an end in the midst of it left.
        for left in ["compact", "fetched"] {
            moved::remove(&path.with_extension(left));
        }
        if moved::is_unused(path)? {
            servers.fetch_base(path).await?;
        } else if let Some(number) = moved::number(path)? {
            let newer = path.with_extension("fetched");
            if servers.fetch_newer(number, &newer).await? {
                let before = moved::replace(path, &newer)?;
                tracing::warn!(
                    before = %before.display(),
                    "this copy of the replicated store was away for longer than the log reaches back: it begins from the newest copy beside the log, which begins with the same trails; the one before is not needed any more"
                );
            }
        }
        let replication = Replication {
            pulses: servers.pulses().await?,
            servers: servers.clone(),
            path: path.to_owned(),
            room,
        };
        let store = Self::follow(path, room, name, |after| servers.open(after)).await?;
        Ok(Self {
            replication: Some(replication),
            ..store
        })
    }

    /// Keeps the log of a replicated store short, for ever; for the one that acts. `fails`: why it could not the last time.
    pub(crate) async fn keep_log_short(self, fails: watch::Sender<Option<String>>) {
        loop {
            let compacted = self.compact(LOG_BYTES).await;
            if let Ok(true) = compacted {
                tracing::info!("the log of the replicated store was made shorter");
            }
            let why = compacted.err().map(|error| crate::chain(&error));
            let pause = why.as_ref().map_or(LOOK, |_| AGAIN);
            fails.send_replace(why);
            tokio::time::sleep(pause).await;
        }
    }

    /// Lets the log begin from what the copy holds by now, where more than so many bytes, and than the copy has, stand in it; whether they did.
    pub(super) async fn compact(&self, log_bytes: u64) -> Result<bool, StoreError> {
        let Some(Replication {
            servers, path, room, ..
        }) = self.replication.clone()
        else {
            return Ok(false);
        };
        // A copy that does not follow the log is nothing to begin from.
        if self.failing_for().is_some()
            || servers.bytes_behind_base().await? <= log_bytes.max(moved::bytes(&path))
        {
            return Ok(false);
        }
        let copy = path.with_extension("compact");
        let to = copy.clone();
        let copied = tokio::task::spawn_blocking(move || moved::copied(&path, &to, room)).await;
        let compacted = match copied {
            Ok(Ok(Some(number))) => servers.compact(&copy, number).await,
            Ok(Ok(None)) => Ok(false),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StoreError::Stopped),
        };
        moved::remove(&copy);
        compacted
    }

    /// Opens the copy at `path` of a replicated store, and lets it follow the log that `connect` opens behind the message of a number;
    /// it has all that stood there when this answers. `name`: the coordinator's.
    pub(super) async fn follow<F>(
        path: &Path,
        room: DiskReserve,
        name: &str,
        connect: impl FnOnce(u64) -> F,
    ) -> Result<Self, StoreError>
    where
        F: Future<Output = Result<Box<dyn Log>, StoreError>>,
    {
        Ok(Self::on(Sqlite::follow(path, room, name, connect).await?))
    }

    /// What coordinators on the same store say to each other; `None`: it stands alone.
    pub(crate) fn pulses(&self) -> Option<&Pulses> {
        self.replication.as_ref().map(|replication| &replication.pulses)
    }

    /// For how long this copy of a replicated store has taken nothing, whatever the others do: its own disk fails, or its log is lost.
    pub(crate) fn failing_for(&self) -> Option<Duration> {
        self.engine.failing_for()
    }

    /// Why this copy of a replicated store takes nothing any more until it is opened again.
    pub(crate) fn lost(&self) -> Option<StoreError> {
        self.engine.lost()
    }

    /// From now on no write is made but while this record has this revision: whoever was paused, or cut off, and is not the one who acts
    /// any more, changes nothing. Of a store that stands alone it means nothing.
    pub(crate) fn fence(&self, key: &str, revision: u64) {
        self.engine.fence(key, revision);
    }
}
