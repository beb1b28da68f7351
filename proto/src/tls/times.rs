//! Words for certificates whose time does not fit: too early and too late are distinguished, always with both times, since
//! either the certificate or a clock is wrong, and what one does about it differs.
//!
//! A machine may know that its clock is behind: it was later already ([`raise_floor`]). A peer's certificate that is not valid yet by
//! the clock is judged as of that time, too; what the clock accepts is never refused by it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::UnixTime;

/// The latest time that this machine knew, milliseconds since 1970. As the clock, it is the machine's and there is one.
static FLOOR_MS: AtomicU64 = AtomicU64::new(0);

/// This time, milliseconds since 1970, has come: certificates that are valid by then are not refused because the clock here is behind.
pub fn raise_floor(ms: u64) {
    FLOOR_MS.fetch_max(ms, Ordering::Relaxed);
}

/// Judges a certificate at `now`, and where that is too early by the clock, as of the latest time that is known.
pub(super) fn judged<T>(
    now: UnixTime,
    judge: impl Fn(UnixTime) -> Result<T, rustls::Error>,
) -> Result<T, rustls::Error> {
    let floor = UnixTime::since_unix_epoch(Duration::from_millis(FLOOR_MS.load(Ordering::Relaxed)));
    judged_by(now, floor, judge)
}

fn judged_by<T>(
    now: UnixTime,
    floor: UnixTime,
    judge: impl Fn(UnixTime) -> Result<T, rustls::Error>,
) -> Result<T, rustls::Error> {
    judge(now).or_else(|refused| match &refused {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) if floor > now => judge(floor).map_err(|_| refused),
        _ => Err(refused),
    })
}

/// How far two times are apart, in words; milliseconds since 1970.
pub fn apart(one_ms: u64, other_ms: u64) -> String {
    const MINUTE_MS: u64 = 60_000;
    const UNITS: [(u64, &str); 3] = [
        (31_557_600_000, "years"),
        (86_400_000, "days"),
        (60 * MINUTE_MS, "hours"),
    ];
    let apart = one_ms.abs_diff(other_ms);
    let unit = UNITS.iter().find(|(unit, _)| apart >= 2 * unit);
    match unit {
        Some((unit, name)) => format!("{} {name}", apart / unit),
        None => format!("{} min", apart / MINUTE_MS),
    }
}

/// A time, milliseconds since 1970, as people write it: in UTC.
pub fn instant(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(
            || format!("{ms} ms"),
            |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        )
}

fn at(time: &UnixTime) -> String {
    instant(time.as_secs().saturating_mul(1000))
}

fn between(one: &UnixTime, other: &UnixTime) -> String {
    apart(
        one.as_secs().saturating_mul(1000),
        other.as_secs().saturating_mul(1000),
    )
}

/// Why the certificate of `whose` ("the coordinator's") is not valid by the clock here, and what to do; `another` says how it gets
/// another one. `None`: its time is not what is wrong with it.
pub fn peer_refused(error: &CertificateError, whose: &str, another: &str) -> Option<String> {
    let (fault, clock) = match error {
        CertificateError::NotValidYetContext { time, not_before } => (
            format!(
                "is not valid yet (from {}; this machine's clock shows {}, {} before that)",
                at(not_before),
                at(time),
                between(not_before, time)
            ),
            "behind",
        ),
        CertificateError::ExpiredContext { time, not_after } => (
            format!(
                "has expired (valid until {}; this machine's clock shows {}, {} after that)",
                at(not_after),
                at(time),
                between(not_after, time)
            ),
            "ahead",
        ),
        CertificateError::NotValidYet => ("is not valid yet".to_owned(), "behind"),
        CertificateError::Expired => ("has expired".to_owned(), "ahead"),
        _ => return None,
    };
    Some(format!(
        "{whose} certificate {fault}; set this machine's clock if it is {clock}, otherwise {another}"
    ))
}

/// Why the other side does not accept our own certificate at its time, which is all that TLS says: held against the clock
/// here, and what to do. `own` is from when until when it is valid, milliseconds since 1970.
pub fn own_refused(own: (u64, u64), now_ms: u64) -> String {
    let (from, until) = (instant(own.0), instant(own.1));
    let now = instant(now_ms);
    const REFUSED: &str = "the coordinator rejects our certificate as not valid at this time";
    if now_ms < own.0 {
        format!(
            "{REFUSED}: it is not valid yet (from {from}; this machine's clock shows {now}, {} before that). Set this machine's clock if it is behind; otherwise the certificate was issued while a clock was ahead: enrol again",
            apart(own.0, now_ms)
        )
    } else if now_ms > own.1 {
        format!(
            "{REFUSED}: it has expired (valid until {until}; this machine's clock shows {now}, {} after that); set this machine's clock if it is ahead, otherwise enrol again",
            apart(own.1, now_ms)
        )
    } else {
        format!(
            "{REFUSED}: it is valid from {from} until {until}, and this machine's clock shows {now}; if that is right, the \
             coordinator's clock is wrong: set it"
        )
    }
}

/// In which order to show one's certificates that are valid in `spans`, at `now_ms`: first those that are valid by the clock
/// here, the one that was issued last before the others; then the rest, the nearest in time first, since a clock may be wrong.
pub fn order(spans: &[(u64, u64)], now_ms: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|index| {
        let (from, until) = spans.get(*index).copied().unwrap_or_default();
        let away = from.saturating_sub(now_ms).max(now_ms.saturating_sub(until));
        (away, std::cmp::Reverse(from))
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn what_is_valid_by_the_clock_comes_first_and_whatever_else_there_is_is_tried_too() {
        let day = |from: u64, until: u64| (from * DAY_MS, until * DAY_MS);
        let spans = [day(70, 160), day(0, 90), day(60, 150), day(30_000, 30_090)];
        assert_eq!(order(&spans, 10 * DAY_MS), [1, 2, 0, 3]);
        assert_eq!(order(&spans, 75 * DAY_MS), [0, 2, 1, 3]);
        // In 1970, and in a year that is far off.
        assert_eq!(order(&spans, 0).first(), Some(&1));
        assert_eq!(order(&spans, 40_000 * DAY_MS), [3, 0, 2, 1]);
        assert!(order(&[], 5).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn what_is_known_of_the_time_lets_a_certificate_pass_and_refuses_none(
            from in 0..4_000_000_000u64, life in 0..100_000_000u64, now in 0..4_000_000_000u64, floor in 0..4_000_000_000u64,
        ) {
            let time = |secs| UnixTime::since_unix_epoch(Duration::from_secs(secs));
            let until = from + life;
            let judge = |at: UnixTime| match at.as_secs() {
                at if at < from => Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYet)),
                at if at > until => Err(rustls::Error::InvalidCertificate(CertificateError::Expired)),
                _ => Ok(()),
            };
            let judged = judged_by(time(now), time(floor), judge);
            let is_good = |at: u64| (from..=until).contains(&at);
            // By the clock; or by what is known, where that is later and the clock too early for the certificate.
            proptest::prop_assert_eq!(judged.is_ok(), is_good(now) || (now < from && is_good(floor)));
            if judged.is_err() {
                proptest::prop_assert_eq!(judged, judge(time(now)));
            }
        }
    }

    #[test]
    fn two_times_are_apart_by_the_unit_that_people_would_use() {
        let day = 86_400_000;
        for (ms, words) in [
            (0, "0 min"),
            (119 * 60_000, "119 min"),
            (3 * 3_600_000, "3 hours"),
            (47 * 3_600_000, "47 hours"),
            (401 * day, "401 days"),
            (56 * 366 * day, "56 years"),
        ] {
            assert_eq!(apart(1_000, 1_000 + ms), words);
            assert_eq!(apart(1_000 + ms, 1_000), words);
        }
    }

    #[test]
    fn too_early_and_too_late_are_told_apart_with_both_times_and_what_to_do() {
        let own = (1_800_000_000_000, 1_800_000_000_000 + 90 * DAY_MS);
        let early = own_refused(own, own.0 - 70 * DAY_MS);
        assert!(
            early.contains("not valid yet (from 2027-01-15T08:00:00Z"),
            "{early}"
        );
        assert!(
            early.contains("this machine's clock shows 2026-11-06T08:00:00Z"),
            "{early}"
        );
        assert!(!early.contains("expired"), "{early}");
        let late = own_refused(own, own.1 + DAY_MS);
        assert!(
            late.contains("has expired (valid until 2027-04-15T08:00:00Z"),
            "{late}"
        );
        assert!(!late.contains("not valid yet"), "{late}");
        // By our clock it is good: then it is the other's clock.
        let within = own_refused(own, own.0 + DAY_MS);
        assert!(within.contains("the coordinator's clock is wrong"), "{within}");

        let time = |secs| UnixTime::since_unix_epoch(std::time::Duration::from_secs(secs));
        let early = CertificateError::NotValidYetContext {
            time: time(0),
            not_before: time(1_800_000_000),
        };
        assert_eq!(
            peer_refused(&early, "the coordinator's", "look there"),
            Some(
                "the coordinator's certificate is not valid yet (from 2027-01-15T08:00:00Z; this machine's clock shows \
                 1970-01-01T00:00:00Z, 57 years before that); set this machine's clock if it is behind, otherwise look there"
                    .to_owned()
            )
        );
        assert_eq!(peer_refused(&CertificateError::UnknownIssuer, "x", "y"), None);
    }
}
