//! Makes the log shorter: what it begins from is replaced by a newer copy of the store, and what stood in the log before the copy that was there until
//! then is taken out.
//!
//! So the log always holds what came since the copy before the newest one: a coordinator that was away for less follows from where it is, and
//! one that was away for longer, or is new, begins from the newest copy. Nothing is taken out before the copy that replaces it was read
//! back and is what it should be.

use std::path::Path;

use super::{NatsSettings, base, unreachable, unusable};
use crate::store::StoreError;

impl NatsSettings {
    /// About how many bytes stand in the log behind what it begins from.
    pub(in crate::store) async fn bytes_behind_base(&self) -> Result<u64, StoreError> {
        let (_, context) = self.context().await?;
        let state = self.stream(&context).await?.cached_info().state.clone();
        let base = base::index(self, &context).await?.map_or(0, |base| base.number);
        // One that is not behind what stands in the log is one of another log.
        let behind = state.last_sequence.saturating_sub(base);
        let bytes = u128::from(state.bytes) * u128::from(behind) / u128::from(state.messages.max(1));
        Ok(u64::try_from(bytes).unwrap_or(u64::MAX).min(state.bytes))
    }

    /// Lets the log begin from `copy`, a copy of the store that holds it up to message `number`.
    pub(in crate::store) async fn compact(&self, copy: &Path, number: u64) -> Result<(), StoreError> {
        let (_, context) = self.context().await?;
        let before = base::index(self, &context).await?.map_or(0, |base| base.number);
        if number <= before {
            return Ok(());
        }
        let sent = base::put(self, &context, copy, number).await?;
        let Some(index) = base::index(self, &context).await? else {
            return Err(unusable("what was put beside the log is not there".to_owned()));
        };
        if (index.number, &index.sha256) != (number, &sent) {
            return Err(unreachable(
                "somebody else put a copy beside the log since".to_owned(),
            ));
        }
        base::read(self, &context, &index, &mut std::io::sink()).await?;
        base::drop_earlier(self, &context, &index).await?;
        let stream = self.stream(&context).await?;
        let purged = stream.purge().sequence(before + 1).await;
        purged
            .map(|_| ())
            .map_err(|error| unreachable(crate::chain(&error)))
    }

    /// Writes what the log begins from to the new file `path`, if the log has no longer what follows message `number`.
    pub(in crate::store) async fn fetch_newer(&self, number: u64, path: &Path) -> Result<bool, StoreError> {
        let (_, context) = self.context().await?;
        let state = self.stream(&context).await?.cached_info().state.clone();
        if state.first_sequence <= number + 1 {
            return Ok(false);
        }
        let _ = std::fs::remove_file(path);
        Ok(base::fetch(self, &context, path).await?.is_some())
    }
}
