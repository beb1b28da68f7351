//! Times, counts and lists of names as people say them. How a time is read, and in which zone: [`times`].

use jiff::{SignedDuration, Timestamp};

use crate::times;

/// Milliseconds since 1970 in the time of this run's zone, to the second: RFC 3339.
pub fn instant(ms: u64) -> String {
    times::shown(ms, &times::zone())
}

/// How long ago, or in how long, seen from `now_ms`: `3 min ago`, `in 2 d`.
///
/// ```
/// use penstock::words::relative;
///
/// assert_eq!(relative(0, 180_000), "3 min ago");
/// assert_eq!(relative(172_800_000, 0), "in 2 d");
/// ```
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
///
/// ```
/// use penstock::words::span;
///
/// assert_eq!(span(90_000), "90 s");
/// assert_eq!(span(7_200_000), "2 h");
/// ```
pub fn span(ms: u64) -> String {
    let seconds = SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)).as_secs();
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5_999 => format!("{} min", seconds / 60),
        6_000..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `2026-05-01T12:00:00+02:00 (3 min ago)`; a dash for 0, which means "never".
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

/// `1 zone`, `2 zones`.
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

/// The same of a count that a machine made.
pub fn count_u64(n: u64, noun: &str) -> String {
    count(usize::try_from(n).unwrap_or(usize::MAX), noun)
}

/// Names that stand in one line; further ones are counted.
const NAMES: usize = 6;

/// Some names and how many more.
pub fn some_of(names: &[&str]) -> String {
    let shown = names.iter().take(NAMES).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_people_say_them() {
        assert_eq!(relative(1_000, 61_000), "60 s ago");
        assert_eq!(relative(0, 7_200_000), "2 h ago");
        assert_eq!(relative(86_400_000 * 3, 0), "in 3 d");
        assert_eq!(relative(5, 5), "just now");
        assert_eq!(when(0, 5), "—");
    }
}
