//! Days and moments as they are written, in a document and on a command line. A day has one spelling; a moment has those that jiff
//! reads of RFC 3339 (fractions of a second, `z` for `Z`), which all mean the same to everyone.
//!
//! Nothing is guessed and nothing is dropped: a day is no moment, and a moment says its offset from UTC.

use jiff::Timestamp;
use jiff::civil::Date;

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
