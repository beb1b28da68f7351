//! `release propose | approve | list | show | revert` against a coordinator, which is never believed:
//! everything that is signed was compiled again here, and is shown in words before.

mod approve;
mod fetched;
mod propose;
mod report;

use std::path::Path;

use penstock_proto::v1::ListReleasesRequest;

pub use self::report::{ReleaseLine, ReleaseList, ReleaseShown};

use self::approve::approve;
use self::fetched::{Fetched, base_plant, envelope, plant_of, write_documents};
use self::propose::{Why, propose};
use super::{Online, refused};
use crate::args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::loading;
use crate::offline::changes::Changes;
use crate::offline::check::FindingLine;
use crate::offline::signing::{self, Stated};
use crate::output::Output;

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
            again,
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
                again: *again,
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
                again: false,
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
