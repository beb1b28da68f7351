//! Reading the trails: which events a person asked for, oldest or newest first, and new ones as they come.
//!
//! Two steps: the store skips whole blocks by their summary, then each remaining block is decoded, one at a time, and
//! its events are held against the filter. Memory is bounded by a page of blocks, however long the answer, and by
//! [`SEARCHES_MAX`] of one operator; a search ends with its reader, and with one that takes nothing.
//! What an event's addresses were called is looked up in the release that was in force (`names`): a search finds an asset by
//! its name, also where the event only says its address.
//! Order is that of arrival at the coordinator; within one source that is the order of its chain.

mod names;
mod recent;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_policy::ids::OperatorId;
use penstock_proto::audit::read_body;
use penstock_proto::event::EventKind;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1::{AuditClock, AuditEvent, AuditRecord, SearchAuditRequest};
use tokio::sync::mpsc;
use tonic::Status;

use self::names::{Names, named};
pub(crate) use self::recent::recent;
use crate::releases::Releases;
use crate::store::{BlockFilter, Clock, Cursor, Store, StoreError, StoredBlock};
use crate::summary::decision;

/// Events that a search gives if it does not say how many.
pub const LIMIT_DEFAULT: u32 = 100;
/// Most events of one search.
pub const LIMIT_MAX: u32 = 100_000;
/// Blocks read at once.
const PAGE: usize = 32;
/// How long a reader may take for the next record.
const READER_TIMEOUT: Duration = Duration::from_secs(60);
/// Searches and followed trails of one operator at once.
pub const SEARCHES_MAX: usize = 8;
/// Longest text to search for, bytes.
const TEXT_BYTES_MAX: usize = 256;

/// A search that was checked.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    source: Option<String>,
    from_ms: u64,
    until_ms: u64,
    clock: Clock,
    kinds: u32,
    severity_min: i32,
    decision: i32,
    /// Lower case; empty: any.
    text: String,
    limit: u32,
    newest_first: bool,
}

/// A search that makes no sense: the field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the search cannot be done: {field} {what}")]
pub struct FilterError {
    /// Which field.
    pub field: &'static str,
    /// What is wrong.
    pub what: String,
}

impl TryFrom<SearchAuditRequest> for Filter {
    type Error = FilterError;
    fn try_from(request: SearchAuditRequest) -> Result<Self, FilterError> {
        let fault = |field, what: String| FilterError { field, what };
        let mut kinds = 0;
        for kind in &request.kinds {
            let known = EventKind::of_word(kind).ok_or_else(|| {
                let known: Vec<_> = EventKind::ALL.iter().map(|kind| kind.word()).collect();
                fault("kinds", format!("has `{kind}`; known are {}", known.join(", ")))
            })?;
            kinds |= known.bit();
        }
        if request.limit > LIMIT_MAX {
            return Err(fault(
                "limit",
                format!("is {}, at most {LIMIT_MAX}", request.limit),
            ));
        }
        if request.until_ms != 0 && request.until_ms < request.from_ms {
            return Err(fault("until_ms", "lies before from_ms".to_owned()));
        }
        if request.text.len() > TEXT_BYTES_MAX {
            return Err(fault("text", format!("is longer than {TEXT_BYTES_MAX} bytes")));
        }
        if !(0..=3).contains(&request.decision) {
            return Err(fault("decision", "is unknown".to_owned()));
        }
        if !(0..=4).contains(&request.severity_min) {
            return Err(fault("severity_min", "is unknown".to_owned()));
        }
        let clock = match AuditClock::try_from(request.clock) {
            Ok(AuditClock::Source) => Clock::Source,
            Ok(AuditClock::Received) => Clock::Received,
            Ok(AuditClock::Either) => Clock::Either,
            Err(_) => return Err(fault("clock", "is unknown".to_owned())),
        };
        Ok(Self {
            clock,
            source: (!request.source.is_empty()).then_some(request.source),
            from_ms: request.from_ms,
            until_ms: request.until_ms,
            kinds,
            severity_min: request.severity_min,
            decision: request.decision,
            text: request.text.to_lowercase(),
            limit: if request.limit == 0 {
                LIMIT_DEFAULT
            } else {
                request.limit
            },
            newest_first: request.newest_first,
        })
    }
}

/// Whether `event` is of one of `kinds`; one that its source may not write is of none (an older coordinator took such).
fn is_of(kinds: u32, source: &str, event: &AuditEvent) -> bool {
    let rightful = |kind: &EventKind| kind.may_be_written_by(source);
    kinds == 0
        || EventKind::of(event)
            .filter(rightful)
            .is_some_and(|kind| kinds & kind.bit() != 0)
}

impl Filter {
    /// All events of these kinds.
    pub(crate) fn of_kinds(kinds: &[&str]) -> Self {
        let known = kinds.iter().filter_map(|kind| EventKind::of_word(kind));
        Self {
            kinds: known.fold(0, |kinds, kind| kinds | kind.bit()),
            ..Self::default()
        }
    }

    fn blocks(&self) -> BlockFilter {
        BlockFilter {
            source: self.source.clone(),
            from_ms: self.from_ms,
            until_ms: self.until_ms,
            clock: self.clock,
            kinds: self.kinds,
            decisions: if self.decision == 0 { 0 } else { 1 << self.decision },
            severity_min: self.severity_min,
            newest_first: self.newest_first,
        }
    }

    /// Whether an event of `source` that was received then is asked for, whatever text it has.
    fn matches(&self, source: &str, received_ms: u64, event: &AuditEvent) -> bool {
        let within = |ms: u64| ms >= self.from_ms && (self.until_ms == 0 || ms <= self.until_ms);
        let in_time = match self.clock {
            Clock::Source => within(event.time_ms),
            Clock::Received => within(received_ms),
            Clock::Either => within(event.time_ms) || within(received_ms),
        };
        in_time
            && self.source.as_deref().is_none_or(|wanted| wanted == source)
            && is_of(self.kinds, source, event)
            && event.severity >= self.severity_min
            && (self.decision == 0 || decision(event) == self.decision)
    }

    /// Whether the text that is asked for stands in the event or in the names of its addresses.
    fn reads(&self, event: &AuditEvent, names: &Names) -> bool {
        let own = event.described().map(|event| event.texts()).unwrap_or_default();
        let mut all = own.into_iter().chain(names.texts(event));
        self.text.is_empty() || all.any(|text| contains(text, &self.text))
    }
}

fn contains(text: &str, lower: &str) -> bool {
    text.to_lowercase().contains(lower)
}

/// The records of a block that a filter asks for, in chain order, with names.
async fn records(
    block: &StoredBlock,
    filter: &Filter,
    names: &mut Names,
    releases: &Releases,
) -> Result<Vec<AuditRecord>, Status> {
    let body = read_body(&block.body).map_err(|_| {
        Status::data_loss(format!(
            "block {}/{} of {} cannot be read",
            block.epoch, block.sequence, block.source
        ))
    })?;
    let mut found = Vec::new();
    for (event, index) in body.events.into_iter().zip(0..) {
        if !filter.matches(&block.source, block.received_ms, &event) {
            continue;
        }
        names.turn_to(event.revision, releases).await?;
        if filter.reads(&event, names) {
            found.push(AuditRecord {
                source: block.source.clone(),
                epoch: block.epoch,
                sequence: block.sequence,
                index,
                received_ms: block.received_ms,
                names: named(&event, names),
                time_zone: names.time_zone(&block.source),
                event: Some(event),
            });
        }
    }
    Ok(found)
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
    let mut left = filter.limit;
    let mut after = None;
    let mut names = Names::default();
    loop {
        let page = tokio::select! {
            page = store.page(filter.blocks(), after, PAGE) => page?,
            // Its scan ends with it.
            () = out.closed() => return Ok(()),
        };
        let sent = send_all(&page.blocks, (filter, releases), &mut names, Some(&mut left), out).await;
        if sent.is_break() || !page.more {
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
    let after = store.appended().borrow().clone();
    tail_from(store, releases, filter, after, out).await
}

/// The same from a place on.
pub(crate) async fn tail_from(
    store: &Store,
    releases: &Releases,
    filter: &Filter,
    mut after: Cursor,
    out: &Out,
) -> Result<(), StoreError> {
    let mut appended = store.appended();
    appended.mark_unchanged();
    let filter = Filter {
        newest_first: false,
        ..filter.clone()
    };
    let mut names = Names::default();
    loop {
        let page = tokio::select! {
            page = store.page(filter.blocks(), Some(after), PAGE) => page?,
            () = out.closed() => return Ok(()),
        };
        // Also behind what the summary rules out, so that it is not looked at again.
        after = page.end;
        let sent = send_all(&page.blocks, (&filter, releases), &mut names, None, out).await;
        if sent.is_break() {
            return Ok(());
        }
        if page.more {
            continue;
        }
        tokio::select! {
            // What was appended since the last look is seen at once, also what came while the page was read.
            changed = appended.changed() => if changed.is_err() { return Ok(()) },
            () = out.closed() => return Ok(()),
        }
    }
}

async fn send_all(
    page: &[StoredBlock],
    (filter, releases): (&Filter, &Releases),
    names: &mut Names,
    mut left: Option<&mut u32>,
    out: &Out,
) -> ControlFlow<()> {
    for block in page {
        // What nobody reads any more is not searched, and compiles no documents for its names.
        if out.is_closed() {
            return ControlFlow::Break(());
        }
        let mut found = match records(block, filter, names, releases).await {
            Ok(found) => found,
            Err(status) => {
                // Nobody listening is no reason to say it elsewhere; else the search ends with the fault.
                let _ = out.send(Err(status)).await;
                return ControlFlow::Break(());
            }
        };
        if filter.newest_first {
            found.reverse();
        }
        for record in found {
            if let Some(left) = &mut left {
                if **left == 0 {
                    return ControlFlow::Break(());
                }
                **left -= 1;
            }
            match tokio::time::timeout(READER_TIMEOUT, out.send(Ok(record))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return ControlFlow::Break(()),
                // A window that is never opened must not keep a page of the trail in memory.
                Err(_) => {
                    tracing::info!("a search ends: its reader takes nothing");
                    return ControlFlow::Break(());
                }
            }
        }
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests;
