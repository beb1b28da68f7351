//! Words for certificates whose time does not fit: too early and too late are distinguished, always with both times, since
//! either the certificate or a clock is wrong, and what one does about it differs.

use rustls::CertificateError;
use rustls::pki_types::UnixTime;

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

/// Why the certificate of `whose` ("the coordinator's") is not valid by the clock here, and what to do; `another` says how it gets
/// another one. `None`: its time is not what is wrong with it.
pub fn peer_refused(error: &CertificateError, whose: &str, another: &str) -> Option<String> {
    let (fault, clock) = match error {
        CertificateError::NotValidYetContext { time, not_before } => (
            format!(
                "is not valid yet (from {}; this machine's clock shows {})",
                at(not_before),
                at(time)
            ),
            "behind",
        ),
        CertificateError::ExpiredContext { time, not_after } => (
            format!(
                "has expired (valid until {}; this machine's clock shows {})",
                at(not_after),
                at(time)
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
            "{REFUSED}: it is not valid yet (from {from}; this machine's clock shows {now}). Set this machine's clock if it is behind; otherwise the certificate was issued while a clock was ahead: enrol again"
        )
    } else if now_ms > own.1 {
        format!(
            "{REFUSED}: it has expired (valid until {until}; this machine's clock shows {now}); set this machine's clock if it is ahead, otherwise enrol again"
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
                 1970-01-01T00:00:00Z); set this machine's clock if it is behind, otherwise look there"
                    .to_owned()
            )
        );
        assert_eq!(peer_refused(&CertificateError::UnknownIssuer, "x", "y"), None);
    }
}
