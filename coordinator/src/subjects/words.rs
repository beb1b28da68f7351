//! How those who do not count are refused: what happened, since when, and how they come back. Why somebody decided it is for the trail.

use penstock_policy::ids::Digest;
use penstock_proto::peer::Subject;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::times::instant;

use super::record::{KeyRefused, NotCounting, Standing, SubjectRecord};

/// How to come back, as whoever is refused reads it.
fn way_back(subject: &Subject) -> &'static str {
    match subject {
        Subject::Gateway(_) => {
            "it goes on enforcing what it has; to connect again it needs a new key: ask an admin for a token, then run \
             `penstock-agent enrol --new-key --token FILE`"
        }
        Subject::Operator(_) => {
            "ask an admin for a new token, then log in with it: `penstock login --token FILE`"
        }
        Subject::Coordinator(_) | Subject::Device(_) => "ask an admin for a certificate for a new key",
    }
}

/// That a subject is suspended, revoked or retired, since when, by whom and why; `None`: it is active.
pub(super) fn out_of_service(record: &SubjectRecord) -> Option<String> {
    let verb = match record.standing {
        Standing::Active => return None,
        Standing::Suspended => "is suspended",
        Standing::Revoked => "is revoked",
        Standing::Retired => "is retired",
    };
    let by = match record.by.as_str() {
        "" => String::new(),
        by => format!(" by {by}"),
    };
    Some(format!(
        "{verb} since {}{by} ({})",
        instant(record.since_ms),
        record.reason
    ))
}

/// Why a certificate does not count.
pub(super) fn not_counting(subject: &Subject, record: Option<&SubjectRecord>, why: NotCounting) -> Refusal {
    let since = record.map(|record| instant(record.since_ms)).unwrap_or_default();
    let standing = record.map_or(Standing::Active, |record| record.standing);
    let refusal = match (why, standing) {
        (NotCounting::Suspended, _) => {
            let goes_on = match subject {
                Subject::Gateway(_) => "; it goes on enforcing what it has",
                _ => "",
            };
            let words = format!("{subject} is suspended since {since}{goes_on}; an admin can resume it");
            Refusal::new(Reason::IdentitySuspended, words)
        }
        (_, Standing::Revoked | Standing::Retired) => {
            let words = format!(
                "{subject} was {} on {since}, so that its key no longer counts; {}",
                standing.as_str(),
                way_back(subject)
            );
            Refusal::new(Reason::IdentityWithdrawn, words)
        }
        (_, Standing::Active | Standing::Suspended) => {
            let words = format!(
                "this key of {subject} no longer counts: another took its place by {since}; if that was not you, report it now; {}",
                way_back(subject)
            );
            Refusal::new(Reason::IdentityWithdrawn, words)
        }
    };
    refusal.fact("subject", subject)
}

/// Why a key gets no certificate.
pub(super) fn key_refused(
    subject: &Subject,
    record: Option<&SubjectRecord>,
    key: Digest,
    why: KeyRefused,
) -> Refusal {
    match why {
        KeyRefused::Suspended => not_counting(subject, record, NotCounting::Suspended),
        KeyRefused::Withdrawn => Refusal::new(
            Reason::KeyWithdrawn,
            format!(
                "the key {key} of {subject} was withdrawn and never gets a certificate again; make a new key{}",
                match subject {
                    Subject::Gateway(_) => ": `penstock-agent enrol --new-key --token FILE`",
                    _ => "",
                }
            ),
        )
        .fact("subject", subject),
    }
}

/// Why a certificate is not renewed for another key.
pub(super) fn other_key(subject: &Subject) -> Refusal {
    let way = match subject {
        Subject::Gateway(_) => ": `penstock-agent enrol --new-key --token FILE`",
        Subject::Operator(_) => ": `penstock login --token FILE`",
        Subject::Coordinator(_) | Subject::Device(_) => "",
    };
    let words = format!(
        "the certificate of {subject} is renewed for the key that it has, and for no other: a new key needs a new token{way}"
    );
    Refusal::new(Reason::OtherKey, words).fact("subject", subject)
}
