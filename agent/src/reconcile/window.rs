//! When a gateway may change: its weekly windows, in the time zone of its site.
//!
//! A moment is in a window when the clock on the wall of the site reads within it. So where the clock is set forward, a window in
//! the hour that is left out does not come that day, and one that begins in it is shorter; where it is set back, a window in the hour
//! that comes twice comes twice. Windows that meet (one until 24:00, one from 00:00) are one.
//!
//! Pure: the time is an argument, and the zone is data. Whether the clock may be believed is not judged here.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use penstock_policy::model::Window;

/// How far ahead a window is looked for: one that the clock left out once comes in the week after.
const AHEAD_DAYS: i64 = 15;

/// The windows of a gateway. None at all: never.
#[derive(Debug, Clone, PartialEq)]
pub struct Windows {
    zone: TimeZone,
    windows: Vec<Window>,
}

/// Whether a change may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It may; the window ends then.
    Open {
        /// Milliseconds since 1970.
        until_ms: u64,
    },
    /// It may not: no window is open, or what is left of it is too short.
    Closed {
        /// When the next one opens that is long enough; `None`: none does within two weeks.
        opens_ms: Option<u64>,
    },
}

/// The machine does not know the site's time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the time zone `{0}` is not known on this machine")]
pub struct UnknownZone(pub String);

impl Windows {
    /// These windows, in this zone.
    pub fn new(zone: TimeZone, windows: Vec<Window>) -> Self {
        Self { zone, windows }
    }

    /// These windows, in the zone of this name (IANA).
    ///
    /// # Errors
    /// The zone is not known.
    pub fn in_zone(name: &str, windows: Vec<Window>) -> Result<Self, UnknownZone> {
        let zone = TimeZone::get(name).map_err(|_| UnknownZone(name.to_owned()))?;
        Ok(Self::new(zone, windows))
    }

    /// Whether a change that takes `needs` may begin at this time of day.
    pub fn at(&self, wall_ms: u64, needs: Duration) -> Opening {
        let never = Opening::Closed { opens_ms: None };
        let Some(now) = i64::try_from(wall_ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        else {
            return never;
        };
        let Ok(needs) = SignedDuration::try_from(needs) else {
            return never;
        };
        let spans = self.spans(now).unwrap_or_default();
        let is_enough = |from: Timestamp, until: Timestamp| until.duration_since(from) >= needs;
        for (from, until) in spans {
            if from <= now && now < until && is_enough(now, until) {
                return Opening::Open {
                    until_ms: milliseconds(until),
                };
            }
            if from > now && is_enough(from, until) {
                return Opening::Closed {
                    opens_ms: Some(milliseconds(from)),
                };
            }
        }
        never
    }

    /// The spans in which windows are open around and after `now`, in their order; none meets the next.
    fn spans(&self, now: Timestamp) -> Result<Vec<(Timestamp, Timestamp)>, jiff::Error> {
        let begin = now.checked_sub(SignedDuration::from_hours(72))?;
        let end = now.checked_add(SignedDuration::from_hours(24 * (AHEAD_DAYS + 2)))?;
        // Spans in which the zone's clock goes on evenly.
        let mut even = vec![(begin, self.zone.to_offset(begin))];
        let changes = self.zone.following(begin);
        even.extend(
            changes
                .take_while(|change| change.timestamp() < end)
                .map(|change| (change.timestamp(), change.offset())),
        );
        let ends = even.iter().skip(1).map(|(from, _)| *from).chain([end]);
        let even: Vec<_> = even.iter().copied().zip(ends).collect();
        let today = self.zone.to_datetime(now).date();
        let mut spans = Vec::new();
        for day in -1..=AHEAD_DAYS {
            let date = today.checked_add(day.days())?;
            let weekday = u8::try_from(date.weekday().to_monday_zero_offset()).unwrap_or_default();
            for window in self.windows.iter().filter(|window| window.weekday == weekday) {
                let midnight = date.at(0, 0, 0, 0);
                let from = midnight.checked_add(i64::from(window.start_minute).minutes())?;
                let until = midnight.checked_add(i64::from(window.end_minute).minutes())?;
                for ((since, offset), then) in &even {
                    let from = offset.to_timestamp(from)?.max(*since);
                    let until = offset.to_timestamp(until)?.min(*then);
                    if from < until {
                        spans.push((from, until));
                    }
                }
            }
        }
        spans.sort_unstable();
        let mut merged: Vec<(Timestamp, Timestamp)> = Vec::new();
        for (from, until) in spans {
            match merged.last_mut() {
                Some((_, last)) if from <= *last => *last = until.max(*last),
                _ => merged.push((from, until)),
            }
        }
        Ok(merged)
    }
}

fn milliseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
