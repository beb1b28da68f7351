//! Windows against the clock on the wall: an oracle that asks it minute by minute, and the days on which it is set.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

const ZONES: [&str; 6] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    // Half an hour.
    "Australia/Lord_Howe",
    // Set back during a month of each year.
    "Africa/Casablanca",
    // Left out a whole day.
    "Pacific/Apia",
];
const MINUTE: u64 = 60_000;

fn window(weekday: u8, start: u16, end: u16) -> Window {
    Window {
        weekday,
        start_minute: start,
        end_minute: end,
    }
}

fn ms(text: &str) -> u64 {
    milliseconds(text.parse().unwrap())
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// Whether the clock on the wall reads within a window.
fn reads_within(windows: &Windows, at_ms: u64) -> bool {
    let wall = windows
        .zone
        .to_datetime(Timestamp::from_millisecond(at_ms as i64).unwrap());
    let minute = wall.hour() as u16 * 60 + wall.minute() as u16;
    let weekday = wall.weekday().to_monday_zero_offset() as u8;
    windows
        .windows
        .iter()
        .any(|window| window.weekday == weekday && (window.start_minute..window.end_minute).contains(&minute))
}

proptest! {
    #[test]
    fn a_change_may_begin_exactly_while_the_sites_clock_reads_within_a_window_until_it_is_over(
        zone in 0..ZONES.len(),
        // From 2011 until 2030, most often around a change of the clock.
        start in 21_600_000_u64..31_500_000,
        near in any::<prop::sample::Index>(),
        is_near in prop::bool::weighted(0.7),
        drawn in prop::collection::vec((0..7_u8, 0..1440_u16, 1..700_u16), 0..5),
        needs in 0..300_u64,
    ) {
        let windows = drawn
            .into_iter()
            .map(|(day, from, lasts)| window(day, from, (from + lasts).min(1440)))
            .collect();
        let windows = Windows::in_zone(ZONES[zone], windows).unwrap();
        let mut at = start * MINUTE;
        let after = Timestamp::from_millisecond(at as i64).unwrap();
        if is_near && let Some(change) = windows.zone.following(after).next() {
            at = milliseconds(change.timestamp()) / MINUTE * MINUTE + near.index(600) as u64 * MINUTE - 300 * MINUTE;
        }
        let enough = |from: u64| (0..needs).all(|minute| reads_within(&windows, from + minute * MINUTE));
        let expected = reads_within(&windows, at) && enough(at);
        match windows.at(at, minutes(needs)) {
            Opening::Open { until_ms } => {
                prop_assert!(expected);
                prop_assert!(until_ms >= at + needs * MINUTE && until_ms > at);
                let horizon = at + 20_160 * MINUTE;
                prop_assert!(until_ms > horizon || !reads_within(&windows, until_ms));
            }
            Opening::Closed { opens_ms } => {
                prop_assert!(!expected);
                if let Some(opens) = opens_ms {
                    prop_assert!(opens > at && reads_within(&windows, opens) && enough(opens));
                    prop_assert!(!reads_within(&windows, opens - MINUTE));
                    let is_open = matches!(windows.at(opens, minutes(needs)), Opening::Open { .. });
                    prop_assert!(is_open);
                }
            }
        }
    }
}

#[test]
fn a_window_in_the_hour_that_is_left_out_does_not_come_that_day_and_one_around_it_is_shorter() {
    // On 2027-03-28 at 02:00 it is 03:00 in Berlin.
    let inside = Windows::in_zone("Europe/Berlin", vec![window(6, 120, 180)]).unwrap();
    assert_eq!(
        inside.at(ms("2027-03-28T00:30:00Z"), minutes(30)),
        Opening::Closed {
            opens_ms: Some(ms("2027-04-04T00:00:00Z"))
        }
    );
    let around = Windows::in_zone("Europe/Berlin", vec![window(6, 120, 240)]).unwrap();
    let at = |text: &str, needs| around.at(ms(text), minutes(needs));
    let until_ms = ms("2027-03-28T02:00:00Z");
    assert_eq!(at("2027-03-28T01:00:00Z", 60), Opening::Open { until_ms });
    assert!(matches!(at("2027-03-28T01:01:00Z", 60), Opening::Closed { .. }));
    assert!(matches!(at("2027-03-28T00:59:00Z", 1), Opening::Closed { .. }));
}

#[test]
fn a_window_in_the_hour_that_comes_twice_comes_twice() {
    // On 2027-10-31 at 03:00 it is 02:00 in Berlin.
    let twice = Windows::in_zone("Europe/Berlin", vec![window(6, 130, 160)]).unwrap();
    let at = |text: &str| twice.at(ms(text), minutes(10));
    assert_eq!(
        at("2027-10-31T00:10:00Z"),
        Opening::Open {
            until_ms: ms("2027-10-31T00:40:00Z")
        }
    );
    assert_eq!(
        at("2027-10-31T00:45:00Z"),
        Opening::Closed {
            opens_ms: Some(ms("2027-10-31T01:10:00Z"))
        }
    );
    assert_eq!(
        at("2027-10-31T01:10:00Z"),
        Opening::Open {
            until_ms: ms("2027-10-31T01:40:00Z")
        }
    );
}

#[test]
fn windows_that_meet_at_midnight_are_one() {
    let night = vec![window(5, 1380, 1440), window(6, 0, 60)];
    let windows = Windows::in_zone("America/New_York", night).unwrap();
    assert_eq!(
        windows.at(ms("2027-01-17T04:30:00Z"), minutes(90)),
        Opening::Open {
            until_ms: ms("2027-01-17T06:00:00Z")
        }
    );
    assert!(matches!(
        windows.at(ms("2027-01-17T04:31:00Z"), minutes(90)),
        Opening::Closed { opens_ms: Some(_) }
    ));
}

#[test]
fn no_window_at_all_never_opens_and_a_zone_that_nobody_knows_is_an_error() {
    let none = Windows::new(TimeZone::UTC, Vec::new());
    assert_eq!(
        none.at(ms("2027-01-17T04:30:00Z"), Duration::ZERO),
        Opening::Closed { opens_ms: None }
    );
    assert!(Windows::in_zone("Mars/Olympus", Vec::new()).is_err());
}
