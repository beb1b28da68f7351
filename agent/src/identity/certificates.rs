//! The certificates that this gateway was issued, all for its one key: which there are, and which of them are kept.
//!
//! A clock that was wrong when a certificate was issued, here or at the coordinator, makes one that is not valid at the right
//! time, and both sides may have found it good at that moment. So no certificate is thrown away because there is a newer one:
//! the earlier ones are kept beside it, at most [`KEPT_MAX`], and are shown where the newest does not do
//! (`link::connect`). They hold nothing that is secret.
//!
//! ```text
//! identity/chain.pem        the certificate chain issued last, leaf first
//! identity/kept/HEX.pem     those before; HEX: digits of the leaf's SHA-256
//! ```

use std::path::{Path, PathBuf};

use penstock_policy::ids::Digest;
use penstock_proto::tls::{Credentials, certificates_from_pem, times, validity_ms};
use rustls::pki_types::CertificateDer;

use super::PEM_BYTES_MAX;
use crate::durable::{self, FileError};

/// Where a new key and its certificate are until they are in use (`new_key`).
pub(super) const NEXT: &str = "next";
/// Certificates kept beside the newest.
pub(super) const KEPT_MAX: usize = 7;
/// Files looked at in the folder; more were not put there by us.
const FILES_MAX: usize = 64;

fn folder(identity: &Path) -> PathBuf {
    identity.join("kept")
}

fn files(identity: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder(identity)).into_iter().flatten();
    let paths = entries.flatten().map(|entry| entry.path());
    let pem = paths.filter(|path| path.extension().is_some_and(|end| end == "pem"));
    pem.take(FILES_MAX).collect()
}

fn chain(path: &Path) -> Option<Vec<CertificateDer<'static>>> {
    let pem = durable::read(path, PEM_BYTES_MAX).ok()??;
    certificates_from_pem(&pem, "a kept certificate").ok()
}

/// Those that can be read; one that cannot is not missed as long as others do. With them the one of a new key that is just being put
/// in its place: whether it is that key's time, the key says.
pub(super) fn chains(identity: &Path) -> Vec<Vec<CertificateDer<'static>>> {
    let next = identity.join(NEXT).join("chain.pem");
    let all = std::iter::once(next).chain(files(identity));
    all.filter_map(|path| chain(&path)).collect()
}

/// Throws all kept ones away: they are of a key that is gone.
pub(super) fn forget(identity: &Path) -> Result<(), FileError> {
    files(identity).iter().try_for_each(|path| durable::remove(path))
}

/// Keeps the chain in `pem`, durable when this returns; then there may be too many, and one goes, but never the one that is shown
/// first at `now_ms` ([`least_missed`]).
pub(super) fn keep(identity: &Path, pem: &[u8], now_ms: u64) -> Result<(), FileError> {
    let Some(leaf) = certificates_from_pem(pem, "the certificate")
        .ok()
        .and_then(|chain| chain.into_iter().next())
    else {
        // Nothing that could be shown.
        return Ok(());
    };
    durable::create_folder(&folder(identity))?;
    let name: String = Digest::of(&leaf)
        .0
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    durable::replace(&folder(identity).join(format!("{name}.pem")), pem, 0o644)?;
    let mut spans: Vec<(PathBuf, (u64, u64))> = files(identity)
        .into_iter()
        .map(|path| {
            let span = chain(&path).and_then(|chain| validity_ms(chain.first()?).ok());
            (path, span.unwrap_or((0, 0)))
        })
        .collect();
    while spans.len() > KEPT_MAX {
        let all: Vec<_> = spans.iter().map(|(_, span)| *span).collect();
        let Some(index) = least_missed(&all, now_ms) else {
            break;
        };
        let (path, _) = spans.swap_remove(index);
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Which of these spans goes: one that cannot be read, or else the one whose successor began soonest after it; of equal ones
/// the oldest.
///
/// The clock does not decide it, which may be wrong for weeks: certificates that came of one wrong time lie close together and
/// replace one another, and the one of the right time, which nothing is close to, stays.
fn least_missed(spans: &[(u64, u64)], now_ms: u64) -> Option<usize> {
    let shown = times::order(spans, now_ms).first().copied();
    let missed = |index: usize, (from, until): (u64, u64)| {
        let later = spans
            .iter()
            .enumerate()
            .filter(|(other, span)| (span.0, span.1, *other) > (from, until, index));
        let gap = later.map(|(_, span)| span.0 - from).min();
        (until > from, gap.unwrap_or(u64::MAX), from)
    };
    spans
        .iter()
        .enumerate()
        .filter(|(index, _)| Some(*index) != shown)
        .min_by_key(|(index, span)| missed(*index, **span))
        .map(|(index, _)| index)
}

/// In the order in which they are shown at `now_ms`.
pub(super) fn ordered(all: Vec<Credentials>, now_ms: u64) -> Vec<Credentials> {
    let spans: Vec<_> = all
        .iter()
        .map(|one| one.validity_ms().unwrap_or((0, 0)))
        .collect();
    let order = times::order(&spans, now_ms);
    order
        .iter()
        .filter_map(|index| all.get(*index).cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    const DAY_MS: u64 = 86_400_000;

    fn pem(key: &rcgen::KeyPair, from_day: u64, days: u64) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::default();
        let at = |day: u64| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(day * 86_400);
        (params.not_before, params.not_after) = (at(from_day), at(from_day + days));
        params.self_signed(key).unwrap().pem().into_bytes()
    }

    fn held(folder: &Path) -> Vec<(u64, u64)> {
        let spans = chains(folder)
            .into_iter()
            .map(|chain| validity_ms(&chain[0]).unwrap());
        spans
            .map(|(from, until)| (from / DAY_MS, until / DAY_MS))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 32))]
        #[test]
        fn however_often_a_wrong_clock_brings_certificates_the_one_that_is_good_now_stays_and_their_number_is_bounded(
            wrong in proptest::collection::vec(0u64..60_000, 1..20), now in 20_000u64..20_090,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let key = rcgen::KeyPair::generate().unwrap();
            keep(folder.path(), &pem(&key, 20_000, 91), now * DAY_MS).unwrap();
            for from in wrong {
                // None of these is valid now.
                let from = if (now - 90..=now).contains(&from) { from + 1_000 } else { from };
                keep(folder.path(), &pem(&key, from, 90), now * DAY_MS).unwrap();
                let held = held(folder.path());
                prop_assert!(held.contains(&(20_000, 20_091)) && held.len() <= KEPT_MAX, "{held:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 32))]
        #[test]
        fn however_long_both_clocks_are_wrong_the_certificate_of_the_right_time_stays(
            eras in proptest::collection::vec(22_000u64..60_000, 1..4),
            renewals in proptest::collection::vec((any::<proptest::sample::Index>(), 0u64..60), 1..24),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let key = rcgen::KeyPair::generate().unwrap();
            keep(folder.path(), &pem(&key, 20_000, 91), 20_030 * DAY_MS).unwrap();
            for (era, day) in renewals {
                let from = eras[era.index(eras.len())] + day;
                // By the wrong clock, the one just issued is good and the one of the right time is long over.
                keep(folder.path(), &pem(&key, from, 90), (from + 1) * DAY_MS).unwrap();
                let held = held(folder.path());
                prop_assert!(held.contains(&(20_000, 20_091)) && held.len() <= KEPT_MAX, "{held:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_passed_over_and_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::create_dir(folder.path().join("kept")).unwrap();
        std::fs::write(folder.path().join("kept/torn.pem"), "-----BEGIN CERT").unwrap();
        for day in 0..7 {
            keep(folder.path(), &pem(&key, 20_000 + day, 90), 20_005 * DAY_MS).unwrap();
        }
        assert_eq!(held(folder.path()).len(), KEPT_MAX);
        assert!(!folder.path().join("kept/torn.pem").exists());
    }
}
