//! Makes the log shorter: what it begins from is replaced by a newer copy of the store, and what stood in the log before the copy that was there until
//! then is taken out.
//!
//! So the log always holds what came since the copy before the newest one: a coordinator that was away for less follows from where it is, and
//! one that was away for longer, or is new, begins from the newest copy. Nothing is taken out before the copy that replaces it was read
//! back. What an end in the midst of it leaves is done the next time one looks.

use std::path::Path;

use async_nats::jetstream::context::Context;

use super::{NatsSettings, base, unreachable};
use crate::store::StoreError;

impl NatsSettings {
    /// About how many bytes stand in the log behind what it begins from, once all is taken out that is not needed.
    pub(in crate::store) async fn bytes_behind_base(&self) -> Result<u64, StoreError> {
        let (_, context) = self.context().await?;
        let base = self.own_base(&context).await?;
        if let Some(base) = &base {
            self.drop_unneeded(&context, base).await?;
        }
        let state = self.stream(&context).await?.cached_info().state.clone();
        let behind = state
            .last_sequence
            .saturating_sub(base.map_or(0, |base| base.number));
        let bytes = u128::from(state.bytes) * u128::from(behind) / u128::from(state.messages.max(1));
        Ok(u64::try_from(bytes).unwrap_or(u64::MAX).min(state.bytes))
    }

    /// Lets the log begin from `copy`, a copy of the store that holds it up to message `number`; whether it began from an older one.
    pub(in crate::store) async fn compact(&self, copy: &Path, number: u64) -> Result<bool, StoreError> {
        let (_, context) = self.context().await?;
        let log = self.stream(&context).await?.cached_info().clone();
        let before = self.own_base(&context).await?.map_or(0, |base| base.number);
        if number <= before || number > log.state.last_sequence {
            return Ok(false);
        }
        let standing = base::Standing {
            number,
            before,
            log: log.created.unix_timestamp_nanos(),
        };
        let base = base::put(self, &context, copy, standing).await?;
        self.drop_unneeded(&context, &base).await?;
        Ok(true)
    }

    /// What this log begins from, rather than one that had its name before.
    async fn own_base(&self, context: &Context) -> Result<Option<base::Index>, StoreError> {
        let log = self.stream(context).await?.cached_info().created;
        let base = base::index(self, context).await?;
        Ok(base.filter(|base| base.log == log.unix_timestamp_nanos()))
    }

    /// Takes out what no coordinator needs any more that begins from `newest`, or has followed up to the copy before.
    async fn drop_unneeded(&self, context: &Context, newest: &base::Index) -> Result<(), StoreError> {
        base::drop_others(self, context, newest).await?;
        let stream = self.stream(context).await?;
        let first = stream.cached_info().state.first_sequence;
        // Asked for what is before message 1, servers before 2.12.10 and 2.14.2 take everything out.
        if newest.before == 0 || first > newest.before {
            return Ok(());
        }
        let purged = stream.purge().sequence(newest.before + 1).await;
        purged
            .map(|_| ())
            .map_err(|error| unreachable(crate::chain(&error)))
    }

    /// Writes what the log begins from to the new file `path`, if the log has no longer what follows message `number`, and that has.
    pub(in crate::store) async fn fetch_newer(&self, number: u64, path: &Path) -> Result<bool, StoreError> {
        let (_, context) = self.context().await?;
        let first = self.stream(&context).await?.cached_info().state.first_sequence;
        let base = base::index(self, &context).await?;
        let Some(base) =
            base.filter(|base| first > number + 1 && base.number > number && base.number + 1 >= first)
        else {
            return Ok(false);
        };
        base::fetch(self, &context, &base, path).await?;
        Ok(true)
    }

    /// Whether the log begins from what holds message `number`.
    pub(super) async fn begins_behind(&self, context: &Context, number: u64) -> Result<bool, StoreError> {
        let base = base::index(self, context).await?;
        Ok(base.is_some_and(|base| base.number >= number))
    }
}

#[cfg(test)]
mod tests;
