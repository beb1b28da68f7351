//! What was refused, or would have been where zones only observe, grouped: who to whom, by which service, for which operation; how
//! often, first and last.
//!
//! Memory is bounded by [`GROUPS_KEPT`] groups and [`BYTES_KEPT`] of what they hold, the first that are met; the events of further ones are counted together, so that a list is
//! said to be whole only if it is.

use std::collections::HashMap;

use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AuditEvent, DenialGroup, DenialOrder, Denials, ListDenialsRequest};
use prost::Message as _;
use tonic::Status;

use super::filter::{Filter, FilterError};
use super::{Met, each, record};
use crate::releases::Releases;
use crate::store::Store;

/// The most groups of one question.
const GROUPS_KEPT: usize = 10_000;
/// What they hold at most, bytes: an event may be as large as its writer likes.
const BYTES_KEPT: usize = 32 << 20;
/// Groups of an answer that does not say how many.
const LIMIT_DEFAULT: u32 = 20;
/// Most groups of one answer.
const LIMIT_MAX: u32 = 1_000;

/// Which groups to list.
#[derive(Debug)]
pub struct Grouping {
    filter: Filter,
    limit: usize,
    order: DenialOrder,
}

impl TryFrom<ListDenialsRequest> for Grouping {
    type Error = FilterError;
    fn try_from(request: ListDenialsRequest) -> Result<Self, FilterError> {
        let fault = |field, what: String| FilterError { field, what };
        let limit = match request.limit {
            0 => LIMIT_DEFAULT,
            limit if limit > LIMIT_MAX => {
                return Err(fault("limit", format!("is {limit}, at most {LIMIT_MAX}")));
            }
            limit => limit,
        };
        Ok(Self {
            filter: Filter::try_from(request.filter.unwrap_or_default())?.of_refusals(),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            order: DenialOrder::try_from(request.order)
                .map_err(|_| fault("order", "is unknown".to_owned()))?,
        })
    }
}

/// Groups what is asked for.
///
/// # Errors
/// The store or the names cannot be read, or a block cannot.
pub async fn denials(store: &Store, releases: &Releases, grouping: &Grouping) -> Result<Denials, Status> {
    let mut groups = Groups::default();
    each(store, releases, &grouping.filter, |met| groups.add(&met)).await?;
    Ok(groups.listed(grouping))
}

/// What is one thing, however often it was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DenialKey {
    decision: i32,
    source: String,
    destination: String,
    protocol: u32,
    port: u32,
    operation: Option<String>,
}

impl DenialKey {
    /// Of an event that decides something.
    fn of(event: &AuditEvent) -> Option<Self> {
        Some(match event.kind.as_ref()? {
            Kind::Verdict(verdict) => Self {
                decision: verdict.decision,
                source: verdict.source.clone(),
                destination: verdict.destination.clone(),
                protocol: verdict.protocol,
                port: verdict.port,
                operation: None,
            },
            Kind::Operation(operation) => Self {
                decision: operation.decision,
                source: operation.client.clone(),
                destination: operation.server.clone(),
                protocol: 6,
                port: operation.port,
                operation: Some(operation.operation.clone()),
            },
            _ => return None,
        })
    }
}

/// From when until when an event reports.
fn span(event: &AuditEvent) -> (u64, u64) {
    let (first_ms, last_ms) = match &event.kind {
        Some(Kind::Verdict(verdict)) => (verdict.first_ms, verdict.last_ms),
        Some(Kind::Operation(operation)) => (operation.first_ms, operation.last_ms),
        _ => (0, 0),
    };
    let or_its_time = |ms: u64| if ms == 0 { event.time_ms } else { ms };
    (or_its_time(first_ms), or_its_time(last_ms))
}

#[derive(Debug, Default)]
struct Groups {
    groups: HashMap<DenialKey, DenialGroup>,
    /// What their events take, encoded; they only become more.
    bytes: usize,
    events: u64,
    further_events: u64,
}

impl Groups {
    fn add(&mut self, met: &Met<'_>) {
        let Some(key) = DenialKey::of(met.event) else {
            return;
        };
        self.events += 1;
        let (first_ms, last_ms) = span(met.event);
        let times = met.event.described().map_or(1, |event| event.times());
        // The key repeats parts of the event.
        let bytes = self.bytes.saturating_add(2 * met.event.encoded_len());
        let fits = bytes <= BYTES_KEPT;
        let room = fits && self.groups.len() < GROUPS_KEPT;
        if let Some(held) = self.groups.get_mut(&key) {
            held.events += 1;
            held.times = held.times.saturating_add(times);
            held.first_ms = held.first_ms.min(first_ms);
            if last_ms >= held.last_ms {
                held.last_ms = last_ms;
                let before = held.last.as_ref().and_then(|last| last.event.as_ref());
                let before = before.map_or(0, |event| event.encoded_len());
                if met.event.encoded_len() <= before || fits {
                    self.bytes += met.event.encoded_len().saturating_sub(before);
                    held.last = Some(record(met));
                }
            }
        } else if room {
            let group = DenialGroup {
                last: Some(record(met)),
                events: 1,
                times,
                first_ms,
                last_ms,
            };
            self.groups.insert(key, group);
            self.bytes = bytes;
        } else {
            self.further_events += 1;
        }
    }

    fn listed(self, grouping: &Grouping) -> Denials {
        let mut all: Vec<(DenialKey, DenialGroup)> = self.groups.into_iter().collect();
        all.sort_by(|(one_key, one), (other_key, other)| {
            let by = |group: &DenialGroup| match grouping.order {
                DenialOrder::Last => (group.last_ms, group.times),
                DenialOrder::Count => (group.times, group.last_ms),
            };
            // Of what is equal the order is the same each time.
            let key = |key: &DenialKey| {
                (
                    key.source.clone(),
                    key.destination.clone(),
                    key.port,
                    key.operation.clone(),
                )
            };
            by(other)
                .cmp(&by(one))
                .then_with(|| key(one_key).cmp(&key(other_key)))
        });
        let further = all.len().saturating_sub(grouping.limit);
        Denials {
            groups: all
                .into_iter()
                .take(grouping.limit)
                .map(|(_, group)| group)
                .collect(),
            further_groups: u64::try_from(further).unwrap_or(u64::MAX),
            further_events: self.further_events,
            events: self.events,
        }
    }
}
