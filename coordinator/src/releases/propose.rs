//! Proposing: the coordinator compiles the documents itself and takes only a statement that says the same.

use penstock_policy::ids::{Digest, OperatorId};
use penstock_policy::model::Plant;
use penstock_policy::plan::Plan;
use penstock_policy::release::{DocumentFile, Draft, Release, Statement, build, document_digest};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1;

use super::{Recorded, ReleaseRecord, Releases, document, key_of};
use crate::health::boundaries;
use crate::store::Expect;

impl Releases {
    /// Records a proposal. The same statement again is answered with what is recorded.
    pub async fn propose(
        &self,
        author: &OperatorId,
        statement_bytes: &[u8],
        documents: Vec<v1::DocumentFile>,
        now_ms: u64,
    ) -> Result<Recorded, Refusal> {
        let statement = Statement::from_bytes(statement_bytes).map_err(|error| {
            Refusal::new(Reason::BadRequest, crate::chain(&error)).field("statement", error.to_string())
        })?;
        self.check_place(author, &statement)?;
        let revision = statement.revision;
        let found = self.find(revision).await?;
        if let Some(found) = &found {
            if found.digest == Digest::of(statement_bytes) {
                return Ok(found.clone());
            }
            if found.record.approved_ms.is_some() {
                return Err(Refusal::new(
                    Reason::RevisionTaken,
                    format!("{revision} is approved already; make the change on top of it"),
                ));
            }
        }
        let work = tokio::task::spawn_blocking(move || {
            let (plant, release) = compile(&statement, &documents, now_ms)?;
            Ok::<_, Refusal>((statement, documents, plant, release))
        });
        let (statement, documents, plant, release) = work
            .await
            .map_err(|_| Refusal::new(Reason::Internal, "compiling the documents failed"))??;

        let record = ReleaseRecord {
            statement: String::from_utf8(statement_bytes.to_vec())
                .map_err(|_| Refusal::new(Reason::BadRequest, "the statement is not text"))?,
            signatures: std::collections::BTreeMap::new(),
            documents: documents
                .iter()
                .map(|file| (file.name.clone(), Digest::of(&file.content)))
                .collect(),
            plans: release
                .plans
                .iter()
                .map(|(gateway, plan)| (gateway.clone(), Digest::of(plan)))
                .collect(),
            zones: boundaries(&plant),
            proposed_ms: now_ms,
            approved_ms: None,
        };
        let mut blobs: Vec<Vec<u8>> = documents.into_iter().map(|file| file.content.into()).collect();
        blobs.extend(release.plans.into_values());
        self.store.put_blobs(blobs).await?;
        let expect = found.map_or(Expect::Absent, |found| Expect::Revision(found.stored_at));
        let stored_at = self.store.put_json(&key_of(revision), expect, &record).await?;
        Ok(Recorded {
            digest: Digest::of(statement_bytes),
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
        let (next, parent) = self.next();
        if statement.revision != next {
            return Err(Refusal::new(
                Reason::RevisionTaken,
                format!(
                    "the release is {}, the next one is {next}; build it again",
                    statement.revision
                ),
            )
            .condition("revision", format!("{next} is next")));
        }
        if statement.parent != parent {
            return Err(Refusal::new(
                Reason::ParentMismatch,
                "the release was made on top of another one than the current; look at what changed, and build it again",
            )
            .condition("parent", parent.map_or("none".to_owned(), |digest| digest.to_string())));
        }
        Ok(())
    }
}

/// Most documents in one proposal.
const DOCUMENTS_MAX: usize = 1000;

/// Compiles the documents and compares what comes of them with the statement.
fn compile(
    statement: &Statement,
    documents: &[v1::DocumentFile],
    now_ms: u64,
) -> Result<(Plant, Release), Refusal> {
    if documents.is_empty() || documents.len() > DOCUMENTS_MAX {
        return Err(Refusal::new(
            Reason::BadRequest,
            format!("a release comes with 1 to {DOCUMENTS_MAX} document files"),
        )
        .field("documents", format!("has {}", documents.len())));
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
