//! Times as people give them and as they are shown: moments with their offset, days and spans, in the site's time.
//!
//! A moment and a day are read by the same code as in a plant document ([`penstock_policy::times`]). A time without an
//! offset is refused: whoever reads a trail from another place would mean another moment.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use penstock_policy::model::Plant;

use crate::failure::Failure;

/// The zone that this run shows times in, and reads days in; set once.
static ZONE: OnceLock<ChosenZone> = OnceLock::new();

/// The zone of this run, and who chose it.
#[derive(Debug)]
struct ChosenZone {
    zone: TimeZone,
    /// A person, rather than the sites.
    by_person: bool,
}

/// Which end of a stretch of time is named; a day is all of that day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanEnd {
    /// Its beginning.
    Since,
    /// Its end, which belongs to it.
    Until,
}

/// The zone of this run; UTC where nobody named one and no site is known.
pub fn zone() -> TimeZone {
    ZONE.get().map_or(TimeZone::UTC, |chosen| chosen.zone.clone())
}

/// Whether the zone of this run is settled.
pub fn is_settled() -> bool {
    ZONE.get().is_some()
}

/// The zone by its IANA name (`--time-zone`).
///
/// ```
/// use penstock::times::zone_named;
///
/// assert!(zone_named("Europe/Berlin").is_ok());
/// assert!(zone_named("Berlin time").is_err());
/// ```
///
/// # Errors
/// No time zone of that name is known; the text says how names look.
pub fn zone_named(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name)
        .map_err(|_| format!("`{name}` is not a time zone: write an IANA name such as Europe/Berlin, or UTC"))
}

/// The zone for what happened at one site: its own (by IANA name; it may be empty or unknown here), unless a person chose.
pub fn zone_at(site: &str) -> TimeZone {
    match ZONE.get() {
        Some(chosen) if chosen.by_person => chosen.zone.clone(),
        _ => zone_named(site).unwrap_or_else(|_| zone()),
    }
}

/// The IANA name of the zone that a person asked for; `None`: nobody did.
pub fn chosen_by_person() -> Option<String> {
    let chosen = ZONE.get().filter(|chosen| chosen.by_person)?;
    chosen.zone.iana_name().map(str::to_owned)
}

/// Settles on the zone that a person asked for.
pub fn choose(zone: TimeZone) {
    settle(zone, true);
}

fn settle(zone: TimeZone, by_person: bool) {
    // Whoever was first is right: what a person asks for comes before what sites have.
    let _ = ZONE.set(ChosenZone { zone, by_person });
}

/// Settles on the zone that these sites have in common, if it is one and known here.
pub fn settle_by_sites<'n>(names: impl IntoIterator<Item = &'n str>) {
    let names: BTreeSet<&str> = names.into_iter().collect();
    if let (1, Some(name)) = (names.len(), names.first())
        && let Ok(zone) = zone_named(name)
    {
        settle(zone, false);
    }
}

/// Settles on the zone of a plant's sites.
pub fn settle_by_plant(plant: &Plant) {
    settle_by_sites(plant.sites.values().map(|site| site.timezone.as_str()));
}

/// Milliseconds since 1970 in that zone, to the second, with the offset: `2026-11-28T16:00:00+01:00`; of UTC `Z`.
pub fn shown(ms: u64, zone: &TimeZone) -> String {
    let Some(time) = i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
    else {
        return format!("{ms} ms");
    };
    if *zone == TimeZone::UTC {
        return time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    }
    let time = time.to_zoned(zone.clone());
    time.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// A time that a person gives, as milliseconds since 1970: a moment (RFC 3339), a day in `zone`, or a span back from now
/// (`2h`, `30min`, `7d`).
///
/// # Errors
///
/// With what is missing: a moment without an offset is not guessed at.
pub fn read(text: &str, end: SpanEnd, now_ms: u64, zone: &TimeZone) -> Result<u64, String> {
    let ms = |time: Timestamp| u64::try_from(time.as_millisecond()).ok();
    if let Some(time) = penstock_policy::times::moment(text) {
        return ms(time).ok_or_else(|| format!("`{text}` lies before 1970"));
    }
    if let Some(day) = penstock_policy::times::day(text) {
        let read = within(day, end, zone).and_then(ms);
        return read.ok_or_else(|| format!("`{text}` is not a day that this program can count from"));
    }
    if let Some(back_ms) = span(text) {
        return Ok(now_ms.saturating_sub(back_ms));
    }
    Err(match without_offset(text) {
        Some(written) => format!(
            "`{text}` does not say in which time zone: write {written}Z for UTC, or an offset such as {}",
            example(text, zone)
        ),
        None => format!(
            "`{text}` is not a time: write a moment with its offset (2026-05-01T10:00:00Z), a day (2026-05-01), or a \
             span back from now (2h, 30min, 7d)"
        ),
    })
}

/// `--since` and `--until` in this run's zone; 0 where one was not given.
///
/// # Errors
///
/// For a time that cannot be read, and for an end before its beginning.
pub fn stretch(since: Option<&str>, until: Option<&str>, now_ms: u64) -> Result<(u64, u64), Failure> {
    let one = |text: Option<&str>, end| {
        let read = text.map(|text| read(text, end, now_ms, &zone())).transpose();
        read.map_err(Failure::usage)
    };
    let (from_ms, until_ms) = (one(since, SpanEnd::Since)?, one(until, SpanEnd::Until)?);
    if let (Some(from_ms), Some(until_ms)) = (from_ms, until_ms)
        && until_ms < from_ms
    {
        return Err(Failure::usage("--until lies before --since"));
    }
    Ok((from_ms.unwrap_or(0), until_ms.unwrap_or(0)))
}

/// The first or the last millisecond of a day in that zone.
fn within(day: Date, end: SpanEnd, zone: &TimeZone) -> Option<Timestamp> {
    let start = |day: Date| Some(day.to_zoned(zone.clone()).ok()?.timestamp());
    match end {
        SpanEnd::Since => start(day),
        SpanEnd::Until => {
            let next = start(day.tomorrow().ok()?)?;
            Timestamp::from_millisecond(next.as_millisecond() - 1).ok()
        }
    }
}

/// `2h`, in milliseconds.
fn span(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let unit_ms: u64 = match text.get(digits.len()..)? {
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(digits.parse::<u64>().ok()?.saturating_mul(unit_ms))
}

/// The text as a moment that only lacks its offset, completed to seconds.
fn without_offset(text: &str) -> Option<String> {
    let offset = |rest: &str| rest.is_empty() || rest.contains(['+', '-', 'Z', 'z', '[']);
    if text.get(10..).is_none_or(offset) {
        return None;
    }
    let time: jiff::civil::DateTime = text.parse().ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%S").to_string())
}

/// The same in that zone, with its offset.
fn example(text: &str, zone: &TimeZone) -> String {
    let in_zone = |text: &str| {
        let time: jiff::civil::DateTime = text.parse().ok()?;
        let zoned = time.to_zoned(zone.clone()).ok()?;
        Some(zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
    };
    in_zone(text).unwrap_or_else(|| "+01:00".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn since(text: &str) -> Result<u64, String> {
        read(text, SpanEnd::Since, NOW, &TimeZone::UTC)
    }

    #[test]
    fn a_time_can_be_given_in_three_ways_and_nothing_else_is_guessed() {
        assert_eq!(since("2h"), Ok(NOW - 7_200_000));
        assert_eq!(since("2023-11-14T22:13:20Z"), Ok(NOW));
        assert_eq!(since("2023-11-14T23:13:20+01:00"), Ok(NOW));
        assert_eq!(since("2023-11-14"), Ok(1_699_920_000_000));
        for bad in [
            "",
            "h",
            "yesterday",
            "5",
            "5 parsecs",
            "-1h",
            "+1h",
            "2023-11",
            "14.11.2023",
            "2 h",
        ] {
            assert!(since(bad).unwrap_err().contains("is not a time"), "{bad}");
        }
    }

    #[test]
    fn a_time_of_the_day_without_a_zone_is_refused_and_never_means_midnight() {
        let berlin = zone_named("Europe/Berlin").unwrap();
        for (text, zoned) in [
            ("2026-11-28T15:00:00", "2026-11-28T15:00:00+01:00"),
            ("2026-11-28 15:00", "2026-11-28T15:00:00+01:00"),
            ("2026-07-28T15:00", "2026-07-28T15:00:00+02:00"),
            ("2026-11-28t15:00:00.5", "2026-11-28T15:00:00+01:00"),
        ] {
            for end in [SpanEnd::Since, SpanEnd::Until] {
                let refused = read(text, end, NOW, &berlin).unwrap_err();
                assert!(refused.contains("does not say in which time zone"), "{refused}");
                // What it advises to write can be written.
                assert!(refused.ends_with(zoned), "{refused}");
                read(zoned, end, NOW, &berlin).unwrap();
            }
        }
    }

    #[test]
    fn a_day_is_that_of_the_site_and_all_of_it() {
        let berlin = zone_named("Europe/Berlin").unwrap();
        let first = read("2026-11-28", SpanEnd::Since, NOW, &berlin).unwrap();
        let last = read("2026-11-28", SpanEnd::Until, NOW, &berlin).unwrap();
        assert_eq!(shown(first, &TimeZone::UTC), "2026-11-27T23:00:00Z");
        assert_eq!(last - first, 86_400_000 - 1);
        // The day on which clocks are put back has an hour more.
        let first = read("2026-10-25", SpanEnd::Since, NOW, &berlin).unwrap();
        let last = read("2026-10-25", SpanEnd::Until, NOW, &berlin).unwrap();
        assert_eq!(last - first, 90_000_000 - 1);
    }

    #[test]
    fn a_zone_is_known_by_its_iana_name_on_any_machine() {
        assert_eq!(
            shown(NOW, &zone_named("Asia/Kathmandu").unwrap()),
            "2023-11-15T03:58:20+05:45"
        );
        assert_eq!(shown(NOW, &zone_named("UTC").unwrap()), "2023-11-14T22:13:20Z");
        assert!(zone_named("Europe/Berln").is_err());
    }

    proptest! {
        #[test]
        fn a_time_that_is_shown_reads_back_as_the_same_second(
            second in 0..4_000_000_000_u64,
            name in prop::sample::select(vec!["UTC", "Europe/Lisbon", "America/St_Johns", "Pacific/Apia"]),
        ) {
            let zone = zone_named(name).unwrap();
            let ms = second * 1_000;
            prop_assert_eq!(read(&shown(ms, &zone), SpanEnd::Since, NOW, &zone), Ok(ms));
        }
    }
}
