//! What is shown of releases: a list, and one in full.

use penstock_policy::ids::Digest;
use penstock_proto::v1::{Release, ReleaseState};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::digest;
use super::recorded::{self, Recorded};
use super::standing::Base;
use crate::failure::Failure;
use crate::known::KnownPlant;
use crate::offline::changes::Changes;
use crate::offline::check::FindingLine;
use crate::offline::signing::Stated;
use crate::output::{Page, Report, Tone};
use crate::words;

/// One release as the coordinator keeps it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReleaseLine {
    /// Its revision.
    pub revision: u64,
    /// `proposed`, `current`, `superseded`, `rejected`, `withdrawn`, `overtaken` or `unknown`.
    pub state: String,
    /// Digest of its statement.
    pub statement_digest: String,
    /// Who proposed it.
    pub author: String,
    /// Where it was agreed.
    pub ticket: String,
    /// Why.
    pub reason: String,
    /// Who signed.
    pub approved_by: Vec<String>,
    /// How many have to.
    pub threshold: u32,
    /// Whether it is an emergency, which waits for no change window and no wave.
    pub emergency: bool,
    /// When it was proposed, milliseconds since 1970.
    pub created_ms: u64,
    /// When the last signature came that was needed, milliseconds since 1970; 0: not yet.
    pub approved_ms: u64,
    /// How many gateways it has a plan for.
    pub gateways: u32,
    /// To how many of them it was offered.
    pub offered: u32,
    /// How many have verified and stored it.
    pub staged: u32,
    /// In how many kernels it is.
    pub effective: u32,
    /// How many refused it.
    pub refused: u32,
    /// Who rejected or withdrew it; empty: nobody.
    pub ended_by: String,
    /// Why.
    pub ended_reason: String,
    /// When, milliseconds since 1970; 0: not.
    pub ended_ms: u64,
}

/// The word of a release's state.
pub(super) fn state_word(state: i32) -> &'static str {
    match ReleaseState::try_from(state) {
        Ok(ReleaseState::Proposed) => "proposed",
        Ok(ReleaseState::Current) => "current",
        Ok(ReleaseState::Superseded) => "superseded",
        Ok(ReleaseState::Rejected) => "rejected",
        Ok(ReleaseState::Withdrawn) => "withdrawn",
        Ok(ReleaseState::Overtaken) => "overtaken",
        Ok(ReleaseState::Unspecified) | Err(_) => "unknown",
    }
}

impl ReleaseLine {
    pub(super) fn of(release: Release) -> Result<Self, Failure> {
        Ok(Self {
            state: state_word(release.state).to_owned(),
            emergency: release.emergency,
            statement_digest: digest("statement_digest", &release.statement_digest)?.to_string(),
            revision: release.revision,
            author: release.author,
            ticket: release.ticket,
            reason: release.reason,
            approved_by: release.approved_by,
            threshold: release.threshold,
            created_ms: release.created_ms,
            approved_ms: release.approved_ms,
            gateways: release.gateways,
            offered: release.offered,
            staged: release.staged,
            effective: release.effective,
            refused: release.refused,
            ended_by: release.ended_by,
            ended_reason: release.ended_reason,
            ended_ms: release.ended_ms,
        })
    }

    /// The first digits of its digest.
    fn short(&self) -> &str {
        let digits = self.statement_digest.trim_start_matches("sha256:");
        digits.get(..12).unwrap_or(digits)
    }

    fn mark(&self) -> (Tone, String) {
        let (tone, word) = match self.state.as_str() {
            "current" => (Tone::Good, "● current".to_owned()),
            "proposed" => (Tone::Warn, "○ proposed".to_owned()),
            other => (Tone::Dim, format!("· {other}")),
        };
        if self.emergency {
            return (Tone::Bad, format!("{word}, EMERGENCY"));
        }
        (tone, word)
    }

    /// The same, and since when it is so, as the coordinator says.
    fn mark_and_age(&self, now_ms: u64) -> (Tone, String) {
        let (tone, word) = self.mark();
        match (self.state.as_str(), self.approved_ms) {
            ("current" | "superseded", approved @ 1..) => (
                tone,
                format!("{word}; approved {}", words::when(approved, now_ms)),
            ),
            _ => (tone, word),
        }
    }

    fn progress(&self) -> (Tone, String) {
        if !self.ended_by.is_empty() {
            return (Tone::Dim, format!("by {}: {}", self.ended_by, self.ended_reason));
        }
        if self.state != "current" {
            return (Tone::Dim, "—".to_owned());
        }
        let mut words = format!("{} of {} enforce it", self.effective, self.gateways);
        if self.refused > 0 {
            words.push_str(&format!(", {} refused", self.refused));
        }
        let tone = match (self.refused, self.effective == self.gateways) {
            (0, true) => Tone::Good,
            (0, false) => Tone::Warn,
            _ => Tone::Bad,
        };
        (tone, words)
    }

    fn signatures(&self) -> String {
        let who = if self.approved_by.is_empty() {
            String::new()
        } else {
            format!(" ({})", self.approved_by.join(", "))
        };
        format!("{} of {}{who}", self.approved_by.len(), self.threshold)
    }
}

/// Releases, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReleaseList {
    /// Each of them.
    pub releases: Vec<ReleaseLine>,
}

impl Report for ReleaseList {
    const SCHEMA: &'static str = "penstock.release-list/1";
    fn page(&self, page: &mut Page) {
        if self.releases.is_empty() {
            page.line("no releases yet; propose one with: penstock release propose PATH --reason REASON");
            return;
        }
        let now = words::now_ms();
        let rows: Vec<_> = self
            .releases
            .iter()
            .map(|release| {
                vec![
                    (Tone::Strong, format!("r{}", release.revision)),
                    (Tone::Dim, release.short().to_owned()),
                    release.mark(),
                    (Tone::Plain, release.author.clone()),
                    (Tone::Plain, release.signatures()),
                    release.progress(),
                    (Tone::Dim, words::relative(release.created_ms, now)),
                    (Tone::Plain, release.reason.clone()),
                ]
            })
            .collect();
        page.table(
            &[
                "RELEASE",
                "DIGEST",
                "STATE",
                "AUTHOR",
                "SIGNATURES",
                "GATEWAYS",
                "MADE",
                "REASON",
            ],
            &rows,
        );
    }
}

/// What is known of a release beyond the coordinator's word.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Assurance {
    /// `verified`: this person verified it on this machine, as signed by its approvers. `signed`: this person signed it. `read`:
    /// this person read it in full, or proposed it. `unverified`: it, its signatures and its state are the coordinator's word.
    pub release: String,
    /// Whether its documents, compiled here, are exactly what its statement says.
    pub documents_compared: bool,
    /// Why they are not, or could not be compared.
    pub documents_fault: Option<String>,
}

impl Assurance {
    pub(super) fn of(known: &KnownPlant, digest: Digest, fault: Option<&Failure>) -> Self {
        let release = if known.verified_digest() == Some(digest) {
            "verified"
        } else if known.has_signed(digest) {
            "signed"
        } else if known.has_seen(digest) {
            "read"
        } else {
            "unverified"
        };
        Self {
            release: release.to_owned(),
            documents_compared: fault.is_none(),
            documents_fault: fault.map(|fault| fault.message.to_string()),
        }
    }

    fn page(&self, page: &mut Page) {
        let (good, warn) = (page.paint(Tone::Good, "✓"), page.paint(Tone::Warn, "▲"));
        match self.release.as_str() {
            "verified" => page.line(format!("{good} you verified this release on this machine")),
            "signed" => page.line(format!("{good} you signed this release")),
            "read" => page.line(format!(
                "{warn} you read this release in full; who else signed it is the coordinator's word"
            )),
            _ => page.line(format!(
                "{warn} NOT VERIFIED: what stands here is the coordinator's word; `penstock diff` and `release approve` verify"
            )),
        }
        match &self.documents_fault {
            None => page.line(format!(
                "{good} its documents, compiled here, are what its statement says"
            )),
            Some(fault) => {
                let fault = page.paint(Tone::Bad, fault);
                page.line(format!("{warn} NOT VERIFIED: its documents: {fault}"));
            }
        }
    }
}

/// One release in full.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReleaseShown {
    /// As the coordinator keeps it.
    pub release: ReleaseLine,
    /// What its statement says.
    pub statement: Stated,
    /// What it changes; only where it was compared.
    pub changes: Option<Changes>,
    /// What the checker of plans found, against the plans in force; only where it was compared.
    pub findings: Vec<FindingLine>,
    /// What it was compared with; only where it was compared.
    pub base: Option<Base>,
    /// What of it was verified; only where it is shown.
    pub verified: Option<Assurance>,
    /// Recorded traffic of the last days that it would refuse; absent where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
    /// What gateways say to hold that cannot be, in sentences: another release under a known number, or one that is not shown. Looked
    /// for before something is proposed or signed.
    pub contradictions: Vec<String>,
    /// What follows from its approval, where it is approved: `wait`, `default-plan` or `at-once`; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_approval: Option<String>,
    /// What was done, in a word: `shown`, `proposed`, `signed`, `rejected` or `withdrawn`.
    pub done: String,
    /// Names of its documents.
    pub documents: Vec<String>,
}

impl Report for ReleaseShown {
    const SCHEMA: &'static str = "penstock.release/1";
    fn page(&self, page: &mut Page) {
        let revision = self.release.revision;
        if self.done == "shown" {
            self.statement.page(page);
            let (tone, state) = self.release.mark_and_age(words::now_ms());
            let (progress_tone, progress) = self.release.progress();
            page.facts(&[
                ("state    ", page.paint(tone, &state)),
                ("signed   ", page.paint(Tone::Plain, &self.release.signatures())),
                ("enforced ", page.paint(progress_tone, &progress)),
                ("documents", page.paint(Tone::Plain, &self.documents.join(", "))),
            ]);
            if let Some(verified) = &self.verified {
                verified.page(page);
            }
            if let (Some(changes), Some(base)) = (&self.changes, &self.base) {
                page.gap();
                base.page(page, None);
                changes.page(page);
            }
            recorded::show(self.recorded.as_ref(), page);
            return;
        }
        let done = page.paint(Tone::Good, "✓");
        let missing = (self.release.threshold as usize).saturating_sub(self.release.approved_by.len());
        page.line(format!(
            "{done} release r{revision} ({}) {}; signatures: {}",
            self.release.short(),
            self.done,
            page.style.paint(Tone::Plain, &self.release.signatures())
        ));
        if self.release.state == "current" {
            page.line(next(revision, self.after_approval.as_deref()));
        } else if missing > 0 && self.release.state == "proposed" {
            page.line(format!(
                "  it waits for {}: penstock release approve {revision} --digest {} --key FILE",
                words::count(missing, "more signature"),
                self.release.short()
            ));
        } else if self.release.state == "proposed" {
            page.line("  it has all its signatures, but gateways are not offered it yet: the coordinator cannot read it, and tries again; see its log");
        }
    }
}

/// What happens to a release that has all its signatures, by the coordinator's settings.
fn next(revision: u64, after_approval: Option<&str>) -> String {
    match after_approval {
        Some("wait") => format!(
            "  it is approved, and nothing changes on a gateway before somebody starts its rollout: penstock rollout start {revision} \
             --reason REASON"
        ),
        Some("default-plan") => format!(
            "  it is approved, and its rollout starts by itself with the default plan; follow with: penstock rollout watch {revision}"
        ),
        // Software before rollouts says nothing of them.
        Some("at-once" | "") => {
            "  it is current: every connected gateway is offered it now, on no trial; follow with `penstock gateways` or `penstock \
             health --watch`"
                .to_owned()
        }
        _ => format!("  it is approved; how far it is carried shows: penstock rollout show {revision}"),
    }
}

#[cfg(test)]
mod tests {
    use super::next;

    #[test]
    fn after_the_last_signature_it_is_said_what_happens_next_by_the_coordinators_settings() {
        let wait = next(4, Some("wait"));
        assert!(
            wait.contains("nothing changes on a gateway") && wait.contains("rollout start 4"),
            "{wait}"
        );
        assert!(next(4, Some("default-plan")).contains("starts by itself"));
        for before in ["at-once", ""] {
            assert!(next(4, Some(before)).contains("every connected gateway is offered it now"));
        }
        assert!(!next(4, None).contains("now"), "what is not known is not claimed");
    }
}
