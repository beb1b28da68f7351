//! Reading the trails: which events a person asked for, oldest or newest first, and new ones as they come.
//!
//! Two steps: the store skips whole blocks by its index (`terms`, `indexing`) and by their summary, then each remaining block is decoded, one at a time, and
//! its events are held against the filter (`filter`). Memory is bounded by a page of blocks, however long the answer, and by
//! [`SEARCHES_MAX`] of one operator; a search ends with its reader, and with one that takes nothing.
//! What an event's addresses were called is looked up in the release that was in force (`names`): a search finds an asset by
//! its name, also where the event only says its address.
//! Order is that of arrival at the coordinator; within one source that is the order of its chain.

mod counts;
mod cursor;
mod denials;
mod filter;
pub mod indexing;
mod names;
mod reader;
mod recent;
mod terms;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_policy::ids::OperatorId;
use penstock_proto::audit::read_body;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1::{AuditEvent, AuditRecord};
use tokio::sync::mpsc;
use tonic::Status;

pub use self::counts::{Counting, counts};
pub use self::denials::{Grouping, denials};
pub use self::filter::{Filter, FilterError, LIMIT_DEFAULT, LIMIT_MAX};
use self::names::{Names, named};
pub(crate) use self::reader::{BlockReader, Unread};
pub(crate) use self::recent::place_since;
use crate::releases::Releases;
use crate::store::{Cursor, Store, StoreError, StoredBlock};

/// Blocks read at once.
const PAGE: usize = 32;
/// How long a reader may take for the next record.
const READER_TIMEOUT: Duration = Duration::from_secs(60);
/// Searches and followed trails of one operator at once.
pub const SEARCHES_MAX: usize = 8;

/// An event that a search found, where it is, and the names of its time.
pub(crate) struct Met<'m> {
    block: &'m StoredBlock,
    index: u32,
    event: &'m AuditEvent,
    names: &'m Names,
}

/// The event with its place and its names, for its reader.
fn record(met: &Met<'_>) -> AuditRecord {
    AuditRecord {
        source: met.block.source.clone(),
        epoch: met.block.epoch,
        sequence: met.block.sequence,
        index: met.index,
        received_ms: met.block.received_ms,
        names: named(met.event, met.names),
        time_zone: met.names.time_zone(&met.block.source),
        event: Some(met.event.clone()),
        cursor: String::new(),
    }
}

/// Gives the events of a block that a filter asks for to `take`, in chain order.
async fn events(
    block: &StoredBlock,
    (filter, releases): (&Filter, &Releases),
    names: &mut Names,
    take: &mut (impl FnMut(Met<'_>) + Send),
) -> Result<(), Status> {
    let body = read_body(&block.body).map_err(|_| {
        Status::data_loss(format!(
            "block {}/{} of {} cannot be read",
            block.epoch, block.sequence, block.source
        ))
    })?;
    for (event, index) in body.events.iter().zip(0..) {
        if !filter.matches(&block.source, block.received_ms, event) {
            continue;
        }
        names.turn_to(event.revision, releases).await?;
        if filter.reads(&block.source, event, names) {
            take(Met {
                block,
                index,
                event,
                names,
            });
        }
    }
    Ok(())
}

/// Gives all events that a filter asks for to `take`, whatever its limit. It ends with whoever waits for it.
async fn each(
    store: &Store,
    releases: &Releases,
    filter: &Filter,
    mut take: impl FnMut(Met<'_>) + Send,
) -> Result<(), Status> {
    let mut names = Names::default();
    let mut after = None;
    loop {
        let page = store.page(terms::blocks(filter), after, PAGE).await?;
        for block in &page.blocks {
            events(block, (filter, releases), &mut names, &mut take).await?;
            // A long count gives way to what else this thread has to do.
            tokio::task::yield_now().await;
        }
        if !page.more {
            return Ok(());
        }
        after = Some(page.end);
    }
}

/// The searches under way, by operator.
#[derive(Debug, Clone, Default)]
pub struct Searches(Arc<Mutex<BTreeMap<OperatorId, usize>>>);

/// One of them; it is over when this is dropped.
#[derive(Debug)]
pub struct Search {
    all: Searches,
    operator: OperatorId,
}

impl Searches {
    /// Begins a search of `operator`.
    pub(crate) fn begin(&self, operator: &OperatorId) -> Result<Search, Refusal> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.entry(operator.clone()).or_default();
        if *own >= SEARCHES_MAX {
            return Err(Refusal::new(
                Reason::TooManySearches,
                format!("{operator} has {SEARCHES_MAX} searches under way; end one of them first"),
            ));
        }
        *own += 1;
        Ok(Search {
            all: self.clone(),
            operator: operator.clone(),
        })
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = all.get_mut(&self.operator) {
            *own -= 1;
            if *own == 0 {
                all.remove(&self.operator);
            }
        }
    }
}

type Out = mpsc::Sender<Result<AuditRecord, Status>>;

/// Sends what is stored and asked for; ends at the limit, or when nobody listens.
///
/// # Errors
/// The store cannot be read. A block that cannot be read ends the search, too, and is sent as its last answer.
pub async fn search(
    store: &Store,
    releases: &Releases,
    filter: &Filter,
    out: &Out,
) -> Result<(), StoreError> {
    let mut sending = Sending::new(filter, releases, out, Some(filter.limit));
    let mut after = match cursor::read(store, filter).await {
        Ok(None) => None,
        Ok(Some((block, index))) => {
            if sending.rest(&block, index).await.is_break() {
                return Ok(());
            }
            Some(block.end)
        }
        Err(refusal) => {
            // Nobody listening is no reason to say it elsewhere.
            let _ = out.send(Err(refusal.into())).await;
            return Ok(());
        }
    };
    loop {
        let page = tokio::select! {
            page = store.page(terms::blocks(filter), after, PAGE) => page?,
            // Its scan ends with it.
            () = out.closed() => return Ok(()),
        };
        if sending.all(&page.blocks).await.is_break() || !page.more {
            return Ok(());
        }
        after = Some(page.end);
    }
}

/// Sends new records as they become durable, until nobody listens.
pub(crate) async fn tail(
    store: &Store,
    releases: &Releases,
    filter: &Filter,
    out: &Out,
) -> Result<(), StoreError> {
    let mut after = store.appended().borrow().clone();
    let tail = tail_from(store, releases, filter, (&mut after, Until::Closed), out);
    tail.await.map(|_| ())
}

/// How far trails are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// To the newest block.
    CaughtUp,
    /// For as long as somebody listens.
    Closed,
}

/// The same from a place on, which goes on with what was sent. It ends when that is so (`Continue`), or before: when nobody takes it, or behind a block
/// that cannot be read, which is sent as a fault.
pub(crate) async fn tail_from(
    store: &Store,
    releases: &Releases,
    filter: &Filter,
    (after, until): (&mut Cursor, Until),
    out: &Out,
) -> Result<ControlFlow<()>, StoreError> {
    let mut appended = store.appended();
    appended.mark_unchanged();
    let filter = Filter {
        newest_first: false,
        ..filter.clone()
    };
    let mut sending = Sending::new(&filter, releases, out, None);
    loop {
        let page = tokio::select! {
            page = store.page(terms::blocks(&filter), Some(after.clone()), PAGE) => page?,
            () = out.closed() => return Ok(ControlFlow::Break(())),
        };
        for block in &page.blocks {
            let sent = sending.block(block, None).await;
            *after = block.end.clone();
            if sent.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        // Also behind what the summary rules out, so that it is not looked at again.
        *after = page.end;
        if page.more {
            continue;
        }
        if until == Until::CaughtUp {
            return Ok(ControlFlow::Continue(()));
        }
        tokio::select! {
            // What was appended since the last look is seen at once, also what came while the page was read.
            changed = appended.changed() => if changed.is_err() { return Ok(ControlFlow::Continue(())) },
            () = out.closed() => return Ok(ControlFlow::Break(())),
        }
    }
}

/// Records on their way to whoever searches.
struct Sending<'s> {
    filter: &'s Filter,
    releases: &'s Releases,
    names: Names,
    out: &'s Out,
    /// How many more; `None`: as many as there are.
    left: Option<u32>,
    about: [u8; 4],
}

impl<'s> Sending<'s> {
    fn new(filter: &'s Filter, releases: &'s Releases, out: &'s Out, left: Option<u32>) -> Self {
        Self {
            about: cursor::about(filter),
            names: Names::default(),
            filter,
            releases,
            out,
            left,
        }
    }

    /// What these blocks hold of it.
    async fn all(&mut self, blocks: &[StoredBlock]) -> ControlFlow<()> {
        for block in blocks {
            self.block(block, None).await?;
        }
        ControlFlow::Continue(())
    }

    /// What a block holds of it behind the event of this number, in the order asked for.
    async fn rest(&mut self, block: &StoredBlock, index: u32) -> ControlFlow<()> {
        self.block(block, Some(index)).await
    }

    async fn block(&mut self, block: &StoredBlock, behind: Option<u32>) -> ControlFlow<()> {
        // What nobody reads any more is not searched, and compiles no documents for its names.
        if self.out.is_closed() {
            return ControlFlow::Break(());
        }
        let mut found = Vec::new();
        let mut take = |met: Met<'_>| found.push(record(&met));
        let read = events(block, (self.filter, self.releases), &mut self.names, &mut take).await;
        if let Err(status) = read {
            // Nobody listening is no reason to say it elsewhere; else the search ends with the fault.
            let _ = self.out.send(Err(status)).await;
            return ControlFlow::Break(());
        }
        if self.filter.newest_first {
            found.reverse();
        }
        for mut record in found {
            let given = behind.is_some_and(|index| match self.filter.newest_first {
                true => record.index >= index,
                false => record.index <= index,
            });
            if given {
                continue;
            }
            match &mut self.left {
                Some(0) => return ControlFlow::Break(()),
                Some(left) => *left -= 1,
                None => {}
            }
            record.cursor = cursor::behind(self.about, block, record.index);
            match tokio::time::timeout(READER_TIMEOUT, self.out.send(Ok(record))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return ControlFlow::Break(()),
                // A window that is never opened must not keep a page of the trail in memory.
                Err(_) => {
                    tracing::info!("a search ends: its reader takes nothing");
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests;
