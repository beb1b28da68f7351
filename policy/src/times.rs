//! Days, moments and lengths of time as they are written, in a document and on a command line. A day has one spelling; a moment has those that jiff
//! reads of RFC 3339 (fractions of a second, `z` for `Z`), which all mean the same to everyone.
//!
//! Nothing is guessed and nothing is dropped: a day is no moment, and a moment says its offset from UTC.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// A day: `2027-06-30`, and no other spelling of ISO 8601.
///
/// ```
/// assert!(penstock_policy::times::day("2027-06-30").is_some());
/// assert!(penstock_policy::times::day("2027-06-30T14:00:00").is_none());
/// ```
pub fn day(text: &str) -> Option<Date> {
    // jiff reads more than is wanted here, and of a moment without an offset only the day.
    (text.len() == 10)
        .then(|| text.parse::<Date>().ok())
        .flatten()
        .filter(|day| day.to_string() == text)
}

/// A moment with its offset (RFC 3339): `2027-06-30T14:00:00+02:00`.
///
/// ```
/// assert!(penstock_policy::times::moment("2027-06-30T14:00:00Z").is_some());
/// assert!(penstock_policy::times::moment("2027-06-30T14:00:00").is_none());
/// ```
pub fn moment(text: &str) -> Option<Timestamp> {
    let shaped =
        text.len() >= 20 && text.is_ascii() && text.as_bytes().get(10) == Some(&b'T') && !text.contains('[');
    shaped.then(|| text.parse::<Timestamp>().ok()).flatten()
}

/// A length of time: `90s`, `30m`, `2h`, `8d`; `0s` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(u64);

/// Why a text is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a length of time: write a whole number with s, m, h or d, such as `30m`, up to a year")]
pub struct SpanError(String);

const YEAR_SECONDS: u64 = 366 * 86_400;
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl Span {
    /// Of so many seconds, at most a year.
    pub fn seconds(seconds: u64) -> Self {
        Self(seconds.min(YEAR_SECONDS))
    }

    /// In seconds.
    pub fn as_seconds(self) -> u64 {
        self.0
    }

    /// In milliseconds.
    pub fn as_ms(self) -> u64 {
        self.0.saturating_mul(1_000)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS
            .iter()
            .find(|(_, seconds)| self.0 >= *seconds && self.0.is_multiple_of(*seconds));
        let (letter, seconds) = unit.unwrap_or(&('s', 1));
        write!(f, "{}{letter}", self.0 / seconds)
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let read = || {
            let letter = text.chars().next_back()?;
            let (_, seconds) = UNITS.iter().find(|(unit, _)| *unit == letter)?;
            let number = text.strip_suffix(letter)?;
            let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            let length = digits
                .then(|| number.parse::<u64>().ok())??
                .checked_mul(*seconds)?;
            (length <= YEAR_SECONDS).then_some(Self(length))
        };
        read().ok_or_else(|| SpanError(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;

    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}
