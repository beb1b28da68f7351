//! A store as one of the copies that follow a log.

use std::path::Path;
use std::time::Duration;

use super::jetstream::{NatsSettings, Pulses};
use super::log::Log;
use super::room::DiskReserve;
use super::sqlite::{self, Sqlite};
use super::{Store, StoreError};

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
        if sqlite::moved::is_unused(path)? {
            servers.fetch_base(path).await?;
        }
        let pulses = servers.pulses().await?;
        let store = Self::follow(path, room, name, |after| servers.open(after)).await?;
        Ok(Self {
            pulses: Some(pulses),
            ..store
        })
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
        self.pulses.as_ref()
    }

    /// For how long this copy of a replicated store has taken nothing, whatever the others do: its own disk fails, or its log is lost.
    pub(crate) fn failing_for(&self) -> Option<Duration> {
        self.engine.failing_for()
    }

    /// From now on no write is made but while this record has this revision: whoever was paused, or cut off, and is not the one who acts
    /// any more, changes nothing. Of a store that stands alone it means nothing.
    pub(crate) fn fence(&self, key: &str, revision: u64) {
        self.engine.fence(key, revision);
    }
}
