//! How long trails are kept: what came longer ago than `storage.trail_days` is removed, a little at a time, and the
//! coordinator's own trail says how much (IEC 62443-3-3 SR 2.9), written with the last step: the store counts what the steps
//! before it removed, so that also a coordinator that dies between two of them says it when it starts again. Nothing else
//! ever removes a block.
//!
//! The clock alone never decides it: one that leaps ahead would make everything old at once. Trails age by a time that is kept
//! in the store and follows the clock by at most [`AGED_MAX`] each hour that the coordinator runs, so that there are days to
//! see that the clock is wrong, and little is gone. After a coordinator stood still, trails are kept longer instead. That time
//! goes on whether or not trails end, so that they end at once when it is asked for.
//!
//! What came while the clock was ahead says a time that is long in coming. It is as old as what came next by a likely time
//! ([`Expired`]): else it would keep all that came after it.

use std::time::Duration;

use penstock_proto::v1::TrailEvent;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::journal::Journal;
use crate::store::{BlockFilter, Change, Expect, Expired, Note, PurgeReport, Silent, Store, StoreError};

/// How often what is old is looked for.
const LOOK: Duration = Duration::from_secs(3600);
/// How much trails age between two looks, at most.
const AGED_MAX: Duration = Duration::from_secs(2 * 3600);
/// How long after the newest block it may be when a store has no [`Age`] yet.
const QUIET_MAX_MS: u64 = 86_400_000;
/// Blocks removed in one step: others write in between.
const STEP: u32 = 200;
/// The record of the time by which trails age.
const AGE: &str = "retention/age";

/// The time by which trails age.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Age {
    /// Milliseconds since 1970.
    now_ms: u64,
}

/// Lets trails age, and removes what is older than `kept`, each hour. `None`: for ever.
pub async fn follow(store: Store, journal: Journal, kept: Option<Duration>) {
    // At first nothing ages: who restarts again and again runs for no hour.
    let mut aged = Duration::ZERO;
    loop {
        match look(&store, &journal, kept, clock::now_ms(), aged).await {
            Ok(dropped) if dropped.blocks > 0 => {
                tracing::info!(blocks = dropped.blocks, "old blocks of trails were removed");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(error = %crate::chain(&error), "old blocks of trails cannot be removed; it is tried again in an hour");
            }
        }
        tokio::time::sleep(LOOK).await;
        aged = AGED_MAX;
    }
}

/// The time by which trails age, brought on by at most `aged` towards `now_ms`. A clock that is behind does not take it back: it
/// may have started before it was set.
async fn age(store: &Store, now_ms: u64, aged: Duration) -> Result<u64, StoreError> {
    let held = store.get_json::<Age>(AGE).await?;
    let (held_ms, latest_ms) = match held {
        Some((held, _)) => {
            let aged_ms = u64::try_from(aged.as_millis()).unwrap_or(u64::MAX);
            (held.now_ms, held.now_ms.saturating_add(aged_ms))
        }
        // The newest block is the newest witness.
        None => {
            let newest = BlockFilter {
                newest_first: true,
                ..BlockFilter::default()
            };
            let newest = store.blocks(newest, 1).await?;
            let latest_ms = newest
                .first()
                .map_or(now_ms, |newest| newest.received_ms.saturating_add(QUIET_MAX_MS));
            (0, latest_ms)
        }
    };
    let reached = Age {
        now_ms: now_ms.min(latest_ms).max(held_ms),
    };
    let expect = held.map_or(Expect::Absent, |(_, revision)| Expect::Revision(revision));
    let change = Change::silent(Silent::Observed).json(AGE, expect, &reached)?;
    store.apply(change).await?;
    Ok(reached.now_ms)
}

/// Lets trails age by at most `aged`, and removes what came longer than `kept` ago; `None`: nothing.
async fn look(
    store: &Store,
    journal: &Journal,
    kept: Option<Duration>,
    now_ms: u64,
    aged: Duration,
) -> Result<PurgeReport, StoreError> {
    match kept {
        Some(kept) => drop_old(store, journal, kept, now_ms, aged).await,
        None => {
            age(store, now_ms, aged).await?;
            // What was removed before they were kept for ever may not be noted yet.
            let nothing = Expired {
                before_ms: 0,
                unlikely_after_ms: u64::MAX,
                unlikely_before_ms: 0,
            };
            store.drop_expired(nothing, 1, Some(removed(journal, None))).await
        }
    }
}

/// Removes what came longer than `kept` ago, and writes down that it did. `aged`: how much trails may have aged since the
/// last time.
pub(crate) async fn drop_old(
    store: &Store,
    journal: &Journal,
    kept: Duration,
    now_ms: u64,
    aged: Duration,
) -> Result<PurgeReport, StoreError> {
    let kept_ms = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
    let reached_ms = age(store, now_ms, aged).await?;
    // A clock that is behind ends nothing.
    let before_ms = reached_ms.min(now_ms).saturating_sub(kept_ms);
    let expired = Expired {
        before_ms,
        // As long again, since a coordinator that stood still is behind with its age.
        unlikely_after_ms: reached_ms.saturating_add(kept_ms),
        unlikely_before_ms: before_ms.saturating_sub(kept_ms),
    };
    let mut all = PurgeReport::default();
    loop {
        // If it fails, what was removed before is counted in the store, and noted with what is removed next.
        let step = store.drop_expired(expired, STEP, Some(removed(journal, Some(kept))));
        let step = step.await?;
        all.blocks += step.blocks;
        all.bytes = all.bytes.saturating_add(step.bytes);
        if step.blocks < u64::from(STEP) {
            return Ok(all);
        }
    }
}

/// What the coordinator's own trail says of what was removed.
fn removed(journal: &Journal, kept: Option<Duration>) -> Note<PurgeReport> {
    journal.change_with(move |all: &PurgeReport| {
        let why = kept.map_or(String::new(), |kept| {
            let days = kept.as_secs() / 86_400;
            format!(": trails are kept for {days} days (storage.trail_days)")
        });
        TrailEvent {
            step: "expired".to_owned(),
            blocks: all.blocks,
            message: format!(
                "{} blocks of all trails, {} MiB, were removed{why}",
                all.blocks,
                all.bytes >> 20
            ),
            ..TrailEvent::default()
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use penstock_policy::ids::CoordinatorId;
    use penstock_proto::audit::read_body;
    use penstock_proto::v1::audit_event::Kind;

    use super::*;
    use crate::store::BlockSummary;

    #[tokio::test]
    async fn trails_end_after_their_days_and_the_coordinators_own_says_so() {
        const DAY_MS: u64 = 86_400_000;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db")).unwrap();
        let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
        let now_ms = clock::now_ms();
        for age in (0..600).rev() {
            let summary = crate::summary::summarize(&Default::default());
            store
                .append_own("gw", bytes::Bytes::new(), summary, now_ms - age * DAY_MS)
                .await
                .unwrap();
        }
        let kept = Duration::from_secs(30 * 86_400);
        let dropped = drop_old(&store, &journal, kept, now_ms, Duration::ZERO)
            .await
            .unwrap();
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
            drop_old(&store, &journal, kept, now_ms, AGED_MAX).await.unwrap(),
            PurgeReport::default()
        );
        assert_eq!(store.blocks(BlockFilter::default(), 100).await.unwrap().len(), 32);
    }

    #[tokio::test]
    async fn a_clock_that_leaps_ahead_ends_no_more_of_the_trails_than_the_time_that_the_coordinator_ran() {
        const HOUR_MS: u64 = 3_600_000;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db")).unwrap();
        let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
        let begun_ms = clock::now_ms();
        for hour in 0..100 {
            store
                .append_own(
                    "gw",
                    bytes::Bytes::new(),
                    BlockSummary::default(),
                    begun_ms + hour * HOUR_MS,
                )
                .await
                .unwrap();
        }
        let kept = Duration::from_millis(100 * HOUR_MS);
        let look = async |now_ms, aged| {
            drop_old(&store, &journal, kept, now_ms, aged)
                .await
                .unwrap()
                .blocks
        };
        // By the newest block, the clock is right to a day.
        let leapt_ms = begun_ms + 99 * HOUR_MS + 50 * 365 * 24 * HOUR_MS;
        assert_eq!(look(leapt_ms, Duration::ZERO).await, 23);
        for _ in 0..50 {
            assert_eq!(look(leapt_ms, Duration::ZERO).await, 0, "a restart ages nothing");
        }
        assert_eq!(look(leapt_ms, AGED_MAX).await, 2);
        // A clock that is right again ends the same as if it had always been.
        let right_ms = begun_ms + 130 * HOUR_MS;
        assert_eq!(look(right_ms, AGED_MAX).await, 2);
        assert_eq!(look(right_ms, AGED_MAX).await, 2);
        assert_eq!(look(right_ms, AGED_MAX).await, 1);
        assert_eq!(look(right_ms, AGED_MAX).await, 0);
        // One that is set back ends nothing.
        assert_eq!(look(0, AGED_MAX).await, 0);
        assert_eq!(look(leapt_ms, AGED_MAX).await, 2);
    }

    #[tokio::test]
    async fn what_came_while_the_clock_was_ahead_keeps_nothing_that_came_after_it() {
        const DAY_MS: u64 = 86_400_000;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db")).unwrap();
        let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
        let now_ms = clock::now_ms();
        let came = async |ms: u64| {
            let own = store.append_own("gw", bytes::Bytes::new(), BlockSummary::default(), ms);
            own.await.unwrap();
        };
        // A receiver of satellites' time that counts its weeks wrongly, for more blocks than are removed in a step.
        for n in 0..u64::from(STEP) + 50 {
            came(now_ms + 1024 * 7 * DAY_MS + n).await;
        }
        let kept = Duration::from_secs(30 * 86_400);
        let look = async |now_ms| {
            let dropped = drop_old(&store, &journal, kept, now_ms, AGED_MAX).await;
            dropped.unwrap().blocks
        };
        // As long as nothing came since, nobody knows how old it is.
        assert_eq!(look(now_ms).await, 0);
        for days in (0..40).rev() {
            came(now_ms - days * DAY_MS).await;
        }
        assert_eq!(look(now_ms).await, u64::from(STEP) + 50 + 9);
        assert_eq!(look(now_ms).await, 0);
        // A clock that starts in 1970 makes nothing unlikely.
        came(0).await;
        came(now_ms).await;
        assert_eq!(look(1000 * DAY_MS).await, 0);
        assert_eq!(look(now_ms).await, 0);
    }

    #[tokio::test]
    async fn what_came_after_a_long_standstill_is_not_taken_for_old_because_a_clock_then_started_in_1970() {
        const DAY_MS: u64 = 86_400_000;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db")).unwrap();
        let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
        let now_ms = clock::now_ms();
        // Trails have aged up to a hundred days ago.
        age(&store, now_ms - 100 * DAY_MS, Duration::ZERO).await.unwrap();
        for came_ms in [now_ms, now_ms, 0, now_ms] {
            let own = store.append_own("gw", bytes::Bytes::new(), BlockSummary::default(), came_ms);
            own.await.unwrap();
        }
        let kept = Duration::from_secs(30 * 86_400);
        let dropped = drop_old(&store, &journal, kept, now_ms, AGED_MAX).await.unwrap();
        assert_eq!(dropped.blocks, 0);
    }

    #[tokio::test]
    async fn trails_that_are_kept_for_ever_age_so_that_old_ones_end_at_once_when_that_is_asked_for() {
        const DAY_MS: u64 = 86_400_000;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db")).unwrap();
        let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
        let now_ms = clock::now_ms();
        age(&store, now_ms - DAY_MS, Duration::ZERO).await.unwrap();
        let own = store.append_own(
            "gw",
            bytes::Bytes::new(),
            BlockSummary::default(),
            now_ms - 30 * DAY_MS - 1,
        );
        own.await.unwrap();
        let kept = Some(Duration::from_secs(30 * 86_400));
        let dropped = async |kept| {
            look(&store, &journal, kept, now_ms, AGED_MAX)
                .await
                .unwrap()
                .blocks
        };
        for _ in 0..12 {
            assert_eq!(dropped(None).await, 0);
        }
        let own = store.append_own("gw", bytes::Bytes::new(), BlockSummary::default(), now_ms);
        own.await.unwrap();
        assert_eq!(dropped(kept).await, 1);
    }

    #[tokio::test]
    async fn a_coordinator_that_dies_between_two_steps_of_a_removal_says_when_it_starts_again_what_is_gone() {
        const DAY_MS: u64 = 86_400_000;
        let kept = Some(Duration::from_secs(30 * 86_400));
        for kept_then in [kept, None] {
            let dir = tempfile::tempdir().unwrap();
            let open = || Store::open(&dir.path().join("s.db")).unwrap();
            let journal = |store: &Store| Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
            let now_ms = clock::now_ms();
            let store = open();
            for age in (0..STEP + 50).rev() {
                let came_ms = now_ms - u64::from(age) * DAY_MS;
                let own = store.append_own("gw", bytes::Bytes::new(), BlockSummary::default(), came_ms);
                own.await.unwrap();
            }
            let expired = Expired {
                before_ms: now_ms - 30 * DAY_MS,
                unlikely_after_ms: u64::MAX,
                unlikely_before_ms: 0,
            };
            let note = removed(&journal(&store), kept);
            assert_eq!(
                store
                    .drop_expired(expired, STEP, Some(note))
                    .await
                    .unwrap()
                    .blocks,
                200
            );
            drop(store);
            let store = open();
            let journal = journal(&store);
            let look = look(&store, &journal, kept_then, now_ms, Duration::ZERO);
            let rest = look.await.unwrap().blocks;
            assert_eq!(rest, if kept_then.is_some() { 19 } else { 0 });
            let left = store.blocks(BlockFilter::default(), 1000).await.unwrap();
            let said = left.iter().filter(|block| block.source != "gw");
            let said: Vec<_> = said
                .map(|block| read_body(&block.body).unwrap().events.remove(0).kind)
                .collect();
            let [Some(Kind::Trail(said))] = said.as_slice() else {
                panic!("{said:?}");
            };
            assert_eq!((said.step.as_str(), said.blocks), ("expired", 200 + rest));
        }
    }
}
