//! How this gateway stands to a change of its policy, in facts and in words: what is on trial and for how long, what holds a staged
//! release, what was reverted, and whether a person holds the gateway. Pure.
//!
//! It is taken from the agent that runs ([`Change::of_view`]) or, where none does, from the journal on the disk
//! ([`Change::of_disk`]). The disk does not know what holds a release at this moment, nor whether a trial's rules are in the kernel
//! already: then nothing is said of it.

use std::fmt;
use std::time::Duration;

use penstock_policy::ids::{Digest, Revision};
use penstock_proto::tls::times::instant;
use serde::{Deserialize, Serialize};

use crate::overrides::OverrideState;
use crate::policy_store::StoredPolicies;
use crate::policy_store::journal::{PersonHold, RevertedRelease};
use crate::policy_store::overrides::OverridesRecord;
use crate::reconcile::trial::{Hold, Trial};
use crate::reconcile::{PolicyView, StandingState};
use crate::timepiece::Time;

/// How it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The release on trial.
    pub trial: Option<TrialState>,
    /// The staged release by which live traffic is judged beside the policy in force.
    pub shadow: Option<ShadowState>,
    /// What holds the staged release.
    pub held: Option<HeldState>,
    /// A person holds this gateway.
    pub hold: Option<PersonHold>,
    /// Releases that were reverted and are refused until a person clears them, the oldest first.
    pub reverted: Vec<RevertedRelease>,
    /// The offer that was refused last.
    pub refused: Option<RefusedState>,
    /// Overrides of what is enforced that last.
    #[serde(default)]
    pub overrides: Vec<OverrideState>,
}

/// A trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialState {
    /// The release on trial.
    pub revision: u64,
    /// Digest of its statement.
    pub statement: Digest,
    /// How long it still goes on, milliseconds.
    pub left_ms: u64,
    /// What comes back if nobody confirms it; `None`: no policy, as before it.
    pub before: Option<u64>,
    /// Whether its rules are in the kernel, so that it can be confirmed; `None`: not known.
    pub in_kernel: Option<bool>,
    /// Where nobody else may be there to do so, it confirms itself at its end.
    pub by_self_test: bool,
    /// Why it is over already, though its agent has not said so.
    pub over: Option<String>,
}

/// A release in its shadow: what enforcing it would change so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowState {
    /// The release.
    pub revision: u64,
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
    /// Packets that passed and were judged.
    pub judged_packets: u64,
    /// Of these, what would not pass.
    pub would_deny_packets: u64,
    /// Operations that would be refused.
    pub would_deny_operations: u64,
    /// Connections that would be ended.
    pub would_cut_connections: u64,
    /// One of them is of a must-flow.
    pub cuts_must_flow: bool,
    /// The flows (`conduit/flow`), must-flows first.
    pub flows: Vec<String>,
    /// How many further ones.
    pub further_flows: u32,
    /// What cannot be judged, in words; empty: nothing.
    pub not_judged: String,
}

/// A staged release that is not put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldState {
    /// Which.
    pub revision: u64,
    /// By what, as a stable word.
    pub by: String,
    /// In words.
    pub message: String,
    /// Until when at the earliest, milliseconds since 1970, where that is known.
    pub until_ms: Option<u64>,
}

impl HeldState {
    fn of(revision: Revision, hold: &Hold) -> Self {
        Self {
            revision: revision.0,
            by: hold.code().to_owned(),
            message: hold.to_string(),
            until_ms: match hold {
                Hold::Window { opens_ms } => *opens_ms,
                _ => None,
            },
        }
    }
}

/// An offer that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedState {
    /// Its revision, as it claimed.
    pub revision: u64,
    /// Stable word.
    pub code: String,
    /// In words.
    pub message: String,
}

impl Change {
    /// As the agent that runs has it; `boot` is the time since the machine was started.
    pub fn of_view(view: &PolicyView, boot: Duration) -> Self {
        let (mut trial, mut shadow, mut held) = (None, None, None);
        let (revision, statement) = view.standing.release.unwrap_or((Revision(0), Digest([0; 32])));
        match &view.standing.state {
            StandingState::Trial {
                ends,
                confirmable_since,
                ..
            } => {
                trial = Some(TrialState {
                    revision: revision.0,
                    statement,
                    left_ms: milliseconds(ends.saturating_sub(boot)),
                    before: view.state.trusted.as_ref().map(|trusted| trusted.revision),
                    in_kernel: Some(confirmable_since.is_some()),
                    by_self_test: view.confirms_itself,
                    over: None,
                });
            }
            StandingState::Shadow(Some(report)) => {
                shadow = Some(ShadowState {
                    revision: revision.0,
                    since_ms: report.since_ms,
                    judged_packets: report.judged_packets,
                    would_deny_packets: report.would_deny_packets,
                    would_deny_operations: report.would_deny_operations,
                    would_cut_connections: report.would_cut_connections,
                    cuts_must_flow: report.cuts_must_flow,
                    flows: report.flows.clone(),
                    further_flows: report.further_flows,
                    not_judged: report.not_judged.clone(),
                });
            }
            StandingState::Held(hold) => held = Some(HeldState::of(revision, hold)),
            StandingState::Staged if view.waits_for_order => {
                held = Some(HeldState::of(revision, &Hold::Order));
            }
            _ => {}
        }
        Self {
            trial,
            shadow,
            held,
            hold: view.hold.clone(),
            reverted: view.reverted.clone(),
            refused: view.state.refused.as_ref().map(|refused| RefusedState {
                revision: refused.revision,
                code: refused.code.clone(),
                message: refused.message.clone(),
            }),
            overrides: view
                .overrides
                .iter()
                .map(|shown| OverrideState::of_shown(shown, boot))
                .collect(),
        }
    }

    /// As the disk has it, on a machine whose boot is called so and has gone on for so long.
    pub fn of_disk(stored: &StoredPolicies, boot: &str, now: Duration) -> Self {
        let Some(journal) = &stored.journal else {
            return Self::default();
        };
        let begun = journal.trial.as_ref().zip(journal.applying.as_ref());
        let trial = begun.and_then(|(record, applying)| {
            let statement = applying.current?;
            let time = Time {
                wall_ms: 0,
                synchronised: false,
                boot: now,
            };
            let resumed = Trial::resume(statement, record.clone(), boot, time);
            let before = stored.effective.as_ref().map(|before| before.mark.revision.0);
            Some(TrialState {
                revision: applying.floor.0,
                statement,
                left_ms: resumed.as_ref().map_or(0, |trial| milliseconds(trial.left(now))),
                before: before.filter(|_| record.previous.is_some()),
                in_kernel: None,
                by_self_test: record.islanded,
                over: resumed.err().map(|why| why.to_string()),
            })
        });
        Self {
            trial,
            shadow: None,
            held: None,
            hold: journal.hold.clone(),
            reverted: journal.reverted.clone(),
            refused: None,
            overrides: Vec::new(),
        }
    }

    /// The same with the overrides that the disk has.
    #[must_use]
    pub fn with_overrides(mut self, stored: OverridesRecord, boot: &str, now: Time) -> Self {
        let lasting = stored.lasting.into_iter().filter(|one| one.ended.is_none());
        self.overrides = lasting
            .map(|one| OverrideState::of_stored(one, boot, now))
            .collect();
        self
    }

    /// The reverted release of this revision: the one that was reverted last.
    pub fn reverted_as(&self, revision: u64) -> Option<&RevertedRelease> {
        let mut reverted = self.reverted.iter().rev();
        reverted.find(|reverted| reverted.revision == Revision(revision))
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Display for TrialState {
    /// What follows "r8 is on trial:".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let back = match self.before {
            Some(before) => format!("r{before} comes back"),
            None => "no policy is in force, as before it".to_owned(),
        };
        if let Some(why) = &self.over {
            return write!(f, "its time is over ({why}); when the agent starts, {back}");
        }
        let left = self.left_ms.div_ceil(1000);
        let number = self.revision;
        match self.in_kernel {
            Some(false) => write!(f, "it is about to be put in the kernel; {left} s left"),
            in_kernel => {
                write!(
                    f,
                    "{left} s left; then {back}, unless `penstock-agent confirm --revision {number}` here or the coordinator \
                     confirms it"
                )?;
                if self.by_self_test {
                    f.write_str(", or its must-flows still flow at its end")?;
                }
                if in_kernel.is_none() {
                    f.write_str(
                        "; no agent runs that could confirm it: one that starts in time goes on with what is left",
                    )?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for ShadowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "r{} since {}: of {} packets that passed, {} would be refused; so would {} operations, and {} connections would end",
            self.revision,
            instant(self.since_ms),
            self.judged_packets,
            self.would_deny_packets,
            self.would_deny_operations,
            self.would_cut_connections
        )?;
        if self.cuts_must_flow {
            f.write_str("; a flow that must flow is among them")?;
        }
        if !self.flows.is_empty() {
            write!(f, "; {}", self.flows.join(", "))?;
        }
        if self.further_flows > 0 {
            write!(f, " and {} further flows", self.further_flows)?;
        }
        if !self.not_judged.is_empty() {
            write!(f, "; not judged: {}", self.not_judged)?;
        }
        Ok(())
    }
}

impl fmt::Display for HeldState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{} {}", self.revision, self.message)?;
        match self.until_ms {
            Some(until) => write!(f, ", at {}", instant(until)),
            None => Ok(()),
        }
    }
}

/// A person's hold, as a line.
pub fn hold_in_words(hold: &PersonHold) -> String {
    let PersonHold { by, why, since_ms } = hold;
    format!(
        "{by} holds this gateway since {}: {why}; no release begins before `penstock-agent release-hold`",
        instant(*since_ms)
    )
}

/// A reverted release, as a line.
pub fn reverted_in_words(reverted: &RevertedRelease) -> String {
    let RevertedRelease {
        revision, why, at_ms, ..
    } = reverted;
    format!(
        "{revision} at {}: {why}; it is refused until `penstock-agent clear --revision {}`",
        instant(*at_ms),
        revision.0
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use penstock_policy::release::Trust;
    use penstock_proto::v1::{PolicyState, TrustedRelease};

    use super::*;
    use crate::policy_store;
    use crate::policy_store::journal::{Journal, Order, PreviousPolicy, TrialRecord};
    use crate::policy_store::tests::offered;
    use crate::reconcile::Standing;
    use crate::store::Store;

    const SECOND: Duration = Duration::from_secs(1);

    /// Release 8 stands so; release 7 is in force for good.
    fn view(state: StandingState) -> PolicyView {
        PolicyView {
            state: PolicyState {
                trusted: Some(TrustedRelease {
                    revision: 7,
                    ..TrustedRelease::default()
                }),
                ..PolicyState::default()
            },
            standing: Standing {
                release: Some((Revision(8), Digest([8; 32]))),
                state,
                ..Standing::default()
            },
            ..PolicyView::default()
        }
    }

    #[test]
    fn a_trial_is_said_with_what_is_left_who_may_confirm_it_and_what_comes_back() {
        let mut seen = view(StandingState::Trial {
            began: 100 * SECOND,
            ends: 400 * SECOND,
            confirmable_since: Some(101 * SECOND),
            flows: true,
        });
        let trial = Change::of_view(&seen, 101 * SECOND).trial.unwrap();
        assert_eq!(
            (trial.revision, trial.left_ms, trial.before),
            (8, 299_000, Some(7))
        );
        let words = trial.to_string();
        assert!(words.contains("299 s left; then r7 comes back"), "{words}");
        assert!(
            words.contains("confirm --revision 8") && !words.contains("must-flows"),
            "{words}"
        );
        seen.confirms_itself = true;
        let words = Change::of_view(&seen, 101 * SECOND).trial.unwrap().to_string();
        assert!(words.contains("must-flows still flow"), "{words}");
    }

    #[test]
    fn a_release_in_its_shadow_is_said_with_what_enforcing_it_would_change() {
        let report = crate::kernel::ShadowReport {
            judged_packets: 1000,
            would_deny_packets: 12,
            cuts_must_flow: true,
            flows: vec!["reads/poll".to_owned()],
            further_flows: 3,
            ..crate::kernel::ShadowReport::default()
        };
        let seen = view(StandingState::Shadow(Some(report)));
        let words = Change::of_view(&seen, SECOND).shadow.unwrap().to_string();
        assert!(
            words.contains("of 1000 packets that passed, 12 would be refused") && words.contains("must flow"),
            "{words}"
        );
        assert!(words.ends_with("reads/poll and 3 further flows"), "{words}");
    }

    #[test]
    fn what_is_held_is_said_with_its_reason_and_until_when() {
        let seen = view(StandingState::Held(Hold::Window { opens_ms: Some(0) }));
        let held = Change::of_view(&seen, SECOND).held.unwrap();
        assert_eq!((held.by.as_str(), held.until_ms), ("window", Some(0)));
        let words = held.to_string();
        assert!(words.starts_with("r8 stays staged until the next"), "{words}");
        assert!(words.contains("1970-01-01"), "{words}");
    }

    /// A disk with release 1 in force and release 2 on trial since 100 s of a boot.
    fn on_trial(folder: &std::path::Path, boot: &str) -> (Digest, Trust) {
        let mut store = Store::open(folder);
        let (trust, offer, one) = offered(1);
        policy_store::stage(&mut store, None, (&trust, &Order::default()), &offer).unwrap();
        policy_store::set_effective(&mut store, one, &trust).unwrap();
        let (trust, offer, two) = offered(2);
        policy_store::stage(&mut store, None, (&trust, &Order::default()), &offer).unwrap();
        let record = TrialRecord {
            previous: Some(PreviousPolicy {
                statement: one,
                slot: "policy-a".to_owned(),
            }),
            boot: boot.to_owned(),
            began_ms: 100_000,
            length_ms: 60_000,
            why: String::new(),
            managed: false,
            beats: Vec::new(),
            denials: None,
            islanded: false,
            starts: 0,
            ground: None,
        };
        let journal = Journal {
            applying: Some(trust.clone()),
            trial: Some(record),
            ..Journal::default()
        };
        policy_store::set_journal(&mut store, &journal).unwrap();
        (two, trust)
    }

    #[test]
    fn without_an_agent_the_disk_says_whether_its_trial_goes_on_or_is_over_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let (two, _) = on_trial(folder.path(), "this boot");
        let said = |boot: &str, now| {
            let stored = policy_store::peek(folder.path());
            assert_eq!(stored.effective.as_ref().unwrap().mark.revision.0, 1);
            Change::of_disk(&stored, boot, now).trial.unwrap()
        };
        let trial = said("this boot", 130 * SECOND);
        assert_eq!((trial.revision, trial.statement), (2, two));
        assert_eq!(
            (trial.left_ms, trial.before, trial.over.clone()),
            (30_000, Some(1), None)
        );
        assert!(trial.to_string().contains("no agent runs"), "{trial}");
        let late = said("this boot", 161 * SECOND).to_string();
        assert!(
            late.contains("nobody confirmed it in time") && late.contains("r1 comes back"),
            "{late}"
        );
        let other = said("another boot", 130 * SECOND).to_string();
        assert!(other.contains("the gateway was restarted"), "{other}");
    }

    #[test]
    fn what_was_reverted_is_no_longer_said_to_be_staged_and_can_be_named_by_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let (two, trust) = on_trial(folder.path(), "this boot");
        let reverted = RevertedRelease {
            statement: two,
            revision: trust.floor,
            code: "asked".to_owned(),
            why: "anna asked for it".to_owned(),
            at_ms: 0,
            ordered: false,
        };
        let journal = Journal {
            reverted: vec![reverted.clone()],
            ..Journal::default()
        };
        policy_store::set_journal(&mut Store::open(folder.path()), &journal).unwrap();
        let stored = policy_store::peek(folder.path());
        assert!(stored.staged.is_none());
        let change = Change::of_disk(&stored, "this boot", SECOND);
        assert_eq!(change.trial, None);
        assert_eq!(change.reverted_as(2), Some(&reverted));
        assert_eq!(change.reverted_as(1), None);
        assert!(reverted_in_words(&reverted).contains("clear --revision 2"));
    }
}
