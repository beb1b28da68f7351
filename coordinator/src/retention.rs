//! How long trails are kept: what came longer ago than `storage.trail_days` is removed, a little at a time, and the
//! coordinator's own trail says how much (IEC 62443-3-3 SR 2.9). Nothing else ever removes a block.

use std::time::Duration;

use penstock_proto::v1::{Severity, TrailEvent};

use crate::clock;
use crate::journal::Journal;
use crate::store::{Dropped, Store, StoreError};

/// How often what is old is looked for.
const LOOK: Duration = Duration::from_secs(3600);
/// Blocks removed in one step: others write in between.
const STEP: u32 = 200;

/// Removes what is older than `kept`, each hour.
pub async fn follow(store: Store, journal: Journal, kept: Duration) {
    loop {
        match drop_old(&store, &journal, kept, clock::now_ms()).await {
            Ok(dropped) if dropped.blocks > 0 => {
                tracing::info!(blocks = dropped.blocks, "old blocks of trails were removed");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(error = %crate::chain(&error), "old blocks of trails cannot be removed; they are tried again");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Removes what came longer than `kept` before `now_ms`, and writes down that it did.
pub async fn drop_old(
    store: &Store,
    journal: &Journal,
    kept: Duration,
    now_ms: u64,
) -> Result<Dropped, StoreError> {
    let kept_ms = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
    let before_ms = now_ms.saturating_sub(kept_ms);
    let mut all = Dropped::default();
    loop {
        let step = store.drop_before(before_ms, STEP).await?;
        all.blocks += step.blocks;
        all.bytes = all.bytes.saturating_add(step.bytes);
        if step.blocks < u64::from(STEP) {
            break;
        }
    }
    if all.blocks > 0 {
        let days = kept.as_secs() / 86_400;
        let event = TrailEvent {
            step: "expired".to_owned(),
            blocks: all.blocks,
            message: format!(
                "{} blocks of all trails, {} MiB, were removed, as trails are kept for {days} days (storage.trail_days)",
                all.blocks,
                all.bytes >> 20
            ),
            ..TrailEvent::default()
        };
        journal.trail(Severity::Notice, event).await?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use penstock_policy::ids::CoordinatorId;
    use penstock_proto::audit::read_body;
    use penstock_proto::v1::audit_event::Kind;

    use super::*;
    use crate::store::BlockFilter;

    #[tokio::test]
    async fn trails_end_after_their_days_and_the_coordinators_own_says_so() {
        const DAY_MS: u64 = 86_400_000;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db")).unwrap();
        let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
        let now_ms = clock::now_ms();
        for age in (0..600).rev() {
            let summary = crate::query::summarize(&Default::default());
            store
                .append_own("gw", bytes::Bytes::new(), summary, now_ms - age * DAY_MS)
                .await
                .unwrap();
        }
        let kept = Duration::from_secs(30 * 86_400);
        let dropped = drop_old(&store, &journal, kept, now_ms).await.unwrap();
        assert_eq!(dropped.blocks, 569);
        let left = store.blocks(BlockFilter::default(), 100).await.unwrap();
        assert_eq!(left.len(), 31 + 1);
        let told = read_body(&left[31].body).unwrap().events.remove(0).kind;
        let Some(Kind::Trail(told)) = told else {
            panic!("{told:?}");
        };
        assert_eq!((told.step.as_str(), told.blocks), ("expired", 569));
        // With nothing to remove there is nothing to say.
        assert_eq!(
            drop_old(&store, &journal, kept, now_ms).await.unwrap(),
            Dropped::default()
        );
        assert_eq!(store.blocks(BlockFilter::default(), 100).await.unwrap().len(), 32);
    }
}
