//! What a proposal leaves behind: the plans of what can no longer become current are removed, and so is what was compiled
//! beside them. Documents stay with the record of each release; plans can be compiled from them again.
//!
//! So an engineer who proposes and withdraws all day fills the disk with documents at most, and those are bounded by a share
//! ([`DOCUMENTS`]).

use std::collections::BTreeSet;
use std::sync::PoisonError;

use penstock_policy::ids::Digest;
use penstock_proto::refusal::Refusal;

use super::{Releases, history};
use crate::allowance::Share;

/// Documents that one engineer may propose, bytes.
pub(super) const DOCUMENTS: Share = Share {
    at_once: 256 << 20,
    per_day: 256 << 20,
};

/// Blobs removed in one step, so that the store's writer serves others in between.
const STEP: usize = 200;

impl Releases {
    /// Sweeps beside what is going on; what fails is logged, and the next sweep does it.
    pub(super) fn sweep_soon(&self) {
        let releases = self.clone();
        tokio::spawn(async move {
            if let Err(refusal) = releases.sweep().await {
                tracing::warn!(%refusal, "plans of ended proposals cannot be removed; they are with the next one that ends");
            }
        });
    }

    /// Removes what nothing refers to that is current or waits.
    pub(super) async fn sweep(&self) -> Result<(), Refusal> {
        // Between the blobs of a proposal and its record nothing refers to them.
        let _storing = self.storing.lock().await;
        let gone = self.unreferenced().await?;
        for step in gone.chunks(STEP) {
            self.store.drop_blobs(step.to_vec()).await?;
        }
        Ok(())
    }

    /// The blobs that neither the current release, nor one that gateways still should have, nor a proposal that waits refers to.
    async fn unreferenced(&self) -> Result<Vec<Digest>, Refusal> {
        // A proposal that becomes current meanwhile would neither wait any more nor be the release that was current at the
        // beginning. Afterwards, only what waits now can become current, and that is kept.
        let _deciding = self.deciding.lock().await;
        let current = self.now();
        let still = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(still) = still else {
            return Ok(Vec::new());
        };
        if history::newest(&self.store).await? != current.as_ref().map(|current| current.revision()) {
            // The newest release was not taken up here, and its plans are needed to do it.
            return Ok(Vec::new());
        }
        let mut kept = BTreeSet::new();
        for recorded in self.list(usize::MAX).await? {
            kept.extend(recorded.record.documents.iter().map(|(_, digest)| *digest));
            let is_current = current
                .as_ref()
                .is_some_and(|current| current.recorded.digest == recorded.digest);
            let is_kept =
                still.contains(&recorded.statement.revision) && recorded.record.approved_ms.is_some();
            if is_current || is_kept || self.waits(&recorded).is_ok() {
                kept.extend(recorded.record.detail);
                kept.extend(recorded.record.carried);
                kept.extend(self.detail(&recorded).await?.plans.into_values());
            }
        }
        let all = self.store.blob_digests().await?;
        Ok(all.into_iter().filter(|digest| !kept.contains(digest)).collect())
    }
}
