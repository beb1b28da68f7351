//! Proposing: the coordinator compiles the documents itself and takes only a statement that says the same.

use bytes::Bytes;
use penstock_policy::document::files::counts;
use penstock_policy::document::limits::{self, DOCUMENT_BYTES_MAX, FILES_MAX};
use penstock_policy::ids::{Digest, OperatorId, Revision};
use penstock_policy::model::Plant;
use penstock_policy::plan::Plan;
use penstock_policy::release::{DocumentFile, Draft, Release, Statement, build, document_digest};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1;

use super::{Detail, RecordedRelease, ReleaseRecord, Releases, document, key_of, targets};
use crate::health::boundaries;
use crate::journal::Deed;
use crate::store::{Change, Expect, StoreError};

impl Releases {
    /// Records a proposal. The same statement again is answered with what is recorded, and changes nothing: its event stands with
    /// the record.
    pub(crate) async fn propose(
        &self,
        author: &OperatorId,
        statement_bytes: &[u8],
        documents: Vec<v1::DocumentFile>,
        carries: impl FnOnce(&Statement) -> Result<Bytes, Refusal>,
        deed: Deed<'_>,
        now_ms: u64,
    ) -> Result<RecordedRelease, Refusal> {
        let statement = Statement::from_bytes(statement_bytes).map_err(|error| {
            Refusal::new(Reason::BadRequest, crate::chain(&error)).field("statement", error.to_string())
        })?;
        let revision = statement.revision;
        if let Some(found) = self.find(revision).await?
            && found.digest == Digest::of(statement_bytes)
            && found.statement.author == *author
        {
            return Ok(found);
        }
        self.check_place(author, &statement)?;
        let carried = carries(&statement)?;
        self.check_number(revision).await?;
        self.check_approvable(&statement)?;
        let bytes: usize = documents.iter().map(|file| file.content.len()).sum();
        if let Err(after) = self.documents.take(author.as_str(), bytes as u64, now_ms) {
            let share = self.documents.share();
            return Err(Refusal::new(
                Reason::StoreFull,
                format!(
                    "{author} proposed documents of {} MiB, as many as one engineer may at once; there is room for {} MiB a day",
                    share.at_once >> 20,
                    share.per_day >> 20
                ),
            )
            .retry_after(after));
        }
        let turn = self.compiling.turn().await?;
        let work = move || {
            let (plant, release) = compile(&statement, &documents, now_ms)?;
            // What was just compiled is read.
            let plans = release.plans.iter();
            let plans =
                plans.filter_map(|(gateway, plan)| Some((gateway.clone(), Plan::from_bytes(plan).ok()?)));
            let plans = plans.collect();
            let detail = Detail {
                plans: release
                    .plans
                    .iter()
                    .map(|(gateway, plan)| (gateway.clone(), Digest::of(plan)))
                    .collect(),
                zones: boundaries(&plant, &plans),
            };
            // Names and digests cannot fail to be JSON.
            let detail = serde_json::to_vec(&detail).unwrap_or_default();
            Ok((statement, documents, detail, release.plans))
        };
        let (statement, documents, detail, plans) = turn.work(work).await?;
        let record = ReleaseRecord {
            statement: String::from_utf8(statement_bytes.to_vec())
                .map_err(|_| Refusal::new(Reason::BadRequest, "the statement is not text"))?,
            signatures: std::collections::BTreeMap::new(),
            documents: documents
                .iter()
                .map(|file| (file.name.clone(), Digest::of(&file.content)))
                .collect(),
            detail: Some(Digest::of(&detail)),
            carried: (!carried.is_empty()).then(|| Digest::of(&carried)),
            plans: std::collections::BTreeMap::new(),
            zones: std::collections::BTreeMap::new(),
            proposed_ms: now_ms,
            approved_ms: None,
            ended: None,
        };
        let mut blobs: Vec<Vec<u8>> = documents.into_iter().map(|file| file.content.into()).collect();
        blobs.push(detail);
        if !carried.is_empty() {
            blobs.push(carried.into());
        }
        blobs.extend(plans.into_values());
        let _storing = self.storing.lock().await;
        self.store.put_blobs(blobs).await?;
        let digest = Digest::of(statement_bytes);
        let change = Change::noted(deed.event(&targets::proposed(revision, digest), ""));
        let change = change.json(&key_of(revision), Expect::Absent, &record)?;
        let written = match self.store.apply(change).await {
            Err(StoreError::Conflict { .. }) => return Err(taken(revision, None)),
            other => other?,
        };
        let stored_at = written.last().map_or(0, |written| written.revision);
        Ok(RecordedRelease {
            digest,
            record,
            statement,
            stored_at,
        })
    }

    /// Whether the statement is this plant's next one, by this author.
    fn check_place(&self, author: &OperatorId, statement: &Statement) -> Result<(), Refusal> {
        if statement.plant != self.plant {
            return Err(Refusal::new(
                Reason::StatementMismatch,
                format!(
                    "the release is for plant {}, this is {}",
                    statement.plant, self.plant
                ),
            )
            .field("statement.plant", statement.plant.to_string()));
        }
        if statement.author != *author {
            return Err(Refusal::new(
                Reason::AuthorMismatch,
                format!(
                    "the release names {} as its author, but {author} proposes it; build it with your own name",
                    statement.author
                ),
            ));
        }
        let parent = self.parent();
        if statement.parent != parent {
            return Err(Refusal::new(
                Reason::ParentMismatch,
                "the release was not made on top of the current one; look at what changed, and build it again",
            )
            .condition("parent", parent.map_or("none".to_owned(), |digest| digest.to_string())));
        }
        Ok(())
    }

    /// Whether the number was never used here, and the proposals that wait leave room for another.
    async fn check_number(&self, revision: Revision) -> Result<(), Refusal> {
        let mut newest = self.list(WAITING_MAX * 2).await?;
        let last = newest.first().map_or(0, |newest| newest.statement.revision.0);
        if revision.0 <= last || revision.0 - last > NUMBERS_SKIPPED_MAX {
            return Err(taken(revision, Some(last)));
        }
        // What waits is newer than what is current, but not always among the newest: those may all have ended.
        let current = self.now().map_or(Revision(0), |current| current.revision());
        let reaches = |found: &[RecordedRelease]| {
            found
                .last()
                .is_none_or(|oldest| oldest.statement.revision <= current)
        };
        while !reaches(&newest) {
            let more = self.list(newest.len() * 4).await?;
            if more.len() <= newest.len() {
                break;
            }
            newest = more;
        }
        let waiting = newest.iter().filter(|other| self.waits(other).is_ok()).count();
        if waiting >= WAITING_MAX {
            return Err(Refusal::new(
                Reason::TooManyProposals,
                format!(
                    "{waiting} proposals wait for signatures, and more than {WAITING_MAX} are not kept; approve, \
                     reject or withdraw one of them first"
                ),
            ));
        }
        Ok(())
    }

    /// Whether enough people are left to approve it, without its author.
    fn check_approvable(&self, statement: &Statement) -> Result<(), Refusal> {
        let approvers = self.now().map_or_else(
            || statement.approvers.clone(),
            |current| current.recorded.statement.approvers.clone(),
        );
        let Some(needed) = approvers.needed(statement.emergency) else {
            return Err(Refusal::new(
                Reason::NoEmergencies,
                format!(
                    "{} is an emergency, and the approvers in force have no `emergency_threshold`: propose it without `--emergency`, \
                     or release a document first in which `approvers` has one",
                    statement.revision
                ),
            )
            .field("statement.emergency", "no approvers could sign it"));
        };
        let is_author = |name: &str| name == statement.author.as_str();
        let own = approvers
            .people
            .iter()
            .find(|(name, _)| is_author(name.as_str()))
            .map(|(_, person)| person.key.point());
        let others: std::collections::BTreeSet<_> = approvers
            .people
            .values()
            .map(|person| person.key.point())
            .filter(|point| Some(*point) != own)
            .collect();
        if others.len() >= usize::from(needed) {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::SelfApproval,
            format!(
                "nobody could approve it: {needed} signatures are needed, the author's own does not count, and the approvers in \
                 force without {} are {}; somebody else has to propose it",
                statement.author,
                others.len()
            ),
        ))
    }
}

/// Proposals that wait for signatures at one time, at most.
const WAITING_MAX: usize = 16;

/// How many numbers a proposal may pass over: more than any coordinator that is lost has used up since its last backup,
/// and too few for the numbers to run out.
const NUMBERS_SKIPPED_MAX: u64 = 1_000_000;

fn taken(revision: Revision, last: Option<u64>) -> Refusal {
    let next = last.map_or_else(String::new, |last| {
        format!("; the next one is {}", Revision(last + 1))
    });
    Refusal::new(
        Reason::RevisionTaken,
        format!(
            "the number {revision} is not free: each is used once, also by what was never approved{next}"
        ),
    )
    .condition("revision", next.trim_start_matches("; ").to_owned())
}

/// Compiles the documents and compares what comes of them with the statement.
fn compile(
    statement: &Statement,
    documents: &[v1::DocumentFile],
    now_ms: u64,
) -> Result<(Plant, Release), Refusal> {
    let bytes: usize = documents.iter().map(|file| file.content.len()).sum();
    if documents.is_empty() || documents.len() > FILES_MAX || bytes > DOCUMENT_BYTES_MAX {
        return Err(Refusal::new(Reason::BadRequest, limits::in_words()).field(
            "documents",
            format!("has {} files of {bytes} bytes", documents.len()),
        ));
    }
    // A file that is named itself may have any name; what a folder never contributes, a release does not either.
    if documents.len() > 1
        && let Some(file) = documents.iter().find(|file| !counts(&file.name))
    {
        return Err(Refusal::new(
            Reason::BadRequest,
            "one of the files does not belong to a plant document: those of a folder end in .yaml or .yml, and neither they \
             nor their folders are hidden",
        )
        .field("documents", format!("has a file {:?}", file.name)));
    }
    let files: Vec<_> = documents
        .iter()
        .map(|file| DocumentFile {
            name: &file.name,
            content: &file.content,
        })
        .collect();
    let digest = document_digest(&files);
    if digest != statement.document_digest {
        return Err(Refusal::new(
            Reason::StatementMismatch,
            "the documents sent are not those that the statement was made from; build the release again",
        )
        .field(
            "statement.document_digest",
            format!("the documents have {digest}"),
        ));
    }
    let plant = document::read(documents, now_ms)?;
    let release = build(&plant, Draft::of(statement)).map_err(|error| {
        Refusal::new(Reason::DocumentErrors, crate::chain(&error)).field("documents", error.to_string())
    })?;
    let ours = &release.statement;
    if ours != statement {
        let mut refusal = Refusal::new(
            Reason::StatementMismatch,
            "the statement does not say what its documents compile to here; are both sides of the same version?",
        );
        for (field, same, what) in [
            ("plant", ours.plant == statement.plant, ours.plant.to_string()),
            (
                "plans_root",
                ours.plans_root == statement.plans_root,
                ours.plans_root.to_string(),
            ),
            (
                "gateways",
                ours.gateways == statement.gateways,
                ours.gateways.to_string(),
            ),
            (
                "approvers",
                ours.approvers == statement.approvers,
                "differ from the document's".to_owned(),
            ),
        ] {
            if !same {
                refusal = refusal.field(format!("statement.{field}"), format!("here: {what}"));
            }
        }
        return Err(refusal);
    }
    for plan in release.plans.values() {
        tls_ends(plan).map_err(|problem| {
            Refusal::new(Reason::DocumentErrors, problem.clone()).field("documents", problem)
        })?;
    }
    Ok((plant, release))
}

/// The servers whose TLS ends at the gateway of a plan, given as its bytes; or why not, in words.
pub(super) fn tls_ends(plan: &[u8]) -> Result<ServerNames, String> {
    let plan = Plan::from_bytes(plan).map_err(|error| crate::chain(&error))?;
    ServerNames::of_plan(&plan).map_err(|error| error.to_string())
}
