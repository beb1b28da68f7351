//! `release propose | approve | list | show | revert` against a coordinator, which is never believed:
//! everything that is signed was compiled again here, and is shown in words before.

use std::path::Path;

use penstock_policy::ids::{ApproverId, Digest, Revision};
use penstock_policy::model::Plant;
use penstock_policy::release::{self, Draft, Envelope, Statement};
use penstock_proto::refusal::{self, Reason};
use penstock_proto::v1::{
    ApproveReleaseRequest, DocumentFile, GetReleaseRequest, GetReleaseResponse, ListReleasesRequest,
    ProposeReleaseRequest, Release, ReleaseState, Signature, SignedRelease,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Online, digest, malformed, refused};
use crate::args;
use crate::ask;
use crate::documents::Documents;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::keys;
use crate::loading::{self, LoadedPlant};
use crate::offline::changes::Changes;
use crate::offline::check::{FindingLine, findings};
use crate::offline::signing::{self, Stated};
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// One release as the coordinator keeps it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReleaseLine {
    /// Its revision.
    pub revision: u64,
    /// `proposed`, `current`, `superseded` or `unknown`.
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
}

impl ReleaseLine {
    fn of(release: Release) -> Result<Self, Failure> {
        Ok(Self {
            state: match ReleaseState::try_from(release.state) {
                Ok(ReleaseState::Proposed) => "proposed",
                Ok(ReleaseState::Current) => "current",
                Ok(ReleaseState::Superseded) => "superseded",
                Ok(ReleaseState::Unspecified) | Err(_) => "unknown",
            }
            .to_owned(),
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
        })
    }

    fn mark(&self) -> (Tone, String) {
        match self.state.as_str() {
            "current" => (Tone::Good, "● current".to_owned()),
            "proposed" => (Tone::Warn, "○ proposed".to_owned()),
            other => (Tone::Dim, format!("· {other}")),
        }
    }

    fn progress(&self) -> (Tone, String) {
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
    /// What was done, in a word: `shown`, `proposed` or `signed`.
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
            let (tone, state) = self.release.mark();
            let (progress_tone, progress) = self.release.progress();
            page.facts(&[
                ("state    ", page.paint(tone, &state)),
                ("signed   ", page.paint(Tone::Plain, &self.release.signatures())),
                ("enforced ", page.paint(progress_tone, &progress)),
                ("documents", page.paint(Tone::Plain, &self.documents.join(", "))),
            ]);
            return;
        }
        let done = page.paint(Tone::Good, "✓");
        let missing = (self.release.threshold as usize).saturating_sub(self.release.approved_by.len());
        page.line(format!(
            "{done} release r{revision} {}; signatures: {}",
            self.done,
            page.style.paint(Tone::Plain, &self.release.signatures())
        ));
        if self.release.state == "current" {
            page.line("  it is current: gateways are offered it now; follow with `penstock gateways` or `penstock health --watch`");
        } else if missing > 0 {
            page.line(format!(
                "  it waits for {}: penstock release approve {revision} --key FILE",
                words::count(missing, "more signature")
            ));
        }
    }
}

/// A release with its statement, checked to be the one that its digest names.
struct Fetched {
    release: Release,
    statement: Statement,
    signed: SignedRelease,
    documents: Documents,
}

impl Online {
    /// A release by revision, 0 for the current one; `None` if there is no such.
    async fn fetch(&mut self, revision: u64) -> Result<Option<Fetched>, Failure> {
        let answer = match self.client.get_release(GetReleaseRequest { revision }).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if refusal::explain(&status).is(Reason::NotFound) => return Ok(None),
            Err(status) => return Err(refused(&status)),
        };
        let GetReleaseResponse {
            release,
            signed,
            documents,
        } = answer;
        let release = release.ok_or_else(|| malformed("the release is missing"))?;
        let signed = signed.ok_or_else(|| malformed("the signed statement is missing"))?;
        let statement = signing::read_statement(&signed.statement)?;
        if digest("statement_digest", &release.statement_digest)? != Digest::of(&signed.statement) {
            return Err(Failure::altered(
                "digest-mismatch",
                "the coordinator's statement is not the one that its digest names",
            ));
        }
        if statement.plant != self.login.context.plant || (revision != 0 && statement.revision.0 != revision)
        {
            return Err(Failure::altered(
                "wrong-release",
                format!(
                    "asked for r{revision} of {}, got {} of {}",
                    self.login.context.plant, statement.revision, statement.plant
                ),
            ));
        }
        let origin = statement.revision.to_string();
        let documents = documents
            .into_iter()
            .map(|file| (file.name, file.content.to_vec()));
        let documents = Documents::received(&origin, documents);
        Ok(Some(Fetched {
            release,
            statement,
            signed,
            documents,
        }))
    }

    /// The release by revision, or that there is none.
    async fn require(&mut self, revision: u64) -> Result<Fetched, Failure> {
        self.fetch(revision).await?.ok_or_else(|| {
            let what = if revision == 0 {
                "there is no current release yet".to_owned()
            } else {
                format!("there is no release r{revision}")
            };
            Failure::new(Exit::Refused, "NOT_FOUND", what).help("see: penstock release list")
        })
    }
}

/// The plant of a release whose documents are what its statement says.
fn plant_of(fetched: &Fetched, out: &Output) -> Result<LoadedPlant, Failure> {
    let loaded = loading::judge(fetched.documents.clone(), out)?;
    signing::compare(&fetched.statement, &loaded)?;
    Ok(loaded)
}

/// The current release's plant, to compare with. One that cannot be read any more is said, not passed over.
fn base_plant(current: Option<&Fetched>, out: &Output) -> Result<Option<Plant>, Failure> {
    let Some(current) = current else {
        out.remark("there is no current release: everything in this one is new");
        return Ok(None);
    };
    Ok(Some(plant_of(current, out)?.plant))
}

/// `penstock diff PATH --against-current`.
pub async fn diff_current(out: &Output, context: Option<&str>, path: &Path) -> Result<Exit, Failure> {
    let new = loading::load(path, out)?;
    let mut online = Online::connect(context).await?;
    let current = online.fetch(0).await?;
    let old = base_plant(current.as_ref(), out)?;
    out.show(&Changes::between(old.as_ref(), &new.plant)?)?;
    Ok(Exit::Done)
}

/// `penstock release …`.
pub async fn release(out: &Output, context: Option<&str>, args: &args::Release) -> Result<Exit, Failure> {
    match args {
        args::Release::Propose {
            path,
            ticket,
            reason,
            yes,
        } => {
            let loaded = loading::load(path, out)?;
            if out.for_people() && !loaded.diagnostics.is_empty() {
                out.text(&loaded.diagnostics.render(loading::drawing(out)))?;
            }
            let mut online = Online::connect(context).await?;
            let why = Why {
                ticket: ticket.clone(),
                reason: reason.clone(),
                yes: *yes,
            };
            propose(out, &mut online, &loaded, why).await
        }
        args::Release::Revert {
            revision,
            ticket,
            reason,
            yes,
        } => {
            let mut online = Online::connect(context).await?;
            let earlier = online.require(*revision).await?;
            let loaded = plant_of(&earlier, out)?;
            let why = Why {
                ticket: ticket.clone(),
                reason: reason.clone(),
                yes: *yes,
            };
            propose(out, &mut online, &loaded, why).await
        }
        args::Release::Approve { revision, key, yes } => approve(out, context, *revision, key, *yes).await,
        args::Release::List { limit } => {
            let mut online = Online::connect(context).await?;
            let answer = online
                .client
                .list_releases(ListReleasesRequest { limit: *limit })
                .await;
            let releases = answer.map_err(|status| refused(&status))?.into_inner().releases;
            let releases = releases
                .into_iter()
                .map(ReleaseLine::of)
                .collect::<Result<_, _>>()?;
            out.show(&ReleaseList { releases })?;
            Ok(Exit::Done)
        }
        args::Release::Show {
            revision,
            documents,
            save,
            statement,
        } => {
            let mut online = Online::connect(context).await?;
            let fetched = online.require(revision.unwrap_or(0)).await?;
            if let Some(folder) = documents {
                write_documents(&fetched.documents, folder)?;
            }
            if let Some(file) = save {
                files::create(file, envelope(&fetched)?.to_json().as_bytes(), Mode::Shared)?;
            }
            if let Some(file) = statement {
                files::create(file, &fetched.signed.statement, Mode::Shared)?;
            }
            out.show(&shown(&fetched, "shown", None)?)?;
            Ok(Exit::Done)
        }
        args::Release::Sign {
            statement,
            key,
            approver,
            documents,
            out: file,
            yes,
        } => {
            let request = signing::SignRequest {
                statement,
                key,
                approver,
                documents,
                out: file,
                yes: *yes,
            };
            signing::sign(out, &request)
        }
        args::Release::Verify {
            file,
            approvers,
            documents,
        } => signing::verify(out, file, approvers, documents.as_deref()),
    }
}

fn shown(
    fetched: &Fetched,
    done: &str,
    compared: Option<(Changes, Vec<FindingLine>)>,
) -> Result<ReleaseShown, Failure> {
    let (changes, findings) = compared.unzip();
    Ok(ReleaseShown {
        release: ReleaseLine::of(fetched.release.clone())?,
        statement: Stated::of(&fetched.statement, &fetched.signed.statement),
        changes,
        findings: findings.unwrap_or_default(),
        done: done.to_owned(),
        documents: fetched
            .documents
            .files
            .iter()
            .map(|file| file.name.clone())
            .collect(),
    })
}

fn envelope(fetched: &Fetched) -> Result<Envelope, Failure> {
    let mut envelope = Envelope {
        statement: fetched.signed.statement.to_vec(),
        signatures: Vec::new(),
    };
    for signature in &fetched.signed.signatures {
        let approver = ApproverId::new(&signature.approver).map_err(|error| malformed(&error.to_string()))?;
        let signature = release::Signature::new(approver, &signature.signature)
            .map_err(|error| malformed(&error.to_string()))?;
        envelope.add(signature);
    }
    Ok(envelope)
}

/// Writes documents below `folder`; names that would lead out of it are refused.
fn write_documents(documents: &Documents, folder: &Path) -> Result<(), Failure> {
    for file in &documents.files {
        let name = Path::new(&file.name);
        if name
            .components()
            .any(|part| !matches!(part, std::path::Component::Normal(_)))
        {
            return Err(malformed(&format!("a document is named `{}`", file.name)));
        }
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(|source| files::FileError::Write {
            path: parent.to_owned(),
            source,
        })?;
        files::create(&path, &file.content, Mode::Shared)?;
    }
    Ok(())
}

/// Why something is proposed.
struct Why {
    ticket: Option<String>,
    reason: String,
    yes: bool,
}

async fn propose(out: &Output, online: &mut Online, loaded: &LoadedPlant, why: Why) -> Result<Exit, Failure> {
    if loaded.plant.id != online.login.context.plant {
        return Err(Failure::usage(format!(
            "the document is of plant {}, the login of plant {}",
            loaded.plant.id, online.login.context.plant
        ))
        .help("name another login with --context"));
    }
    let current = online.fetch(0).await?;
    if let Some(current) = current
        .as_ref()
        .filter(|current| current.statement.document_digest == loaded.digest)
    {
        return Err(Failure::usage(format!(
            "nothing to propose: release {} has exactly this document, and is current",
            current.statement.revision
        )));
    }
    let old = base_plant(current.as_ref(), out)?;
    let changes = Changes::between(old.as_ref(), &loaded.plant)?;
    let findings = findings(&loaded.plant, old.as_ref())?;
    if out.for_people() {
        let mut page = Page::new(out.style);
        changes.page(&mut page);
        page.gap();
        findings.iter().for_each(|finding| finding.page(&mut page));
        page.gap();
        out.text(&page.finish())?;
    }
    // A release follows the current one; a proposal that still waits for signatures gives way to a newer one.
    let revision = current.as_ref().map_or(0, |current| current.statement.revision.0) + 1;
    ask::confirm(out, why.yes, &format!("Propose this as release r{revision}?"))?;
    let draft = Draft {
        revision: Revision(revision),
        parent: current
            .as_ref()
            .map(|current| Digest::of(&current.signed.statement)),
        document_digest: loaded.digest,
        author: online.login.context.operator.clone(),
        ticket: why.ticket,
        reason: why.reason,
        created_ms: words::now_ms(),
    };
    let built = release::build(&loaded.plant, draft).map_err(|error| {
        Failure::new(
            Exit::BadDocument,
            "not-released",
            "no release can be made of this document",
        )
        .caused_by(&error)
    })?;
    let statement = built.statement.to_bytes();
    let documents = loaded.documents.files.iter().map(|file| DocumentFile {
        name: file.name.clone(),
        content: file.content.clone().into(),
    });
    let request = ProposeReleaseRequest {
        statement: statement.clone().into(),
        documents: documents.collect(),
    };
    let waiting = ask::waiting(out, "the coordinator compiles the release again");
    let answer = online
        .client
        .propose_release(request)
        .await
        .map_err(|status| refused(&status))?
        .into_inner();
    drop(waiting);
    out.show(&ReleaseShown {
        statement: Stated::of(&built.statement, &statement),
        release: ReleaseLine::of(answer)?,
        changes: Some(changes),
        findings,
        done: "proposed".to_owned(),
        documents: loaded
            .documents
            .files
            .iter()
            .map(|file| file.name.clone())
            .collect(),
    })?;
    Ok(Exit::Done)
}

async fn approve(
    out: &Output,
    context: Option<&str>,
    revision: u64,
    key: &Path,
    yes: bool,
) -> Result<Exit, Failure> {
    let key = keys::read(key)?;
    let mut online = Online::connect(context).await?;
    let fetched = online.require(revision).await?;
    let loaded = plant_of(&fetched, out)?;
    let current = online.fetch(0).await?;
    // What is shown as the change must be the change from what this release was made on top of.
    let base = current
        .as_ref()
        .map(|current| Digest::of(&current.signed.statement));
    if fetched.statement.parent != base {
        let on_top =
            |digest: Option<Digest>| digest.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string());
        return Err(Failure::new(
            Exit::Refused,
            "PARENT_MISMATCH",
            format!("release r{revision} was not made on top of the current one"),
        )
        .because(format!(
            "it was made on top of {}",
            on_top(fetched.statement.parent)
        ))
        .because(format!("current is {}", on_top(base)))
        .help("its author has to propose it again"));
    }
    let approver = ApproverId::new(online.login.context.operator.as_str())
        .map_err(|error| Failure::usage(error.to_string()))?;
    signing::may_sign(&fetched.statement, &approver, &key)?;
    let old = base_plant(current.as_ref(), out)?;
    let changes = Changes::between(old.as_ref(), &loaded.plant)?;
    let findings = findings(&loaded.plant, old.as_ref())?;
    if out.for_people() {
        let mut page = Page::new(out.style);
        Stated::of(&fetched.statement, &fetched.signed.statement).page(&mut page);
        page.gap();
        changes.page(&mut page);
        page.gap();
        findings.iter().for_each(|finding| finding.page(&mut page));
        page.gap();
        let done = page.paint(Tone::Good, "✓");
        page.line(format!(
            "{done} compiled here: its documents say exactly what it states"
        ));
        out.text(&page.finish())?;
    }
    ask::confirm(out, yes, &format!("Sign release r{revision} as {approver}?"))?;
    let signature = key
        .sign(approver.clone(), &fetched.signed.statement)
        .map_err(|error| {
            Failure::altered("statement-unusable", "the statement cannot be signed").caused_by(&error)
        })?;
    let request = ApproveReleaseRequest {
        revision,
        statement_digest: Digest::of(&fetched.signed.statement).0.to_vec().into(),
        signature: Some(Signature {
            approver: approver.to_string(),
            signature: signature.bytes.to_vec().into(),
        }),
    };
    let answer = online
        .client
        .approve_release(request)
        .await
        .map_err(|status| refused(&status))?
        .into_inner();
    let fetched = Fetched {
        release: answer,
        ..fetched
    };
    out.show(&shown(&fetched, "signed", Some((changes, findings)))?)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_document_that_would_be_written_elsewhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../up.yaml", "/etc/x.yaml", "a/../../b.yaml"] {
            let documents = Documents::received("r1", [(name.to_owned(), b"x".to_vec())]);
            assert_eq!(
                write_documents(&documents, folder.path()).unwrap_err().exit,
                Exit::Altered,
                "{name}"
            );
        }
        let documents = Documents::received("r1", [("zones/a.yaml".to_owned(), b"x".to_vec())]);
        write_documents(&documents, folder.path()).unwrap();
        assert_eq!(std::fs::read(folder.path().join("zones/a.yaml")).unwrap(), b"x");
    }
}
