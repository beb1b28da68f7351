//! Taking up what was approved: the newest release of the store becomes current here, whoever approved it, and is tried again until it
//! can be read. Why it cannot is for health ([`Releases::untaken`]).

use std::sync::Arc;
use std::time::Duration;

use penstock_proto::backoff::Backoff;
use penstock_proto::refusal::Refusal;
use tokio::time::Instant;

use super::{Releases, gauge, history};

/// When it is tried again to take up a release, at first, ...
pub(super) const REFRESH_AGAIN: Duration = Duration::from_secs(1);
/// ... and after many times.
const REFRESH_AGAIN_MAX: Duration = Duration::from_secs(60);

impl Releases {
    /// Takes up whatever is the newest approved release in the store.
    pub(crate) async fn refresh(&self) -> Result<(), Refusal> {
        let _refreshing = self.refreshing.lock().await;
        let done = self.take_up().await;
        let why = done.as_ref().err().map(|refusal| refusal.message.clone());
        self.untaken.send_if_modified(|held| {
            let is_news = *held != why;
            *held = why;
            is_news
        });
        done
    }

    async fn take_up(&self) -> Result<(), Refusal> {
        let Some(newest) = history::newest(&self.store).await? else {
            return Ok(());
        };
        if self.now().is_some_and(|current| current.revision() == newest) {
            return Ok(());
        }
        let mut recorded = self.get(newest).await?;
        if recorded.record.approved_ms.is_none() {
            // Older software ended between the two writes by which it made a release current.
            recorded = self.approved(&recorded, crate::clock::now_ms()).await?;
        }
        let current = Arc::new(self.load(recorded).await?);
        tracing::info!(revision = %current.revision(), "release is current");
        metrics::gauge!("penstock_release_current").set(gauge(current.revision().0));
        self.current.send_if_modified(|slot| {
            // Two refreshes at once: the older one must not win.
            let newer = slot
                .as_ref()
                .is_none_or(|held| held.revision() < current.revision());
            if newer {
                *slot = Some(current);
            }
            newer
        });
        Ok(())
    }

    /// Follows the store: a release approved by whatever coordinator on it becomes current here. Ends with the store.
    pub async fn follow(&self) {
        let mut changes = self.store.watch();
        let (mut again, mut pause) = (None, Backoff::between(REFRESH_AGAIN, REFRESH_AGAIN_MAX));
        loop {
            use tokio::sync::broadcast::error::RecvError;
            let concerned = tokio::select! {
                change = changes.recv() => match change {
                    Ok(change) => change.key.starts_with(history::PREFIX),
                    Err(RecvError::Lagged(_)) => true,
                    Err(RecvError::Closed) => return,
                },
                () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => true,
            };
            if !concerned {
                continue;
            }
            again = match self.refresh().await {
                Ok(()) => {
                    pause.worked();
                    None
                }
                Err(refusal) => {
                    tracing::error!(%refusal, "cannot take up the newest release; it is tried again");
                    Some(Instant::now() + pause.failed(getrandom::u64().unwrap_or(0)))
                }
            };
        }
    }
}
