//! `release approve`: what is signed was compiled again here, and its change is shown before.

use std::path::Path;

use penstock_policy::ids::{ApproverId, Digest};
use penstock_proto::v1::{ApproveReleaseRequest, Signature};

use super::super::{Online, refused};
use super::fetched::{Fetched, base_plant, plant_of};
use super::shown;
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::keys;
use crate::offline::changes::Changes;
use crate::offline::check::findings;
use crate::offline::signing::{self, Stated};
use crate::output::{Output, Page, Report as _, Tone};

pub(super) async fn approve(
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
