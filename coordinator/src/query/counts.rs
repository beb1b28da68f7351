//! How many events a search finds, over time: by the hour or the day of the source's site, and by what they have in common.
//!
//! Memory is bounded by [`COUNTS_MAX`] counts, the first that are met; the events of further ones are counted together.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use penstock_policy::text;
use penstock_proto::event::{decision_word, severity_word};
use penstock_proto::v1::{AuditAspect, AuditCount, AuditCounts, AuditEvent, AuditStretch, CountAuditRequest};
use tonic::Status;

use super::filter::{Filter, FilterError, conduits, rightful};
use super::names::Names;
use super::{Met, each};
use crate::releases::Releases;
use crate::store::{Clock, Store};
use crate::summary::decision;

/// Counts of one answer.
const COUNTS_MAX: usize = 20_000;

/// Longest name by which is counted, bytes.
const NAME_BYTES_MAX: usize = 256;
const HOUR_MS: i64 = 3_600_000;

/// How to count, and what.
#[derive(Debug)]
pub struct Counting {
    filter: Filter,
    per: AuditStretch,
    by: AuditAspect,
    /// One for all; `None`: that of each source's site.
    time_zone: Option<(String, TimeZone)>,
}

impl TryFrom<CountAuditRequest> for Counting {
    type Error = FilterError;
    fn try_from(request: CountAuditRequest) -> Result<Self, FilterError> {
        let fault = |field, what: &str| FilterError {
            field,
            what: what.to_owned(),
        };
        let time_zone = match request.time_zone {
            name if name.is_empty() => None,
            name => match TimeZone::get(&name) {
                Ok(zone) => Some((name, zone)),
                Err(_) => return Err(fault("time_zone", "is not the IANA name of a time zone")),
            },
        };
        Ok(Self {
            per: AuditStretch::try_from(request.per).map_err(|_| fault("per", "is unknown"))?,
            by: AuditAspect::try_from(request.by).map_err(|_| fault("by", "is unknown"))?,
            filter: Filter::try_from(request.filter.unwrap_or_default())?,
            time_zone,
        })
    }
}

/// Counts what is asked for.
///
/// # Errors
/// The store or the names cannot be read, or a block cannot.
pub async fn counts(store: &Store, releases: &Releases, counting: &Counting) -> Result<AuditCounts, Status> {
    let mut tally = Tally::default();
    each(store, releases, &counting.filter, |met| tally.add(&met, counting)).await?;
    let mut counts: Vec<AuditCount> = tally
        .counts
        .into_iter()
        .map(|(key, (events, times))| AuditCount {
            from_ms: u64::try_from(key.from_ms).unwrap_or(0),
            time_zone: key.time_zone,
            what: key.what,
            events,
            times,
        })
        .collect();
    counts.sort_by(|one, other| {
        let place = |count: &AuditCount| (count.from_ms, count.time_zone.clone(), count.what.clone());
        place(one).cmp(&place(other))
    });
    Ok(AuditCounts {
        counts,
        events: tally.events,
        further_events: tally.further_events,
    })
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CountKey {
    from_ms: i64,
    time_zone: String,
    what: String,
}

#[derive(Debug, Default)]
struct Tally {
    /// Events, and how often what they report happened.
    counts: HashMap<CountKey, (u64, u64)>,
    zones: HashMap<String, TimeZone>,
    events: u64,
    further_events: u64,
}

impl Tally {
    fn add(&mut self, met: &Met<'_>, counting: &Counting) {
        let at_ms = match counting.filter.clock {
            Clock::Received => met.block.received_ms,
            Clock::Source | Clock::Either => met.event.time_ms,
        };
        let (time_zone, zone) = match &counting.time_zone {
            Some((name, zone)) => (name.clone(), zone.clone()),
            None => self.zone_of(met.names.time_zone(&met.block.source)),
        };
        let from_ms = beginning(at_ms, &zone, counting.per);
        let times = met.event.described().map_or(1, |event| event.times());
        self.events += 1;
        let mut further = false;
        for what in aspects(&met.block.source, met.event, met.names, counting.by) {
            let time_zone = time_zone.clone();
            let key = CountKey {
                from_ms,
                time_zone,
                what,
            };
            let room = self.counts.len() < COUNTS_MAX;
            match self.counts.get_mut(&key) {
                Some((events, happened)) => {
                    *events += 1;
                    *happened = happened.saturating_add(times);
                }
                None if room => drop(self.counts.insert(key, (1, times))),
                None => further = true,
            }
        }
        self.further_events += u64::from(further);
    }

    /// A time zone that a release names; UTC where it names none, or this coordinator does not know it.
    fn zone_of(&mut self, name: String) -> (String, TimeZone) {
        if let Some(zone) = self.zones.get(&name) {
            return (name, zone.clone());
        }
        match TimeZone::get(&name) {
            Ok(zone) => {
                self.zones.insert(name.clone(), zone.clone());
                (name, zone)
            }
            Err(_) => (String::new(), TimeZone::UTC),
        }
    }
}

/// When the hour or the day began in which this is.
fn beginning(at_ms: u64, zone: &TimeZone, per: AuditStretch) -> i64 {
    let at_ms = i64::try_from(at_ms).unwrap_or(i64::MAX);
    // What no calendar has is in a stretch of its own.
    let Ok(at) = Timestamp::from_millisecond(at_ms) else {
        return at_ms - at_ms.rem_euclid(HOUR_MS);
    };
    match per {
        AuditStretch::Hour => {
            let offset_ms = i64::from(zone.to_offset(at).seconds()) * 1000;
            at_ms - (at_ms + offset_ms).rem_euclid(HOUR_MS)
        }
        AuditStretch::Day => {
            let day = at.to_zoned(zone.clone()).start_of_day();
            day.map_or(at_ms, |day| day.timestamp().as_millisecond())
        }
    }
}

/// What an event is counted by. One that is about several conduits counts for each.
fn aspects(source: &str, event: &AuditEvent, names: &Names, by: AuditAspect) -> Vec<String> {
    let one = match by {
        AuditAspect::None => String::new(),
        AuditAspect::Decision => match decision(event) {
            0 => String::new(),
            decided => decision_word(decided).to_owned(),
        },
        AuditAspect::Severity => severity_word(event.severity).to_owned(),
        AuditAspect::Kind => rightful(source, event)
            .map_or("unknown", |kind| kind.word())
            .to_owned(),
        AuditAspect::Source => source.to_owned(),
        AuditAspect::Conduit => {
            let conduits = conduits(event, names).into_iter();
            // An event may say what it likes; no name is longer.
            let mut conduits: Vec<String> = conduits
                .map(|conduit| text::shortened(conduit, NAME_BYTES_MAX).into_owned())
                .collect();
            conduits.sort_unstable();
            conduits.dedup();
            if !conduits.is_empty() {
                return conduits;
            }
            String::new()
        }
    };
    vec![one]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_hour_and_a_day_begin_when_the_clocks_of_the_site_say_so() {
        let begins = |at: &str, zone: &str, per| {
            let at: Timestamp = at.parse().unwrap();
            let zone = TimeZone::get(zone).unwrap();
            let from = beginning(at.as_millisecond().unsigned_abs(), &zone, per);
            Timestamp::from_millisecond(from).unwrap().to_string()
        };
        for (at, zone, hour, day) in [
            (
                "2026-11-30T22:59:59.999Z",
                "Europe/Zurich",
                "2026-11-30T22:00:00Z",
                "2026-11-29T23:00:00Z",
            ),
            (
                "2026-11-30T23:00:00Z",
                "Europe/Zurich",
                "2026-11-30T23:00:00Z",
                "2026-11-30T23:00:00Z",
            ),
            // A zone of half hours.
            (
                "2026-11-30T10:10:00Z",
                "Asia/Kolkata",
                "2026-11-30T09:30:00Z",
                "2026-11-29T18:30:00Z",
            ),
            // The hour that is there twice: two different hours of one day.
            (
                "2026-10-25T00:30:00Z",
                "Europe/Zurich",
                "2026-10-25T00:00:00Z",
                "2026-10-24T22:00:00Z",
            ),
            (
                "2026-10-25T01:30:00Z",
                "Europe/Zurich",
                "2026-10-25T01:00:00Z",
                "2026-10-24T22:00:00Z",
            ),
        ] {
            assert_eq!(begins(at, zone, AuditStretch::Hour), hour, "{at} {zone}");
            assert_eq!(begins(at, zone, AuditStretch::Day), day, "{at} {zone}");
        }
    }

    #[test]
    fn what_is_beyond_the_bound_of_counts_is_counted_together() {
        let mut tally = Tally::default();
        let counting = Counting::try_from(CountAuditRequest {
            per: AuditStretch::Hour.into(),
            ..CountAuditRequest::default()
        });
        let counting = counting.unwrap();
        let names = Names::default();
        let block = super::super::tests::block("gw-1", 1);
        let hours = COUNTS_MAX as u64 + 7;
        for hour in (0..hours).chain([0]) {
            let event = AuditEvent {
                time_ms: hour * 3_600_000,
                ..AuditEvent::default()
            };
            let met = Met {
                block: &block,
                index: 0,
                event: &event,
                names: &names,
            };
            tally.add(&met, &counting);
        }
        assert_eq!((tally.events, tally.further_events), (hours + 1, 7));
        assert_eq!(tally.counts.len(), COUNTS_MAX);
    }
}
