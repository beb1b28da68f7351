//! The coordinator's trail, read by what people ask of it: in stretches of time of which each fits one answer, within a budget,
//! each record once and placed in time; and an operation of an event as it can be judged again.

#[cfg(test)]
mod tests;

use penstock_inspect::operation::VALUES;
use penstock_inspect::query::Query;
use penstock_policy::plan::Plan;
use penstock_policy::protocol::LimitSet;
use penstock_policy::verdict::{Connection, Permissions, permitted};
use penstock_proto::v1::{AuditClock, AuditRecord, LearnedRange, SearchAuditRequest};
use tokio::time::Instant;

use super::Online;
use crate::failure::Failure;
use crate::times;
use crate::words;

/// How much is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadBudget {
    /// Records of one search; a stretch of time that has more is halved.
    pub(super) page: u32,
    /// Records in all.
    pub(super) records: usize,
    /// When reading ends.
    pub(super) until: Option<Instant>,
}

/// What was not read, and why.
#[derive(Debug, Default)]
pub(super) struct ReadGaps {
    /// Single milliseconds with more records than one answer has.
    pub(super) crowded: Vec<u64>,
    /// Stretches of time that the budget was too small for.
    pub(super) left: Vec<(u64, u64)>,
}

/// Whether it asks for what coordinators have not always known.
pub(super) fn is_newer(request: &SearchAuditRequest) -> bool {
    let names = [
        &request.sites,
        &request.zones,
        &request.conduits,
        &request.assets,
        &request.operations,
        &request.operators,
    ];
    !request.after.is_empty() || request.values.is_some() || names.iter().any(|names| !names.is_empty())
}

/// Refuses what an older coordinator found, which does not know what it was asked for and gives everything instead. Since then each
/// record has a cursor.
pub(super) fn understood(asks_newer: bool, record: &AuditRecord) -> Result<(), Failure> {
    if asks_newer && record.cursor.is_empty() {
        return Err(Failure::usage(
            "this coordinator is older than this program and cannot search by site, zone, conduit, asset, operation, value or operator, \
             nor go on behind a cursor",
        )
        .help("search by words (`penstock audit search WORDS`), or upgrade the coordinator"));
    }
    Ok(())
}

/// The newest records that `request` finds, and whether there may be more.
pub(super) async fn newest(
    online: &mut Online,
    request: SearchAuditRequest,
) -> Result<(Vec<AuditRecord>, bool), Failure> {
    let limit = request.limit as usize;
    let records = online.search(request).await?;
    let cut = records.len() >= limit;
    Ok((records, cut))
}

/// Gives all that `request` finds to `take`, with when it happened; the newest stretches of time first if it asks for the newest.
/// Reading ends where `take` fails.
pub(super) async fn read(
    online: &mut Online,
    request: &SearchAuditRequest,
    budget: ReadBudget,
    take: &mut impl FnMut(AuditRecord, u64) -> Result<(), Failure>,
) -> Result<ReadGaps, Failure> {
    let mut search = async |part| online.search(part).await;
    read_by(&mut search, request, budget, take).await
}

/// The same, by any search.
async fn read_by(
    search: &mut impl AsyncFnMut(SearchAuditRequest) -> Result<Vec<AuditRecord>, Failure>,
    request: &SearchAuditRequest,
    budget: ReadBudget,
    take: &mut impl FnMut(AuditRecord, u64) -> Result<(), Failure>,
) -> Result<ReadGaps, Failure> {
    let mut gaps = ReadGaps::default();
    let Some(oldest_ms) = oldest(search, request).await? else {
        return Ok(gaps);
    };
    let whole = (request.from_ms, request.until_ms);
    let by_source = request.clock == i32::from(AuditClock::Source);
    // A source's clock may have been anywhere.
    let from_ms = if by_source {
        request.from_ms
    } else {
        request.from_ms.max(oldest_ms)
    };
    let mut stretches = vec![(from_ms, request.until_ms)];
    let mut left = budget.records;
    while let Some((from_ms, until_ms)) = stretches.pop() {
        if left == 0 || budget.until.is_some_and(|until| Instant::now() >= until) {
            gaps.left.push((from_ms, until_ms));
            continue;
        }
        let limit = usize::try_from(budget.page).unwrap_or(usize::MAX).min(left);
        let part = SearchAuditRequest {
            from_ms,
            until_ms,
            limit: u32::try_from(limit).unwrap_or(budget.page),
            ..request.clone()
        };
        let found = search(part);
        let records = match budget.until {
            None => found.await?,
            Some(until) => match tokio::time::timeout_at(until, found).await {
                Ok(records) => records?,
                Err(_) => {
                    gaps.left.push((from_ms, until_ms));
                    continue;
                }
            },
        };
        let (read, full) = (records.len(), records.len() >= limit);
        if full && limit == budget.page as usize && from_ms < until_ms {
            let middle = from_ms + (until_ms - from_ms) / 2;
            let (earlier, later) = ((from_ms, middle), (middle + 1, until_ms));
            stretches.extend(if request.newest_first {
                [earlier, later]
            } else {
                [later, earlier]
            });
            continue;
        }
        if by_source {
            for record in records {
                let at_ms = record.event.as_ref().map_or(0, |event| event.time_ms);
                if (from_ms..=until_ms).contains(&at_ms) {
                    take(record, at_ms)?;
                }
            }
        } else {
            take_within(records, whole, (from_ms, until_ms), take)?;
        }
        left = left.saturating_sub(read);
        if full && from_ms < until_ms {
            gaps.left.push((from_ms, until_ms));
        } else if full {
            // One millisecond with more records than an answer has: never on a real plant, but it must not be silent.
            gaps.crowded.push(from_ms);
        }
    }
    Ok(gaps)
}

/// Takes what has its place in this part of the whole: found by either clock, a record may stand in two.
pub(super) fn take_within(
    records: Vec<AuditRecord>,
    whole: (u64, u64),
    part: (u64, u64),
    take: &mut impl FnMut(AuditRecord, u64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for record in records {
        let placed_ms = placed_ms(&record, whole);
        if (part.0..=part.1).contains(&placed_ms) {
            take(record, placed_ms)?;
        }
    }
    Ok(())
}

/// When a record happened, as far as the whole stretch of time is concerned: by the coordinator's clock, unless only the
/// gateway's lies in it.
fn placed_ms(record: &AuditRecord, (from_ms, until_ms): (u64, u64)) -> u64 {
    let received_ms = record.received_ms;
    match &record.event {
        Some(event) if !(from_ms..=until_ms).contains(&received_ms) => event.time_ms,
        _ => received_ms,
    }
}

/// When the oldest record that `request` asks for happened, in the order of arrival.
async fn oldest(
    search: &mut impl AsyncFnMut(SearchAuditRequest) -> Result<Vec<AuditRecord>, Failure>,
    request: &SearchAuditRequest,
) -> Result<Option<u64>, Failure> {
    let first = SearchAuditRequest {
        limit: 1,
        newest_first: false,
        ..request.clone()
    };
    let found = search(first).await?;
    // Another gateway's may have arrived later and be older, so this only saves halving since 1970.
    const EARLIER_MS: u64 = 400 * 24 * 3_600_000;
    let whole = (request.from_ms, request.until_ms);
    let first = found.first().map(|record| placed_ms(record, whole));
    Ok(first.map(|ms| ms.saturating_sub(EARLIER_MS)))
}

impl ReadGaps {
    /// What is missing, in words.
    pub(super) fn in_words(&self) -> Vec<String> {
        let crowded = self.crowded.iter();
        let crowded = crowded.map(|ms| format!("the trail at {}", words::instant(*ms)));
        let left = self.left.iter();
        let zone = times::zone();
        let left = left.map(|(from, until)| {
            format!(
                "the trail from {} to {}",
                times::shown(*from, &zone),
                times::shown(*until, &zone)
            )
        });
        crowded.chain(left).collect()
    }
}

/// The operation that an event says, with one of the values that it carried; `None` where its words do not read back exactly
/// as they are, or it writes and no value is known.
pub(super) fn asked(said: &str, value: Option<u32>, has_values: bool) -> Option<Query> {
    let value = value.map_or_else(String::new, |value| format!(" value {value}"));
    let asked = Query::read(&format!("{said}{value}")).ok()?;
    let operation = asked.operation();
    let writes = operation.numbers(VALUES).is_some();
    (operation.to_string() == said && writes == has_values).then_some(asked)
}

/// The values by which all of a range can be judged: its ends, and in it the first behind each range that a flow permits.
pub(super) fn telling_values(
    plan: &Plan,
    connection: &Connection,
    carried: Option<&LearnedRange>,
) -> Vec<u32> {
    let Some(carried) = carried else {
        return Vec::new();
    };
    let mut values = vec![carried.first, carried.last];
    if let Permissions::Only(listed) = permitted(plan, connection) {
        let entries = listed.iter().flat_map(|(_, operations)| &operations.permitted);
        let ranges = entries.filter_map(|entry| match entry.limit("values") {
            Some(LimitSet::Numbers(ranges)) => Some(ranges),
            _ => None,
        });
        let ends = ranges.flatten().map(|range| range.last);
        values.extend(
            ends.map(|last| last.saturating_add(1))
                .filter(|value| (carried.first..=carried.last).contains(value)),
        );
    }
    values.sort_unstable();
    values.dedup();
    values
}
