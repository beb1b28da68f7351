//! `release propose` and `release revert`: a document becomes a release that waits for its signatures.

use penstock_policy::ids::{Digest, Revision};
use penstock_policy::release::{self, Draft};
use penstock_proto::v1::{DocumentFile, ProposeReleaseRequest};

use super::super::{Online, refused};
use super::fetched::base_plant;
use super::report::{ReleaseLine, ReleaseShown};
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::loading::LoadedPlant;
use crate::offline::changes::Changes;
use crate::offline::check::findings;
use crate::offline::signing::Stated;
use crate::output::{Output, Page, Report as _};
use crate::words;

/// Why something is proposed.
pub(super) struct Why {
    pub(super) ticket: Option<String>,
    pub(super) reason: String,
    /// Also the current release's own document.
    pub(super) again: bool,
    pub(super) yes: bool,
}

pub(super) async fn propose(
    out: &Output,
    online: &mut Online,
    loaded: &LoadedPlant,
    why: Why,
) -> Result<Exit, Failure> {
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
        .filter(|current| current.statement.document_digest == loaded.digest && !why.again)
    {
        return Err(Failure::usage(format!(
            "nothing to propose: release {} has exactly this document, and is current",
            current.statement.revision
        ))
        .help("--again proposes it under the next number, for gateways that are ahead of a restored coordinator"));
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
