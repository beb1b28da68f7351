//! What gateways hold, as they say, against what this machine has seen and what the coordinator shows.
//!
//! A coordinator can give two gateways two releases, each with all its signatures, and show each person the one that they know. Each
//! gateway obeys what its approvers signed; that there are two is noticed here, where somebody looks at all of them, by number and
//! digest. Gateways' words come over the same coordinator, so none of it proves that all is well: what a gateway really holds its own
//! `penstock-agent status` says, in eight words that are compared by telephone.

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::ids::{Digest, Revision};
use penstock_policy::release::spoken;
use penstock_proto::v1::{Gateway, ListGatewaysRequest, ListReleasesRequest, Release, ReleaseState};

use super::super::{Online, refused};
use crate::failure::Failure;
use crate::known::KnownPlant;
use crate::output::{Page, Tone};

/// So many of the newest releases are looked through.
pub(in crate::online) const LOOKED_THROUGH: u32 = 1_000;

/// A gateway that holds what cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::online) struct Contradiction {
    pub(in crate::online) gateway: String,
    /// In words.
    pub(in crate::online) why: String,
}

/// The releases that a gateway says to hold, by number and digest of the statement.
fn held(gateway: &Gateway) -> BTreeSet<(u64, Digest)> {
    let Some(policy) = &gateway.policy else {
        return BTreeSet::new();
    };
    let marks = policy.effective.iter().chain(&policy.staged);
    let marks = marks.map(|mark| (mark.revision, &mark.statement_digest));
    let trusted = policy.trusted.iter();
    let trusted = trusted.map(|trusted| (trusted.revision, &trusted.statement_digest));
    marks
        .chain(trusted)
        // Agents before this was reported say no digest, and no number is 0.
        .filter_map(|(revision, digest)| Some((revision, Digest(digest.as_ref().try_into().ok()?))))
        .filter(|(revision, _)| *revision > 0)
        .collect()
}

/// What gateways hold that cannot be: another release under a number that is known here, two under one number, one that the
/// coordinator hides, or says was never in force. `listed` are its newest releases, the newest first.
pub(in crate::online) fn contradictions(
    known: &KnownPlant,
    listed: &[Release],
    gateways: &[Gateway],
) -> Vec<Contradiction> {
    let mut by_number: BTreeMap<u64, BTreeMap<Digest, &str>> = BTreeMap::new();
    for gateway in gateways {
        for (revision, digest) in held(gateway) {
            let holders = by_number.entry(revision).or_default();
            holders.entry(digest).or_insert(&gateway.name);
        }
    }
    let shown: BTreeMap<Digest, i32> = listed
        .iter()
        .filter_map(|release| {
            let digest = release.statement_digest.as_ref().try_into().ok()?;
            Some((Digest(digest), release.state))
        })
        .collect();
    // What is older than all of these may be left out of them.
    let oldest = if listed.len() < LOOKED_THROUGH as usize {
        0
    } else {
        listed.last().map_or(0, |oldest| oldest.revision)
    };
    let why = |revision: u64, digest: Digest| {
        let words = spoken(&digest);
        if let Some(seen) = known.number_of(Revision(revision)).filter(|seen| *seen != digest) {
            let seen = spoken(&seen);
            return Some(format!(
                "holds another r{revision} than this machine has seen; there: {words}; here: {seen}"
            ));
        }
        let others = by_number.get(&revision).into_iter().flatten();
        if known.number_of(Revision(revision)).is_none()
            && let Some((other, holder)) = others.into_iter().find(|(other, _)| **other != digest)
        {
            let other = spoken(other);
            return Some(format!(
                "holds another r{revision} than {holder}; here: {words}; there: {other}"
            ));
        }
        match shown.get(&digest).map(|state| ReleaseState::try_from(*state)) {
            Some(Ok(
                state @ (ReleaseState::Proposed
                | ReleaseState::Rejected
                | ReleaseState::Withdrawn
                | ReleaseState::Overtaken),
            )) => Some(format!(
                "holds r{revision} ({words}), which was never in force: the coordinator shows it as {}",
                super::report::state_word(state as i32)
            )),
            None if revision > oldest => Some(format!(
                "holds r{revision} ({words}), which the coordinator does not show"
            )),
            _ => None,
        }
    };
    let mut found: Vec<Contradiction> = gateways
        .iter()
        .flat_map(|gateway| held(gateway).into_iter().map(move |held| (gateway, held)))
        .filter_map(|(gateway, (revision, digest))| {
            Some(Contradiction {
                gateway: gateway.name.clone(),
                why: why(revision, digest)?,
            })
        })
        .collect();
    found.dedup();
    found
}

impl Online {
    /// What gateways hold that cannot be, in sentences. It holds nothing up: a hostile gateway may say anything.
    ///
    /// # Errors
    /// The coordinator does not answer.
    pub(super) async fn contradictions(&mut self, known: &KnownPlant) -> Result<Vec<String>, Failure> {
        let gateways = self.client.list_gateways(ListGatewaysRequest {}).await;
        let gateways = gateways.map_err(|status| refused(&status))?.into_inner().gateways;
        let request = ListReleasesRequest {
            limit: LOOKED_THROUGH,
        };
        let releases = self.client.list_releases(request).await;
        let releases = releases.map_err(|status| refused(&status))?.into_inner().releases;
        let found = contradictions(known, &releases, &gateways);
        let words = |found: Contradiction| format!("{} {}", found.gateway, found.why);
        Ok(found.into_iter().map(words).collect())
    }
}

/// Writes them for people.
pub(super) fn show(contradictions: &[String], page: &mut Page) {
    for found in contradictions.iter().take(10) {
        let warn = page.paint(Tone::Bad, "▲");
        let found = page.paint(Tone::Strong, found);
        page.line(format!("{warn} {found}"));
    }
    if contradictions.is_empty() {
        return;
    }
    if let Some(more @ 1..) = contradictions.len().checked_sub(10) {
        page.line(format!("  and {more} more: penstock gateways"));
    }
    page.line(
        "  The coordinator was restored from a backup, or gives gateways different releases. Compare the words with those of \
         `penstock-agent status` on the gateways, by telephone, before you sign anything.",
    );
    page.gap();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use penstock_proto::v1::{PolicyState, RevisionDigest, TrustedRelease};

    use super::*;

    fn gateway(name: &str, revision: u64, digest: u8) -> Gateway {
        let statement_digest = vec![digest; 32];
        Gateway {
            name: name.to_owned(),
            policy: Some(PolicyState {
                effective: Some(RevisionDigest {
                    revision,
                    plan_digest: vec![1; 32].into(),
                    statement_digest: statement_digest.clone().into(),
                }),
                trusted: Some(TrustedRelease {
                    revision,
                    statement_digest: statement_digest.into(),
                }),
                ..PolicyState::default()
            }),
            ..Gateway::default()
        }
    }

    fn listed(revision: u64, digest: u8, state: ReleaseState) -> Release {
        Release {
            revision,
            statement_digest: vec![digest; 32].into(),
            state: state.into(),
            ..Release::default()
        }
    }

    fn of(known: &KnownPlant, listed: &[Release], gateways: &[Gateway]) -> Vec<(String, String)> {
        let found = contradictions(known, listed, gateways);
        found
            .into_iter()
            .map(|found| (found.gateway, found.why))
            .collect()
    }

    #[test]
    fn two_gateways_that_were_given_two_releases_under_one_number_are_named_with_the_words_of_both() {
        let folder = tempfile::tempdir().unwrap();
        let mut known = KnownPlant::empty(folder.path().join("known.json"));
        let releases = [
            listed(2, 2, ReleaseState::Current),
            listed(1, 1, ReleaseState::Superseded),
        ];
        let same = [gateway("gw-a", 2, 2), gateway("gw-b", 1, 1)];
        assert_eq!(of(&known, &releases, &same), []);
        let lied = [gateway("gw-a", 2, 2), gateway("gw-b", 2, 9)];
        let found = of(&known, &releases, &lied);
        let names: Vec<&str> = found.iter().map(|(gateway, _)| gateway.as_str()).collect();
        assert_eq!(names, ["gw-a", "gw-b"]);
        for digest in [2, 9] {
            let words = spoken(&Digest([digest; 32]));
            assert!(found.iter().all(|(_, why)| why.contains(&words)), "{found:?}");
        }
        // Whoever knows one of the two is shown the other.
        known.number(Revision(2), Digest([2; 32])).unwrap();
        let found = of(&known, &releases, &lied);
        assert_eq!(found.len(), 1, "{found:?}");
        let (gateway, why) = found.first().unwrap();
        assert_eq!(gateway, "gw-b");
        assert!(why.contains("this machine has seen"), "{why}");
    }

    #[test]
    fn two_children_of_one_release_are_noticed_also_under_two_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let known = KnownPlant::empty(folder.path().join("known.json"));
        let gateways = [gateway("gw-a", 2, 2), gateway("gw-b", 3, 3)];
        let mut releases = vec![listed(2, 2, ReleaseState::Current)];
        let found = of(&known, &releases, &gateways);
        assert!(
            matches!(&found[..], [(gateway, why)] if gateway == "gw-b" && why.contains("does not show")),
            "{found:?}"
        );
        for state in [
            ReleaseState::Overtaken,
            ReleaseState::Withdrawn,
            ReleaseState::Rejected,
            ReleaseState::Proposed,
        ] {
            releases.retain(|release| release.revision == 2);
            releases.insert(0, listed(3, 3, state));
            let found = of(&known, &releases, &gateways);
            assert!(
                matches!(&found[..], [(gateway, why)] if gateway == "gw-b" && why.contains("never in force")),
                "{found:?}"
            );
        }
        // Of an agent that says no digest, nothing is concluded.
        let mut old = gateway("gw-b", 3, 3);
        let policy = old.policy.as_mut().unwrap();
        policy.effective.as_mut().unwrap().statement_digest = Default::default();
        policy.trusted = None;
        assert_eq!(of(&known, &releases[1..], &[old]), []);
    }
}
