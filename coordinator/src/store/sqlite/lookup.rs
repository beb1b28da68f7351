//! A page of blocks by the index: which segments may hold what is asked for, which of their blocks, and these alone are read.
//!
//! What the index does not cover yet, the newest blocks, is read one after the other.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use super::{terms, trail};
use crate::store::terms::{Members, Term};
use crate::store::trail::{BlockFilter, Clock, Page, StoredBlock};

/// Segments that are looked at together, first and most.
const WINDOW: (i64, i64) = (16, 1024);

/// Which of the two databases failed.
pub(super) enum LookupError {
    Index(rusqlite::Error),
    Store(rusqlite::Error),
}

/// A segment that may hold what is asked for.
struct Candidate {
    id: i64,
    first: i64,
    last: i64,
    in_time: bool,
}

/// As `trail::page`, by the index.
pub(super) fn page(
    store: &Connection,
    index: &Connection,
    filter: &BlockFilter,
    after: Option<i64>,
    limit: usize,
) -> Result<Page, LookupError> {
    // Before the store is looked at: what the index covers by now was stored before.
    let covered = terms::covered(index).map_err(LookupError::Index)?;
    let newest = trail::last_block(store).map_err(LookupError::Store)?;
    let (low, high) = if filter.newest_first {
        (0, after.unwrap_or(i64::MAX))
    } else {
        (after.unwrap_or(0), i64::MAX)
    };
    let behind = |limit: usize| {
        let between = (low.max(covered), high);
        trail::between(store, filter, between, limit).map_err(LookupError::Store)
    };
    let within = (low, high.min(covered.saturating_add(1)));
    let mut found = Vec::new();
    if filter.newest_first {
        found = behind(limit)?;
        if found.len() < limit {
            indexed((store, index), filter, within, limit, &mut found)?;
        }
    } else {
        indexed((store, index), filter, within, limit, &mut found)?;
        if found.len() < limit {
            found.extend(behind(limit - found.len())?);
        }
    }
    Ok(trail::paged(found, filter, after, newest, limit))
}

/// Adds blocks between two numbers, both excluded, that the index covers, until there are `limit`.
fn indexed(
    (store, index): (&Connection, &Connection),
    filter: &BlockFilter,
    (low, high): (i64, i64),
    limit: usize,
    found: &mut Vec<(i64, StoredBlock)>,
) -> Result<(), LookupError> {
    if high - low <= 1 {
        return Ok(());
    }
    let mut window = WINDOW.0;
    let mut place = beginning(index, filter, (low, high)).map_err(LookupError::Index)?;
    loop {
        let segments = segments(index, filter, (low, high), place, window).map_err(LookupError::Index)?;
        let (Some(one), Some(other)) = (segments.first(), segments.last()) else {
            return Ok(());
        };
        place = other.id;
        let range = (one.id.min(other.id), one.id.max(other.id));
        let chosen = match segments.iter().any(|segment| segment.in_time) {
            true => by_terms(index, &filter.terms, range).map_err(LookupError::Index)?,
            false => Some(HashMap::new()),
        };
        for segment in segments.iter().filter(|segment| segment.in_time) {
            let Some(chosen) = &chosen else {
                let between = (
                    low.max(segment.first - 1),
                    high.min(segment.last.saturating_add(1)),
                );
                let more = trail::between(store, filter, between, limit - found.len());
                found.extend(more.map_err(LookupError::Store)?);
                if found.len() >= limit {
                    return Ok(());
                }
                continue;
            };
            let Some(members) = chosen.get(&segment.id) else {
                continue;
            };
            let mut numbers: Vec<i64> = members
                .places()
                .filter_map(|place| Some(segment.first + i64::try_from(place).ok()?))
                .filter(|number| (low + 1..high).contains(number) && *number <= segment.last)
                .collect();
            if filter.newest_first {
                numbers.reverse();
            }
            for number in numbers {
                let one = trail::between(store, filter, (number - 1, number + 1), 1);
                found.extend(one.map_err(LookupError::Store)?);
                if found.len() >= limit {
                    return Ok(());
                }
            }
        }
        window = (window * 4).min(WINDOW.1);
    }
}

/// The number of the segment before the first one that reaches between two blocks, in the order asked for.
fn beginning(index: &Connection, filter: &BlockFilter, (low, high): (i64, i64)) -> rusqlite::Result<i64> {
    let (sql, bound, beside) = if filter.newest_first {
        (
            "SELECT id FROM segment WHERE first < ?1 ORDER BY first DESC LIMIT 1",
            high,
            1,
        )
    } else {
        (
            "SELECT id FROM segment WHERE last > ?1 ORDER BY last LIMIT 1",
            low,
            -1,
        )
    };
    let first: Option<i64> = index
        .prepare_cached(sql)?
        .query_row([bound], |row| row.get(0))
        .optional()?;
    // Where there is none, no segment lies beyond it either.
    Ok(first.map_or(if filter.newest_first { 0 } else { i64::MAX }, |id| id + beside))
}

/// The next segments behind the one of number `place`, in the order asked for.
fn segments(
    index: &Connection,
    filter: &BlockFilter,
    (low, high): (i64, i64),
    place: i64,
    window: i64,
) -> rusqlite::Result<Vec<Candidate>> {
    let (beyond, order) = if filter.newest_first {
        ("<", "DESC")
    } else {
        (">", "ASC")
    };
    let sql = format!(
        "SELECT id, first, last, first_ms, last_ms, first_received, last_received FROM segment \
         WHERE id {beyond} ?1 AND last > ?2 AND first < ?3 ORDER BY id {order} LIMIT ?4"
    );
    let from = filter.from_ms.min(i64::MAX.cast_unsigned()).cast_signed();
    let until = match filter.until_ms.min(i64::MAX.cast_unsigned()).cast_signed() {
        0 => i64::MAX,
        until => until,
    };
    index
        .prepare_cached(&sql)?
        .query_map((place, low, high, window), |row| {
            let within = |first: i64, last: i64| last >= from && first <= until;
            let by_source = within(row.get(3)?, row.get(4)?);
            let by_receipt = within(row.get(5)?, row.get(6)?);
            Ok(Candidate {
                id: row.get(0)?,
                first: row.get(1)?,
                last: row.get(2)?,
                in_time: match filter.clock {
                    Clock::Source => by_source,
                    Clock::Received => by_receipt,
                    Clock::Either => by_source || by_receipt,
                },
            })
        })?
        .collect()
}

/// Which blocks of these segments have one term of each of `all`; `None`: nothing is asked of their terms.
fn by_terms(
    index: &Connection,
    all: &[Vec<Term>],
    (first, last): (i64, i64),
) -> rusqlite::Result<Option<HashMap<i64, Members>>> {
    let mut chosen: Option<HashMap<i64, Members>> = None;
    let mut postings = index.prepare_cached(
        "SELECT segment, blocks FROM posting WHERE term = ?1 AND segment BETWEEN ?2 AND ?3",
    )?;
    for any in all {
        let mut has: HashMap<i64, Members> = HashMap::new();
        for term in any {
            let mut rows = postings.query((*term, first, last))?;
            while let Some(row) = rows.next()? {
                let kept = row.get_ref(1)?.as_blob()?;
                let members = Members::decode(*term, kept);
                has.entry(row.get(0)?)
                    .and_modify(|held| *held = held.or(&members))
                    .or_insert(members);
            }
        }
        let left = match chosen {
            None => has,
            Some(chosen) => chosen
                .into_iter()
                .filter_map(|(segment, members)| Some((segment, members.and(has.get(&segment)?))))
                .filter(|(_, members)| !members.is_empty())
                .collect(),
        };
        if left.is_empty() {
            return Ok(Some(left));
        }
        chosen = Some(left);
    }
    Ok(chosen)
}
