//! Times and counts as people say them.

use jiff::{SignedDuration, Timestamp};

/// Milliseconds since 1970 as RFC 3339 in UTC, to the second.
pub fn instant(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map_or_else(
            || format!("{ms} ms"),
            |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        )
}

/// How long ago, or in how long, seen from `now_ms`: `3 min ago`, `in 2 d`.
pub fn relative(ms: u64, now_ms: u64) -> String {
    if ms <= now_ms {
        let ago = span(now_ms - ms);
        if ago == "0 s" {
            "just now".to_owned()
        } else {
            format!("{ago} ago")
        }
    } else {
        format!("in {}", span(ms - now_ms))
    }
}

/// A length of time in its largest sensible unit.
pub fn span(ms: u64) -> String {
    let seconds = SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)).as_secs();
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5_999 => format!("{} min", seconds / 60),
        6_000..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `2026-05-01T10:00:00Z (3 min ago)`; a dash for 0, which means "never".
pub fn when(ms: u64, now_ms: u64) -> String {
    if ms == 0 {
        "—".to_owned()
    } else {
        format!("{} ({})", instant(ms), relative(ms, now_ms))
    }
}

/// The clock, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// Today in UTC.
pub fn today() -> jiff::civil::Date {
    Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// A time that a person gives: RFC 3339, a date, or a span back from now (`2h`, `30min`, `7d`).
pub fn parse_time(text: &str, now_ms: u64) -> Result<u64, String> {
    let explained = || {
        format!(
            "`{text}` is no time: write RFC 3339 (2026-05-01T10:00:00Z), a date (2026-05-01) or a span back from now (2h)"
        )
    };
    if let Ok(time) = text.parse::<Timestamp>() {
        return u64::try_from(time.as_millisecond()).map_err(|_| explained());
    }
    if let Ok(date) = text.parse::<jiff::civil::Date>() {
        let start = date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| explained())?;
        return u64::try_from(start.timestamp().as_millisecond()).map_err(|_| explained());
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let count: u64 = digits.trim().parse().map_err(|_| explained())?;
    let unit_ms: u64 = match unit {
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(explained()),
    };
    Ok(now_ms.saturating_sub(count.saturating_mul(unit_ms)))
}

/// `1 zone`, `2 zones`.
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_people_say_them() {
        assert_eq!(instant(1_700_000_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(relative(1_000, 61_000), "60 s ago");
        assert_eq!(relative(0, 7_200_000), "2 h ago");
        assert_eq!(relative(86_400_000 * 3, 0), "in 3 d");
        assert_eq!(relative(5, 5), "just now");
        assert_eq!(when(0, 5), "—");
    }

    #[test]
    fn a_time_can_be_given_in_three_ways_and_nothing_else_is_guessed() {
        let now = 1_700_000_000_000;
        assert_eq!(parse_time("2h", now), Ok(now - 7_200_000));
        assert_eq!(parse_time("2023-11-14T22:13:20Z", now), Ok(now));
        assert_eq!(parse_time("2023-11-14", now), Ok(1_699_920_000_000));
        for bad in ["", "yesterday", "5", "5 parsecs", "-1h"] {
            assert!(parse_time(bad, now).is_err(), "{bad}");
        }
    }
}
