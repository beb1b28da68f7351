//! The index of the trails grows behind what is stored: one thread of its own, which gives way to all others, reads what is
//! new, segment by segment, and writes down which blocks have which terms.
//!
//! No append waits for it. Where it is behind, after a restore or an upgrade for a while, searches look at what it lacks block by
//! block. It stops while the disk is short, since it can be made again and what the disk is kept for cannot.

use std::collections::HashMap;
use std::time::Duration;

use penstock_policy::text::sentence;
use penstock_proto::audit::read_body;
use penstock_proto::refusal::Refusal;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::names::Names;
use super::terms::{BlockTerms, form, unreadable};
use crate::releases::Releases;
use crate::store::terms::{Members, SEGMENT_BLOCKS_MAX, Term, Unindexed};
use crate::store::{Store, StoreError};

/// How long it waits when it could not go on.
const AGAIN: Duration = Duration::from_secs(60);
/// How long it lets blocks gather before it looks whether there are enough for a segment.
const GATHER: Duration = Duration::from_millis(100);
/// What a segment may take of the disk while it is written, beside what is kept for what must go on, bytes.
const SEGMENT_ROOM: u64 = 64 << 20;
/// How much it gives way (`nice`).
const NICE: i32 = 10;

/// Why a segment was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexingError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the names of a release cannot be looked up now: {0}")]
    Names(#[from] Refusal),
}

/// Keeps the index of the trails, until it is stopped.
pub async fn follow(store: Store, releases: Releases, stopping: CancellationToken) {
    let runtime = Handle::current();
    let stop = stopping.clone();
    let thread = std::thread::Builder::new()
        .name("audit-index".to_owned())
        .spawn(move || {
            // On Linux this is the thread's own; where it is refused, the thread is as urgent as others.
            let _ = rustix::process::nice(NICE);
            runtime.block_on(async {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = keep(&store, &releases) => {}
                }
            });
        });
    match thread {
        Ok(thread) => {
            stopping.cancelled().await;
            let ended = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(ended, Ok(Ok(()))) {
                tracing::error!(
                    "the thread that keeps the index of the trails failed; the next start makes what is missing"
                );
            }
        }
        Err(error) => {
            tracing::warn!(%error, "the index of the trails is not kept: searches look at every block");
        }
    }
}

async fn keep(store: &Store, releases: &Releases) {
    let mut appended = store.appended();
    let mut names = Names::default();
    loop {
        appended.borrow_and_update();
        // Each time: an index whose bytes turn out to be wrong was given up, and is rebuilt here.
        let grown = async {
            store.open_index(&form()).await?;
            index_all(store, releases, &mut names, SEGMENT_BLOCKS_MAX).await
        };
        match grown.await {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(error = %sentence(&error), "the index of the trails does not grow: searches look at what it lacks block by block; it is tried again in a minute");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        }
        tokio::time::sleep(GATHER).await;
        if appended.changed().await.is_err() {
            return;
        }
    }
}

/// Brings the index up to what is stored, as far as that fills segments.
pub(super) async fn index_all(
    store: &Store,
    releases: &Releases,
    names: &mut Names,
    blocks_max: usize,
) -> Result<(), IndexingError> {
    // First, since that gives room on a disk that is short of it.
    store.prune_index().await?;
    loop {
        if store.free_bytes().await? <= store.reserve_bytes().saturating_add(SEGMENT_ROOM) {
            return Ok(());
        }
        if !index_next(store, releases, names, blocks_max).await? {
            return Ok(());
        }
    }
}

/// Adds one segment; `false`: there are not enough blocks for one.
async fn index_next(
    store: &Store,
    releases: &Releases,
    names: &mut Names,
    blocks_max: usize,
) -> Result<bool, IndexingError> {
    let Some(unindexed) = store.unindexed(blocks_max).await? else {
        return Ok(false);
    };
    let postings = postings(&unindexed, releases, names).await?;
    store.index(unindexed.with(postings)).await?;
    Ok(true)
}

async fn postings(
    unindexed: &Unindexed,
    releases: &Releases,
    names: &mut Names,
) -> Result<HashMap<Term, Members>, IndexingError> {
    let mut postings: HashMap<Term, Members> = HashMap::new();
    for (place, block) in &unindexed.blocks {
        let Ok(body) = read_body(&block.body) else {
            postings.entry(unreadable()).or_default().insert(*place);
            continue;
        };
        let mut terms = BlockTerms::default();
        for event in &body.events {
            names.turn_to(event.revision, releases).await?;
            terms.add(&block.source, event, names);
        }
        for term in terms.into_terms() {
            postings.entry(term).or_default().insert(*place);
        }
    }
    Ok(postings)
}

/// Brings the index up to what is stored at once; for tests and benches.
///
/// # Errors
/// As words: the store or its index cannot be read or written.
pub async fn catch_up(store: &Store, releases: &Releases) -> Result<(), String> {
    let all = async {
        store.open_index(&form()).await?;
        index_all(store, releases, &mut Names::default(), SEGMENT_BLOCKS_MAX).await
    };
    all.await.map_err(|error: IndexingError| sentence(&error))
}
