//! Where this person stands: the release that they verified last, followed to the one that the coordinator says holds.
//!
//! ```text
//! known on this machine ─▶ each statement between, signed by the approvers in force at its parent ─▶ head: its documents
//!                                                                            compiled here, remembered as verified
//! ```
//!
//! What the head is made of is the base of every change that is shown. A coordinator that marks an unapproved release as
//! current, leaves one out, or tells another history is refused by name here. Where this machine knows no release of the
//! plant yet, nothing is the base, so that everything is shown as new; or a document of this person's own (`--base`).

use std::path::Path;

use penstock_policy::ids::{Digest, GatewayId, Revision};
use penstock_policy::model::{ApproverSet, Plant};
use penstock_policy::release::{self, Link, OfferRefused, Signature, Statement, Trust};
use penstock_proto::v1::SignedRelease;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::{Online, malformed};
use super::fetched::{FetchedRelease, plant_of, signatures_of};
use crate::failure::Failure;
use crate::known::{KnownPlant, LastVerified, short};
use crate::loading;
use crate::offline::signing::{self, read_statement};
use crate::output::{Output, Page, Tone};

/// What the change is shown against.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Base {
    /// The release; absent: nothing, everything is shown as new.
    pub revision: Option<u64>,
    /// Digest of its statement.
    pub statement_digest: Option<String>,
    /// `verified`: by this person, on this machine, or signed by the approvers in force since then. `given`: the document
    /// that was named with `--base`. `first-use`: this machine knows no release of the plant yet. `no-release`: none is
    /// in force. `parent`: the release on top of which this one was made, by its own statement. `other-history`: verified here, and unknown to the coordinator. `coordinator`: on the coordinator's word.
    pub how: String,
}

/// Where this person stands.
pub(super) struct VerifiedStanding {
    pub(super) known: KnownPlant,
    /// The plant in force, as far as this person verified it.
    pub(super) plant: Option<Plant>,
    /// The approvers in force, by the statement of the head.
    pub(super) approvers: Option<ApproverSet>,
    pub(super) base: Base,
    /// The digest of the verified release, where the coordinator's history does not lead on from it.
    pub(super) left_behind: Option<Digest>,
}

/// What the coordinator says: the releases up to the one that holds, the oldest first.
pub(super) struct ServedChain<'a> {
    pub(super) chain: &'a [SignedRelease],
    /// The digest of the last of them, also where the chain is empty since this person knows it.
    pub(super) head: Option<Digest>,
    /// May a release follow what this person verified, though the coordinator's history does not lead there?
    pub(super) forgives: &'a dyn Fn(&KnownPlant) -> bool,
}

struct ReadStatement {
    statement: Statement,
    digest: Digest,
    bytes: Vec<u8>,
    signatures: Vec<Signature>,
}

impl Base {
    pub(super) fn of(head: Option<(Revision, Digest)>, how: &str) -> Self {
        Self {
            revision: head.map(|(revision, _)| revision.0),
            statement_digest: head.map(|(_, digest)| digest.to_string()),
            how: how.to_owned(),
        }
    }

    /// Writes it for people.
    pub(super) fn page(&self, page: &mut Page, approvers: Option<&ApproverSet>) {
        let named = match (self.revision, &self.statement_digest) {
            (Some(revision), Some(digest)) => {
                format!(
                    "r{revision} ({})",
                    digest.trim_start_matches("sha256:").get(..12).unwrap_or_default()
                )
            }
            _ => "nothing".to_owned(),
        };
        match self.how.as_str() {
            "verified" => {
                let done = page.paint(Tone::Good, "✓");
                page.line(format!(
                    "{done} compared with {named}, which you verified, or its approvers signed since"
                ));
            }
            "given" => {
                let done = page.paint(Tone::Good, "✓");
                page.line(format!(
                    "{done} compared with your own document, from which {named} was made"
                ));
            }
            "parent" if self.revision.is_none() => {
                page.line("it is the first release: everything in it is new")
            }
            "parent" => page.line(format!("compared with {named}, on top of which it was made")),
            "no-release" => page.line("no release is in force: everything in this one is new"),
            "other-history" => {
                let warn = page.paint(Tone::Warn, "▲");
                page.line(format!(
                    "{warn} compared with {named}, which you verified and this coordinator does not know: it was restored \
                     from a backup, or lies"
                ));
            }
            _ => {
                let warn = page.paint(Tone::Warn, "▲");
                page.line(format!(
                    "{warn} this machine has verified no release of this plant yet: everything is shown as new, and whose \
                     signatures hold is the coordinator's word (--base PATH names your own copy of the document in force)"
                ));
                if let Some(approvers) = approvers {
                    for (name, approver) in &approvers.people {
                        page.line(format!("    {name}: {}", String::from(approver.key)));
                    }
                    let emergency = approvers.emergency_threshold.map_or_else(
                        || "there are no emergencies".to_owned(),
                        |more| format!("{more} for an emergency"),
                    );
                    page.line(format!(
                        "    {} of them have to sign; {emergency}",
                        approvers.threshold
                    ));
                }
            }
        }
    }
}

impl Online {
    /// What this person knows of the plant's releases.
    pub(in crate::online) fn known(&self) -> Result<KnownPlant, Failure> {
        KnownPlant::open(&self.contexts, &self.login)
    }

    /// Follows what the coordinator tells from what this person knows.
    pub(super) async fn stand(
        &mut self,
        out: &Output,
        mut known: KnownPlant,
        told: &ServedChain<'_>,
        own: Option<&Path>,
    ) -> Result<VerifiedStanding, Failure> {
        let chain = told.chain.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        for link in &chain {
            known.check_number(link.statement.revision, link.digest)?;
        }
        let verified = known.verified()?;
        let Some(head) = chain.last() else {
            return stand_without_head(known, verified, told, out);
        };
        let named = (head.statement.revision, head.digest);
        let Some(from) = self.anchor(&known, verified.as_ref(), &chain) else {
            // Nothing known: only whether it contradicts itself.
            let first = chain.first().unwrap_or(head);
            let trust = self.trust(&first.statement.approvers, Revision(0), None)?;
            follow(&trust, &chain).map_err(|why| unbelievable(head, &why))?;
            let approvers = Some(head.statement.approvers.clone());
            let (mut plant, mut how) = (None, "first-use");
            if let Some(path) = own {
                let loaded = loading::load(path, out)?;
                signing::compare(&head.statement, &loaded)?;
                known.set_verified(&head.statement, &loaded.documents)?;
                known.save()?;
                (plant, how) = (Some(loaded.plant), "given");
            }
            return Ok(VerifiedStanding {
                known,
                plant,
                approvers,
                base: Base::of(Some(named), how),
                left_behind: None,
            });
        };
        let reached = follow(&from, &chain).map_err(|why| unbelievable(head, &why))?;
        if reached.current != Some(head.digest) {
            return left_behind(known, verified, told, Some(named), out);
        }
        for link in &chain {
            known.number(link.statement.revision, link.digest)?;
        }
        let plant = match verified.filter(|verified| verified.digest == head.digest) {
            Some(verified) => loading::judge(verified.documents, out)?.plant,
            None => {
                let fetched = self.named(head.statement.revision.0, head.digest).await?;
                let loaded = plant_of(&fetched, out)?;
                known.set_verified(&head.statement, &loaded.documents)?;
                loaded.plant
            }
        };
        known.save()?;
        Ok(VerifiedStanding {
            known,
            plant: Some(plant),
            approvers: Some(reached.approvers),
            base: Base::of(Some(named), "verified"),
            left_behind: None,
        })
    }

    /// What to follow from: the verified release, else the newest of the chain that this person read in full, as the
    /// approvers in force at its parent have to have signed it.
    fn anchor(
        &self,
        known: &KnownPlant,
        verified: Option<&LastVerified>,
        chain: &[ReadStatement],
    ) -> Option<Trust> {
        if let Some(verified) = verified {
            let statement = &verified.statement;
            return self
                .trust(&statement.approvers, statement.revision, Some(verified.digest))
                .ok();
        }
        let at = chain.iter().rposition(|link| known.has_seen(link.digest))?;
        let seen = &chain.get(at)?.statement;
        match seen.parent {
            None => self.trust(&seen.approvers, Revision(0), None).ok(),
            Some(parent) => {
                let parent = chain.get(..at)?.iter().find(|link| link.digest == parent)?;
                let statement = &parent.statement;
                self.trust(&statement.approvers, statement.revision, Some(parent.digest))
                    .ok()
            }
        }
    }

    fn trust(
        &self,
        approvers: &ApproverSet,
        floor: Revision,
        current: Option<Digest>,
    ) -> Result<Trust, Failure> {
        Ok(Trust {
            plant: self.login.context.plant.clone(),
            // Only a gateway's own plan depends on its name, and here is none.
            gateway: GatewayId::new("offline").map_err(|error| Failure::usage(error.to_string()))?,
            approvers: approvers.clone(),
            floor,
            current,
        })
    }

    /// The release with this number and statement.
    async fn named(&mut self, revision: u64, digest: Digest) -> Result<FetchedRelease, Failure> {
        self.fetch_named(revision, Some(digest), None)
            .await?
            .ok_or_else(|| malformed("a release of its own history is missing"))
    }
}

fn read(signed: &SignedRelease) -> Result<ReadStatement, Failure> {
    Ok(ReadStatement {
        statement: read_statement(&signed.statement)?,
        digest: Digest::of(&signed.statement),
        bytes: signed.statement.to_vec(),
        signatures: signatures_of(signed)?,
    })
}

/// Follows the chain, its last link included. Links up to what `trust` holds are passed over.
fn follow(trust: &Trust, chain: &[ReadStatement]) -> Result<Trust, OfferRefused> {
    let links: Vec<_> = chain
        .iter()
        .map(|link| Link {
            statement: &link.bytes,
            signatures: &link.signatures,
        })
        .collect();
    let reached = release::follow(trust, &links, &[])?;
    match chain.last() {
        // Nothing in it is signed by those whom it names itself.
        Some(head) if trust.current.is_none() && reached.current != Some(head.digest) => {
            release::verify_release(trust, &head.bytes, &head.signatures).map(|verified| verified.next)
        }
        _ => Ok(reached),
    }
}

fn unbelievable(head: &ReadStatement, why: &OfferRefused) -> Failure {
    Failure::altered(
        why.code(),
        format!(
            "the coordinator says that {} ({}) holds, and its approvers did not sign that",
            head.statement.revision,
            short(&head.digest)
        ),
    )
    .caused_by(why)
    .help(
        "sign and propose nothing on top of it; the coordinator is at fault or hostile: tell whoever runs it",
    )
}

fn stand_without_head(
    known: KnownPlant,
    verified: Option<LastVerified>,
    told: &ServedChain<'_>,
    out: &Output,
) -> Result<VerifiedStanding, Failure> {
    if let Some(verified) = verified {
        if told.head != Some(verified.digest) {
            return left_behind(known, Some(verified), told, None, out);
        }
        return Ok(VerifiedStanding {
            known,
            base: Base::of(Some((verified.statement.revision, verified.digest)), "verified"),
            approvers: Some(verified.statement.approvers),
            plant: Some(loading::judge(verified.documents, out)?.plant),
            left_behind: None,
        });
    }
    Ok(VerifiedStanding {
        known,
        plant: None,
        approvers: None,
        base: Base::of(None, "no-release"),
        left_behind: None,
    })
}

/// The coordinator's history does not lead on from what this person verified.
fn left_behind(
    known: KnownPlant,
    verified: Option<LastVerified>,
    told: &ServedChain<'_>,
    head: Option<(Revision, Digest)>,
    out: &Output,
) -> Result<VerifiedStanding, Failure> {
    let name = |(revision, digest): (Revision, Digest)| format!("{revision} ({})", short(&digest));
    let held = verified
        .as_ref()
        .map(|verified| (verified.statement.revision, verified.digest));
    if let Some(verified) = verified
        && (told.forgives)(&known)
    {
        return Ok(VerifiedStanding {
            known,
            base: Base::of(held, "other-history"),
            approvers: Some(verified.statement.approvers),
            left_behind: Some(verified.digest),
            plant: Some(loading::judge(verified.documents, out)?.plant),
        });
    }
    Err(Failure::altered(
        "history-forked",
        format!(
            "what the coordinator says holds does not lead on from {}, which you verified last",
            held.map_or_else(|| "the release".to_owned(), name)
        ),
    )
    .because(format!(
        "the coordinator's: {}",
        head.map_or_else(|| "no release at all".to_owned(), name)
    ))
    .help("it was restored from a backup, hides releases, or lies: find out which")
    .help("if it was restored: propose the latest documents with `penstock release propose PATH --again`, which joins both histories"))
}
